"""Set-associative storage that every TLB and walk cache of a logical processor shares.

Every cache is a *row*: a run of slots in the same two arrays, `tag` and `frame`. Geometry is data, so
any processor is one compiled signature. A set under LRU lists its entries from most to least recently
used: a hit is usually the first slot, the victim is the last, and there are no time stamps (age stamps
2.11, recency order 1.38 ns per access); its empty slots stand behind all others. Under the other rules of
`replacement` entries stay in their way, and `order` has a word for each set. An array that holds several
page sizes is several rows over the same slots, looked up one after the other.

A tag word is judged by one exclusive-or, one AND and one comparison:

     62      53 52           8 7    6 5        0
    | context  | page number  | size | denied   |

`denied` has a bit per kind of access that may not use the entry; a clean page denies writes, so that
the first write walks again and sets the dirty bit. An empty slot is -1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.jit import at, inlined, kernel

Words = NDArray[np.int64]

EMPTY = -1
MISS = -1
LRU = -1  # in `Rows.rule`
_KEEP, _PUT, _MASK, _VALUE = range(4)  # fields of `Rows.rules`
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
(
    L1_DATA, L1_FETCH, L1_STORE, L2_DATA, L2_FETCH, NESTED, WALK_CACHE, ENTRY_CACHE, GROUPS,
) = range(9)  # fmt: skip


# Fields of a row.
(
    ROW_FIRST,  # its first slot; rows of one array share it
    ROW_SETS,
    ROW_MASK,  # sets - 1, or 0 where sets is not a power of two
    ROW_FOLD,  # set index is taken of page ^ page >> fold; LINEAR for none
    ROW_WAYS,  # 0 where a walk cache is absent
    ROW_SIZE,  # code of the page size held
    ROW_RULE,  # of its first way, in `rules`; LRU
    ROW_BOOK,  # of its first set, in `order`; rows of one array share it
    ROW_FIELDS,
) = range(9)


class Rows(NamedTuple):
    """Geometry of every cache; immutable during a run.

    One table, since every array more makes each function that is given it slower to compile.
    """

    table: Words  # [row, field]
    rules: Words  # [way, field] of the replacement where it is not LRU: see `replacement`
    begin: Words  # [group + 1] first row of each group

    @property
    def first(self) -> Words:
        """First slot of each row."""
        return self.table[:, ROW_FIRST]

    @property
    def sets(self) -> Words:
        """Sets of each row."""
        return self.table[:, ROW_SETS]

    @property
    def mask(self) -> Words:
        """Mask of each row's sets, or 0."""
        return self.table[:, ROW_MASK]

    @property
    def fold(self) -> Words:
        """Shift of each row's set index."""
        return self.table[:, ROW_FOLD]

    @property
    def ways(self) -> Words:
        """Ways of each row."""
        return self.table[:, ROW_WAYS]

    @property
    def size(self) -> Words:
        """Code of the page size of each row."""
        return self.table[:, ROW_SIZE]


@inlined
def set_of(page: int, fold: int, mask: int, sets: int) -> int:
    """Return the set that a page number belongs to."""
    mixed = page ^ (page >> fold)
    return mixed & mask if mask else mixed % sets


@inlined
def row_set(rows: Rows, row: int, page: int) -> int:
    """Return the number of the set of a row that `page`, a number of pages of its size, belongs to."""
    return set_of(
        page,
        rows.table[at(row), ROW_FOLD],
        rows.table[at(row), ROW_MASK],
        rows.table[at(row), ROW_SETS],
    )


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
def note_use(order: Words, rules: Words, place: int, way_rule: int) -> None:
    """Note in a set's state that a way was used; not for LRU."""
    order[at(place)] = order[at(place)] & rules[at(way_rule), _KEEP] | rules[at(way_rule), _PUT]


