"""The LRU stack of pages: how deep a page lies, and which page lies how deep.

R. L. Mattson et al., "Evaluation techniques for storage hierarchies", IBM Systems Journal 9 (1970):
the distance of an access is the number of distinct pages touched since the last access to its page; it
hits in every LRU memory of more pages than that.

The most recent pages stand in an array, where most are found. The others stand in a tree in the order
in which they fell out of the array, which is their order of recency: slots with increasing numbers,
and over them P. M. Fenwick's tree of counts (Software: Practice and Experience 24, 1994), which finds a
page's rank, and the page of a rank, in O(log n). A slot counts before it is taken: what is counted is
only ever what lies below a taken one, so that taking one costs nothing.
"""

from typing import NamedTuple

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Words
from mmu.trace.kinds import BLOCK
from mmu.trace.pages import Slots, wide

TOP = 16  # pages in the array: 8 and 32 are no quicker on the bundled traces (20 ns a record)
NONE = -1
CLOCK, LIVE, STATE_FIELDS = range(3)


class Stack(NamedTuple):
    """Pages by recency; every page is in the array, in the tree, or new."""

    top: Words  # [depth] page, the most recent first; -1: none
    slot: Slots  # [page] its slot in the tree; 0: none
    page: Slots  # [slot] who took it
    tree: Slots  # [slot] Fenwick's sums of slots that are not given up
    state: Words  # [field] slots taken, and of them not given up


def new_stack(room: int) -> Stack:
    """Return an empty stack with room for so many pages."""
    # A quarter of the slots is given up before they are numbered anew, at five steps each.
    slots = room + max(room // 4, 2 * BLOCK)
    return Stack(
        top=np.full(TOP, NONE, np.int64),
        slot=np.zeros(room, np.int32),
        page=np.zeros(slots + 1, np.int32),
        tree=untouched(slots + 1),
        state=np.zeros(STATE_FIELDS, np.int64),
    )


def untouched(slots: int) -> Slots:
    """Return the tree where no slot has been given up."""
    index = np.arange(slots, dtype=np.int32)
    return index & -index


def heightened(stack: Stack, room: int) -> Stack:
    """Return a stack with more room and the same pages."""
    renumber(stack)
    larger = new_stack(room)
    for name in ("top", "slot", "page", "state"):
        old = getattr(stack, name)
        getattr(larger, name)[: len(old)] = old
    return larger


@kernel
def renumber(stack: Stack) -> None:
    """Give the pages in the tree the lowest slots, in the same order."""
    taken = 0
    for slot in range(1, stack.state[CLOCK] + 1):
        page = stack.page[at(slot)]
        if stack.slot[at(page)] == slot:
            taken += 1
            stack.slot[at(page)] = taken
            stack.page[at(taken)] = page
    stack.state[CLOCK] = stack.state[LIVE] = taken
    for slot in range(len(stack.tree)):
        stack.tree[at(slot)] = slot & -slot


@inlined
def has_room(stack: Stack) -> bool:
    """Tell whether every access of a block can take a slot."""
    return stack.state[CLOCK] + BLOCK < len(stack.tree)


@inlined
def rank(stack: Stack, slot: int) -> int:
    """Return how many pages in the tree are not more recent than the one in `slot`."""
    total = wide(0)
    while slot > 0:
        total += stack.tree[at(slot)]
        slot &= slot - 1
    return total


@inlined
def slot_of_rank(stack: Stack, wanted: int) -> int:
    """Return the slot of the page of that rank: 1 is the least recent."""
    step = 1
    while step * 2 < len(stack.tree):
        step *= 2
    slot, left = 0, wanted
    while step > 0:
        if slot + step < len(stack.tree) and stack.tree[at(slot + step)] < left:
            slot += step
            left -= stack.tree[at(slot)]
        step >>= 1
    return slot + 1


@inlined
def take(stack: Stack, page: int) -> None:
    """Put a page that fell out of the array into the tree."""
    clock = stack.state[CLOCK] + 1
    stack.slot[at(page)], stack.page[at(clock)] = clock, page
    stack.state[CLOCK] = clock
    stack.state[LIVE] += 1


@inlined
def give_up(stack: Stack, slot: int) -> None:
    """Take the page in `slot` out of the tree."""
    stack.slot[at(stack.page[at(slot)])] = 0
    while slot < len(stack.tree):
        stack.tree[at(slot)] -= 1
        slot += slot & -slot
    stack.state[LIVE] -= 1


@inlined
def visit(stack: Stack, page: int) -> int:
    """Return how deep a page lies, -1 if it is new, and move it to the top."""
    carried = page
    for depth in range(TOP):
        here = stack.top[at(depth)]
        stack.top[at(depth)] = carried
        if here == page:
            return depth
        if here == NONE:
            return NONE
        carried = here
    slot = wide(stack.slot[at(page)])
    deeper = NONE
    if slot > 0:
        deeper = TOP + stack.state[LIVE] - rank(stack, slot)
        give_up(stack, slot)
    take(stack, carried)
    return deeper


@inlined
def recall(stack: Stack, depth: int) -> int:
    """Return the page that lies so deep, and move it to the top; it must be there."""
    if depth < TOP:
        page = stack.top[at(depth)]
    else:
        slot = slot_of_rank(stack, stack.state[LIVE] - (depth - TOP))
        page = wide(stack.page[at(slot)])
    visit(stack, page)
    return page


@inlined
def height(stack: Stack) -> int:
    """Return how many pages there are."""
    if stack.state[LIVE] > 0:
        return TOP + stack.state[LIVE]
    pages = 0
    while pages < TOP and stack.top[at(pages)] != NONE:
        pages += 1
    return pages
