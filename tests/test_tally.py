"""What a run counted, as its result tells it: every count is in one part of each whole."""

import dataclasses

import numpy as np
import pytest

import mmu
from mmu.figures import CAUSES, DIMENSIONS, MISSES, SERVED
from mmu.result import load
from mmu.trace.format import Raw
from mmu.trace.writer import write_trace

pytestmark = pytest.mark.slow

CACHES = (
    "data_caches={l1d={bytes=4096,ways=8,latency=4},l1i={bytes=4096,ways=8,latency=4},"
    "l2={bytes=16384,ways=4,latency=14},l3={bytes=65536,ways=16,latency=50},memory=200}"
)
SMALL_L2 = ("l2.entries=96", "l2.ways=6", "l2.index=linear")


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Two traces of 40,000 accesses, fetches and writes among them, that go round 2,000 pages."""
    paths = []
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        pages = random.integers(0, 2000, 40_000).astype(np.uint64)
        kinds = np.tile(np.array([2, 0, 1, 0], np.uint8), 10_000)
        address = pages * 4096
        address[kinds == 2] = 0x400000 + pages[kinds == 2] % 8 * 4096
        path = tmp_path_factory.mktemp("traces") / f"t{seed}.parquet"
        write_trace(path, [Raw(address, kinds)], "raw")
        paths.append(str(path))
    return paths


RUNS = {
    "plain": {},
    "native": {"mode": "native"},
    "flush": {"mode": "flush", "exits_per_second": 20_000},
    "data caches": {"settings": [CACHES, *SMALL_L2], "exits_per_second": 20_000},
    "no L3": {"settings": [CACHES, "data_caches.l3=none"]},
    "fixed": {"settings": [CACHES], "table_reads": "fixed"},
    "shared": {"settings": [CACHES], "table_reads": "shared"},
    "conflicts": {"settings": SMALL_L2, "conflicts": True},
    "window": {"settings": [CACHES, "walkers=2"], "window": 32, "exits_per_second": 5000},
    "two processors": {"lps": 2, "exits_per_second": 5000, "shootdowns_per_second": 5000},
    "three, warm": {"lps": 3, "vcpus": 2, "warm_up": 30_000, "pinned": True},
    "warm": {"warm_up": 70_000, "settings": SMALL_L2},
}


@pytest.fixture(scope="module", params=RUNS)
def ran(request, traces):
    options = dict(RUNS[request.param])
    return options, mmu.replay(
        *traces, quantum="20us", memory="64MiB", host_memory="1GiB", **options
    )


def test_cycles_of_all_causes_are_the_clock_of_each_processor(ran):
    _options, run = ran
    assert run.clock == max(run.clocks)
    for clock, table in zip(run.clocks, run.processors, strict=True):
        assert sum(map(sum, table.values())) == clock
        assert set(table) - {"idle"} == set(CAUSES)
    for cause, cycles in run.cycles.items():
        parts = [table[cause] for table in run.processors]
        assert cycles == [sum(each) for each in zip(*parts, strict=True)]


def test_every_walk_has_a_cause_and_every_completed_one_a_latency(ran):
    options, run = ran
    conflicts = {"conflict"} if options.get("conflicts") else set()
    assert set(run.misses) == set(MISSES) - {"conflict"} | conflicts
    for row, name in enumerate(run.rows):
        assert sum(column[row] for column in run.misses.values()) == run.count("walks", name)
        completed = run.count("walks", name) + run.count("dirty_walks", name)
        assert sum(run.walk_latency[row].values()) == completed
        assert sum(run.references[row].values()) == completed
    if not options.get("warm_up"):
        assert run.misses_by("first_touch") >= 4000


def test_every_table_read_was_served_somewhere(ran):
    options, run = ran
    if run.config["table_reads"] == "fixed":
        assert run.reads == {}
        return
    absent = {"l3"} if "data_caches.l3=none" in options.get("settings", ()) else set()
    levels = [level for level in SERVED if level not in absent]
    assert set(run.reads) == {f"{each}.{level}" for each in DIMENSIONS for level in levels}
    for row, name in enumerate(run.rows):
        for dimension in DIMENSIONS:
            served = sum(run.reads[f"{dimension}.{level}"][row] for level in levels)
            assert served == run.count(f"{dimension}_references", name)


def test_latencies_of_walks_are_the_cycles_of_tables_and_of_caches_of_walks(ran):
    options, run = ran
    spent = ("walk_cache", "nested_tlb", "guest_table", "nested_table", "update")
    whole = run.walk_latency_mean() * (run.count("walks") + run.count("dirty_walks"))
    if options.get("window"):  # where some of it is not waited for
        assert 0 < run.cycle_count(spent) < whole
    elif run.count("fault_walks"):  # which spend cycles, too
        assert run.cycle_count(spent) > whole
    else:
        assert run.cycle_count(spent) == pytest.approx(whole, abs=1e-6)
    assert bool(run.count("fault_walks")) == (options.get("warm_up") != 70_000)


def test_a_result_of_a_run_loads_as_it_was_saved(ran, tmp_path):
    _options, run = ran
    run.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == run
    assert not any("reads_" in name for name in run.counters)


def test_the_last_sample_is_the_end_but_for_a_few_blocks(ran):
    _options, run = ran
    assert run.series["clock"] == sorted(run.series["clock"])
    assert run.series["clock"][-1] <= run.clock
    for vm in run.vms:
        assert run.series["walks"][vm][-1] <= run.count("walks", vm)


def test_what_modes_drop_is_lost_to_them(traces):
    run = mmu.compare(*traces, quantum="20us", exits_per_second=20_000)
    for mode, lost in (("tagged", False), ("purge", True), ("flush", True), ("native", False)):
        assert (run[mode].misses_by("flush") > 0) == lost
    assert run["flush"].misses_by("flush") > run["purge"].misses_by("flush")
    assert all(
        result.misses_by("other_vm") > 0 for result in map(run.__getitem__, ("tagged", "native"))
    )


def test_conflicts_are_part_of_what_capacity_was(traces):
    settings = ("l2.entries=96", "l2.ways=6", "l2.index=linear")
    plain = mmu.replay(*traces, settings=settings)
    told = mmu.replay(*traces, settings=settings, conflicts=True)
    parts = told.misses_by("conflict") + told.misses_by("capacity")
    assert 0 < told.misses_by("conflict") < parts == plain.misses_by("capacity")
    same = [cause for cause in MISSES if cause not in ("conflict", "capacity")]
    assert [told.misses[cause] for cause in same] == [plain.misses[cause] for cause in same]
    without = {"config": {}, "misses": {}}
    assert dataclasses.replace(told, **without) == dataclasses.replace(plain, **without)
