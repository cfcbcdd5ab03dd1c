"""Writes DynamoRIO's memory traces, one file for all threads (records: `mmu.trace.dynamorio`).

Processes and threads are numbered from 1: DynamoRIO has none of number 0. Where a trace does not tell
threads each space is one. Sizes that are not known are written as 1, since a fetch of size 0 would be
none. Encodings and branches are not known and left out, as version 4 of the format allows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.trace.dynamorio import MOST_THREADS
from mmu.trace.dynamorio_names import Marker, Type
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, PAGE_BYTES, READ, WRITE

ENTRY = np.dtype([("type", "<u2"), ("size", "<u2"), ("value", "<u8")])
TYPES = np.zeros(3, np.uint16)  # by kind
TYPES[[READ, WRITE, FETCH]] = Type.READ, Type.WRITE, Type.INSTR
VERSION, X86_64 = 4, 0x40
MOST_NUMBER = (1 << 32) - 1  # of a thread
LINE_BYTES = 64

Entries = NDArray[np.void]


def entries(rows: Sequence[tuple[int, int, int]]) -> Entries:
    """Return records of these types, sizes and values."""
    return np.array(rows, ENTRY)


class EntryWriter:
    """Turns parts of a raw trace into records."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.records = 0
        self.last = (-1, -1)  # process and thread
        self.sizeless = False  # an access has no size
        self.threads: dict[int, int] = {}  # processes by thread

    def add(self, part: Raw) -> Entries:
        """Return the records of a part; of the first one after the header.

        Raises
        ------
        InputError
            There are more threads than an import would take.
        """
        count = len(part.kind)
        if part.thread is not None and count and part.thread.max() == MOST_NUMBER:
            raise InputError(
                f"{self.where}: thread {MOST_NUMBER}; accepted: up to {MOST_NUMBER - 1}, as "
                "DynamoRIO's begin with 1; choose others with --thread"
            )
        self.sizeless = self.sizeless or part.size is None or bool((part.size == 0).any())
        process = np.ones(count, np.int64) if part.space is None else part.space + np.int64(1)
        thread = process if part.thread is None else part.thread + np.int64(1)
        made = np.zeros(count, ENTRY)
        made["type"], made["value"] = TYPES[part.kind], part.address.view(np.uint64)
        made["size"] = 1 if part.size is None else np.maximum(part.size, 1)
        changes = (process[1:] != process[:-1]) | (thread[1:] != thread[:-1])
        heads = np.append(0, np.flatnonzero(changes) + 1) if count else np.empty(0, np.int64)
        if count and self.last == (process[0], thread[0]):
            heads = heads[1:]
        owners = np.zeros((len(heads), 2), ENTRY)
        owners["type"] = Type.THREAD, Type.PID
        owners["value"] = np.stack([thread[heads], process[heads]], axis=1)
        self.remember(thread[heads], process[heads])
        if count:
            self.last = (int(process[-1]), int(thread[-1]))
        return self.counted(np.insert(made, np.repeat(heads, 2), owners.ravel()))

    def remember(self, threads: NDArray[np.int64], processes: NDArray[np.int64]) -> None:
        """Keep which threads there are: each of them ends in the end."""
        self.threads |= zip(threads.tolist(), processes.tolist(), strict=True)
        if len(self.threads) > MOST_THREADS:
            raise InputError(
                f"{self.where}: more than {MOST_THREADS:,} threads; choose one with --thread"
            )

    def counted(self, made: Entries) -> Entries:
        """Return records, of the first part behind the header."""
        if self.records == 0:
            header = [(Type.HEADER, 0, VERSION), (Type.MARKER, Marker.VERSION, VERSION)]
            header += [(Type.MARKER, Marker.FILETYPE, X86_64)]
            sizes = [
                (Type.MARKER, Marker.CACHE_LINE_SIZE, LINE_BYTES),
                (Type.MARKER, Marker.PAGE_SIZE, PAGE_BYTES),
                (Type.MARKER, Marker.TIMESTAMP, 1),
                (Type.MARKER, Marker.CPU_ID, 0),
            ]
            # Markers other than of the file itself need a thread.
            made = np.concatenate([entries(header), made[:2], entries(sizes), made[2:]])
        self.records += len(made)
        return made

    def finish(self) -> Entries:
        """Return the ends of the threads, and the footer."""
        ends = [(Type.THREAD_EXIT, 0, thread) for thread in self.threads]
        return self.counted(entries([*ends, (Type.FOOTER, 0, 0)]))

    def remarks(self) -> list[str]:
        """Return what the user should know of the file."""
        said = ["encodings and branches are not known: left out"]
        said.append("processes and threads are numbered from 1: each is one higher")
        if self.sizeless:
            said.append("sizes that are not known are written as 1")
        return said
