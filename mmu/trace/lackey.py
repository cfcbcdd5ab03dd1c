"""Reads logs of valgrind's lackey: ``valgrind --tool=lackey --trace-mem=yes --log-file=FILE ...``.

A line is an access, in the program's order: address in hexadecimal, size in bytes in decimal.

    I  0023C790,2     instruction fetch          S BE80199C,4     store
     L BE801950,4     load                        M 0025747C,1     load and store of the same bytes

Lines that begin with ``==pid==`` or ``--pid--`` are valgrind's messages: they and empty lines are
passed over. A second pid is refused: a child has written into the log (after a fork, or with
``--trace-children=yes``), and no record says whose it is. Anything else is refused as well. An access
that crosses a 4 KiB boundary becomes two, the lower one first; a load and store becomes a read, then a
write (all reads before the writes).
"""

import re
from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.accesses import MOST_BYTES, NOT_CANONICAL, Accesses, add, within
from mmu.trace.blocks import Bytes, Words
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.lines import (
    COMMA,
    END,
    FULL,
    LINE,
    NEWLINE,
    PASSED,
    POSITION,
    RECORD,
    SPACE,
    LineReader,
    decimal,
    hexadecimal,
    line_end,
    read_lines,
)
from mmu.trace.source import Source

LINE_RECORDS = 4  # a load and store that crosses a boundary

EQUALS, MINUS = ord("="), ord("-")
INSTRUCTION, LOAD, STORE, MODIFY = ord("I"), ord("L"), ord("S"), ord("M")


class Bad(IntEnum):
    """Why a line is refused."""

    UNKNOWN = 2
    ADDRESS = 3
    SIZE = 4
    RANGE = 5
    PROCESS = 6


REASONS = {
    Bad.UNKNOWN: "not a lackey record (`I  addr,size`, ` L addr,size`, ` S ...`, ` M ...`); keep what "
    "the program prints out of the log with --log-file=FILE",
    Bad.ADDRESS: "the address is not one of 1 to 16 hexadecimal digits",
    Bad.SIZE: f"the size is not a number from 1 to {MOST_BYTES}",
    Bad.RANGE: NOT_CANONICAL,
    Bad.PROCESS: "a second process writes into this log, and its accesses look like those of the "
    "first; give each a log with --log-file=FILE.%p, or use --child-silent-after-fork=yes",
}


@inlined
def message_end(text: Bytes, start: int) -> tuple[np.int64, int]:
    """Return the process of a message's ``==pid==`` or ``--pid--`` and its end, or -1."""
    mark = text[at(start)]
    process, here = decimal(text, start + 2, 18)
    if mark not in (EQUALS, MINUS) or text[at(start + 1)] != mark or here == start + 2:
        return process, -1
    if text[at(here)] != mark or text[at(here + 1)] != mark:
        return process, -1
    return process, here + 2


@inlined
def line_mark(text: Bytes, start: int) -> int:
    """Return the letter of the record that begins at `start`, or -1 if none does."""
    first, second, third = text[at(start)], text[at(start + 1)], text[at(start + 2)]
    if first == INSTRUCTION and second == SPACE and third == SPACE:
        return INSTRUCTION
    if first == SPACE and third == SPACE and second in (LOAD, STORE, MODIFY):
        return np.int64(second)  # type: ignore[return-value]
    return -1


@kernel
def parse(text: Bytes, end: int, out: Accesses, place: Words, writer: Words) -> int:
    """Read the lines of `text` up to `end`; as `mmu.trace.lines.LineReader` wants it.

    `writer` is the process whose log it is, or -1 as long as no message has told it.
    """
    here, record, line = place[POSITION], place[RECORD], place[LINE]
    status = END
    while here < end:
        if record + LINE_RECORDS > len(out.kind):
            status = FULL
            break
        mark = line_mark(text, here)
        if mark < 0:
            process, following = writer[0], here
            if text[at(here)] != NEWLINE:
                process, following = message_end(text, here)
            if following < 0:
                status = Bad.UNKNOWN
                break
            if process != writer[0] and writer[0] >= 0:
                status = Bad.PROCESS
                break
            writer[0] = process
            following = line_end(text, following)
            place[PASSED] += 1
        else:
            start, comma = hexadecimal(text, here + 3)
            if comma == here + 3 or comma > here + 19 or text[at(comma)] != COMMA:
                status = Bad.ADDRESS
                break
            length, following = decimal(text, comma + 1, 4)
            if not 1 <= length <= MOST_BYTES or text[at(following)] != NEWLINE:
                status = Bad.SIZE
                break
            if not within(start, length):
                status = Bad.RANGE
                break
            if mark == INSTRUCTION:
                record = add(out, record, start, length, FETCH)
            if mark in (LOAD, MODIFY):
                record = add(out, record, start, length, READ)
            if mark in (STORE, MODIFY):
                record = add(out, record, start, length, WRITE)
        here = following + 1
        line += 1
    place[POSITION], place[RECORD], place[LINE] = here, record, line
    return status


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this is lackey's."""
    first = head.lstrip(b"\r\n").split(b"\n", 1)[0].removesuffix(b"\r")
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


def read_lackey(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a lackey log.

    Raises
    ------
    InputError
        A line is no record; the message has its number, counted from 1, and its content.
    """
    source.notes.said |= recording(source.head)
    passed = ("valgrind's messages and empty lines",)
    writer = np.array([-1])
    reader = LineReader(
        lambda text, end, out, place: parse(text, end, out, place, writer),
        REASONS, source.where, source.notes, passed,
    )  # fmt: skip
    return read_lines(reader, source.pieces)
