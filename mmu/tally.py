"""What a run counted, gathered from its machine and its dispatcher into a `Result`."""

import platform
from importlib.metadata import version
from typing import Any

import numba
import numpy as np

from mmu.hardware.machine import ACCESSES, DATA_ACCESSES, EVENTS, WALKS
from mmu.hardware.rows import Words
from mmu.result import IDLE, Result
from mmu.software.boot import Host
from mmu.software.turns import CLOCK, WARM_CLOCK
from mmu.software.world import MAPPED, PAGE_MAP_4K

SERIES = ("accesses", "walks", "cycles")


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
        events = self.host.machine.events[0, : len(self.host.vms)]
        self.clock.append(_clock(self.host))
        self.counts["accesses"].append(events[:, ACCESSES].tolist())
        self.counts["walks"].append(events[:, WALKS].tolist())
        self.counts["cycles"].append(self.host.schedule.charged[0].tolist())

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
    events, hits = machine.events[0, accounts], machine.hits[0, accounts]
    counters = {name: events[:, event].tolist() for event, name in enumerate(EVENTS)}
    counters["fetches"] = (events[:, ACCESSES] - events[:, DATA_ACCESSES]).tolist()
    l1 = len(host.groups[0]) + len(host.groups[1])
    references = machine.references[0, accounts]
    mapped = host.world.mapped[owners]
    told = MAPPED if host.placement.maps else MAPPED[:PAGE_MAP_4K]
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
        counters=counters,
        hits={
            name: hits[:, row].tolist()
            for row, name in enumerate(host.row_names)
            if row >= l1 and machine.rows.ways[row]
        },
        cycles={cause: [values[vm] for vm in vms] for cause, values in _cycles(host).items()},
        clock=_clock(host),
        references=[{int(n): int(row[n]) for n in np.flatnonzero(row)} for row in references],
        evictions=machine.evictions[0][np.ix_(owners, owners)].tolist(),
        series=samples.series(vms),
        memory={name: mapped[:, i].tolist() for i, name in enumerate(told)},
        wall_seconds=seconds,
    )


def _clock(host: Host) -> int:
    """Return the cycles since the warm-up."""
    now = host.schedule.now[0]
    return int(now[CLOCK] - now[WARM_CLOCK])


def _cycles(host: Host) -> dict[str, list[int]]:
    """Return each virtual machine's cycles by cause."""
    vms = len(host.vms)
    events = host.machine.events[0]
    causes: dict[str, Words] = {}
    for event, cause, cycles in host.costs:
        booked = causes.setdefault(cause, np.zeros(vms, np.int64))
        booked += events[:vms, event] * cycles
    causes["hypervisor"] = events[vms:] @ host.schedule.cost[1]
    if host.schedule.start.any():
        causes[IDLE] = host.schedule.idle[0]
    return {cause: cycles.tolist() for cause, cycles in causes.items()}
