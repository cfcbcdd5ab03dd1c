"""Figures that follow from what a run counted, and the words for what is counted.

A result has a row of counters for each virtual machine's own accesses, and after those a row for
each of what the hypervisor touched at that machine's exits. Figures are asked for *of* a row's
name, of ``"total"`` (all virtual machines, without the hypervisor's rows) or of ``"hypervisor"``
(all of its rows). A figure whose divisor is zero is None.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mmu.errors import InputError
from mmu.units import nearest, refusal, shown

TOTAL, HYPERVISOR = "total", "hypervisor"

# A level of caches, and what it is called where people read it.
LEVELS = {
    "l1_data": "L1 data",
    "l1_fetch": "L1 fetch",
    "l2": "L2",
    "l2_fetch": "L2 fetch",
    "pde": "PDE cache",
    "pdpte": "PDPTE cache",
    "pml4e": "PML4E cache",
    "nested_tlb": "nested TLB",
}
WALK_CACHES = ("pde", "pdpte", "pml4e")  # in the order in which they are probed

# Every cycle has one cause. A share adds up the causes of one kind.
SHARES = {
    "base": ("base",),
    "translation": (
        "l2", "walk_cache", "nested_tlb", "guest_table", "nested_table", "update", "cr3_load",
    ),
    "faults": ("guest_fault", "nested_fault"),
    "exits": ("exit", "switch", "hypervisor", "shootdown", "invalidation", "migration"),
}  # fmt: skip
CAUSES = tuple(cause for causes in SHARES.values() for cause in causes)
# Not in CAUSES, as nothing ran: cycles before a start, of the machine that started. Only runs in
# which somebody starts late have it.
IDLE = "idle"
COUNTERS = (
    "accesses", "instructions", "data_accesses", "l1_data_misses", "l1_fetch_misses", "l2_lookups",
    "walks", "dirty_walks", "fault_walks", "guest_references", "nested_references",
    "nested_lookups", "updates", "guest_faults", "nested_faults", "exits", "switches", "cr3_loads",
    "entry_hits", "migrations", "shootdowns", "shootdown_targets", "invalidations",
)  # fmt: skip
# Why a page that was walked for was in no TLB, and what that is called where people read it.
MISSES = {
    "first_touch": "first touch",
    "capacity": "capacity",
    "conflict": "conflict",
    "other_vm": "evicted by another VM",
    "flush": "lost to a flush or purge",
    "invalidation": "lost to an invalidation",
}
# Where a table read was served, if the processor's data caches are modelled.
SERVED = {"l1d": "L1D", "l2": "L2", "l3": "L3", "memory": "memory"}
DIMENSIONS = ("guest", "nested")
PERCENTILES = (50, 90, 99)  # of walk latency


class Figures:
    """What can be worked out from a result; the fields are those of `mmu.result.Result`."""

    mode: str
    config: dict[str, Any]
    vms: list[str]
    counters: dict[str, list[int]]
    hits: dict[str, list[int]]
    cycles: dict[str, list[int]]
    references: list[dict[int, int]]
    reads: dict[str, list[int]]
    misses: dict[str, list[int]]
    walk_latency: list[dict[int, int]]

    @property
    def rows(self) -> list[str]:
        """Names of counter rows: the virtual machines, then ``"hypervisor for NAME"`` for each."""
        return [*self.vms, *(f"{HYPERVISOR} for {vm}" for vm in self.vms)]

    def count(self, event: str, of: str = TOTAL) -> int:
        """Return how often an event happened, a cache of `hits` was hit, or one of `reads` was made."""
        if event == "fetches":
            return self.count("accesses", of) - self.count("data_accesses", of)
        source = self.counters if event in self.counters else {**self.hits, **self.reads}
        if event not in source:
            known = ["fetches", *self.counters, *self.hits, *self.reads]
            accepted = f"{', '.join(known)}{nearest(event, known)}"
            raise InputError(f"no event {shown(event)}; accepted: {accepted}")
        return sum(source[event][row] for row in self._rows(of))

    def lookups(self, level: str, of: str = TOTAL) -> int:
        """Return how often a level of `LEVELS` was asked; 0 if the processor has not got it."""
        if level == "l1_data":
            return self.count("data_accesses", of)
        if level == "l1_fetch":
            return self.count("fetches", of)
        if not self._caches(level):
            return 0
        if level == "l2_fetch":
            return self.count("l1_fetch_misses", of)
        if level == "l2":  # attempts that ended in a fault are made again, and count then
            fetches = 0 if self._fetches_apart() else self.count("l1_fetch_misses", of)
            return self.count("l1_data_misses", of) + fetches
        if level == "nested_tlb":
            return self.count("nested_lookups", of)
        before = WALK_CACHES[: WALK_CACHES.index(level)]
        return self.walks_begun(of) - sum(self.level_hits(cache, of) for cache in before)

    def level_hits(self, level: str, of: str = TOTAL) -> int:
        """Return how many look-ups a level of `LEVELS` answered."""
        if level in ("l1_data", "l1_fetch"):
            return self.lookups(level, of) - self.count(f"{level}_misses", of)
        return sum(self.count(cache, of) for cache in self._caches(level))

    def walks_begun(self, of: str = TOTAL) -> int:
        """Return the walks begun, those that ended in a fault included."""
        return sum(self.count(event, of) for event in ("walks", "dirty_walks", "fault_walks"))

    def hit_rate(self, level: str, of: str = TOTAL) -> float | None:
        """Return the local hit rate of a level of `LEVELS`: hits / its own look-ups."""
        return _ratio(self.level_hits(level, of), self.lookups(level, of))

    def misses_per_thousand(self, level: str, of: str = TOTAL) -> float | None:
        """Return a level's misses per 1,000 instructions; None if the processor has not got it."""
        if level not in ("l1_data", "l1_fetch") and not self._caches(level):
            return None
        return self._per_thousand(self.lookups(level, of) - self.level_hits(level, of), of)

    def walks_per_thousand(self, of: str = TOTAL) -> float | None:
        """Return completed walks after a miss of every TLB, per 1,000 instructions."""
        return self._per_thousand(self.count("walks", of), of)

    def dirty_walks_per_thousand(self, of: str = TOTAL) -> float | None:
        """Return walks for a dirty bit alone, of pages the TLB had, per 1,000 instructions."""
        return self._per_thousand(self.count("dirty_walks", of), of)

    def hypervisor_walks_per_thousand(self, of: str = TOTAL) -> float | None:
        """Return the hypervisor's completed walks at a machine's exits, per 1,000 instructions."""
        vms = len(self.vms)
        walks = sum(
            self.counters[event][row + vms]
            for event in ("walks", "dirty_walks")
            for row in self._rows(of)
            if row < vms
        )
        return self._per_thousand(walks, of)

    def references_per_walk(self, of: str = TOTAL) -> float | None:
        """Return the mean number of table reads of a completed walk."""
        return _mean(_merged([self.references[row] for row in self._rows(of)]))

    def misses_by(self, cause: str, of: str = TOTAL) -> int | None:
        """Return the walks that followed a miss of one cause of `MISSES`; None if that was not told."""
        _check(cause, "cause of misses", MISSES)
        if cause not in self.misses:
            return None
        return sum(self.misses[cause][row] for row in self._rows(of))

    def miss_share(self, cause: str, of: str = TOTAL) -> float | None:
        """Return the part of the misses of every TLB that had one cause of `MISSES`."""
        part = self.misses_by(cause, of)
        whole = sum(column[row] for column in self.misses.values() for row in self._rows(of))
        return None if part is None else _ratio(part, whole)

    def misses_by_per_thousand(self, cause: str, of: str = TOTAL) -> float | None:
        """Return the misses of every TLB of one cause of `MISSES`, per 1,000 instructions."""
        part = self.misses_by(cause, of)
        return None if part is None else self._per_thousand(part, of)

    def reads_served(self, level: str, of: str = TOTAL) -> float | None:
        """Return the part of all table reads that a level of `SERVED` answered.

        None if reads have one fixed latency, or if the processor has no such level.
        """
        _check(level, "level that serves reads", SERVED)
        served = [f"{dimension}.{level}" for dimension in DIMENSIONS]
        if not any(name in self.reads for name in served):
            return None
        rows = self._rows(of)
        part = sum(self.reads[name][row] for name in served if name in self.reads for row in rows)
        return _ratio(part, sum(column[row] for column in self.reads.values() for row in rows))

    def walk_latency_percentile(self, percent: float, of: str = TOTAL) -> int | None:
        """Return the cycles that so many per cent of the completed walks do not exceed.

        From 512 cycles on it is the lowest latency of its bucket, at most 1/64 too low.

        Raises
        ------
        InputError
            `percent` is no number above 0 and up to 100.
        """
        if (
            isinstance(percent, bool)
            or not isinstance(percent, int | float)
            or not 0 < percent <= 100
        ):
            raise refusal(percent, "a number above 0 and up to 100")
        walks = _merged([self.walk_latency[row] for row in self._rows(of)])
        whole, seen = sum(walks.values()), 0
        for latency, n in sorted(walks.items()):
            seen += n
            if 100 * seen >= percent * whole:
                return latency
        return None

    def walk_latency_mean(self, of: str = TOTAL) -> float | None:
        """Return the mean cycles of a completed walk, of buckets their lowest latency."""
        return _mean(_merged([self.walk_latency[row] for row in self._rows(of)]))

    def cycle_count(self, causes: tuple[str, ...] = CAUSES, of: str = TOTAL) -> int:
        """Return the cycles that some causes took of a virtual machine, or of all."""
        vms = len(self.vms)
        columns = [row for row in self._rows(of) if row < vms]
        return sum(self.cycles[cause][vm] for cause in causes for vm in columns)

    def cycles_per_instruction(
        self, of: str = TOTAL, causes: tuple[str, ...] = CAUSES
    ) -> float | None:
        """Return cycles per instruction, of all causes or of some."""
        return _ratio(self.cycle_count(causes, of), self.count("instructions", of))

    def share(self, kind: str, of: str = TOTAL) -> float | None:
        """Return the part of the cycles that one kind of `SHARES` took."""
        return _ratio(self.cycle_count(SHARES[kind], of), self.cycle_count(of=of))

    def metrics(self, of: str = TOTAL) -> dict[str, float | None]:
        """Return every figure of `METRICS`."""
        return {name: figure(self, of) for name, figure in METRICS.items()}

    def _rows(self, of: str) -> list[int]:
        vms = len(self.vms)
        if of == TOTAL:
            return list(range(vms))
        if of == HYPERVISOR:
            return list(range(vms, 2 * vms))
        if of not in self.rows:
            known = [*self.rows, TOTAL, HYPERVISOR]
            accepted = f"{', '.join(known)}{nearest(of, known)}"
            raise InputError(f"no row {shown(of)}; accepted: {accepted}")
        return [self.rows.index(of)]

    def _caches(self, level: str) -> list[str]:
        """Return the names in `hits` of a level's caches, one for each page size."""
        _check(level, "level", LEVELS)
        if level == "nested_tlb" and self.mode == "native":
            return []
        prefix = level.removesuffix("_tlb")
        return [name for name in self.hits if name == prefix or name.startswith(f"{prefix}.")]

    def _fetches_apart(self) -> bool:
        """Whether fetches do not ask the L2 of loads and stores, but one of their own or none."""
        processor = self.config.get("processor")
        return isinstance(processor, Mapping) and processor.get("l2_fetch") is not None

    def _per_thousand(self, events: int, of: str) -> float | None:
        return _ratio(1000 * events, self.count("instructions", of))


_Figure = Callable[[Figures, str], float | None]


def _hit_rate(level: str) -> _Figure:
    return lambda result, of: result.hit_rate(level, of)


def _misses(level: str) -> _Figure:
    return lambda result, of: result.misses_per_thousand(level, of)


def _share(kind: str) -> _Figure:
    return lambda result, of: result.share(kind, of)


def _miss_share(cause: str) -> _Figure:
    return lambda result, of: result.miss_share(cause, of)


def _served(level: str) -> _Figure:
    return lambda result, of: result.reads_served(level, of)


def _latency(percent: int) -> _Figure:
    return lambda result, of: result.walk_latency_percentile(percent, of)


METRICS: dict[str, _Figure] = {
    **{f"hit_rate.{level}": _hit_rate(level) for level in LEVELS},
    **{f"misses_per_thousand.{level}": _misses(level) for level in LEVELS},
    "walks_per_thousand": Figures.walks_per_thousand,
    "dirty_walks_per_thousand": Figures.dirty_walks_per_thousand,
    "hypervisor_walks_per_thousand": Figures.hypervisor_walks_per_thousand,
    "references_per_walk": Figures.references_per_walk,
    "cycles_per_instruction": Figures.cycles_per_instruction,
    **{f"share.{kind}": _share(kind) for kind in SHARES},
    **{f"miss_share.{cause}": _miss_share(cause) for cause in MISSES},
    **{f"reads_served.{level}": _served(level) for level in SERVED},
    "walk_latency.mean": Figures.walk_latency_mean,
    **{f"walk_latency.p{percent}": _latency(percent) for percent in PERCENTILES},
}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(walks: Mapping[int, int]) -> float | None:
    """Return the mean of a histogram."""
    return _ratio(sum(value * n for value, n in walks.items()), sum(walks.values()))


def _merged(histograms: list[dict[int, int]]) -> dict[int, int]:
    """Return the sum of histograms."""
    merged: dict[int, int] = {}
    for histogram in histograms:
        for value, n in histogram.items():
            merged[value] = merged.get(value, 0) + n
    return merged


def _check(name: str, what: str, known: Mapping[str, str]) -> None:
    """Refuse a word that is none of those known."""
    if name not in known:
        accepted = f"{', '.join(known)}{nearest(name, known)}"
        raise InputError(f"no {what} {shown(name)}; accepted: {accepted}")
