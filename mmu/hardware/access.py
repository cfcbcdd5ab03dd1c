"""One memory access: L1, L2, walk, fill."""

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.associative import twin_uses
from mmu.hardware.bits import (
    LEVEL_BITS,
    OFFSET_MASK,
    PAGE_NUMBER_BITS,
    PAGE_SHIFT,
    frame_bits,
    page_number,
)
from mmu.hardware.causes import CAPACITY, OTHER_VM, RESIDENT, count_cause, note_fate
from mmu.hardware.datacache import L1D, L1I, LINE_SHIFT, serve
from mmu.hardware.entry import ADDRESS
from mmu.hardware.latency import count_latency
from mmu.hardware.machine import (
    DIRTY_WALKS,
    FAULT_GVA,
    FAULT_OUTCOME,
    FAULT_WALKS,
    FETCH,
    FETCH_SIDE,
    GUEST_REFERENCES,
    KINDS,
    L1_DATA_MISSES,
    L1_FETCH_MISSES,
    L1_IS_LAST,
    L2_LOOKUPS,
    NESTED_REFERENCES,
    NO_CONTEXT,
    SHARED,
    SIDES,
    SUPERVISOR,
    WALKS,
    Machine,
)
from mmu.hardware.overlap import (
    WALK_CYCLES,
    begin_walk,
    fault,
    launch,
    pass_time,
    wait_for_page,
)
from mmu.hardware.replacement import WAY_SHIFT
from mmu.hardware.rows import (
    CONTEXT_SHIFT,
    DENIED,
    EMPTY,
    LRU,
    MISS,
    NUMBER_SHIFT,
    ROW_SIZE,
    SIZE_SHIFT,
    Words,
    look_up,
    note_use,
    shift_in,
)
from mmu.hardware.tlb import fill_l1, fill_l2, frame_size, globals_of, home, tag_key
from mmu.hardware.walk import walk
from mmu.jit import at, inlined, kernel, spliced

Kinds = NDArray[np.uint8]

# `Machine.shape` has two rows of each side's L1, of 4 KiB and of 2 MiB pages, data side first; six
# numbers a row. An absent row has no ways, and begins where the 4 KiB row does, which holds no page
# of its size; one whose sets are no power of two has mask 0, and look-ups there go to set 0, where
# no other set's page can match. After them, for each kind of access, where the rows of its side begin,
# and the kinds that have another L1 for the same data.
FIRST, WAYS, MASK, FOLD, RULE, BOOK, ROW_SHAPE = range(7)
SIDE_SHAPE = 2 * ROW_SHAPE
WHOLE_L1 = SIDES * SIDE_SHAPE  # 1: those rows are all of the L1s, and none has mask 0
SIDE_BEGIN = WHOLE_L1 + 1  # [kind]
APART = SIDE_BEGIN + KINDS  # [kind] bit k: kind k is of the data, and its L1 is another
SHAPE_FIELDS = APART + KINDS

# Where the page number stands in a tag word: a tag's bits 52:8 are an address's bits 56:12.
NUMBER_IN_TAG = (1 << PAGE_NUMBER_BITS) - 1 << NUMBER_SHIFT
TO_TAG = PAGE_SHIFT - NUMBER_SHIFT
FETCH_KINDS = 1 << FETCH | 1 << FETCH + SUPERVISOR  # bit k is set if kind k is of the fetch side


@spliced
def l2_lookup(
    machine: Machine, account: int, group: int, context: int, gva: int
) -> tuple[int, int, int]:
    """Look a page up in an L2: its row, tag and frame words; row MISS if it is not there.

    Global translations are kept under a context of their own, whatever the PCID.
    """
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    machine.events[at(account), L2_LOOKUPS] += rows.begin[group] < rows.begin[group + 1]
    shared = globals_of(machine.global_context, context)
    for row in range(rows.begin[at(group)], rows.begin[at(group + 1)]):
        size = rows.table[at(row), ROW_SIZE]
        page = page_number(gva, size)
        slot = look_up(tag, frame, machine.order, rows, row, page, tag_key(context, page, size))
        if slot < 0 and shared != NO_CONTEXT:
            slot = look_up(tag, frame, machine.order, rows, row, page, tag_key(shared, page, size))
        if slot >= 0:
            return row, tag[at(slot)], frame[at(slot)]
    return MISS, 0, 0


@spliced
def note_walk(
    machine: Machine, account: int, group: int, side: int, held: bool, tag: int, word: int,
    lost: int, known: bool,
) -> None:  # fmt: skip
    """Count why a completed walk was needed, and what its fill of the L2 dropped.

    held: the L2, group `group`, has pages of this size; else the L1 plays its part. tag: of the page as
    it was filled there; lost: what the L2 lost; known: a TLB had the page, and only denied the access.
    """
    own = machine.vm[at(tag >> CONTEXT_SHIFT)]
    place = group if held else side
    had = twin_uses(machine.twin, group, tag, word) if held else False
    if not known:
        count_cause(machine, account, tag, place, had)
    elif held:  # it may have been lost there, while the L1 had it
        note_fate(machine, tag, place, RESIDENT)
    if lost != EMPTY:
        other = machine.vm[at(lost >> CONTEXT_SHIFT)]
        machine.evictions[at(own), at(other)] += 1
        note_fate(machine, lost, group, CAPACITY if other == own else OTHER_VM)


