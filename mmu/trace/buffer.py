"""Reads binary formats: the room that an input's bytes go through, and messages that say where."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from mmu.errors import InputError
from mmu.trace.accesses import Accesses, made, room
from mmu.trace.blocks import Words
from mmu.trace.format import Raw
from mmu.trace.notes import Notes

CAPACITY = 3 << 19  # bytes: whole records of 12, 64 and 96
RECORDS = 1 << 18  # of one part, at most
PADDING = 32  # bytes after the text: a reader may look a few ahead
SHOWN = 16  # bytes of a record in a message

# Fields of `place`, where a reader of records has got to; a format's own follow.
POSITION, RECORD, FIELDS = range(3)

# How reading ended: at the end of what there is, for lack of room; a format's own reasons follow.
END, FULL = 0, 1

Parse = Callable[[Words, int, Accesses, Words], int]


class Buffer:
    """An input's bytes, as many as there is room for; what is not used up stays for the next turn.

    Attributes
    ----------
    bytes : uint8 [capacity and padding]
    filled : int
        Bytes of them that are the input's.
    start : int
        Where in the input they begin.
    """

    def __init__(self, pieces: Iterable[bytes], where: str, capacity: int = CAPACITY) -> None:
        self.pieces, self.where, self.capacity = iter(pieces), where, capacity
        self.bytes = np.zeros(capacity + PADDING, np.uint8)
        self.filled = self.start = 0
        self.waiting: memoryview = memoryview(b"")

    def fill(self, used: int = 0) -> bool:
        """Drop the first `used` bytes and take in more; false if there are no more."""
        left = self.filled - used
        self.bytes[:left] = self.bytes[used : self.filled].copy()
        self.filled, self.start = left, self.start + used
        while self.filled < self.capacity:
            if not self.waiting:
                piece = next(self.pieces, None)
                if piece is None:
                    break
                self.waiting = memoryview(piece)
            taken = self.waiting[: self.capacity - self.filled]
            self.bytes[self.filled : self.filled + len(taken)] = np.frombuffer(taken, np.uint8)
            self.filled += len(taken)
            self.waiting = self.waiting[len(taken) :]
        return self.filled > left

    def refuse(self, record: int, first: int, length: int, reason: str) -> NoReturn:
        """Raise the error for a record that begins at byte `first` of what is at hand."""
        content = (
            self.bytes[first : min(first + min(length, SHOWN), self.filled)].tobytes().hex(" ")
        )
        more = "..." if length > SHOWN else ""
        raise InputError(
            f"{self.where}: record {record} at byte {self.start + first}: {content}{more}: {reason}"
        )


def read_records(
    parse: Parse,
    reasons: Mapping[Any, str],
    size: int,
    most: int,
    source_pieces: Iterable[bytes],
    where: str,
    notes: Notes,
    processes: bool = False,
) -> Iterator[Raw]:
    """Yield the accesses of an input that is records of one size, each of them read by itself.

    Parameters
    ----------
    parse : kernel
        ``parse(words, records, out, place) -> status`` reads records out of int64 words. `place`
        says where to begin, and afterwards where reading stopped. It returns END, FULL (no room for
        another record's accesses in `out`), or one of `reasons`.
    reasons : mapping of int to str
        Why a record is refused.
    size, most : int
        Bytes of a record; the accesses that it may hold.
    processes : bool
        The records tell the process.

    Raises
    ------
    InputError
        A record cannot be; the message has its number, counted from 0, and where it begins.
    """
    buffer = Buffer(source_pieces, where, CAPACITY // size * size)
    words = buffer.bytes.view(np.int64)
    place = np.zeros(FIELDS, np.int64)
    used = 0
    while buffer.fill(used):
        records = buffer.filled // size
        place[POSITION] = 0
        status = FULL
        while status == FULL:
            out = room(min(RECORDS, max(records, 1) * most), processes)
            place[RECORD] = 0
            status = parse(words, records, out, place)
            count = int(place[RECORD])
            yield made(out, count, notes.spaces_of(out.process[:count], where))
        here = int(place[POSITION])
        if status != END:
            buffer.refuse(buffer.start // size + here, here * size, size, reasons[status])
        used = records * size
    if buffer.filled:
        reason = f"{buffer.filled} of {size} bytes: the record is cut off"
        buffer.refuse(buffer.start // size, 0, buffer.filled, reason)
