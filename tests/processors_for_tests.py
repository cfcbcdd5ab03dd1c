"""Processors made of just the caches that a test is about."""

from mmu.config import Processor

LATENCIES = {"l2": 9, "walk_cache": 1, "nested_tlb": 1, "reference": 14, "update": 20}


def array(entries, ways, *sizes, index="linear"):
    return {"entries": entries, "ways": ways, "sizes": list(sizes or ("4k",)), "index": index}


def cache(entries, ways=None):
    return {"entries": entries, "ways": ways or entries}


def processor(**fields):
    """One entry for each side's L1, and nothing else but what is given."""
    return Processor(
        **{
            "name": "test",
            "frequency_hz": 10**9,
            "l1_data": [array(1, 1)],
            "l1_fetch": [array(1, 1)],
            "latencies": LATENCIES,
        }
        | fields
    )


# From one in which nearly every walk evicts something to one in which hardly any does.
BOTH = ("4k", "2m")
TINY_TLBS = processor(nested_tlb={**array(2, 1, *BOTH)}, walk_caches={"pde": cache(1)})
SMALL_TLBS = processor(
    l1_data=[array(4, 2, *BOTH)], l1_fetch=[array(2, 2)],
        l2=[array(8, 2, *BOTH, index="xor-1")],
        walk_caches={"pde": cache(4, 2), "pdpte": cache(2), "pml4e": cache(2)},
        nested_tlb=array(8, 4, *BOTH),
)  # fmt: skip
LARGE_TLBS = processor(
    l1_data=[array(64, 4), array(32, 4, "2m")], l1_fetch=[array(64, 4, *BOTH)],
        l2=[array(256, 4, *BOTH)],
        walk_caches={"pde": cache(32), "pdpte": cache(16), "pml4e": cache(16)},
        nested_tlb=array(64, 4, *BOTH), flush_nested=True,
)  # fmt: skip
