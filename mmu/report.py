"""Results as tables for people: pure functions from results to blocks, from blocks to lines."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mmu.result import HYPERVISOR, IDLE, LEVELS, SHARES, TOTAL, Comparison, Result

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100  # characters that a block may take
GAP = 3  # between columns
NONE = "-"
CONTINUED = ", continued"
_SHARE_LABELS = {
    "base": "running instructions",
    "translation": "translation",
    "faults": "faults",
    "exits": "exits, switches and hypervisor",
}


class Block(NamedTuple):
    """A table under a title; the first column is the label of a row."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


class Line(NamedTuple):
    """A figure as it is shown."""

    label: str
    metric: str
    decimals: int
    percent: bool = False


FIGURES = [
    *(Line(f"hit rate, {label}", f"hit_rate.{level}", 2, True) for level, label in LEVELS.items()),
    *(
        Line(f"misses per 1,000 instructions, {LEVELS[level]}", f"misses_per_thousand.{level}", 3)
        for level in ("l1_data", "l1_fetch", "l2", "nested_tlb")
    ),
    Line("walks per 1,000 instructions", "walks_per_thousand", 3),
    Line("dirty walks per 1,000 instructions", "dirty_walks_per_thousand", 3),
    Line("hypervisor's walks per 1,000 instr.", "hypervisor_walks_per_thousand", 3),
    Line("references per walk", "references_per_walk", 2),
    Line("cycles per instruction", "cycles_per_instruction", 3),
    *(Line(f"share of cycles, {_SHARE_LABELS[kind]}", f"share.{kind}", 2, True) for kind in SHARES),
]


def comparison_blocks(comparison: Comparison) -> list[Block]:
    """Return a block for each virtual machine and one in total: figures by modes."""
    results = comparison.results
    blocks = []
    for vm in [*_busy(list(results.values())), TOTAL]:
        columns = {mode: result.metrics(vm) for mode, result in results.items()}
        blocks.append(Block(_cut(vm, 40), list(columns), _figures(columns)))
    return blocks


def result_blocks(result: Result) -> list[Block]:
    """Return everything one run counted: figures, events, cycles, references, evictions, memory."""
    vms = _busy([result])
    names = [*vms, TOTAL]
    metrics = {vm: result.metrics(vm) for vm in names}
    events = [(event, event) for event in result.counters]
    events += [(f"hits.{cache}", cache) for cache in result.hits]
    counted = [*names, HYPERVISOR]
    owners = [*result.vms, HYPERVISOR]
    kept = [n for n, owner in enumerate(owners) if owner in (*vms, HYPERVISOR)]
    reads = sorted({n for histogram in result.references for n in histogram})
    blocks = [
        Block(f"figures, {result.mode}", names, _figures(metrics)),
        Block(
            "counts",
            counted,
            [(label, [f"{result.count(e, vm):,}" for vm in counted]) for label, e in events],
        ),
        Block(
            "cycles",
            names,
            [
                (cause, [f"{result.cycle_count((cause,), vm):,}" for vm in names])
                for cause in result.cycles
            ]
            + [("all", [f"{result.cycle_count(tuple(result.cycles), vm):,}" for vm in names])],
        ),
        Block(
            "walks by references",
            counted,
            [(str(n), [f"{_walks(result, n, vm):,}" for vm in counted]) for n in reads],
        ),
        Block(
            "evictions, by row of column",
            [owners[n] for n in kept],
            [(owners[by], [f"{result.evictions[by][n]:,}" for n in kept]) for by in kept],
        ),
        Block(
            "memory",
            [owners[n] for n in kept],
            [(what, [f"{counts[n]:,}" for n in kept]) for what, counts in result.memory.items()],
        ),
    ]
    return [narrow for block in blocks if block.rows for narrow in _split(block)]


def notes(run: Result | Comparison) -> list[str]:
    """Return what a reader of the blocks should know, one sentence or two a line."""
    results = [run] if isinstance(run, Result) else list(run.results.values())
    modes = [result.mode for result in results]
    found = [
        "Hit rates are local: hits / look-ups of that level. A walk follows a miss of every TLB; a",
        "dirty walk sets the dirty bit of a page that a TLB had, and counts there as a hit.",
    ]
    if any(result.count("exits") for result in results):
        found.append(
            "What the hypervisor touches at exits is in no rate; its cycles are in the share."
        )
    if any(sum(result.cycles.get(IDLE, ())) for result in results):
        found.append("Idle cycles, before a start, are on the clock and in no figure.")
    if {"purge", "flush"} <= set(modes):
        flush = results[modes.index("flush")]
        exits = flush.count("exits")
        if exits:
            found.append(
                f"Mode flush drops all entries at each of {exits:,} exits, mode purge at none."
            )
        elif not _of(flush.config, "processor").get("flush_nested"):
            found.append("Without exits, on one processor, purge and flush give equal rates.")
    if "native" in modes:
        found.append(
            "Native: the same programs without a hypervisor, so no nested tables, no exits."
        )
    found += _first_touched(results[0])
    if any(None in result.metrics(vm).values() for result in results for vm in _busy(results)):
        found.append(f"{NONE} : nothing to divide by, or the processor has no such cache.")
    return found


