"""Results with numbers small enough to work out by hand, and an engine that returns them."""

import dataclasses

from mmu.config import RunConfig
from mmu.figures import CAUSES, COUNTERS
from mmu.processors import load_processor
from mmu.result import Comparison, Result

# web has fetches, db is a trace of data accesses only; the third and fourth column are what the
# hypervisor touched at their exits.
COUNTS = {
    "accesses": [1000, 500, 10, 0],
    "instructions": [600, 500, 0, 0],
    "data_accesses": [400, 500, 4, 0],
    "l1_data_misses": [40, 100, 4, 0],
    "l1_fetch_misses": [10, 0, 2, 0],
    "l2_lookups": [52, 100, 6, 0],
    "walks": [25, 20, 3, 0],
    "dirty_walks": [5, 0, 1, 0],
    "fault_walks": [2, 0, 0, 0],
    "guest_references": [120, 20, 20, 0],
    "nested_references": [200, 0, 0, 0],
    "nested_lookups": [40, 0, 6, 0],
    "exits": [7, 0, 0, 0],
}
HITS = {
    "l2.4k": [20, 80, 3, 0],
    "l2.2m": [5, 0, 0, 0],
    "nested.4k": [20, 0, 3, 0],
    "nested.2m": [10, 0, 0, 0],
    "pde": [16, 10, 0, 0],
    "pdpte": [8, 0, 0, 0],
    "pml4e": [2, 5, 0, 0],
}
CYCLES = {
    "base": [600, 500],
    "l2": [400, 0],
    "walk_cache": [100, 0],
    "nested_tlb": [100, 0],
    "guest_table": [300, 500],
    "nested_table": [500, 0],
    "update": [100, 0],
    "guest_fault": [200, 0],
    "nested_fault": [100, 0],
    "exit": [300, 0],
    "switch": [200, 0],
    "hypervisor": [100, 0],
}
# Of the walks, of the table reads and of the walks that were completed.
MISSES = {
    "first_touch": [10, 8, 1, 0],
    "other_vm": [4, 5, 2, 0],
    "capacity": [5, 7, 0, 0],
    "conflict": [2, 0, 0, 0],
    "flush": [3, 0, 0, 0],
    "invalidation": [1, 0, 0, 0],
}
READS = {
    "guest.l1d": [60, 10, 20, 0],
    "guest.l2": [30, 5, 0, 0],
    "guest.l3": [20, 5, 0, 0],
    "guest.memory": [10, 0, 0, 0],
    "nested.l1d": [100, 0, 0, 0],
    "nested.l2": [50, 0, 0, 0],
    "nested.l3": [30, 0, 0, 0],
    "nested.memory": [20, 0, 0, 0],
}
LATENCY = [{20: 15, 60: 12, 200: 2, 640: 1}, {10: 20}, {30: 4}, {}]
NESTED = ("nested.4k", "nested.2m")


def config(mode="tagged", names=("web", "db"), **fields):
    vms = [{"trace": f"{name}.parquet"} for name in names]
    return RunConfig(processor=load_processor("skylake-sp"), mode=mode, vms=vms, **fields)


def result(mode="tagged", **fields):
    """The counts above: of a run without exits, if `exits_per_second` is not given."""
    counters = {name: list(COUNTS.get(name, [0, 0, 0, 0])) for name in COUNTERS}
    if not fields.get("exits_per_second") or mode == "native":
        counters["exits"] = [0, 0, 0, 0]
    hits = {name: list(column) for name, column in HITS.items()}
    if mode == "native":
        counters["nested_lookups"] = [0, 0, 0, 0]
        hits = {name: column for name, column in hits.items() if name not in NESTED}
    reads = {name: list(column) for name, column in READS.items()}
    cycles = {cause: list(CYCLES.get(cause, [0, 0])) for cause in CAUSES}
    return Result(
        mode=mode,
        config=config(mode, **fields).expanded(),
        seeds={"seed": 0, "aslr": [None, None]},
        versions={"mmu": "0.1.0"},
        vms=["web", "db"],
        counters=counters,
        hits=hits,
        cycles=cycles,
        clock=4000,
        references=[{4: 20, 24: 10}, {1: 20}, {5: 4}, {}],
        evictions=[[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        series={
            "clock": [2000, 4000],
            "accesses": {"web": [500, 1000], "db": [250, 500]},
            "walks": {"web": [12, 25], "db": [10, 20]},
            "cycles": {"web": [1500, 3000], "db": [500, 1000]},
        },
        memory={"guest_4k": [10, 5, 0], "guest_2m": [0, 1, 0], "tables": [4, 4, 3]},
        clocks=[4000],
        processors=[{cause: list(column) for cause, column in cycles.items()}],
        reads=reads,
        misses={cause: list(column) for cause, column in MISSES.items()},
        walk_latency=[dict(histogram) for histogram in LATENCY],
        wall_seconds=1.5,
    )


def comparison(modes=("tagged", "purge", "flush", "native"), **fields):
    return Comparison({mode: result(mode, **fields) for mode in modes})


def two_processors():
    """The run above on two logical processors: web on the first, db on both; 200 cycles idle."""
    run = result()
    first = {cause: [column[0], 0] for cause, column in run.cycles.items()}
    second = {cause: [0, column[1]] for cause, column in run.cycles.items()}
    first |= {"guest_table": [300, 400], "idle": [0, 0]}
    second |= {"guest_table": [0, 100], "idle": [0, 200]}
    cycles = {cause: [*map(sum, zip(first[cause], second[cause], strict=True))] for cause in first}
    return dataclasses.replace(
        run, cycles=cycles, processors=[first, second], clocks=[3400, 800], clock=3400
    )
