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
