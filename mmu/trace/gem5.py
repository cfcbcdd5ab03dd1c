"""Reads gem5's packet traces, as its MemTraceProbe and CommMonitor write them.

A file (gem5/gem5: ``src/proto/protoio.hh``, ``protoio.cc``, ``packet.proto``) is the letters "gem5",
then protobuf messages, each behind its length as a varint: a ``PacketHeader``, then ``Packet`` after
``Packet``. Often all of it is packed by gzip. Of a packet

    1 tick    2 cmd    3 addr    4 size    5 flags    6 pkt_id    7 pc

are read cmd, addr, size and flags; fields that are not known are passed over by their wire type.

``cmd`` is a number of ``MemCmd::Command`` (``src/mem/packet.hh``), and gem5 has renumbered them: 24 has
been SwapReq, LoadLockedReq and ReadCleanReq, and the header does not say by which version. Only 1,
ReadReq, and 4, WriteReq, have always meant the same: they are a read and a write, and a read with the
flag INST_FETCH, 0x100 (``src/mem/request.hh``), is a fetch. Packets of other commands are passed over
and counted by their number.

Addresses are physical.
"""

from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel
from mmu.trace.accesses import MOST_BYTES, NOT_CANONICAL, Accesses, add, made, room, within
from mmu.trace.blocks import Bytes, Words
from mmu.trace.buffer import END, FIELDS, FULL, POSITION, RECORD, RECORDS, Buffer
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.source import Source

MAGIC = b"gem5"
MOST_MESSAGE = 1 << 18  # bytes; a header names every requestor of the machine
LENGTH_BYTES, VARINT_BYTES = 5, 10
MESSAGES, PLACE_FIELDS = FIELDS, FIELDS + 1  # messages read so far

READ_REQ, WRITE_REQ = 1, 4
INST_FETCH = 0x100
COMMANDS = 64  # that are counted each by itself

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
TICK, CMD, ADDR, SIZE, FLAGS = 1, 2, 3, 4, 5
REQUIRED = 1 << TICK | 1 << CMD | 1 << ADDR | 1 << SIZE
UINT32 = (1 << 32) - 1


class Bad(IntEnum):
    """Why a message is refused."""

    LENGTH = 2
    MESSAGE = 3
    MISSING = 4
    SIZE = 5
    RANGE = 6


REASONS = {
    Bad.LENGTH: f"the message's length is no number up to {MOST_MESSAGE}",
    Bad.MESSAGE: "the message's fields are damaged",
    Bad.MISSING: "tick, cmd, addr or size is missing: not a packet",
    Bad.SIZE: f"the size is not a number from 1 to {MOST_BYTES}",
    Bad.RANGE: NOT_CANONICAL,
}
CUT, ENDLESS = -1, -2  # instead of where a varint ends


@inlined
def varint(text: Bytes, here: int, end: int, most: int) -> tuple[np.int64, int]:
    """Return the number at `here` and where it ends; or CUT at `end`, or ENDLESS after `most` bytes."""
    value, shift = np.int64(0), 0
    while here < end:
        octet = np.int64(text[at(here)])
        value |= (octet & 0x7F) << shift
        here += 1
        if octet < 0x80:
            return value, here
        shift += 7
        if shift == 7 * most:
            return value, ENDLESS
    return value, CUT


@inlined
def skipped(text: Bytes, here: int, end: int, wire: int) -> int:
    """Return where a field's value ends; or a number that is negative or beyond `end`."""
    if wire == FIXED64:
        return here + 8
    if wire == FIXED32:
        return here + 4
    if wire == BYTES:
        length, here = varint(text, here, end, VARINT_BYTES)
        if here < 0 or length < 0 or length > end - here:
            return CUT
        return here + length  # type: ignore[return-value]
    return CUT


@inlined
def read_packet(text: Bytes, here: int, stop: int, packet: Words) -> int:
    """Read a message's fields into `packet`, by their number; return END or why it is refused."""
    packet[:] = 0
    seen = 0
    while here < stop:
        tag, here = varint(text, here, stop, VARINT_BYTES)
        name, wire = int(tag >> 3), int(tag & 7)
        if here < 0 or name < 1:
            return np.int64(Bad.MESSAGE)  # type: ignore[return-value]
        if wire == VARINT:
            value, here = varint(text, here, stop, VARINT_BYTES)
            if name <= FLAGS:
                packet[at(name)] = value
                seen |= 1 << name
        else:
            here = skipped(text, here, stop, wire)
        if here < 0 or here > stop:
            return np.int64(Bad.MESSAGE)  # type: ignore[return-value]
    if seen & REQUIRED != REQUIRED:
        return np.int64(Bad.MISSING)  # type: ignore[return-value]
    packet[CMD] &= UINT32
    packet[SIZE] &= UINT32
    if packet[CMD] in (READ_REQ, WRITE_REQ):
        if packet[SIZE] < 1 or packet[SIZE] > MOST_BYTES:
            return np.int64(Bad.SIZE)  # type: ignore[return-value]
        if not within(packet[ADDR], packet[SIZE]):
            return np.int64(Bad.RANGE)  # type: ignore[return-value]
    return np.int64(END)  # type: ignore[return-value]


