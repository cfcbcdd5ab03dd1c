"""Draws who ran when: slices as lines of text, and as a figure."""

import io
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mmu.files import check_figure, write_whole
from mmu.slices import Slice, Slices

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 100
LEAST_CELLS = 20  # of the drawing, however narrow the terminal is
LONGEST_NAME, SHORTEST_NAME = 28, 16
TABLE = 62  # columns of the table beside the names
NOBODY = "(idle)"
# How much of a cell's time a row ran: from nothing to all of it.
SHADES, ASCII_SHADES = " ░▒▓█", " .:=#"
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
# The Okabe-Ito palette without black, as in `mmu.plot`.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
Row = tuple[str, str, int]  # a machine, a process in it, and the logical processor or ANY_LP
ANY_LP = -1  # where there is but one


def lines(slices: Slices, width: int = WIDTH, unicode: bool = True) -> list[str]:
    """Return the drawing as text: a row for each who ran, an axis, and what each did.

    Parameters
    ----------
    slices : Slices
        Who ran when.
    width : int
        Columns that a line may take; the drawing itself takes at least `LEAST_CELLS`.
    unicode : bool
        Shade with block elements, else with ASCII.
    """
    rows = seen(slices)
    longest = max(SHORTEST_NAME, min(LONGEST_NAME, width - TABLE))
    names = [_short(label(row), longest) for row in rows]
    margin = max(map(len, names), default=0) + 2
    cells = max(width - margin, LEAST_CELLS)
    begin, end = span(slices)
    shades = SHADES if unicode else ASCII_SHADES
    text = [heading(slices), ""]
    for row, name in zip(rows, names, strict=True):
        shares = shares_of(of(slices, row), begin, end, cells)
        text.append(f"{name:<{margin}}{''.join(_shade(s, shades) for s in shares)}".rstrip())
    text += [f"{'':{margin}}{line}".rstrip() for line in axis(slices, cells)]
    cell = time_text((end - begin) / cells, slices.frequency_hz)
    parts = " ".join(reversed(shades[1:-1]))
    legend = f"A column is {cell}: {shades[-1]} ran all of it, {parts} less and less."
    table = [_cut(line, max(width, LEAST_CELLS)) for line in table_lines(slices, rows, names)]
    return [*text, "", legend, "", *table, *notes(slices)]


def heading(slices: Slices) -> str:
    """Return what was seen, on one line."""
    begin, end = (time_text(each, slices.frequency_hz) for each in span(slices))
    count = len(slices.slices)
    return f"{count} slice{'' if count == 1 else 's'}, from {begin} to {end}"


def notes(slices: Slices) -> list[str]:
    """Return what a reader should know: who has not run, and whether there is more."""
    ran = {(each.vm, each.process) for each in slices.slices}
    waiting = [label((*row, ANY_LP)) for row in slices.rows if row not in ran]
    found = []
    if waiting:
        names = ", ".join(waiting[:5]) + (", ..." if len(waiting) > 5 else "")
        found += ["", f"Not yet run: {names}"]
    if not slices.whole:
        found += ["", "The run goes on: --slices N and --until TIME show more of it."]
    return found


def seen(slices: Slices) -> list[Row]:
    """Return who ran, in turn order, and last that nobody did if that was so; of each lp by itself."""
    ran = {row_of(slices, each) for each in slices.slices}
    lps = range(slices.lps) if slices.lps > 1 else [ANY_LP]
    rows = [(*row, lp) for lp in lps for row in [*slices.rows, ("", "")]]
    return [row for row in rows if row in ran]


def row_of(slices: Slices, each: Slice) -> Row:
    """Return the row that a slice is drawn in."""
    return each.vm, each.process, each.lp if slices.lps > 1 else ANY_LP


def label(row: Row) -> str:
    """Return the name of a row: of a machine, or of a process in it."""
    vm, process, lp = row
    name = f"{vm}/{process}" if process else vm or NOBODY
    return name if lp == ANY_LP else f"lp{lp} {name}"


def of(slices: Slices, row: Row) -> list[Slice]:
    """Return the slices of a row."""
    return [each for each in slices.slices if row_of(slices, each) == row]


def span(slices: Slices) -> tuple[int, int]:
    """Return the cycles at which the drawing begins and ends."""
    if not slices.slices:
        return 0, 1
    begin = min(each.begin for each in slices.slices)
    return begin, max(begin + 1, *(each.end for each in slices.slices))


def shares_of(row: list[Slice], begin: int, end: int, cells: int) -> list[float]:
    """Return the part of each cell's time in which a row ran: [cell], 0 to 1."""
    shares = [0.0] * cells
    size = (end - begin) / cells
    for each in row:
        first = min(int((each.begin - begin) / size), cells - 1)
        last = min(int((each.end - begin) / size), cells - 1)
        for cell in range(first, last + 1):
            low, high = begin + cell * size, begin + (cell + 1) * size
            shares[cell] += max(min(each.end, high) - max(each.begin, low), 0) / size
    return shares


