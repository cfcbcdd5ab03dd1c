"""Results with numbers small enough to work out by hand, and an engine that returns them."""

from mmu.config import RunConfig
from mmu.processors import load_processor
from mmu.result import CAUSES, COUNTERS, Comparison, Result

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
    return Result(
        mode=mode,
        config=config(mode, **fields).expanded(),
        seeds={"seed": 0, "aslr": [None, None]},
        versions={"mmu": "0.1.0"},
        vms=["web", "db"],
        counters=counters,
        hits=hits,
        cycles={cause: list(CYCLES[cause]) for cause in CAUSES},
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
        wall_seconds=1.5,
    )


def comparison(modes=("tagged", "purge", "flush", "native"), **fields):
    return Comparison({mode: result(mode, **fields) for mode in modes})
