"""Cuts a window out of a trace, or some of its streams.

A raw trace can be cut anywhere. What a compact record has folded stands for no single access any more,
and is right within its block only: a compact trace is cut where blocks end.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.trace.chunks import Blocks
from mmu.trace.format import STREAM_COLUMNS, AnyPart, Compact, Header, Part, Raw
from mmu.trace.kinds import BLOCK
from mmu.trace.reader import Trace, open_trace
from mmu.trace.window import window
from mmu.trace.writer import write_compact, write_raw

Progress = Callable[[int, int], None]


class Streams(NamedTuple):
    """The spaces and threads that are kept; None: all."""

    space: frozenset[int] | None
    thread: frozenset[int] | None

    def kept(self, part: Part) -> NDArray[np.bool_] | None:
        """Return which records are of these streams, None if all are."""
        kept = None
        for name in STREAM_COLUMNS:
            wanted = getattr(self, name)
            if wanted is not None:
                column = getattr(part, name)
                numbers = np.zeros(len(part.kind), np.int64) if column is None else column
                found = np.isin(numbers, list(wanted))
                kept = found if kept is None else kept & found
        return kept

    def __str__(self) -> str:
        """Say which they are."""
        named = [
            f"{name} {', '.join(map(str, sorted(numbers)))}"
            for name, numbers in zip(STREAM_COLUMNS, self, strict=True)
            if numbers is not None
        ]
        return " and ".join(named)


def cut_trace(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    skip: int = 0,
    limit: int | None = None,
    spaces: Iterable[int] | None = None,
    threads: Iterable[int] | None = None,
    progress: Progress | None = None,
) -> Header:
    """Write a window of a trace, in its layout.

    Parameters
    ----------
    source, target : path
    skip, limit : int, optional
        Keep at most `limit` accesses after the first `skip` of the streams that are kept. Of a
        compact trace both edges must be ends of blocks.
    spaces, threads : iterable of int, optional
        Streams that are kept: those of one of the spaces, and of one of the threads. Without such a
        column all records are of number 0.
    progress : callable, optional
        Called now and then with the numbers of accesses read and to be read.

    Raises
    ------
    InputError
        The source is not a trace, the window is empty, an edge is not the end of a block, two blocks
        of a compact trace would become one, or the target cannot be written.
    """
    streams = Streams(
        None if spaces is None else frozenset(spaces),
        None if threads is None else frozenset(threads),
    )
    if skip < 0 or (limit is not None and limit < 1):
        raise InputError(
            f"{os.fspath(source)}: a window that skips {skip} and keeps {limit} accesses; "
            "accepted: skip from 0, limit from 1"
        )
    trace = open_trace(source)
    recording = recorded(trace, skip, limit, streams)
    if trace.compact:
        return write_compact(target, whole_blocks(trace, skip, limit, streams, progress), recording)
    return write_raw(target, raw_window(trace, skip, limit, streams, progress), recording)


def recorded(trace: Trace, skip: int, limit: int | None, streams: Streams) -> dict[str, Any]:
    """Return what is known of the recording, and what was cut out of what."""
    until = "the end" if limit is None else f"{skip + limit:,}"
    said = f"accesses {skip:,} to {until}" + (f" of {streams}" if str(streams) else "")
    said += f" of {Path(trace.path).name}"
    earlier = trace.metadata.get("cut")
    return trace.metadata | {"cut": f"{said}, which is {earlier}" if earlier else said}


def none_left(trace: Trace, skip: int, found: int, streams: Streams) -> InputError:
    """Return the error for an empty window."""
    of = f" of {streams}" if str(streams) else ""
    if found == 0:
        numbers = {name: sorted(known) for name, known in known_streams(trace).items()}
        there = "; ".join(
            f"{name} {', '.join(map(str, known[:20]))}" for name, known in numbers.items()
        )
        return InputError(f"{trace.path}: holds no accesses{of}; accepted: {there}")
    return InputError(
        f"{trace.path}: holds {found:,} accesses{of}, and {skip:,} are to be skipped; skip fewer"
    )


def known_streams(trace: Trace) -> dict[str, set[int]]:
    """Return the numbers of the spaces and threads that a trace has."""
    known: dict[str, set[int]] = {name: set() for name in STREAM_COLUMNS}
    for part in trace.parts():
        for name, numbers in known.items():
            column = getattr(part, name)
            if len(numbers) <= BLOCK:
                numbers.update([0] if column is None else np.unique(column).tolist())
    return known


def raw_window(
    trace: Trace, skip: int, limit: int | None, streams: Streams, progress: Progress | None
) -> Iterator[Raw]:
    """Yield a window of a raw trace, with the sizes of accesses."""
    found = 0

    def kept() -> Iterator[Raw]:
        nonlocal found
        done = 0
        for part in trace.parts(sizes=True):
            assert isinstance(part, Raw)
            done += len(part.kind)
            if progress is not None:
                progress(done, trace.accesses)
            chosen = streams.kept(part)
            left = part if chosen is None else selected(part, chosen)
            found += len(left.kind)
            yield left

    try:
        yield from window(kept(), trace.path, skip, limit)
    except InputError:
        if found <= skip:
            raise none_left(trace, skip, found, streams) from None
        raise


def selected(part: AnyPart, chosen: NDArray[np.bool_]) -> AnyPart:
    """Return the chosen records."""
    columns: dict[str, Any] = {
        name: None if column is None else column[chosen] for name, column in part._asdict().items()
    }
    return type(part)(**columns)


def whole_blocks(
    trace: Trace, skip: int, limit: int | None, streams: Streams, progress: Progress | None
) -> Iterator[Compact]:
    """Yield the blocks of a window of a compact trace."""
    end = None if limit is None else skip + limit
    found = done = 0
    last: tuple[int, int, int] | None = None  # space, thread and accesses of the last block kept
    with closing(trace.blocks()) as chunks:
        for cut in chunks:
            done += int(cut.accesses.sum())
            if progress is not None:
                progress(done, trace.accesses)
            chosen = streams.kept(cut.part)
            kept = np.ones(len(cut.accesses), bool) if chosen is None else chosen[cut.first[:-1]]
            ends = found + np.cumsum(np.where(kept, cut.accesses, 0))
            starts = ends - np.where(kept, cut.accesses, 0)
            for edge, option in ((skip, "skip"), (end, "limit")):
                if edge is not None:
                    inside = np.flatnonzero((starts < edge) & (edge < ends))
                    if len(inside):
                        near = int(starts[inside[0]]), int(ends[inside[0]])
                        raise off_edge(trace, option, skip, edge, near)
            kept &= starts >= skip
            if end is not None:
                kept &= ends <= end
            last = refuse_joined(trace, cut, kept, last)
            found = int(ends[-1])
            if kept.any():
                assert isinstance(cut.part, Compact)
                yield selected(cut.part, np.repeat(kept, np.diff(cut.first)))
            if end is not None and found >= end:
                return
    if found <= skip:
        raise none_left(trace, skip, found, streams)


def off_edge(trace: Trace, option: str, skip: int, edge: int, near: tuple[int, int]) -> InputError:
    """Return the error for an edge that is inside a block."""
    offset = 0 if option == "skip" else skip
    before, after = (place - offset for place in near)
    nearest = f"{after:,}" if option == "limit" and before < 1 else f"{before:,} and {after:,}"
    return InputError(
        f"{trace.path}: --{option} {edge - offset:,} is inside a block, and a compact trace is cut "
        f"where blocks end; the nearest are {nearest}, or cut the raw trace"
    )


def refuse_joined(
    trace: Trace, cut: Blocks, kept: NDArray[np.bool_], last: tuple[int, int, int] | None
) -> tuple[int, int, int] | None:
    """Refuse to leave out what keeps two blocks apart; return the last block kept.

    A block that is not full ends where another stream begins. If the next block that is kept is of
    its own stream, nothing says any more where it ended.
    """
    space, thread = (
        np.zeros(len(cut.accesses), np.int64) if column is None else column[cut.first[:-1]]
        for column in (cut.part.space, cut.part.thread)
    )
    for block in np.flatnonzero(kept).tolist():
        here = (int(space[block]), int(thread[block]), int(cut.accesses[block]))
        if last is not None and last[:2] == here[:2] and last[2] < BLOCK:
            raise InputError(
                f"{trace.path}: without the other streams a block of {last[2]:,} accesses of space "
                f"{last[0]}, thread {last[1]} would run into the next one, and compact records "
                "cannot be folded anew; cut the raw trace, and compact what comes out"
            )
        last = here
    return last
