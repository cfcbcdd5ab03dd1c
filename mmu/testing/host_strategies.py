"""Strategies for processors, schedules and hosts: small, so that TLBs overflow within a few accesses."""

from typing import Any

from mmu.config import Processor, RunConfig
from mmu.testing.lazily import strategies as st
from mmu.testing.trace_strategies import SmallTrace, traces

MODES = ("tagged", "purge", "flush", "native")
LATENCIES = {"l2": 7, "walk_cache": 1, "nested_tlb": 2, "reference": 14, "update": 20}
MOST_SETS, MOST_WAYS = 4, 4


@st.composite
def _cache(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a cache's entries, ways, index and replacement."""
    replacement = draw(st.sampled_from(["lru", "lru", "tree-plru", "rotating-plru"]))
    fit = {"lru": list(range(1, MOST_WAYS + 1)), "tree-plru": [2, 4], "rotating-plru": [6]}
    ways, sets = draw(st.sampled_from(fit[replacement])), draw(st.sampled_from([1, 2, 4, 3]))
    index = draw(st.sampled_from(["linear", "linear", "xor-1", "xor-7"]))
    linear = sets & (sets - 1) or sets == 1
    shape = {"entries": ways * sets, "ways": ways, "index": "linear" if linear else index}
    return shape | {"replacement": replacement}


@st.composite
def _entry_cache(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a page-walk cache."""
    levels = draw(st.sampled_from([[2, 3, 4], [3, 4], [2]]))
    return draw(_caches) | {"levels": levels, "nested": draw(st.booleans())}


_caches = _cache()
_maybe = st.none() | _caches
_entries = st.none() | _entry_cache()
_split = st.sampled_from([(("4k",),), (("4k", "2m"),), (("4k",), ("2m",)), (("4k", "2m", "1g"),)])
_level2 = st.sampled_from(
    [(), (("4k",),), (("4k", "2m"),), (("4k",), ("2m", "1g")), (("4k", "2m"), ("4k", "1g"))]
)


@st.composite
def processors(draw: st.DrawFn) -> Processor:
    """Draw a processor of one to two dozen entries in each TLB; walk caches, L2 and nested TLB, or none.

    It shrinks to one entry for each side, and nothing else.
    """

    def arrays(shapes: "st.SearchStrategy[Any]") -> list[dict[str, Any]]:
        return [draw(_caches) | {"sizes": sizes} for sizes in draw(shapes)]

    nested = draw(_maybe)
    fields: dict[str, Any] = {
        "l1_data": arrays(_split),
        "l1_fetch": arrays(_split),
        "l1_store": arrays(st.sampled_from([(), (), (("4k", "2m"),)])),
        "l2": arrays(_level2),
        "l2_fetch": arrays(_level2) if draw(st.booleans()) else None,
        "page_walk_cache": draw(_entries),
        "walk_caches": {level: draw(_maybe) for level in ("pde", "pdpte", "pml4e")},
        "nested_tlb": nested and nested | {"sizes": ["4k", "2m"]},
        "flush_nested": draw(st.booleans()),
    }
    fields |= {"name": "small", "frequency_hz": 10**9, "latencies": LATENCIES}
    return Processor(**fields)


@st.composite
def schedules(draw: st.DrawFn, vms: int = 3) -> dict[str, Any]:
    """Draw who runs when: the fields of `mmu.RunConfig` that say it, without processor and traces.

    Returns
    -------
    dict
        ``quantum``, ``exits_per_second``, ``repeat``, and ``vms``: of each its weight and start.
    """
    count = draw(st.integers(1, vms))
    fields = {"weight": st.integers(1, 3), "repeat": st.integers(1, 2)}
    return {
        "quantum": draw(st.sampled_from(["1accesses", "4096accesses", "3us", "50us"])),
        "exits_per_second": draw(st.sampled_from([0, 1000, 500_000])),
        "vms": draw(st.lists(st.fixed_dictionaries(fields), min_size=count, max_size=count)),
    }


@st.composite
def hosts(draw: st.DrawFn, vms: int = 3, accesses: int = 64) -> tuple[RunConfig, list[SmallTrace]]:
    """Draw a host with at most so many virtual machines, and a trace for each.

    Returns
    -------
    (RunConfig, list of SmallTrace)
        What `mmu.Replay(config, traces).run()` replays.
    """
    schedule = draw(schedules(vms))
    made = [draw(traces(accesses)) for _ in schedule["vms"]]
    policies = st.sampled_from(["4k", "2m", "auto"])
    backing = {"guest_pages": policies, "nested_pages": policies}
    for number, vm in enumerate(schedule["vms"]):
        vm |= {"trace": f"small-{number}", "memory": "256MiB"}
        vm |= {name: draw(policy) for name, policy in backing.items()}
    fields: dict[str, Any] = {
        "processor": draw(processors()),
        "mode": draw(st.sampled_from(MODES)),
        "memory": "2GiB",
        "nested_dirty": draw(st.booleans()),
        "backing": draw(st.sampled_from(["start", "first-touch"])),
        "seed": draw(st.integers(0, 3)),
    }
    return RunConfig(**fields | schedule), made
