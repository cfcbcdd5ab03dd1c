"""What a TLB entry holds, and how a level of TLBs is filled.

A frame word, beside each tag word:

     51            12    9       8     7   6       5    4 3      0
    | frame address  | global | guest | dirty | size | rights |

A row without pages so large holds a piece of a page: its tag names the piece, its frame word the page.
`guest` is the size of the guest's own page: where it is larger than `size`, the entry is a splinter, and
INVLPG must find them all. `dirty` is used by the nested TLB.
"""

from mmu.hardware.bits import page_number
from mmu.hardware.machine import NO_CONTEXT, TURNS, Machine
from mmu.hardware.rows import (
    CONTEXT_SHIFT,
    EMPTY,
    NUMBER_SHIFT,
    ROW_SIZE,
    SIZE_SHIFT,
    Rows,
    Words,
    fill,
    has_room,
    remove,
    slot_of,
)
from mmu.jit import at, inlined, kernel, spliced

FRAME_SIZE_SHIFT = 4
FRAME_SIZE_MASK = 3
FRAME_DIRTY = 1 << 6
FRAME_GUEST_SHIFT = 7
FRAME_GLOBAL = 1 << 9


@inlined
def frame_size(word: int) -> int:
    """Return the page size code of a frame word."""
    return word >> FRAME_SIZE_SHIFT & FRAME_SIZE_MASK


@inlined
def guest_size(word: int) -> int:
    """Return the size code of the guest's page that a frame word is a translation of."""
    return word >> FRAME_GUEST_SHIFT & FRAME_SIZE_MASK


@inlined
def globals_of(global_context: Words | None, context: int) -> int:
    """Return where the global translations of a context's VM are kept, or NO_CONTEXT.

    Whether anything can be global is known by type: a replay's programs map no global page, and its code
    is compiled without them (2 % of a replay of bfs).
    """
    if global_context is None:
        return NO_CONTEXT
    return global_context[at(context)]


@inlined
def home(machine: Machine, context: int, word: int) -> int:
    """Return the context under which a translation is kept: a global one of all PCIDs, or its own."""
    return globals_of(machine.global_context, context) if word & FRAME_GLOBAL else context


@inlined
def tag_key(context: int, page: int, size: int) -> int:
    """Return the tag word, denying nothing, of a page of a context."""
    return context << CONTEXT_SHIFT | page << NUMBER_SHIFT | size << SIZE_SHIFT


@inlined
def row_for(rows: Rows, group: int, size: int) -> int:
    """Return the row of a group that holds pages of `size`, else of the next smaller size; or -1."""
    best = -1
    for row in range(rows.begin[at(group)], rows.begin[at(group + 1)]):
        held = rows.table[at(row), ROW_SIZE]
        if held == size:
            return row
        if held < size and (best < 0 or held > rows.table[at(best), ROW_SIZE]):
            best = row
    return best


@inlined
def drop_twin(machine: Machine, context: int, word: int, row: int, page: int, size: int) -> None:
    """Drop the entry of a page that has become global, or is so no longer, from its other place."""
    shared = globals_of(machine.global_context, context)
    if shared != NO_CONTEXT:
        other = context if word & FRAME_GLOBAL else shared
        remove(machine.tag, machine.frame, machine.rows, row, page, tag_key(other, page, size))


@spliced
def fill_l1(
    machine: Machine, side: int, context: int, gva: int, word: int, denied: int, stale: bool
) -> tuple[int, int]:
    """Insert a translation into a side's L1; one that holds no page so large gets a piece of it.

    Returns its tag word, and the one that was lost to make room; EMPTY if none was.
    """
    rows = machine.rows
    row = row_for(rows, side, frame_size(word))
    size = rows.table[at(row), ROW_SIZE]
    page = page_number(gva, size)
    key = tag_key(home(machine, context, word), page, size) | denied
    if stale:
        drop_twin(machine, context, word, row, page, size)
    lost = fill(machine.tag, machine.frame, machine.order, rows, row, page, key, word, stale)
    return key, lost


@inlined
def second_array(rows: Rows, group: int, row: int, size: int) -> int:
    """Return the other row of a level that holds pages of `size`, if there is one; else `row`."""
    for other in range(row + 1, rows.begin[at(group + 1)]):
        if rows.table[at(other), ROW_SIZE] == size:
            return other
    return row


@kernel
def chosen_array(
    tag: Words, flight: Words, rows: Rows, group: int, row: int, second: int, page: int, key: int,
    stale: bool,
) -> int:  # fmt: skip
    """Return which of two rows of a level gets a page that both can hold (Ice Lake).

    A stale copy is replaced where it is; else it is the first with room in the page's set; if none has,
    they take turns: an assumption, as nothing is known.
    """
    if stale:
        if slot_of(tag, rows, row, page, key) >= 0:
            return row
        if slot_of(tag, rows, second, page, key) >= 0:
            return second
    if has_room(tag, rows, row, page):
        return row
    if has_room(tag, rows, second, page):
        return second
    now = flight[at(TURNS + group)]
    flight[at(TURNS + group)] = 1 - now
    return second if now else row


@spliced
def fill_l2(
    machine: Machine, group: int, context: int, gva: int, word: int, denied: int, stale: bool
) -> tuple[bool, int]:
    """Insert a translation into an L2 that holds pages of its size.

    Returns whether it does, and the tag word that was lost to make room; EMPTY if none was.
    """
    rows, size = machine.rows, frame_size(word)
    row = row_for(rows, group, size)
    if row < 0 or rows.table[at(row), ROW_SIZE] != size:
        return False, EMPTY
    page = page_number(gva, size)
    key = tag_key(home(machine, context, word), page, size) | denied
    second = second_array(rows, group, row, size)
    if stale:
        drop_twin(machine, context, word, row, page, size)
    if second != row:
        if stale:
            drop_twin(machine, context, word, second, page, size)
        row = chosen_array(machine.tag, machine.flight, rows, group, row, second, page, key, stale)
    lost = fill(machine.tag, machine.frame, machine.order, rows, row, page, key, word, stale)
    return True, lost
