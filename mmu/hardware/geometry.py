"""From a processor's configuration to rows of slots and an empty machine."""

import mmap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mmu.config import Array, Cache, DataCaches, Processor
from mmu.errors import InputError
from mmu.hardware.access import ROW_SHAPE, RULE, SIDE_SHAPE
from mmu.hardware.associative import empty_twin
from mmu.hardware.datacache import L3
from mmu.hardware.latency import BUCKETS
from mmu.hardware.machine import (
    CACHE_FIELDS,
    CACHE_FIRST,
    CACHE_MASK,
    CACHE_SETS,
    CACHE_WAYS,
    DATA_CACHES,
    DATA_SIDE,
    ENTRY_LEVELS,
    EVENTS,
    FAULT_FIELDS,
    FETCH,
    FETCH_SIDE,
    KINDS,
    L1_IS_LAST,
    L2_CYCLES,
    MODEL_FIELDS,
    MOST_REFERENCES,
    NESTED_TLB_CYCLES,
    NO_CONTEXT,
    OWNED,
    READ_ACCESS,
    READ_CYCLES,
    SERVED,
    SIDES,
    STEP_FIELDS,
    STORE_SIDE,
    SUPERVISOR,
    TOLD_LATENCIES,
    UPDATE_CYCLES,
    WALK_CACHE_CYCLES,
    WALKERS,
    WRITE_ACCESS,
    Machine,
    Rules,
)
from mmu.hardware.overlap import nothing_under_way
from mmu.hardware.replacement import rule_table
from mmu.hardware.rows import (
    CONTEXTS,
    EMPTY,
    ENTRY_CACHE,
    GROUPS,
    L1_DATA,
    L1_FETCH,
    L1_STORE,
    L2_DATA,
    L2_FETCH,
    LINEAR,
    LRU,
    NESTED,
    ROW_BOOK,
    ROW_FIELDS,
    ROW_FIRST,
    ROW_FOLD,
    ROW_MASK,
    ROW_RULE,
    ROW_WAYS,
    WALK_CACHE,
    Rows,
    Words,
)

WALK_CACHES = ("pde", "pdpte", "pml4e")  # a row each, without ways where absent
SIZE_NAMES = ("4k", "2m", "1g")
MAP_NORESERVE = 0x4000  # Linux; Python does not name it before 3.13


class Counted(NamedTuple):
    """What is counted of walks beside events."""

    walks: bool = False  # latencies, and why they are needed
    conflicts: bool = False  # with the fully associative twins that tell conflicts


NOTHING_COUNTED = Counted()
HIT_FIELDS = [ROW_FIRST, ROW_WAYS, ROW_MASK, ROW_FOLD, ROW_RULE, ROW_BOOK]  # as in `Machine.shape`
FIRST_SEEN = 1 << 15  # places for pages, before there are more


class Row(NamedTuple):
    """One row before it is laid out."""

    name: str  # as in result files: "l2.4k", "nested.2m", "pde"
    cache: Cache | None  # None: absent
    size: int
    shares: bool  # stands over the slots of the row before it


def tlb_rows(prefix: str, arrays: Iterable[Array], sizes: tuple[str, ...]) -> list[Row]:
    """Return the rows of one level: smallest pages first, each array's sizes over the same slots.

    A page size that nothing in the run can have gets no row: a look-up there could not hit. A second
    array of a size has its number in the row's name.
    """
    rows: list[Row] = []
    for number, array in enumerate(arrays):
        held = [size for size in array.sizes if size in sizes]
        for i, size in enumerate(held):
            name = f"{prefix}.{size}"
            if any(row.name == name for row in rows):
                name = f"{prefix}.{number}.{size}"
            rows.append(Row(name, array, SIZE_NAMES.index(size), i > 0))
    return rows


