"""Tells what is in a trace."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from mmu.trace.blocks import Words
from mmu.trace.kinds import LARGE_SHIFT, PAGE_SHIFT
from mmu.trace.reader import open_trace

# Distinct pages are held in memory, 8 bytes each: 2^25 are 128 GiB that the traced program touched.
MOST_PAGES = 1 << 25
SPACE_BITS = 16


def united(known: Words | None, values: Words) -> Words | None:
    """Return the distinct numbers of both, sorted; None once there are too many of them."""
    if known is None:
        return None
    heads = np.append(True, values[1:] != values[:-1])  # most numbers follow their equals
    both = np.union1d(known, values[heads])
    return both if len(both) <= MOST_PAGES else None


def info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a trace from end to end and tell what is in it.

    Returns
    -------
    dict
        ``layout``, ``accesses``, ``fetches``, ``reads``, ``writes``, ``records``, ``fold``
        (accesses per record), ``blocks``, ``pages`` and ``large_pages`` (distinct 4 KiB and 2 MiB
        pages over all spaces; None where there are too many to count), ``spaces``, ``threads``,
        ``file_bytes``, and ``recording``: what the file says of its origin.

    Raises
    ------
    InputError
        The file is not a trace or is damaged.
    """
    trace = open_trace(path)
    blocks = 0
    none: Words = np.empty(0, np.int64)
    pages: Words | None = none
    spaces, threads = pages, pages
    for cut in trace.blocks():
        blocks += len(cut.accesses)
        space, thread = (
            np.zeros(len(cut.address), np.int64) if column is None else column.astype(np.int64)
            for column in (cut.part.space, cut.part.thread)
        )
        pages = united(pages, cut.address >> PAGE_SHIFT << SPACE_BITS | space)
        spaces, threads = united(spaces, space), united(threads, thread)
    large = None if pages is None else united(none, large_page(pages))
    return {
        "layout": trace.header.layout,
        "accesses": trace.accesses,
        "fetches": trace.fetches,
        "reads": trace.reads,
        "writes": trace.writes,
        "records": trace.records,
        "fold": trace.accesses / trace.records,
        "blocks": blocks,
        "pages": tally(pages),
        "large_pages": tally(large),
        "spaces": tally(spaces),
        "threads": tally(threads),
        "file_bytes": Path(path).stat().st_size,
        "recording": trace.metadata,
    }


def large_page(pages: Words) -> Words:
    """Return the 2 MiB pages of 4 KiB pages, both with their space in the low bits."""
    space = pages & (1 << SPACE_BITS) - 1
    return pages >> SPACE_BITS + LARGE_SHIFT - PAGE_SHIFT << SPACE_BITS | space


def tally(distinct: Words | None) -> int | None:
    """Return how many there are, if they could be counted."""
    return None if distinct is None else len(distinct)
