"""Every format that can be imported, with its samples damaged: refused in one line, or read right.

Whoever adds a format adds a sample to `trace_formats.py`, and a slow reader to `slow_formats.py` if
what a damaged file holds can be said; the rest follows.
"""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_formats import SLOW
from test_trace_formats import LETTERS, MUTATIONS, mutated
from trace_formats import SAMPLES, format_of, lackey

from mmu.errors import InputError
from mmu.trace import import_trace
from mmu.trace.importer import FORMATS

PACKERS = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}
LONGEST_MESSAGE = 500


def imported(data, name=None, compact=False):
    """The accesses of a file with this content, or why it is refused; nothing else may happen."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "trace"), Path(folder, "out.parquet")
        path.write_bytes(data)
        try:
            made = import_trace(path, out, name, compact)
        except InputError as error:
            message = str(error)
            assert "\n" not in message
            assert str(path) in message
            assert len(message) < LONGEST_MESSAGE
            assert os.listdir(folder) == ["trace"]
            return message
        assert sorted(os.listdir(folder)) == ["out.parquet", "trace"]
        if compact:
            return made.accesses
        table = pq.read_table(out).to_pydict()
        numbers = {int(space): pid for space, pid in made.metadata.get("processes", {}).items()}
        nothing = [None] * made.accesses
        spaces = [numbers[space] for space in table["space"]] if "space" in table else nothing
        threads = table.get("thread", nothing)
        columns = (table["address"], table["kind"], table["size"], spaces, threads)
        return list(zip(*columns, strict=True))


def check(sample, data):
    """Import a damaged sample as the format it was, and as what it looks like."""
    name = format_of(sample)
    found = imported(data, name)
    imported(data)
    imported(data, name, compact=True)
    unread = ("data that cannot be read", "no line names the columns", "columns are separated by")
    if name not in SLOW or any(reason in found for reason in unread):
        return
    expected = SLOW[name](data)
    if isinstance(expected, int):
        assert f"trace: line {expected}: " in found
    elif not expected:
        assert "is empty" in found or "holds no accesses" in found or not data
    else:
        assert found == expected


PIECES = st.tuples(st.sampled_from(sorted(SAMPLES)), st.integers(0, 1 << 12), st.integers(1, 300))
DAMAGE = st.tuples(
    st.integers(2, 8),  # records
    st.integers(0, 3),  # the sample's seed
    MUTATIONS,
    st.lists(st.tuples(st.integers(0, 1 << 12), PIECES), max_size=1),
)


def damaged(sample, damage):
    """A sample with some bytes changed, and perhaps a piece of another format put in."""
    records, seed, mutations, pieces = damage
    data = mutated(SAMPLES[sample](records, seed), mutations)
    for anywhere, (other, begin, length) in pieces:
        place = anywhere % (len(data) + 1)
        source = SAMPLES[other](4)
        first = begin % len(source)
        data = data[:place] + source[first : first + length] + data[place:]
    return data


EVERY = pytest.mark.parametrize("sample", sorted(SAMPLES))


@EVERY
@settings(max_examples=8, deadline=None)
@given(damage=DAMAGE)
def test_a_damaged_file_is_refused_in_one_line_or_read_right(sample, damage):
    check(sample, damaged(sample, damage))


@pytest.mark.fuzz
@EVERY
@settings(max_examples=120, deadline=None)
@given(damage=DAMAGE)
def test_many_damaged_files_are_refused_in_one_line_or_read_right(sample, damage):
    check(sample, damaged(sample, damage))


@pytest.mark.fuzz
@pytest.mark.parametrize("name", sorted(FORMATS))
@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.text(LETTERS.decode("latin-1"), max_size=200)))
def test_rubbish_as_any_format_is_refused_or_read_right(name, data):
    data = data if isinstance(data, bytes) else data.encode("latin-1")
    check(name, data)


@pytest.mark.parametrize("packer", PACKERS)
@settings(max_examples=15, deadline=None)
@given(sample=st.sampled_from(sorted(SAMPLES)), mutations=MUTATIONS)
def test_a_damaged_packed_file_is_refused_in_one_line_or_read(packer, sample, mutations):
    imported(mutated(PACKERS[packer](SAMPLES[sample](30)), mutations), format_of(sample))


@pytest.mark.parametrize("sample", sorted(SAMPLES))
@pytest.mark.parametrize("content", [b"", b"\n", b"\0", b" ", b"\r\n\r\n", b"\xff" * 100, b"0"])
def test_next_to_nothing_is_refused(sample, content):
    assert isinstance(imported(content, format_of(sample)), str)


# In a process of its own, with a limit to its memory: the files are far larger than that when unpacked.
CHILD = """
import json, resource, sys, time
from mmu.errors import InputError
from mmu.trace import import_trace
from mmu.trace.importer import FORMATS

resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30))
import_trace(sys.argv[1], "out.parquet")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    for name in (None, *FORMATS):
        began, message = time.process_time(), ""
        try:
            import_trace(path, "bomb.parquet", name)
        except InputError as error:
            message = str(error)
        print(json.dumps([path, name, message, time.process_time() - began]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
MEBIBYTE = 1 << 20
BOMBS = {"zeros": (b"\0", b"\0"), "blanks": (b"2 10\n", b" "), "digits": (lackey(100), b"1")}


@pytest.mark.slow
def test_files_of_gigabytes_in_one_line_are_refused_in_little_memory_and_time(tmp_path):
    (tmp_path / "good").write_bytes(SAMPLES["lackey"](100))
    paths = []
    for packer, pack in PACKERS.items():
        for what, (start, letter) in BOMBS.items():
            packed = pack(start) + pack(letter * MEBIBYTE) * 2048
            paths.append(tmp_path / f"{what}.{packer}")
            paths[-1].write_bytes(packed)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, "good", *(path.name for path in paths)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-1000:]
    *lines, growth = child.stdout.splitlines()
    assert len(lines) == len(paths) * (1 + len(FORMATS))
    for path, name, message, seconds in map(json.loads, lines):
        assert message.startswith(f"{path}: "), (path, name)
        assert len(message) < LONGEST_MESSAGE
        assert seconds < 5, (path, name)
    assert int(growth) < 300 << 10  # kibibytes
    assert not (tmp_path / "bomb.parquet").exists()
