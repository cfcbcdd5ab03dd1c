"""Results and comparisons from files: looked at field by field, those of older versions as well."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from mmu.errors import InputError
from mmu.figures import CAUSES, COUNTERS, MISSES
from mmu.files import is_count, is_histogram, is_list, is_table, read_json
from mmu.result import SERIES, VERSION, Comparison, Result
from mmu.units import nearest, shown

Plain = dict[str, Any]

# What version 2 added. Nothing of it happened in a run that version 1 has counted, and no cause of
# a miss, no latency of a walk was told.
NEW_COUNTERS = (
    "cr3_loads", "entry_hits", "migrations", "shootdowns", "shootdown_targets", "invalidations",
)  # fmt: skip
NEW_CAUSES = ("cr3_load", "shootdown", "invalidation", "migration")


def read(path: str | Path, *accepted: str, newest: int = VERSION) -> Plain:
    """Return what a file of ours holds, in one of the formats accepted, up to the `newest` version.

    Raises
    ------
    InputError
        The file cannot be read, or is something else; the error says what.
    """
    document = read_json(path)
    found = document.get("format") if isinstance(document, dict) else None
    if found not in accepted:
        raise InputError(f"{path}: found format {shown(found)}; accepted: {' | '.join(accepted)}")
    version = document.get("version")
    if not is_count(version) or not 1 <= version <= newest:
        raise InputError(
            f"{path}: found version {shown(version)}; accepted: up to {newest}; "
            "a newer mmu reads newer files"
        )
    return dict(document)


def comparison_of(document: Plain, path: str) -> Comparison:
    """Build a comparison from plain values after a look at each."""
    results = document.get("results")
    if not isinstance(results, dict) or not results:
        raise InputError(f"{path}: found no results; accepted: at least one mode")
    for mode, fields_ in results.items():
        if not isinstance(fields_, dict):
            raise InputError(f"{path}: results.{mode}: found {shown(fields_)}; accepted: a table")
    loaded = {mode: result_of(dict(one), f"{path}: {mode}") for mode, one in results.items()}
    if len({tuple(result.vms) for result in loaded.values()}) > 1:
        raise InputError(f"{path}: found other virtual machines in other modes; accepted: the same")
    return Comparison(loaded)


def result_of(document: Plain, path: str) -> Result:
    """Build a result from plain values after a look at each."""
    known = [f.name for f in fields(Result)]
    given = {key: value for key, value in document.items() if key not in ("format", "metrics")}
    if given.get("version") == 1:
        given = _as_version_2(given)
    for name in known:
        if name not in given:
            raise InputError(f"{path}: {name}: missing; the file is not a whole result")
    for name in given:
        if name not in known:
            raise InputError(f"{path}: {name}: no such field{nearest(name, known)}")
    names = given["vms"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise InputError(f"{path}: vms: found {shown(names)}; accepted: a list of names")
    for name, fits in _judges(names, given).items():
        if not fits(given[name]):
            accepted = f"what mmu writes for {len(names)} virtual machines"
            raise InputError(f"{path}: {name}: found {shown(given[name])}; accepted: {accepted}")
    for name in ("references", "walk_latency"):
        given[name] = [{int(value): n for value, n in row.items()} for row in given[name]]
    return Result(**given)


def _as_version_2(given: Plain) -> Plain:
    """Return a result of version 1 with what version 2 added, where it is well-formed so far."""
    vms = given.get("vms")
    count = len(vms) if isinstance(vms, list) else 0
    made = {**given, "version": VERSION}
    for name, new, rows in (("counters", NEW_COUNTERS, 2 * count), ("cycles", NEW_CAUSES, count)):
        if isinstance(made.get(name), dict):
            made[name] = {**dict.fromkeys(new, [0] * rows), **made[name]}
    made |= {"reads": {}, "misses": {}, "walk_latency": [{} for _ in range(2 * count)]}
    if "clock" in made and "cycles" in made:
        made |= {"clocks": [made["clock"]], "processors": [made["cycles"]]}
    return made


def _judges(vms: list[str], given: Plain) -> dict[str, Callable[[Any], bool]]:
    """Return what tells of each field whether it fits so many virtual machines."""
    count = len(vms)
    lps = len(given["clocks"]) if isinstance(given["clocks"], list) else 0

    def is_cycles(table: object) -> bool:
        return is_table(table, count, CAUSES)

    def is_part(table: object) -> bool:
        return is_cycles(table) and set(table) == set(given["cycles"])  # type: ignore[call-overload]

    def is_misses(table: object) -> bool:
        return is_table(table, 2 * count) and set(table) <= set(MISSES)  # type: ignore[call-overload]

    return {
        "mode": lambda mode: isinstance(mode, str),
        "config": lambda config: isinstance(config, dict),
        "seeds": lambda seeds: isinstance(seeds, dict),
        "versions": lambda versions: isinstance(versions, dict),
        "counters": lambda table: is_table(table, 2 * count, COUNTERS),
        "hits": lambda table: is_table(table, 2 * count),
        "cycles": is_cycles,
        "clock": is_count,
        "references": lambda rows: is_list(rows, 2 * count, is_histogram),
        "evictions": lambda cells: is_list(
            cells, count + 1, lambda row: is_list(row, count + 1, is_count)
        ),
        "series": lambda series: _is_series(series, vms),
        "memory": lambda table: is_table(table, count + 1),
        "clocks": lambda cycles: lps > 0 and is_list(cycles, lps, is_count),
        "processors": lambda tables: is_list(tables, lps, is_part),
        "reads": lambda table: is_table(table, 2 * count),
        "misses": is_misses,
        "walk_latency": lambda rows: is_list(rows, 2 * count, is_histogram),
        "wall_seconds": lambda seconds: isinstance(seconds, int | float),
        "version": is_count,
    }


def _is_series(value: object, vms: list[str]) -> bool:
    if not isinstance(value, dict) or not value:
        return value == {}
    clock = value.get("clock")
    if set(value) != {"clock", *SERIES} or not isinstance(clock, list):
        return False
    columns = [value[key] for key in SERIES]
    if not all(isinstance(column, dict) and set(column) == set(vms) for column in columns):
        return False
    samples = [clock, *(column[vm] for column in columns for vm in vms)]
    return all(is_list(each, len(clock), is_count) for each in samples)
