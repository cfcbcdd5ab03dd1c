"""Results as tables for people: pure functions from results to blocks, from blocks to lines."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mmu.blocks import Block, cut, split
from mmu.blocks import lines as text_of
from mmu.blocks import show as show_blocks
from mmu.figures import HYPERVISOR, IDLE, LEVELS, MISSES, PERCENTILES, SERVED, SHARES, TOTAL
from mmu.result import Comparison, Result

if TYPE_CHECKING:
    from rich.console import Console

NONE = "-"
PARTS = ("miss_share.", "reads_served.")  # figures that are not shown where all are zero
_SHARE_LABELS = {
    "base": "running instructions",
    "translation": "translation",
    "faults": "faults",
    "exits": "exits, switches and hypervisor",
}


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
    Line("walk latency, mean", "walk_latency.mean", 1),
    *(Line(f"walk latency, {p} %", f"walk_latency.p{p}", 0) for p in PERCENTILES),
    *(
        Line(f"table reads served by {label}", f"reads_served.{level}", 2, True)
        for level, label in SERVED.items()
    ),
    *(Line(f"misses, {label}", f"miss_share.{cause}", 2, True) for cause, label in MISSES.items()),
]


def comparison_blocks(comparison: Comparison) -> list[Block]:
    """Return a block for each virtual machine and one in total: figures by modes.

    Where there are several logical processors, the last says how long each mode took them.
    """
    results = comparison.results
    blocks = []
    for vm in [*_busy(list(results.values())), TOTAL]:
        columns = {mode: result.metrics(vm) for mode, result in results.items()}
        blocks.append(Block(cut(vm, 40), list(columns), _figures(columns)))
    clocks = [result.clocks for result in results.values()]
    if any(len(each) > 1 for each in clocks):  # else it follows from the figures
        ends = {"longest": max, "shortest": min}
        rows = [
            (f"{which} processor", [f"{end(each):,}" for each in clocks])
            for which, end in ends.items()
        ]
        blocks.append(Block("cycles to the end", list(results), rows))
    return blocks


def result_blocks(result: Result) -> list[Block]:
    """Return everything one run counted: figures, events, cycles, references, evictions, memory."""
    vms = _busy([result])
    names = [*vms, TOTAL]
    metrics = {vm: result.metrics(vm) for vm in names}
    events = {event: event for event in result.counters}
    events |= {cache: f"hits.{cache}" for cache in result.hits}
    counted = [*names, HYPERVISOR]
    owners = [*result.vms, HYPERVISOR]
    kept = [n for n, owner in enumerate(owners) if owner in (*vms, HYPERVISOR)]
    walks = sorted({n for histogram in result.references for n in histogram})
    cycles = {cause: cause for cause in result.cycles} | {"all": "all"}
    misses = {cause: label for cause, label in MISSES.items() if cause in result.misses}
    reads = {where: where.replace(".", ", ") for where in result.reads}

    def cycles_of(cause: str, vm: str) -> int:
        return result.cycle_count(tuple(result.cycles) if cause == "all" else (cause,), vm)

    blocks = [
        Block(f"figures, {result.mode}", names, _figures(metrics)),
        Block("counts", counted, _counts(events, counted, result.count)),
        Block("cycles", names, _counts(cycles, names, cycles_of)),
        _by_processor(result),
        Block("misses by cause", counted, _counts(misses, counted, result.misses_by)),
        Block("table reads by where served", counted, _counts(reads, counted, result.count)),
        Block(
            "walks by references",
            counted,
            [(str(n), [f"{_walks(result, n, vm):,}" for vm in counted]) for n in walks],
        ),
        Block(
            "evictions, by row of column",
            [owners[n] for n in kept],
            [(owners[by], [f"{result.evictions[by][n]:,}" for n in kept]) for by in kept]
            if any(map(any, result.evictions))
            else [],
        ),
        Block(
            "memory",
            [owners[n] for n in kept],
            [(what, [f"{counts[n]:,}" for n in kept]) for what, counts in result.memory.items()],
        ),
    ]
    return split(blocks)


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
    if isinstance(run, Result):
        found.append("Counts of nothing are left out.")
    if any(result.misses for result in results):
        found.append("Misses are those of every TLB, each with a walk after it, in parts by cause.")
    if any(sum(result.cycles.get(IDLE, ())) for result in results):
        found.append("Idle cycles, with nobody to run, are on the clock and in no figure.")
    if {"purge", "flush"} <= set(modes):
        flush = results[modes.index("flush")]
        exits = flush.count("exits")
        if exits:
            found.append(
                f"Mode flush drops all entries at each of {exits:,} exits, mode purge at none."
            )
        elif len(flush.clocks) == 1 and not _of(flush.config, "processor").get("flush_nested"):
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
                f"{cut(vm, 40)}: {given:,} pages by its page map; {mapped - given:,} that it lacks, at "
                "first touch."
            )
    return said


def heading(run: Result | Comparison) -> str:
    """Return what was run, on one line."""
    return heading_of(run if isinstance(run, Result) else next(iter(run.results.values())))


def heading_of(result: Result, without: str = "") -> str:
    """Return what was run, on one line, without the option of that name."""
    config = result.config
    processor, quantum = _of(config, "processor"), _of(config, "quantum")
    guests = [vm for vm in [config.get("root"), *config.get("vms", [])] if isinstance(vm, Mapping)]
    lps = len(result.clocks)
    parts = {
        "processor": str(processor.get("name", "")),
        "lps": f"{lps} logical processors" if lps > 1 else "",
        "vms": f"{len(guests)} VM{'s' if len(guests) != 1 else ''}",
        "quantum": f"quantum {quantum.get('value', NONE):,} {quantum.get('unit', '')}"
        if quantum
        else "",
        "exits-per-second": f"{config.get('exits_per_second', 0):,} exits/s",
        **_unusual(config, processor, guests),
        "guest-pages": _pages(guests, "guest"),
        "nested-pages": _pages(guests, "nested"),
        "seed": f"seed {config.get('seed', 0)}",
    }
    return ", ".join(text for name, text in parts.items() if text and name != without)


def _unusual(
    config: Mapping[str, Any], processor: Mapping[str, Any], guests: list[Mapping[str, Any]]
) -> dict[str, str]:
    """Return what a heading says of options that are seldom given, by option."""
    shootdowns, window = config.get("shootdowns_per_second"), config.get("window")
    reads = config.get("table_reads")
    usual = "walker" if processor.get("data_caches") else "fixed"
    vcpus = sorted({vm.get("vcpus", 1) for vm in guests})
    return {
        "shootdowns-per-second": f"{shootdowns:,} shootdowns/s" if shootdowns else "",
        "vcpus": f"vcpus {'/'.join(map(str, vcpus))}" if any(n != 1 for n in vcpus) else "",
        "pinned": "pinned" if config.get("pinned") else "",
        "migration-flush": "" if config.get("migration_flush", True) else "no migration flush",
        "window": f"window {window:,} instructions" if window else "",
        "table-reads": f"table reads {reads}" if reads and reads != usual else "",
    }


def blocks(run: Result | Comparison) -> list[Block]:
    """Return what a report has to show."""
    return comparison_blocks(run) if isinstance(run, Comparison) else result_blocks(run)


def lines(run: Result | Comparison) -> list[str]:
    """Return the whole report as plain text, no line longer than `WIDTH`."""
    return text_of(heading(run), blocks(run), notes(run))


def show(run: Result | Comparison, console: "Console") -> None:
    """Print the whole report to a terminal."""
    show_blocks(heading(run), blocks(run), notes(run), console)


def _figures(columns: Mapping[str, Mapping[str, float | None]]) -> list[tuple[str, list[str]]]:
    """Return a row for each figure that some column has; a part of something, if it is not 0."""
    rows = []
    for line in FIGURES:
        values = [metrics[line.metric] for metrics in columns.values()]
        shown = any(values) if line.metric.startswith(PARTS) else values.count(None) < len(values)
        if shown:
            rows.append((line.label, [number(value, line) for value in values]))
    return rows


def _counts(
    labels: Mapping[str, str], names: list[str], counted: Callable[[str, str], int | None]
) -> list[tuple[str, list[str]]]:
    """Return a row for each thing that some column counted more than nothing of."""
    rows = []
    for what, label in labels.items():
        values = [counted(what, name) or 0 for name in names]
        if any(values):
            rows.append((label, [f"{value:,}" for value in values]))
    return rows


def _by_processor(result: Result) -> Block:
    """Return what each logical processor spent its cycles on, if there are several."""
    kinds = {**SHARES, IDLE: (IDLE,)}
    rows = []
    for lp, (clock, table) in enumerate(zip(result.clocks, result.processors, strict=True)):
        spent = [sum(sum(table.get(cause, ())) for cause in causes) for causes in kinds.values()]
        rows.append((str(lp), [f"{cycles:,}" for cycles in (clock, *spent)]))
    return Block("cycles by processor", ["all", *kinds], rows if len(rows) > 1 else [])


def number(value: float | None, line: Line) -> str:
    """Return a figure as text."""
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
