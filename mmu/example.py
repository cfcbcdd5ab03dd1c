"""Tables made on the spot: the shortest that translate one address, for each combination of sizes.

What a walk reads is nowhere shown better than on tables that hold nothing else.
"""

from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.hardware.bits import PAGE_BYTES, WORD_BYTES
from mmu.hardware.entry import ADDRESS, EPT, LARGE_LEAF, NPT, X86
from mmu.indices import page_bytes, table_index
from mmu.memory import Memory
from mmu.paging import NESTED_LEVELS, Ept, Npt, whole
from mmu.units import parse_choice

GVA = 0x7F00_1234_5678
GUEST_SIZES = {"4k": 1, "2m": 2, "1g": 3}  # level of the leaf
NESTED_SIZES = {"native": 0} | GUEST_SIZES
FORMATS = ("ept", "npt")
# Where things stand. Guest tables follow each other from the guest's second page on. In the machine,
# memory is 4 MiB from 1 GiB; with nested 2 MiB pages the guest's tables have the second of them.
BASE, BYTES = 1 << 30, 4 << 20
FIRST_TABLE = PAGE_BYTES
NESTED_TABLES, LARGE_FRAME, SMALL_FRAMES = BASE + (1 << 20), BASE + (2 << 20), BASE + (3 << 20)
DATA_GPA, DATA_MADDR = 2 << 30, 3 << 30  # of the GiB that the page is a part of
WITHIN_GIB = (1 << 30) - 1


class Example(NamedTuple):
    """Arguments of `mmu.translate`, which find a page."""

    memory: Memory
    gva: int
    cr3: int
    nested: Ept | Npt | None


class _Tables:
    """Words of the example's memory, and pages of it that are free."""

    def __init__(self) -> None:
        self.words = np.zeros(BYTES // WORD_BYTES, np.int64)
        self.free = NESTED_TABLES

    def take(self) -> int:
        self.free += PAGE_BYTES
        return self.free - PAGE_BYTES

    def at(self, table: int, address: int, level: int) -> int:
        """Return the index in `words` of the entry that an address selects."""
        return (table - BASE) // WORD_BYTES + table_index(address, level)

    def map(self, root: int, address: int, levels: int, level: int, link: int, leaf: int) -> None:
        """Put a leaf of `level`, and what tables it takes, below a nested root."""
        table = root
        for above in range(levels, level, -1):
            place = self.at(table, address, above)
            if not self.words[place]:
                self.words[place] = self.take() | link
            table = int(self.words[place]) & ADDRESS
        self.words[self.at(table, address, level)] = leaf


def example_tables(
    guest: str = "4k",
    nested: str = "4k",
    *,
    gva: int = GVA,
    format: str = "ept",
    levels: int = 4,
    nested_levels: int = 4,
    dirty: bool = True,
) -> Example:
    """Return the shortest tables that translate one address.

    Parameters
    ----------
    guest : {"4k", "2m", "1g"}
        Size of the guest's page.
    nested : {"4k", "2m", "1g", "native"}
        Size of all nested pages, those of the guest's tables too; ``"native"`` has no nested tables.
    gva : int
        The address, unsigned or signed; of one that is not canonical, the bits below the sign.
    format : {"ept", "npt"}
        Format of the nested tables.
    levels, nested_levels : {4, 5}
        Levels of either dimension; ask for ``mmu.Control(la57=True)`` with five of the guest's.
    dirty : bool
        EPT keeps accessed and dirty bits.

    Returns
    -------
    Example
        Memory of 4 MiB, all rights granted and no accessed or dirty bit set.

    Raises
    ------
    InputError
        An argument is none of these.
    """
    size, backing = (
        _choice("guest", guest, tuple(GUEST_SIZES)),
        _choice("nested", nested, tuple(NESTED_SIZES)),
    )
    kind = _choice("format", format, FORMATS)
    for name, value in (("levels", levels), ("nested_levels", nested_levels)):
        if whole(name, value) not in NESTED_LEVELS:
            raise InputError(f"{name}: found {value}; accepted: 4 | 5")
    gva = whole("gva", gva)
    tables, level, below = _Tables(), GUEST_SIZES[size], NESTED_SIZES[backing]
    form = EPT if kind == "ept" else NPT
    root = tables.take() if below else 0

    def back(gpa: int, frame: int) -> None:
        """Map the nested page that holds a guest-physical page."""
        inside = page_bytes(below) - 1
        leaf = frame & ~inside | form.leaf | (LARGE_LEAF if below > 1 else 0)
        tables.map(root, gpa, nested_levels, below, form.table, leaf)

    where = {0: BASE, 1: SMALL_FRAMES, 2: LARGE_FRAME, 3: BASE}[below]  # of guest-physical 0
    start = 0 if below else BASE
    for at in range(levels, level - 1, -1):
        gpa = start + FIRST_TABLE * (levels - at + 1)
        place = tables.at(where + gpa - start, gva, at)
        if below:
            back(gpa, where + gpa)
        page = DATA_GPA & ~(page_bytes(level) - 1) | gva & WITHIN_GIB & ~(page_bytes(level) - 1)
        entry = page | X86.leaf | (LARGE_LEAF if level > 1 else 0)
        tables.words[place] = entry if at == level else gpa + FIRST_TABLE | X86.table
    if below:
        back(DATA_GPA | gva & WITHIN_GIB, DATA_MADDR | gva & WITHIN_GIB)
    pointer: Ept | Npt | None = None
    if below:
        pointer = Ept.at(root, dirty, nested_levels)
        if kind == "npt":
            pointer = Npt(root, levels=nested_levels)
    return Example(Memory.from_words(tables.words, BASE), gva, start + FIRST_TABLE, pointer)


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    try:
        return parse_choice(value, choices)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
