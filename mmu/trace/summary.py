"""Tells what is in a trace: what it touches, how much at a time, and how soon again."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmu.errors import InputError
from mmu.trace import reuse
from mmu.trace.ahead import ahead
from mmu.trace.chunks import Blocks, Chunk, chunk_of
from mmu.trace.format import Column
from mmu.trace.histogram import EDGES, LINEAR, MOST_BITS, below
from mmu.trace.kinds import BLOCK, HUGE_SHIFT, LARGE_SHIFT, PAGE_SHIFT
from mmu.trace.pages import SPACE_BITS, SPACE_MASK
from mmu.trace.reader import open_trace
from mmu.trace.reuse import Measures, measure, new_measures, widened

# Pages are held in memory, 70 bytes each: 2^24 are 64 GiB that the traced program touched.
MOST_PAGES = 1 << 24
FIRST_ROOM = 1 << 14
MOST_STREAMS = 1 << 16  # threads that are counted one by one
WINDOWS = 100
ENTRIES = (64, 1536)  # the small pages' data L1 and the L2 of skylake-sp
SIDES = {"fetch": reuse.FETCH_SIDE, "data": reuse.DATA_SIDE, "both": reuse.BOTH}
PAGE_SIZES = {"4k": PAGE_SHIFT, "2m": LARGE_SHIFT, "1g": HUGE_SHIFT}

Progress = Callable[[int, int], None]


def info(
    path: str | os.PathLike[str],
    windows: int = WINDOWS,
    entries: Iterable[int] = ENTRIES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read a trace from end to end and tell what is in it.

    The distance of an access is the number of distinct 4 KiB pages that its side (fetches, or reads
    and writes) has touched since it touched this one, 0 for the page that it touched last. For both
    sides together an access to the page that its side touched last in the block has distance 0, and
    does not make that page the most recent of both: each side is at one page at a time, and what
    counts is how often it goes to another. A compact trace does not tell the two sides' accesses
    apart any further, so that both layouts of a trace give the same numbers.

    Pages of different spaces are different pages.

    Parameters
    ----------
    path : path
    windows : int
        Parts of about as many accesses each, cut at block ends, of which the working set is told.
    entries : iterable of int
        Sizes of fully associative LRU TLBs whose hit rates are told: those of one side's accesses
        alone, or of both sides' in one TLB.
    progress : callable, optional
        Called now and then with the numbers of accesses read and to be read.

    Returns
    -------
    dict
        ``layout``, ``accesses``, ``fetches``, ``reads``, ``writes``, ``records``, ``fold``
        (accesses per record of the file), ``folded`` (share of accesses that a compact trace folds
        away), ``blocks``, ``pages`` and ``large_pages`` (distinct 4 KiB and 2 MiB pages),
        ``spaces``, ``threads``, ``file_bytes``; ``footprint``: for ``4k``, ``2m``, ``1g`` the
        ``pages`` and ``bytes``; ``accesses_by``: accesses of each ``space`` and ``thread``;
        ``working_set``: for each window the ``accesses`` until its end, ``pages`` and
        ``large_pages`` touched in it, ``all_pages`` and ``all_large_pages`` touched until its end;
        ``reuse``: for ``fetch``, ``data``, ``both`` the ``accesses``, the ``cold`` ones (their page
        is new to the side, so that it is the number of its pages), ``distance`` (pairs of a least
        distance, 0 or a power of two, and the number of accesses from there to below the next),
        ``percentiles`` of the distance (cold ones are the farthest: None) and ``hit_rate`` by
        entries; ``recording``: what the file says of its origin. What there is too much of to
        count is None.

    Raises
    ------
    InputError
        The file is not a trace or is damaged; `windows` or `entries` cannot be.
    """
    sizes = checked_entries(entries)
    if not 1 <= windows <= MOST_STREAMS:
        raise InputError(f"windows: found {windows}; accepted: 1 to {MOST_STREAMS:,}")
    trace = open_trace(path)
    measures: Measures | None = new_measures(FIRST_ROOM, windows)
    blocks = done = 0
    streams: dict[str, dict[int, int] | None] = {"space": {}, "thread": {}}
    for cut in ahead(trace.blocks()):
        blocks += len(cut.accesses)
        done += int(cut.accesses.sum())
        for name, known in streams.items():
            streams[name] = counted(known, getattr(cut.part, name), cut)
        if measures is not None:
            measures = measured(measures, chunk_of(cut, trace.has_fetches), trace.accesses)
        if progress is not None:
            progress(done, trace.accesses)
    footprint = None if measures is None else footprint_of(measures)
    return {
        "layout": trace.header.layout,
        "accesses": trace.accesses,
        "fetches": trace.fetches,
        "reads": trace.reads,
        "writes": trace.writes,
        "records": trace.records,
        "fold": trace.accesses / trace.records,
        "folded": None if measures is None else folded_share(measures, trace.accesses),
        "blocks": blocks,
        "pages": None if footprint is None else footprint["4k"]["pages"],
        "large_pages": None if footprint is None else footprint["2m"]["pages"],
        "spaces": tally(streams["space"]),
        "threads": tally(streams["thread"]),
        "file_bytes": Path(path).stat().st_size,
        "footprint": footprint,
        "accesses_by": streams,
        "working_set": None if measures is None else working_set(measures),
        "reuse": None
        if measures is None
        else {side: distances(measures, row, sizes) for side, row in SIDES.items()},
        "recording": trace.metadata,
    }


