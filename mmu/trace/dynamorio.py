"""Reads DynamoRIO's memory traces: the final form, as raw2trace writes it and simulators read it.

A record is 12 bytes, packed (``trace_entry_t``, ``clients/drcachesim/common/trace_entry.h`` of
DynamoRIO/dynamorio): type, 2 bytes; size, 2 bytes; then 8 bytes, which by the type are an address, a
process or thread, the value of a marker (whose kind is in the size), the lengths of a bundle's
instructions, or an instruction's encoding. How they hang together is ``reader_t::process_input_entry``
in ``clients/drcachesim/reader/reader.cpp``:

* a header with the version begins a trace, and a footer ends it;
* what follows a thread's record was done by it, in the process last named for that thread;
* an instruction of size 0 only tells where the accesses after it are made; one that is executed again
  without being fetched (an iteration of ``rep movs``) is no fetch either;
* a bundle's instructions lie one after the other behind the instruction before it;
* where a chunk of an archive ends, the next one repeats the time and the processor.

Prefetches, cache flushes, encodings and markers are no accesses: they are passed over, and counted.
"""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from heapq import heappop, heapreplace

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel
from mmu.trace.accesses import MOST_BYTES, NOT_CANONICAL, Accesses, add, made, room, within
from mmu.trace.blocks import Integer, Words
from mmu.trace.buffer import CAPACITY, END, FULL, POSITION, RECORD, RECORDS, Buffer
from mmu.trace.dynamorio_names import (
    LAST_MARKER,
    LAST_TYPE,
    Marker,
    Type,
    marker_words,
    type_words,
)
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.notes import Notes
from mmu.trace.source import Source

Halves = NDArray[np.uint32]

SIZE = 12  # bytes of a record
HEAD = Type.HEADER.to_bytes(2, "little") + bytes(2)  # type and size of a trace's first record
BUNDLE = 8  # instructions of a bundle, at most
ENTRY_RECORDS = 2 * BUNDLE  # each of them across a boundary
OLDEST, NEWEST = 2, 7  # versions of the format
MOST_THREADS = 1 << 20

# trace_entry.h, offline_file_type_t
FILTERED = 0x1 | 0x80 | 0x100
ARCHITECTURES = {0x08: "aarch64", 0x10: "arm32", 0x20: "x86_32", 0x40: "x86_64"}
NARROW = 0x10 | 0x20

# What is known at a place in a trace: fields of `place` after those of every reader of records.
(
    _,
    _,
    STATE,  # BEFORE, INSIDE, AFTER
    THREAD,
    PROCESS,  # 0: not known
    LAST,  # address of the instruction before
    NEXT,  # address after it; 0: there was none, or it is the last one that there can be
    REPEATED,  # 1: the next time and processor are repeats
    CHUNK,  # instructions of a chunk
    TIME,  # the last one
    TIMED,  # 1: reading stops at each new time
    VERSION,
    FILE_TYPE,
    PLACE_FIELDS,
) = range(14)

BEFORE, INSIDE, AFTER = range(3)  # a trace's header and footer

# How reading ended, besides END and FULL.
OTHER_THREAD, NAMED, NEW_TIME = 2, 3, 4


class Bad(IntEnum):
    """Why a record is refused."""

    TYPE = 5
    OUTSIDE = 6
    VERSION = 7
    NOBODY = 8
    SIZE = 9
    RANGE = 10
    BUNDLE = 11
    NARROW = 12
    THREAD = 13


REASONS = {
    Bad.TYPE: f"its type is not known; accepted: 0 to {LAST_TYPE}",
    Bad.OUTSIDE: "a trace begins with a header, of type 25, and ends with a footer, of type 26",
    Bad.VERSION: f"this version is not known; accepted: {OLDEST} to {NEWEST}",
    Bad.NOBODY: "an access before the records that tell its thread and its process",
    Bad.SIZE: f"the size is above {MOST_BYTES}",
    Bad.RANGE: NOT_CANONICAL,
    Bad.BUNDLE: f"a bundle of 1 to {BUNDLE} instructions follows one of its thread, and none is empty",
    Bad.NARROW: "a trace of a 32-bit program; accepted: those of 64-bit ones",
    Bad.THREAD: "a thread or process that is not a number from 1 to 4294967295",
}


