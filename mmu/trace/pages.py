"""Numbers pages in the order in which they first appear.

A page's key is its number and its space in one word: the same page of two spaces is two pages. Pages of
a larger size have keys alike, with a larger page's number.
"""

import secrets
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Integer, Words

SPACE_BITS = 16
SPACE_MASK = (1 << SPACE_BITS) - 1
HALF_BITS = 26  # of a key, which has 36 + 16
HALF_MASK = (1 << HALF_BITS) - 1
FOLDED = 29  # the high half of a hash goes into the low one by this many bits

Slots = NDArray[np.int32]


class Pages(NamedTuple):
    """A hash table with linear probing, never more than half full."""

    place: Slots  # [hash] number of the page + 1; 0: free
    key: Words  # [page]
    tally: Words  # [1] pages
    salt: Words  # [2] odd numbers below 2^31


def new_pages(room: int) -> Pages:
    """Return a table with room for so many pages, a power of two."""
    # Multipliers that nobody can know: a trace made to collide would otherwise take for ever.
    salt = np.array([secrets.randbits(31) | 1, secrets.randbits(31) | 1], np.int64)
    return Pages(
        place=np.zeros(2 * room, np.int32),
        key=np.zeros(room, np.int64),
        tally=np.zeros(1, np.int64),
        salt=salt,
    )


@inlined
def wide(number: Integer) -> int:
    """Return a number of a narrow array as all others are: with fewer bits it would overflow."""
    return np.int64(number)  # type: ignore[return-value]


@inlined
def find(pages: Pages, key: int) -> int:
    """Return the number of a page, the next one if it is new."""
    mask = len(pages.place) - 1
    # Products below 2^57: compiled code would wrap, interpreted code warn.
    mixed = (key & HALF_MASK) * pages.salt[0] + (key >> HALF_BITS & HALF_MASK) * pages.salt[1]
    spot = (mixed ^ mixed >> FOLDED) & mask
    while True:
        number = wide(pages.place[at(spot)]) - 1
        if number < 0:
            number = pages.tally[0]
            pages.place[at(spot)] = number + 1
            pages.key[at(number)] = key
            pages.tally[0] = number + 1
            return number
        if pages.key[at(number)] == key:
            return number
        spot = spot + 1 & mask


@kernel
def enter(pages: Pages, key: Words) -> None:
    """Give pages their numbers in the order of their keys."""
    for i in range(len(key)):
        find(pages, key[at(i)])


def grown(pages: Pages, room: int) -> Pages:
    """Return a table with more room and the same pages under the same numbers."""
    larger = new_pages(room)._replace(salt=pages.salt)
    enter(larger, pages.key[: pages.tally[0]])
    return larger
