"""Why walks are needed: what became of the page's entry in the last TLB that had it.

`Machine.seen` is a hash table of the pages that were ever in a level-2 TLB (of an L1 array, for page
sizes that no L2 holds), one word each: the page as in a tag word, the group of its rows in bits 5:3,
and in bits 2:0 what became of it. It is touched when a walk completes and when an entry is evicted, so
that neither hits nor flushes cost anything: a page that is missed but was never evicted nor invalidated
was flushed.
"""

import numpy as np

from mmu.hardware.associative import scattered
from mmu.hardware.machine import KNOWN, TOLD_CAUSES, Machine
from mmu.hardware.rows import DENIED, EMPTY, NUMBER_SHIFT, Words
from mmu.jit import at, inlined, kernel, spliced

CAUSES = ("first_touch", "capacity", "conflict", "other_vm", "flush", "invalidation")
FIRST_TOUCH, CAPACITY, CONFLICT, OTHER_VM, FLUSHED, INVALIDATED = range(6)
# What became of an entry: in its TLB, or nobody knows how it went; else the cause of the next walk.
RESIDENT = 0
GROUP_SHIFT = 3
FATE_MASK = (1 << GROUP_SHIFT) - 1
NEIGHBOUR_BITS = 3
NEIGHBOURS = (1 << NEIGHBOUR_BITS) - 1
FILLED_TENTHS = 7  # of the table, at most: then it is to be doubled


@inlined
def place_of(seen: Words, key: int) -> int:
    """Return where a page is, or belongs, in the table.

    Eight neighbours share a cache line, as programs walk for neighbours; a place that is taken leads to
    one in another line.
    """
    last = seen.shape[0] - 1
    near = key >> NUMBER_SHIFT & NEIGHBOURS
    place = (scattered(key & ~(NEIGHBOURS << NUMBER_SHIFT)) << NEIGHBOUR_BITS | near) & last
    while seen[at(place)] != EMPTY and (seen[at(place)] ^ key) & ~FATE_MASK:
        place = place + NEIGHBOURS + 2 & last
    return place


@inlined
def page_key(tag: int, group: int) -> int:
    """Return the key of a tag word's page in the rows of a group."""
    return tag & ~DENIED | group << GROUP_SHIFT


@spliced
def count_cause(machine: Machine, account: int, tag: int, group: int, had: bool) -> None:
    """Count why the page of a tag word was walked for, that is in a group's TLB now.

    had: the group's fully associative twin had it.
    """
    seen = machine.seen
    if not seen.shape[0]:
        return
    key = page_key(tag, group)
    place = place_of(seen, key)
    fate, cause = seen[at(place)] & FATE_MASK, FIRST_TOUCH
    if seen[at(place)] == EMPTY:
        machine.flight[KNOWN] += 1
    else:
        cause = FLUSHED if fate == RESIDENT else fate
        if cause == CAPACITY and had:
            cause = CONFLICT
    machine.told[at(account), at(TOLD_CAUSES + cause)] += 1
    seen[at(place)] = key | RESIDENT


@inlined
def note_fate(machine: Machine, tag: int, group: int, fate: int) -> None:
    """Note what became of the entry of a tag word that a group's TLB had."""
    if machine.seen.shape[0]:
        key = page_key(tag, group)
        place = place_of(machine.seen, key)
        if machine.seen[at(place)] != EMPTY:
            machine.seen[at(place)] = key | fate


@inlined
def is_crowded(machine: Machine, more: int) -> bool:
    """Tell whether the table might be too full with so many pages more."""
    room = machine.seen.shape[0]
    return room > 0 and 10 * (machine.flight[KNOWN] + more) > FILLED_TENTHS * room


@kernel
def copy_pages(old: Words, new: Words) -> None:
    """Put the pages of a table into another, empty one; int64 [bucket] each."""
    for i in range(old.shape[0]):
        word = old[at(i)]
        if word != EMPTY:
            new[at(place_of(new, word))] = word


def with_room(machine: Machine, more: int) -> Machine:
    """Return a whole machine whose tables of known pages have room for so many more."""
    room = machine.seen.shape[1]
    while room * FILLED_TENTHS < 10 * (int(machine.flight[:, KNOWN].max()) + more):
        room *= 2
    seen = np.full((machine.seen.shape[0], room), EMPTY, np.int64)
    for old, new in zip(machine.seen, seen, strict=True):
        copy_pages(old, new)
    return machine._replace(seen=seen)
