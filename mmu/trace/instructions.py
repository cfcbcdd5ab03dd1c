"""Writes ChampSim's traces: accesses grouped into the instructions that made them.

A record is a fetch and the data accesses behind it (layouts: `mmu.trace.champsim`). When it is read
again a record is its fetch, its reads, then its writes. What does not fit into that goes on in another
record of the same ip, which reads as one more fetch: more accesses than a record holds, a read after a
write, and in CloudSuite's data of another space.

Branches and registers are not known and left zero: the traces are good for what memory does (TLBs,
caches, page walks), and not for cycles. Sizes are left out.
"""

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Bytes, Counts, Integer, Words
from mmu.trace.champsim import CLOUDSUITE, WORD, Layout
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, VIRTUAL_BITS

MOST_SPACES = 256  # CloudSuite's numbers are bytes

# Fields of `place`: accesses read, records written, and of the record that is being filled: whether there
# is one, the fetch's space, the numbers of its reads and writes, their space; then how many records are
# of an instruction that had one before.
ACCESS, RECORD, BEGUN, FETCH_SPACE, READS, WRITES, DATA_SPACE, CONTINUED, PLACE_FIELDS = range(9)

END, ADDRESS, NO_FETCH = range(3)  # how grouping ended


@inlined
def finish_record(out: Words, record: Words, place: Words) -> None:
    """Write the record that is being filled."""
    words = len(record)
    if words == CLOUDSUITE.size // WORD:
        data = place[FETCH_SPACE] if place[DATA_SPACE] < 0 else place[DATA_SPACE]
        record[at(CLOUDSUITE.end)] = place[FETCH_SPACE] | data << 8
    first = place[RECORD] * words
    for word in range(words):
        out[at(first + word)] = record[at(word)]
    place[RECORD] += 1


@inlined
def begin_record(out: Words, record: Words, ip: Integer, space: Integer, place: Words) -> None:
    """Write the record that is being filled, if there is one, and begin another."""
    if place[BEGUN] != 0:
        finish_record(out, record, place)
    for word in range(len(record)):
        record[at(word)] = 0
    record[0] = ip
    place[BEGUN], place[FETCH_SPACE] = 1, space
    place[READS], place[WRITES], place[DATA_SPACE] = 0, 0, -1


@inlined
def has_room(
    what: int, space: Integer, most_reads: int, most_writes: int, single: int, place: Words
) -> bool:
    """Tell whether a data access can stand in the record that is being filled, behind what does."""
    if place[DATA_SPACE] != -1 and place[DATA_SPACE] != space:
        return False
    if single != 0 and place[READS] + place[WRITES] > 0:
        return False
    if what == READ:
        return place[WRITES] == 0 and place[READS] < most_reads
    return place[WRITES] < most_writes


@kernel
def group(
    out: Words,
    record: Words,
    writes: int,
    reads: int,
    end: int,
    single: int,
    address: Words,
    kind: Bytes,
    space: Counts,
    place: Words,
) -> int:
    """Group accesses into records; return END, or why the access where `place` is cannot be stored.

    `record` is the one that is being filled; `writes`, `reads` and `end` are as in
    `mmu.trace.champsim.Layout`. If `single`, each data access has a record of its own.
    """
    while place[ACCESS] < len(kind):
        i = place[ACCESS]
        start, what, owner = address[at(i)], kind[at(i)], np.int64(space[at(i)])
        if start == 0:
            return ADDRESS
        if what == FETCH:
            begin_record(out, record, start, owner, place)
        elif place[BEGUN] == 0:
            return NO_FETCH
        else:
            if not has_room(what, owner, end - reads, reads - writes, single, place):
                begin_record(out, record, record[0], place[FETCH_SPACE], place)
                place[CONTINUED] += 1
            if what == READ:
                record[at(reads + place[READS])] = start
                place[READS] += 1
            else:
                record[at(writes + place[WRITES])] = start
                place[WRITES] += 1
            place[DATA_SPACE] = owner
        place[ACCESS] += 1
    return END


@kernel
def finish_last(out: Words, record: Words, place: Words) -> None:
    """Write the record that is being filled, at the end of the trace."""
    finish_record(out, record, place)


