"""What a run counted, gathered from its machine and its dispatcher into a `Result`.

The machine counts for each logical processor; but for cycles, a result has sums over them.
"""

import platform
from importlib.metadata import version
from typing import Any

import numba
import numpy as np

from mmu.figures import CAUSES, DIMENSIONS, IDLE, SERVED
from mmu.hardware.causes import CAUSES as MISSES
from mmu.hardware.latency import lowest_of
from mmu.hardware.machine import (
    ACCESSES,
    DATA_ACCESSES,
    EVENTS,
    GUEST_READS,
    NESTED_READS,
    WALKS,
)
from mmu.hardware.overlap import PIECES, walks_overlap
from mmu.hardware.rows import L2_DATA, Words
from mmu.result import SERIES, Result
from mmu.software.boot import Host
from mmu.software.turns import clocks
from mmu.software.world import MAPPED, PAGE_MAP_4K

Columns = dict[str, list[int]]

# Events that say where reads were served.
READS = range(GUEST_READS, NESTED_READS + len(SERVED))


class Samples:
    """The time series of a run in the making: for each sample the clock, and counts of each machine."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.clock: list[int] = []
        self.counts: dict[str, list[list[int]]] = {name: [] for name in SERIES}

    def clear(self) -> None:
        """Forget all samples: the warm-up is over."""
        self.clock.clear()
        for values in self.counts.values():
            values.clear()

    def take(self) -> None:
        """Add what has been counted by now."""
        events = self.host.machine.events[:, : len(self.host.vms)].sum(axis=0)
        self.clock.append(int(clocks(self.host.schedule).max()))
        self.counts["accesses"].append(events[:, ACCESSES].tolist())
        self.counts["walks"].append(events[:, WALKS].tolist())
        self.counts["cycles"].append(self.host.schedule.charged.sum(axis=0).tolist())

    def series(self, vms: list[int]) -> dict[str, Any]:
        """Return ``clock``, and of some virtual machines each of `SERIES` by name."""
        names = self.host.names
        columns = {
            name: {names[vm]: [sample[vm] for sample in samples] for vm in vms}
            for name, samples in self.counts.items()
        }
        return {"clock": self.clock, **columns}


def gather(host: Host, samples: Samples, seconds: float) -> Result:
    """Gather the result; the root partition's rows are left out if it ran nothing."""
    machine, config = host.machine, host.config
    vms = [vm for vm, setting in enumerate(host.vms) if setting]
    count = len(host.vms)
    accounts = vms + [count + vm for vm in vms]
    owners = [*vms, count]
    events = machine.events.sum(axis=0)[accounts]
    hits = machine.hits.sum(axis=0)[accounts]
    l1 = sum(map(len, host.groups[:L2_DATA]))
    evictions = machine.evictions.sum(axis=0)
    mapped = host.world.mapped[owners]
    told = MAPPED if host.placement.maps else MAPPED[:PAGE_MAP_4K]
    reached = clocks(host.schedule).tolist()
    processors = [
        {cause: [int(cycles[vm]) for vm in vms] for cause, cycles in _cycles(host, lp).items()}
        for lp in range(len(reached))
    ]
    return Result(
        mode=config.mode,
        config=config.expanded(),
        seeds={"seed": config.seed, "aslr": [host.vms[vm].aslr for vm in vms]},  # type: ignore[union-attr]
        versions={
            "mmu": version("mmu"),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
        },
        vms=[host.names[vm] for vm in vms],
        counters=_counters(events),
        hits={
            name: hits[:, row].tolist()
            for row, name in enumerate(host.row_names)
            if row >= l1 and machine.rows.ways[row]
        },
        cycles=_summed(processors),
        clock=max(reached),
        references=_histograms(machine.references.sum(axis=0)[accounts]),
        evictions=evictions[np.ix_(owners, owners)].tolist(),
        series=samples.series(vms),
        memory={name: mapped[:, i].tolist() for i, name in enumerate(told)},
        clocks=reached,
        processors=processors,
        reads=_reads(host, events),
        misses=_misses(host, accounts),
        walk_latency=[
            {lowest_of(bucket): n for bucket, n in histogram.items()}
            for histogram in _histograms(machine.latencies.sum(axis=0)[accounts])
        ],
        wall_seconds=seconds,
    )


def _counters(events: Words) -> Columns:
    """Return the count of each event, per row: [row, event] as the machine has it."""
    counters = {
        name: events[:, event].tolist() for event, name in enumerate(EVENTS) if event not in READS
    }
    fetches = events[:, ACCESSES] - events[:, DATA_ACCESSES]
    return {**counters, "fetches": fetches.tolist()}


def _reads(host: Host, events: Words) -> Columns:
    """Return the table reads by where they were served, of levels that the processor has."""
    caches = host.data_caches
    if caches is None:
        return {}
    return {
        f"{dimension}.{level}": events[:, first + n].tolist()
        for dimension, first in zip(DIMENSIONS, (GUEST_READS, NESTED_READS), strict=True)
        for n, level in enumerate(SERVED)
        if getattr(caches, level) is not None
    }


def _misses(host: Host, accounts: list[int]) -> Columns:
    """Return the walks by the cause of the miss before them; conflicts only if they were told."""
    counted = host.machine.causes.sum(axis=0)[accounts]
    return {
        cause: counted[:, n].tolist()
        for n, cause in enumerate(MISSES)
        if cause != "conflict" or host.config.conflicts
    }


def _cycles(host: Host, lp: int) -> dict[str, Words]:
    """Return the cycles of each cause on a logical processor: [vm] each."""
    machine, schedule, vms = host.machine, host.schedule, len(host.vms)
    events = machine.events[lp]
    causes = {cause: np.zeros(vms, np.int64) for cause in CAUSES}
    for event, cause, cycles in host.costs:
        causes[cause] += events[:vms, event] * cycles
    if walks_overlap(machine):  # walks overlapped: they cost what was waited for
        for piece, cause in enumerate(PIECES):
            causes[cause] = machine.exposed[lp, :vms, piece]
    causes["hypervisor"] = events[vms:] @ schedule.cost[1]
    if schedule.start.any() or len(schedule.now) > 1:
        causes[IDLE] = schedule.idle[lp]
    return causes


def _summed(processors: list[Columns]) -> Columns:
    """Return the sum of tables that have the same columns."""
    return {
        cause: [sum(cycles) for cycles in zip(*(each[cause] for each in processors), strict=True)]
        for cause in processors[0]
    }


def _histograms(counted: Words) -> list[dict[int, int]]:
    """Return what was counted as histograms, one of each row: [row, value]."""
    return [{int(n): int(row[n]) for n in np.flatnonzero(row)} for row in counted]
