"""Cuts records into blocks, and checks every one on the way.

A stream (one space, one thread) is cut into blocks of 4,096 accesses counted from its beginning; a
change of space or thread between two records ends a block, and the next one starts afresh.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.jit import at, inlined, kernel
from mmu.trace.format import Column
from mmu.trace.kinds import (
    BLOCK,
    DATA_FIRST,
    FETCH,
    PAGE_SHIFT,
    READ,
    VIRTUAL_BITS,
    WRITE,
    WRITE_FIRST,
)

Words = NDArray[np.int64]
Counts = NDArray[np.uint16]
Bytes = NDArray[np.uint8]
Integer = int | np.integer[Any]


class Fault(IntEnum):
    """Why a record is refused."""

    NONE = 0
    KIND = 1
    ADDRESS = 2
    OVERRUN = 3
    FOLDED = 4
    ORDER = 5


@inlined
def canonical(address: Integer) -> bool:
    """Tell whether bits 63:47 of a sign-extended address are all equal."""
    return address >> VIRTUAL_BITS - 1 == 0 or address >> VIRTUAL_BITS - 1 == -1


@kernel
def cut_raw(
    address: Words, kind: Bytes, edges: Words, first: Words, accesses: Words, fetches: Words
) -> tuple[int, int, int]:
    """Cut records into blocks; `edges` are where another stream begins, and the number of records.

    Returns the number of blocks, and where a record is refused its index and the fault.
    """
    records = len(kind)
    start, block, edge = 0, 0, 0
    while start < records:
        while edges[at(edge)] <= start:
            edge += 1
        end = min(start + BLOCK, edges[at(edge)])
        fetched = 0
        for i in range(start, end):
            if kind[at(i)] > FETCH:
                return block, i, Fault.KIND
            if not canonical(address[at(i)]):
                return block, i, Fault.ADDRESS
            fetched += kind[at(i)] == FETCH
        first[at(block)], accesses[at(block)], fetches[at(block)] = start, end - start, fetched
        start = end
        block += 1
    first[at(block)] = records
    return block, records, Fault.NONE


@inlined
def order_fits(order: Integer, fetches: Integer, reads: Integer, writes: Integer) -> bool:
    """Tell whether the counts of folded accesses allow this `order`."""
    if order > DATA_FIRST | WRITE_FIRST:
        return False
    if order & DATA_FIRST and (fetches == 0 or reads + writes == 0):
        return False
    if order & WRITE_FIRST:
        return bool(writes > 0)
    return bool(reads > 0 or writes == 0)


@kernel
def cut_compact(
    page: Words,
    kind: Bytes,
    folded_fetches: Counts,
    folded_reads: Counts,
    folded_writes: Counts,
    order: Bytes,
    edges: Words,
    address: Words,
    first: Words,
    accesses: Words,
    fetches: Words,
) -> tuple[int, int, int]:
    """Cut compact records into blocks as `cut_raw` does, and fill in their pages' addresses."""
    records = len(kind)
    start, block, edge, i = 0, 0, 0, 0
    while start < records:
        while edges[at(edge)] <= start:
            edge += 1
        end = edges[at(edge)]
        made, fetched = np.int64(0), np.int64(0)
        fetch_seen, data_seen, data_page = 0, 0, np.int64(0)
        while i < end and made < BLOCK:
            head = kind[at(i)]
            if head > FETCH:
                return block, i, Fault.KIND
            here = page[at(i)] << PAGE_SHIFT
            if not canonical(here) or page[at(i)] >> 64 - PAGE_SHIFT != 0:
                return block, i, Fault.ADDRESS
            address[at(i)] = here
            if head == FETCH:
                fetch_seen = 1
            else:
                if here != data_page:
                    data_page, data_seen = here, 0
                data_seen |= 1 << head
            f = np.int64(folded_fetches[at(i)])
            r = np.int64(folded_reads[at(i)])
            w = np.int64(folded_writes[at(i)])
            if (
                (f > 0 and not fetch_seen)
                or (r > 0 and not data_seen & 1 << READ)
                or (w > 0 and not data_seen & 1 << WRITE)
            ):
                return block, i, Fault.FOLDED
            if not order_fits(order[at(i)], f, r, w):
                return block, i, Fault.ORDER
            made += 1 + f + r + w
            fetched += f + (head == FETCH)
            i += 1
        if made > BLOCK:
            return block, i - 1, Fault.OVERRUN
        first[at(block)], accesses[at(block)], fetches[at(block)] = start, made, fetched
        start = i
        block += 1
    first[at(block)] = records
    return block, records, Fault.NONE


def stream_edges(space: Column | None, thread: Column | None, records: int) -> Words:
    """Return where another stream begins, and at the end the number of records: int64."""
    ends = np.array([records], np.int64)
    if space is None and thread is None:
        return ends
    changes = np.zeros(max(records - 1, 0), bool)
    for column in (space, thread):
        if column is not None:
            changes |= column[1:] != column[:-1]
    return np.append(np.flatnonzero(changes) + 1, ends)
