"""Traces made by a test: the interface of `mmu.trace.reader.Trace`, raw or folded, without a file."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
FETCH = 2
Access = tuple[int, int, int, int]  # space, thread, address, kind


class Chunk(NamedTuple):
    address: NDArray[np.int64]
    kind: NDArray[np.uint8]
    fetches: NDArray[np.uint16]
    reads: NDArray[np.uint16]
    writes: NDArray[np.uint16]
    order: NDArray[np.uint8]
    first: NDArray[np.int64]
    space: NDArray[np.int64]
    accesses: NDArray[np.int64]
    instructions: NDArray[np.int64]
    data: NDArray[np.int64]


def cut(accesses: Sequence[Access]) -> list[list[Access]]:
    """Cut accesses into blocks: 4,096 of one space and thread."""
    result: list[list[Access]] = []
    for access in accesses:
        if not result or result[-1][-1][:2] != access[:2] or len(result[-1]) == BLOCK:
            result.append([])
        result[-1].append(access)
    return result


def fold(block: Sequence[Access]) -> list[list[int]]:
    """Fold a block, slowly: records of [address, kind, fetches, reads, writes, order]."""
    records: list[list[int]] = []
    page: list[int | None] = [None, None]  # by side
    seen: list[set[int]] = [set(), set()]
    for _, _, address, kind in block:
        side = int(kind == FETCH)
        if page[side] == address >> 12 and kind in seen[side]:
            record = records[-1]
            fetches, reads, writes = record[2:5]
            if kind == FETCH:
                if not fetches and reads + writes:
                    record[5] |= 1
                record[2] += 1
            else:
                if not reads + writes and kind == 1:
                    record[5] |= 2
                record[3 + kind] += 1
            continue
        if page[side] != address >> 12:
            page[side], seen[side] = address >> 12, set()
        seen[side].add(kind)
        records.append([address >> 12 << 12, kind, 0, 0, 0, 0])
    for record in records:
        if not record[2] or not record[3] + record[4]:
            record[5] &= 2
    return records


class MemoryTrace:
    path = "memory"

    def __init__(self, accesses: Sequence[Access], compact: bool = False, name: str = "t") -> None:
        self.name, self.compact = name, compact
        self.accesses = len(accesses)
        self.blocks = cut(accesses)
        self.has_fetches = any(kind == FETCH for *_, kind in accesses)

    def chunks(self, records: int) -> Iterator[Chunk]:
        pending: list[list[Access]] = []
        for block in self.blocks:
            if pending and sum(map(len, pending)) + len(block) > max(records, BLOCK):
                yield self.chunk(pending)
                pending = []
            pending.append(block)
        if pending:
            yield self.chunk(pending)

    def chunk(self, blocks: list[list[Access]]) -> Chunk:
        if self.compact:
            folded = [fold(block) for block in blocks]
        else:
            folded = [[[address, kind, 0, 0, 0, 0] for _, _, address, kind in b] for b in blocks]
        flat = [record for block in folded for record in block]
        table = np.array(flat, np.int64)
        small = table if self.compact else table[:0]
        sizes = np.array([len(block) for block in blocks], np.int64)
        fetches = np.array([sum(a[3] == FETCH for a in b) for b in blocks], np.int64)
        return Chunk(
            address=np.ascontiguousarray(table[:, 0]),
            kind=table[:, 1].astype(np.uint8),
            fetches=small[:, 2].astype(np.uint16),
            reads=small[:, 3].astype(np.uint16),
            writes=small[:, 4].astype(np.uint16),
            order=small[:, 5].astype(np.uint8),
            first=np.cumsum([0, *map(len, folded)], dtype=np.int64),
            space=np.array([block[0][0] for block in blocks], np.int64),
            accesses=sizes,
            instructions=fetches if self.has_fetches else sizes.copy(),
            data=sizes - fetches,
        )