def checked_entries(entries: Iterable[int]) -> list[int]:
    """Return sizes of TLBs in ascending order, each of which lies between two buckets."""
    sizes = sorted(set(entries))
    for size in sizes:
        if not 1 <= size <= EDGES[-1]:
            raise InputError(f"entries: found {size}; accepted: 1 to {EDGES[-1]:,}")
        place = int(np.searchsorted(EDGES, size))
        if EDGES[place] != size:
            near = f"{EDGES[place - 1]:,} and {EDGES[place]:,} are the nearest"
            raise InputError(
                f"entries: found {size}; accepted: up to {LINEAR:,} any number, above that those of "
                f"10 significant bits; {near}"
            )
    return sizes


def measured(measures: Measures, chunk: Chunk, whole: int) -> Measures | None:
    """Measure a chunk, making room where it is short; None once there are too many pages."""
    block = 0
    while True:
        columns = (chunk.address, chunk.kind, chunk.fetches, chunk.reads, chunk.writes)
        block = measure(measures, *columns, chunk.first, chunk.space, chunk.accesses, whole, block)
        pages = int(measures.pages.tally[0])
        if pages > MOST_PAGES:
            return None
        if block == len(chunk.space):
            return measures
        if pages + BLOCK > 2 * MOST_PAGES:
            return None
        measures = widened(measures)


def counted(
    known: dict[int, int] | None, column: Column | None, cut: Blocks
) -> dict[int, int] | None:
    """Add the accesses of whole blocks to those of their spaces or threads."""
    if known is None:
        return None
    if column is None:
        values: Column = np.zeros(len(cut.accesses), np.int64)
    else:
        values = column[cut.first[:-1]]
    numbers, inverse = np.unique(values, return_inverse=True)
    sums = np.zeros(len(numbers), np.int64)
    np.add.at(sums, inverse, cut.accesses)
    for number, accesses in zip(numbers.tolist(), sums.tolist(), strict=True):
        known[number] = known.get(number, 0) + accesses
    return known if len(known) <= MOST_STREAMS else None


def footprint_of(measures: Measures) -> dict[str, dict[str, int]]:
    """Return the distinct pages of each size, and the bytes that they span."""
    keys = measures.pages.key[: measures.pages.tally[0]]
    page, space = keys >> SPACE_BITS, keys & SPACE_MASK
    found = {}
    for size, shift in PAGE_SIZES.items():
        pages = len(np.unique(page >> shift - PAGE_SHIFT << SPACE_BITS | space))
        found[size] = {"pages": pages, "bytes": pages << shift}
    return found


def folded_share(measures: Measures, accesses: int) -> float:
    """Return the share of accesses that a compact trace has no record of their own for."""
    return 1 - int(measures.progress[reuse.HEADS]) / accesses


def working_set(measures: Measures) -> dict[str, list[int]]:
    """Return what each window touches."""
    series = measures.series[:, measures.series[reuse.ENDS] > 0]
    rows = {
        "accesses": reuse.ENDS,
        "pages": reuse.PAGES,
        "large_pages": reuse.LARGE_PAGES,
        "all_pages": reuse.ALL_PAGES,
        "all_large_pages": reuse.ALL_LARGE_PAGES,
    }
    return {name: series[row].tolist() for name, row in rows.items()}


def distances(measures: Measures, side: int, entries: list[int]) -> dict[str, Any]:
    """Return a side's histogram by powers of two, and the hit rates that it implies."""
    histogram = measures.histogram[side]
    cold = int(measures.cold[side])
    accesses = int(histogram.sum()) + cold
    least = [0, *(1 << bit for bit in range(MOST_BITS))]
    sums = [below(histogram, edge) for edge in [*least[1:], 1 << MOST_BITS]]
    pairs = [
        (edge, after - before)
        for edge, before, after in zip(least, [0, *sums[:-1]], sums, strict=True)
    ]
    while pairs and not pairs[-1][1]:
        pairs.pop()
    return {
        "accesses": accesses,
        "cold": cold,
        "distance": pairs,
        "percentiles": {str(p): percentile(histogram, accesses, p) for p in (50, 90, 99, 99.9)},
        "hit_rate": {
            str(size): below(histogram, size) / accesses if accesses else None for size in entries
        },
    }


def percentile(histogram: Column, accesses: int, percent: float) -> int | None:
    """Return the least distance that so many accesses do not exceed; None where they are cold."""
    if not accesses:
        return None
    place = int(np.searchsorted(np.cumsum(histogram), percent / 100 * accesses))
    return int(EDGES[place + 1]) - 1 if place < len(histogram) else None


def tally(distinct: dict[int, int] | None) -> int | None:
    """Return how many there are, if they could be counted."""
    return None if distinct is None else len(distinct)
