"""Reads logs of valgrind's lackey: ``valgrind --tool=lackey --trace-mem=yes --log-file=FILE ...``.

A line is an access, in the program's order: address in hexadecimal, size in bytes in decimal.

    I  0023C790,2     instruction fetch          S BE80199C,4     store
     L BE801950,4     load                        M 0025747C,1     load and store of the same bytes

Lines that begin with ``==pid==`` or ``--pid--`` are valgrind's messages: they and empty lines are
passed over. Anything else is refused. An access that crosses a 4 KiB boundary becomes two, the
lower one first; a load and store becomes a read, then a write (all reads before the writes).
"""

import re
from collections.abc import Iterable, Iterator
from enum import IntEnum

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Bytes, Counts, Words, canonical
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, PAGE_BYTES, READ, WRITE

MOST_BYTES = 4096  # of one access; the largest of x86-64, XSAVE's, are below 3 KiB
LONGEST_LINE = 4 << 20  # bytes
RECORDS = 1 << 18  # of one part
LINE_RECORDS = 4  # a load and store that crosses a boundary
PADDING = 4  # bytes after the text: a line's first four are looked at together

NEWLINE, SPACE, COMMA = ord("\n"), ord(" "), ord(",")
EQUALS, MINUS, ZERO, NINE = ord("="), ord("-"), ord("0"), ord("9")
LETTER_A, LETTER_F, LOWER_CASE = ord("a"), ord("f"), 0x20
INSTRUCTION, LOAD, STORE, MODIFY = ord("I"), ord("L"), ord("S"), ord("M")

# Fields of `place`, where a reader of lines has got to.
POSITION, RECORD, LINE, PLACE_FIELDS = range(4)


class Line(IntEnum):
    """How reading lines ended: at the end of the text, for lack of room, or at a bad line."""

    END = 0
    FULL = 1
    UNKNOWN = 2
    ADDRESS = 3
    SIZE = 4
    RANGE = 5


REASONS = {
    Line.UNKNOWN: "not a lackey record (`I  addr,size`, ` L addr,size`, ` S ...`, ` M ...`)",
    Line.ADDRESS: "the address is not one of 1 to 16 hexadecimal digits",
    Line.SIZE: f"the size is not a number from 1 to {MOST_BYTES}",
    Line.RANGE: "the address is not canonical (bits 63:47 must be equal, 48-bit virtual addresses)",
}


@inlined
def message_end(text: Bytes, start: int) -> int:
    """Return where a message's ``==pid==`` or ``--pid--`` ends, or -1 if there is none."""
    mark = text[at(start)]
    if mark not in (EQUALS, MINUS) or text[at(start + 1)] != mark:
        return -1
    here = start + 2
    while ZERO <= text[at(here)] <= NINE:
        here += 1
    if here == start + 2 or text[at(here)] != mark or text[at(here + 1)] != mark:
        return -1
    return here + 2


@inlined
def line_mark(text: Bytes, start: int) -> int:
    """Return the letter of the record that begins at `start`, or -1 if none does."""
    first, second, third = text[at(start)], text[at(start + 1)], text[at(start + 2)]
    if first == INSTRUCTION and second == SPACE and third == SPACE:
        return INSTRUCTION
    if first == SPACE and third == SPACE and second in (LOAD, STORE, MODIFY):
        return np.int64(second)  # type: ignore[return-value]
    return -1


