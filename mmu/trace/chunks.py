"""Chunks: what a replay takes a trace in, whole blocks in plain arrays."""

from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.trace.blocks import Bytes, Counts, Fault, Words, cut_compact, cut_raw, stream_edges
from mmu.trace.format import Compact, Part, Raw, rows
from mmu.trace.kinds import BLOCK, PAGE_SHIFT, VIRTUAL_BITS


class Chunk(NamedTuple):
    """Whole blocks of a trace; every array is C-contiguous and writable.

    The counts of folded accesses and `order` have no elements where the trace is raw.
    """

    address: Words  # [record] sign-extended; of a compact record the address of its page
    kind: Bytes  # [record]
    fetches: Counts  # [record] folded into the record
    reads: Counts  # [record]
    writes: Counts  # [record]
    order: Bytes  # [record] bit 0: a folded data access came first; bit 1: the first one is a write
    first: Words  # [block + 1] index of the block's first record; the last is the number of records
    space: Words  # [block]
    accesses: Words  # [block]
    instructions: Words  # [block] fetches, or accesses where the trace has no fetches
    data: Words  # [block] reads and writes


def describe(part: Raw | Compact, record: int, fault: int) -> str:
    """Say in words why a record is refused."""
    if fault == Fault.KIND:
        return f"kind {part.kind[record]}; accepted: 0 (read), 1 (write), 2 (fetch)"
    if fault == Fault.ADDRESS:
        name, value = (
            ("page", part.page) if isinstance(part, Compact) else ("address", part.address)
        )
        bits = VIRTUAL_BITS - 1 - (PAGE_SHIFT if name == "page" else 0)
        top = 63 - (PAGE_SHIFT if name == "page" else 0)
        return (
            f"{name} {int(value[record]) & (1 << 64) - 1:#x} is not canonical "
            f"(bits {top}:{bits} must be equal, 48-bit virtual addresses)"
        )
    if fault == Fault.OVERRUN:
        return f"its accesses overrun the block of {BLOCK:,} accesses it is in"
    if fault == Fault.FOLDED:
        return "it counts folded accesses of a kind that its side has not made on that page before"
    return "`order` contradicts the counts of folded accesses"


def joined(rest: Part | None, part: Part) -> Part:
    """Return `rest` and `part` as one part, in writable arrays of its own."""
    pieces = {
        name: [column] if rest is None else [getattr(rest, name), column]
        for name, column in part._asdict().items()
        if column is not None
    }
    return type(part)(**{name: np.concatenate(piece) for name, piece in pieces.items()})


class Blocks(NamedTuple):
    """Whole blocks of a trace, with all its columns."""

    part: Part
    address: Words  # [record]
    first: Words  # [block + 1]
    accesses: Words  # [block]
    fetches: Words  # [block]


class Cutter:
    """Makes whole blocks out of parts of any length; what is left over waits."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.done = 0  # records in the blocks made so far
        self.rest: Part | None = None

    def cut(self, part: Part, last: bool = False) -> Blocks | None:
        """Return the whole blocks at hand, if any; of the `last` part, all there is.

        Raises
        ------
        InputError
            A record cannot be: the message gives its number, counted from 0, and says why.
        """
        whole = joined(self.rest, part)
        records = len(whole.kind)
        edges = stream_edges(whole.space, whole.thread, records)
        first = np.empty(records + 1, np.int64)
        accesses, fetches = np.empty(records, np.int64), np.empty(records, np.int64)
        if isinstance(whole, Compact):
            address = np.empty(records, np.int64)
            page = whole.page.view(np.int64)
            counts = (whole.fetches, whole.reads, whole.writes, whole.order)
            blocks, record, fault = cut_compact(
                page, whole.kind, *counts, edges, address, first, accesses, fetches
            )
        else:
            address = whole.address.view(np.int64)
            blocks, record, fault = cut_raw(address, whole.kind, edges, first, accesses, fetches)
        if fault != Fault.NONE:
            reason = describe(whole, record, fault)
            raise InputError(f"{self.where}: record {self.done + record}: {reason}")
        if blocks and accesses[blocks - 1] < BLOCK and not last:
            blocks -= 1  # more of it may follow
        end = int(first[blocks])
        self.done += end
        self.rest = joined(None, rows(whole, end, records))
        if not blocks:
            return None
        return Blocks(
            part=rows(whole, 0, end),
            address=address[:end],
            first=first[: blocks + 1].copy(),
            accesses=accesses[:blocks].copy(),
            fetches=fetches[:blocks].copy(),
        )

    def finish(self) -> Blocks | None:
        """Return the short block that is left over at the end of a trace, if there is one."""
        if self.rest is None:
            return None
        return self.cut(rows(self.rest, 0, 0), last=True)


def chunk_of(blocks: Blocks, has_fetches: bool) -> Chunk:
    """Return blocks in the form that a replay takes."""
    part, count = blocks.part, len(blocks.accesses)
    if isinstance(part, Compact):
        fetches, reads, writes, order = part.fetches, part.reads, part.writes, part.order
    else:
        fetches, reads, writes = (np.empty(0, np.uint16) for _ in range(3))
        order = np.empty(0, np.uint8)
    space = np.zeros(count, np.int64)
    if part.space is not None:
        space[:] = part.space[blocks.first[:-1]]
    return Chunk(
        address=blocks.address,
        kind=part.kind,
        fetches=fetches,
        reads=reads,
        writes=writes,
        order=order,
        first=blocks.first,
        space=space,
        accesses=blocks.accesses,
        instructions=blocks.fetches if has_fetches else blocks.accesses.copy(),
        data=blocks.accesses - blocks.fetches,
    )