@kernel
def parse(
    text: Bytes, end: int, out: Accesses, place: Words, packet: Words, commands: Words
) -> int:
    """Read the whole messages of `text` up to `end`, from where `place` says.

    Returns END, FULL (no room in `out`), or why a message is refused.
    """
    here, record, message = place[POSITION], place[RECORD], place[MESSAGES]
    status = np.int64(END)
    while here < end:
        if record + 2 > len(out.kind):
            status = np.int64(FULL)
            break
        length, body = varint(text, here, end, LENGTH_BYTES)
        if body == ENDLESS or length > MOST_MESSAGE:
            status = np.int64(Bad.LENGTH)
            break
        stop = int(body + length)
        if body == CUT or stop > end:
            break
        status = np.int64(read_packet(text, body, stop, packet))
        if status != END:
            break
        address, size = packet[ADDR], packet[SIZE]
        if packet[CMD] == WRITE_REQ:
            record = add(out, record, address, size, WRITE)
        elif packet[CMD] != READ_REQ:
            commands[at(min(packet[CMD], COMMANDS))] += 1
        elif packet[FLAGS] & INST_FETCH != 0:
            record = add(out, record, address, size, FETCH)
        else:
            record = add(out, record, address, size, READ)
        here = stop
        message += 1
    place[POSITION], place[RECORD], place[MESSAGES] = here, record, message
    return status  # type: ignore[return-value]


def number(message: bytes, here: int) -> tuple[int, int]:
    """Return the varint at `here` and where it ends; raise IndexError where there is none."""
    value = 0
    for octet in range(VARINT_BYTES):
        value |= (message[here + octet] & 0x7F) << 7 * octet
        if message[here + octet] < 0x80:
            return value, here + octet + 1
    raise IndexError


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of a message's fields; raise IndexError where it is damaged."""
    here = 0
    while here < len(message):
        tag, here = number(message, here)
        name, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, here = number(message, here)
            yield name, value
            continue
        length = {FIXED64: 8, FIXED32: 4}.get(wire, len(message) + 1)
        if wire == BYTES:
            length, here = number(message, here)
        if length > len(message) - here:
            raise IndexError
        yield name, message[here : here + length]
        here += length


def header(message: bytes) -> dict[str, str | int] | None:
    """Return what a trace's PacketHeader says; None: it is another message."""
    try:
        found = dict(fields(message))  # of a field that is repeated, the last: as protobuf has it
    except IndexError:
        return None
    recorder, frequency, requestors = found.get(1), found.get(3), found.get(4, b"")
    if not isinstance(recorder, bytes) or not isinstance(frequency, int):
        return None
    if not isinstance(requestors, bytes):
        return None  # the header of another kind of trace has a number there
    return {
        "tool": "gem5",
        "recorder": recorder.decode(errors="replace")[:200],
        "tick_frequency": frequency,
        "addresses": "physical",
    }


def recognised(head: bytes) -> bool:
    """Tell whether an input that begins like this is one of gem5's protobuf streams."""
    return head.startswith(MAGIC)


def read_gem5(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a packet trace.

    Raises
    ------
    InputError
        It is another kind of trace, or a message cannot be a packet; the error has its number,
        counted from 0 for the header, and where it begins.
    """
    buffer = Buffer(source.pieces, source.where)
    buffer.fill()
    if buffer.bytes[: len(MAGIC)].tobytes() != MAGIC or buffer.filled < len(MAGIC):
        raise InputError(
            f"{source.where}: does not begin with 'gem5'; accepted: gem5's packet traces"
        )
    used = begin(buffer, source)
    place = np.zeros(PLACE_FIELDS, np.int64)
    place[MESSAGES] = 1
    packet, commands = np.zeros(FLAGS + 1, np.int64), np.zeros(COMMANDS + 1, np.int64)
    more = True
    while more or used < buffer.filled:
        more = buffer.fill(used)
        place[POSITION] = 0
        status = FULL
        while status == FULL:
            out = room(RECORDS)
            place[RECORD] = 0
            status = parse(buffer.bytes, buffer.filled, out, place, packet, commands)
            count_commands(source, commands)
            yield made(out, int(place[RECORD]))
        used = int(place[POSITION])
        left = buffer.filled - used
        if status != END:
            buffer.refuse(int(place[MESSAGES]), used, left, REASONS[Bad(status)])
        if not more and left:
            buffer.refuse(int(place[MESSAGES]), used, left, "the message is cut off")


def begin(buffer: Buffer, source: Source) -> int:
    """Read the header's message; return where the next one begins."""
    first = len(MAGIC)
    left = buffer.filled - first
    try:
        length, body = number(buffer.bytes[: min(buffer.filled, 32)].tobytes(), first)
    except IndexError:
        buffer.refuse(0, first, left, REASONS[Bad.LENGTH])
    if length > MOST_MESSAGE:
        buffer.refuse(0, first, left, REASONS[Bad.LENGTH])
    end = body + length
    if end > buffer.filled:
        buffer.refuse(0, first, left, "the header is cut off")
    said = header(buffer.bytes[body:end].tobytes())
    if said is None:
        buffer.refuse(0, first, left, "not the header of a packet trace")
    source.notes.said |= said
    source.notes.remark("addresses are physical, as gem5 records them")
    return end


def count_commands(source: Source, commands: Words) -> None:
    """Count the packets that were passed over by their command."""
    for command in np.flatnonzero(commands).tolist():
        what = f"command {command}" if command < COMMANDS else f"commands from {COMMANDS} on"
        source.notes.pass_over(f"packets of {what}", int(commands[command]))
    commands[:] = 0