@inlined
def hexadecimal(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the number at `here` as int64 (more than 16 digits are lost) and where it ends."""
    value = np.int64(0)
    while True:
        letter = text[at(here)]
        if ZERO <= letter <= NINE:
            digit = np.int64(letter) - ZERO
        elif LETTER_A <= (letter | LOWER_CASE) <= LETTER_F:
            digit = np.int64(letter | LOWER_CASE) - LETTER_A + 10
        else:
            return value, here
        value = value << 4 | digit
        here += 1


@inlined
def decimal(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the number of up to four digits at `here`, and where it ends."""
    value, stop = np.int64(0), here + 4
    while here < stop and ZERO <= text[at(here)] <= NINE:
        value = value * 10 + np.int64(text[at(here)]) - ZERO
        here += 1
    return value, here


@inlined
def within(address: np.int64, length: np.int64) -> bool:
    """Tell whether all bytes of an access have canonical addresses in the same half."""
    if not canonical(address):
        return False
    last = address + length - 1
    return canonical(last) and (address < 0) == (last < 0)


@inlined
def add(
    address: Words,
    kind: Bytes,
    size: Counts,
    record: int,
    start: np.int64,
    length: np.int64,
    what: int,
) -> int:
    """Store an access as one record or two; return the number of records then."""
    fits = min(length, PAGE_BYTES - (start & PAGE_BYTES - 1))
    address[at(record)], kind[at(record)], size[at(record)] = start, what, fits
    if fits == length:
        return record + 1
    address[at(record + 1)], kind[at(record + 1)] = start + fits, what
    size[at(record + 1)] = length - fits
    return record + 2


@kernel
def parse(text: Bytes, end: int, address: Words, kind: Bytes, size: Counts, place: Words) -> int:
    """Read the lines of `text` up to `end`, which is the end of a line; return how that ended.

    `place` says where to begin, and afterwards where reading stopped: always where a line begins.
    """
    here, record, line = place[POSITION], place[RECORD], place[LINE]
    status = Line.END
    while here < end:
        if record + LINE_RECORDS > len(kind):
            status = Line.FULL
            break
        mark = line_mark(text, here)
        if mark < 0:
            following = here if text[at(here)] == NEWLINE else message_end(text, here)
            if following < 0:
                status = Line.UNKNOWN
                break
            while text[at(following)] != NEWLINE:
                following += 1
        else:
            start, comma = hexadecimal(text, here + 3)
            if comma == here + 3 or comma > here + 19 or text[at(comma)] != COMMA:
                status = Line.ADDRESS
                break
            length, following = decimal(text, comma + 1)
            if not 1 <= length <= MOST_BYTES or text[at(following)] != NEWLINE:
                status = Line.SIZE
                break
            if not within(start, length):
                status = Line.RANGE
                break
            if mark == INSTRUCTION:
                record = add(address, kind, size, record, start, length, FETCH)
            if mark in (LOAD, MODIFY):
                record = add(address, kind, size, record, start, length, READ)
            if mark in (STORE, MODIFY):
                record = add(address, kind, size, record, start, length, WRITE)
        here = following + 1
        line += 1
    place[POSITION], place[RECORD], place[LINE] = here, record, line
    return status


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this is lackey's."""
    first = head.lstrip(b"\n").split(b"\n", 1)[0]
    record = rb"(==|--)\d+\1.*|(I | S| L| M) [0-9a-fA-F]{1,16},\d{1,4}"
    return re.fullmatch(record, first) is not None


def recording(head: bytes) -> dict[str, str]:
    """Return what a log that begins like this says of its recording."""
    said = {"tool": "valgrind --tool=lackey --trace-mem=yes"}
    for name, pattern in (
        ("tool_version", rb"Using Valgrind-([\w.]+)"),
        ("command", rb"Command: (.*)"),
    ):
        found = re.search(rb"^(?:==|--)\d+(?:==|--) " + pattern, head, re.MULTILINE)
        if found:
            said[name] = found[1].decode(errors="replace")
    return said


class LineReader:
    """Turns pieces of text into parts of a raw trace."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.text = np.zeros(2 * LONGEST_LINE + PADDING, np.uint8)
        self.filled = 0  # bytes of `text` that wait
        self.place = np.zeros(PLACE_FIELDS, np.int64)

    def read(self, piece: bytes) -> Iterator[Raw]:
        """Yield the accesses of the lines that a piece completes.

        Raises
        ------
        InputError
            A line is no record; the message has its number, counted from 1.
        """
        self.text[self.filled : self.filled + len(piece)] = np.frombuffer(piece, np.uint8)
        newline = piece.rfind(b"\n")
        end = self.filled + newline + 1 if newline >= 0 else 0
        self.filled += len(piece)
        self.place[POSITION] = 0
        status = Line.FULL if end else Line.END
        while status == Line.FULL:
            address = np.empty(RECORDS, np.int64)
            kind, size = np.empty(RECORDS, np.uint8), np.empty(RECORDS, np.uint16)
            self.place[RECORD] = 0
            status = Line(parse(self.text, end, address, kind, size, self.place))
            made = int(self.place[RECORD])
            yield Raw(address[:made], kind[:made], size[:made])
        if status != Line.END:
            self.refuse(REASONS[status], int(self.place[POSITION]), end)
        self.text[: self.filled - end] = self.text[end : self.filled].copy()
        self.filled -= end
        if self.filled > LONGEST_LINE:
            self.refuse(REASONS[Line.UNKNOWN], 0, self.filled)

    def finish(self) -> None:
        """Refuse a last line that does not end."""
        if self.filled:
            self.refuse("the line is cut off: take it out", 0, self.filled)

    def refuse(self, reason: str, start: int, end: int) -> None:
        """Raise the error for the line that begins at `start`."""
        line = self.text[start : min(end, start + 200)].tobytes().split(b"\n", 1)[0]
        content = repr(line[:60])[1:] + ("..." if len(line) > 60 else "")
        raise InputError(f"{self.where}: line {int(self.place[LINE]) + 1}: {content}: {reason}")


def read_lackey(pieces: Iterable[bytes], where: str) -> Iterator[Raw]:
    """Yield the accesses of a lackey log, given in pieces of any length.

    Raises
    ------
    InputError
        A line is no record; the message has its number, counted from 1, and its content.
    """
    reader = LineReader(where)
    for piece in pieces:
        for begin in range(0, len(piece), LONGEST_LINE):
            yield from reader.read(piece[begin : begin + LONGEST_LINE])
    reader.finish()
