"""Reads ChampSim's traces: 64 bytes an instruction, or 96 in those made from CloudSuite.

A file is nothing but records (``inc/trace_instruction.h`` of ChampSim/ChampSim), little-endian:

    ============================  ================  ==================
    field                         ``input_instr``   ``cloudsuite_instr``
    ============================  ================  ==================
    ip                            0                 0
    is_branch, branch_taken       8, 9              8, 9
    destination_registers         10 [2]            10 [4]
    source_registers              12 [4]            14 [4]
    destination_memory, 8 bytes   16 [2]            24 [4]
    source_memory, 8 bytes        32 [4]            56 [4]
    asid                          none              88 [2]
    padding                       none              18 to 23, 90 to 95
    ============================  ================  ==================

An instruction is a fetch, then its reads, then its writes; an address of 0 is none. Sizes are not
told. Of the two numbers in ``asid`` the first tags the translation of the fetch and the second those
of the data (``src/ooo_cpu.cc`` of the releases that simulate CloudSuite's address spaces): each is the
process of its side.

There is no magic number: a file is recognised if every record at its beginning can be one.
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.jit import at, kernel
from mmu.trace.accesses import NOT_CANONICAL, Accesses
from mmu.trace.blocks import Words, canonical
from mmu.trace.buffer import END, FULL, POSITION, RECORD, read_records
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, VIRTUAL_BITS, WRITE
from mmu.trace.source import Source

WORD = 8  # bytes
IS_BRANCH, BRANCH_TAKEN = 8, 9


class Layout(NamedTuple):
    """Where a record's fields are."""

    size: int  # bytes
    writes: int  # destination_memory: index of the first word; it ends where `reads` begins
    reads: int  # source_memory
    end: int  # the word after source_memory
    padding: tuple[slice, ...]  # bytes

    @property
    def accesses(self) -> int:
        """The accesses that a record may hold."""
        return 1 + self.end - self.writes


CHAMPSIM = Layout(size=64, writes=2, reads=4, end=8, padding=())
CLOUDSUITE = Layout(size=96, writes=3, reads=7, end=11, padding=(slice(18, 24), slice(90, 96)))
ASID = CLOUDSUITE.end  # the word that begins with it


class Bad(IntEnum):
    """Why a record is refused."""

    NO_IP = 2
    IP = 3
    ADDRESS = 4


REASONS = {
    Bad.NO_IP: "the ip is 0: not an instruction of ChampSim",
    Bad.IP: f"the ip: {NOT_CANONICAL}",
    Bad.ADDRESS: f"a memory operand: {NOT_CANONICAL}",
}


@kernel
def parse(
    words: Words,
    records: int,
    size: int,
    writes: int,
    reads: int,
    end: int,
    out: Accesses,
    place: Words,
) -> int:
    """Read records of `size` words; as `mmu.trace.buffer.read_records` wants it."""
    here, record = place[POSITION], place[RECORD]
    status = END
    while here < records:
        if record + 1 + end - writes > len(out.kind):
            status = FULL
            break
        first = here * size
        ip = words[at(first)]
        if ip == 0:
            status = Bad.NO_IP
            break
        if not canonical(ip):
            status = Bad.IP
            break
        begin = record
        out.address[at(record)], out.kind[at(record)] = ip, FETCH
        record += 1
        fits = True
        for field in range(reads, end):
            address = words[at(first + field)]
            if address != 0:
                fits = fits and canonical(address)
                out.address[at(record)], out.kind[at(record)] = address, READ
                record += 1
        for field in range(writes, reads):
            address = words[at(first + field)]
            if address != 0:
                fits = fits and canonical(address)
                out.address[at(record)], out.kind[at(record)] = address, WRITE
                record += 1
        if not fits:
            record = begin
            status = Bad.ADDRESS
            break
        if len(out.process) > 0:
            asid = words[at(first + end)]
            out.process[at(begin)] = asid & 0xFF
            for access in range(begin + 1, record):
                out.process[at(access)] = asid >> 8 & 0xFF
        here += 1
    for access in range(place[RECORD], record):
        out.size[at(access)] = 0
    place[POSITION], place[RECORD] = here, record
    return status


def plausible(head: bytes, layout: Layout) -> bool:
    """Tell whether all records of an input that begins like this can be instructions."""
    records = len(head) // layout.size
    if records == 0 or (records == 1 and len(head) != layout.size):
        return False  # a single record of one layout is the beginning of one of the other
    octets = np.frombuffer(head, np.uint8, records * layout.size).reshape(records, layout.size)
    words = octets.view(np.int64)
    branch, taken = octets[:, IS_BRANCH], octets[:, BRANCH_TAKEN]
    return bool(
        (words[:, 0] != 0).all()
        and (branch <= 1).all()
        and (taken <= branch).all()
        and all_canonical(words[:, 0])
        and all_canonical(words[:, layout.writes : layout.end])
        and not any(octets[:, padding].any() for padding in layout.padding)
    )


def all_canonical(addresses: NDArray[np.int64]) -> bool:
    """Tell whether all of these can be addresses."""
    upper = addresses >> VIRTUAL_BITS - 1
    return bool(((upper == 0) | (upper == -1)).all())


def recognised_champsim(head: bytes) -> bool:
    """Tell whether an input that begins like this is records of 64 bytes."""
    return plausible(head, CHAMPSIM)


def recognised_cloudsuite(head: bytes) -> bool:
    """Tell whether an input that begins like this is records of 96 bytes."""
    return plausible(head, CLOUDSUITE)


def parser(layout: Layout) -> Callable[[Words, int, Accesses, Words], int]:
    """Return the kernel for one layout."""

    def parse_layout(words: Words, records: int, out: Accesses, place: Words) -> int:
        size = layout.size // WORD
        return parse(words, records, size, layout.writes, layout.reads, layout.end, out, place)

    return parse_layout


def read_champsim(source: Source) -> Iterator[Raw]:
    """Yield the accesses of records of 64 bytes.

    Raises
    ------
    InputError
        A record is no instruction; the message has its number, counted from 0, and its place.
    """
    return read_layout(source, CHAMPSIM)


def read_cloudsuite(source: Source) -> Iterator[Raw]:
    """Yield the accesses of records of 96 bytes; otherwise as `read_champsim`."""
    return read_layout(source, CLOUDSUITE, processes=True)


def read_layout(source: Source, layout: Layout, processes: bool = False) -> Iterator[Raw]:
    """Yield the accesses of records of one layout."""
    source.notes.said["tool"] = "ChampSim"
    return read_records(
        parser(layout),
        REASONS,
        layout.size,
        layout.accesses,
        source.pieces,
        source.where,
        source.notes,
        processes,
    )
