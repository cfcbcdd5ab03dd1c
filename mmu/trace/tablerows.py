"""Reads the rows of a table in text: what each column is for has been decided (`mmu.trace.table`)."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.accesses import MOST_BYTES, NOT_CANONICAL, Accesses, add, within
from mmu.trace.blocks import Bytes, Integer, Words
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.lines import (
    END,
    FULL,
    LINE,
    LOWER_CASE,
    NEWLINE,
    NINE,
    PASSED,
    POSITION,
    RECORD,
    SPACE,
    TAB,
    ZERO,
    decimal,
    hexadecimal,
    key,
    line_end,
    prefix_end,
)

LINE_RECORDS = 2  # an access that crosses a boundary
MOST_COLUMNS = 256
MOST_THREAD = (1 << 32) - 1
MOST_PROCESS = 10**18

# What a column holds.
IGNORED, ADDRESS, KIND, SIZE, PROCESS, THREAD = range(6)

# How a column writes numbers: hexadecimal, with 0x or without; the same, but 0x must be there;
# decimal; decimal unless 0x is there.
HEXADECIMAL, PREFIXED, DECIMAL, EITHER = range(4)

EMPTY, COMMENT, HEADING = range(3)
WHAT_IS_PASSED = ("empty lines", "comments", "lines of column names")

KIND_WORDS = {
    READ: ("r", "l", "rd", "ld", "read", "load", "0"),
    WRITE: ("w", "s", "wr", "st", "write", "store", "1"),
    FETCH: ("x", "i", "f", "fetch", "ifetch", "exec", "execute", "instr", "2"),
}
WORD_KEYS = np.array([key(word) for words in KIND_WORDS.values() for word in words], np.int64)
WORD_KINDS = np.array([kind for kind, words in KIND_WORDS.items() for _ in words], np.uint8)

QUOTE, HASH, MINUS, UPPER_A, UPPER_Z = ord('"'), ord("#"), ord("-"), ord("A"), ord("Z")
# 2**64 in two halves of ten decimal digits: the largest numbers have twenty.
HALF = 10**10
UPPER, LOWER = divmod(1 << 64, HALF)


class Layout(NamedTuple):
    """What the columns of a table are for."""

    separator: int  # a letter; SPACE: any number of blanks
    roles: Bytes  # [column] IGNORED, ADDRESS, ...
    bases: Bytes  # [column] HEXADECIMAL, ...
    needed: int  # bits: the roles that every row must have
    kind: int  # of every access, where no column tells it
    heading: int  # the line that has the columns' names, counted from 0, or -1


class Bad(IntEnum):
    """Why a row is refused."""

    ADDRESS = 2
    KIND = 3
    SIZE = 4
    PROCESS = 5
    THREAD = 6
    SHORT = 7
    QUOTE = 8
    RANGE = 9
    PREFIX = 10


REASONS = {
    Bad.ADDRESS: "the address is not a number of the kind that the column's first rows have; say "
    "with --columns address=NAME:hex or :dec how to read it",
    Bad.PREFIX: "the address lacks the 0x that others of the column have; say with --columns "
    "address=NAME:hex or :dec how to read it",
    Bad.KIND: "the kind is not known; accepted, in upper or lower case: "
    + ", ".join("|".join(words) for words in KIND_WORDS.values()),
    Bad.SIZE: f"the size is not a number from 0 to {MOST_BYTES}",
    Bad.PROCESS: "the space is not a whole number of up to 18 digits",
    Bad.THREAD: f"the thread is not a number from 0 to {MOST_THREAD}",
    Bad.SHORT: "the row lacks columns that others have",
    Bad.QUOTE: "a quoted field does not end on its line, or goes on after its quote",
    Bad.RANGE: NOT_CANONICAL,
}


@inlined
def unsigned(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the decimal number below 2**64 at `here` as int64, and where it ends, or -1."""
    value, stop = decimal(text, here, 18)
    if stop == here:
        return value, -1
    if not ZERO <= text[at(stop)] <= NINE:
        return value, stop
    upper, middle = decimal(text, here, 10)
    lower, stop = decimal(text, middle, 10)
    if stop - middle < 10:  # nineteen digits: not canonical, whatever they are
        return np.int64(1) << 62, stop
    if ZERO <= text[at(stop)] <= NINE or upper > UPPER:
        return value, -1
    value = (upper - UPPER) * HALF + (lower - LOWER)
    return value, stop if value < 0 else -1


@inlined
def number(text: Bytes, here: int, base: Integer) -> tuple[np.int64, int]:
    """Return the number at `here`, which a column writes so, and where it ends, or -1."""
    first = prefix_end(text, here)
    if base == DECIMAL or (base == EITHER and first == here):
        if text[at(here)] == MINUS:
            value, stop = decimal(text, here + 1, 18)
            return -value, stop if stop > here + 1 else -1
        return unsigned(text, here)
    value, stop = hexadecimal(text, first)
    if not 1 <= stop - first <= 16:
        return value, -1
    if base == PREFIXED and first == here and value:
        return value, -2
    return value, stop


@inlined
def kind_at(text: Bytes, here: int, separator: int) -> tuple[np.int64, int]:
    """Return the kind that the word at `here` names, and where it ends, or -1."""
    value, shift = np.int64(0), 0
    while shift < 64:
        letter = text[at(here)]
        if letter in (separator, SPACE, TAB, NEWLINE, QUOTE):
            break
        upper = UPPER_A <= letter <= UPPER_Z
        if letter == 0:  # a word must not equal the same with zeros after it
            return value, -1
        value |= np.int64(letter | LOWER_CASE if upper else letter) << shift
        shift += 8
        here += 1
    for i in range(len(WORD_KEYS)):
        if WORD_KEYS[at(i)] == value:
            return np.int64(WORD_KINDS[at(i)]), here
    return value, -1


