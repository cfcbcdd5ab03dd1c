"""Accesses per second of the replay, and its CPU time against a C program of the same model.

Traces are in memory, the cache of compiled code is warm, three virtual machines run the same trace on
one processor. Both programs are timed by the thread's own clock, turn by turn, so that a machine whose
speed drifts slows both. A bundled trace is compact: it is replayed as it is, and also with every
access made one by one, which is what the C program does. The counts of all three must be equal.
"""

import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import ctwin
import numpy as np
import pytest
from hostile import hostile

import mmu
from mmu.hardware.machine import EVENTS
from mmu.run import Replay
from mmu.software.dispatcher import FINISHED, dispatch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from memory_trace import Chunk

BLOCK = 4096
SMOKE = bool(os.environ.get("MMU_BENCH_SMOKE"))
LIMIT = 100_000 if SMOKE else 4_000_000  # accesses of each machine
ROUNDS = 2 if SMOKE else 7
MACHINES = 3
TRACES = sorted((Path(__file__).parents[1] / "traces").glob("*.parquet"))
COUNTED = {
    "instruction": "instructions", "l2_lookup": "l2_lookups", "walk": "walks",
    "dirty_walk": "dirty_walks", "fault_walk": "fault_walks", "exit": "exits",
    "guest_reference": "guest_references", "nested_reference": "nested_references",
    "update": "updates", "guest_fault": "guest_faults", "switch": "switches",
}  # fmt: skip


class InMemory:
    """A trace that is one chunk, as often as it is asked for."""

    path = name = "memory"

    def __init__(self, chunk, compact):
        self.chunk, self.compact = chunk, compact
        self.accesses = int(chunk.accesses.sum())

    def chunks(self, _):
        yield self.chunk


def raw_chunk(address, kind):
    """Blocks of single accesses."""
    first = np.append(np.arange(0, len(address), BLOCK), len(address)).astype(np.int64)
    accesses = np.diff(first)
    fetches = np.add.reduceat((kind == 2).astype(np.int64), first[:-1])
    none, order = np.zeros(0, np.uint16), np.zeros(0, np.uint8)
    return Chunk(
        address, kind, none, none, none, order, first, np.zeros(len(accesses), np.int64),
        accesses, fetches, accesses - fetches,
    )  # fmt: skip


def whole_blocks(trace, limit):
    """The blocks of a compact trace up to about `limit` accesses, as one chunk."""
    parts = list(trace.chunks(1 << 20))
    records = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("address", "kind", "fetches", "reads", "writes", "order")
    }
    blocks = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("space", "accesses", "instructions", "data")
    }
    sizes = np.concatenate([np.diff(part.first) for part in parts])
    kept = int(np.searchsorted(np.cumsum(blocks["accesses"]), limit, side="right"))
    first = np.concatenate([[0], np.cumsum(sizes[:kept])]).astype(np.int64)
    return Chunk(
        **{name: np.ascontiguousarray(values[: first[-1]]) for name, values in records.items()},
        first=first,
        **{name: np.ascontiguousarray(values[:kept]) for name, values in blocks.items()},
    )


