"""Walks that overlap, on the kernels: what a window must not change, and what it may."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from memory_trace import MemoryTrace
from test_lps_random import several
from test_replay_equals_naive import maps_of

from mmu.config import RunConfig
from mmu.processors import load_processor, names
from mmu.run import Replay
from mmu.software import boot

pytestmark = pytest.mark.slow

ONE_WALKER = ["walkers=1"]


def pages(seed, accesses=6000):
    """Return accesses of which two in five are to one of 3,000 pages, and the others to one of 20."""
    choose = random.Random(seed)
    near, far = range(20), range(3000)
    return [
        (0, 0, choose.choice(far if choose.random() < 0.4 else near) << 12 | 64 * choose.randrange(64),
         choose.choice([0, 0, 1, 2]))
        for _ in range(accesses)
    ]  # fmt: skip


TRACES = [pages(1), pages(2)]


def replayed(config, traces=TRACES, forced=False, page_maps=None):
    with pytest.MonkeyPatch.context() as patch:
        if forced:
            patch.setattr(boot, "overlaps", lambda config: True)
        replay = Replay(config, [MemoryTrace(trace) for trace in traces], page_maps=page_maps)
    return replay.run()


def on(processor, **fields):
    small = {"memory": 128 << 20, "guest_pages": "4k"}
    vms = [small | {"trace": f"t{n}", "nested_pages": size} for n, size in enumerate(("4k", "2m"))]
    defaults = {
        "memory": 1 << 30, "lps": 2, "quantum": "4096accesses", "exits_per_second": 20_000,
        "table_reads": "shared", "conflicts": True,
    }  # fmt: skip
    return RunConfig(processor=processor, vms=vms, **defaults | fields)


def all_but_time(result):
    return result.counters, result.hits, result.reads, result.misses, result.walk_latency


def all_of_it(result):
    return *all_but_time(result), result.processors, result.clocks, result.series


@pytest.mark.parametrize("mode", ["tagged", "flush", "native"])
@pytest.mark.parametrize("name", names())
def test_one_walker_without_a_window_takes_the_time_of_walks_that_block(name, mode):
    config = on(load_processor(name, ONE_WALKER), mode=mode)
    assert all_of_it(replayed(config, forced=True)) == all_of_it(replayed(config))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(several())
def test_so_it_is_in_any_run_of_one_walker_without_a_window(run):
    config, accesses = run
    given_ = {name: getattr(config, name) for name in RunConfig.model_fields}
    alone = config.processor.model_copy(update={"walkers": 1})
    config = RunConfig(**given_ | {"processor": alone, "window": 0})
    maps = maps_of(config, accesses)
    blocking, forced = (replayed(config, accesses, f, page_maps=maps) for f in (False, True))
    assert all_of_it(forced) == all_of_it(blocking)


@pytest.mark.parametrize("name", ["skylake-sp", "zen3"])
def test_a_window_saves_time_and_changes_nothing_else(name):
    made_of = load_processor(name)
    blocking, beside = (
        replayed(on(made_of, window=window, lps=1, exits_per_second=0)) for window in (0, 100)
    )
    assert all_but_time(beside) == all_but_time(blocking)
    assert beside.clock < blocking.clock
    for result in (blocking, beside):
        assert [sum(map(sum, lp.values())) for lp in result.processors] == result.clocks