@spliced
def note_lost(machine: Machine, side: int, context: int, lost: int) -> None:
    """Note what an L1's fill dropped, where it may have been the last TLB to have it."""
    if machine.model[L1_IS_LAST] and lost != EMPTY:
        own, other = machine.vm[at(context)], machine.vm[at(lost >> CONTEXT_SHIFT)]
        note_fate(machine, lost, side, CAPACITY if other == own else OTHER_VM)


@spliced
def miss(
    machine: Machine, account: int, context: int, gva: int, kind: int, stale: bool, position: int
) -> int:
    """Find a translation below the L1, and fill; `stale`: the L1 has the page but denies the access.

    position: the number of the access's instruction in its block. Returns 0 or a negative outcome.
    """
    side = machine.side[at(kind)]
    group = machine.level2[at(side)]
    row, found, word = MISS, 0, 0
    if not stale:
        row, found, word = l2_lookup(machine, account, group, context, gva)
    pass_time(machine, account, group, position, stale)
    denied = found & DENIED
    at_once, walked = side == FETCH_SIDE, row < 0 or denied >> kind & 1 != 0
    tag, held, lost, known = 0, False, EMPTY, False
    if walked:
        events = machine.events[at(account)]
        before = events[GUEST_REFERENCES] + events[NESTED_REFERENCES]
        begin_walk(machine)
        word, denied = walk(machine, account, context, gva, kind)
        if word < 0:
            machine.events[at(account), FAULT_WALKS] += 1
            machine.fault[FAULT_OUTCOME] = -word
            machine.fault[FAULT_GVA] = gva
            fault(machine, account)
            return word
        made = events[GUEST_REFERENCES] + events[NESTED_REFERENCES] - before
        machine.references[at(account), at(made)] += 1
        count_latency(machine, account, machine.flight[WALK_CYCLES])
        known = stale or row >= 0
        machine.events[at(account), at(DIRTY_WALKS if known else WALKS)] += 1
        size = frame_size(word)
        tag = tag_key(home(machine, context, word), page_number(gva, size), size)
        launch(machine, account, tag, at_once)
        held, lost = fill_l2(machine, group, context, gva, word, denied, known)
    elif at_once:
        wait_for_page(machine, account, found & ~DENIED)
    piece, lost_l1 = fill_l1(machine, side, context, gva, word, denied, stale)
    if walked:
        note_walk(machine, account, group, side, held, tag if held else piece, word, lost, known)
    else:
        twin_uses(machine.twin, group, found, word)
    note_lost(machine, side, context, lost_l1)
    if not stale:
        machine.events[at(account), at(L1_FETCH_MISSES if at_once else L1_DATA_MISSES)] += 1
    if row >= 0:
        machine.hits[at(account), at(row)] += 1
    return 0


@inlined
def l1_lookup(machine: Machine, side: int, context: int, gva: int) -> int:
    """Look a page up in an L1: its slot, used from now on; or MISS."""
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    shared = globals_of(machine.global_context, context)
    for row in range(rows.begin[at(side)], rows.begin[at(side + 1)]):
        size = rows.table[at(row), ROW_SIZE]
        page = page_number(gva, size)
        slot = look_up(tag, frame, machine.order, rows, row, page, tag_key(context, page, size))
        if slot < 0 and shared != NO_CONTEXT:
            slot = look_up(tag, frame, machine.order, rows, row, page, tag_key(shared, page, size))
        if slot >= 0:
            return slot
    return MISS


@kernel
def share(machine: Machine, context: int, gva: int, side: int) -> None:
    """Put the line of an access that has been made through the data caches, as the program does.

    That costs nothing by itself: what a program waits for data is not translation. But tables stay in
    the caches only as far as programs leave them there.
    """
    slot = l1_lookup(machine, side, context, gva)
    frame = machine.frame[at(slot)]
    inside = frame_bits(frame_size(frame))
    maddr = frame & ADDRESS & ~inside | gva & (inside | OFFSET_MASK)
    serve(machine, maddr >> LINE_SHIFT, L1I if side == FETCH_SIDE else L1D)