@inlined
def is_fetch(what: int) -> bool:
    """Tell whether an entry's type is an instruction that is fetched."""
    if what >= Type.INSTR and what < Type.INSTR_BUNDLE:
        return True
    return what in (Type.INSTR_SYSENTER, Type.INSTR_TAKEN_JUMP, Type.INSTR_UNTAKEN_JUMP)


@inlined
def is_access(what: int) -> bool:
    """Tell whether an entry has an access's address; a bundle has none of its own."""
    if what <= Type.WRITE or is_fetch(what):
        return True
    return what in (Type.INSTR_NO_FETCH, Type.INSTR_MAYBE_FETCH)


@inlined
def put(
    out: Accesses, record: int, start: Integer, length: Integer, what: int, place: Words
) -> int:
    """Store an access of the present thread; return the number of records then."""
    after = add(out, record, start, length, what)
    for access in range(record, after):
        out.process[at(access)], out.thread[at(access)] = place[PROCESS], place[THREAD]
    return after


@inlined
def refused(size: int, start: Integer, place: Words) -> int:
    """Return why an access cannot be, or END."""
    if place[PROCESS] == 0 or place[THREAD] == 0:
        return np.int64(Bad.NOBODY)  # type: ignore[return-value]
    if size > MOST_BYTES:
        return np.int64(Bad.SIZE)  # type: ignore[return-value]
    if not within(start, max(size, 1)):
        return np.int64(Bad.RANGE)  # type: ignore[return-value]
    return np.int64(END)  # type: ignore[return-value]


@inlined
def accessed(
    out: Accesses, record: int, what: int, size: int, start: Integer, place: Words, types: Words
) -> int:
    """Store an entry's access, if it is one; return the number of records then."""
    if what == Type.READ:
        return put(out, record, start, size, READ, place)
    if what == Type.WRITE:
        return put(out, record, start, size, WRITE, place)
    again = what == Type.INSTR_MAYBE_FETCH and start == place[LAST]
    if size == 0 or what == Type.INSTR_NO_FETCH or again:
        types[Type.INSTR_NO_FETCH] += 1
    else:
        record = put(out, record, start, size, FETCH, place)
    if size > 0:
        place[LAST], place[NEXT] = start, start + size
    return record


@inlined
def bundled(out: Accesses, record: int, size: int, lengths: Integer, place: Words) -> int:
    """Store the fetches of a bundle; return the number of records then, or -1 if it cannot be."""
    if size < 1 or size > BUNDLE or place[NEXT] == 0 or place[PROCESS] == 0:
        return -1
    for instruction in range(size):
        length = lengths >> 8 * instruction & 0xFF
        start = place[NEXT]
        if length == 0 or not within(start, length):
            return -1
        record = put(out, record, start, length, FETCH, place)
        place[LAST], place[NEXT] = start, start + length
    return record


@inlined
def marked(what: int, value: Integer, place: Words) -> int:
    """Take note of a marker; return END, NEW_TIME, or why it is refused."""
    if what == Marker.TIMESTAMP:
        if place[REPEATED] == 0:
            place[TIME] = value
            if place[TIMED] != 0:
                return np.int64(NEW_TIME)  # type: ignore[return-value]
    elif what == Marker.CPU_ID:
        place[REPEATED] = 0
    elif what == Marker.CHUNK_INSTR_COUNT:
        place[CHUNK] = value
    elif what == Marker.CHUNK_FOOTER:
        place[REPEATED] = 1 if place[CHUNK] > 0 else 0
    elif what == Marker.VERSION:
        if value < OLDEST or value > NEWEST:
            return np.int64(Bad.VERSION)  # type: ignore[return-value]
        place[VERSION] = value
    elif what == Marker.FILETYPE:
        if value & NARROW != 0:
            return np.int64(Bad.NARROW)  # type: ignore[return-value]
        place[FILE_TYPE] |= value
    return np.int64(END)  # type: ignore[return-value]


