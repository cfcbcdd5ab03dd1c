"""Merges traces into one, in turns, as address spaces or as threads.

A turn ends where a block of its trace ends, so that the blocks of the merged trace are those of the
traces that it is made of: compact traces can be merged as they are.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from mmu.errors import InputError
from mmu.trace.chunks import Blocks
from mmu.trace.format import Column, Compact, Header, Part, Raw, rows
from mmu.trace.kinds import BLOCK
from mmu.trace.parquet import stored
from mmu.trace.reader import CHUNK_RECORDS, Trace, open_trace
from mmu.trace.writer import write_compact, write_raw

STREAMS = {"spaces": "space", "threads": "thread"}
MOST_NUMBERS = 1 << 16  # spaces have 16 bits, and the threads' numbers are kept in the metadata
MOST_RECORDS = 1 << 19  # in memory at once, over all traces
LEAST_RECORDS = BLOCK

Progress = Callable[[int, int], None]


def merge_traces(
    sources: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    streams: str = "spaces",
    turn: int = BLOCK,
    progress: Progress | None = None,
) -> Header:
    """Write several traces as one, a turn of each in the order given, until all have ended.

    Parameters
    ----------
    sources : sequence of path
        All raw or all compact. A trace may be there several times.
    target : path
    streams : {"spaces", "threads"}
        ``spaces``: each trace becomes an address space of its own, or several if it has several.
        ``threads``: each becomes a thread, or several; spaces of the same number are one.
        The new numbers count from 0 in the order of first appearance; which is whose stands in the
        metadata under ``merged``.
    turn : int
        Accesses; a turn ends at the first end of a block that reaches them.
    progress : callable, optional
        Called now and then with the numbers of accesses written and to be written.

    Raises
    ------
    InputError
        A source is not a trace, they are of both layouts, or there are too many streams.
    """
    if streams not in STREAMS:
        raise InputError(f"streams: found {streams!r}; accepted: {' | '.join(STREAMS)}")
    if turn < 1:
        raise InputError(f"turn: found {turn}; accepted: from 1")
    if len(sources) < 2:
        raise InputError(f"found {len(sources)} traces to merge; accepted: at least 2")
    traces = [open_trace(source) for source in sources]
    by_layout = {trace.compact: trace.path for trace in traces}
    if len(by_layout) > 1:
        raise InputError(
            f"{by_layout[True]} is compact and {by_layout[False]} is raw; accepted: all of one layout; "
            "'mmu trace compact' makes a compact trace of a raw one"
        )
    numbers = Numbers(traces, STREAMS[streams])

    def recording() -> dict[str, Any]:
        return {"tool": "mmu trace merge", "turn": turn, "merged": numbers.said}

    parts = merged(traces, numbers, turn, progress)
    if traces[0].compact:
        return write_compact(
            target, (part for part in parts if isinstance(part, Compact)), recording
        )
    return write_raw(target, (part for part in parts if isinstance(part, Raw)), recording)


class Numbers:
    """Gives each space, or thread, of each trace a number of its own."""

    def __init__(self, traces: list[Trace], stream: str) -> None:
        self.stream = stream
        self.columns = {stream, *(name for trace in traces for name in columns_of(trace))}
        self.given: list[dict[int, int]] = [{} for _ in traces]
        self.total = 0
        self.said: list[dict[str, Any]] = [
            {"trace": Path(trace.path).name, "recording": trace.metadata, stream: {}}
            for trace in traces
        ]

    def renumbered(self, which: int, part: Part) -> Part:
        """Return a part of a trace with the numbers of the merged one, in both columns."""
        old: Column | None = getattr(part, self.stream)
        known = self.given[which]
        numbers = np.zeros(1, np.uint32) if old is None else old
        values, first = np.unique(numbers, return_index=True)
        for value in values[np.argsort(first)].tolist():
            if value not in known:
                if self.total == MOST_NUMBERS:
                    raise InputError(
                        f"merging makes more than {MOST_NUMBERS:,} {self.stream}s; merge fewer traces"
                    )
                known[value] = self.total
                self.said[which][self.stream][str(value)] = self.total
                self.total += 1
        new = np.array([known[value] for value in values.tolist()], np.uint32)
        records = len(part.kind)
        columns = {}
        for name, dtype in (("space", np.uint16), ("thread", np.uint32)):
            column = getattr(part, name)
            if name in self.columns:
                columns[name] = np.zeros(records, dtype) if column is None else column
        own = new[np.searchsorted(values, columns[self.stream])]
        columns[self.stream] = own.astype(columns[self.stream].dtype)
        if isinstance(part, Raw) and part.size is None:
            columns["size"] = np.zeros(records, np.uint16)
        return part._replace(**columns)


def columns_of(trace: Trace) -> tuple[str, ...]:
    """Return the columns that a trace's file has."""
    with stored(trace.path) as source:
        return source.names


class Turns:
    """One trace, a turn at a time."""

    def __init__(self, trace: Trace, records: int) -> None:
        self.chunks = trace.blocks(records, sizes=True)
        self.cut: Blocks | None = None
        self.block = 0
        self.made = 0  # accesses

    def take(self, turn: int) -> Iterator[Part]:
        """Yield the parts of a turn; none once the trace has ended."""
        made = 0
        while made < turn:
            if self.cut is None or self.block == len(self.cut.accesses):
                self.cut, self.block = next(self.chunks, None), 0
                if self.cut is None:
                    return
            sums = np.cumsum(self.cut.accesses[self.block :])
            end = self.block + min(int(np.searchsorted(sums, turn - made)) + 1, len(sums))
            made += int(sums[end - self.block - 1])
            self.made += int(sums[end - self.block - 1])
            first = self.cut.first
            yield rows(self.cut.part, int(first[self.block]), int(first[end]))
            self.block = end


def merged(
    traces: list[Trace], numbers: Numbers, turn: int, progress: Progress | None
) -> Iterator[Part]:
    """Yield the turns of all traces, round and round, in parts of a fair size."""
    records = max(LEAST_RECORDS, min(CHUNK_RECORDS, MOST_RECORDS // len(traces)))
    whole = sum(trace.accesses for trace in traces)
    waiting: list[Part] = []
    held = 0
    with ExitStack() as stack:
        every = [Turns(trace, records) for trace in traces]
        for turns in every:
            stack.enter_context(closing(turns.chunks))
        running = dict(enumerate(every))
        while running:
            for which, turns in list(running.items()):
                taken = list(turns.take(turn))
                if not taken:
                    del running[which]
                for part in taken:
                    waiting.append(numbers.renumbered(which, part))
                    held += len(part.kind)
                if held >= CHUNK_RECORDS:
                    yield joined(waiting)
                    waiting, held = [], 0
                    if progress is not None:
                        progress(sum(turns.made for turns in every), whole)
    if waiting:
        yield joined(waiting)


def joined(parts: list[Part]) -> Part:
    """Return parts with the same columns as one."""
    columns: dict[str, Any] = {
        name: None if column is None else np.concatenate([getattr(part, name) for part in parts])
        for name, column in parts[0]._asdict().items()
    }
    return type(parts[0])(**columns)
