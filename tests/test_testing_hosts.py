"""Hosts, schedules and traces that are drawn can be replayed, and differ."""

import numba
import numpy as np
import pytest
from hypothesis import find, given, settings
from test_testing_strategies import SURELY, met

from mmu.run import Replay
from mmu.testing import strategies

INTERPRETED = bool(numba.config.DISABLE_JIT)


@settings(max_examples=5 if INTERPRETED else 60, deadline=None)
@given(strategies.hosts())
def test_any_host_runs_and_makes_every_access(drawn):
    config, traces = drawn
    result = Replay(config, traces, check=True).run()
    made = [
        trace.accesses * vm.repeat for vm, trace in zip(config.vms, traces, strict=True)
    ]  # fmt: skip
    assert result.counters["accesses"][: len(made)] == made


def test_processors_differ_in_every_part():
    def features(processor):
        yield "l2" if processor.l2 else "no l2"
        yield "nested" if processor.nested_tlb else "no nested"
        for level in ("pde", "pdpte", "pml4e"):
            yield level if getattr(processor.walk_caches, level) else f"no {level}"
        for array in (*processor.l1_data, *processor.l1_fetch, *processor.l2):
            yield array.sizes
            yield "xor" if array.index != "linear" else "linear"
            yield "odd sets" if array.sets & (array.sets - 1) else "even sets"

    names = ("l2", "nested", "pde", "pdpte", "pml4e")
    expected = {*names, *(f"no {name}" for name in names), "xor", "linear", "odd sets"}
    expected |= {("4k",), ("4k", "2m"), ("2m",), ("2m", "1g"), ("4k", "2m", "1g")}
    assert expected <= set(met(strategies.processors(), features, 200, wanted=expected))


def test_hosts_have_every_mode_and_one_to_three_machines():
    def features(drawn):
        config, _ = drawn
        yield config.mode
        yield len(config.vms)
        yield config.backing
        yield "exits" if config.exits_per_second else "no exits"
        yield config.quantum.unit

    expected = {"tagged", "purge", "flush", "native", 1, 2, 3, "start", "first-touch", "exits"}
    expected |= {"no exits", "accesses", "cycles"}
    assert expected <= set(met(strategies.hosts(), features, 150, wanted=expected))


def test_a_trace_shrinks_to_one_read_and_can_be_written(tmp_path):
    assert find(strategies.traces(), lambda trace: True, settings=SURELY).pairs == ((0, 0),)
    trace = find(
        strategies.traces(), lambda trace: min(trace.pairs)[0] < 0 and len(set(trace.pairs)) > 2,
        settings=SURELY,
    )  # fmt: skip
    trace.save(tmp_path / "small.parquet")
    reader = pytest.importorskip("mmu.trace.reader")
    with_file = reader.open_trace(str(tmp_path / "small.parquet"))
    for ours, theirs in zip(trace.chunks(100), with_file.chunks(100), strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert np.array_equal(mine, other)
            assert mine.dtype == other.dtype