def unfolded(chunk):
    """Every access of a compact chunk by itself: fetches and data of a record in turn.

    A compact trace has forgotten in which order they came, and any order gives the same counts.
    """
    side_page = {"fetch": -1, "data": -1}
    address, kind = [], []
    heads = zip(
        chunk.address.tolist(), chunk.kind.tolist(), chunk.fetches.tolist(),
        chunk.reads.tolist(), chunk.writes.tolist(), strict=True,
    )  # fmt: skip
    for page, head, fetches, reads, writes in heads:
        side_page["fetch" if head == 2 else "data"] = page
        data = [0] * reads + [1] * writes
        every = max(fetches // max(len(data), 1), 1)
        kinds = []
        for n in range(fetches):
            kinds.append(2)
            if data and n % every == every - 1:
                kinds.append(data.pop())
        kinds = [head, *kinds, *data]
        kind += kinds
        address += [side_page["fetch" if each == 2 else "data"] for each in kinds]
    return np.array(address, np.int64), np.array(kind, np.uint8)


def ours(chunk, compact):
    """Seconds of CPU time of one replay, and its counts."""
    config = mmu.run.configured(["memory"] * MACHINES, quantum="20000accesses")
    replay = Replay(config, [InMemory(chunk, compact)] * MACHINES, chunk=len(chunk.address))
    host = replay.host
    for stream in replay.streams.values():
        stream.load(replay.feed)
    began = time.thread_time()
    status = dispatch(host.machine, None, host.world, host.schedule, replay.feed, 0, 1 << 40)
    seconds = time.thread_time() - began
    assert status == FINISHED
    events = host.machine.events[0]
    return seconds, {name: events[:, EVENTS.index(name)].tolist() for name in COUNTED.values()}


def theirs(address, kind):
    """The same of the C program, whose machine 0 is the root partition and runs nothing."""
    config = mmu.run.configured(["memory"] * MACHINES)
    twin = ctwin.run(
        [(address, kind)] * MACHINES,
        ctwin.Settings(
            quantum=20_000, quantum_unit="accesses", memory=config.memory,
            reserve=config.reserve, frequency_hz=config.processor.frequency_hz,
        ),
    )  # fmt: skip
    counts = {ours: twin.counters[name].tolist() for name, ours in COUNTED.items()}
    return twin.nanoseconds / 1e9, counts


def race(benchmark, name, compact, raw, address, kind, most):
    """Run all in turn; print accesses per second and ratios, and hold them to `most`."""
    accesses = MACHINES * len(address)
    kinds = {"compact": compact, "raw": raw} if compact else {"raw": raw}
    seconds = {each: [] for each in (*kinds, "C")}
    for turn in range(ROUNDS + 1):  # the first one is not counted
        time_c, counts = theirs(address, kind)
        for each, chunk in kinds.items():
            time_ours, counted = ours(chunk, each == "compact")
            assert counted == counts, (name, each)
            if turn:
                seconds[each].append(time_ours)
        if turn:
            seconds["C"].append(time_c)
    middle = {each: statistics.median(times) for each, times in seconds.items()}
    for each in kinds:
        ratios = [a / b for a, b in zip(seconds[each], seconds["C"], strict=True)]
        rate = accesses / middle[each] / 1e6
        ratio = statistics.median(ratios)
        benchmark.extra_info[f"{each} / C"] = round(ratio, 2)
        benchmark.extra_info[f"{each} M accesses/s"] = round(rate)
        print(
            f"\n{name:12} {each:8} {rate:6.0f} M accesses/s, {ratio:5.2f} times the C program's "
            f"CPU time ({min(ratios):.2f} to {max(ratios):.2f})", end="",
        )  # fmt: skip
    if not SMOKE:
        first = next(iter(kinds))
        assert middle[first] / middle["C"] <= most
    chunk = kinds[next(iter(kinds))]
    benchmark.pedantic(ours, args=(chunk, bool(compact)), rounds=1, iterations=1)


needs_compiler = pytest.mark.skipif(
    not shutil.which(ctwin.compiler()), reason="there is no C compiler on the PATH to compare with"
)


@needs_compiler
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_bundled_trace_against_c(benchmark, path):
    trace = mmu.open_trace(path)
    compact = whole_blocks(trace, LIMIT)
    address, kind = unfolded(compact)
    race(benchmark, path.stem, compact, raw_chunk(address, kind), address, kind, most=1.3)


@needs_compiler
def test_the_hostile_trace_against_c(benchmark):
    address, kind = hostile(LIMIT // BLOCK * BLOCK)
    race(benchmark, "hostile", None, raw_chunk(address, kind), address, kind, most=1.8)
