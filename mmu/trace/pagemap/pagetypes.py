"""Reads what the kernel's ``page-types -r -l -N -p PID`` prints (or ``-L`` for ``-l``), from tools/mm.

    voffset	offset	len	flags
    7f12fc800	1400	1	__RUDl______ab_H______t_______________f____________d_____1
    7f12fc801	1401	1ff	...

Numbers are of 4 KiB pages, hexadecimal; ``-L`` has a line for each page and no ``len``. Source:
torvalds/linux, tools/mm/page-types.c at 02e1960a; flags: Documentation/admin-guide/mm/pagemap.rst. The
first 23 letters of the flags stand at the bits of include/uapi/linux/kernel-page-flags.h, one after the
other; ``w`` is for a page in swap space, which has no frame here, and is counted.

A large page shows as what it is made of: a compound page of 512 frames or more, all of them mapped in
a row, aligned. It counts as a 2 MiB page. That is exact for hugetlb pages (G), which are never mapped
otherwise, and a conclusion for transparent ones (t): their frames may be mapped one by one as well, as
after mprotect() of a part of them, and page-types does not say. `mmu trace pagemap PID` does.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, kernel, spliced
from mmu.trace.kinds import PAGE_BYTES, PAGE_SHIFT
from mmu.trace.pagemap.pages import (
    LARGE_BYTES,
    LARGE_PAGES,
    MOST_PAGES,
    Bytes,
    Entries,
    Numbers,
    Words,
)
from mmu.trace.pagemap.text import (
    END,
    FIELDS,
    FIRST_FAULT,
    FULL,
    LINE,
    NEWLINE,
    POSITION,
    RECORD,
    RECORDS,
    SPACE,
    TAB,
    TextReader,
    unsigned,
)

# Letters of the flags by position, and what they are to us as bits.
HEAD_AT, TAIL_AT, HUGE_AT, THP_AT, NAMED_FLAGS = 15, 16, 17, 22, 23
HEAD, TAIL, LARGE, SWAPPED = 1, 2, 4, 8
ABSENT, SWAP_LETTER = ord("_"), ord("w")
VIRTUAL, PHYSICAL, LENGTH, FLAGS, COLUMNS = range(5)  # of `values`
BAD_LINE, BAD_FLAGS, COOKED = range(FIRST_FAULT, FIRST_FAULT + 3)
REASONS = (
    "not a line of page-types -r -p PID: hexadecimal numbers and flags, apart by tabs",
    "the flags are not letters and underscores, at least 23",
    "these flags hide whether the page is swapped out or large: run page-types with -r",
)
SUMMARY = re.compile(rb"\n\n+ *flags\tpage-count")


@spliced
def flags_at(text: Bytes, here: int) -> tuple[int, int, int]:
    """Return a fault or END, what the flags at `here` say, and the end of their line."""
    flags, first, shown = 0, here, 0
    while text[at(here)] != NEWLINE:
        letter, position = text[at(here)], here - first
        if letter <= SPACE:
            return BAD_FLAGS, flags, here
        if letter == SWAP_LETTER:
            flags |= SWAPPED
        if letter != ABSENT:
            shown += 1
            if position == HEAD_AT:
                flags |= HEAD
            elif position == TAIL_AT:
                flags |= TAIL
            elif position in (HUGE_AT, THP_AT):
                flags |= LARGE
        here += 1
    if here - first < NAMED_FLAGS:
        return BAD_FLAGS, flags, here
    if not shown or (flags & LARGE and not flags & (HEAD | TAIL)):
        return COOKED, flags, here
    return END, flags, here


@kernel
def parse(text: Bytes, end: int, numbers: int, values: Numbers, line: Words, place: Words) -> int:
    """Read lines of `text` up to `end`, which is the end of a line; return how that ended.

    numbers: how many stand before the flags; values: [VIRTUAL | PHYSICAL | LENGTH | FLAGS, record].
    """
    here, record = place[POSITION], place[RECORD]
    status = END
    while here < end:
        if record == len(line):
            status = FULL
            break
        values[LENGTH, at(record)] = 1
        following = here
        for column in range(numbers):
            value, stop = unsigned(text, following, 16)
            if stop == following or text[at(stop)] != TAB:
                status = BAD_LINE
                break
            values[at(column), at(record)] = value
            following = stop + 1
        if status == END:
            status, flags, following = flags_at(text, following)
            values[FLAGS, at(record)] = flags
        if status != END:
            break
        line[at(record)] = place[LINE] + 1
        record += 1
        place[LINE] += 1
        here = following + 1
    place[POSITION], place[RECORD] = here, record
    return status


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this is a list of page-types."""
    return re.match(rb"([vf]offset\t)?((cgroup|map-cnt)\t)*offset\t", head) is not None


