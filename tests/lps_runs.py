"""Runs of several logical processors on which an access takes a cycle and nothing else takes any."""

import numpy as np
from memory_trace import MemoryTrace

from mmu.config import RunConfig
from mmu.hardware.machine import EVENTS
from mmu.run import Replay
from mmu.software.dispatcher import FINISHED, dispatch
from mmu.software.turns import RAN_ACCESSES, REASONS, SLICE_FIELDS, SLICES, clocks

BLOCK = 4096
FREE = dict.fromkeys(("l2", "walk_cache", "nested_tlb", "reference", "update"), 0)
COSTS = (
    "guest_fault", "nested_fault", "exit", "switch", "cr3_load", "shootdown", "shootdown_target",
    "invalidation", "migration",
)  # fmt: skip
NO_COSTS = dict.fromkeys(COSTS, 0)
PROCESSOR = {
    "name": "plain", "frequency_hz": 10**6, "latencies": FREE,
    "l1_data": [{"entries": 64, "ways": 4, "sizes": ["4k"]}],
    "l1_fetch": [{"entries": 64, "ways": 4, "sizes": ["4k"]}],
}  # fmt: skip
NO_FOOTPRINT = {"exit_code_pages": 0, "exit_data_pages": 0}


def configured(*vms, costs=None, **fields):
    """Run on two processors on which an access takes one cycle and nothing else takes any."""
    named = [{"memory": "64MiB", "name": f"vm{n}"} | vm for n, vm in enumerate(vms, start=1)]
    defaults = {
        "processor": PROCESSOR, "memory": "1GiB", "quantum": "4096accesses", "lps": 2,
        "costs": NO_COSTS | (costs or {}), **NO_FOOTPRINT,
    }  # fmt: skip
    return RunConfig(**{**defaults, "vms": named, **fields})


def vm(*processes, **fields):
    if not processes:
        return {"trace": "x", **fields}
    return {"processes": [{"trace": name} for name in processes], **fields}


def blocks(count, address=0, space=0):
    return [(space, 0, address, 0)] * (BLOCK * count)


def replayed(config, *accesses):
    replay = Replay(config, [MemoryTrace(a) for a in accesses])
    room = np_room(1000)
    replay.host.schedule = replay.host.schedule._replace(slices=room)
    return replay, replay.run()


def np_room(count):
    return np.zeros((count, SLICE_FIELDS), np.int64)


def slices_of(replay):
    return replay.host.schedule.slices[: replay.now[SLICES]].tolist()


def turns(config, *accesses):
    """Return who ran, in order of ends: lp, vm, stream, from and to in blocks, and why it ended."""
    replay, _ = replayed(config, *accesses)
    return [
        (lp, vm, stream, begin / BLOCK, end / BLOCK, REASONS[why])
        for vm, stream, begin, end, _, why, lp, _ in slices_of(replay)
    ]


def seen(config, *accesses):
    """Return who ran on each lp: vm, and from and to in blocks; vm -1 where it idled."""
    rows = turns(config, *accesses)
    return [
        [(vm, begin, end) for at, vm, _, begin, end, _ in rows if at == lp]
        for lp in range(config.lps)
    ]


def clocks_of(replay):
    return clocks(replay.host.schedule).tolist()


def counts(replay, name):
    """Return an event's count by lp and virtual machine, without the root partition."""
    machines = len(replay.host.vms)
    return replay.host.machine.events[:, 1:machines, EVENTS.index(name)].tolist()


def stepped(replay):
    """Run block by block; return the lp of each."""
    host = replay.host
    for stream in replay.streams.values():
        stream.load(replay.feed)
    order, ran, status = [], host.schedule.now[:, RAN_ACCESSES], 0
    while status != FINISHED:
        before = ran.copy()
        status = dispatch(host.machine, None, host.world, host.schedule, replay.feed, 1)
        order += np.flatnonzero(ran != before).tolist()
    return order


def comings(replay):
    """Count the slices of a vcpu that follow on one of it on another lp."""
    last, count = {}, 0
    for row in sorted(slices_of(replay), key=lambda row: row[2]):
        lp, vcpu = row[6], row[7]
        if vcpu >= 0:
            count += last.get(vcpu, lp) != lp
            last[vcpu] = lp
    return count
