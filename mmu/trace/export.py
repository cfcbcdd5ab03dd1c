"""Exports traces to formats of other tools, so that these can check what `mmu` counts."""

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.trace.ahead import ahead
from mmu.trace.champsim import CHAMPSIM, CLOUDSUITE, Layout
from mmu.trace.compress import packing
from mmu.trace.entries import EntryWriter
from mmu.trace.format import STREAM_COLUMNS, Compact, Raw
from mmu.trace.instructions import InstructionWriter
from mmu.trace.output import cannot_write, replacing
from mmu.trace.reader import Trace, open_trace
from mmu.trace.textlines import Style, TextWriter
from mmu.trace.unfold import PLACE_FIELDS, unfolded
from mmu.trace.window import window


class Writer(Protocol):
    """What turns accesses into a file of some format."""

    records: int

    def add(self, part: Raw) -> Any:
        """Return the bytes that a part completes."""

    def finish(self) -> Any:
        """Return the bytes that end the file."""

    def remarks(self) -> list[str]:
        """Return what the user should know of the file."""


class Target(NamedTuple):
    """A format that can be exported to; one row of `TARGETS`."""

    what: str  # for messages
    streams: tuple[str, ...]  # which of a trace's streams it can hold
    start: Callable[[Trace, int | None], Writer]  # given the trace and the ip


def text(style: Style) -> Callable[[Trace, int | None], Writer]:
    """Return what starts a file of lines."""
    return lambda trace, ip: TextWriter(style)


def instructions(layout: Layout) -> Callable[[Trace, int | None], Writer]:
    """Return what starts a file of instructions."""
    return lambda trace, ip: InstructionWriter(layout, trace.path, trace.has_fetches, ip)


TARGETS = {
    "champsim": Target("ChampSim's records of 64 bytes", (), instructions(CHAMPSIM)),
    "cloudsuite": Target("ChampSim's records of 96 bytes", ("space",), instructions(CLOUDSUITE)),
    "din": Target("Dinero's din", (), text(Style.DIN)),
    "xdin": Target("Dinero IV's extended din", (), text(Style.DIN_EXTENDED)),
    "lackey": Target("logs of valgrind --tool=lackey", (), text(Style.LACKEY)),
    "dynamorio": Target(
        "DynamoRIO's memory traces", STREAM_COLUMNS, lambda trace, ip: EntryWriter(trace.path)
    ),
    "csv": Target("comma-separated values", ("space", "thread"), text(Style.CSV)),
}


@dataclass(frozen=True)
class Exported:
    """What has been exported.

    Attributes
    ----------
    accesses, records : int
        Accesses of the trace; lines or records of the file.
    remarks : list of str
        What the file does not hold, or holds otherwise.
    """

    path: str
    accesses: int
    records: int
    remarks: list[str] = field(default_factory=list)


def export_trace(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str,
    space: int | None = None,
    thread: int | None = None,
    unfold: bool = False,
    ip: int | None = None,
    skip: int = 0,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Write a trace in another tool's format.

    Parameters
    ----------
    path : path
        A raw trace, or with `unfold` a compact one.
    out : path
        The file to write; packed if its name ends in .gz, .xz, .zst or .bz2. It appears when all of
        it has been written.
    to : str
        One of `TARGETS`.
    space, thread : int, optional
        Leave out the accesses of others.
    unfold : bool
        Make accesses of a compact trace, at the addresses of their pages (`mmu.trace.unfold`).
    ip : int, optional
        ChampSim: of the accesses before the first fetch, or of all if the trace has no fetches.
    skip, limit : int, optional
        Export at most `limit` accesses after the first `skip`, of those that are left.
    progress : callable, optional
        Called now and then with the number of accesses read so far, perhaps from another thread.

    Raises
    ------
    InputError
        The trace is compact and not to be unfolded, has streams or addresses that the format cannot
        hold, cannot be read, or the file cannot be written.
    """
    if to not in TARGETS:
        accepted = "; ".join(f"{name}, {target.what}" for name, target in TARGETS.items())
        raise InputError(f"format {to!r} is not known; accepted: {accepted}")
    trace = open_trace(path)
    target, writer = TARGETS[to], TARGETS[to].start(trace, ip)
    if trace.compact != unfold:
        raise InputError(
            f"{trace.path}: is compact, it has the numbers of pages and no addresses; export the raw "
            "trace, or unfold it into accesses at its pages' beginnings (--unfold)"
            if trace.compact
            else f"{trace.path}: is raw, there is nothing to unfold in it; leave out --unfold"
        )
    chosen = {"space": space, "thread": thread}
    parts = window(selected(raw_parts(trace), chosen, trace), trace.path, skip, limit, progress)
    accesses = 0
    with (
        replacing(out) as temporary,
        cannot_write(Path(out)),
        packing(temporary, os.fspath(out)) as packed,
    ):
        for part in ahead(fitting(parts, target, trace)):
            packed.write(writer.add(part))
            accesses += len(part.kind)
        packed.write(writer.finish())
    remarks = writer.remarks()
    if unfold:
        remarks.append(
            "unfolded: addresses are those of pages, and the order within records is ours"
        )
    return Exported(os.fspath(out), accesses, writer.records, remarks)


def raw_parts(trace: Trace) -> Iterator[Raw]:
    """Yield a trace's accesses, checked; those of a compact one unfolded."""
    place = np.zeros(PLACE_FIELDS, np.int64)
    for blocks in trace.blocks(sizes=True):
        if isinstance(blocks.part, Compact):
            yield from unfolded(blocks.part, place)
        else:
            yield blocks.part


def selected(parts: Iterator[Raw], chosen: dict[str, int | None], trace: Trace) -> Iterator[Raw]:
    """Yield the accesses of the streams that are chosen, where some are.

    Raises
    ------
    InputError
        The trace has none of them.
    """
    wanted = {name: number for name, number in chosen.items() if number is not None}
    found = False
    for part in parts:
        keep = np.ones(len(part.kind), bool)
        for name, number in wanted.items():
            column = getattr(part, name)
            keep &= (np.zeros(len(keep), np.int64) if column is None else column) == number
        found = found or bool(keep.any())
        yield part if keep.all() else masked(part, keep)
    if not found and wanted:
        streams = " and ".join(f"{name} {number}" for name, number in wanted.items())
        raise InputError(f"{trace.path}: has no accesses of {streams}")


def masked(part: Raw, keep: NDArray[np.bool_]) -> Raw:
    """Return the accesses of a part for which `keep` is true."""
    columns: dict[str, Any] = {
        name: None if column is None else column[keep] for name, column in part._asdict().items()
    }
    return Raw(**columns)


def fitting(parts: Iterator[Raw], target: Target, trace: Trace) -> Generator[Raw]:
    """Yield accesses without the streams that a format cannot hold; there must be one of each.

    Raises
    ------
    InputError
        There are more.
    """
    lost = [name for name in STREAM_COLUMNS if name not in target.streams]
    first: dict[str, int] = {}
    for part in parts:
        for name in lost:
            column = getattr(part, name)
            if column is None or not len(column):
                continue
            only = first.setdefault(name, int(column[0]))
            others = column[column != only]
            if len(others):
                raise InputError(
                    f"{trace.path}: has accesses of {name}s {only} and {others[0]}, and {target.what} "
                    f"cannot tell them apart; choose one with --{name}"
                )
        dropped: dict[str, Any] = dict.fromkeys(lost)
        yield part._replace(**dropped)
