"""What is in a trace as tables: pure functions of what `mmu.trace.info` returns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmu.files import Table

NONE = "-"
MIB = 1 << 20
COUNTS = (
    "layout", "accesses", "fetches", "reads", "writes", "records", "fold", "folded", "blocks",
    "spaces", "threads", "file_bytes",
)  # fmt: skip
MOST_STREAMS = 20  # shown one by one
MOST_TEXT = 300  # of one value


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return a trace's tables as lines of text."""
    pairs = [(name, value_of(name, found[name])) for name in COUNTS]
    for size, row in (found["footprint"] or {}).items():
        text = f"{row['pages']:,} pages, {row['bytes'] / MIB:,.1f} MiB"
        pairs.append((f"touched, {size} pages", text))
    for name, known in found["accesses_by"].items():
        if known is not None and 1 < len(known) <= MOST_STREAMS:
            pairs += [(f"accesses, {name} {n}", f"{count:,}") for n, count in known.items()]
    pairs += [(f"recording.{key}", text) for key, text in flat(found["recording"])]
    width = max(len(name) for name, _ in pairs)
    shown = [f"{name:{width}}  {text}".rstrip() for name, text in pairs]
    if found["reuse"] is None:
        return [*shown, "", "Too many pages to measure distances and working sets."]
    return [*shown, "", *working_set_lines(found), "", *reuse_lines(found)]


def value_of(name: str, value: Any) -> str:
    """Return a count, share or word as text."""
    if value is None:
        return NONE
    if name == "folded":
        return f"{100 * value:.2f} % of accesses are, or could be"
    return f"{value:,.2f}" if isinstance(value, float) else grouped(value)


def grouped(value: Any) -> str:
    """Return a number with commas, anything else as it is."""
    return f"{value:,}" if type(value) is int else " ".join(str(value).split())


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys of nested tables, joined by dots, and their values as text."""
    for key, value in table.items():
        if isinstance(value, Mapping) and len(value) > MOST_STREAMS:
            yield prefix + key, f"{len(value):,} of them; --json has all"
        elif isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            text = grouped(value)
            yield prefix + key, text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def working_set_lines(found: Mapping[str, Any]) -> list[str]:
    """Return least, median and most pages touched in a window."""
    series = found["working_set"]
    windows = len(series["accesses"])
    title = f"pages touched in {windows:,} windows" if windows > 1 else "pages touched"
    rows = []
    for label, name in (("4k", "pages"), ("2m", "large_pages")):
        ordered = sorted(series[name])
        rows.append((label, [f"{ordered[place]:,}" for place in (0, windows // 2, -1)]))
    return table_lines(title, ["least", "median", "most"], rows)


def reuse_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the histogram of reuse distances, and what follows from it, by side."""
    sides = list(found["reuse"])
    histograms = {side: dict(found["reuse"][side]["distance"]) for side in sides}
    rows = []
    for least in sorted({least for histogram in histograms.values() for least in histogram}):
        label = str(least) if least < 2 else f"{least:,} to {2 * least - 1:,}"
        rows.append((label, [f"{histograms[side].get(least, 0):,}" for side in sides]))
    rows.append(("first access to the page", [f"{found['reuse'][s]['cold']:,}" for s in sides]))
    for entries in found["reuse"][sides[0]]["hit_rate"]:
        rates = [found["reuse"][side]["hit_rate"][entries] for side in sides]
        cells = [NONE if rate is None else f"{100 * rate:.3f} %" for rate in rates]
        rows.append((f"hit rate, LRU of {int(entries):,} entries", cells))
    return table_lines("distance in 4k pages", sides, rows)


def table_lines(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> list[str]:
    """Return a table as lines."""
    label = max(len(title), *(len(name) for name, _ in rows))
    widths = [
        2 + max(len(column), *(len(cells[n]) for _, cells in rows))
        for n, column in enumerate(columns)
    ]

    def line(name: str, cells: Sequence[str]) -> str:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{name:{label}}{''.join(aligned)}".rstrip()

    return [line(title, columns), "-" * (label + sum(widths)), *(line(*row) for row in rows)]


def long_table(found: Mapping[str, Any]) -> Table:
    """Return all numbers in rows of what, of, at, value; what is not of a side or place is empty.

    ``at`` is the window's end in accesses, the least distance, the entries, or the percentile.
    """
    rows: list[list[Any]] = [[name, None, None, found[name]] for name in COUNTS]
    for size, row in (found["footprint"] or {}).items():
        rows += [[f"footprint.{name}", size, None, value] for name, value in row.items()]
    for name, known in found["accesses_by"].items():
        rows += [[f"accesses_by.{name}", n, None, count] for n, count in (known or {}).items()]
    series = found["working_set"] or {"accesses": []}
    for name, values in series.items():
        if name != "accesses":
            pairs = zip(series["accesses"], values, strict=True)
            rows += [[f"working_set.{name}", None, end, value] for end, value in pairs]
    for side, measured in (found["reuse"] or {}).items():
        rows += [[f"reuse.{name}", side, None, measured[name]] for name in ("accesses", "cold")]
        rows += [["reuse.distance", side, least, count] for least, count in measured["distance"]]
        for name in ("percentiles", "hit_rate"):
            rows += [[f"reuse.{name}", side, at, value] for at, value in measured[name].items()]
    return Table(["what", "of", "at", "value"], rows)
