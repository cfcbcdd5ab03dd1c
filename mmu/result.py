"""What a run counted, and the figures that follow from it. Saves as JSON, loads again.

A result has a row of counters for each virtual machine's own accesses, and after those a row for
each of what the hypervisor touched at that machine's exits. Figures are asked for *of* a row's
name, of ``"total"`` (all virtual machines, without the hypervisor's rows) or of ``"hypervisor"``
(all of its rows). A figure whose divisor is zero is None.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmu.errors import InputError
from mmu.files import (
    Table,
    is_count,
    is_histogram,
    is_list,
    is_table,
    json_text,
    read_json,
    write_whole,
)  # fmt: skip
from mmu.tabular import Tabular
from mmu.units import nearest, shown

if TYPE_CHECKING:
    pass

VERSION = 1
RESULT_FORMAT, COMPARISON_FORMAT = "mmu-result", "mmu-comparison"
TOTAL, HYPERVISOR = "total", "hypervisor"

# A level of caches, and what it is called where people read it.
LEVELS = {
    "l1_data": "L1 data",
    "l1_fetch": "L1 fetch",
    "l2": "L2",
    "pde": "PDE cache",
    "pdpte": "PDPTE cache",
    "pml4e": "PML4E cache",
    "nested_tlb": "nested TLB",
}
WALK_CACHES = ("pde", "pdpte", "pml4e")  # in the order in which they are probed

# Every cycle has one cause. A share adds up the causes of one kind.
SHARES = {
    "base": ("base",),
    "translation": ("l2", "walk_cache", "nested_tlb", "guest_table", "nested_table", "update"),
    "faults": ("guest_fault", "nested_fault"),
    "exits": ("exit", "switch", "hypervisor"),
}
CAUSES = tuple(cause for causes in SHARES.values() for cause in causes)
# Not in CAUSES, as nothing ran: cycles before a start, of the machine that started. Only runs in
# which somebody starts late have it.
IDLE = "idle"
COUNTERS = (
    "accesses", "instructions", "data_accesses", "l1_data_misses", "l1_fetch_misses", "l2_lookups",
    "walks", "dirty_walks", "fault_walks", "guest_references", "nested_references",
    "nested_lookups", "updates", "guest_faults", "nested_faults", "exits", "switches",
)  # fmt: skip


@dataclass(frozen=True)
class Result(Tabular):
    """All that one run in one mode counted.

    Attributes
    ----------
    mode : str
        ``tagged``, ``purge``, ``flush`` or ``native``.
    config : dict
        The expanded configuration, as plain values.
    seeds, versions : dict
        Seeds of everything random; versions of the program and of what it computes with.
    vms : list of str
        Names of the virtual machines.
    counters : dict of list of int
        Count of each event of `COUNTERS`, per row.
    hits : dict of list of int
        Hits of each cache below the L1s, per row: ``l2.4k``, ``nested.2m``, ``pde``, ... A cache
        that the processor has not got is not in it.
    cycles : dict of list of int
        Cycles of each cause of `CAUSES`, per virtual machine; and ``idle`` where one starts late,
        cycles without anybody to run before that machine started.
    clock : int
        Cycles from the end of the warm-up to the end of the run: the sum of `cycles`.
    references : list of dict
        Per row, completed walks by the number of table reads that they made.
    evictions : list of list of int
        Live L2 entries that the first dropped of the second: virtual machines, then the hypervisor.
    series : dict
        ``clock`` per sample; ``accesses``, ``walks`` and ``cycles`` by virtual machine per sample.
    memory : dict of list of int
        What is mapped at the end, per virtual machine and for the hypervisor (last).
    wall_seconds : float
        How long the emulation took.
    version : int
        Version of this layout.
    """

    mode: str
    config: dict[str, Any]
    seeds: dict[str, Any]
    versions: dict[str, str]
    vms: list[str]
    counters: dict[str, list[int]]
    hits: dict[str, list[int]]
    cycles: dict[str, list[int]]
    clock: int
    references: list[dict[int, int]]
    evictions: list[list[int]]
    series: dict[str, Any]
    memory: dict[str, list[int]]
    wall_seconds: float = field(default=0.0, compare=False)
    version: int = VERSION

    @property
    def rows(self) -> list[str]:
        """Names of counter rows: the virtual machines, then ``"hypervisor for NAME"`` for each."""
        return [*self.vms, *(f"{HYPERVISOR} for {vm}" for vm in self.vms)]

    def count(self, event: str, of: str = TOTAL) -> int:
        """Return how often an event happened, or how often one cache of `hits` was hit."""
        if event == "fetches":
            return self.count("accesses", of) - self.count("data_accesses", of)
        source = self.counters if event in self.counters else self.hits
        if event not in source:
            known = ["fetches", *self.counters, *self.hits]
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
        if level == "l2":  # attempts that ended in a fault are made again, and count then
            return self.count("l1_data_misses", of) + self.count("l1_fetch_misses", of)
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
        walks = [item for row in self._rows(of) for item in self.references[row].items()]
        return _ratio(sum(reads * n for reads, n in walks), sum(n for _, n in walks))

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

    def tables(self) -> dict[str, Table]:
        """Return all counts and figures as named tables, one row per virtual machine or row."""
        owners = [*self.vms, HYPERVISOR]
        subjects = [*self.vms, TOTAL]
        series = [
            [sample, clock, vm, *(self.series[key][vm][sample] for key in _SERIES)]
            for sample, clock in enumerate(self.series.get("clock", []))
            for vm in self.vms
        ]
        walks = [
            [row, reads, n]
            for row, histogram in zip(self.rows, self.references, strict=True)
            for reads, n in sorted(histogram.items())
        ]
        return {
            "metrics": Table(
                ["vm", *METRICS], [[name, *self.metrics(name).values()] for name in subjects]
            ),
            "counters": _columns("row", self.rows, self.counters),
            "hits": _columns("row", self.rows, self.hits),
            "cycles": _columns("vm", self.vms, self.cycles),
            "references": Table(["row", "references", "walks"], walks),
            "evictions": Table(
                ["by", *owners],
                [[by, *cells] for by, cells in zip(owners, self.evictions, strict=True)],
            ),
            "series": Table(["sample", "clock", "vm", *_SERIES], series),
            "memory": _columns("owner", owners, self.memory),
        }

    def long_rows(self) -> Iterator[list[Any]]:
        """Yield ``[mode, vm, metric, value]`` for each figure, count and cause of cycles."""
        for name in [*self.vms, TOTAL]:
            figures: dict[str, float | None] = dict(self.metrics(name))
            figures |= {event: self.count(event, name) for event in self.counters}
            figures |= {f"hits.{cache}": self.count(cache, name) for cache in self.hits}
            figures |= {f"cycles.{c}": self.cycle_count((c,), name) for c in self.cycles}
            for metric, value in figures.items():
                yield [self.mode, name, metric, value]

    def save(self, path: str | Path) -> None:
        """Write the result as JSON, with its metrics for other readers; all or not at all."""
        write_whole(path, json_text(self._plain()))

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read a result that `save` wrote."""
        return _result(_read(path, RESULT_FORMAT), str(path))

    def _plain(self) -> dict[str, Any]:
        derived = {name: self.metrics(name) for name in [*self.vms, TOTAL]}
        return {"format": RESULT_FORMAT, **asdict(self), "metrics": derived}

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
        if level not in LEVELS:
            known = ", ".join(LEVELS)
            raise InputError(f"no level {shown(level)}; accepted: {known}{nearest(level, LEVELS)}")
        if level == "nested_tlb" and self.mode == "native":
            return []
        prefix = level.removesuffix("_tlb")
        return [name for name in self.hits if name == prefix or name.startswith(f"{prefix}.")]

    def _per_thousand(self, events: int, of: str) -> float | None:
        return _ratio(1000 * events, self.count("instructions", of))


