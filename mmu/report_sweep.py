"""A sweep as tables for people: a block for each figure, values as rows and modes as columns."""

from typing import TYPE_CHECKING

from mmu.blocks import Block
from mmu.blocks import lines as text_of
from mmu.blocks import show as show_blocks
from mmu.report import NONE, Line, heading_of, number
from mmu.swept import Sweep, first_result, on_several_processors

if TYPE_CHECKING:
    from rich.console import Console

FIGURES = (
    Line("cycles per instruction", "cycles_per_instruction", 3),
    Line("hit rate, L2", "hit_rate.l2", 2, True),
    Line("walks per 1,000 instructions", "walks_per_thousand", 3),
)
NOTES = ("Of all virtual machines together; --json and --csv have each, and every other figure.",)


def blocks(sweep: Sweep) -> list[Block]:
    """Return a block for each of `FIGURES`, and of how many cycles the other modes add.

    Where there are several logical processors, the last says how long the longest of them worked.
    """
    found = []
    for line in FIGURES:
        columns = [sweep.figures(line.metric, mode) for mode in sweep.modes]
        if any(value is not None for column in columns for value in column):
            cells = [[number(value, line) for value in row] for row in zip(*columns, strict=True)]
            rows = list(zip(sweep.values, cells, strict=True))
            found.append(Block(f"{sweep.name}: {line.label}", sweep.modes, rows))
    first, *others = sweep.modes
    if others:
        rows = [
            (value, [_more(base, figure) for figure in row])
            for value, base, *row in zip(
                sweep.values,
                *(sweep.figures("cycles_per_instruction", mode) for mode in sweep.modes),
                strict=True,
            )
        ]
        found.append(Block(f"{sweep.name}: more cycles than {first}", others, rows))
    if on_several_processors(sweep):
        clocks = [[f"{each[mode].clock:,}" for mode in sweep.modes] for each in sweep.comparisons]
        rows = list(zip(sweep.values, clocks, strict=True))
        found.append(Block(f"{sweep.name}: cycles to the end", sweep.modes, rows))
    return found


def heading(sweep: Sweep) -> str:
    """Return what was run, on one line, without what varied."""
    return heading_of(first_result(sweep), without=sweep.name)


def lines(sweep: Sweep) -> list[str]:
    """Return the whole report as plain text."""
    return text_of(heading(sweep), blocks(sweep), NOTES)


def show(sweep: Sweep, console: "Console") -> None:
    """Print the whole report to a terminal."""
    show_blocks(heading(sweep), blocks(sweep), NOTES, console)


def _more(base: float | None, figure: float | None) -> str:
    if not base or figure is None:
        return NONE
    return f"{100 * (figure / base - 1):+.2f} %"
