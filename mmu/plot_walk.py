"""The grid of a walk, as textbooks draw it: a row for each address translated, a cell for each read."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from mmu.entrybits import ENTRY_NAMES, SIZE_NAMES
from mmu.files import check_figure, write_whole
from mmu.hardware.outcome import Outcome
from mmu.indices import table_index
from mmu.report_walk import question, references
from mmu.walkthrough import Read, Walkthrough

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of the Okabe-Ito palette, as in `mmu.plot`: edge, and the same made light.
GUEST, NESTED, DATA = ("#0072b2", "#d9eaf4"), ("#d55e00", "#f9e5d8"), ("#009e73", "#d9f0ea")
FAINT, GREY, INK, FAULT = "#cccccc", "#777777", "#222222", "#000000"
# Inches.
WIDTH, HEIGHT, GAP_X, GAP_Y = 1.42, 0.72, 0.22, 0.3
MARGIN, HEAD, LABELS, LINE = 0.3, 1.0, 1.55, 0.19
NARROWEST = 7.2
MOST_BITS = 21  # characters in a cell
CHARACTER = 0.075  # of a line of text in 9 points


def save_figure(walk: Walkthrough, path: str | Path) -> None:
    """Write the grid of a walk as a figure, PNG or SVG by the file's ending; all or not at all."""
    check_figure(str(path))
    file = io.BytesIO()
    kind = Path(path).suffix.lower()[1:]
    metadata = {"Date": None} if kind == "svg" else None
    draw(walk).savefig(file, format=kind, dpi=150, metadata=metadata)
    write_whole(path, file.getvalue())