@inlined
def owned(what: int, value: Integer, place: Words) -> int:
    """Take note of whose the records after this one are; return what Python shall do about it."""
    if value < 1 or value >> 32 != 0:
        return np.int64(Bad.THREAD)  # type: ignore[return-value]
    if what == Type.PID:
        place[PROCESS] = value
        return np.int64(NAMED)  # type: ignore[return-value]
    place[THREAD] = value
    return np.int64(OTHER_THREAD)  # type: ignore[return-value]


@kernel
def parse(
    entries: Halves, records: int, out: Accesses, place: Words, types: Words, markers: Words
) -> int:
    """Read `records` entries, three 32-bit words each, from where `place` says; count the others.

    Returns END, FULL (no room in `out`), OTHER_THREAD (the process of `place`'s thread is wanted),
    NAMED (it has been told), NEW_TIME, or why an entry is refused.
    """
    here, record = place[POSITION], place[RECORD]
    status = np.int64(END)
    while here < records and status == END:
        if record + ENTRY_RECORDS > len(out.kind):
            status = np.int64(FULL)
            break
        head = int(np.int64(entries[at(3 * here)]))
        what, size = head & 0xFFFF, head >> 16
        value = np.int64(entries[at(3 * here + 1)]) | np.int64(entries[at(3 * here + 2)]) << 32
        if what > LAST_TYPE:
            status = np.int64(Bad.TYPE)
        elif (place[STATE] == INSIDE) == (what == Type.HEADER):
            status = np.int64(Bad.OUTSIDE)
        elif is_access(what):
            status = np.int64(refused(size, value, place))
            if status == END:
                record = accessed(out, record, what, size, value, place, types)
        elif what == Type.INSTR_BUNDLE:
            after = bundled(out, record, size, value, place)
            if after < 0:
                status = np.int64(Bad.BUNDLE)
            else:
                record = after
        elif what == Type.MARKER:
            if size not in (Marker.VERSION, Marker.FILETYPE):
                markers[at(min(size, LAST_MARKER))] += 1
            status = np.int64(marked(size, value, place))
        elif what in (Type.THREAD, Type.PID, Type.THREAD_EXIT):
            if what == Type.THREAD_EXIT:
                types[Type.THREAD_EXIT] += 1
            status = np.int64(owned(what, value, place))
        elif what == Type.HEADER:
            if value < OLDEST or value > NEWEST:
                status = np.int64(Bad.VERSION)
            else:
                place[VERSION], place[STATE] = value, INSIDE
        elif what == Type.FOOTER:
            place[STATE] = AFTER
        else:
            types[at(what)] += 1
        if status < Bad.TYPE:
            here += 1
    place[POSITION], place[RECORD] = here, record
    return status  # type: ignore[return-value]


