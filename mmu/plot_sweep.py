"""Figures of sweeps: a line for each mode over the values of what was varied."""

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from mmu.figures import TOTAL
from mmu.files import check_figure
from mmu.plot import write_figure
from mmu.report_sweep import heading
from mmu.swept import Sweep, on_several_processors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Panel(NamedTuple):
    """A figure over the values: what it is called, and what it is multiplied by."""

    label: str
    metric: str
    scale: float = 1


class Style(NamedTuple):
    """How the line of a mode looks; colours are of the Okabe-Ito palette, as in `mmu.plot`."""

    colour: str
    dashes: str
    marker: str
    width: float


PANELS = (
    Panel("cycles per instruction", "cycles_per_instruction"),
    Panel("L2 hit rate, %", "hit_rate.l2", 100),
    Panel("walks per 1,000 instr.", "walks_per_thousand"),
)
ENDS = Panel(
    "million cycles to the end", "", 1e-6
)  # of the longest processor, if there are several
# From wide to narrow in the order in which they are drawn: lines that coincide all stay visible.
STYLES = {
    "native": Style("#888888", ":", "", 1.6),
    "flush": Style("#009e73", "-", "^", 3.6),
    "purge": Style("#d55e00", "-", "s", 2.2),
    "tagged": Style("#0072b2", "--", "o", 1.2),
}
LINEAR = 8.0  # the largest value over the smallest up to which the axis is linear
MARGIN = 0.12  # of a panel's height, above and below its lines
CHARACTER = 0.0115  # of a panel's width, in the size of its tick labels
GAP = 0.11  # of a panel's height, between names of lines
WIDTH, PANEL_HEIGHT = 7.4, 2.1  # inches
WIDTH_OF_TITLE = 100  # characters


def save_figure(sweep: Sweep, path: str | Path, of: str = TOTAL) -> None:
    """Write a sweep as a figure, PNG or SVG by the file's ending; all or not at all."""
    check_figure(str(path))
    write_figure(draw(sweep, of), path)


def draw(sweep: Sweep, of: str = TOTAL) -> "Figure":
    """Draw a panel for each of `PANELS` that the processor has, with a line for each mode.

    Where there are several logical processors, the last says how long the longest of them worked.

    Parameters
    ----------
    sweep : Sweep
        What was counted; values are drawn in their order as numbers.
    of : str
        Whose figures: a row's name as in `mmu.figures`.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    order = sorted(range(len(sweep.values)), key=lambda n: sweep.numbers[n])
    numbers = [sweep.numbers[n] for n in order]
    texts = [sweep.values[n] for n in order]
    panels = (*PANELS, ENDS) if on_several_processors(sweep) else PANELS
    curves = {
        panel: {
            mode: [None if y is None else panel.scale * y for y in (figures[n] for n in order)]
            for mode in sorted(sweep.modes, key=list(STYLES).index)
            for figures in [_figures(sweep, panel, mode, of)]
        }
        for panel in panels
    }
    shown = [p for p in panels if any(y is not None for ys in curves[p].values() for y in ys)]
    figure = Figure(figsize=(WIDTH, 0.9 + PANEL_HEIGHT * len(shown)), layout="constrained")
    every_axes = figure.subplots(len(shown), 1, squeeze=False, sharex=True)[:, 0]
    for axes, panel in zip(every_axes, shown, strict=True):
        _scale(axes, numbers)
        for mode, ys in curves[panel].items():
            style = STYLES[mode]
            axes.plot(
                numbers, [float("nan") if y is None else y for y in ys], style.dashes, label=mode,
                color=style.colour, marker=style.marker, linewidth=style.width, markersize=4.5,
                clip_on=False,
            )  # fmt: skip
        _name_lines(axes, numbers[-1], curves[panel])
        axes.set_ylabel(panel.label, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e5e5e5", linewidth=0.6)
    bottom = every_axes[-1]
    bottom.minorticks_off()
    kept = legible(bottom, numbers, texts)
    bottom.set_xticks([numbers[n] for n in kept], [texts[n] for n in kept])
    bottom.set_xlabel(sweep.name.replace("-", " "), fontsize=9)
    whose = "" if of == TOTAL and len(sweep.vms) == 1 else f"{of}: "
    title = "\n".join(wrap(whose + heading(sweep), WIDTH_OF_TITLE))
    every_axes[0].set_title(title, fontsize=8, loc="left", color="#555555")
    return figure


def _figures(sweep: Sweep, panel: Panel, mode: str, of: str) -> list[float | None]:
    """Return what a panel shows of a mode, for each value."""
    if panel is ENDS:
        return [each[mode].clock for each in sweep.comparisons]
    return sweep.figures(panel.metric, mode, of)


def _scale(axes: "Axes", numbers: list[float]) -> None:
    """Make the axis logarithmic where values differ much; from 0 to the first it stays linear."""
    positive = [number for number in numbers if number > 0]
    if positive and positive[-1] > LINEAR * positive[0]:
        if len(positive) == len(numbers):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    axes.set_xlim(numbers[0], numbers[-1])


def _name_lines(axes: "Axes", last: float, curves: dict[str, list[float | None]]) -> None:
    """Write the name of each line at its right end; names of lines close together move apart."""
    known = [y for ys in curves.values() for y in ys if y is not None]
    low, high = min(known), max(known)
    span = (high - low) or abs(high) or 1.0
    low, high = low - MARGIN * span, high + MARGIN * span
    axes.set_ylim(low, high)
    ends = {mode: ys[-1] for mode, ys in curves.items() if ys[-1] is not None}
    heights = apart({mode: (y - low) / (high - low) for mode, y in ends.items()})
    for mode, height in heights.items():
        axes.annotate(
            mode, (last, ends[mode]), xytext=(1.035, height), textcoords="axes fraction",
            color=STYLES[mode].colour, fontsize=9, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": STYLES[mode].colour, "linewidth": 0.7},
        )  # fmt: skip


def apart(heights: dict[str, float]) -> dict[str, float]:
    """Return heights from 0 to 1 at least `GAP` from each other, in their order and as near as can be."""
    order = sorted(heights, key=lambda name: heights[name])
    # Each group is names that touch: it stands around the mean of where its names would be.
    groups: list[tuple[list[str], float]] = []

    def middle_of(names: list[str]) -> float:
        half = GAP * (len(names) - 1) / 2
        middle = sum(heights[each] for each in names) / len(names)
        return min(max(middle, half), 1 - half)

    for name in order:
        groups.append(([name], middle_of([name])))
        while len(groups) > 1:
            (below, middle), (above, upper) = groups[-2:]
            if upper - middle >= GAP * (len(below) + len(above)) / 2:
                break
            names = below + above
            groups[-2:] = [(names, middle_of(names))]
    return {
        name: middle + GAP * (n - (len(names) - 1) / 2)
        for names, middle in groups
        for n, name in enumerate(names)
    }


def legible(axes: "Axes", numbers: list[float], texts: list[str]) -> list[int]:
    """Return which values have room for their text on the axis: the ends, and as many as fit."""
    at = axes.transAxes.inverted().transform(
        axes.transData.transform([(number, 0) for number in numbers])
    )[:, 0]
    last = len(numbers) - 1

    def fits(one: int, other: int) -> bool:
        return bool(
            at[other] - at[one] > CHARACTER * ((len(texts[one]) + len(texts[other])) / 2 + 1)
        )

    kept = [0]
    for n in range(1, last):
        if fits(kept[-1], n) and fits(n, last):
            kept.append(n)
    return [*kept, last]