def draw(walk: Walkthrough) -> "Figure":
    """Draw every table read in its place, numbered in order, and where the walk ended."""
    from matplotlib.figure import Figure  # noqa: PLC0415  slow to import

    grid = _Grid(walk)
    figure = Figure(figsize=(grid.width, grid.height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, grid.width)
    axes.set_ylim(grid.height, 0)
    axes.set_axis_off()
    grid.draw(axes)
    return figure


class _Grid:
    """Where everything stands, in inches from the upper left corner."""

    def __init__(self, walk: Walkthrough) -> None:
        self.walk = walk
        self.nested = walk.nested_levels
        self.columns = self.nested + 1
        guest = [read for read in walk.reads if read.dimension == "guest"]
        whole = bool(guest) and guest[-1].leaf
        self.guests = len(guest) if whole else walk.levels  # rows with an entry of the guest
        self.rows = self.guests + bool(self.nested)
        self.right = MARGIN + LABELS + self.columns * (WIDTH + GAP_X)
        self.width = max(self.right + MARGIN, NARROWEST)
        self.reason = _wrapped(walk, int((self.width - 2 * MARGIN) / CHARACTER))
        self.top = HEAD + LINE * len(self.reason)
        self.height = (
            self.top
            + self.rows * (HEIGHT + GAP_Y)
            + (0.25 if self.nested else HEIGHT + GAP_Y + 0.1)
        )

    def place(self, row: int, label: str) -> tuple[float, float]:
        """Return the upper left corner of a cell."""
        column = self.nested - int(label[1:]) if label[0] == "N" else self.nested
        return MARGIN + LABELS + column * (WIDTH + GAP_X), self.top + row * (HEIGHT + GAP_Y)

    def draw(self, axes: "Axes") -> None:
        """Draw headings, cells and what joins them."""
        walk = self.walk
        self._headings(axes)
        if walk.translation.outcome == Outcome.NOT_CANONICAL:
            self._unread(axes, set())
            return
        read = {(each.row, each.label) for each in walk.reads}
        for each in walk.reads:
            self._cell(axes, each)
        self._unread(axes, read)
        self._pages(axes)
        self._joints(axes)
        if walk.stop and walk.stop not in read:
            self._mark(axes, *walk.stop)
        if walk.translation.outcome == Outcome.OK:
            self._data(axes)

    def _headings(self, axes: "Axes") -> None:
        """Say what was asked and how it ended; name columns and rows."""
        walk = self.walk
        who = "user" if walk.user else "supervisor"
        axes.text(
            MARGIN, 0.3, f"{who} {walk.access} of gva {walk.gva:#x}", fontsize=13,
            fontweight="bold", color=INK, va="center",
        )  # fmt: skip
        for number, line in enumerate(self.reason):
            axes.text(
                MARGIN, 0.6 + LINE * number, line, fontsize=9, color=INK if number else GREY, va="center"
            )  # fmt: skip
        heads = [
            (f"N{level}", f"{walk.format} {ENTRY_NAMES[level]}")
            for level in range(self.nested, 0, -1)
        ]
        for label, name in [*heads, ("G0", "guest entry" if self.nested else "entry")]:
            x, y = self.place(0, label)
            colour = NESTED[0] if label[0] == "N" else GUEST[0]
            axes.text(
                x + WIDTH / 2, y - 0.16, name, fontsize=9, fontweight="bold", color=colour,
                ha="center", va="center",
            )  # fmt: skip
        for row in range(self.rows):
            self._row_label(axes, row)

    def _row_label(self, axes: "Axes", row: int) -> None:
        """Name the table that a row reads an entry of, or the data; and its guest-physical address."""
        walk = self.walk
        _, y = self.place(row, "G0")
        gpas = [read.gpa for read in walk.reads if read.row == row]
        known = bool(gpas) or (walk.stop is not None and walk.stop[0] == row)
        if row == self.guests:
            title = "data"
        else:
            level = walk.levels - row
            title = f"{ENTRY_NAMES[level]} {table_index(walk.gva, level)}"
        below = ""
        if self.nested and known:
            below = f"gpa {gpas[0] if gpas else walk.reached.gpa:#x}"
        elif not self.nested and known:
            table = [read.table for read in walk.reads if read.row == row]
            below = f"of {table[0] if table else walk.reached.address & ~0xFFF:#x}"
        colour = INK if known else FAINT
        axes.text(
            MARGIN,
            y + HEIGHT * 0.34,
            title,
            fontsize=9,
            fontweight="bold",
            color=colour,
            va="center",
        )
        axes.text(
            MARGIN, y + HEIGHT * 0.68, below, fontsize=7.5, family="monospace", color=GREY, va="center"
        )  # fmt: skip

    def _cell(self, axes: "Axes", read: Read) -> None:
        """Draw a table read."""
        x, y = self.place(read.row, read.label)
        edge, face = GUEST if read.dimension == "guest" else NESTED
        self._box(axes, x, y, FAULT if read.ended else edge, face, 2.4 if read.ended else 1.1)
        axes.text(
            x + 0.08,
            y + 0.17,
            f"{read.number}",
            fontsize=12,
            fontweight="bold",
            color=edge,
            va="center",
        )
        axes.text(
            x + WIDTH - 0.08, y + 0.17, read.label, fontsize=8, color=edge, ha="right", va="center"
        )
        axes.text(
            x + WIDTH / 2, y + 0.38, f"{read.address:#x}", fontsize=8.5, family="monospace", color=INK,
            ha="center", va="center",
        )  # fmt: skip
        wrong = [name for name in read.bits if name.startswith("rsvd")]
        bits = " ".join(wrong or [*read.bits, *(f"+{name}" for name in read.sets)])
        if len(bits) > MOST_BITS:
            bits = bits[: MOST_BITS - 2] + ".."
        axes.text(x + WIDTH / 2, y + 0.58, bits, fontsize=7, color=GREY, ha="center", va="center")
        if read.ended:
            self._cross(axes, x, y)

    def _unread(self, axes: "Axes", read: set[tuple[int, str]]) -> None:
        """Outline the cells that the walk did not come to, but for those that large pages save."""
        walk = self.walk
        last = max((row for row, _ in read), default=0)
        for row in range(self.rows):
            labels = [f"N{level}" for level in range(self.nested, 0, -1)]
            if row < self.guests:
                labels.append(f"G{walk.levels - row}")
            saved = self._saved(row)
            for label in labels:
                if (row, label) in read or label in saved or row < last:
                    continue
                if walk.stop == (row, label) and walk.translation.outcome != Outcome.NOT_CANONICAL:
                    continue
                x, y = self.place(row, label)
                self._box(axes, x, y, FAINT, "#ffffff", 0.8, dashed=True)
                axes.text(
                    x + WIDTH - 0.08, y + 0.17, label, fontsize=8, color=FAINT, ha="right", va="center"
                )  # fmt: skip

    def _saved(self, row: int) -> list[str]:
        """Return the labels that a large nested page makes unneeded in a row."""
        leaves = [
            read for read in self.walk.reads
            if read.row == row and read.dimension == "nested" and read.leaf
        ]  # fmt: skip
        return [f"N{level}" for level in range(leaves[0].level - 1, 0, -1)] if leaves else []

    def _pages(self, axes: "Axes") -> None:
        """Say what page a row's walk ends in early."""
        for row in range(self.rows):
            saved = self._saved(row)
            if not saved or (
                self.walk.reads[-1].ended and self.walk.stop == (row, f"N{len(saved) + 1}")
            ):
                continue
            x, y = self.place(row, saved[0])
            x, end = x - GAP_X, self.place(row, saved[-1])[0] + WIDTH + GAP_X
            axes.plot(
                [x, end], [y + HEIGHT / 2] * 2, color=NESTED[0], linewidth=0.9, linestyle=(0, (1, 2.5)),
                zorder=1,
            )  # fmt: skip
            axes.text(
                (x + end) / 2, y + HEIGHT / 2, f" {SIZE_NAMES[len(saved) + 1]} page ", fontsize=7.5,
                color=NESTED[0], ha="center", va="center", zorder=3,
                bbox={"facecolor": "#ffffff", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip

    def _joints(self, axes: "Axes") -> None:
        """Join each read with the next: along the row, and from a guest's entry to the next row."""
        for read, after in zip(self.walk.reads, self.walk.reads[1:], strict=False):
            self._join(axes, (read.row, read.label), (after.row, after.label))
        stop = self.walk.stop
        if stop and self.walk.reads and not self.walk.reads[-1].ended:
            last = self.walk.reads[-1]
            self._join(axes, (last.row, last.label), stop)

    def _join(self, axes: "Axes", one: tuple[int, str], other: tuple[int, str]) -> None:
        (x, y), (to_x, to_y) = self.place(*one), self.place(*other)
        middle = y + HEIGHT / 2
        if one[0] == other[0]:
            if to_x - x < WIDTH + 2 * GAP_X:  # else the dotted line of a large page leads there
                axes.annotate(
                    "", (to_x, middle), (x + WIDTH, middle), arrowprops=_arrow(), zorder=1
                )  # fmt: skip
            return
        if not self.nested:
            centre = x + WIDTH / 2
            axes.annotate("", (centre, to_y), (centre, y + HEIGHT), arrowprops=_arrow(), zorder=1)
            return
        between = y + HEIGHT + GAP_Y / 2
        down, start = x + WIDTH / 2, to_x + WIDTH / 2
        axes.plot(
            [down, down, start], [y + HEIGHT, between, between], color=GREY, linewidth=0.9, zorder=1
        )
        axes.annotate("", (start, to_y), (start, between), arrowprops=_arrow(), zorder=1)

    def _mark(self, axes: "Axes", row: int, label: str) -> None:
        """Draw the cell of an entry that could not be read."""
        x, y = self.place(row, label)
        self._box(axes, x, y, FAULT, "#ffffff", 2.4)
        axes.text(
            x + WIDTH - 0.08, y + 0.17, label, fontsize=8, color=GREY, ha="right", va="center"
        )
        if self.walk.translation.outcome == Outcome.NO_MEMORY:
            axes.text(
                x + WIDTH / 2, y + 0.38, f"{self.walk.reached.address:#x}", fontsize=8.5,
                family="monospace", color=INK, ha="center", va="center",
            )  # fmt: skip
            text = "not in memory"
        else:
            text = "out of reach"
        axes.text(x + WIDTH / 2, y + 0.58, text, fontsize=7, color=GREY, ha="center", va="center")
        self._cross(axes, x, y)

    def _data(self, axes: "Axes") -> None:
        """Draw the page that was found: after its nested walk, or below the last entry."""
        walk = self.walk
        x, y = self.place(self.guests, "G0")
        self._box(axes, x, y, DATA[0], DATA[1], 1.6)
        axes.text(
            x + 0.08, y + 0.17, "data", fontsize=9, fontweight="bold", color=DATA[0], va="center"
        )
        axes.text(
            x + WIDTH / 2, y + 0.38, f"{walk.translation.maddr or 0:#x}", fontsize=8.5,
            family="monospace", color=INK, ha="center", va="center",
        )  # fmt: skip
        level = {4 << 10: 1, 2 << 20: 2, 1 << 30: 3}[walk.translation.page_size or 0]
        rights = walk.ending.rights or {}
        allowed = rights.get("user") or rights.get("supervisor")
        axes.text(
            x + WIDTH / 2, y + 0.58, f"{SIZE_NAMES[level]} page, {allowed}", fontsize=7, color=GREY,
            ha="center", va="center",
        )  # fmt: skip
        last = walk.reads[-1]
        self._join(axes, (last.row, last.label), (self.guests, "G0"))

    def _box(
        self,
        axes: "Axes",
        x: float,
        y: float,
        edge: str,
        face: str,
        width: float,
        dashed: bool = False,
    ) -> None:
        from matplotlib.patches import FancyBboxPatch  # noqa: PLC0415

        axes.add_patch(
            FancyBboxPatch(
                (x, y), WIDTH, HEIGHT, boxstyle="round,pad=0,rounding_size=0.06", facecolor=face,
                edgecolor=edge, linewidth=width, linestyle=(0, (3, 3)) if dashed else "solid", zorder=2,
            )
        )  # fmt: skip

    def _cross(self, axes: "Axes", x: float, y: float) -> None:
        """Mark a cell where the walk ended."""
        axes.plot(
            [x + WIDTH], [y], marker="X", markersize=12, color=FAULT, markeredgecolor="#ffffff",
            markeredgewidth=1.2, zorder=5, clip_on=False,
        )  # fmt: skip


def _arrow() -> dict[str, object]:
    return {
        "arrowstyle": "-|>,head_width=0.16,head_length=0.3", "color": GREY, "linewidth": 0.9,
        "shrinkA": 0, "shrinkB": 0,
    }  # fmt: skip


def _wrapped(walk: Walkthrough, width: int) -> list[str]:
    """Return the lines under the title: the roots, and how the walk ended."""
    from textwrap import wrap  # noqa: PLC0415

    end, read = walk.ending, f"after {references(walk)}"
    facts = dict(end.facts)
    if end.reason:
        told = [f"{end.title} {read}", f"{end.reason}"]
    else:
        told = [
            f"machine address {facts['machine address']} {read}",
            f"page {facts['page']}; rights: {facts['rights']}",
        ]
    return [line for text in (question(walk)[1], *told) for line in wrap(text, width, max_lines=3)]
