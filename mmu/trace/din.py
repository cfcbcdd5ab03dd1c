"""Reads traces for Dinero: din, and the extended din of Dinero IV.

A line is a reference; what follows its fields is a comment. Numbers are hexadecimal, with or without
``0x``, the size too. Source: Dinero IV release 7, ``dinfmt.c`` and ``xdinfmt.c`` (Edler and Hill).

    0 7fff2a30     read                           r 7fff2a30 4     read
    1 7fff2a30     write                          w 7fff2a30 8     write
    2 401000       instruction fetch              i 401000 3       instruction fetch
    3 0            escape: passed over            m 7fff2a30 4     miscellaneous: a read to Dinero
    4 0            cache flush: passed over       c 7fff2a00 40    copy back: passed over
                                                  v 7fff2a00 40    invalidate: passed over

Din has no sizes (Dinero IV takes every access for an aligned word of four bytes; here it is as it
stands, of unknown size). An extended one may be 0 or missing: not known.
"""

import re
from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from mmu.jit import at, kernel
from mmu.trace.accesses import MOST_BYTES, NOT_CANONICAL, Accesses, add, within
from mmu.trace.blocks import Bytes, Words
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.lines import (
    END,
    FULL,
    LINE,
    NEWLINE,
    PASSED,
    POSITION,
    RECORD,
    LineReader,
    blanks,
    ends_field,
    first_lines,
    hexadecimal,
    line_end,
    prefix_end,
    read_lines,
)
from mmu.trace.source import Source

LINE_RECORDS = 2  # an access that crosses a boundary

# What a label stands for, if not one of the kinds of access.
FIRST_OTHER, SECOND_OTHER, NO_LABEL = 3, 4, 255


class Bad(IntEnum):
    """Why a line is refused."""

    LABEL = 2
    ADDRESS = 3
    SIZE = 4
    RANGE = 5


REASONS = {
    Bad.ADDRESS: "the address is not one of 1 to 16 hexadecimal digits",
    Bad.SIZE: f"the size is not a hexadecimal number from 0 to {MOST_BYTES:x}",
    Bad.RANGE: NOT_CANONICAL,
}
DIN_REASONS = REASONS | {Bad.LABEL: "not a din record (`LABEL ADDRESS`, the label 0 to 4)"}
XDIN_REASONS = REASONS | {
    Bad.LABEL: "not an extended din record (`TYPE ADDRESS SIZE`, the type r, w, i, m, c or v)"
}


def labels(meanings: dict[str, int]) -> Bytes:
    """Return what each letter means as a label: uint8 [letter]."""
    table = np.full(256, NO_LABEL, np.uint8)
    for letter, meaning in meanings.items():
        table[[ord(letter), ord(letter.upper())]] = meaning
    return table


DIN = labels({"0": READ, "1": WRITE, "2": FETCH, "3": FIRST_OTHER, "4": SECOND_OTHER})
XDIN = labels(
    {"r": READ, "w": WRITE, "i": FETCH, "m": READ, "c": FIRST_OTHER, "v": SECOND_OTHER},
)


@kernel
def parse(text: Bytes, end: int, out: Accesses, place: Words, meaning: Bytes, sized: bool) -> int:
    """Read lines as `mmu.trace.lines.LineReader` wants it; `sized`: the third field is the size."""
    here, record, line = place[POSITION], place[RECORD], place[LINE]
    status = END
    while here < end:
        if record + LINE_RECORDS > len(out.kind):
            status = FULL
            break
        field = blanks(text, here)
        if text[at(field)] == NEWLINE:
            place[PASSED] += 1
            following = field
        else:
            what = meaning[at(text[at(field)])]
            if what == NO_LABEL or not ends_field(text[at(field + 1)]):
                status = Bad.LABEL
                break
            digits = prefix_end(text, blanks(text, field + 1))
            start, following = hexadecimal(text, digits)
            digits = following - digits
            if not 1 <= digits <= 16 or not ends_field(text[at(following)]):
                status = Bad.ADDRESS
                break
            length = np.int64(0)
            following = blanks(text, following)
            if sized and text[at(following)] != NEWLINE:
                first = prefix_end(text, following)
                length, following = hexadecimal(text, first)
                digits = following - first
                if not 1 <= digits <= 16 or not ends_field(text[at(following)]):
                    status = Bad.SIZE
                    break
            following = line_end(text, following)
            if what > FETCH:
                place[PASSED + what - FIRST_OTHER + 1] += 1
            else:
                if not 0 <= length <= MOST_BYTES:
                    status = Bad.SIZE
                    break
                if not within(start, max(length, np.int64(1))):
                    status = Bad.RANGE
                    break
                record = add(out, record, start, length, what)
        here = following + 1
        line += 1
    place[POSITION], place[RECORD], place[LINE] = here, record, line
    return status


def begins_with(head: bytes, record: str) -> bool:
    """Tell whether the first lines of an input are records, or empty."""
    lines = [line for line in first_lines(head) if line.strip()]
    return bool(lines) and all(re.fullmatch(record, line) for line in lines)


def recognised_din(head: bytes) -> bool:
    """Tell whether a file that begins like this is din."""
    return begins_with(head, r"[ \t]*[0-4][ \t]+(0[xX])?[0-9a-fA-F]{1,16}([ \t].*)?")


def recognised_xdin(head: bytes) -> bool:
    """Tell whether a file that begins like this is extended din."""
    number = r"(0[xX])?[0-9a-fA-F]{1,16}"
    return begins_with(head, rf"[ \t]*[rwimcvRWIMCV][ \t]+{number}([ \t]+{number})?([ \t].*)?")


def read_din(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a din trace.

    Raises
    ------
    InputError
        A line is no record; the message has its number, counted from 1, and its content.
    """
    passed = ("empty lines", "escapes (label 3)", "cache flushes (label 4)")
    reader = LineReader(
        lambda text, end, out, place: parse(text, end, out, place, DIN, False),
        DIN_REASONS, source.where, source.notes, passed,
    )  # fmt: skip
    return read_lines(reader, source.pieces)


def read_xdin(source: Source) -> Iterator[Raw]:
    """Yield the accesses of an extended din trace; otherwise as `read_din`."""
    passed = ("empty lines", "copybacks (type c)", "invalidations (type v)")
    reader = LineReader(
        lambda text, end, out, place: parse(text, end, out, place, XDIN, True),
        XDIN_REASONS, source.where, source.notes, passed,
    )  # fmt: skip
    return read_lines(reader, source.pieces)
