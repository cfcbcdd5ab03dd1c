import re
import struct

import numpy as np
import pytest
from binary_samples import instruction, sample, slow_champsim
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.trace import buffer, champsim, import_trace, open_trace
from mmu.trace.importer import FORMATS, chosen
from mmu.trace.source import Source

READERS = {64: champsim.read_champsim, 96: champsim.read_cloudsuite}
IP = st.one_of(st.integers(1, (1 << 47) - 1), st.integers((1 << 64) - (1 << 47), (1 << 64) - 1))
OPERAND = st.one_of(st.just(0), IP)
ANY = st.one_of(
    st.sampled_from([0, 1 << 47, (1 << 47) - 1, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1)
)
OCTETS = st.integers(0, 255)


def records(cloudsuite, ip=IP, operand=OPERAND):
    most = 4 if cloudsuite else 2
    return st.builds(
        lambda ip, reads, writes, branch, registers, asid: instruction(
            ip, reads, writes, branch, registers, asid if cloudsuite else None
        ),
        ip,
        st.lists(operand, max_size=4),
        st.lists(operand, max_size=most),
        st.tuples(OCTETS, OCTETS),
        st.lists(OCTETS, max_size=most + 4),
        st.tuples(OCTETS, OCTETS),
    )


def parsed(data, size, piece=None):
    """Accesses as `slow_champsim` gives them, fed in pieces of some length; or a record's number."""
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)] if piece else [data]
    source = Source("trace", b"", iter(pieces))
    accesses = []
    try:
        for part in READERS[size](source):
            space = [None] * len(part.kind) if part.space is None else part.space.tolist()
            names = {space: process for process, space in source.notes.spaces.items()}
            owner = [names.get(space) for space in space]
            address = part.address.view(np.uint64).tolist()
            accesses += zip(address, part.kind.tolist(), part.size.tolist(), owner, strict=True)
    except InputError as error:
        return int(re.match(r"trace: record (\d+) at byte", str(error))[1])
    return accesses


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(), size=st.sampled_from([64, 96]), piece=st.one_of(st.none(), st.integers(1, 200))
)
def test_records_are_read_as_the_slow_reader_reads_them(data, size, piece):
    drawn = data.draw(st.lists(records(size == 96), min_size=1, max_size=12))
    trace = b"".join(drawn)
    found = parsed(trace, size, piece)
    assert found == slow_champsim(trace, size == 96)
    assert isinstance(found, list)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=st.sampled_from([64, 96]), cut=st.integers(0, 95))
def test_a_record_that_cannot_be_is_refused_by_its_number(data, size, cut):
    drawn = data.draw(st.lists(records(size == 96, ANY, ANY), min_size=1, max_size=6))
    trace = b"".join(drawn)
    trace = trace[: max(len(trace) - cut, 1)]
    assert parsed(trace, size) == slow_champsim(trace, size == 96)


@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("room", range(9, 24))
def test_a_full_part_makes_way_for_the_next_one(size, room, monkeypatch):
    monkeypatch.setattr(buffer, "RECORDS", room)
    monkeypatch.setattr(buffer, "CAPACITY", 10 * 96)
    trace = sample({64: "champsim", 96: "cloudsuite"}[size], 60)
    asid, writes = (None, 2) if size == 64 else ((1, 2), 4)
    full = instruction(1, [2] * 4, [3] * writes, asid=asid)  # the most that a record holds
    some = instruction(1, [2], asid=asid)
    for records in (trace, full * 9, (full + some) * 9, (some * 2 + full) * 5):
        assert parsed(records, size) == slow_champsim(records, size == 96)


def test_an_instruction_is_a_fetch_then_reads_then_writes():
    trace = instruction(0x401000, [0x5000, 0, 0x6000], [0, 0x7000])
    assert parsed(trace, 64) == [
        (0x401000, 2, 0, None),
        (0x5000, 0, 0, None),
        (0x6000, 0, 0, None),
        (0x7000, 1, 0, None),
    ]


