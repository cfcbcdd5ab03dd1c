import re

import numpy as np
import pytest
from binary_samples import HEADER, field, gem5, message, number, packet, slow_gem5
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.trace import gem5 as reader
from mmu.trace import import_trace
from mmu.trace.source import Source

ADDRESS = st.one_of(
    st.integers(0, (1 << 47) - 1),
    st.sampled_from([4095, (1 << 47) - 1, 1 << 47, (1 << 64) - 1, (1 << 64) - 8]),
)
PACKET = st.tuples(
    st.sampled_from([1, 1, 1, 4, 4, 0, 24, 63, 64, 1 << 31, (1 << 32) + 4]),
    ADDRESS,
    st.one_of(
        st.integers(1, 64), st.sampled_from([0, 4096, 4097, 1 << 31, 0x1_0008, (1 << 32) + 8])
    ),
    st.sampled_from([0, 0x100, 0x120, 0x200, 0xFFFF_FFFF]),
)
UNKNOWN = st.one_of(
    st.just(b""),
    st.builds(field, st.integers(7, 1 << 28), st.integers(0, (1 << 64) - 1)),
    st.builds(field, st.integers(6, 200), st.binary(max_size=20)),
    st.builds(
        lambda name, value: field(name, ("fixed", value)),
        st.integers(8, 99),
        st.sampled_from([b"abcd", b"abcdefgh"]),
    ),
)


def parsed(data, piece=None):
    """Accesses, from the reader under test, fed in pieces of some length; or a message's number."""
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)] if piece else [data]
    accesses = []
    try:
        for part in reader.read_gem5(Source("trace", b"", iter(pieces))):
            columns = (part.address.view(np.uint64), part.kind, part.size)
            accesses += zip(*(column.tolist() for column in columns), strict=True)
    except InputError as error:
        return int(re.match(r"trace: record (\d+) at byte", str(error))[1])
    return accesses


@settings(max_examples=150, deadline=None)
@given(
    packets=st.lists(st.tuples(PACKET, UNKNOWN), max_size=20),
    piece=st.one_of(st.none(), st.integers(1, 60)),
)
def test_packets_are_read_as_the_slow_reader_reads_them(packets, piece):
    trace = gem5(*(packet(*each, more=more) for each, more in packets))
    assert parsed(trace, piece) == slow_gem5([each for each, _ in packets])


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(1, 400), piece=st.one_of(st.none(), st.integers(1, 60)))
def test_a_trace_that_is_cut_off_is_refused_by_its_last_message(cut, piece):
    packets = [(1, 0x1000 + 64 * i, 8, 0) for i in range(10)]
    messages = [packet(*each) for each in packets]
    trace = gem5(*messages)
    cut = cut % (len(trace) - 4 - len(HEADER)) + 4 + len(HEADER)
    ends = [4 + len(HEADER)]
    for each in messages:
        ends.append(ends[-1] + len(each))
    whole = sum(end <= cut for end in ends) - 1
    expected = slow_gem5(packets[:whole]) if cut in ends else whole + 1
    assert parsed(trace[:cut], piece) == expected