@kernel
def way_to_fill(tag: Words, state: int, rules: Words, start: int, ways: int, rule: int) -> int:
    """Return the first free way of a set, else the one that its state says goes next; not for LRU."""
    for way in range(ways):
        if tag[at(start + way)] == EMPTY:
            return way
    way = 0
    while (state ^ rules[at(rule + way), _VALUE]) & rules[at(rule + way), _MASK]:
        way += 1
    return way


@inlined
def look_up(
    tag: Words, frame: Words, order: Words, rows: Rows, row: int, page: int, key: int
) -> int:
    """Return the slot of the entry that `key` names in a row, now used; or MISS."""
    chosen = row_set(rows, row, page)
    ways = rows.table[at(row), ROW_WAYS]
    start = rows.table[at(row), ROW_FIRST] + chosen * ways
    way = find(tag, start, ways, key, ~DENIED)
    if way < 0:
        return MISS
    rule = rows.table[at(row), ROW_RULE]
    if rule != LRU:
        note_use(order, rows.rules, rows.table[at(row), ROW_BOOK] + chosen, rule + way)
        return start + way
    if way:
        shift_in(tag, frame, start, way, tag[at(start + way)], frame[at(start + way)])
    return start


@inlined
def slot_of(tag: Words, rows: Rows, row: int, page: int, key: int) -> int:
    """Return the slot of the entry that `key` names in a row, as it stands; or MISS."""
    start = (
        rows.table[at(row), ROW_FIRST] + row_set(rows, row, page) * rows.table[at(row), ROW_WAYS]
    )
    way = find(tag, start, rows.table[at(row), ROW_WAYS], key, ~DENIED)
    return start + way if way >= 0 else MISS


@inlined
def has_room(tag: Words, rows: Rows, row: int, page: int) -> bool:
    """Tell whether a page's set has a free slot."""
    start = (
        rows.table[at(row), ROW_FIRST] + row_set(rows, row, page) * rows.table[at(row), ROW_WAYS]
    )
    return find(tag, start, rows.table[at(row), ROW_WAYS], EMPTY, EMPTY) >= 0


@inlined
def remove(tag: Words, frame: Words, rows: Rows, row: int, page: int, key: int) -> None:
    """Drop the entry of a row that `key` names, if it is there; in an LRU set those behind it move up."""
    ways = rows.table[at(row), ROW_WAYS]
    start = rows.table[at(row), ROW_FIRST] + row_set(rows, row, page) * ways
    way = find(tag, start, ways, key, ~DENIED)
    if way < 0:
        return
    last = start + way
    if rows.table[at(row), ROW_RULE] == LRU:
        last = start + ways - 1
        for slot in range(start + way, last):
            tag[at(slot)] = tag[at(slot + 1)]
            frame[at(slot)] = frame[at(slot + 1)]
    tag[at(last)] = EMPTY


@inlined
def fill(
    tag: Words, frame: Words, order: Words, rows: Rows, row: int, page: int, new_tag: int,
    new_frame: int, stale: bool,
) -> int:  # fmt: skip
    """Insert, over the page's own entry if a `stale` one may be there, else where replacement says.

    Returns the tag word that was lost to make room; EMPTY if none was.
    """
    ways, rule = rows.table[at(row), ROW_WAYS], rows.table[at(row), ROW_RULE]
    chosen = row_set(rows, row, page)
    start = rows.table[at(row), ROW_FIRST] + chosen * ways
    way = find(tag, start, ways, new_tag, ~DENIED) if stale else MISS
    lost = EMPTY
    if rule == LRU:
        if way < 0:
            way = ways - 1
            lost = tag[at(start + way)]
        shift_in(tag, frame, start, way, new_tag, new_frame)
        return lost
    place = rows.table[at(row), ROW_BOOK] + chosen
    if way < 0:
        way = way_to_fill(tag, order[at(place)], rows.rules, start, ways, rule)
        lost = tag[at(start + way)]
    tag[at(start + way)] = new_tag
    frame[at(start + way)] = new_frame
    note_use(order, rows.rules, place, rule + way)
    return lost
