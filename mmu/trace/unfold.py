"""Unfolds compact traces into accesses of whole pages.

A compact record says how many accesses were folded into it and of which kinds, not in which order. They
are put in an order that folds into the same record again: the fetches, with the reads and writes spread
evenly behind them (before the first one goes a data access where the record's `order` says so), and of
these first all of the kind that came first. An address is that of its page: the fetch side's last one,
or the data side's.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Bytes, Counts, Words
from mmu.trace.format import Compact, Raw
from mmu.trace.kinds import BLOCK, DATA_FIRST, FETCH, PAGE_SHIFT, READ, WRITE, WRITE_FIRST

ROOM = 1 << 17  # accesses of one part

# Fields of `place`: the next record, the number of accesses, and each side's last page's address.
RECORD, ACCESS, FETCH_PAGE, DATA_PAGE, PLACE_FIELDS = range(5)


class Unfolded(NamedTuple):
    """Room for accesses."""

    address: Words  # [access]
    kind: Bytes  # [access]
    record: Words  # [access] which it was folded into


@inlined
def put(out: Unfolded, place: Words, what: int) -> None:
    """Store an access of the present record."""
    access = place[ACCESS]
    page = place[FETCH_PAGE] if what == FETCH else place[DATA_PAGE]
    out.address[at(access)], out.kind[at(access)] = page, what
    out.record[at(access)] = place[RECORD]
    place[ACCESS] = access + 1


@kernel
def unfold_records(
    out: Unfolded,
    page: Words,
    kind: Bytes,
    fetches: Counts,
    reads: Counts,
    writes: Counts,
    order: Bytes,
    place: Words,
) -> None:
    """Unfold records from where `place` says, until there is no room for another one."""
    while place[RECORD] < len(kind) and place[ACCESS] + BLOCK <= len(out.kind):
        i = place[RECORD]
        place[FETCH_PAGE if kind[at(i)] == FETCH else DATA_PAGE] = page[at(i)] << PAGE_SHIFT
        put(out, place, kind[at(i)])
        left = np.int64(fetches[at(i)])
        first, second = READ, WRITE
        firsts, data = np.int64(reads[at(i)]), np.int64(reads[at(i)]) + np.int64(writes[at(i)])
        if order[at(i)] & WRITE_FIRST:
            first, second, firsts = WRITE, READ, np.int64(writes[at(i)])
        share = np.int64(1) if order[at(i)] & DATA_FIRST else data // (left + 1) * (left == 0)
        while True:
            for _ in range(share):
                put(out, place, first if firsts > 0 else second)
                firsts -= 1
            data -= share
            if left == 0:
                break
            put(out, place, FETCH)
            share = data // left
            left -= 1
        place[RECORD] += 1


def unfolded(part: Compact, place: Words) -> Iterator[Raw]:
    """Yield the accesses of records that have been checked.

    Parameters
    ----------
    part : Compact
    place : int64 [PLACE_FIELDS]
        Zeros before the first part; what it holds then is for the next one.
    """
    room = Unfolded(np.empty(ROOM, np.int64), np.empty(ROOM, np.uint8), np.empty(ROOM, np.int64))
    counts = (part.fetches, part.reads, part.writes, part.order)
    place[RECORD] = 0
    while place[RECORD] < len(part.kind):
        place[ACCESS] = 0
        unfold_records(room, part.page.view(np.int64), part.kind, *counts, place)
        made = int(place[ACCESS])
        origin = room.record[:made]
        yield Raw(
            address=room.address[:made].copy(),
            kind=room.kind[:made].copy(),
            space=None if part.space is None else part.space[origin],
            thread=None if part.thread is None else part.thread[origin],
        )
