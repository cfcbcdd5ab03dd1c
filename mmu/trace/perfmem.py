"""Reads samples as ``perf mem report -D`` (or ``perf mem -D report``) lists them.

The first line names the columns; two of them are there only on request (``--phys-data``,
``--data-page-size``). Source: ``dump_raw_samples`` in Linux's ``tools/perf/builtin-mem.c``.

    # PID, TID, IP, ADDR, PHYS ADDR, DATA PAGE SIZE, LOCAL WEIGHT, DSRC, SYMBOL
    20134 20134 0xffffffffb5bd2fd0 0x016ffff9a044e96a308 0x000000044e96a308 4K  1168 0x5080144 ...
    20134,20134,0xffffffffb5bd2fd0,0xffff9a044e96a308,0x44e96a308,4K,1168,0x5080144,...      with -x,

perf writes ``0x016`` before a padded address where it means sixteen digits. It is taken away: no
other address begins so, since it would not be canonical or would have fewer than sixteen digits and
a zero before them.

DSRC says what was done (`mmu.trace.perf`). Of the other columns the page sizes are counted in the
metadata; instruction addresses, physical addresses and weights are not kept.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel
from mmu.trace.accesses import NOT_CANONICAL, Accesses, within
from mmu.trace.blocks import Bytes, Words
from mmu.trace.format import Raw
from mmu.trace.lines import (
    END,
    FULL,
    LETTER_X,
    LINE,
    NEWLINE,
    PASSED,
    POSITION,
    RECORD,
    SPACE,
    ZERO,
    LineReader,
    blanks,
    first_lines,
    hexadecimal,
    line_end,
    read_lines,
    signed,
)
from mmu.trace.perf import (
    LINE_RECORDS,
    MOST_THREAD,
    OPERATIONS,
    OWN,
    PAGE_SIZES,
    WHAT_IS_PASSED,
    note_page_sizes,
    note_samples,
    page_size,
    sample,
)
from mmu.trace.source import Source

HEADING = "# PID, TID, IP, ADDR, "
COMMENTS = OWN  # counted after what perf's readers share
HASH, MINUS, ONE, SIX = ord("#"), ord("-"), ord("1"), ord("6")
LETTER_N = ord("N")  # of N/A


class Bad(IntEnum):
    """Why a line is refused."""

    PROCESS = 2
    THREAD = 3
    INSTRUCTION = 4
    ADDRESS = 5
    PHYSICAL = 6
    PAGE = 7
    WEIGHT = 8
    SOURCE = 9
    RANGE = 10


REASONS = {
    Bad.PROCESS: "the first column (PID) is not a number",
    Bad.THREAD: f"the second column (TID) is not a number from 0 to {MOST_THREAD}",
    Bad.INSTRUCTION: "the third column (IP) is not 0x and 1 to 16 hexadecimal digits",
    Bad.ADDRESS: "the fourth column (ADDR) is not 0x and 1 to 16 hexadecimal digits",
    Bad.PHYSICAL: "the column PHYS ADDR is not 0x and 1 to 16 hexadecimal digits",
    Bad.PAGE: "the column DATA PAGE SIZE is neither N/A nor a size such as 4K, 2M, 1G",
    Bad.WEIGHT: "the column LOCAL WEIGHT is not a number",
    Bad.SOURCE: "the column DSRC is not 0x and 1 to 16 hexadecimal digits",
    Bad.RANGE: NOT_CANONICAL,
}


@inlined
def separated(text: Bytes, here: int, separator: int) -> int:
    """Return where the next column begins, or -1 if the one before does not end at `here`."""
    if here < 0 or text[at(here)] != separator:
        return -1
    return blanks(text, here) if separator == SPACE else here + 1


@inlined
def word_at(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the number after the ``0x`` at `here` and where it ends, or -1 if there is none."""
    value, stop = hexadecimal(text, here + 2)
    if text[at(here)] != ZERO or text[at(here + 1)] != LETTER_X or not 3 <= stop - here <= 18:
        return value, -1
    return value, stop