def processor_rows(processor: Processor, sizes: tuple[str, ...]) -> list[list[Row]]:
    """Return the rows of each group of a logical processor, in the order of `rows.GROUPS`."""
    walk, entries = processor.walk_caches, processor.page_walk_cache
    nested = [processor.nested_tlb] if processor.nested_tlb else []
    return [
        tlb_rows("l1_data", processor.l1_data, sizes),
        tlb_rows("l1_fetch", processor.l1_fetch, sizes),
        tlb_rows("l1_store", processor.l1_store, sizes),
        tlb_rows("l2", processor.l2, sizes),
        tlb_rows("l2_fetch", processor.l2_fetch or (), sizes),
        tlb_rows("nested", nested, ("4k", "2m")),
        [Row(name, getattr(walk, name), level, False) for level, name in enumerate(WALK_CACHES)],
        [
            Row("page_walk_cache.guest", entries, 0, False),
            Row(
                "page_walk_cache.nested", entries if entries and entries.nested else None, 1,
                bool(entries and entries.nested),
            ),
        ],
    ]  # fmt: skip


def lay_out(groups: list[list[Row]]) -> tuple[Rows, int, int]:
    """Give every row its slots and sets; returns the rows, and the number of slots and of sets."""
    columns: list[tuple[int, ...]] = []
    begin, free, books = [0], 0, 0
    rules = [rule_table("lru", 0)]
    for group in groups:
        for row in group:
            cache = row.cache
            sets, ways, fold = (cache.sets, cache.ways, cache.fold) if cache else (1, 0, LINEAR)
            first, rule, book = free, LRU, books
            if row.shares:
                first, rule, book = columns[-1][0], columns[-1][6], columns[-1][7]
            if cache and not row.shares and cache.replacement != "lru":
                rule = sum(map(len, rules))
                rules.append(rule_table(cache.replacement, ways))
            free += 0 if row.shares else sets * ways
            books += 0 if row.shares else sets
            mask = 0 if sets & (sets - 1) else sets - 1
            columns.append((first, sets, mask, fold, ways, row.size, rule, book))
        begin.append(len(columns))
    table = np.array(columns, np.int64).reshape(len(columns), ROW_FIELDS)
    return Rows(table, np.concatenate(rules), np.array(begin, np.int64)), free, books


def hit_shape(rows: Rows, side: Words) -> Words:
    """Return `Machine.shape`: what `make_hits` needs to know of the L1s; `side`: of each kind."""
    shape = np.zeros((SIDES, 2, ROW_SHAPE), np.int64)
    shape[..., RULE] = LRU  # of absent rows: under another rule any slot might be looked at
    whole = 1
    for each, group in enumerate((L1_DATA, L1_FETCH, L1_STORE)):
        for row in range(rows.begin[group], rows.begin[group + 1]):
            if rows.size[row] < 2:
                shape[each, rows.size[row]] = rows.table[row, HIT_FIELDS]
                shape[each, 1, 0] = shape[each, 1, 0] or shape[each, 0, 0]
            if rows.size[row] >= 2 or rows.table[row, ROW_MASK] != rows.sets[row] - 1:
                whole = 0
    begins = side * SIDE_SHAPE
    apart = [
        sum(1 << other for other in range(KINDS) if FETCH_SIDE not in (side[other], side[kind])
            and side[other] != side[kind])
        for kind in range(KINDS)
    ]  # fmt: skip
    return np.concatenate([shape.ravel(), [whole], begins, apart]).astype(np.int64)


def lay_out_lines(model: Words, caches: DataCaches | None) -> int:
    """Put the geometry of data caches into each processor's model; return the lines of all together."""
    free, lps = 0, len(model)
    levels = (caches.l1d, caches.l1i, caches.l2, caches.l3) if caches else ()
    for level, cache in enumerate(levels):
        if cache is None:
            continue
        lines, field = cache.sets * cache.ways, DATA_CACHES + CACHE_FIELDS * level
        each = np.zeros(lps) if level == L3 else lines * np.arange(lps)  # all share the L3
        model[:, field + CACHE_FIRST] = free + each
        model[:, field + CACHE_SETS] = cache.sets
        model[:, field + CACHE_MASK] = 0 if cache.sets & (cache.sets - 1) else cache.sets - 1
        model[:, field + CACHE_WAYS] = cache.ways
        free += lines if level == L3 else lines * lps
    return free


