"""Accesses on their way from a foreign trace into a raw one: kernels that readers share."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.jit import at, inlined
from mmu.trace.blocks import Bytes, Counts, Integer, Words, canonical
from mmu.trace.format import Raw
from mmu.trace.kinds import PAGE_BYTES, VIRTUAL_BITS

MOST_BYTES = 4096  # of one access; the largest of x86-64, XSAVE's, are below 3 KiB
NOT_CANONICAL = (
    f"the address is not canonical (bits 63:{VIRTUAL_BITS - 1} must be equal, {VIRTUAL_BITS}-bit "
    "virtual addresses)"
)


class Accesses(NamedTuple):
    """Room for the accesses of one part; a format without streams has no `process` and `thread`."""

    address: Words  # [record] bytes, sign-extended
    kind: Bytes  # [record]
    size: Counts  # [record] bytes; 0: not known
    process: Words  # [record] as the recorder numbers it; or of no elements
    thread: Words  # [record] likewise


def room(records: int, processes: bool = False, threads: bool = False) -> Accesses:
    """Return room for so many accesses."""
    return Accesses(
        address=np.empty(records, np.int64),
        kind=np.empty(records, np.uint8),
        size=np.empty(records, np.uint16),
        process=np.empty(records if processes else 0, np.int64),
        thread=np.empty(records if threads else 0, np.int64),
    )


def made(out: Accesses, records: int, space: NDArray[np.uint16] | None = None) -> Raw:
    """Return the first `records` accesses as part of a raw trace, in its own types.

    `space` are the address spaces of their processes.
    """
    thread = out.thread[:records].astype(np.uint32) if len(out.thread) else None
    return Raw(out.address[:records], out.kind[:records], out.size[:records], space, thread)


@inlined
def within(address: Integer, length: Integer) -> bool:
    """Tell whether all bytes of an access have canonical addresses in the same half."""
    if not canonical(address):
        return False
    last = address + length - 1
    return canonical(last) and (address < 0) == (last < 0)


@inlined
def add(out: Accesses, record: int, start: Integer, length: Integer, what: Integer) -> int:
    """Store an access as one record, or as two if it crosses a 4 KiB boundary.

    Returns the number of records then. There must be room for two.
    """
    fits = min(length, PAGE_BYTES - (start & PAGE_BYTES - 1))
    out.address[at(record)], out.kind[at(record)], out.size[at(record)] = start, what, fits
    if fits == length:
        return record + 1
    out.address[at(record + 1)], out.kind[at(record + 1)] = start + fits, what
    out.size[at(record + 1)] = length - fits
    return record + 2
