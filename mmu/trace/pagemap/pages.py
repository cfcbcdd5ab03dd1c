"""A page map: pages of address spaces and the frames behind them, checked and in order.

Two pages may share a frame, as memory shared by processes does, and a frame may be mapped by a large
page and by a small one. No two pages of a space may overlap.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.trace.kinds import LARGE_SHIFT, PAGE_BYTES, PAGE_SHIFT, VIRTUAL_BITS

Words = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Counts = NDArray[np.uint16]
Numbers = NDArray[np.uint64]

LARGE_BYTES = 1 << LARGE_SHIFT
HUGE_BYTES = 1 << 30
LARGE_PAGES = LARGE_BYTES // PAGE_BYTES  # 4 KiB pages in a 2 MiB page
SIZES = {PAGE_BYTES: "4 KiB", LARGE_BYTES: "2 MiB", HUGE_BYTES: "1 GiB"}
MACHINE_BITS = 52  # of a physical address: Intel SDM vol. 3, "Paging", MAXPHYADDR
MOST_SPACES = 1 << 16  # numbers that a trace can give to address spaces
MOST_PAGES = (
    1 << 25
)  # of one map: 128 GiB in 4 KiB pages; they take about 2 GB while they are sorted


class Entries(NamedTuple):
    """A part of a map as its file has it: addresses in bytes, not looked at yet."""

    virtual: Words  # [n] the 64 bits of the address
    physical: Words  # [n] likewise
    size: Words  # [n] bytes
    space: Words  # [n]
    place: Words  # [n] line or row of the file, for messages
    swapped: int = 0  # pages named as being in swap space


@dataclass(frozen=True)
class PageMap:
    """Pages in order of space and address, none overlapping another of its space.

    Attributes
    ----------
    vpn : ndarray of int64 [n]
        Number of the page's first 4 KiB page, negative in the upper half.
    gfn : ndarray of int64 [n]
        Number of its first frame.
    size : ndarray of uint8 [n]
        0: 4 KiB; 1: 2 MiB. Pages of 1 GiB have been broken into 512 of 2 MiB.
    space : ndarray of uint16 [n]
        Address space, numbered as in the trace.
    swapped : int
        Pages that the file names as being in swap space, which have no frame.
    """

    vpn: Words
    gfn: Words
    size: Bytes
    space: Counts
    swapped: int = 0

    @property
    def spaces(self) -> list[int]:
        """Numbers of the spaces that have pages."""
        starts = np.flatnonzero(np.diff(self.space, prepend=-1))
        return [int(space) for space in self.space[starts]]

    @property
    def frames(self) -> int:
        """Number after that of the highest frame."""
        return int((self.gfn + span(self.size)).max(initial=0))

    def of(self, space: int) -> "PageMap":
        """Return the pages of one space."""
        begin, end = np.searchsorted(self.space, [space, space + 1]).tolist()
        part = slice(begin, end)
        return PageMap(self.vpn[part], self.gfn[part], self.size[part], self.space[part])


def span(size: Bytes) -> Words:
    """Return how many 4 KiB pages pages of these size codes are, int64 [n]."""
    return np.where(size, LARGE_PAGES, 1).astype(np.int64)


def address_of(vpn: int) -> int:
    """Return the 64-bit address of a page."""
    return (vpn << PAGE_SHIFT) % (1 << 64)


class Collector:
    """Gathers the parts of a map; looks at each page when it comes."""

    def __init__(self, where: str, unit: str = "line") -> None:
        self.where, self.unit = where, unit
        self.parts: list[tuple[Words, Words, Bytes, Counts, Words]] = []
        self.pages = 0
        self.swapped = 0

    def add(self, part: Entries) -> None:
        """Take a part.

        Raises
        ------
        InputError
            A page that cannot be, with its line and content; or more pages than a map may have.
        """
        self._check(part)
        self.swapped += part.swapped
        virtual, physical, size, space, place = part[:5]
        if (size == HUGE_BYTES).any():
            pieces = np.where(size == HUGE_BYTES, HUGE_BYTES // LARGE_BYTES, 1)
            self._make_room(int(pieces.sum()))
            number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            virtual, physical, size, space, place = (
                np.repeat(values, pieces) for values in part[:5]
            )
            virtual, physical = virtual + number * LARGE_BYTES, physical + number * LARGE_BYTES
            size = np.minimum(size, LARGE_BYTES)
        else:
            self._make_room(len(virtual))
        self.parts.append(
            (
                virtual >> PAGE_SHIFT,
                physical >> PAGE_SHIFT,
                (size == LARGE_BYTES).astype(np.uint8),
                space.astype(np.uint16),
                place.astype(np.int64),
            )
        )

    def _make_room(self, pages: int) -> None:
        self.pages += pages
        if self.pages > MOST_PAGES:
            raise InputError(
                f"{self.where}: found more than {MOST_PAGES:,} pages; accepted: up to that, 128 GiB "
                "in 4 KiB pages; leave out what the trace does not touch"
            )

    def _check(self, part: Entries) -> None:
        virtual, physical, size, space = part[:4]
        last = virtual + (size - 1)
        sign = virtual >> VIRTUAL_BITS - 1
        high = np.int64(1) << MACHINE_BITS
        faults = (
            (
                (size != PAGE_BYTES) & (size != LARGE_BYTES) & (size != HUGE_BYTES),
                "the page size is none of 4096, 2097152, 1073741824",
            ),
            (
                ((sign != 0) & (sign != -1)) | (last >> VIRTUAL_BITS - 1 != sign),
                "the virtual address is not canonical (bits 63:47 must be equal, 48-bit virtual "
                "addresses)",
            ),
            (virtual & size - 1 != 0, "the virtual address is no multiple of the page size"),
            (
                (physical < 0) | (physical >= high),
                "the physical address has more than 52 bits",
            ),
            (physical & size - 1 != 0, "the physical address is no multiple of the page size"),
            ((space < 0) | (space >= MOST_SPACES), "the space is no number from 0 to 65535"),
        )
        wrong = np.zeros(len(virtual), bool)
        for found, _reason in faults:
            wrong |= found
        if wrong.any():
            i = int(np.argmax(wrong))
            reason = next(reason for found, reason in faults if found[i])
            raise InputError(f"{self._named(part, i)}: {reason}")

    def _named(self, part: Entries, i: int) -> str:
        virtual, physical, size = (int(c[i]) for c in (part.virtual, part.physical, part.size))
        long = SIZES.get(size, f"{size} bytes")
        return (
            f"{self.where}: {self.unit} {int(part.place[i])}: page {virtual % (1 << 64):#x} of {long} "
            f"at {physical % (1 << 64):#x}"
        )

    def page_map(self) -> PageMap:
        """Return the whole map.

        Raises
        ------
        InputError
            It has no page, or two pages of a space overlap.
        """
        if not self.pages:
            swapped = f" but {self.swapped} in swap space" if self.swapped else ""
            raise InputError(
                f"{self.where}: found no page{swapped}; accepted: a map of at least one"
            )
        vpn, gfn, size, space, place = (
            np.concatenate([part[field] for part in self.parts]) for field in range(5)
        )
        self.parts.clear()
        step, same = np.diff(vpn), np.diff(space.astype(np.int32))
        if not ((same > 0) | (same == 0) & (step > 0)).all():
            order = np.lexsort((vpn, space))
            vpn, gfn, size, space, place = (
                values[order] for values in (vpn, gfn, size, space, place)
            )
            step, same = np.diff(vpn), np.diff(space.astype(np.int32))
        clash = (same == 0) & (step < span(size[:-1]))
        if clash.any():
            i = int(np.argmax(clash))
            one, other = sorted((i, i + 1), key=lambda n: int(place[n]))
            raise InputError(
                f"{self.where}: {self.unit} {place[other]}: page {address_of(int(vpn[other])):#x} of "
                f"{SIZES[PAGE_BYTES << 9 * int(size[other])]} overlaps that of {self.unit} "
                f"{place[one]}, {address_of(int(vpn[one])):#x} of "
                f"{SIZES[PAGE_BYTES << 9 * int(size[one])]}, in space {space[one]}; accepted: each "
                "page once"
            )
        return PageMap(vpn, gfn, size, space, self.swapped)


def collected(parts: Iterable[Entries], where: str, unit: str = "line") -> PageMap:
    """Return the map that parts make; errors are those of `Collector`."""
    collector = Collector(where, unit)
    for part in parts:
        collector.add(part)
    return collector.page_map()


def page_map_of(
    virtual: Iterable[int], physical: Iterable[int], size: Iterable[int], space: Iterable[int]
) -> PageMap:
    """Return the map of pages given one by one: addresses and sizes in bytes, numbers of spaces.

    Raises
    ------
    InputError
        A page that cannot be, or two that overlap; the message has its number, counted from 0.
    """
    columns = [[(n + (1 << 63)) % (1 << 64) - (1 << 63) for n in c] for c in (virtual, physical)]
    arrays = [np.array(list(column), np.int64) for column in (*columns, size, space)]
    part = Entries(arrays[0], arrays[1], arrays[2], arrays[3], np.arange(len(arrays[0])))
    return collected([part], "page map", "page")
