"""Reads DynamoRIO's ``v2p.textproto``: a protocol buffer's text, of which this is the shape.

    # VirtualToPhysical
    address_mapping_group {
      page_size: 0x200000
      address_mapping {
        virtual_address: 0x7f12fc800000
        physical_address: 0x1400000
      }
      information { page_count: 1 bytes_mapped: 2097152 }
    }
    information { page_count: 1 bytes_mapped: 2097152 }

Source: DynamoRIO, clients/drcachesim/reader/v2p_reader.cpp and tests/v2p_example.textproto at 9a0babfb;
the text format's own rules (numbers decimal, 0x or octal; commas and semicolons between fields). A
field that is zero may be left out. Several groups may have several page sizes, each before the group's
first mapping. What ``information`` sums up is held against nothing: that project's own example
contradicts it. There are no address spaces: every page is of space 0.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from mmu.jit import at, inlined, kernel, spliced
from mmu.trace.pagemap.pages import Bytes, Entries, Numbers, Words
from mmu.trace.pagemap.text import (
    END,
    FIELDS,
    FIRST_FAULT,
    FULL,
    LETTER_A,
    LETTER_X,
    LINE,
    LOWER_CASE,
    NEWLINE,
    NINE,
    POSITION,
    RECORD,
    RECORDS,
    RETURN,
    SPACE,
    TAB,
    ZERO,
    TextReader,
    unsigned,
)

# Fields of `place`: the message that is open, the field whose value is to come, what has been given.
(
    OPEN, OUTER, NAME, COLON, COMMENT, GIVEN, BEGAN, PLACE_FIELDS,
) = range(FIELDS, FIELDS + 8)  # fmt: skip
VIRTUAL, PHYSICAL, GROUP_SIZE, SUMMARY = range(4)  # of `numbers`, and of what it is copied to
TOP, GROUP, MAPPING, INFORMATION = 0, 1, 2, 3

# Names: messages first, then numbers.
WORDS = (
    b"address_mapping_group", b"address_mapping", b"information",
    b"page_size", b"virtual_address", b"physical_address", b"page_count", b"bytes_mapped",
)  # fmt: skip
NONE, IN_GROUP, IN_MAPPING, IN_INFORMATION, PAGE_SIZE, IS_VIRTUAL, IS_PHYSICAL, COUNT, MAPPED = (
    range(9)
)
MESSAGES = IN_INFORMATION  # the last name that is a message's
LETTERS = np.frombuffer(b"".join(WORDS), np.uint8).copy()
STARTS = np.cumsum([0, *map(len, WORDS)])
# By name: the message that it belongs in, and where a number goes.
HOME = np.array([-1, TOP, GROUP, -1, GROUP, MAPPING, MAPPING, INFORMATION, INFORMATION])
KEPT = np.array([-1, -1, -1, -1, GROUP_SIZE, VIRTUAL, PHYSICAL, SUMMARY, SUMMARY])

HASH, COLON_MARK, OPENING, CLOSING = ord("#"), ord(":"), ord("{"), ord("}")
COMMA, SEMICOLON, UNDERSCORE, LETTER_Z = ord(","), ord(";"), ord("_"), ord("z")
UNKNOWN, PLACED, NUMBER, TWICE, NO_SIZE, STRAY = range(FIRST_FAULT, FIRST_FAULT + 6)
REASONS = (
    "not a name of v2p.textproto (" + ", ".join(word.decode() for word in WORDS) + ")",
    "the name does not belong in this message",
    "not a number of up to 64 bits, in decimal, hexadecimal after 0x or octal after 0",
    "the field has been given before in this message",
    "the group's page_size is missing, or does not come before its mappings",
    "not what can stand here in v2p.textproto (name { ... } or name: number)",
)


@inlined
def in_name(letter: int) -> bool:
    """Tell whether a letter can be part of a name."""
    lower = letter | LOWER_CASE
    return LETTER_A <= lower <= LETTER_Z or ZERO <= letter <= NINE or letter == UNDERSCORE


@inlined
def named(text: Bytes, here: int, end: int, letters: Bytes, starts: Words) -> int:
    """Return which of `WORDS` stands from `here` to `end`, counted from 1, or NONE."""
    for word in range(len(starts) - 1):
        if starts[at(word + 1)] - starts[at(word)] != end - here:
            continue
        same = True
        for i in range(end - here):
            if text[at(here + i)] != letters[at(starts[at(word)] + i)]:
                same = False
                break
        if same:
            return word + 1
    return NONE


@inlined
def value_at(text: Bytes, here: int) -> tuple[np.uint64, int]:
    """Return the number at `here` by the text format's rules, and where it ends; `here` if none."""
    if text[at(here)] != ZERO:
        return unsigned(text, here, 10)
    if (text[at(here + 1)] | LOWER_CASE) == LETTER_X:
        value, end = unsigned(text, here + 2, 16)
        return value, end if end > here + 2 else here
    return unsigned(text, here, 8)