def body(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces up to the summary that page-types prints without -N."""
    held = b""
    for piece in pieces:
        held += piece
        if found := SUMMARY.search(held):
            yield held[: found.start() + 1]
            return
        yield held[:-64]
        held = held[-64:]
    yield held


def read_pagetypes(pieces: Iterable[bytes], where: str) -> Iterator[Entries]:
    """Yield the pages of a list of page-types.

    Raises
    ------
    InputError
        A line is none, or the list lacks what a map needs; the message has line and content.
    """
    rest = body(pieces)
    head = b""
    while b"\n" not in head and len(head) < 1000:
        piece = next(rest, None)
        if piece is None:
            break
        head += piece
    header, _, begin = head.partition(b"\n")
    lists = {b"voffset\toffset\tlen\tflags": 3, b"voffset\toffset\tflags": 2}
    if header not in lists:
        raise InputError(
            f"{where}: line 1: {header[:60]!r}: not the columns of page-types -r -l -p PID "
            "(voffset, offset, len, flags), or -L for -l; accepted: these, without -C, -M and -f"
        )
    numbers = lists[header]
    values, line = np.zeros((COLUMNS, RECORDS), np.uint64), np.zeros(RECORDS, np.int64)
    reader = TextReader(
        where,
        lambda text, end: parse(text, end, numbers, values, line, reader.place),
        FIELDS,
        REASONS,
    )
    reader.place[LINE] = 1
    flagged: list[tuple[Words, ...]] = []
    pages = swapped = 0

    def rows() -> Iterator[bytes]:
        yield begin
        yield from rest

    for made in reader.read(rows()):
        virtual, physical, length, flags = values[: FLAGS + 1, :made]
        for column, bits, what in ((virtual, 52, "voffset"), (physical, 40, "offset")):
            high = (column >> np.uint64(bits)) + (length >> np.uint64(40)) != 0
            high &= flags & np.uint64(SWAPPED) == 0
            if high.any():
                i = int(np.argmax(high))
                raise InputError(
                    f"{where}: line {line[i]}: {what} {int(column[i]):#x}, len {int(length[i]):#x}: no "
                    "page has such a number"
                )
        there = (flags & np.uint64(SWAPPED)) == 0
        swapped += int(length[~there].sum())
        part = tuple(
            column[there].astype(np.int64)
            for column in (virtual, physical, length, flags, line[:made])
        )
        pages += int(part[LENGTH].sum())
        if pages > MOST_PAGES:
            raise InputError(
                f"{where}: line {int(line[made - 1])}: found more than {MOST_PAGES:,} pages by here; "
                "accepted: up to that, 128 GiB in 4 KiB pages"
            )
        flagged.append(part)
    if flagged:
        columns = [np.concatenate([part[field] for part in flagged]) for field in range(5)]
        flagged.clear()
        yield joined(*columns)._replace(swapped=swapped)


def joined(virtual: Words, physical: Words, length: Words, flags: Words, line: Words) -> Entries:
    """Return pages from runs of small ones; those that a compound page of 512 holds are one of 2 MiB."""
    total = int(length.sum())
    offset = np.arange(total) - np.repeat(np.cumsum(length) - length, length)
    vpn, pfn = np.repeat(virtual, length) + offset, np.repeat(physical, length) + offset
    bits, place = np.repeat(flags, length), np.repeat(line, length)
    return with_large(vpn, pfn, large_runs(vpn, pfn, bits), place)


def large_runs(vpn: Words, pfn: Words, bits: Words) -> Words:
    """Return where runs of 512 pages begin that a compound page holds: int64 [n], ascending."""
    count = len(vpn)
    if count < LARGE_PAGES:
        return np.zeros(0, np.int64)
    follows = (np.diff(vpn) == 1) & (np.diff(pfn) == 1) & (bits[1:] & TAIL != 0)
    broken = np.concatenate([[0], np.cumsum(~follows)])
    begins = np.flatnonzero(
        (vpn & LARGE_PAGES - 1 == 0)
        & (pfn & LARGE_PAGES - 1 == 0)
        & (bits & LARGE != 0)
        & (bits & (HEAD | TAIL) != 0)
    )
    begins = begins[begins <= count - LARGE_PAGES]
    return begins[broken[begins] == broken[begins + LARGE_PAGES - 1]]


def with_large(vpn: Words, pfn: Words, begins: Words, place: Words) -> Entries:
    """Return pages, of which the 512 from each of `begins` on are one."""
    kept = np.ones(len(vpn), bool)
    size = np.full(len(vpn), PAGE_BYTES, np.int64)
    size[begins] = LARGE_BYTES
    inside = begins[:, None] + np.arange(1, LARGE_PAGES)
    kept[inside.ravel()] = False
    return Entries(
        vpn[kept] << PAGE_SHIFT, pfn[kept] << PAGE_SHIFT, size[kept],
        np.zeros(int(kept.sum()), np.int64), place[kept],
    )  # fmt: skip
