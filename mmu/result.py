"""What a run counted, as a record that is written as JSON and as tables.

`mmu.figures` tells what rows there are and what follows from them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmu.figures import HYPERVISOR, METRICS, TOTAL, Figures
from mmu.files import Table, json_text, write_whole
from mmu.tabular import Tabular

VERSION = 2
RESULT_FORMAT, COMPARISON_FORMAT = "mmu-result", "mmu-comparison"
SERIES = ("accesses", "walks", "cycles")


@dataclass(frozen=True)
class Result(Figures, Tabular):
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
        Cycles of each cause of `CAUSES`, per virtual machine, over all logical processors; and
        ``idle`` where some had nobody to run, cycles before that machine ran.
    clock : int
        The longest of `clocks`.
    references : list of dict
        Per row, completed walks by the number of table reads that they made.
    evictions : list of list of int
        Live L2 entries that the first dropped of the second: virtual machines, then the hypervisor.
    series : dict
        ``clock`` per sample; ``accesses``, ``walks`` and ``cycles`` by virtual machine per sample.
    memory : dict of list of int
        What is mapped at the end, per virtual machine and for the hypervisor (last).
    clocks : list of int
        Per logical processor, cycles from the end of the warm-up to its last: the sum of its
        `processors`.
    processors : list of dict
        Per logical processor, its part of `cycles`.
    reads : dict of list of int
        Table reads by the dimension of the table and by where they were served, per row:
        ``guest.l1d``, ``nested.memory``, ...; empty if each has one fixed latency.
    misses : dict of list of int
        Walks after a miss of every TLB by its cause, one of `MISSES`, per row; ``conflict`` only if
        conflicts were told from capacity misses. Empty if no cause was told.
    walk_latency : list of dict
        Per row, completed walks by cycles that they took: exactly below 512, above by the lowest
        latency of one of 64 buckets to each power of two.
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
    clocks: list[int]
    processors: list[dict[str, list[int]]]
    reads: dict[str, list[int]]
    misses: dict[str, list[int]]
    walk_latency: list[dict[int, int]]
    wall_seconds: float = field(default=0.0, compare=False)
    version: int = VERSION

    def tables(self) -> dict[str, Table]:
        """Return all counts and figures as named tables, one row per virtual machine or row."""
        owners = [*self.vms, HYPERVISOR]
        subjects = [*self.vms, TOTAL]
        series = [
            [sample, clock, vm, *(self.series[key][vm][sample] for key in SERIES)]
            for sample, clock in enumerate(self.series.get("clock", []))
            for vm in self.vms
        ]
        clocks = [[lp, clock] for lp, clock in enumerate(self.clocks)]
        of_lps = [
            [lp, vm, *(table[cause][n] for cause in self.cycles)]
            for lp, table in enumerate(self.processors)
            for n, vm in enumerate(self.vms)
        ]
        return {
            "metrics": Table(
                ["vm", *METRICS], [[name, *self.metrics(name).values()] for name in subjects]
            ),
            "counters": _columns("row", self.rows, self.counters),
            "hits": _columns("row", self.rows, self.hits),
            "cycles": _columns("vm", self.vms, self.cycles),
            "clocks": Table(["lp", "clock"], clocks),
            "processors": Table(["lp", "vm", *self.cycles], of_lps),
            "references": _histogram("references", self.rows, self.references),
            "reads": _columns("row", self.rows, self.reads),
            "misses": _columns("row", self.rows, self.misses),
            "walk_latency": _histogram("latency", self.rows, self.walk_latency),
            "evictions": Table(
                ["by", *owners],
                [[by, *cells] for by, cells in zip(owners, self.evictions, strict=True)],
            ),
            "series": Table(["sample", "clock", "vm", *SERIES], series),
            "memory": _columns("owner", owners, self.memory),
        }

    def long_rows(self) -> Iterator[list[Any]]:
        """Yield ``[mode, vm, metric, value]`` for each figure, count and cause of cycles."""
        for name in [*self.vms, TOTAL]:
            figures: dict[str, float | None] = dict(self.metrics(name))
            figures |= {event: self.count(event, name) for event in self.counters}
            figures |= {f"hits.{cache}": self.count(cache, name) for cache in self.hits}
            figures |= {f"reads.{where}": self.count(where, name) for where in self.reads}
            figures |= {f"misses.{cause}": self.misses_by(cause, name) for cause in self.misses}
            figures |= {f"cycles.{c}": self.cycle_count((c,), name) for c in self.cycles}
            for metric, value in figures.items():
                yield [self.mode, name, metric, value]

    def save(self, path: str | Path) -> None:
        """Write the result as JSON, with its metrics for other readers; all or not at all."""
        write_whole(path, json_text(self.plain()))

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read a result that `save` wrote."""
        from mmu.resultfile import read, result_of  # noqa: PLC0415  which builds results

        return result_of(read(path, RESULT_FORMAT), str(path))

    def plain(self) -> dict[str, Any]:
        """Return the result as plain values, with its metrics."""
        derived = {name: self.metrics(name) for name in [*self.vms, TOTAL]}
        return {"format": RESULT_FORMAT, **asdict(self), "metrics": derived}


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
        plain = {mode: result.plain() for mode, result in self.results.items()}
        document = {"format": COMPARISON_FORMAT, "version": VERSION, "results": plain}
        write_whole(path, json_text(document))

    @classmethod
    def load(cls, path: str | Path) -> "Comparison":
        """Read a comparison that `save` wrote."""
        from mmu.resultfile import comparison_of, read  # noqa: PLC0415

        return comparison_of(read(path, COMPARISON_FORMAT), str(path))


def load(path: str | Path) -> Result | Comparison:
    """Read a result or a comparison, whichever the file holds."""
    from mmu.resultfile import comparison_of, read, result_of  # noqa: PLC0415

    document = read(path, RESULT_FORMAT, COMPARISON_FORMAT)
    made = result_of if document["format"] == RESULT_FORMAT else comparison_of
    return made(document, str(path))


def long_table(run: Result | Comparison) -> Table:
    """Return every figure as one long table: mode, vm, metric, value."""
    return Table(["mode", "vm", "metric", "value"], list(run.long_rows()))


def _columns(first: str, names: list[str], columns: Mapping[str, list[int]]) -> Table:
    rows = [[name, *(values[n] for values in columns.values())] for n, name in enumerate(names)]
    return Table([first, *columns], rows)


def _histogram(of: str, names: list[str], histograms: list[dict[int, int]]) -> Table:
    rows = [
        [name, value, n]
        for name, histogram in zip(names, histograms, strict=True)
        for value, n in sorted(histogram.items())
    ]
    return Table(["row", of, "walks"], rows)
