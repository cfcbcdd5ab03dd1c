"""From a processor's configuration to rows of slots and an empty machine."""

import mmap
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from mmu.config import Array, Cache, Processor
from mmu.errors import InputError
from mmu.hardware.machine import (
    DATA_SIDE,
    EVENTS,
    FAULT_FIELDS,
    FETCH,
    FETCH_SIDE,
    KINDS,
    MOST_REFERENCES,
    NO_CONTEXT,
    STEP_FIELDS,
    SUPERVISOR,
    Machine,
    Rules,
)
from mmu.hardware.rows import CONTEXTS, EMPTY, L1_DATA, L1_FETCH, L2_DATA, LINEAR, Rows, Words

WALK_CACHES = ("pde", "pdpte", "pml4e")  # a row each, without ways where absent
SIZE_NAMES = ("4k", "2m", "1g")
MAP_NORESERVE = 0x4000  # Linux; Python does not name it before 3.13


class Row(NamedTuple):
    """One row before it is laid out."""

    name: str  # as in result files: "l2.4k", "nested.2m", "pde"
    cache: Cache | None  # None: absent
    size: int
    shares: bool  # stands over the slots of the row before it


def tlb_rows(prefix: str, arrays: Iterable[Array], sizes: tuple[str, ...]) -> list[Row]:
    """Return the rows of one level: smallest pages first, each array's sizes over the same slots.

    A page size that nothing in the run can have gets no row: a look-up there could not hit.
    """
    rows: list[Row] = []
    for array in arrays:
        held = [size for size in array.sizes if size in sizes]
        for i, size in enumerate(held):
            rows.append(Row(f"{prefix}.{size}", array, SIZE_NAMES.index(size), i > 0))
    return rows


def processor_rows(processor: Processor, sizes: tuple[str, ...]) -> list[list[Row]]:
    """Return the rows of each group of a logical processor, in the order of `rows.GROUPS`."""
    walk = processor.walk_caches
    nested = [processor.nested_tlb] if processor.nested_tlb else []
    return [
        tlb_rows("l1_data", processor.l1_data, sizes),
        tlb_rows("l1_fetch", processor.l1_fetch, sizes),
        tlb_rows("l2", processor.l2, sizes),
        [],  # both sides share one L2
        tlb_rows("nested", nested, ("4k", "2m")),
        [Row(name, getattr(walk, name), level, False) for level, name in enumerate(WALK_CACHES)],
    ]


def lay_out(groups: list[list[Row]]) -> tuple[Rows, int]:
    """Give every row its slots; returns the rows and the number of slots."""
    columns: list[tuple[int, int, int, int, int, int]] = []
    begin, free = [0], 0
    for group in groups:
        for row in group:
            cache = row.cache
            sets, ways, fold = (cache.sets, cache.ways, cache.fold) if cache else (1, 0, LINEAR)
            first = columns[-1][0] if row.shares else free
            free += 0 if row.shares else sets * ways
            mask = 0 if sets & (sets - 1) else sets - 1
            columns.append((first, sets, mask, fold, ways, row.size))
        begin.append(len(columns))
    table = [np.array(column, np.int64) for column in [*zip(*columns, strict=True), begin]]
    return Rows(*table), free


def hit_shape(rows: Rows) -> Words:
    """Return `Machine.shape`: what `make_hits` needs to know of both L1s."""
    shape = np.zeros((2, 2, 4), np.int64)
    whole = 1
    for side, group in enumerate((L1_DATA, L1_FETCH)):
        for row in range(rows.begin[group], rows.begin[group + 1]):
            if rows.size[row] < 2:
                numbers = (rows.first[row], rows.ways[row], rows.mask[row], rows.fold[row])
                shape[side, rows.size[row]] = numbers
                shape[side, 1, 0] = shape[side, 1, 0] or shape[side, 0, 0]
            if rows.size[row] >= 2 or rows.mask[row] != rows.sets[row] - 1:
                whole = 0
    return np.append(shape.ravel(), whole)


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
    """
    rows, slots = lay_out(groups)
    accounts = 2 * (owners - 1)
    sides = [FETCH_SIDE if kind % SUPERVISOR == FETCH else DATA_SIDE for kind in range(KINDS)]
    return Machine(
        tag=np.full((lps, slots), EMPTY, np.int64),
        frame=np.zeros((lps, slots), np.int64),
        rows=rows,
        shape=hit_shape(rows),
        side=np.array(sides, np.int64),
        level2=np.array([L2_DATA, L2_DATA], np.int64),
        rules=rules,
        memory=memory,
        extents=extents,
        root=np.zeros(contexts, np.int64),
        nested=np.full(contexts, -1, np.int64),
        vm=np.full(contexts, owners - 1, np.int64),
        pcid=np.zeros(contexts, np.int64),
        nested_tag=np.full(contexts, -1, np.int64),
        global_context=np.full(contexts, NO_CONTEXT, np.int64) if pge else None,
        events=np.zeros((lps, accounts, len(EVENTS)), np.int64),
        hits=np.zeros((lps, accounts, len(rows.first)), np.int64),
        references=np.zeros((lps, accounts, MOST_REFERENCES), np.int64),
        evictions=np.zeros((lps, owners, owners), np.int64),
        fault=np.zeros((lps, FAULT_FIELDS), np.int64),
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
    absent = [Row(name, None, level, False) for level, name in enumerate(WALK_CACHES)]
    groups: list[list[Row]] = [[], [], [], [], [], absent]
    machine = build_machine(groups, 2, memory, rules, contexts=1, extents=extents)
    machine.vm[0], machine.nested_tag[0] = 0, 0
    return view_of(machine)


def view_of(machine: Machine, lp: int = 0) -> Machine:
    """Return what `machine.processor` returns to kernels: one processor's view, of the same arrays."""
    owned = ("tag", "frame", "events", "hits", "references", "evictions", "fault")
    return machine._replace(**{name: getattr(machine, name)[lp] for name in owned})
