"""Tables under titles, as plain text and on a terminal; wide ones are split."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100  # characters that a block may take
GAP = 3  # between columns
CONTINUED = ", continued"


class Block(NamedTuple):
    """A table under a title; the first column is the label of a row."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def lines(heading: str, blocks: Sequence[Block], notes: Sequence[str]) -> list[str]:
    """Return a report as plain text, no block wider than `WIDTH`."""
    text = wrap(heading, WIDTH)
    for block in split(blocks):
        text += ["", *_block_lines(block)]
    return [*text, "", *notes] if notes else text


def show(heading: str, blocks: Sequence[Block], notes: Sequence[str], console: "Console") -> None:
    """Print a report to a terminal."""
    from rich.table import Table  # noqa: PLC0415  slow to import, and a pipe does not need it
    from rich.text import Text  # noqa: PLC0415

    console.print(Text(heading, style="bold"))
    for block in split(blocks):
        table = Table(box=None, padding=(0, 1))
        table.add_column("")
        for column in block.columns:
            table.add_column(Text(column), justify="right", no_wrap=True)
        for label, cells in block.rows:
            table.add_row(Text(label), *map(Text, cells))
        console.print()
        console.print(Text(block.title, style="bold"))  # a table's own would wrap at its width
        console.print(table)
    console.print()
    for note in notes:
        console.print(Text(note, style="dim"))


def split(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks that have rows, in several parts where one is too wide."""
    return [part for block in blocks if block.rows for part in _split(block)]


def cut(text: str, width: int) -> str:
    """Return a text that is no longer than some width."""
    return text if len(text) <= width else text[: width - 2] + ".."


def _widths(block: Block) -> list[int]:
    cells = [cells for _, cells in block.rows]
    return [
        max(len(name), *(len(row[n]) for row in cells)) + GAP
        for n, name in enumerate(block.columns)
    ]


def _split(block: Block) -> Iterator[Block]:
    """Yield a block, or several with some of its columns each where it is too wide."""
    rows = [(cut(text, 48), cells) for text, cells in block.rows]
    block = block._replace(columns=[cut(name, 14) for name in block.columns], rows=rows)
    label = max(len(block.title) + len(CONTINUED), *(len(text) for text, _ in rows))
    widths = _widths(block)
    begin = 0
    while begin < len(widths):
        end = begin + 1
        while end < len(widths) and label + sum(widths[begin : end + 1]) <= WIDTH:
            end += 1
        part = [(text, cells[begin:end]) for text, cells in rows]
        title = block.title if begin == 0 else block.title + CONTINUED
        yield Block(title, block.columns[begin:end], part)
        begin = end


def _block_lines(block: Block) -> list[str]:
    label = max(len(block.title), *(len(text) for text, _ in block.rows))
    widths = _widths(block)

    def line(first: str, cells: list[str]) -> str:
        aligned = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{first:{label}}{''.join(aligned)}".rstrip()

    rule = "-" * (label + sum(widths))
    return [line(block.title, block.columns), rule, *(line(*row) for row in block.rows)]
