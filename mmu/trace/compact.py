"""Folds raw traces into compact ones.

A block's accesses are looked at in order, each on its side (fetches, or reads and writes). One
whose page is the page its side touched last in this block, and whose kind has been seen since that
page became the last, can change no state of a processor: it is folded into the record before it, of
either side. Any other is the head of a record of its own.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Bytes, Counts, Words
from mmu.trace.chunks import Blocks, Cutter
from mmu.trace.format import Compact, Header, Raw
from mmu.trace.kinds import (
    DATA_FIRST,
    FETCH,
    PAGE_NUMBER_MASK,
    PAGE_SHIFT,
    WRITE,
    WRITE_FIRST,
)
from mmu.trace.reader import open_trace
from mmu.trace.writer import write_compact


class Folded(NamedTuple):
    """Records that a chunk's accesses are folded into."""

    page: Words  # [record] address >> 12, sign-extended
    kind: Bytes  # [record]
    fetches: Counts  # [record] folded
    reads: Counts  # [record]
    writes: Counts  # [record]
    order: Bytes  # [record]
    origin: Words  # [record] index of the access at its head


@kernel
def fold_accesses(out: Folded, address: Words, kind: Bytes, first: Words) -> int:
    """Fold the accesses of whole blocks; return how many records that makes."""
    last = -1
    for block in range(len(first) - 1):
        fetch_page, data_page = np.int64(0), np.int64(0)
        fetch_seen, data_seen = (
            False,
            0,
        )  # data: the kinds since `data_page` became the last, as bits
        for i in range(first[at(block)], first[at(block + 1)]):
            page = address[at(i)] >> PAGE_SHIFT
            if kind[at(i)] == FETCH:
                folded = fetch_seen and page == fetch_page
                fetch_page, fetch_seen = page, True
            else:
                if page != data_page:
                    data_page, data_seen = page, 0
                folded = data_seen & 1 << kind[at(i)] != 0
                data_seen |= 1 << kind[at(i)]
            if folded:
                grow(out, last, kind[at(i)])
                continue
            last += 1
            out.page[at(last)], out.kind[at(last)], out.origin[at(last)] = page, kind[at(i)], i
            out.fetches[at(last)], out.reads[at(last)], out.writes[at(last)] = 0, 0, 0
            out.order[at(last)] = 0
    return last + 1


@inlined
def grow(out: Folded, record: int, kind: int) -> None:
    """Fold an access into a record."""
    data = out.reads[at(record)] + out.writes[at(record)]
    if kind == FETCH:
        if data > 0 and out.fetches[at(record)] == 0:
            out.order[at(record)] |= DATA_FIRST
        out.fetches[at(record)] += 1
    elif kind == WRITE:
        if data == 0:
            out.order[at(record)] |= WRITE_FIRST
        out.writes[at(record)] += 1
    else:
        out.reads[at(record)] += 1


def fold_blocks(blocks: Blocks) -> Compact:
    """Return the records of whole blocks of a raw trace."""
    accesses = len(blocks.address)
    out = Folded(
        page=np.empty(accesses, np.int64),
        kind=np.empty(accesses, np.uint8),
        fetches=np.empty(accesses, np.uint16),
        reads=np.empty(accesses, np.uint16),
        writes=np.empty(accesses, np.uint16),
        order=np.empty(accesses, np.uint8),
        origin=np.empty(accesses, np.int64),
    )
    records = fold_accesses(out, blocks.address, blocks.part.kind, blocks.first)
    heads = out.origin[:records]
    space, thread = blocks.part.space, blocks.part.thread
    return Compact(
        page=(out.page[:records] & PAGE_NUMBER_MASK).view(np.uint64),
        kind=out.kind[:records].copy(),
        fetches=out.fetches[:records].copy(),
        reads=out.reads[:records].copy(),
        writes=out.writes[:records].copy(),
        order=out.order[:records].copy(),
        space=None if space is None else space[heads],
        thread=None if thread is None else thread[heads],
    )


def fold(parts: Iterable[Raw], where: str = "trace") -> Iterator[Compact]:
    """Fold a raw trace, given part by part, into a compact one.

    Parameters
    ----------
    parts : iterable of Raw
        Addresses int64 or uint64, kinds uint8; all parts with the same columns.
    where : str, optional
        What errors call the trace.

    Yields
    ------
    Compact
        The records of whole blocks.

    Raises
    ------
    InputError
        A record's kind or address cannot be.
    """
    cutter = Cutter(where)
    for part in parts:
        blocks = cutter.cut(part._replace(size=None))
        if blocks is not None:
            yield fold_blocks(blocks)
    blocks = cutter.finish()
    if blocks is not None:
        yield fold_blocks(blocks)


def compact_trace(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
) -> Header:
    """Write the compact form of a raw trace.

    Parameters
    ----------
    source, target : path
    progress : callable, optional
        Called now and then with the numbers of accesses read and to be read.

    Raises
    ------
    InputError
        The source is not a raw trace, or the target cannot be written.
    """
    trace = open_trace(source)
    if trace.compact:
        raise InputError(f"{trace.path}: is compact already; accepted: a raw trace")

    def raw() -> Iterator[Raw]:
        done = 0
        for part in trace.parts():
            assert isinstance(part, Raw)
            yield part
            done += len(part.kind)
            if progress is not None:
                progress(done, trace.accesses)

    return write_compact(target, fold(raw(), trace.path), trace.metadata)
