"""The mapped pages nearest to an address that is not mapped."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.bits import ENTRIES, LEVEL_BITS, PAGE_SHIFT
from mmu.hardware.outcome import Outcome
from mmu.indices import reach, table_index
from mmu.memory import Memory
from mmu.translation import Translations, translate, translate_many
from mmu.walkthrough import Walkthrough

PRESENT, RESERVED = 1 << 0, 1 << 3  # bits of a page fault's error code
MOST_TABLES = 64  # looked into on each side, before the search is given up


class Nearest(NamedTuple):
    """Addresses in the nearest mapped pages: the last below, the first above; None if none is found."""

    below: int | None
    above: int | None


def nearest_mapped(memory: Memory, walk: Walkthrough) -> Nearest:
    """Return the mapped pages nearest to an address whose walk met an entry that is not present.

    Parameters
    ----------
    memory : Memory
        The memory that `walk` was made in.
    walk : Walkthrough
        A walk that ended in a page fault.

    Returns
    -------
    Nearest
        Two addresses; an end of the search that took too long is None.
    """
    fault = walk.translation
    if fault.outcome != Outcome.PAGE_FAULT or (fault.error_code or 0) & PRESENT:
        return Nearest(None, None)
    return Nearest(_Search(memory, walk, -1).found(), _Search(memory, walk, 1).found())


class _Search:
    """A search to one side, table by table, from the one that has no entry upwards."""

    def __init__(self, memory: Memory, walk: Walkthrough, side: int) -> None:
        self.memory = memory
        self.walk = walk
        self.side = side
        self.tables = 0
        self.question: dict[str, Any] = {
            "cr3": walk.cr3, "nested": walk.nested, "control": walk.control, "user": walk.user,
        }  # fmt: skip

    def found(self) -> int | None:
        """Return the nearest mapped address on this side."""
        for level in range(self.walk.reads[-1].level, self.walk.levels + 1):
            index = table_index(self.walk.gva, level)
            others = range(index + 1, ENTRIES) if self.side > 0 else range(index - 1, -1, -1)
            if (address := self._in_table(self.walk.gva, level, others)) is not None:
                return address
        return None

    def _in_table(self, gva: int, level: int, order: range) -> int | None:
        """Return the first mapped address under entries, in order, of the table that `gva` leads to."""
        self.tables += 1
        if not order or self.tables > MOST_TABLES:
            return None
        first = self._address(gva, level, order[0])
        reads = translate(self.memory, first, **self.question).steps
        met = [n for n, read in enumerate(reads, 1) if read[:2] == ("guest", level)]
        if not met:
            return None
        addresses = [self._address(gva, level, index) for index in order]
        answers = translate_many(self.memory, np.array(addresses, np.uint64), **self.question)
        for place in _worth(answers, met[0]):
            if _mapped(answers)[place]:
                return addresses[place]
            everything = range(ENTRIES) if self.side > 0 else range(ENTRIES - 1, -1, -1)
            below = self._in_table(addresses[place], level - 1, everything) if level > 1 else None
            if below is not None:
                return below
        return None

    def _address(self, gva: int, level: int, index: int) -> int:
        """Return the first address under an entry, or the last page's if the search goes down."""
        shift = PAGE_SHIFT + LEVEL_BITS * (level - 1)
        within = 0 if self.side > 0 else (1 << shift) - (1 << PAGE_SHIFT)
        address = (gva >> shift + LEVEL_BITS << LEVEL_BITS | index) << shift | within
        bits = reach(self.walk.levels)
        low = address & (1 << bits) - 1
        return low | ((1 << 64) - (1 << bits) if low >> bits - 1 else 0)


def _mapped(answers: Translations) -> NDArray[np.bool_]:
    """Tell which addresses have a page, even one that the access may not use."""
    denied = (answers.outcome == Outcome.PAGE_FAULT) & (
        answers.error_code & (PRESENT | RESERVED) == PRESENT
    )
    mapped: NDArray[np.bool_] = (answers.outcome == Outcome.OK) | denied
    return mapped


def _worth(answers: Translations, references: int) -> Iterator[int]:
    """Yield which entries are worth a look: those with a page, or with a table behind them."""
    deeper = (answers.outcome == Outcome.PAGE_FAULT) & (answers.references > references)
    yield from np.flatnonzero(_mapped(answers) | deeper).tolist()
