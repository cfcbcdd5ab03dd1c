"""One memory access: L1, L2, walk, fill."""

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.bits import LEVEL_BITS, PAGE_NUMBER_BITS, PAGE_SHIFT, page_number
from mmu.hardware.machine import (
    DIRTY_WALKS,
    FAULT_GVA,
    FAULT_OUTCOME,
    FAULT_WALKS,
    FETCH,
    GUEST_REFERENCES,
    L1_DATA_MISSES,
    L2_LOOKUPS,
    NESTED_REFERENCES,
    NO_CONTEXT,
    SUPERVISOR,
    WALKS,
    Machine,
)
from mmu.hardware.rows import (
    CONTEXT_SHIFT,
    DENIED,
    EMPTY,
    MISS,
    NUMBER_SHIFT,
    SIZE_SHIFT,
    Words,
    find,
    set_start,
    touch,
)
from mmu.hardware.tlb import fill_l1, fill_l2, globals_of, tag_key
from mmu.hardware.walk import walk
from mmu.jit import at, inlined, kernel

Kinds = NDArray[np.uint8]

# `Machine.shape` has two rows of each side's L1, of 4 KiB and of 2 MiB pages, data side first; four
# numbers a row. An absent row has no ways, and begins where the 4 KiB row does, which holds no page
# of its size; one whose sets are no power of two has mask 0, and look-ups there go to set 0, where
# no other set's page can match.
FIRST, WAYS, MASK, FOLD, ROW_SHAPE = range(5)
SIDE_SHAPE = 2 * ROW_SHAPE
WHOLE_L1 = 2 * SIDE_SHAPE  # 1: those rows are all of both L1s, and none has mask 0

# Where the page number stands in a tag word: a tag's bits 52:8 are an address's bits 56:12.
NUMBER_IN_TAG = (1 << PAGE_NUMBER_BITS) - 1 << NUMBER_SHIFT
TO_TAG = PAGE_SHIFT - NUMBER_SHIFT
FETCH_KINDS = 1 << FETCH | 1 << FETCH + SUPERVISOR  # bit k is set if kind k is of the fetch side


@inlined
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
        size = rows.size[at(row)]
        page = page_number(gva, size)
        start = set_start(rows, row, page)
        way = find(tag, start, rows.ways[at(row)], tag_key(context, page, size), ~DENIED)
        if way >= 0:
            touch(tag, frame, start, way)
            return row, tag[at(start)], frame[at(start)]
        if shared != NO_CONTEXT:
            way = find(tag, start, rows.ways[at(row)], tag_key(shared, page, size), ~DENIED)
            if way >= 0:
                touch(tag, frame, start, way)
                return row, tag[at(start)], frame[at(start)]
    return MISS, 0, 0


@inlined
def miss(machine: Machine, account: int, context: int, gva: int, kind: int, stale: bool) -> int:
    """Find a translation below the L1, and fill; `stale`: the L1 has the page but denies the access.

    Returns 0 or a negative outcome.
    """
    side = machine.side[at(kind)]
    group = machine.level2[at(side)]
    row, found, word = MISS, 0, 0
    if not stale:
        row, found, word = l2_lookup(machine, account, group, context, gva)
    denied = found & DENIED
    if row < 0 or denied >> kind & 1:
        events = machine.events[at(account)]
        before = events[GUEST_REFERENCES] + events[NESTED_REFERENCES]
        word, denied = walk(machine, account, context, gva, kind)
        if word < 0:
            machine.events[at(account), FAULT_WALKS] += 1
            machine.fault[FAULT_OUTCOME] = -word
            machine.fault[FAULT_GVA] = gva
            return word
        made = events[GUEST_REFERENCES] + events[NESTED_REFERENCES] - before
        machine.references[at(account), at(made)] += 1
        known = stale or row >= 0
        machine.events[at(account), at(DIRTY_WALKS if known else WALKS)] += 1
        fill_l2(machine, account, group, context, gva, word, denied, known)
    if not stale:
        machine.events[at(account), at(L1_DATA_MISSES + side)] += 1
    if row >= 0:
        machine.hits[at(account), at(row)] += 1
    fill_l1(machine, side, context, gva, word, denied, stale)
    return 0