@inlined
def passed_field(text: Bytes, here: int, separator: int, quoted: bool) -> int:
    """Return where a field that nobody wants ends, at its closing quote if it has one, or -1."""
    if quoted:
        while text[at(here)] != NEWLINE:
            if text[at(here)] == QUOTE:
                if text[at(here + 1)] != QUOTE:
                    return here
                here += 1
            here += 1
        return -1
    while text[at(here)] != separator and text[at(here)] != NEWLINE:
        if separator == SPACE and text[at(here)] == TAB:
            break
        here += 1
    return here


@inlined
def blank_end(text: Bytes, here: int, separator: int) -> int:
    """Return where blanks at `here` end that do not separate columns."""
    while text[at(here)] == SPACE or (text[at(here)] == TAB and separator != TAB):
        here += 1
    return here


@inlined
def refused(role: Integer) -> int:
    """Return why a row is refused whose column of this role cannot be read."""
    if role == IGNORED:
        return Bad.QUOTE
    if role == ADDRESS:
        return Bad.ADDRESS
    if role == KIND:
        return Bad.KIND
    if role == SIZE:
        return Bad.SIZE
    return Bad.PROCESS if role == PROCESS else Bad.THREAD


class Row(NamedTuple):
    """What a row of a table says."""

    address: np.int64
    size: np.int64
    kind: np.int64
    process: np.int64
    thread: np.int64


@inlined
def field_at(
    text: Bytes, field: int, layout: Layout, role: Integer, base: Integer, quoted: bool
) -> tuple[np.int64, int]:
    """Return the value of a field and where it ends, or -1, or -2 for lack of a prefix."""
    separator = layout.separator
    if role == IGNORED:
        return np.int64(0), passed_field(text, field, separator, quoted)
    if role == KIND:
        return kind_at(text, field, separator)
    if role == SIZE and text[at(field)] in (separator, NEWLINE, QUOTE):
        return np.int64(0), field  # empty: not known
    return number(text, field, base)


@inlined
def row(text: Bytes, field: int, layout: Layout) -> tuple[int, Row, int]:
    """Return why a row is refused, or END; what it says, and where it ends: at its newline."""
    separator, columns = layout.separator, len(layout.roles)
    found, column = np.int64(0), 0
    kind = np.int64(layout.kind)
    address = size = process = thread = np.int64(0)
    status = END
    while True:
        field = blank_end(text, field, separator)
        quoted = text[at(field)] == QUOTE
        field += 1 if quoted else 0
        role = np.int64(layout.roles[at(column)]) if column < columns else np.int64(IGNORED)
        base = np.int64(layout.bases[at(column)]) if column < columns else np.int64(EITHER)
        value, stop = field_at(text, field, layout, role, base, quoted)
        if stop < 0 or (quoted and text[at(stop)] != QUOTE):
            status = Bad.PREFIX if stop == -2 else refused(role)
            break
        if role == ADDRESS:
            address = value
        elif role == KIND:
            kind = value
        elif role == SIZE:
            size = value
        elif role == PROCESS:
            process = value
            if text[at(field)] != MINUS and not 0 <= value < MOST_PROCESS:
                status = Bad.PROCESS
                break
        elif role == THREAD:
            thread = value
        found |= 1 << role
        column += 1
        before = stop + 1 if quoted else stop
        field = blank_end(text, before, separator)
        if text[at(field)] == NEWLINE:
            break
        if separator != SPACE or field == before:
            if text[at(field)] != separator:
                status = refused(role)
                break
            field += 1
    if status == END and found & layout.needed != layout.needed:
        status = Bad.SHORT
    return status, Row(address, size, kind, process, thread), field


@inlined
def judged(row: Row) -> int:
    """Return why what a row says is refused, or END."""
    if not 0 <= row.size <= MOST_BYTES:
        return Bad.SIZE
    if not 0 <= row.thread <= MOST_THREAD:
        return Bad.THREAD
    if not within(row.address, max(row.size, np.int64(1))):
        return Bad.RANGE
    return END


@inlined
def no_row(text: Bytes, field: int, is_heading: bool) -> int:
    """Return what a line that is no row is counted as, or -1 if it is one."""
    if is_heading:
        return HEADING
    if text[at(field)] == NEWLINE:
        return EMPTY
    return COMMENT if text[at(field)] == HASH else -1


@kernel
def parse(text: Bytes, end: int, out: Accesses, place: Words, layout: Layout) -> int:
    """Read the rows of `text` up to `end`; as `mmu.trace.lines.LineReader` wants it."""
    here, record, line = place[POSITION], place[RECORD], place[LINE]
    status = END
    while here < end:
        if record + LINE_RECORDS > len(out.kind):
            status = FULL
            break
        field = blank_end(text, here, layout.separator)
        passed = no_row(text, field, line == layout.heading)
        if passed >= 0:
            place[PASSED + passed] += 1
            field = line_end(text, field)
        else:
            status, said, field = row(text, field, layout)
            if status == END:
                status = judged(said)
            if status != END:
                break
            before = record
            record = add(out, record, said.address, said.size, said.kind)
            for i in range(before, record):
                if len(out.process):
                    out.process[at(i)] = said.process
                if len(out.thread):
                    out.thread[at(i)] = said.thread
        here = field + 1
        line += 1
    place[POSITION], place[RECORD], place[LINE] = here, record, line
    return status
