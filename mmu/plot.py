"""Figures of results: drawn from what a run saved, never from a machine."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mmu.files import check_figure, write_whole
from mmu.result import TOTAL, Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 6  # panels beside each other, at most
# What a stack is made of, from the bottom: label, causes, colour. Colours are the Okabe-Ito
# palette, which is told apart by readers of all kinds of colour vision.
STACK = [
    ("instructions", ("base",), "#bbbbbb"),
    ("TLB and walk caches", ("l2", "walk_cache", "nested_tlb"), "#56b4e9"),
    ("guest tables", ("guest_table",), "#0072b2"),
    ("nested tables", ("nested_table",), "#d55e00"),
    ("accessed and dirty bits", ("update",), "#000000"),
    ("faults", ("guest_fault", "nested_fault"), "#f0e442"),
    ("exits and hypervisor", ("exit", "hypervisor"), "#cc79a7"),
    ("switches", ("switch",), "#009e73"),
]
WALKS = [
    ("walks", "walks_per_thousand", "#0072b2"),
    ("dirty walks", "dirty_walks_per_thousand", "#56b4e9"),
    ("hypervisor's walks", "hypervisor_walks_per_thousand", "#cc79a7"),
]
Bars = list[tuple[str, list[float], str]]


def save_figure(comparison: Comparison, path: str | Path) -> None:
    """Write a comparison as a figure, PNG or SVG by the file's ending; all or not at all."""
    check_figure(str(path))
    file = io.BytesIO()
    kind = Path(path).suffix.lower()[1:]
    draw(comparison).savefig(
        file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None
    )
    write_whole(path, file.getvalue())


def draw(comparison: Comparison) -> "Figure":
    """Draw cycles per instruction by cause, and walks, for each virtual machine and in total."""
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    results = comparison.results
    vms = [
        vm
        for vm in comparison.vms
        if any(result.count("accesses", vm) for result in results.values())
    ]
    names = [*vms, TOTAL] if len(vms) > 1 else vms
    bands = -(-len(names) // COLUMNS)
    columns = -(-len(names) // bands)  # as even as can be
    figure = Figure(
        figsize=(max(5.6, 1.6 + 2.3 * columns), 1.5 + 5.4 * bands), layout="constrained"
    )
    axes = figure.subplots(2 * bands, columns, squeeze=False, height_ratios=[3, 2] * bands)
    cycles_top = walks_top = 0.0
    pairs: list[tuple[Axes, Axes]] = []
    for n, name in enumerate(names):
        band, column = divmod(n, columns)
        upper, lower = axes[2 * band][column], axes[2 * band + 1][column]
        pairs.append((upper, lower))
        cycles: Bars = [
            (label, [r.cycles_per_instruction(name, causes) or 0 for r in results.values()], colour)
            for label, causes, colour in STACK
        ]
        walks: Bars = [
            (label, [r.metrics(name)[metric] or 0 for r in results.values()], colour)
            for label, metric, colour in WALKS
        ]
        cycles_top = max(cycles_top, _stack(upper, list(results), cycles))
        walks_top = max(walks_top, _stack(lower, list(results), walks))
        upper.set_title(name if len(name) <= 20 else name[:18] + "..", fontweight="bold")
        if column == 0:
            upper.set_ylabel("cycles per instruction")
            lower.set_ylabel("walks per 1,000 instructions")
    for upper, lower in pairs:
        upper.set_ylim(0, 1.1 * cycles_top or 1)
        lower.set_ylim(0, 1.1 * walks_top or 1)
    for unused in range(len(names), bands * columns):
        axes[2 * (unused // columns)][unused % columns].set_axis_off()
        axes[2 * (unused // columns) + 1][unused % columns].set_axis_off()
    upper, lower = pairs[0]
    above, below = upper.get_legend_handles_labels(), lower.get_legend_handles_labels()
    figure.legend(*above, loc="outside upper center", ncols=4 if columns > 2 else 2, frameon=False)
    figure.legend(*below, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _stack(axes: "Axes", modes: list[str], bars: Bars) -> float:
    """Draw a stacked bar for each mode with its sum above it; return the highest sum."""
    sums = [0.0] * len(modes)
    for label, values, colour in bars:
        axes.bar(modes, values, bottom=sums, label=label, color=colour, width=0.72)
        sums = [low + value for low, value in zip(sums, values, strict=True)]
    for place, height in enumerate(sums):
        axes.annotate(
            f"{height:.2f}", (place, height), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=8,
        )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    return max(sums)
