"""Any run of several logical processors: what must hold of it whatever it does."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from memory_trace import MemoryTrace
from test_replay_equals_naive import maps_of, runs

from mmu.config import RunConfig
from mmu.hardware.causes import with_room
from mmu.hardware.machine import ACCESSES
from mmu.run import Replay
from mmu.software.dispatcher import (
    BLOCK_PAGES,
    FINISHED,
    NEEDS_BLOCKS,
    NEEDS_ROOM,
    WARMED,
    dispatch,
)
from mmu.software.turns import (
    BEGIN,
    CLOCK,
    END,
    MADE,
    SLICE_FIELDS,
    SLICE_LP,
    SLICE_STREAM,
    SLICE_VCPU,
    SLICES,
    WANTED,
    clocks,
)

pytestmark = pytest.mark.slow

PHASES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def several(draw):
    """A run as `runs` makes it, on several processors; and the accesses of each process."""
    config, accesses = draw(runs())
    given_ = {name: getattr(config, name) for name in RunConfig.model_fields}
    of_vms = {
        "vms": tuple(vm.model_copy(update={"vcpus": draw(st.integers(1, 3))}) for vm in config.vms)
    }
    costs = config.costs.model_copy(
        update={
            "cr3_load": draw(st.sampled_from([0, 200])),
            "migration": draw(st.sampled_from([0, 999])),
            "shootdown": draw(st.sampled_from([0, 2000])),
            "shootdown_target": draw(st.sampled_from([0, 500])),
            "invalidation": draw(st.sampled_from([0, 211])),
        }
    )
    given_ |= of_vms | {
        "lps": draw(st.integers(1, 4)),
        "pinned": draw(st.booleans()),
        "migration_flush": draw(st.booleans()),
        "shootdowns_per_second": draw(st.sampled_from([0, 50, 90])),
        "costs": costs,
    }
    return RunConfig(**given_), accesses


def fresh(config, accesses, compact=False, check=False):
    traces = [MemoryTrace(each, compact) for each in accesses]
    replay = Replay(config, traces, chunk=1 << 16, page_maps=maps_of(config, accesses), check=check)
    room = np.zeros((20_000, SLICE_FIELDS), np.int64)
    replay.host.schedule = replay.host.schedule._replace(slices=room)
    return replay


def in_parts(replay, blocks):
    """Run to the end by calls of so many blocks each."""
    host = replay.host
    for stream in replay.streams.values():
        stream.load(replay.feed)
    status = 0
    while status != FINISHED:
        status = dispatch(host.machine, None, host.world, host.schedule, replay.feed, blocks)
        host.check(status)
        if status == NEEDS_ROOM:
            host.machine = with_room(host.machine, BLOCK_PAGES + host.footprint.size)
        if status == NEEDS_BLOCKS:
            replay.streams[int(replay.now[WANTED])].load(replay.feed)
        assert status in (0, FINISHED, NEEDS_BLOCKS, NEEDS_ROOM, WARMED)
    return replay


def state(replay):
    """All that a run leaves: counts, clocks, caches, slices."""
    host = replay.host
    machine, schedule = host.machine, host.schedule
    arrays = [machine.events, machine.hits, machine.references, machine.evictions, machine.tag]
    arrays += [schedule.charged, schedule.idle, schedule.now[:, CLOCK], schedule.vcpu]
    return [*(each.tolist() for each in arrays), schedule.slices[: replay.now[SLICES]].tolist()]


@PHASES
@given(several())
def test_how_a_run_is_cut_into_calls_makes_no_difference(run):
    config, accesses = run
    whole = state(in_parts(fresh(config, accesses), 1 << 40))
    assert state(in_parts(fresh(config, accesses), 1)) == whole
    assert state(in_parts(fresh(config, accesses), 7)) == whole


@PHASES
@given(several())
def test_each_access_is_made_once_and_each_cycle_of_each_processor_has_a_cause(run):
    config, accesses = run
    replay = fresh(config, accesses)
    replay.run()
    host, schedule = replay.host, replay.host.schedule
    vms = len(host.vms)
    spent = (
        host.machine.events[:, :vms] @ schedule.cost[0]
        + host.machine.events[:, vms:] @ schedule.cost[1]
        + schedule.idle
        + host.machine.exposed[:, :vms].sum(axis=2)
    )
    assert spent.sum(axis=1).tolist() == clocks(schedule).tolist()
    rows = schedule.slices[: replay.now[SLICES]].tolist()
    for number, stream in replay.streams.items():
        assert sum(row[MADE] for row in rows if row[SLICE_STREAM] == number) == stream.accesses
    if not config.warm_up:
        assert host.machine.events[:, :vms, ACCESSES].sum() == replay.total


@PHASES
@given(several())
def test_nobody_runs_in_two_places_or_before_it_stopped_elsewhere(run):
    config, accesses = run
    replay = fresh(config, accesses)
    replay.run()
    rows = replay.host.schedule.slices[: replay.now[SLICES]].tolist()
    for field in (SLICE_LP, SLICE_VCPU, SLICE_STREAM):
        for value in {row[field] for row in rows} - {-1}:
            ran = sorted((row[BEGIN], row[END]) for row in rows if row[field] == value)
            assert all(one[1] <= other[0] for one, other in pairwise(ran)), field
    if config.pinned:
        assert all(row[SLICE_VCPU] % config.lps == row[SLICE_LP] for row in rows if row[0] >= 0)


@PHASES
@given(several())
def test_checks_find_nothing_stale_and_change_nothing(run):
    config, accesses = run
    plain, checked = fresh(config, accesses), fresh(config, accesses, check=True)
    plain.run()
    checked.run()
    assert state(checked) == state(plain)


@PHASES
@given(several())
def test_compact_traces_make_the_same_run(run):
    config, accesses = run
    every_access = config.table_reads == "shared" or (config.window and config.mode == "flush")
    assume(not every_access)  # of such a run each access has to be known
    raw, compact = fresh(config, accesses), fresh(config, accesses, compact=True)
    assert state(in_parts(raw, 9))[:1] == state(in_parts(compact, 1))[:1]
    assert raw.host.schedule.now[:, CLOCK].tolist() == compact.host.schedule.now[:, CLOCK].tolist()


@pytest.mark.parametrize("lps", [1, 2, 5, 256])
def test_any_number_of_processors_can_run_one_machine(lps):
    processor = {
        "name": "p", "frequency_hz": 10**6,
        "latencies": dict.fromkeys(("l2", "walk_cache", "nested_tlb", "reference", "update"), 1),
        "l1_data": [{"entries": 4, "ways": 1, "sizes": ["4k"]}],
        "l1_fetch": [{"entries": 4, "ways": 1, "sizes": ["4k"]}],
    }  # fmt: skip
    vm = {"trace": "t", "memory": "64MiB"}
    config = RunConfig(processor=processor, vms=[vm], memory="1GiB", lps=lps, quantum="1cycles")
    replay = fresh(config, [[(0, 0, 0, 0)] * 9000])
    result = replay.run()
    assert result.counters["accesses"][0] == 9000
    assert clocks(replay.host.schedule)[1:].tolist() == [0] * (lps - 1)