@inlined
def bring_forward(
    tag: Words, frame: Words, order: Words, rules: Words, shape: Words, row: int, page: int,
    key: int,
) -> int:  # fmt: skip
    """Return the tag word of a page in a row of `shape`, used from now on; or EMPTY.

    `row` is where the row's numbers begin: loaded when they are needed, they cost less than locals
    that do not fit the registers (1.8 against 2.0 ns per access, sqlite).
    """
    ways, rule = shape[at(row + WAYS)], shape[at(row + RULE)]
    chosen = (page ^ page >> shape[at(row + FOLD)]) & shape[at(row + MASK)]
    start = shape[at(row + FIRST)] + chosen * ways
    if rule == LRU:
        word = tag[at(start)]
        if not (word ^ key) & ~DENIED:
            return word
        for way in range(1, ways):
            word = tag[at(start + way)]
            if not (word ^ key) & ~DENIED:
                shift_in(tag, frame, start, way, word, frame[at(start + way)])
                return word
        return EMPTY
    # The way used last in its set, which most hits are of: using it again changes nothing.
    place = shape[at(row + BOOK)] + chosen
    word = tag[at(start + (order[at(place)] >> WAY_SHIFT))]
    if not (word ^ key) & ~DENIED:
        return word
    for way in range(ways):
        word = tag[at(start + way)]
        if not (word ^ key) & ~DENIED:
            note_use(order, rules, place, rule + way)
            return word
    return EMPTY


@inlined
def make_hits(
    tag: Words, frame: Words, order: Words, rules: Words, shape: Words, of_context: int,
    address: Words, kinds: Kinds, start: int, stop: int,
) -> int:  # fmt: skip
    """Make accesses that hit the L1, up to the first of start..stop-1 that does not.

    Returns its index, or `stop`; or the complement of its index if the page is there but denied.
    Out of line it is faster on hits (1.8 against 2.1 ns per access, sqlite) and slower on misses,
    which then hand over every array each time (62 against 54 ns where 30 % of accesses walk).
    """
    # The pages that each side used last, as tag words: used last in their sets, so that using them
    # again changes nothing. Page, context, rights and dirty are one comparison, and three accesses in
    # four end in it. Where stores have an L1 of their own, the word denies what has not been seen.
    last_data, last_code = EMPTY, EMPTY
    for i in range(start, stop):
        kind: int = np.int64(kinds[at(i)])  # type: ignore[assignment]  # uint8 shifts are 8 bits wide
        number = address[at(i)] >> TO_TAG & NUMBER_IN_TAG
        key, care = of_context | number, ~DENIED | 1 << kind
        fetch = FETCH_KINDS >> kind & 1
        if not ((last_code if fetch else last_data) ^ key) & care:
            continue
        row, page = shape[at(SIDE_BEGIN + kind)], number >> NUMBER_SHIFT
        word = bring_forward(tag, frame, order, rules, shape, row, page, key)
        if word == EMPTY:
            number = address[at(i)] >> TO_TAG + LEVEL_BITS & NUMBER_IN_TAG
            page, large = number >> NUMBER_SHIFT, of_context | number | 1 << SIZE_SHIFT
            word = bring_forward(tag, frame, order, rules, shape, row + ROW_SHAPE, page, large)
            if word == EMPTY:
                return i
        if word >> kind & 1:
            return ~i
        if fetch:
            last_code = key | word & DENIED
        else:
            apart = shape[at(APART + kind)]
            if apart:
                others = apart if (last_data ^ key) & ~DENIED else last_data & apart
                last_data = key | word & DENIED & ~apart | others
            else:
                last_data = key | word & DENIED
    return stop


@kernel
def make_accesses(
    machine: Machine, account: int, context: int, address: Words, kinds: Kinds, positions: Words,
    start: int, stop: int,
) -> int:  # fmt: skip
    """Make accesses start..stop-1 of a stream, on one processor's view of the machine.

    address: int64 [n], canonical, bytes; kinds: uint8 [n]; positions: int64 [n], the number of each
    access's instruction in its block, or [0] where walks do not overlap.
    Returns `stop`, or the index of the first access that ended in a fault, described in
    `machine.fault`; `invalidate.drop_after_fault` is to be called then and, once the fault is mended,
    the access to be made again.
    """
    of_context = context << CONTEXT_SHIFT
    # Whether `make_hits` sees all that an access may hit: global translations have another context.
    shared = globals_of(machine.global_context, context)
    seen_all = machine.shape[WHOLE_L1] and shared == NO_CONTEXT
    sharing, i = machine.model[SHARED] != 0, start
    while i < stop:
        until = i + 1 if sharing else stop
        found = make_hits(
            machine.tag, machine.frame, machine.order, machine.rows.rules, machine.shape, of_context,
            address, kinds, i, until,
        )  # fmt: skip
        if found != until:
            stale = found < 0
            i = ~found if stale else found
            gva = address[at(i)]
            kind: int = np.int64(kinds[at(i)])  # type: ignore[assignment]
            hit = False
            if not seen_all and not stale:
                slot = l1_lookup(machine, machine.side[at(kind)], context, gva)
                stale = slot != MISS
                hit = stale and not machine.tag[at(slot)] >> kind & 1
            if not hit:
                position = positions[at(i)] if positions.shape[0] else 0
                if miss(machine, account, context, gva, kind, stale, position) < 0:
                    return i
            until = i + 1
        i = until
        if sharing:
            share(machine, context, address[at(i - 1)], machine.side[at(kinds[at(i - 1)])])
    return stop
