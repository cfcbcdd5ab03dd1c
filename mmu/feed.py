"""Brings traces to the dispatcher: chunks of whole blocks, as much as fits, stream by stream."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Protocol

import numpy as np

from mmu.errors import InputError
from mmu.hardware.bits import LARGE_BYTES
from mmu.hardware.machine import FETCH
from mmu.hardware.rows import Words
from mmu.software.boot import Host
from mmu.software.turns import BLOCK, BLOCKS, LEFT, STREAM_FIELDS, Feed

MOST_RECORDS = 1 << 19  # in memory at once, over all streams
LEAST_RECORDS, LARGEST_CHUNK = 1 << 14, 1 << 17  # of one stream
LOWER_HALF = 1 << 47
ASLR_SPAN = 1 << 46  # bytes
SPACES = 1 << 16  # that a trace can number


class Trace(Protocol):
    """What a replay needs of a trace; `mmu.trace.reader.Trace` is one."""

    name: str
    path: str
    compact: bool
    accesses: int

    def chunks(self, records: int) -> Iterator[Any]:
        """Yield the trace in parts of whole blocks, of about so many records."""
        ...


def layout_offset(seed: int | None, vm: int, space: int = 0) -> int:
    """Return by how many bytes address space layout randomisation moves a process of a machine."""
    if seed is None:
        return 0
    steps = np.random.default_rng([seed, vm, space] if space else [seed, vm]).integers(
        0, ASLR_SPAN // LARGE_BYTES
    )
    return int(steps) * LARGE_BYTES


def moved(address: Words, offset: int) -> Words:
    """Move addresses of the lower half, where programs are, within it; others stay."""
    if not offset:
        return address
    return np.where(address >= 0, address + offset & (LOWER_HALF - 1), address)


class Stream:
    """The trace that one process replays, and the chunk of it that is being fed."""

    def __init__(self, host: Host, number: int, trace: Trace, records: int) -> None:
        self.host, self.number, self.trace = host, number, trace
        self.vm, process = host.streams[number]
        machine = host.vms[self.vm]
        assert machine is not None
        # Spaces of several processes are told apart; those of a trace alone are as it numbers them.
        self.space, self.stride = process.space or 0, SPACES if machine.processes else 1
        self.pages = process.guest_pages or machine.guest_pages
        self.offset = layout_offset(machine.aslr, self.vm, self.space)
        self.repeat = process.repeat or 1
        self.accesses = trace.accesses * self.repeat
        self.chunks = chain.from_iterable(trace.chunks(records) for _ in range(self.repeat))
        self.chunk: Any = None
        self.block = 0  # the first block of the chunk that is not fed yet

    def load(self, feed: Feed) -> None:
        """Fill the stream's part of the feed with whole blocks, as many as fit."""
        if self.chunk is None or self.block == len(self.chunk.space):
            self.chunk, self.block = next(self.chunks, None), 0
            if self.chunk is None:
                raise InputError(
                    f"{self.trace.path}: found fewer accesses than the {self.trace.accesses} that its "
                    "metadata promise; the file is damaged: import or record it again"
                )
        chunk, stream, begin = self.chunk, self.number, self.block
        first = chunk.first
        fits = int(np.searchsorted(first, first[begin] + feed.address.shape[1], side="right")) - 1
        end = min(fits, begin + feed.context.shape[1], len(chunk.space))
        blocks, records = slice(begin, end), slice(int(first[begin]), int(first[end]))
        n, b = records.stop - records.start, end - begin
        feed.address[stream, :n] = moved(chunk.address[records], self.offset)
        feed.kind[stream, :n] = chunk.kind[records]
        if feed.position.shape[1]:
            feed.position[stream, :n] = positions(chunk, begin, end, self.trace.compact)
        if self.trace.compact:
            for field in ("fetches", "reads", "writes"):
                getattr(feed, field)[stream, :n] = getattr(chunk, field)[records]
        feed.first[stream, : b + 1] = first[begin : end + 1] - first[begin]
        for field in ("accesses", "instructions", "data"):
            getattr(feed, field)[stream, :b] = getattr(chunk, field)[blocks]
        spaces, inverse = np.unique(chunk.space[blocks], return_inverse=True)
        contexts = [
            self.host.context(self.vm, self.space + self.stride * int(space), self.pages)
            for space in spaces
        ]
        feed.context[stream, :b] = np.array(contexts, np.int64)[inverse]
        feed.stream[stream, BLOCK], feed.stream[stream, BLOCKS] = 0, b
        self.block = end


def positions(chunk: Any, begin: int, end: int, compact: bool) -> Words:
    """Return the number of each record's instruction in its block, of blocks begin..end-1 of a chunk.

    Instructions are counted from 0; an access before a block's first one has -1. Where a trace has no
    fetches each access is an instruction.
    """
    first = chunk.first[begin : end + 1]
    records = slice(int(first[0]), int(first[-1]))
    sizes = np.diff(first)
    fetches = (chunk.kind[records] == FETCH).astype(np.int64)
    folded_fetches = folded = np.zeros_like(fetches)
    if compact:
        folded_fetches = chunk.fetches[records].astype(np.int64)
        folded = folded_fetches + chunk.reads[records] + chunk.writes[records]
    # Where fetches are instructions, a block of as many instructions as accesses has nothing else.
    counted = np.repeat(chunk.instructions[begin:end] == chunk.accesses[begin:end], sizes)
    own = np.where(counted, 1, fetches)
    after = np.where(counted, folded, folded_fetches)
    begun: Words = np.cumsum(own + after)
    before_block = np.repeat(np.append(0, begun)[first[:-1] - first[0]], sizes)
    numbers: Words = begun - after - before_block - 1
    return numbers


def build_feed(streams: dict[int, Stream], records: int, positioned: bool = False) -> Feed:
    """Return a feed with room for `records` of each stream, nothing loaded yet."""
    compact = [stream.trace.compact for stream in streams.values()]
    folded = records if any(compact) else 0
    blocks = records // 64 + 16  # of a compact stream: blocks of few records
    count = len(streams)
    stream = np.zeros((count, STREAM_FIELDS), np.int64)
    stream[:, LEFT] = [source.accesses for source in streams.values()]
    return Feed(
        stream=stream,
        address=np.zeros((count, records), np.int64),
        kind=np.zeros((count, records), np.uint8),
        position=np.zeros((count, records if positioned else 0), np.int64),
        fetches=np.zeros((count, folded), np.uint16),
        reads=np.zeros((count, folded), np.uint16),
        writes=np.zeros((count, folded), np.uint16),
        compact=np.array(compact, np.int64),
        first=np.zeros((count, blocks + 1), np.int64),
        context=np.zeros((count, blocks), np.int64),
        accesses=np.zeros((count, blocks), np.int64),
        instructions=np.zeros((count, blocks), np.int64),
        data=np.zeros((count, blocks), np.int64),
    )


def records_each(streams: int) -> int:
    """Return how many records of each stream are kept in memory."""
    return max(LEAST_RECORDS, min(LARGEST_CHUNK, MOST_RECORDS // max(streams, 1)))