class Thread:
    """A trace file that is being read: of one thread, or of several one after the other.

    Attributes
    ----------
    place : int64 [PLACE_FIELDS]
    types, markers : int64
        How often each was passed over.
    """

    def __init__(
        self, pieces: Iterable[bytes], where: str, timed: bool = False, capacity: int = CAPACITY
    ) -> None:
        self.where = where
        self.buffer = Buffer(pieces, where, capacity // SIZE * SIZE)
        self.entries = self.buffer.bytes[: self.buffer.capacity].view(np.uint32)
        self.records = 0
        self.place = np.zeros(PLACE_FIELDS, np.int64)
        self.place[TIMED] = timed
        self.types = np.zeros(LAST_TYPE + 1, np.int64)
        self.markers = np.zeros(LAST_MARKER + 1, np.int64)
        self.processes: dict[int, int] = {}  # by thread

    def read(self, out: Accesses, record: int) -> tuple[int, int]:
        """Fill `out` from `record` on; return END, FULL or NEW_TIME, and the number of records then.

        Raises
        ------
        InputError
            A record cannot be; the message has its number, counted from 0, and where it begins.
        """
        place = self.place
        place[RECORD] = record
        while True:
            if place[POSITION] == self.records and not self.more():
                return END, int(place[RECORD])
            status = parse(self.entries, self.records, out, place, self.types, self.markers)
            if status in (FULL, NEW_TIME):
                return status, int(place[RECORD])
            if status == OTHER_THREAD:
                place[PROCESS] = self.processes.get(int(place[THREAD]), 0)
            elif status == NAMED:
                self.name()
            elif status != END:
                self.refuse(status)

    def more(self) -> bool:
        """Take in more of the file; false at its end."""
        more = self.buffer.fill(self.records * SIZE)
        self.records = self.buffer.filled // SIZE
        self.place[POSITION] = 0
        if self.records:
            return True
        if not more:
            if self.buffer.filled:
                self.refuse_end(f"{self.buffer.filled} of {SIZE} bytes: the record is cut off")
            if self.place[STATE] != AFTER:
                self.refuse_end("the file ends without a footer: it is cut off, or still written")
            return False
        return self.more()

    def name(self) -> None:
        """Remember the process of the present thread."""
        if len(self.processes) == MOST_THREADS:
            raise InputError(
                f"{self.where}: more than {MOST_THREADS:,} threads; import a part of it"
            )
        self.processes[int(self.place[THREAD])] = int(self.place[PROCESS])

    def refuse(self, status: int) -> None:
        """Raise the error for the record where reading stopped."""
        here = int(self.place[POSITION])
        what = int(self.entries[3 * here]) & 0xFFFF
        value = int(self.entries[3 * here + 1]) | int(self.entries[3 * here + 2]) << 32
        number = self.buffer.start // SIZE + here
        reason = f"type {what}, value {value:#x}: {REASONS[Bad(status)]}"
        self.buffer.refuse(number, here * SIZE, SIZE, reason)

    def refuse_end(self, reason: str) -> None:
        """Raise the error for what is at the file's end."""
        self.buffer.refuse(self.buffer.start // SIZE, 0, self.buffer.filled, reason)


def tell(notes: Notes, threads: Iterable[Thread]) -> None:
    """Say what is known of the recording, as far as it has been read, and what was passed over."""
    notes.said["tool"] = "DynamoRIO drmemtrace"
    notes.passed.clear()
    file_type = 0
    for thread in threads:
        file_type |= int(thread.place[FILE_TYPE])
        notes.said["version"] = int(thread.place[VERSION])
        for what, count in enumerate(thread.types.tolist()):
            notes.pass_over(type_words(what), count)
        for what, count in enumerate(thread.markers.tolist()):
            notes.pass_over(marker_words(what), count)
    notes.said["file_type"] = f"{file_type:#x}"
    for bit, name in ARCHITECTURES.items():
        if file_type & bit:
            notes.said["architecture"] = name
    if file_type & FILTERED:
        notes.remark("the recorder left out accesses that hit a small cache (filtered)")


def recognised(head: bytes) -> bool:
    """Tell whether an input that begins like this is DynamoRIO's: a header of any version."""
    return len(head) >= SIZE and head[:4] == HEAD and head[6:SIZE] == bytes(6)


def read_dynamorio(source: Source) -> Iterator[Raw]:
    """Yield the accesses of one trace file.

    Raises
    ------
    InputError
        A record cannot be, or the version is not known.
    """
    return read_threads([Thread(source.pieces, source.where)], source)


def read_threads(threads: list[Thread], source: Source) -> Iterator[Raw]:
    """Yield the accesses of several files in the order of their times; of one, as they come.

    That is how DynamoRIO makes one stream of them (``scheduler/scheduler_fixed.cpp`` with
    DEPENDENCY_TIMESTAMPS): at each time that a thread's file tells, the file with the earliest time to
    come goes on; of equal ones, the first.
    """
    waiting = [(-1, number) for number in range(len(threads))]  # a heap
    out = room(RECORDS, processes=True, threads=True)
    record = 0
    while waiting:
        number = waiting[0][1]
        status, record = threads[number].read(out, record)
        if status == NEW_TIME:
            heapreplace(waiting, (int(threads[number].place[TIME]), number))
        elif status == END:
            heappop(waiting)
        if status == FULL or not waiting:
            tell(source.notes, threads)
            yield part(out, record, source)
            out, record = room(RECORDS, processes=True, threads=True), 0


def part(out: Accesses, records: int, source: Source) -> Raw:
    """Return accesses with the spaces of their processes."""
    return made(out, records, source.notes.spaces_of(out.process[:records], source.where))