def _first_touched(result: Result) -> list[str]:
    """Say how many pages page maps gave, and how many they lacked."""
    owners = [*result.vms, HYPERVISOR]
    said = []
    for vm in result.vms:
        n = owners.index(vm)
        given = sum(
            result.memory.get(f"page_map_{size}", [0] * len(owners))[n] for size in ("4k", "2m")
        )
        if given:
            mapped = sum(result.memory[f"guest_{size}"][n] for size in ("4k", "2m"))
            said.append(
                f"{_cut(vm, 40)}: {given:,} pages by its page map; {mapped - given:,} that it lacks, at "
                "first touch."
            )
    return said


def heading(run: Result | Comparison) -> str:
    """Return what was run, on one line."""
    result = run if isinstance(run, Result) else next(iter(run.results.values()))
    config = result.config
    processor, quantum = _of(config, "processor"), _of(config, "quantum")
    guests = [vm for vm in [config.get("root"), *config.get("vms", [])] if isinstance(vm, Mapping)]
    parts = [
        str(processor.get("name", "")),
        f"{len(guests)} VM{'s' if len(guests) != 1 else ''}",
        f"quantum {quantum.get('value', NONE):,} {quantum.get('unit', '')}" if quantum else "",
        f"{config.get('exits_per_second', 0):,} exits/s",
        *(_pages(guests, dimension) for dimension in ("guest", "nested")),
        f"seed {config.get('seed', 0)}",
    ]
    return ", ".join(part for part in parts if part)


def lines(run: Result | Comparison) -> list[str]:
    """Return the whole report as plain text, no line longer than `WIDTH`."""
    blocks = comparison_blocks(run) if isinstance(run, Comparison) else result_blocks(run)
    text = [_cut(heading(run), WIDTH)]
    for block in blocks:
        text += ["", *_block_lines(block)]
    return [*text, "", *notes(run)]


def show(run: Result | Comparison, console: "Console") -> None:
    """Print the whole report to a terminal."""
    from rich.table import Table  # noqa: PLC0415  slow to import, and a pipe does not need it
    from rich.text import Text  # noqa: PLC0415

    blocks = comparison_blocks(run) if isinstance(run, Comparison) else result_blocks(run)
    console.print(Text(_cut(heading(run), WIDTH), style="bold"))
    for block in blocks:
        table = Table(
            title=Text(block.title, style="bold"), title_justify="left", box=None, padding=(0, 1)
        )
        table.add_column("")
        for column in block.columns:
            table.add_column(Text(column), justify="right", no_wrap=True)
        for label, cells in block.rows:
            table.add_row(Text(label), *map(Text, cells))
        console.print()
        console.print(table)
    console.print()
    for note in notes(run):
        console.print(Text(note, style="dim"))


def _figures(columns: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, list[str]]]:
    """Return a row for each figure that some column has."""
    rows = []
    for line in FIGURES:
        values = [metrics[line.metric] for metrics in columns.values()]
        if any(value is not None for value in values):
            rows.append((line.label, [_number(value, line) for value in values]))
    return rows


def _number(value: float | None, line: Line) -> str:
    if value is None:
        return NONE
    if line.percent:
        return f"{100 * value:.{line.decimals}f} %"
    return f"{value:,.{line.decimals}f}"


def _busy(results: list[Result]) -> list[str]:
    """Return the virtual machines that ran: the root's row is there even if it is idle."""
    return [vm for vm in results[0].vms if any(result.count("accesses", vm) for result in results)]


def _walks(result: Result, reads: int, of: str) -> int:
    names = result.vms if of == TOTAL else [of]
    if of == HYPERVISOR:
        names = result.rows[len(result.vms) :]
    return sum(result.references[result.rows.index(name)].get(reads, 0) for name in names)


def _pages(guests: list[Mapping[str, Any]], dimension: str) -> str:
    found = sorted({str(vm.get(f"{dimension}_pages", NONE)) for vm in guests})
    return f"{dimension} pages {'/'.join(found)}" if found else ""


def _of(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."


def _widths(block: Block) -> list[int]:
    cells = [cells for _, cells in block.rows]
    return [
        max(len(name), *(len(row[n]) for row in cells)) + GAP
        for n, name in enumerate(block.columns)
    ]


def _split(block: Block) -> Iterator[Block]:
    """Yield a block, or several with some of its columns each where it is too wide."""
    rows = [(_cut(text, 48), cells) for text, cells in block.rows]
    block = block._replace(columns=[_cut(name, 14) for name in block.columns], rows=rows)
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