@spliced
def open_message(place: Words, numbers: Numbers, name: int) -> int:
    """Begin the message of that name; return END or a fault."""
    state, sized = place[OPEN], place[GIVEN] & 1 << PAGE_SIZE
    place[OUTER] = state if name == IN_INFORMATION else TOP
    place[OPEN], place[NAME], place[COLON] = name, NONE, 0
    place[GIVEN] = 0 if name == IN_GROUP else sized
    if name == IN_MAPPING:
        numbers[VIRTUAL], numbers[PHYSICAL] = 0, 0
        place[BEGAN] = place[LINE] + 1
        if not sized:
            return NO_SIZE
    return END


@spliced
def close_message(
    place: Words, numbers: Numbers, records: Numbers, line: Words, record: int
) -> int:
    """End the message that is open; return how many records there are then, or -1 for want of room."""
    if place[OPEN] != MAPPING:
        place[OPEN] = TOP if place[OPEN] == GROUP else place[OUTER]
        return record
    if record == len(line):
        return -1
    for field in range(SUMMARY):
        records[at(field), at(record)] = numbers[at(field)]
    line[at(record)] = place[BEGAN]
    place[OPEN] = GROUP
    return record + 1


@spliced
def begin_name(
    text: Bytes, here: int, letters: Bytes, starts: Words, home: Words, place: Words
) -> tuple[int, int]:
    """Take the name at `here` as the one whose value is to come; return END or a fault, and its end."""
    following = here + 1
    while in_name(text[at(following)]):
        following += 1
    name = named(text, here, following, letters, starts)
    if name == NONE:
        return UNKNOWN, following
    # A summary stands in a group or outside.
    summary = name == IN_INFORMATION and place[OPEN] in (TOP, GROUP)
    if not summary and place[OPEN] != home[at(name)]:
        return PLACED, following
    place[NAME] = name
    return END, following


@spliced
def take_value(
    text: Bytes, here: int, kept: Words, place: Words, numbers: Numbers
) -> tuple[int, int]:
    """Take the number at `here` as the value of the field; return END or a fault, and its end."""
    name = place[NAME]
    value, following = value_at(text, here)
    if following == here or in_name(text[at(following)]):
        return NUMBER, following
    if place[GIVEN] & 1 << name:
        return TWICE, following
    place[GIVEN] |= 1 << name
    place[NAME], place[COLON] = NONE, 0
    numbers[at(kept[at(name)])] = value
    return END, following


@kernel
def parse(
    text: Bytes, end: int, letters: Bytes, starts: Words, home: Words, kept: Words,
    records: Numbers, line: Words, place: Words, numbers: Numbers,
) -> int:  # fmt: skip
    """Read words of `text` up to `end`, which ends a word; return how that ended.

    records: uint64 [VIRTUAL | PHYSICAL | GROUP_SIZE, record]; numbers: those given so far, uint64 [4].
    """
    here, record = place[POSITION], place[RECORD]
    status = END
    while here < end:
        letter, name, following = text[at(here)], place[NAME], here + 1
        if letter == NEWLINE:
            place[LINE] += 1
            place[COMMENT] = 0
        elif place[COMMENT] or letter in (SPACE, TAB, RETURN):
            pass
        elif letter == HASH:
            place[COMMENT] = 1
        elif letter == COLON_MARK and name and not place[COLON]:
            place[COLON] = 1
        elif letter == OPENING and NONE < name <= MESSAGES:
            status = open_message(place, numbers, name)
        elif letter == CLOSING and not name and place[OPEN] != TOP:
            made = close_message(place, numbers, records, line, record)
            if made < 0:
                status = FULL
            else:
                record = made
        elif letter in (COMMA, SEMICOLON) and not name:
            pass
        elif name > MESSAGES and place[COLON]:
            status, following = take_value(text, here, kept, place, numbers)
        elif in_name(letter) and not name:
            status, following = begin_name(text, here, letters, starts, home, place)
        else:
            status = STRAY
        if status != END:
            break
        here = following
    place[POSITION], place[RECORD] = here, record
    return status


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this is a v2p.textproto."""
    return (
        re.match(rb"(\s|#[^\n]*\n)*(address_mapping_group|information)\s*:?\s*\{", head) is not None
    )


def read_textproto(pieces: Iterable[bytes], where: str) -> Iterator[Entries]:
    """Yield the pages of a v2p.textproto.

    Raises
    ------
    InputError
        It is not one, or ends in the middle; the message has line and content.
    """
    records, line = np.zeros((SUMMARY, RECORDS), np.uint64), np.zeros(RECORDS, np.int64)
    numbers = np.zeros(SUMMARY + 1, np.uint64)
    reader = TextReader(
        where,
        lambda text, end: parse(
            text, end, LETTERS, STARTS, HOME, KEPT, records, line, reader.place, numbers
        ),
        PLACE_FIELDS,
        REASONS,
        b" \n\t\r",
    )
    for made in reader.read(pieces):
        space = np.zeros(made, np.int64)
        virtual, physical, size = (
            column[:made].view(np.int64).copy() for column in records[:SUMMARY]
        )
        yield Entries(virtual, physical, size, space, line[:made].copy())
    if reader.place[OPEN] != TOP or reader.place[NAME]:
        reader.refuse("the file ends inside a message: it is cut off", reader.filled)