def test_the_two_asids_are_the_processes_of_fetches_and_of_data(tmp_path):
    trace = instruction(0x401000, [0x5000], [0x7000], asid=(9, 4)) * 2
    (tmp_path / "t").write_bytes(trace)
    made = import_trace(tmp_path / "t", tmp_path / "t.parquet", "cloudsuite")
    assert made.metadata["processes"] == {"0": 9, "1": 4}
    assert parsed(trace, 96)[:3] == [(0x401000, 2, 0, 9), (0x5000, 0, 0, 4), (0x7000, 1, 0, 4)]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (instruction(0), "record 1 at byte 64: 00 00 00 00 .*: the ip is 0"),
        (
            instruction(1 << 47),
            "record 1 at byte 64: 00 00 00 00 00 80 00 00 .*: the ip: the address",
        ),
        (
            instruction(1, [1 << 63]),
            "record 1 at byte 64: .*: a memory operand: the address is not",
        ),
        (instruction(1, [], [0, 1 << 47]), "a memory operand: the address is not canonical"),
        (
            b"\1" * 63,
            r"record 1 at byte 64: (01 ?){16}\.\.\.: 63 of 64 bytes: the record is cut off",
        ),
    ],
)
def test_the_message_has_number_place_and_content(tmp_path, record, text):
    (tmp_path / "t").write_bytes(instruction(0x401000) + record)
    with pytest.raises(InputError, match=text) as refused:
        import_trace(tmp_path / "t", tmp_path / "out", "champsim")
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 200, 20_000])
@pytest.mark.parametrize("name", ["champsim", "cloudsuite"])
def test_a_trace_is_recognised_however_short(name, count):
    assert chosen(None, sample(name, count)[: 1 << 20], "t") == name


@pytest.mark.parametrize("name", ["dynamorio", "gem5", "champsim", "cloudsuite"])
@pytest.mark.parametrize("count", [1, 4, 5, 11, 19, 400])
@pytest.mark.parametrize("seed", range(5))
def test_no_binary_trace_is_taken_for_one_of_another_format(name, count, seed):
    data = sample(name, count, seed)
    assert [key for key, format in FORMATS.items() if format.recognised(data)] == [name]


def test_what_may_be_either_is_refused_and_the_user_asked(tmp_path):
    even = instruction(0x401000, [0x401000] * 4, [0x401000] * 2)
    both = struct.pack(
        "<24Q",
        *[0x401000, 0, 0, *[0] * 5, 0x401000, 0, 0, 0, 0x401000, 0, 0, 0, 0x401000, *[0] * 7],
    )
    assert champsim.recognised_champsim(even)
    assert not champsim.recognised_cloudsuite(even)
    assert champsim.recognised_champsim(both)
    assert champsim.recognised_cloudsuite(both)
    (tmp_path / "t").write_bytes(both)
    with pytest.raises(InputError, match="may be champsim or cloudsuite; say which with --format"):
        import_trace(tmp_path / "t", tmp_path / "out")
    assert import_trace(tmp_path / "t", tmp_path / "out", "champsim").fetches == 3
    assert import_trace(tmp_path / "t", tmp_path / "out", "cloudsuite").fetches == 2


@pytest.mark.parametrize(
    "wrong",
    [
        instruction(0),
        instruction(1 << 50),
        instruction(1, [1 << 48]),
        instruction(1, [], [1 << 48]),
        instruction(1, branch=(2, 0)),
        instruction(1, branch=(0, 1)),
        instruction(1, branch=(1, 2)),
        b"",
        b"I  04,3\n" * 8,
        b"\0" * 64,
        b"\xff" * 64,
    ],
)
def test_what_cannot_be_an_instruction_is_not_recognised(wrong):
    assert not champsim.recognised_champsim(instruction(1) * 5 + wrong * 1 if wrong else wrong)
    assert not champsim.recognised_champsim(wrong)


@pytest.mark.parametrize("octet", [18, 23, 90, 95])
def test_padding_that_is_not_zero_makes_a_record_one_of_another_format(octet):
    data = bytearray(sample("cloudsuite", 5))
    data[octet] = 1
    assert not champsim.recognised_cloudsuite(bytes(data))


def test_the_trace_written_has_sizes_that_are_not_known(tmp_path):
    (tmp_path / "t").write_bytes(sample("champsim"))
    import_trace(tmp_path / "t", tmp_path / "t.parquet")
    trace = open_trace(tmp_path / "t.parquet")
    assert trace.metadata["tool"] == "ChampSim"
    assert trace.metadata["format"] == "champsim"
    assert trace.fetches == 200
