"""Figures of traces: drawn from what `mmu.trace.info` returns."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmu.errors import InputError
from mmu.files import check_figure, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIB = 1 << 20
# Okabe and Ito's palette, which is told apart by readers of all kinds of colour vision.
SMALL, LARGE = "#0072b2", "#d55e00"
SIDES = {"fetch": "#009e73", "data": "#0072b2", "both": "#000000"}
PAGE_BYTES = {"pages": 4 << 10, "large_pages": 2 << 20}


def save_figure(found: Mapping[str, Any], path: str | Path, title: str = "") -> None:
    """Write what is in a trace as a figure, PNG or SVG by the file's ending; all or not at all.

    Raises
    ------
    InputError
        The trace has too many pages, so that there is nothing to draw; or the file cannot be written.
    """
    check_figure(str(path))
    if found["reuse"] is None:
        raise InputError(f"{title}: has too many pages to be measured, there is nothing to draw")
    file = io.BytesIO()
    kind = Path(path).suffix.lower()[1:]
    draw(found, title).savefig(
        file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
    )
    write_whole(path, file.getvalue())


def draw(found: Mapping[str, Any], title: str = "") -> "Figure":
    """Draw working set and footprint over time, and what LRU TLBs of any size would miss."""
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    figure = Figure(figsize=(13.5, 4.2), layout="constrained")
    over_time, footprint, reuse = figure.subplots(1, 3)
    if title:
        figure.suptitle(Path(title).name, fontweight="bold")
    series = found["working_set"]
    ends = [end / 1e6 for end in series["accesses"]]
    edges = [0.0, *ends]
    _steps(over_time, edges, series, "", "pages touched in a window")
    _steps(footprint, edges, series, "all_", "bytes in pages touched so far, MiB")
    _misses(reuse, found["reuse"])
    for axes in (over_time, footprint, reuse):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.grid(color="#e5e5e5", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _steps(
    axes: "Axes", edges: list[float], series: Mapping[str, list[int]], which: str, label: str
) -> None:
    """Draw a series of small and one of large pages; those touched so far in bytes."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    for name, colour, size in (("pages", SMALL, "4 KiB"), ("large_pages", LARGE, "2 MiB")):
        values: list[float] = list(series[which + name])
        if which:
            values = [value * PAGE_BYTES[name] / MIB for value in values]
        axes.stairs(values, edges, color=colour, label=f"pages of {size}", baseline=None)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0, edges[-1])
    axes.set_xlabel("million accesses")
    axes.set_ylabel(label)


def _misses(axes: "Axes", reuse: Mapping[str, Any]) -> None:
    """Draw the part of accesses at a distance of so many pages or more: the CDF from above."""
    from matplotlib.ticker import StrMethodFormatter  # noqa: PLC0415

    deepest = [measured["distance"][-1][0] for measured in reuse.values() if measured["distance"]]
    farthest = 2 * max([1, *deepest])
    for side, colour in SIDES.items():
        measured = reuse[side]
        if not measured["accesses"]:
            continue
        points, left = [], measured["accesses"]
        for least, count in measured["distance"]:
            points.append((max(1, least), left))
            left -= count
            if least == 0:
                points.pop()
        points.append((2 * points[-1][0] if points else 1, left))
        points.append((farthest, left))
        exact = [
            (int(entries), (1 - rate) * measured["accesses"])
            for entries, rate in measured["hit_rate"].items()
        ]
        line = sorted({*points, *((x, y) for x, y in exact if x < points[-1][0])})
        axes.plot(
            [x for x, _ in line], [max(y, 0) / measured["accesses"] for _, y in line],
            color=colour, label=side, linewidth=1.4,
        )  # fmt: skip
    for entries in reuse["both"]["hit_rate"]:
        axes.axvline(int(entries), color="#999999", linestyle="--", linewidth=0.9)
        axes.annotate(
            f"{int(entries):,}", (int(entries), 1), xycoords=("data", "axes fraction"),
            xytext=(2, -2), textcoords="offset points", va="top", fontsize=8, color="#666666",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_yscale("log")
    axes.set_xlabel("entries of an LRU TLB for 4 KiB pages")
    axes.set_ylabel("part of accesses that miss (distance not below)")