_SERIES = ("accesses", "walks", "cycles")
_Figure = Callable[[Result, str], float | None]


def _hit_rate(level: str) -> _Figure:
    return lambda result, of: result.hit_rate(level, of)


def _misses(level: str) -> _Figure:
    return lambda result, of: result.misses_per_thousand(level, of)


def _share(kind: str) -> _Figure:
    return lambda result, of: result.share(kind, of)


METRICS: dict[str, _Figure] = {
    **{f"hit_rate.{level}": _hit_rate(level) for level in LEVELS},
    **{f"misses_per_thousand.{level}": _misses(level) for level in LEVELS},
    "walks_per_thousand": Result.walks_per_thousand,
    "dirty_walks_per_thousand": Result.dirty_walks_per_thousand,
    "hypervisor_walks_per_thousand": Result.hypervisor_walks_per_thousand,
    "references_per_walk": Result.references_per_walk,
    "cycles_per_instruction": Result.cycles_per_instruction,
    **{f"share.{kind}": _share(kind) for kind in SHARES},
}


@dataclass(frozen=True)
class Comparison(Tabular):
    """The same run in several modes, in the order in which they were asked for."""

    results: dict[str, Result]

    @property
    def vms(self) -> list[str]:
        """Names of the virtual machines."""
        return next(iter(self.results.values())).vms

    def __getitem__(self, mode: str) -> Result:
        """Return the result of a mode."""
        return self.results[mode]

    def tables(self) -> dict[str, Table]:
        """Return the tables of every mode under each other, with the mode in the first column."""
        merged: dict[str, Table] = {}
        for mode, result in self.results.items():
            for name, table in result.tables().items():
                known = merged.setdefault(name, Table(["mode"], []))
                known.columns.extend(c for c in table.columns if c not in known.columns)
                for row in table.rows:
                    cells = dict(zip(table.columns, row, strict=True)) | {"mode": mode}
                    known.rows.append([cells.get(column) for column in known.columns])
        for table in merged.values():  # a mode without some cache has shorter rows
            for row in table.rows:
                row.extend([None] * (len(table.columns) - len(row)))
        return merged

    def long_rows(self) -> Iterator[list[Any]]:
        """Yield ``[mode, vm, metric, value]`` for each mode."""
        for result in self.results.values():
            yield from result.long_rows()

    def save(self, path: str | Path) -> None:
        """Write the comparison as JSON; all or not at all."""
        plain = {mode: result._plain() for mode, result in self.results.items()}
        document = {"format": COMPARISON_FORMAT, "version": VERSION, "results": plain}
        write_whole(path, json_text(document))

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Read a comparison that `save` wrote."""
        return _comparison(_read(path, COMPARISON_FORMAT), str(path))


def load(path: str | Path) -> Result | Comparison:
    """Read a result or a comparison, whichever the file holds."""
    document = _read(path, None)
    found = document["format"]
    return (_result if found == RESULT_FORMAT else _comparison)(document, str(path))


def long_table(run: Result | Comparison) -> Table:
    """Return every figure as one long table: mode, vm, metric, value."""
    return Table(["mode", "vm", "metric", "value"], list(run.long_rows()))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _columns(first: str, names: list[str], columns: Mapping[str, list[int]]) -> Table:
    rows = [[name, *(values[n] for values in columns.values())] for n, name in enumerate(names)]
    return Table([first, *columns], rows)


def _read(path: str | Path, wanted: str | None) -> dict[str, Any]:
    """Read a file of ours; an error says what it is instead."""
    document = read_json(path)
    found = document.get("format") if isinstance(document, dict) else None
    accepted = [wanted] if wanted else [RESULT_FORMAT, COMPARISON_FORMAT]
    if found not in accepted:
        raise InputError(f"{path}: found format {shown(found)}; accepted: {' | '.join(accepted)}")
    version = document.get("version")
    if not is_count(version) or version > VERSION:
        raise InputError(
            f"{path}: found version {shown(version)}; accepted: up to {VERSION}; "
            "a newer mmu reads newer files"
        )
    return dict(document)


def _comparison(document: dict[str, Any], path: str) -> Comparison:
    results = document.get("results")
    if not isinstance(results, dict) or not results:
        raise InputError(f"{path}: found no results; accepted: at least one mode")
    for mode, fields_ in results.items():
        if not isinstance(fields_, dict):
            raise InputError(f"{path}: results.{mode}: found {shown(fields_)}; accepted: a table")
    loaded = {mode: _result(dict(one), f"{path}: {mode}") for mode, one in results.items()}
    if len({tuple(result.vms) for result in loaded.values()}) > 1:
        raise InputError(f"{path}: found other virtual machines in other modes; accepted: the same")
    return Comparison(loaded)


def _result(document: dict[str, Any], path: str) -> Result:
    """Build a result from plain values after a look at each."""
    known = [f.name for f in fields(Result)]
    given = {key: value for key, value in document.items() if key not in ("format", "metrics")}
    for name in known:
        if name not in given:
            raise InputError(f"{path}: {name}: missing; the file is not a whole result")
    for name in given:
        if name not in known:
            raise InputError(f"{path}: {name}: no such field{nearest(name, known)}")
    names = given["vms"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise InputError(f"{path}: vms: found {shown(names)}; accepted: a list of names")
    vms = len(names)
    judges: dict[str, Callable[[object], bool]] = {
        "mode": lambda mode: isinstance(mode, str),
        "config": lambda config: isinstance(config, dict),
        "seeds": lambda seeds: isinstance(seeds, dict),
        "versions": lambda versions: isinstance(versions, dict),
        "counters": lambda table: is_table(table, 2 * vms, COUNTERS),
        "hits": lambda table: is_table(table, 2 * vms),
        "cycles": lambda table: is_table(table, vms, CAUSES),
        "clock": is_count,
        "references": lambda rows_: is_list(rows_, 2 * vms, is_histogram),
        "evictions": lambda cells: is_list(
            cells, vms + 1, lambda row: is_list(row, vms + 1, is_count)
        ),
        "series": lambda series: _is_series(series, names),
        "memory": lambda table: is_table(table, vms + 1),
        "wall_seconds": lambda seconds: isinstance(seconds, int | float),
        "version": is_count,
    }
    for name, fits in judges.items():
        if not fits(given[name]):
            accepted = f"what mmu writes for {vms} virtual machines"
            raise InputError(f"{path}: {name}: found {shown(given[name])}; accepted: {accepted}")
    histograms = [{int(reads): n for reads, n in row.items()} for row in given["references"]]
    return Result(**{**given, "references": histograms})


def _is_series(value: object, vms: list[str]) -> bool:
    if not isinstance(value, dict) or not value:
        return value == {}
    clock = value.get("clock")
    if set(value) != {"clock", *_SERIES} or not isinstance(clock, list):
        return False
    columns = [value[key] for key in _SERIES]
    if not all(isinstance(column, dict) and set(column) == set(vms) for column in columns):
        return False
    samples = [clock, *(column[vm] for column in columns for vm in vms)]
    return all(is_list(each, len(clock), is_count) for each in samples)
