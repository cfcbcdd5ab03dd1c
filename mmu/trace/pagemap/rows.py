"""Reads page maps as rows of numbers: text with two to four columns, as CSV or apart by blanks.

    # what the columns are, if they are not virtual, physical, size, space in this order
    virtual,physical,size
    0x7f12fc800000,0x1400000,2M
    4198400 20975616 4096

Numbers are decimal, or hexadecimal after 0x; addresses are in bytes, of the page's first. A size is
bytes or 4K, 2M, 1G; without one every page has 4 KiB, without a space every page is of space 0. A header
may name ``vpn`` and ``gfn`` (or ``pfn``), which count 4 KiB pages. All rows have the same columns.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel, spliced
from mmu.trace.kinds import PAGE_BYTES, PAGE_SHIFT
from mmu.trace.pagemap.pages import Bytes, Entries, Numbers, Words
from mmu.trace.pagemap.text import (
    END,
    FIELDS,
    FIRST_FAULT,
    FULL,
    LINE,
    LOWER_CASE,
    NEWLINE,
    POSITION,
    RECORD,
    RECORDS,
    RETURN,
    SPACE,
    TAB,
    TextReader,
    number,
)

HASH, COMMA, SEMICOLON = ord("#"), ord(","), ord(";")
LETTER_B, LETTER_G, LETTER_I, LETTER_K, LETTER_M = (ord(letter) for letter in "bgikm")
MOST_COLUMNS = 4
LARGEST_IN_UNITS = np.uint64(1 << 33)  # shifted by 30 bits it still fits
BAD_NUMBER, TOO_FEW, TOO_MANY = range(FIRST_FAULT, FIRST_FAULT + 3)
REASONS = (
    "not a row of numbers of up to 64 bits, decimal or hexadecimal after 0x, such as "
    "'0x7f0012345000 0x12345000 4096'",
    "the row has fewer columns than the first",
    "the row has more columns than the first",
)
# Which column a name of the header means, and by how many bits its numbers are to be shifted.
VIRTUAL, PHYSICAL, SIZE, SPACE_COLUMN = range(4)
NAMES = {
    **dict.fromkeys(("virtual", "virtual_address", "vaddr", "va"), (VIRTUAL, 0)),
    **dict.fromkeys(("physical", "physical_address", "paddr", "pa"), (PHYSICAL, 0)),
    **dict.fromkeys(("size", "page_size"), (SIZE, 0)),
    "space": (SPACE_COLUMN, 0),
    "vpn": (VIRTUAL, PAGE_SHIFT),
    "gfn": (PHYSICAL, PAGE_SHIFT),
    "pfn": (PHYSICAL, PAGE_SHIFT),
}
SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")


@inlined
def after_blanks(text: Bytes, here: int) -> int:
    """Return where the blanks at `here` end."""
    while text[at(here)] in (SPACE, TAB, RETURN):
        here += 1
    return here


@inlined
def unit(text: Bytes, here: int) -> tuple[int, int]:
    """Return by how many bits K, M or G (KiB, KB, ...) at `here` shifts a size, and where it ends."""
    letter = text[at(here)] | LOWER_CASE
    shift = 0
    if letter == LETTER_K:
        shift = 10
    elif letter == LETTER_M:
        shift = 20
    elif letter == LETTER_G:
        shift = 30
    if not shift:
        return 0, here
    here += 1
    if (text[at(here)] | LOWER_CASE) == LETTER_I:
        here += 1
    if (text[at(here)] | LOWER_CASE) == LETTER_B:
        here += 1
    return shift, here


@spliced
def take_row(
    text: Bytes, here: int, columns: int, sized: int, values: Numbers, record: int
) -> tuple[int, int]:
    """Read the row that begins at `here`; return how that ended, and where its numbers end."""
    column = 0
    while True:
        value, following = number(text, here)
        if following == here:
            return BAD_NUMBER, here
        if column == columns:
            return TOO_MANY, here
        if column == sized:
            shift, following = unit(text, following)
            if value > LARGEST_IN_UNITS:
                value = np.uint64(0)  # which no page has
            value <<= np.uint64(shift)
        values[at(column), at(record)] = value
        column += 1
        here = after_blanks(text, following)
        if text[at(here)] in (COMMA, SEMICOLON):
            here = after_blanks(text, here + 1)
        elif text[at(here)] in (NEWLINE, HASH):
            return END if column == columns else TOO_FEW, here
        elif here == following:
            return BAD_NUMBER, here


@kernel
def parse(
    text: Bytes, end: int, columns: int, sized: int, values: Numbers, line: Words, place: Words
) -> int:
    """Read rows of `text` up to `end`, which is the end of a line; return how that ended.

    columns: how many a row has; sized: the one that may have a unit, or -1; values: [column, record].
    """
    here, record = place[POSITION], place[RECORD]
    status = END
    while here < end:
        following = after_blanks(text, here)
        if text[at(following)] not in (NEWLINE, HASH):
            if record == len(line):
                status = FULL
                break
            status, following = take_row(text, following, columns, sized, values, record)
            if status != END:
                break
            line[at(record)] = place[LINE] + 1
            record += 1
        while text[at(following)] != NEWLINE:
            following += 1
        here = following + 1
        place[LINE] += 1
    place[POSITION], place[RECORD] = here, record
    return status


class Columns(NamedTuple):
    """What the rows of a file have."""

    kind: tuple[int, ...]  # of each column: VIRTUAL, PHYSICAL, SIZE or SPACE_COLUMN
    shift: tuple[int, ...]  # bits
    header: int  # bytes to pass over, the header's last included
    lines: int  # lines in them


def first_row(head: bytes) -> tuple[bytes, int]:
    """Return the first line that is neither empty nor a comment, and where it begins."""
    start = 0
    for row in head.split(b"\n"):
        text = row.split(b"#")[0].strip()
        if text:
            return text, start
        start += len(row) + 1
    return b"", start


def columns_of(head: bytes) -> Columns | None:
    """Return the columns of a file that begins like this, or None if it is no such file."""
    row, start = first_row(head)
    words = SEPARATOR.split(row[:200].decode("latin-1").lower())
    if not 2 <= len(words) <= MOST_COLUMNS:
        return None
    if re.fullmatch(r"0x[0-9a-f]+|[0-9]+", words[0]):
        count = len(words)
        return Columns(tuple(range(count)), (0,) * count, 0, 0)
    named = [NAMES.get(word) for word in words]
    known = [column for column in named if column]
    if len(known) < len(words):
        return None
    kind, shift = zip(*known, strict=True)
    if len(set(kind)) < len(kind) or not {VIRTUAL, PHYSICAL} <= set(kind):
        return None
    end = head.find(b"\n", start)
    end = len(head) if end < 0 else end + 1
    return Columns(kind, shift, end, head.count(b"\n", 0, end))


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this has rows of numbers."""
    return columns_of(head) is not None


