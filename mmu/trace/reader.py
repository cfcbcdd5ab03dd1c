"""Opens traces: what is in them, and their chunks."""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmu.errors import InputError
from mmu.trace.ahead import ahead
from mmu.trace.chunks import Blocks, Chunk, Cutter, chunk_of
from mmu.trace.format import COUNTS, Compact, Header, Part
from mmu.trace.kinds import BLOCK, FETCH, READ, WRITE
from mmu.trace.parquet import Stored, parts, stored

CHUNK_RECORDS = 1 << 17  # 3 MB: a million, which do not stay in a cache, take a third longer


@dataclass
class Trace:
    """A trace file; metadata and columns have been checked, records are checked as they are read.

    Attributes
    ----------
    path, name : str
        The file, and its name without the ending.
    compact : bool
        Records are folded accesses with page numbers; else each record is an access.
    accesses, fetches, reads, writes : int
        Numbers of accesses; one that crosses a 4 KiB boundary counts twice.
    records : int
        Rows of the file.
    has_fetches : bool
        Fetches were recorded; without them an access is an instruction.
    metadata : dict
        What is known of the recording: command, tool, source and the like.
    """

    path: str
    header: Header
    native: bool  # written by `mmu`, so that the header is the file's own
    name: str = field(init=False)
    compact: bool = field(init=False)
    accesses: int = field(init=False)
    fetches: int = field(init=False)
    reads: int = field(init=False)
    writes: int = field(init=False)
    records: int = field(init=False)
    has_fetches: bool = field(init=False)
    metadata: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Say the header's numbers again where they are handy."""
        self.name = Path(self.path).stem
        self.compact = self.header.layout == "compact"
        for count in COUNTS:
            setattr(self, count, getattr(self.header, count))
        self.has_fetches = self.fetches > 0
        self.metadata = dict(self.header.recording)

    def chunks(self, records: int = CHUNK_RECORDS) -> Iterator[Chunk]:
        """Yield the trace in chunks of whole blocks, in bounded memory.

        Parameters
        ----------
        records : int
            Records per chunk, about; a chunk holds at least one block.

        Raises
        ------
        InputError
            The file is damaged or has changed, or a record cannot be: the message has its number.
        """
        for blocks in ahead(self.blocks(records)):
            yield chunk_of(blocks, self.has_fetches)

    def blocks(self, records: int = CHUNK_RECORDS, sizes: bool = False) -> Generator[Blocks]:
        """Yield the trace in whole blocks with all columns, `size` on request; else as `chunks`."""
        cutter = Cutter(self.path)
        accesses, fetches, reads, seen = 0, 0, 0, 0
        for part in self.parts(max(records, BLOCK), sizes):
            seen += len(part.kind)
            blocks = cutter.cut(part, last=seen == self.records)
            if blocks is not None:
                accesses += int(blocks.accesses.sum())
                fetches += int(blocks.fetches.sum())
                reads += int(np.count_nonzero(blocks.part.kind == READ))
                if isinstance(blocks.part, Compact):
                    reads += int(blocks.part.reads.sum())
                yield blocks
        if (accesses, fetches, reads) != (self.accesses, self.fetches, self.reads):
            raise InputError(
                f"{self.path}: holds {accesses:,} accesses ({fetches:,} fetches, {reads:,} reads), its "
                f"metadata say {self.accesses:,} ({self.fetches:,}, {self.reads:,}); import or record "
                "it again"
            )

    def parts(self, records: int = CHUNK_RECORDS, sizes: bool = False) -> Iterator[Part]:
        """Yield the columns as they are in the file, sizes of accesses on request only; unchecked.

        Raises
        ------
        InputError
            The file is damaged or has changed.
        """
        with stored(self.path) as source:
            found = source.header if self.native else replace(self.header, records=source.records)
            if found != self.header:
                raise InputError(f"{self.path}: has changed since it was opened; open it again")
            yield from parts(source, records, sizes)


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a trace and check its metadata and columns.

    A Parquet file of another tool is a raw trace if it has columns `address` and `kind`; it is read
    once to count its accesses.

    Raises
    ------
    InputError
        The file is missing, not Parquet, damaged, empty, of another version, or has columns that
        are missing, unknown or of another type.
    """
    where = os.fspath(path)
    with stored(where) as source:
        header = counted(source) if source.header is None else source.header
        return Trace(where, header, native=source.header is not None)


def is_compact(path: str | os.PathLike[str]) -> bool:
    """Tell whether a trace is compact, from its metadata alone; raises as `open_trace` does."""
    with stored(os.fspath(path)) as source:
        return source.header is not None and source.header.layout == "compact"


def counted(source: Stored) -> Header:
    """Count the accesses of a file that does not say how many it holds."""
    tally = np.zeros(256, np.int64)
    for part in parts(source, CHUNK_RECORDS):
        tally += np.bincount(part.kind, minlength=256)
    # Kinds that cannot be are refused when the records are read, with the number of the record.
    reads, writes, fetches = (int(tally[kind]) for kind in (READ, WRITE, FETCH))
    return Header("raw", int(tally.sum()), fetches, reads, writes, source.records)
