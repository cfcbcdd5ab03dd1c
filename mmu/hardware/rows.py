"""Set-associative storage that every TLB and walk cache of a logical processor shares.

Every cache is a *row*: a run of slots in the same two arrays, `tag` and `frame`. Geometry is data, so
any processor is one compiled signature. A set lists its entries from most to least recently used:
a hit is usually the first slot, the victim is the last, and there are no time stamps (age stamps 2.11,
recency order 1.38 ns per access). An array that holds several page sizes is several rows over the same
slots, looked up one after the other. Empty slots stand behind all others of their set, so inserting
never evicts while there is room.

A tag word is judged by one exclusive-or, one AND and one comparison:

     62      53 52           8 7    6 5        0
    | context  | page number  | size | denied   |

`denied` has a bit per kind of access that may not use the entry; a clean page denies writes, so that
the first write walks again and sets the dirty bit. An empty slot is -1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.jit import at, inlined

Words = NDArray[np.int64]

EMPTY = -1
MISS = -1
DENIED_BITS = 6
DENIED = (1 << DENIED_BITS) - 1
SIZE_SHIFT = 6
SIZE_BITS = 3
NUMBER_SHIFT = 8
CONTEXT_SHIFT = 53
PAGE_NUMBER_MASK = (1 << CONTEXT_SHIFT - NUMBER_SHIFT) - 1
CONTEXTS = 1 << 10  # contexts 0..1023 keep tag words positive
LINEAR = 63  # a fold that leaves the page number as it is

# Groups of rows, in the order in which their rows stand.
L1_DATA, L1_FETCH, L2_DATA, L2_FETCH, NESTED, WALK_CACHE, GROUPS = range(7)


class Rows(NamedTuple):
    """Geometry of every cache; immutable during a run."""

    first: Words  # [row] its first slot; rows of one array share it
    sets: Words  # [row]
    mask: Words  # [row] sets - 1, or 0 where sets is not a power of two
    fold: Words  # [row] set index is taken of page ^ page >> fold; LINEAR for none
    ways: Words  # [row] 0 where a walk cache is absent
    size: Words  # [row] code of the page size held
    begin: Words  # [group + 1] first row of each group


@inlined
def set_of(page: int, fold: int, mask: int, sets: int) -> int:
    """Return the set that a page number belongs to."""
    mixed = page ^ (page >> fold)
    return mixed & mask if mask else mixed % sets


@inlined
def set_start(rows: Rows, row: int, page: int) -> int:
    """Return the first slot of the set that `page`, a number of pages of the row's size, belongs to."""
    chosen = set_of(page, rows.fold[at(row)], rows.mask[at(row)], rows.sets[at(row)])
    return rows.first[at(row)] + chosen * rows.ways[at(row)]


@inlined
def find(tag: Words, start: int, ways: int, key: int, care: int) -> int:
    """Return the way whose tag equals `key` in the bits of `care`, or MISS."""
    for way in range(ways):
        if not (tag[at(start + way)] ^ key) & care:
            return way
    return MISS


@inlined
def shift_in(tag: Words, frame: Words, start: int, way: int, new_tag: int, new_frame: int) -> None:
    """Push entries 0..way-1 of a set one way back, over entry `way`, and put a new one in front."""
    for slot in range(start + way, start, -1):
        tag[at(slot)] = tag[at(slot - 1)]
        frame[at(slot)] = frame[at(slot - 1)]
    tag[at(start)] = new_tag
    frame[at(start)] = new_frame


@inlined
def touch(tag: Words, frame: Words, start: int, way: int) -> None:
    """Make an entry the most recently used of its set."""
    if way:
        shift_in(tag, frame, start, way, tag[at(start + way)], frame[at(start + way)])


@inlined
def remove(tag: Words, frame: Words, start: int, ways: int, key: int) -> None:
    """Drop the entry of a set whose tag is `key`, if it is there; those behind it move up."""
    way = find(tag, start, ways, key, ~DENIED)
    if way < 0:
        return
    for slot in range(start + way, start + ways - 1):
        tag[at(slot)] = tag[at(slot + 1)]
        frame[at(slot)] = frame[at(slot + 1)]
    tag[at(start + ways - 1)] = EMPTY


@inlined
def fill(
    tag: Words, frame: Words, start: int, ways: int, new_tag: int, new_frame: int, stale: bool
) -> int:
    """Insert in front, over the page's own entry if a `stale` one may be there, else over the oldest.

    Returns the tag word that was lost to make room; EMPTY if none was.
    """
    way = find(tag, start, ways, new_tag, ~DENIED) if stale else MISS
    lost = EMPTY
    if way < 0:
        way = ways - 1
        lost = tag[at(start + way)]
    shift_in(tag, frame, start, way, new_tag, new_frame)
    return lost
