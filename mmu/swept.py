"""What a run counted for each of several values of one option. Saves as JSON, loads again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmu.errors import InputError
from mmu.figures import METRICS, TOTAL
from mmu.files import Table, json_text, write_whole
from mmu.result import Comparison, Result
from mmu.tabular import Tabular
from mmu.units import nearest, shown
from mmu.values import quantity

VERSION = 1
SWEEP_FORMAT = "mmu-sweep"


@dataclass(frozen=True)
class Sweep(Tabular):
    """The same run in the same modes, for each of several values of one option.

    Attributes
    ----------
    name : str
        The option by its name on the command line, or a path as in ``--set``.
    values : list of str
        Its values, in the order in which they were asked for.
    comparisons : list of Comparison
        What was counted with each.
    """

    name: str
    values: list[str]
    comparisons: list[Comparison]

    @property
    def modes(self) -> list[str]:
        """The modes of each comparison."""
        return list(self.comparisons[0].results)

    @property
    def vms(self) -> list[str]:
        """Names of the virtual machines."""
        return self.comparisons[0].vms

    @property
    def numbers(self) -> list[float]:
        """The values as numbers: of seconds, of bytes, or of what they count."""
        return [float(quantity(value)[0]) for value in self.values]

    def __getitem__(self, value: str) -> Comparison:
        """Return the comparison of a value."""
        if value not in self.values:
            accepted = f"{', '.join(self.values)}{nearest(value, self.values)}"
            raise InputError(f"no value {shown(value)} of {self.name}; accepted: {accepted}")
        return self.comparisons[self.values.index(value)]

    def figures(self, metric: str, mode: str, of: str = TOTAL) -> list[float | None]:
        """Return one of `METRICS` for each value, in one mode."""
        for what, name, known in (("metric", metric, METRICS), ("mode", mode, self.modes)):
            if name not in known:
                accepted = f"{', '.join(known)}{nearest(name, known)}"
                raise InputError(f"no {what} {shown(name)}; accepted: {accepted}")
        return [METRICS[metric](each[mode], of) for each in self.comparisons]

    def tables(self) -> dict[str, Table]:
        """Return the tables of every value under each other, with the value in the first column."""
        merged: dict[str, Table] = {}
        for value, comparison in zip(self.values, self.comparisons, strict=True):
            for name, table in comparison.tables().items():
                known = merged.setdefault(name, Table([self.name], []))
                known.columns.extend(c for c in table.columns if c not in known.columns)
                for row in table.rows:
                    cells = dict(zip(table.columns, row, strict=True)) | {self.name: value}
                    known.rows.append([cells.get(column) for column in known.columns])
        for table in merged.values():  # with other values there may be more columns
            for row in table.rows:
                row.extend([None] * (len(table.columns) - len(row)))
        return merged

    def long_rows(self) -> Iterator[list[Any]]:
        """Yield ``[value, mode, vm, metric, value of it]`` for each value."""
        for value, comparison in zip(self.values, self.comparisons, strict=True):
            for row in comparison.long_rows():
                yield [value, *row]

    def long_table(self) -> Table:
        """Return every figure as one long table: the varied value, mode, vm, metric, value."""
        return Table([self.name, "mode", "vm", "metric", "value"], list(self.long_rows()))

    def save(self, path: str | Path) -> None:
        """Write the sweep as JSON, every result whole; all or not at all."""
        results = [
            {mode: result.plain() for mode, result in comparison.results.items()}
            for comparison in self.comparisons
        ]
        document = {"format": SWEEP_FORMAT, "version": VERSION, "name": self.name}
        write_whole(path, json_text({**document, "values": self.values, "results": results}))

    @classmethod
    def load(cls, path: str | Path) -> "Sweep":
        """Read a sweep that `save` wrote.

        Raises
        ------
        InputError
            The file cannot be read, or is no sweep.
        """
        from mmu.resultfile import comparison_of, read  # noqa: PLC0415  which builds results

        document = read(path, SWEEP_FORMAT, newest=VERSION)
        name, values, results = (document.get(key) for key in ("name", "values", "results"))
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: name: found {shown(name)}; accepted: what was varied")
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}: values: found {shown(values)}; accepted: a list of them")
        for value in values:
            try:
                quantity(value if isinstance(value, str) else "")
            except InputError as error:
                raise InputError(f"{path}: values: {error}") from None
        if not isinstance(results, list) or len(results) != len(values):
            raise InputError(
                f"{path}: results: accepted: a list of {len(values)}, one of each value"
            )
        loaded = [
            comparison_of({"results": one}, f"{path}: {name}={value}")
            for value, one in zip(values, results, strict=True)
        ]
        if len({(tuple(each.results), tuple(each.vms)) for each in loaded}) > 1:
            raise InputError(f"{path}: found other modes or machines with other values")
        return cls(name, values, loaded)


def first_result(sweep: Sweep) -> Result:
    """Return the result of the first value in the first mode: what all have in common is in it."""
    return next(iter(sweep.comparisons[0].results.values()))


def on_several_processors(sweep: Sweep) -> bool:
    """Tell whether some run had several logical processors, so that figures do not tell its length."""
    return any(len(run.clocks) > 1 for each in sweep.comparisons for run in each.results.values())