def signed(address: int) -> int:
    """Return an address of 64 bits as a number of int64."""
    return address - (1 << 64) if address >> 63 == 1 else address


class InstructionWriter:
    """Turns parts of a raw trace into records.

    Parameters
    ----------
    layout : Layout
    where : str
        What messages call the trace.
    fetches : bool
        It has fetches; else each access is an instruction at `ip`.
    ip : int, optional
        Of data accesses before the first fetch; by default the first fetch's.
    """

    def __init__(self, layout: Layout, where: str, fetches: bool, ip: int | None) -> None:
        if not fetches and ip is None:
            raise InputError(
                f"{where}: has no fetches, and ChampSim's records are instructions; give an address "
                "that they are all at, as with --ip 0x400000"
            )
        if ip is not None and (ip == 0 or signed(ip) >> VIRTUAL_BITS - 1 not in (0, -1)):
            raise InputError(f"{where}: ip {ip:#x}; accepted: an address of 48 bits, not 0")
        self.layout, self.where, self.single, self.ip = layout, where, not fetches, ip
        self.record = np.zeros(layout.size // WORD, np.int64)
        self.place = np.zeros(PLACE_FIELDS, np.int64)
        self.done = self.records = 0

    def add(self, part: Raw) -> NDArray[np.int64]:
        """Return the records that a part completes.

        Raises
        ------
        InputError
            An access cannot be stored: its address is 0, or its space is above 255.
        """
        space = np.zeros(len(part.kind), np.uint16) if part.space is None else part.space
        if len(space) and space.max() >= MOST_SPACES:
            raise InputError(
                f"{self.where}: space {space.max()}; accepted: up to {MOST_SPACES - 1} in records of "
                "CloudSuite; choose one with --space"
            )
        out = np.empty((len(part.kind) + 1) * len(self.record), np.int64)
        bounds = (self.layout.writes, self.layout.reads, self.layout.end, int(self.single))
        columns = (part.address.view(np.int64), part.kind, space)
        self.place[ACCESS] = self.place[RECORD] = 0
        status = group(out, self.record, *bounds, *columns, self.place)
        if status == NO_FETCH:
            self.record[0] = self.first_ip(part)
            self.place[BEGUN], self.place[DATA_SPACE] = 1, -1
            self.place[FETCH_SPACE] = space[0]
            self.place[CONTINUED] += 1
            status = group(out, self.record, *bounds, *columns, self.place)
        if status == ADDRESS:
            number = self.done + int(self.place[ACCESS])
            raise InputError(
                f"{self.where}: access {number} is at address 0, by which ChampSim's records say that "
                "there is none; leave it out with --skip or --limit"
            )
        self.done += len(part.kind)
        return self.made(out)

    def first_ip(self, part: Raw) -> int:
        """Return the ip of the data accesses that a part begins with."""
        fetched = np.flatnonzero(part.kind == FETCH)
        if self.ip is None and not len(fetched):
            raise InputError(
                f"{self.where}: begins with {len(part.kind):,} accesses without a fetch; give the "
                "address that they are made at, as with --ip 0x400000"
            )
        return int(part.address.view(np.int64)[fetched[0]]) if self.ip is None else signed(self.ip)

    def finish(self) -> NDArray[np.int64]:
        """Return the last record."""
        out = np.empty(len(self.record), np.int64)
        self.place[RECORD] = 0
        if self.place[BEGUN]:
            finish_last(out, self.record, self.place)
        return self.made(out)

    def made(self, out: Words) -> NDArray[np.int64]:
        """Return the records that have been written to `out`."""
        self.records += int(self.place[RECORD])
        return out[: int(self.place[RECORD]) * len(self.record)]

    def remarks(self) -> list[str]:
        """Return what the user should know of the file."""
        said = ["branches and registers are not known: zero", "sizes of accesses are left out"]
        continued = int(self.place[CONTINUED])
        if self.single:
            said.append(f"no fetches: each access is an instruction at {self.ip:#x}")
        elif continued:
            said.append(
                f"{continued:,} records go on with an instruction, or begin without one: each reads as "
                "one more fetch"
            )
        return said
