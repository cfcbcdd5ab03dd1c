import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.trace import lackey, lines
from mmu.trace.source import Source

LINE = re.compile(r"(I | S| L| M) ([0-9a-fA-F]{1,16}),([0-9]{1,4})")
KINDS = {"I ": [2], " L": [0], " S": [1], " M": [0, 1]}


def read_lackey(pieces, where):
    return lackey.read_lackey(Source(where, b"", iter(pieces)))


def slow_parse(text):
    """Accesses (address, kind, size) of a log, or the number of the line that is no record."""
    accesses = []
    writer = None
    unix = text.replace("\r\n", "\n")  # lines of Windows are as good
    for number, line in enumerate(unix.split("\n")[:-1], 1):
        message = re.match(r"(==|--)([0-9]+)\1", line)
        if message:
            if writer not in (None, message[2]):
                return number
            writer = message[2]
        if message or line == "":
            continue
        found = LINE.fullmatch(line)
        if not found:
            return number
        start, size = int(found[2], 16), int(found[3])
        end = start + size
        halves = [(0, 1 << 47), ((1 << 64) - (1 << 47), 1 << 64)]
        if not 1 <= size <= 4096 or not any(low <= start and end <= high for low, high in halves):
            return number
        for kind in KINDS[found[1]]:
            boundary = (start // 4096 + 1) * 4096
            accesses.append((start, kind, min(end, boundary) - start))
            if end > boundary:
                accesses.append((boundary, kind, end - boundary))
    return accesses


def parsed(text, piece=None):
    """The same from the reader under test, fed in pieces of some length."""
    data = text.encode()
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)] if piece else [data]
    accesses = []
    try:
        for part in read_lackey(pieces, "log"):
            address = part.address.view(np.uint64).tolist()
            accesses += zip(address, part.kind.tolist(), part.size.tolist(), strict=True)
    except InputError as error:
        return int(re.match(r"log: line (\d+): ", str(error))[1])
    return accesses


ADDRESSES = st.one_of(
    st.integers(0, 1 << 20),
    st.integers(0, (1 << 64) - 1),
    st.sampled_from([0x7FFF_FFFF_FFFF, 0xFFFF_8000_0000_0000, (1 << 64) - 1, (1 << 64) - 4, 4093]),
)
RECORDS = st.builds(
    lambda kind, address, size, form: f"{kind} {format(address, form)},{size}",
    st.sampled_from(["I ", " S", " L", " M"]),
    ADDRESSES,
    st.one_of(st.integers(1, 64), st.sampled_from([4096, 4095])),
    st.sampled_from(["x", "08x", "016X"]),
)
OTHERS = st.one_of(
    st.sampled_from(["", "==12== Command: /bin/true", "--12-- warning, 100% safe", "==12=="]),
    st.sampled_from(["", "==12==", "--12--", "==1==", "--99--"]),
    st.sampled_from(["====", "==a== x", "=1= x", "==1-- x", "**1** x", "I 0401ab70,3", "i  1,2"]),
    st.sampled_from(["I  ,3", "I  12", "I  12,", "I  12,0", "I  12,4097", "I  12,99999", "I  g,1"]),
    st.sampled_from(
        [
            " S 1,1 ",
            " S  1,1",
            " S 1,00004",
            "I  11111111111111111,1",
            "X",
            " ",
            "\t",
            " M 1;1",
            " M",
        ]
    ),
    st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=12),
)


@settings(max_examples=150, deadline=None)
@example(lines=["\r", "I  1000,4\r", "\r\r"], piece=1)
@example(lines=["\r", "I  1000,4\r"], piece=None)
@given(
    lines=st.lists(st.one_of(RECORDS, RECORDS, RECORDS, RECORDS, OTHERS), max_size=40),
    piece=st.one_of(st.none(), st.integers(1, 50)),
)
def test_a_log_is_read_as_the_slow_parser_reads_it(lines, piece):
    text = "".join(line + "\n" for line in lines)
    assert parsed(text, piece) == slow_parse(text)


@settings(max_examples=20, deadline=None)
@given(text_lines=st.lists(RECORDS, min_size=30, max_size=60), records=st.integers(4, 9))
def test_a_full_part_makes_way_for_the_next_one(text_lines, records):
    text = "".join(line + "\n" for line in text_lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "RECORDS", records)
        assert parsed(text) == slow_parse(text)