@inlined
def l1_lookup(machine: Machine, side: int, context: int, gva: int) -> int:
    """Look a page up in an L1: its slot, the most recent of its set from now on; or MISS."""
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    shared = globals_of(machine.global_context, context)
    for row in range(rows.begin[at(side)], rows.begin[at(side + 1)]):
        size = rows.size[at(row)]
        page = page_number(gva, size)
        start = set_start(rows, row, page)
        way = find(tag, start, rows.ways[at(row)], tag_key(context, page, size), ~DENIED)
        if way >= 0:
            touch(tag, frame, start, way)
            return start
        if shared != NO_CONTEXT:
            way = find(tag, start, rows.ways[at(row)], tag_key(shared, page, size), ~DENIED)
            if way >= 0:
                touch(tag, frame, start, way)
                return start
    return MISS


@inlined
def bring_forward(tag: Words, frame: Words, shape: Words, row: int, page: int, key: int) -> int:
    """Return the tag word of a page in a row of `shape`, most recent of its set from now on; or EMPTY.

    `row` is where the row's numbers begin: loaded when they are needed, they cost less than locals
    that do not fit the registers (1.8 against 2.0 ns per access, sqlite).
    """
    ways = shape[at(row + WAYS)]
    chosen = (page ^ page >> shape[at(row + FOLD)]) & shape[at(row + MASK)]
    start = shape[at(row + FIRST)] + chosen * ways
    word = tag[at(start)]
    if not (word ^ key) & ~DENIED:
        return word
    for way in range(1, ways):
        word = tag[at(start + way)]
        if not (word ^ key) & ~DENIED:
            touch(tag, frame, start, way)
            return word
    return EMPTY


@inlined
def make_hits(
    tag: Words, frame: Words, shape: Words, of_context: int, address: Words, kinds: Kinds,
    start: int, stop: int,
) -> int:  # fmt: skip
    """Make accesses that hit the L1, up to the first of start..stop-1 that does not.

    Returns its index, or `stop`; or the complement of its index if the page is there but denied.
    Out of line it is faster on hits (1.8 against 2.1 ns per access, sqlite) and slower on misses,
    which then hand over every array each time (62 against 54 ns where 30 % of accesses walk).
    """
    # The pages that each side used last, as tag words: most recent of their sets, so that using them
    # again changes nothing. Page, context, rights and dirty are one comparison, and three accesses in
    # four end in it.
    last_data, last_code = EMPTY, EMPTY
    for i in range(start, stop):
        kind: int = np.int64(kinds[at(i)])  # type: ignore[assignment]  # uint8 shifts are 8 bits wide
        number = address[at(i)] >> TO_TAG & NUMBER_IN_TAG
        key, care = of_context | number, ~DENIED | 1 << kind
        fetch = FETCH_KINDS >> kind & 1
        if not ((last_code if fetch else last_data) ^ key) & care:
            continue
        row, page = fetch * SIDE_SHAPE, number >> NUMBER_SHIFT
        word = bring_forward(tag, frame, shape, row, page, key)
        if word == EMPTY:
            number = address[at(i)] >> TO_TAG + LEVEL_BITS & NUMBER_IN_TAG
            page, large = number >> NUMBER_SHIFT, of_context | number | 1 << SIZE_SHIFT
            word = bring_forward(tag, frame, shape, row + ROW_SHAPE, page, large)
            if word == EMPTY:
                return i
        if word >> kind & 1:
            return ~i
        if fetch:
            last_code = key | word & DENIED
        else:
            last_data = key | word & DENIED
    return stop


@kernel
def make_accesses(
    machine: Machine, account: int, context: int, address: Words, kinds: Kinds, start: int,
    stop: int,
) -> int:  # fmt: skip
    """Make accesses start..stop-1 of a stream, on one processor's view of the machine.

    address: int64 [n], canonical, bytes; kinds: uint8 [n].
    Returns `stop`, or the index of the first access that ended in a fault, described in
    `machine.fault`; `invalidate.drop_after_fault` is to be called then and, once the fault is mended,
    the access to be made again.
    """
    of_context = context << CONTEXT_SHIFT
    # Whether `make_hits` sees all that an access may hit: global translations have another context.
    shared = globals_of(machine.global_context, context)
    seen_all = machine.shape[WHOLE_L1] and shared == NO_CONTEXT
    i = start
    while True:
        i = make_hits(
            machine.tag, machine.frame, machine.shape, of_context, address, kinds, i, stop
        )
        if i == stop:
            return stop
        stale = i < 0
        if stale:
            i = ~i
        gva = address[at(i)]
        kind: int = np.int64(kinds[at(i)])  # type: ignore[assignment]
        if not seen_all and not stale:
            slot = l1_lookup(machine, machine.side[at(kind)], context, gva)
            stale = slot != MISS
            if stale and not machine.tag[at(slot)] >> kind & 1:
                i += 1
                continue
        if miss(machine, account, context, gva, kind, stale) < 0:
            return i
        i += 1
