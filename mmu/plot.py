"""Figures of results: drawn from what a run saved, never from a machine."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mmu.figures import MISSES, TOTAL
from mmu.files import check_figure, write_whole
from mmu.result import Comparison, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 6  # panels beside each other, at most
BARS = 16  # of one mode in a panel, at most
LONGEST_NAME = 20
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
    ("switches and migrations", ("switch", "migration"), "#009e73"),
    ("invalidations and CR3 loads", ("shootdown", "invalidation", "cr3_load"), "#e69f00"),
]
# Walks below them: by the cause of the miss before each, where causes were told.
MISS_COLOURS = {
    "first_touch": "#bbbbbb",
    "capacity": "#56b4e9",
    "conflict": "#0072b2",
    "other_vm": "#d55e00",
    "flush": "#009e73",
    "invalidation": "#e69f00",
}
WALKS = ("walks", "walks_per_thousand", "#0072b2")
OTHER_WALKS = [
    ("dirty walks", "dirty_walks_per_thousand", "#f0e442"),
    ("hypervisor's walks", "hypervisor_walks_per_thousand", "#cc79a7"),
]
Bars = list[tuple[str, list[float], str]]
Column = tuple[Result, str]  # a bar: of a virtual machine, in a mode


def save_figure(run: Result | Comparison, path: str | Path) -> None:
    """Write a result or a comparison as a figure, PNG or SVG by the file's ending; all or not at all."""
    check_figure(str(path))
    write_figure(draw(run), path)


def write_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure that has been drawn; the same one gives the same bytes."""
    file = io.BytesIO()
    kind = Path(path).suffix.lower()[1:]
    figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    write_whole(path, file.getvalue())


def draw(run: Result | Comparison) -> "Figure":
    """Draw cycles per instruction by cause, and below them walks by the cause of the miss.

    Of a comparison, each virtual machine has a panel with a bar for each mode, and so has the total;
    of one result they are bars of the same panel.
    """
    results = [run] if isinstance(run, Result) else list(run.results.values())
    vms = [vm for vm in run.vms if any(result.count("accesses", vm) for result in results)]
    names = [*vms, TOTAL] if len(vms) > 1 else vms
    if len(results) == 1:
        result = results[0]
        parts = -(-len(names) // BARS)
        size = -(-len(names) // parts)  # as even as can be
        panels = [names[n : n + size] for n in range(0, len(names), size)]
        title = f"mode {result.mode}"
        return _draw([(title, [(result, vm) for vm in panel], panel) for panel in panels], 1, size)
    modes = [result.mode for result in results]
    columns = -(-len(names) // -(-len(names) // COLUMNS))
    of_vms = [(_cut(vm), [(result, vm) for result in results], modes) for vm in names]
    return _draw(of_vms, columns, len(modes))


def _draw(panels: list[tuple[str, list[Column], list[str]]], columns: int, most: int) -> "Figure":
    """Draw panels of a title, bars and their names, so many beside each other."""
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    bands = -(-len(panels) // columns)
    width = max(5.6, 1.6 + columns * (0.5 + 0.45 * max(most, 4)))
    figure = Figure(figsize=(width, 1.5 + 5.4 * bands), layout="constrained")
    axes = figure.subplots(2 * bands, columns, squeeze=False, height_ratios=[3, 2] * bands)
    stacks = [(_cycles(bars), _walks(bars)) for _, bars, _ in panels]
    shown = [_seen([each[part] for each in stacks]) for part in (0, 1)]
    cycles_top = walks_top = 0.0
    pairs: list[tuple[Axes, Axes]] = []
    for n, ((title, _, names), stack) in enumerate(zip(panels, stacks, strict=True)):
        band, column = divmod(n, columns)
        upper, lower = axes[2 * band][column], axes[2 * band + 1][column]
        pairs.append((upper, lower))
        cycles_top = max(cycles_top, _stack(upper, names, stack[0], shown[0]))
        walks_top = max(walks_top, _stack(lower, names, stack[1], shown[1]))
        upper.set_title(title, fontweight="bold")
        if column == 0:
            upper.set_ylabel("cycles per instruction", fontsize=9)
            lower.set_ylabel("walks per 1,000 instructions", fontsize=9)
    for upper, lower in pairs:
        upper.set_ylim(0, 1.15 * cycles_top or 1)
        lower.set_ylim(0, 1.15 * walks_top or 1)
    for unused in range(len(panels), bands * columns):
        axes[2 * (unused // columns)][unused % columns].set_axis_off()
        axes[2 * (unused // columns) + 1][unused % columns].set_axis_off()
    upper, lower = pairs[0]
    above, below = upper.get_legend_handles_labels(), lower.get_legend_handles_labels()
    beside = max(2, int(width / 2.2))
    figure.legend(*above, loc="outside upper center", ncols=beside, frameon=False, fontsize=9)
    figure.legend(*below, loc="outside lower center", ncols=beside, frameon=False, fontsize=9)
    return figure


def _cycles(columns: list[Column]) -> Bars:
    """Return cycles per instruction by groups of causes."""
    return [
        (label, [result.cycles_per_instruction(vm, causes) or 0 for result, vm in columns], colour)
        for label, causes, colour in STACK
    ]


def _walks(columns: list[Column]) -> Bars:
    """Return walks per 1,000 instructions: by cause where all results told it."""
    told = all(result.misses for result, _ in columns)
    bars: Bars = [
        (
            MISSES[cause],
            [result.misses_by_per_thousand(cause, vm) or 0 for result, vm in columns],
            colour,
        )
        for cause, colour in MISS_COLOURS.items()
    ]
    other = OTHER_WALKS if told else [WALKS, *OTHER_WALKS]
    metrics = [result.metrics(vm) for result, vm in columns]
    return (bars if told else []) + [
        (label, [figures[metric] or 0 for figures in metrics], colour)
        for label, metric, colour in other
    ]


def _seen(stacks: list[Bars]) -> set[str]:
    """Return the labels of what is more than nothing in some panel."""
    return {label for bars in stacks for label, values, _ in bars if any(values)}


def _stack(axes: "Axes", names: list[str], bars: Bars, shown: set[str]) -> float:
    """Draw a stacked bar for each name with its sum above it; return the highest sum."""
    places = range(len(names))
    sums = [0.0] * len(names)
    for label, values, colour in bars:
        if label in shown:
            axes.bar(places, values, bottom=sums, label=label, color=colour, width=0.72)
            sums = [low + value for low, value in zip(sums, values, strict=True)]
    for place, height in enumerate(sums):
        axes.annotate(
            f"{height:.2f}", (place, height), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=8,
        )  # fmt: skip
    axes.set_xlim(-0.6, len(names) - 0.4)
    long = max(map(len, names)) > 8
    axes.set_xticks(
        places,
        [_cut(name) for name in names],
        rotation=30 if long else 0,
        ha="right" if long else "center",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    return max(sums)


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 2] + ".."