@inlined
def address_at(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the address at `here` and where it ends, or -1 if there is none."""
    value, stop = hexadecimal(text, here + 2)
    first, digits = here + 2, stop - here - 2
    if text[at(here)] != ZERO or text[at(here + 1)] != LETTER_X or digits < 1:
        return value, -1
    if text[at(first)] == ZERO and digits > 1 and digits != 16:
        if text[at(first + 1)] != ONE or text[at(first + 2)] != SIX:
            return value, -1
        value, stop = hexadecimal(text, first + 3)
        digits -= 3
    return value, stop if 1 <= digits <= 16 else -1


class Sample(NamedTuple):
    """What a row says."""

    process: np.int64
    thread: np.int64
    address: np.int64
    source: np.int64
    page_bits: int  # logarithm of the page's bytes, or -1


@inlined
def page_column(text: Bytes, column: int, separator: int) -> tuple[int, int]:
    """Return the logarithm of a page size and where its column ends; -2: it is none."""
    stop = column
    while text[at(stop)] != separator and text[at(stop)] != SPACE and text[at(stop)] != NEWLINE:
        stop += 1
    bits = page_size(text, column, stop)
    if bits < 0 and not (stop == column + 3 and text[at(column)] == LETTER_N):
        return -2, stop
    return bits, stop


@inlined
def sample_at(
    text: Bytes, column: int, separator: int, physical: bool, pages: bool
) -> tuple[int, Sample, int]:
    """Return why a row is refused, or END; what it says, and where its symbol begins."""
    bits, nothing = -1, np.int64(0)
    none = Sample(nothing, nothing, nothing, nothing, bits)
    process, stop = signed(text, column)
    column = separated(text, stop, separator)
    if column < 0:
        return Bad.PROCESS, none, column
    thread, stop = signed(text, blanks(text, column))
    column = separated(text, stop, separator)
    thread = np.int64(MOST_THREAD) if thread == -1 else thread
    if column < 0 or not 0 <= thread <= MOST_THREAD:
        return Bad.THREAD, none, column
    _, stop = word_at(text, column)
    column = separated(text, stop, separator)
    if column < 0:
        return Bad.INSTRUCTION, none, column
    address, stop = address_at(text, column)
    column = separated(text, stop, separator)
    if column < 0:
        return Bad.ADDRESS, none, column
    if physical:
        _, stop = word_at(text, column)
        column = separated(text, stop, separator)
        if column < 0:
            return Bad.PHYSICAL, none, column
    if pages:
        bits, stop = page_column(text, column, separator)
        column = separated(text, stop, separator)
        if column < 0 or bits == -2:
            return Bad.PAGE, none, column
    _, stop = signed(text, blanks(text, column))
    column = separated(text, stop, separator)
    if column < 0:
        return Bad.WEIGHT, none, column
    source, stop = word_at(text, column)
    column = separated(text, stop, separator)
    if column < 0:
        return Bad.SOURCE, none, column
    status = END if within(address, 1) else Bad.RANGE
    return status, Sample(process, thread, address, source, bits), column


@kernel
def parse(
    text: Bytes,
    end: int,
    out: Accesses,
    place: Words,
    separator: int,
    physical: bool,
    pages: bool,
    page_sizes: Words,
) -> int:
    """Read lines as `LineReader` wants it; `physical`, `pages`: those columns are there."""
    here, record, line = place[POSITION], place[RECORD], place[LINE]
    status = END
    while here < end:
        if record + LINE_RECORDS > len(out.kind):
            status = FULL
            break
        column = blanks(text, here)
        if text[at(column)] == NEWLINE or text[at(column)] == HASH:
            place[PASSED + COMMENTS] += 1
        else:
            status, said, column = sample_at(text, column, separator, physical, pages)
            if status != END:
                break
            before = record
            record = sample(
                out,
                record,
                place,
                said.address,
                said.source & OPERATIONS,
                said.process,
                said.thread,
            )
            if said.page_bits >= 0 and record > before:
                page_sizes[at(said.page_bits)] += 1
        here = line_end(text, column) + 1
        line += 1
    place[POSITION], place[RECORD], place[LINE] = here, record, line
    return status


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this is a list of ``perf mem``."""
    return any(line.startswith(HEADING) for line in first_lines(head))


def layout(head: bytes, where: str) -> tuple[int, bool, bool]:
    """Return the letter between columns, and whether physical addresses and page sizes are there.

    Raises
    ------
    InputError
        There is no line that names the columns, or more than one letter is between two of them.
    """
    lines = first_lines(head)
    named = next((line for line in lines if line.startswith(HEADING)), None)
    if named is None:
        raise InputError(
            f"{where}: no line names the columns ({HEADING}...); keep the first line that "
            "`perf mem report -D` prints"
        )
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    found = re.match(r" *-?\d+([^0-9-]+?) *-?\d+\1 *0x", rows[0]) if rows else None
    separator = found[1] if found else " "
    if len(separator) > 1 and separator.strip(" "):
        raise InputError(
            f"{where}: columns are separated by {separator!r}; accepted: one letter, as in -x,"
        )
    return ord(separator[0]), "PHYS ADDR" in named, "DATA PAGE SIZE" in named


def read_perfmem(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a list of ``perf mem report -D``.

    Raises
    ------
    InputError
        A line is no sample; the message has its number, counted from 1, and its content.
    """
    separator, physical, pages = layout(source.head, source.where)
    note_samples(source.notes, "perf mem report -D", processes=True)
    page_sizes = np.zeros(PAGE_SIZES, np.int64)
    passed = (*WHAT_IS_PASSED, "comments and empty lines")
    reader = LineReader(
        lambda text, end, out, place: parse(
            text, end, out, place, separator, physical, pages, page_sizes
        ),
        REASONS, source.where, source.notes, passed, processes=True, threads=True,
    )  # fmt: skip
    yield from read_lines(reader, source.pieces)
    note_page_sizes(source.notes, page_sizes.tolist())