def read_rows(pieces: Iterable[bytes], where: str) -> Iterator[Entries]:
    """Yield the pages of rows.

    Raises
    ------
    InputError
        A row is none; the message has its line and content.
    """
    rest = iter(pieces)
    head = next(rest, b"")
    columns = columns_of(head)
    if columns is None:
        raise InputError(f"{where}: line 1: {REASONS[0]}")
    count = len(columns.kind)
    sized = columns.kind.index(SIZE) if SIZE in columns.kind else -1
    values, line = np.zeros((count, RECORDS), np.uint64), np.zeros(RECORDS, np.int64)
    reader = TextReader(
        where,
        lambda text, end: parse(text, end, count, sized, values, line, reader.place),
        FIELDS,
        REASONS,
    )
    reader.place[LINE] = columns.lines
    for made in reader.read(chain([head[columns.header :]], rest)):
        found = [np.zeros(made, np.int64), np.zeros(made, np.int64)]
        found += [np.full(made, PAGE_BYTES, np.int64), np.zeros(made, np.int64)]
        for column, (kind, shift) in enumerate(zip(columns.kind, columns.shift, strict=True)):
            number_of = values[column, :made].view(np.int64)
            if shift:
                lost = number_of >> 64 - shift  # a sign, or nothing
                bad = (lost != 0) & (lost != -1)
                if bad.any():
                    i = int(np.argmax(bad))
                    raise InputError(
                        f"{where}: line {line[i]}: page number {int(number_of[i]) % (1 << 64):#x} has "
                        "more than 52 bits"
                    )
                number_of = number_of << shift
            found[kind] = number_of.copy()
        virtual, physical, size, space = found
        yield Entries(virtual, physical, size, space, line[:made].copy())