def _shade(share: float, shades: str) -> str:
    """Return a shade: the first only for nothing, the last only for all but a rounding."""
    if share <= 0:
        return shades[0]
    most = len(shades) - 1
    return shades[-1] if share > 0.99 else shades[min(1 + int(share * (most - 1)), most - 1)]


def axis(slices: Slices, cells: int) -> list[str]:
    """Return two lines under a drawing: ticks, and the times that they stand for."""
    begin, end = span(slices)
    hertz = slices.frequency_hz
    step = nice((end - begin) / hertz * 10 / cells) * hertz  # cycles; a label takes up to 8
    marks, labels = ["-"] * cells, [" "] * (cells + 12)
    tick = -(-begin // step) * step if step >= 1 else begin
    free = 0
    while tick <= end:
        cell = min(int((tick - begin) * cells / (end - begin) + 1e-6), cells - 1)
        words = time_text(tick, hertz)
        marks[cell] = "+"
        if cell >= free and cell + len(words) <= cells:
            labels[cell : cell + len(words)] = words
            free = cell + len(words) + 1
        tick += max(step, 1)
    return ["".join(marks), "".join(labels).rstrip()]


def nice(value: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below a value."""
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * 0.999999)


def time_text(cycles: float, frequency_hz: int) -> str:
    """Return a time with the unit that leaves few digits: ``50 us``, ``1.25 ms``."""
    seconds = cycles / frequency_hz
    name, size = next((unit for unit in UNITS if seconds >= unit[1] * 0.9999995), UNITS[-1])
    return f"{seconds / size:.4g} {name}" if seconds else "0"


def table_lines(slices: Slices, rows: list[Row], names: list[str]) -> list[str]:
    """Return what each row did, as a table."""
    begin, end = span(slices)
    head = ["", "slices", "time", "share", "accesses", "ended by"]
    body = []
    for row, name in zip(rows, names, strict=True):
        ran = of(slices, row)
        cycles = sum(each.end - each.begin for each in ran)
        why = Counter(each.why for each in ran)
        ends = ", ".join(f"{reason} {count}" for reason, count in why.most_common())
        body.append(
            [
                name,
                f"{len(ran):,}",
                time_text(cycles, slices.frequency_hz),
                f"{100 * cycles / (end - begin):.1f} %",
                f"{sum(each.accesses for each in ran):,}",
                "" if not row[0] else ends,
            ]
        )
    widths = [max(len(cells[n]) for cells in [head, *body]) for n in range(len(head))]
    return [
        "  ".join(
            f"{cell:<{width}}" if n in (0, 5) else f"{cell:>{width}}"
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in [head, *body]
    ]


def _short(name: str, width: int) -> str:
    """Cut a name in the middle: machines differ at its beginning, processes at its end."""
    if len(name) <= width:
        return name
    begin = (width - 2) // 3
    return f"{name[:begin]}..{name[begin + 2 - width :]}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."


def save_gantt(slices: Slices, path: str | Path) -> None:
    """Write slices as a figure, PNG or SVG by the file's ending; all or not at all."""
    check_figure(str(path))
    file = io.BytesIO()
    kind = Path(path).suffix.lower()[1:]
    metadata = {"Date": None} if kind == "svg" else None
    draw(slices).savefig(file, format=kind, dpi=150, metadata=metadata)
    write_whole(path, file.getvalue())


def draw(slices: Slices) -> "Figure":
    """Draw a bar for each slice, a row for each who ran, and a mark where a trace ended."""
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    rows = seen(slices)
    begin, end = span(slices)
    name, size = next(
        (unit for unit in UNITS if (end - begin) / slices.frequency_hz >= unit[1]), UNITS[-1]
    )
    scale = 1 / slices.frequency_hz / size
    figure = Figure(figsize=(9, 1.4 + 0.42 * max(len(rows), 2)), layout="constrained")
    axes = figure.subplots()
    vms = list(dict.fromkeys(vm for vm, _ in slices.rows))
    ended = []
    for place, row in enumerate(rows):
        bars = [(each.begin * scale, (each.end - each.begin) * scale) for each in of(slices, row)]
        idle = not row[0]
        colour = "#ffffff" if idle else COLOURS[vms.index(row[0]) % len(COLOURS)]
        axes.broken_barh(
            bars, (place - 0.36, 0.72), facecolor=colour, hatch="////" if idle else None,
            edgecolor="#999999" if idle else colour, linewidth=0.3,
        )  # fmt: skip
        ended += [(each.end * scale, place) for each in of(slices, row) if each.why == "end"]
    if ended:
        times, places = zip(*ended, strict=True)
        axes.plot(
            times, places, linestyle="none", marker="|", markersize=18, markeredgewidth=2,
            color="#000000", label="end of a trace",
        )  # fmt: skip
        figure.legend(loc="outside upper right", frameon=False, fontsize=8)
    axes.set_yticks(range(len(rows)), [_short(label(row), LONGEST_NAME) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(begin * scale, end * scale)
    axes.set_xlabel(f"time in {name}")
    axes.set_title(heading(slices), loc="left", fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure
