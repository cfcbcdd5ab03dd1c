"""The whole map of an address space: every page that its tables map, as ranges."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.hardware.bits import LEVEL_BITS, LEVELS, PAGE_BYTES, reach
from mmu.hardware.entry import EXECUTE, READ, RIGHTS, USER, WRITE
from mmu.hardware.outcome import Outcome
from mmu.hardware.pages import (
    ABOUT,
    DONE,
    END,
    FIRST,
    FULL,
    GLOBAL_BIT,
    GPA,
    GUEST_SIZE_SHIFT,
    INDEX,
    MADDR,
    MOST_PAGES,
    MOST_TABLES,
    NESTED_SIZE_SHIFT,
    PAGES,
    RIGHTS_SHIFT,
    ROW_FIELDS,
    STATE_FIELDS,
    TABLE_FIELDS,
    TABLES,
    TOO_MANY,
    USED_ROWS,
    begin_pages,
    find_pages,
)
from mmu.hardware.rows import Words
from mmu.memory import Memory
from mmu.paging import Control, Ept, Npt, whole
from mmu.translation import USUAL, check_arguments, machine_over

MOST = 10_000_000  # pages
MOST_RANGES = 4_000_000  # whatever the number of pages: 1 GB or more while they are told
ROWS = 1 << 16  # ranges in one piece of the answer
ENTRIES_AT_ONCE = 1 << 22  # table entries between two looks at the progress
# Tables without pages: a space in use has far fewer tables than pages.
TABLES_PER_PAGE, LEAST_TABLES = 8, 1 << 16
MERGED = ("frames", "rights")
SIZE_MASK, OUTCOME_MASK = 3, (1 << GUEST_SIZE_SHIFT) - 1

Addresses = NDArray[np.uint64]


@dataclass(frozen=True)
class Mapping:
    """Ranges of mapped pages in the order of their addresses, in arrays of one element each.

    Attributes
    ----------
    first, size : ndarray of uint64 [n]
        Virtual address of the first byte, and bytes.
    user, read, write, execute : ndarray of bool [n]
        What all entries of both dimensions grant together. What a processor permits depends on its
        control bits as well: a supervisor that has CR0.WP clear writes where no guest entry grants it.
    is_global : ndarray of bool [n]
        The guest's leaf has the global bit.
    gpa, maddr : ndarray of uint64 [n]
        Guest-physical and machine address of the first byte; equal without nesting.
    page_size, guest_page_size, nested_page_size : ndarray of uint32 [n]
        Bytes, as in `Translations`; 0 where pages of a range differ, and without nesting.
    hole_first, hole_size : ndarray of uint64 [m]
        Ranges without a translation in spite of an entry that is present.
    hole_outcome : ndarray of uint8 [m]
        `Outcome` of an access there: PAGE_FAULT for reserved bits that are set, NO_MEMORY, or a nested
        violation or misconfiguration.
    hole_entry : ndarray of uint64 [m]
        Machine address of the entry that ends the walk of the range's first byte; 2^64 - 1 if the
        guest-physical address is beyond what nested tables translate.
    pages, tables : int
        Pages and holes found, and guest tables read, each as often as it was met.
    """

    first: Addresses
    size: Addresses
    user: NDArray[np.bool_]
    read: NDArray[np.bool_]
    write: NDArray[np.bool_]
    execute: NDArray[np.bool_]
    is_global: NDArray[np.bool_]
    gpa: Addresses
    maddr: Addresses
    page_size: NDArray[np.uint32]
    guest_page_size: NDArray[np.uint32]
    nested_page_size: NDArray[np.uint32]
    hole_first: Addresses
    hole_size: Addresses
    hole_outcome: NDArray[np.uint8]
    hole_entry: Addresses
    pages: int
    tables: int


def mapping(
    memory: Memory,
    *,
    cr3: int,
    nested: Ept | Npt | None = None,
    control: Control = USUAL,
    merge: str = "frames",
    most: int = MOST,
    progress: Callable[[int, int], None] | None = None,
) -> Mapping:
    """Find every page that the tables of an address space map.

    Parameters
    ----------
    memory : Memory
        Machine memory with the tables; nothing is written to it.
    cr3 : int
        Address of the root table, guest-physical if `nested`; bits outside 51:12 are ignored.
    nested : Ept or Npt, optional
        The hypervisor's tables.
    control : Control
        Control registers, and what the processor has.
    merge : {"frames", "rights"}
        Neighbouring pages become one range where rights, page sizes and the order of frames agree; or
        where rights do.
    most : int
        Pages, and holes, to find at most; a table that points to itself has no end of them.
    progress : callable, optional
        Is told how much of the space is done, and how much there is.

    Returns
    -------
    Mapping
        Pages and holes.

    Raises
    ------
    InputError
        An argument is none of these; or there are more pages than `most`, no fewer tables, or more
        than MOST_RANGES ranges, which would fill the memory of this machine.

    Notes
    -----
    Entries are taken as they stand. If one table word serves as an entry of EPT and of the guest, the
    accessed bit that a walk sets may change what the word means; that is not followed.
    """
    cr3, most = whole("cr3", cr3), whole("most", most)
    check_arguments(memory, cr3, nested, control, True, False)
    if merge not in MERGED:
        raise InputError(f"merge: found {merge!r}; accepted: {' | '.join(MERGED)}")
    if not 1 <= most < 1 << 48:
        raise InputError(f"most: found {most}; accepted: 1 to 2^48 - 1 pages")
    rows, state = _found(memory, cr3, nested, control, most, progress)
    holes = rows[:, ABOUT] & OUTCOME_MASK != Outcome.OK
    pages = rows[~holes]
    return _described(
        pages if merge == "frames" else _same_rights(pages, reach(LEVELS + control.la57)),
        rows[holes],
        nested is not None,
        reach(LEVELS + control.la57),
        state,
    )


def _found(
    memory: Memory,
    cr3: int,
    nested: Ept | Npt | None,
    control: Control,
    most: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Words, Words]:
    """Return the rows of all pages and holes, and the kernel's state after it."""
    machine = machine_over(memory, cr3, nested, control, False)
    levels = LEVELS + control.la57
    tables = np.zeros((levels + 2, TABLE_FIELDS), np.int64)
    state = np.zeros(STATE_FIELDS, np.int64)
    state[MOST_PAGES], state[MOST_TABLES] = most, most // TABLES_PER_PAGE + LEAST_TABLES
    rows = np.zeros((ROWS, ROW_FIELDS), np.int64)
    parts: list[Words] = []
    begin_pages(machine, tables, state, rows)
    while (status := find_pages(machine, tables, state, rows, ENTRIES_AT_ONCE)) != DONE:
        if status == TOO_MANY:
            raise InputError(_too_many(state, cr3, most))
        if status == FULL:
            parts.append(rows[:-1].copy())
            if len(parts) * (len(rows) - 1) > MOST_RANGES:
                raise InputError(
                    f"most: found more than {MOST_RANGES:,} ranges below cr3 {cr3:#x}; accepted: tables "
                    "with fewer; those that point to themselves have no end"
                )
            rows[0] = rows[-1]
            state[USED_ROWS] = 1
        if progress:
            progress(int(tables[levels, INDEX] << LEVEL_BITS | tables[levels - 1, INDEX]), 1 << 18)
    if state[PAGES] > most:
        raise InputError(_too_many(state, cr3, most))
    return np.concatenate([*parts, rows[: state[USED_ROWS]]]), state


def _too_many(state: Words, cr3: int, most: int) -> str:
    """Say that there was no end."""
    found = (
        f"more than {most:,} pages"
        if state[PAGES] > most
        else f"{state[TABLES]:,} tables and only {state[PAGES]:,} pages"
    )
    return (
        f"most: found {found} below cr3 {cr3:#x}; accepted: up to {most:,} pages, as tables that point "
        "to themselves have no end; ask for more pages if these are no such tables"
    )


def _same_rights(rows: Words, bits: int) -> Words:
    """Merge ranges that follow one another with equal rights; sizes that differ become a mark."""
    if not len(rows):
        return rows
    rights = rows[:, ABOUT] >> RIGHTS_SHIFT & RIGHTS
    begins = np.ones(len(rows), bool)
    begins[1:] = (
        (rows[1:, FIRST] != rows[:-1, END])
        | (rights[1:] != rights[:-1])
        | (rows[1:, FIRST] == 1 << bits - 1)
    )
    starts = np.flatnonzero(begins)
    merged = rows[starts].copy()
    merged[:, END] = rows[np.append(starts[1:], len(rows)) - 1, END]
    # SIZE_MASK is the code of no page size.
    for shift in (GUEST_SIZE_SHIFT, NESTED_SIZE_SHIFT):
        code = rows[:, ABOUT] >> shift & SIZE_MASK
        differ = np.minimum.reduceat(code, starts) != np.maximum.reduceat(code, starts)
        merged[differ, ABOUT] |= SIZE_MASK << shift
    everywhere = np.bitwise_and.reduceat(rows[:, ABOUT], starts) & GLOBAL_BIT
    merged[:, ABOUT] = merged[:, ABOUT] & ~GLOBAL_BIT | everywhere
    return merged


def _described(rows: Words, holes: Words, nested: bool, bits: int, state: Words) -> Mapping:
    """Return rows as columns under their names."""
    about = rows[:, ABOUT]
    rights = about >> RIGHTS_SHIFT
    guest, host = about >> GUEST_SIZE_SHIFT & SIZE_MASK, about >> NESTED_SIZE_SHIFT & SIZE_MASK
    both = np.minimum(guest, host) if nested else guest
    if nested:
        both = np.where((guest == SIZE_MASK) | (host == SIZE_MASK), SIZE_MASK, both)
    return Mapping(
        first=_extended(rows[:, FIRST], bits),
        size=(rows[:, END] - rows[:, FIRST]).view(np.uint64),
        user=rights & USER != 0,
        read=rights & READ != 0,
        write=rights & WRITE != 0,
        execute=rights & EXECUTE != 0,
        is_global=about & GLOBAL_BIT != 0,
        gpa=rows[:, GPA].copy().view(np.uint64),
        maddr=rows[:, MADDR].copy().view(np.uint64),
        page_size=_bytes_of(both),
        guest_page_size=_bytes_of(guest),
        nested_page_size=_bytes_of(host) if nested else np.zeros(len(rows), np.uint32),
        hole_first=_extended(holes[:, FIRST], bits),
        hole_size=(holes[:, END] - holes[:, FIRST]).view(np.uint64),
        hole_outcome=(holes[:, ABOUT] & OUTCOME_MASK).astype(np.uint8),
        hole_entry=holes[:, MADDR].copy().view(np.uint64),
        pages=int(state[PAGES]),
        tables=int(state[TABLES]),
    )


def _extended(address: Words, bits: int) -> Addresses:
    """Return canonical addresses: the highest bit that is translated fills those above it."""
    return (address << 64 - bits >> 64 - bits).view(np.uint64)


def _bytes_of(code: Words) -> NDArray[np.uint32]:
    """Return page sizes in bytes; 0 for the mark of sizes that differ."""
    return np.where(code == SIZE_MASK, 0, PAGE_BYTES << LEVEL_BITS * code).astype(np.uint32)
