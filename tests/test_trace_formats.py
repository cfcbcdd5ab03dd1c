"""What all formats have in common."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from slow_formats import SLOW
from trace_formats import SAMPLES, format_of

from mmu.errors import InputError
from mmu.trace import lines
from mmu.trace.importer import FORMATS, chosen
from mmu.trace.source import Source

EVERY = pytest.mark.parametrize("sample", SAMPLES)
TEXT = pytest.mark.parametrize("sample", [name for name in SAMPLES if format_of(name) in SLOW])


def read(name, data, piece=None, columns=None):
    """Accesses of a file's content as (address, kind, size, process, thread), or the bad line."""
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)] if piece else [data]
    source = Source("trace", data[: 1 << 20], iter(pieces), columns=columns or {})
    accesses = []
    try:
        for part in FORMATS[name].read(source):
            nothing = [None] * len(part.kind)
            process = {space: process for process, space in source.notes.spaces.items()}
            accesses += zip(
                part.address.view(np.uint64).tolist(),
                part.kind.tolist(),
                [0] * len(part.kind) if part.size is None else part.size.tolist(),
                nothing if part.space is None else [process[s] for s in part.space.tolist()],
                nothing if part.thread is None else part.thread.tolist(),
                strict=True,
            )
    except InputError as error:
        message = str(error)
        assert "\n" not in message
        assert message.startswith("trace: ")
        found = re.match(r"trace: line (\d+): ", message)
        return int(found[1]) if found else message
    return accesses


@EVERY
@pytest.mark.parametrize("records", [1, 5, 300])
@pytest.mark.parametrize("ends", ["unix", "windows"])
def test_exactly_one_format_is_recognised(sample, records, ends):
    data = SAMPLES[sample](records)
    if ends == "windows" and lines.first_lines(data):
        data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = [name for name, each in FORMATS.items() if each.recognised(data)]
    assert found == [format_of(sample)]
    columns = sample == "parquet"  # without a map the user is told of a trace that needs no import
    assert chosen(None, data, "trace", columns) == format_of(sample)


@EVERY
def test_a_file_cut_in_its_middle_is_recognised_as_no_other_format(sample):
    data = SAMPLES[sample](40)
    for length in range(1, len(data), 97):
        found = [name for name, each in FORMATS.items() if each.recognised(data[:length])]
        assert found in ([], [format_of(sample)])


def test_every_format_has_a_sample():
    assert {format_of(sample) for sample in SAMPLES} == set(FORMATS)


MARKS = (b"gem5", b"PAR1", b"\x19\0\0\0")  # what formats of bytes begin with


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_rubbish_is_no_format(data):
    assume(data[:4] not in MARKS)
    assert [name for name, each in FORMATS.items() if each.recognised(data)] == []


@pytest.mark.parametrize("seed", range(20))
def test_a_megabyte_of_rubbish_is_no_format(seed):
    data = np.random.default_rng(seed).bytes(1 << 16)
    assert [name for name, each in FORMATS.items() if each.recognised(data)] == []


@pytest.mark.parametrize(
    "text",
    [
        "hello, world\n",
        "1\n2\n3\n",
        "a,b,c\n1,2,3\n",
        "0x1234 R\n",
        "# a comment\n",
        "{}\n",
        "\n\n",
    ],
)
def test_other_texts_are_no_format(text):
    assert [name for name, each in FORMATS.items() if each.recognised(text.encode())] == []


@TEXT
@pytest.mark.parametrize("piece", [None, 61, 4096])
def test_a_sample_is_read_as_the_slow_reader_reads_it(sample, piece):
    data = SAMPLES[sample](400, seed=3)
    expected = SLOW[format_of(sample)](data)
    assert len(expected) > 100
    assert read(format_of(sample), data, piece) == expected


@TEXT
@pytest.mark.parametrize("records", [4, 5, 6, 7])
def test_a_part_that_is_full_makes_way_for_the_next(sample, records, monkeypatch):
    monkeypatch.setattr(lines, "RECORDS", records)
    data = SAMPLES[sample](60, seed=4)
    assert read(format_of(sample), data, 1000) == SLOW[format_of(sample)](data)


# What a mutated line may hold besides what it held: the letters that mean something somewhere.
LETTERS = b" \t\n\r0189afxXrwLSTW.,:;|/#\"'<>=-+[]()\0\xff"
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 1 << 30),
        st.sampled_from(["flip", "put", "insert", "take", "cut", "repeat"]),
        st.integers(0, 1 << 10),
    ),
    min_size=1,
    max_size=3,
)


def mutated(data, mutations):
    """A file's content after some changes of single bytes or short pieces."""
    data = bytearray(data)
    for anywhere, what, value in mutations:
        place = anywhere % max(len(data), 1)
        letter = LETTERS[value % len(LETTERS)]
        if what == "flip":
            data[place : place + 1] = bytes([data[place] ^ 1 << value % 8]) if data else b""
        elif what == "put":
            data[place : place + 1] = bytes([letter])
        elif what == "insert":
            data[place:place] = bytes([letter])
        elif what == "take":
            del data[place : place + 1 + value % 20]
        elif what == "cut":
            del data[place:]
        else:
            data[place:place] = data[place : place + value % 60]
    return bytes(data)


@TEXT
@settings(max_examples=60, deadline=None)
@given(records=st.integers(3, 12), seed=st.integers(0, 5), changes=MUTATIONS)
def test_a_damaged_sample_is_read_as_the_slow_reader_reads_it(sample, records, seed, changes):
    data = mutated(SAMPLES[sample](records, seed), changes)
    found = read(format_of(sample), data)
    if isinstance(found, str):  # the line that names the columns is damaged
        assert "no line names the columns" in found or "columns are separated by" in found
    else:
        assert found == SLOW[format_of(sample)](data)