@pytest.mark.parametrize("fields", [(2, 3, 4), (1, 3, 4), (1, 2, 4), (1, 2, 3), ()])
def test_a_packet_without_its_fields_is_refused(fields):
    short = message(*(field(name, 1) for name in fields))
    assert parsed(gem5(packet(1, 2, 3), short)) == 2


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            number(1 << 20),
            "record 1 at byte START: 80 80 40: the message's length is no number up to 262144",
        ),
        (b"\xff" * 300, "record 1 at byte START: ff .*: the message's length is no number"),
        (number((1 << 63) - 1), "the message's length is no number"),
        (b"\x80" * 5 + b"\0", "the message's length is no number"),
        (b"\x80" * 4, "record 1 at byte START: 80 80 80 80: the message is cut off"),
        (number(50) + b"\x08\x01", "record 1 at byte START: 32 08 01: the message is cut off"),
        (message(b"\x08" + b"\x80" * 11), "record 1 .*the message's fields are damaged"),
        (message(b"\x08"), "the message's fields are damaged"),
        (message(b"\x0b\x0c"), "the message's fields are damaged"),
        (message(b"\x00\x01"), "the message's fields are damaged"),
        (message(number(9 << 3 | 2) + number((1 << 64) - 1)), "the message's fields are damaged"),
        (message(number(9 << 3 | 2) + number(1 << 63)), "the message's fields are damaged"),
        (message(number(9 << 3 | 1) + b"1234567"), "the message's fields are damaged"),
        (message(number(9 << 3 | 5) + b"123"), "the message's fields are damaged"),
        (message(b"\xff" * 10 + b"\x01"), "the message's fields are damaged"),
        (packet(1, 1 << 47, 8), "record 1 at byte START: .*the address is not canonical"),
        (packet(1, (1 << 47) - 4, 8), "the address is not canonical"),
        (packet(4, 64, 0), "the size is not a number from 1 to 4096"),
        (packet(4, 64, 4097), "the size is not a number from 1 to 4096"),
    ],
)
def test_the_message_has_number_place_and_content(tmp_path, record, text):
    (tmp_path / "t").write_bytes(gem5(record))
    text = text.replace("START", str(4 + len(HEADER)))
    with pytest.raises(InputError, match=text) as refused:
        import_trace(tmp_path / "t", tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"", "the message's length is no number"),
        (number(1 << 30), "record 0 at byte 4: .*length is no number"),
        (number(20) + b"abc", "record 0 at byte 4: 14 61 62 63: the header is cut off"),
        (message(field(1, b"cpu")), "not the header of a packet trace"),
        (message(field(1, b"cpu"), field(3, 5), field(4, 1)), "not the header of a packet trace"),
        (message(field(1, 5), field(3, 5)), "not the header of a packet trace"),
        (message(b"\x0a\xff\xff\x03abc"), "not the header of a packet trace"),
        (message(b"\x08" + b"\x80" * 20), "not the header of a packet trace"),
    ],
)
def test_what_does_not_begin_with_a_packet_header_is_refused(tmp_path, header, text):
    (tmp_path / "t").write_bytes(b"gem5" + header)
    with pytest.raises(InputError, match=text):
        import_trace(tmp_path / "t", tmp_path / "out")
    (tmp_path / "t").write_bytes(b"gem6")
    with pytest.raises(InputError, match="does not begin with 'gem5'"):
        import_trace(tmp_path / "t", tmp_path / "out", "gem5")


def test_the_metadata_say_that_addresses_are_physical_and_what_was_passed_over(tmp_path):
    (tmp_path / "t").write_bytes(
        gem5(packet(1, 64, 8), packet(24, 64, 8), packet(24, 0, 0), packet(99, 64, 8))
    )
    made = import_trace(tmp_path / "t", tmp_path / "out")
    assert made.metadata == {
        "tool": "gem5",
        "recorder": "system.monitor",
        "tick_frequency": 10**12,
        "addresses": "physical",
        "remarks": ["addresses are physical, as gem5 records them"],
        "passed_over": {"packets of command 24": 2, "packets of commands from 64 on": 1},
        "format": "gem5",
        "source": "t",
        "skipped": 0,
    }


def test_a_full_part_makes_way_for_the_next_one(monkeypatch):
    packets = [(1, 0x1FFC + 4096 * i, 8, 0) for i in range(30)]
    for room in (2, 3, 4, 5):
        monkeypatch.setattr(reader, "RECORDS", room)
        monkeypatch.setattr(reader, "room", lambda _, room=room: room_of(room))
        assert parsed(gem5(*(packet(*each) for each in packets))) == slow_gem5(packets)


def room_of(records):
    from mmu.trace.accesses import room  # noqa: PLC0415  the reader's own name is patched

    return room(records)