def processor_model(processor: Processor, caches: DataCaches | None) -> Words:
    """Return `Machine.model` of a processor; `caches`: those that table reads go through, if any."""
    latency = processor.latencies
    model = np.zeros(MODEL_FIELDS, np.int64)
    model[WALK_CACHE_CYCLES] = latency.walk_cache
    model[NESTED_TLB_CYCLES] = latency.nested_tlb if processor.nested_tlb else 0
    model[UPDATE_CYCLES] = latency.update
    model[READ_CYCLES : READ_CYCLES + SERVED] = latency.reference
    if caches:
        levels = [caches.l1d, caches.l2, caches.l3]
        served = [cache.latency if cache else 0 for cache in levels]
        model[READ_CYCLES : READ_CYCLES + SERVED] = [*served, caches.memory]
    if processor.page_walk_cache:
        model[ENTRY_LEVELS] = sum(1 << level for level in processor.page_walk_cache.levels)
    model[L2_CYCLES] = latency.l2
    model[WALKERS] = processor.walkers
    return model


def lazy_words(size: int) -> Words:
    """Return `size` bytes of zeroed memory as int64 words, committed page by page when written."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    try:
        pages = mmap.mmap(-1, size, flags=flags)
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"host memory: found {size} bytes, which this system cannot map ({error}); "
            "choose less with --host-memory"
        ) from None
    # Large pages would commit 2 MiB for each table that is written.
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, np.int64)


def build_machine(
    groups: list[list[Row]],
    owners: int,
    memory: Words,
    rules: Rules,
    *,
    contexts: int = CONTEXTS,
    lps: int = 1,
    extents: Words | None = None,
    pge: bool = False,
    model: Words | None = None,
    caches: DataCaches | None = None,
    counted: Counted = NOTHING_COUNTED,
    sizes: tuple[str, ...] = SIZE_NAMES,
    split_l2: bool = False,
    overlap: bool = False,
) -> Machine:
    """Build a machine with nothing cached, mapped or counted.

    Parameters
    ----------
    groups : list of list of Row
        As `processor_rows` returns them.
    owners : int
        Virtual machines, and the hypervisor.
    memory : ndarray of int64
        Machine memory.
    rules : Rules
        What the processor is set to.
    contexts : int
        Address spaces, the hypervisor's included.
    lps : int
        Logical processors.
    extents : ndarray of int64 [n, EXTENT_FIELDS], optional
        Where the words of `memory` stand, at least one: sorted, disjoint, and none of them outside
        `memory`. By default they stand at address 0.
    pge : bool
        Translations may be global (CR4.PGE): there is a `global_context`, to be filled in.
    model : ndarray of int64 [MODEL_FIELDS], optional
        As `processor_model` returns it; by default no latencies, and no page-walk cache.
    caches : DataCaches, optional
        What table reads go through.
    counted : Counted
        What is counted of walks.
    sizes : tuple of str
        Page sizes that translations can have.
    split_l2 : bool
        Fetches have the group `L2_FETCH`, else they share `L2_DATA`.
    overlap : bool
        Walks of virtual machines overlap with what follows.
    """
    rows, slots, books = lay_out(groups)
    model = np.zeros(MODEL_FIELDS, np.int64) if model is None else model
    models = np.tile(model, (lps, 1))
    lines = lay_out_lines(models, caches)
    walkers = max(int(model[WALKERS]), 1) if overlap else 0
    flight = np.tile(nothing_under_way(walkers), (lps, 1))
    twin = [
        empty_twin(sum(row.cache.entries for row in group if row.cache and not row.shares))
        for group in (groups[L2_DATA:NESTED] if counted.conflicts else ())
    ]
    words = np.concatenate([np.zeros(0, np.int64), *twin])
    accounts = 2 * (owners - 1)
    stores = STORE_SIDE if groups[L1_STORE] else DATA_SIDE
    of_user = {READ_ACCESS: DATA_SIDE, WRITE_ACCESS: stores, FETCH: FETCH_SIDE}
    side = np.array([of_user[kind % SUPERVISOR] for kind in range(KINDS)], np.int64)
    fetches = L2_FETCH if split_l2 else L2_DATA
    held = [{SIZE_NAMES[row.size] for row in groups[level]} for level in (L2_DATA, fetches)]
    models[:, L1_IS_LAST] = any(size not in level for level in held for size in sizes)
    return Machine(
        tag=np.full((lps, slots), EMPTY, np.int64),
        frame=np.zeros((lps, slots), np.int64),
        order=np.zeros((lps, books), np.int64),
        rows=rows,
        shape=hit_shape(rows, side),
        side=side,
        level2=np.array([L2_DATA, fetches, L2_DATA], np.int64),
        rules=rules,
        model=models,
        memory=memory,
        extents=extents,
        lines=np.full(lines, EMPTY, np.int64),
        root=np.zeros(contexts, np.int64),
        nested=np.full(contexts, -1, np.int64),
        vm=np.full(contexts, owners - 1, np.int64),
        pcid=np.zeros(contexts, np.int64),
        nested_tag=np.full(contexts, -1, np.int64),
        global_context=np.full(contexts, NO_CONTEXT, np.int64) if pge else None,
        events=np.zeros((lps, accounts, len(EVENTS)), np.int64),
        hits=np.zeros((lps, accounts, len(rows.first)), np.int64),
        references=np.zeros((lps, accounts, MOST_REFERENCES), np.int64),
        told=np.zeros(
            (lps, accounts, TOLD_LATENCIES + (BUCKETS if counted.walks else 0)), np.int64
        ),
        evictions=np.zeros((lps, owners, owners), np.int64),
        seen=np.full((lps, FIRST_SEEN if counted.walks else 0), EMPTY, np.int64),
        twin=np.tile(words, (lps, 1)),
        fault=np.zeros((lps, FAULT_FIELDS), np.int64),
        flight=flight,
        trail=np.zeros((0, STEP_FIELDS), np.int64),
        steps=np.zeros(2, np.int64),
        marked=np.zeros((MOST_REFERENCES, 2), np.int64),
    )


def plain_view(machine: Machine) -> Machine:
    """Return a processor's view of the same memory and contexts that caches and updates nothing."""
    view = build_processor(machine.memory, machine.extents, machine.rules._replace(update=0))
    shared = ("root", "nested", "vm", "pcid", "nested_tag", "global_context")
    trail = np.zeros((MOST_REFERENCES, STEP_FIELDS), np.int64)
    return view._replace(trail=trail, **{name: getattr(machine, name) for name in shared})


def build_processor(memory: Words, extents: Words | None, rules: Rules) -> Machine:
    """Build one processor's view of a machine that caches nothing and knows one context."""
    groups: list[list[Row]] = [[] for _ in range(GROUPS)]
    groups[WALK_CACHE] = [Row(name, None, level, False) for level, name in enumerate(WALK_CACHES)]
    groups[ENTRY_CACHE] = [Row(name, None, 0, False) for name in ("guest", "nested")]
    machine = build_machine(groups, 2, memory, rules, contexts=1, extents=extents)
    machine.vm[0], machine.nested_tag[0] = 0, 0
    return view_of(machine)


def view_of(machine: Machine, lp: int = 0) -> Machine:
    """Return what `machine.processor` returns to kernels: one processor's view, of the same arrays."""
    return machine._replace(**{name: getattr(machine, name)[lp] for name in OWNED})