@pytest.mark.parametrize("records", [4, 5, 6, 7])
def test_a_line_of_four_accesses_fits_at_the_end_of_a_part(records, monkeypatch):
    monkeypatch.setattr(lines, "RECORDS", records)
    text = "I  1000,1\n M 1fff,2\n M 2fff,2\n M 3fff,2\n"
    assert parsed(text) == slow_parse(text)


def test_the_lines_of_the_manual_are_read():
    text = "I  0023C790,2\n L BE801950,4\n S BE80199C,4\n M 0025747C,1\n"
    assert parsed(text) == [
        (0x0023C790, 2, 2),
        (0xBE801950, 0, 4),
        (0xBE80199C, 1, 4),
        (0x0025747C, 0, 1),
        (0x0025747C, 1, 1),
    ]


def test_an_access_across_a_page_boundary_becomes_two():
    assert parsed("I  00000ffe,5\n M 00001fff,2\n") == [
        (0xFFE, 2, 2),
        (0x1000, 2, 3),
        (0x1FFF, 0, 1),
        (0x2000, 0, 1),
        (0x1FFF, 1, 1),
        (0x2000, 1, 1),
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("nonsense", "line 3: 'nonsense': not a lackey record"),
        ("I  xyz,2", "line 3: 'I  xyz,2': the address is not one of 1 to 16 hexadecimal digits"),
        (" S 12345678123456781,4", "1 to 16 hexadecimal digits"),
        (" S 1000,0", "the size is not a number from 1 to 4096"),
        (" S 1000,4097", "the size is not a number from 1 to 4096"),
        (" S 1000,-4", "the size is not a number from 1 to 4096"),
        (" S 1000,4 5", "the size is not a number from 1 to 4096"),
        (" L 800000000000,4", "not canonical"),
        (" L 7fffffffffff,2", "not canonical"),
        (" L ffffffffffffffff,2", "not canonical"),
        ("\0\xff", "line 3: '\\x00\\xc3\\xbf': not a lackey record"),
        ("y" * 500, "line 3: '" + "y" * 60 + "'...: not"),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_number_and_content(line, text):
    log = f"==1== Lackey\nI  1000,4\n{line}\nI  1004,4\n"
    with pytest.raises(InputError) as refused:
        list(read_lackey([log.encode()], "a.log"))
    assert str(refused.value).startswith("a.log: line 3: ")
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rest", ["I  1004,4", "I  10", "==1== Lac", " "])
def test_a_log_cut_off_in_a_line_is_refused(rest):
    with pytest.raises(InputError, match=r"line 2: .*cut off"):
        list(read_lackey([b"I  1000,4\n" + rest.encode()], "a.log"))


def test_a_line_without_end_is_refused_before_it_fills_memory(monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 1000)

    def endless():
        while True:
            yield b"I  0"

    with pytest.raises(InputError, match=r"line 1: .*a line of more than"):
        list(read_lackey(endless(), "a.log"))


def test_a_second_process_is_refused_and_what_to_do_is_said():
    text = b"==7== Lackey\nI  1000,4\n==7== a\n==8== b\nI  2000,4\n"
    with pytest.raises(InputError, match=r"line 4: '==8== b': a second process .*FILE\.%p"):
        list(read_lackey([text], "a.log"))


def test_what_the_program_printed_is_refused_and_what_to_do_is_said():
    with pytest.raises(InputError, match=r"line 2: 'hello': .*--log-file=FILE"):
        list(read_lackey([b"I  1000,4\nhello\nI  2000,4\n"], "a.log"))


@pytest.mark.parametrize("piece", [1, 2, 9, 10, 11, 1000])
def test_line_ends_of_windows_are_line_ends(piece):
    text = "==7== Lackey\r\nI  1000,4\r\n\r\n S 1fff,2\r\n"
    assert parsed(text, piece) == slow_parse(text.replace("\r\n", "\n"))
    assert lackey.recognised(text.encode())


def test_a_long_message_is_passed_over():
    text = "==1== Command: " + "x" * 100_000 + "\nI  1000,4\n"
    assert parsed(text, 999) == [(0x1000, 2, 4)]


@pytest.mark.parametrize(
    "head", ["==5== Lackey", "--5-- x", "I  04,3", "\n\n S 1ffefff,8", " M 0,1"]
)
def test_a_log_is_recognised(head):
    assert lackey.recognised(head.encode() + b"\n...")


@pytest.mark.parametrize("head", ["", "==x==", "PAR1", "2 0401ab70", "I 04,3", "0x1234 R"])
def test_what_is_no_log_is_not_recognised(head):
    assert not lackey.recognised(head.encode() + b"\n")
