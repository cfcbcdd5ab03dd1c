"""Strategies for traces: small address streams, replayed from memory or written to a file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmu.testing.lazily import strategies as st
from mmu.testing.tables import PAGE
from mmu.trace.chunks import Chunk
from mmu.trace.kinds import BLOCK, FETCH

KINDS = (0, 1, 2)  # read, write, fetch


@dataclass(frozen=True)
class SmallTrace:
    """A raw trace of one process in memory, which `mmu.Replay` takes as it takes a file's.

    Attributes
    ----------
    pairs : tuple of (int, int)
        Address, of either sign, and kind (0 read, 1 write, 2 fetch) of each access.
    """

    pairs: tuple[tuple[int, int], ...]
    name: str = "small"
    path: str = "memory"
    compact: bool = False

    @property
    def accesses(self) -> int:
        """How many there are."""
        return len(self.pairs)

    def arrays(
        self,
    ) -> "tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.uint8]]]":
        """Return addresses, int64 [n], and kinds, uint8 [n]."""
        address = np.array([address for address, _ in self.pairs], np.int64)
        return address, np.array([kind for _, kind in self.pairs], np.uint8)

    def chunks(self, records: int) -> Iterator[Chunk]:
        """Yield the trace, whole: `records` are more."""
        address, kind = self.arrays()
        first = np.append(np.arange(0, len(kind), BLOCK, dtype=np.int64), len(kind))
        fetches = np.add.reduceat((kind == FETCH).astype(np.int64), first[:-1])
        sizes = np.diff(first)
        counts, order = np.zeros(0, np.uint16), np.zeros(0, np.uint8)
        yield Chunk(
            address, kind, counts, counts.copy(), counts.copy(), order, first,
            space=np.zeros(len(sizes), np.int64), accesses=sizes,
            instructions=fetches if (kind == FETCH).any() else sizes.copy(), data=sizes - fetches,
        )  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as a trace file, for `mmu.replay` and the command line."""
        from mmu.trace.format import Raw  # noqa: PLC0415  PyArrow: only for a file
        from mmu.trace.writer import write_raw  # noqa: PLC0415

        address, kind = self.arrays()
        write_raw(path, [Raw(address, kind)])


@st.composite
def traces(draw: st.DrawFn, accesses: int = 64, pages: int = 8) -> SmallTrace:
    """Draw a trace of at most so many accesses, to at most so many 4 KiB pages in three regions.

    Pages lie side by side in each region, 1 GiB from the next one, and one region in the upper half,
    so that sets overflow and large pages are shared. It shrinks to one read of address 0.
    """
    regions = (0, 1 << 30, -1 << 46)
    place = st.tuples(st.sampled_from(regions), st.integers(0, pages - 1), st.integers(0, 63))
    access = st.tuples(place, st.sampled_from(KINDS))
    drawn = draw(st.lists(access, min_size=1, max_size=accesses))
    return SmallTrace(
        tuple((start + page * PAGE + 64 * line, kind) for (start, page, line), kind in drawn)
    )
