"""One memory access: last page, L1, L2, walk, fill."""

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.bits import PAGE_NUMBER_BITS, PAGE_SHIFT, page_number
from mmu.hardware.machine import (
    DIRTY_WALKS,
    FAULT_GVA,
    FAULT_OUTCOME,
    FAULT_WALKS,
    GUEST_REFERENCES,
    L1_DATA_MISSES,
    L2_LOOKUPS,
    NESTED_REFERENCES,
    WALKS,
    Machine,
)
from mmu.hardware.rows import (
    CONTEXT_SHIFT,
    DENIED,
    EMPTY,
    L1_DATA,
    L1_FETCH,
    MISS,
    NUMBER_SHIFT,
    find,
    set_of,
    set_start,
    touch,
)
from mmu.hardware.tlb import fill_l1, fill_l2, tag_key
from mmu.hardware.walk import walk
from mmu.jit import at, inlined, kernel

# Where the page number stands in a tag word: a tag's bits 52:8 are an address's bits 56:12.
NUMBER_IN_TAG = (1 << PAGE_NUMBER_BITS) - 1 << NUMBER_SHIFT
TO_TAG = PAGE_SHIFT - NUMBER_SHIFT


@inlined
def l2_lookup(
    machine: Machine, account: int, group: int, context: int, gva: int
) -> tuple[int, int, int]:
    """Look a page up in an L2: its row, tag and frame words; row MISS if it is not there."""
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    machine.events[at(account), L2_LOOKUPS] += rows.begin[group] < rows.begin[group + 1]
    for row in range(rows.begin[at(group)], rows.begin[at(group + 1)]):
        size = rows.size[at(row)]
        page = page_number(gva, size)
        start = set_start(rows, row, page)
        way = find(tag, start, rows.ways[at(row)], tag_key(context, page, size), ~DENIED)
        if way >= 0:
            touch(tag, frame, start, way)
            return row, tag[at(start)], frame[at(start)]
    return MISS, 0, 0


@inlined
def miss(machine: Machine, account: int, context: int, gva: int, kind: int, stale: bool) -> int:
    """Find a translation below the L1, and fill; `stale`: the L1 has the page but denies the access.

    Returns the kinds of access that the page denies, or a negative outcome.
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
    return denied


@inlined
def l1_lookup_others(machine: Machine, side: int, context: int, gva: int) -> int:
    """Look a page up in the rows of an L1 after its first: its tag word, or EMPTY."""
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    for row in range(rows.begin[at(side)] + 1, rows.begin[at(side + 1)]):
        size = rows.size[at(row)]
        page = page_number(gva, size)
        start = set_start(rows, row, page)
        way = find(tag, start, rows.ways[at(row)], tag_key(context, page, size), ~DENIED)
        if way >= 0:
            touch(tag, frame, start, way)
            return tag[at(start)]
    return EMPTY


@kernel
def make_accesses(
    machine: Machine, account: int, context: int, address: NDArray[np.int64],
    kinds: NDArray[np.uint8], start: int, stop: int,
) -> int:  # fmt: skip
    """Make accesses start..stop-1 of a stream, on one processor's view of the machine.

    address: int64 [n], canonical, bytes; kinds: uint8 [n].
    Returns `stop`, or the index of the first access that ended in a fault, described in
    `machine.fault`; once that is mended, the access is to be made again.
    """
    tag, frame, last, rows = machine.tag, machine.frame, machine.last, machine.rows
    of_context = context << CONTEXT_SHIFT
    # The shape of both first rows in locals: 2.31 against 2.76-2.94 ns per access (cc1).
    data, code = rows.begin[L1_DATA], rows.begin[L1_FETCH]
    data_first, code_first = rows.first[data], rows.first[code]
    data_fold, code_fold = rows.fold[data], rows.fold[code]
    data_mask, code_mask = rows.mask[data], rows.mask[code]
    data_ways, code_ways = rows.ways[data], rows.ways[code]
    data_sets, code_sets = rows.sets[data], rows.sets[code]
    for i in range(start, stop):
        gva = address[at(i)]
        kind: int = np.int64(kinds[at(i)])  # type: ignore[assignment]  # uint8 shifts are 8 bits wide
        care = ~DENIED | 1 << kind
        key = of_context | gva >> TO_TAG & NUMBER_IN_TAG
        side = machine.side[at(kind)]
        if not (last[at(side)] ^ key) & care:
            continue  # the page is the most recent of its set already: four accesses in five
        fold, mask = (code_fold, code_mask) if side else (data_fold, data_mask)
        ways, first = (code_ways, code_first) if side else (data_ways, data_first)
        page = page_number(gva, 0)
        first += set_of(page, fold, mask, code_sets if side else data_sets) * ways
        word = tag[at(first)]
        if (word ^ key) & ~DENIED:
            way = find(tag, first, ways, key, ~DENIED)
            if way >= 0:
                touch(tag, frame, first, way)
                word = tag[at(first)]
            else:
                word = l1_lookup_others(machine, side, context, gva)
        denied = word & DENIED
        if denied >> kind & 1:
            denied = miss(machine, account, context, gva, kind, word != EMPTY)
            if denied < 0:
                return i
        last[at(side)] = key | denied
    return stop
