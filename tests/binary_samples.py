"""Traces of other tools, byte by byte from the layouts that these document, and slow readers of them.

Shares no code with the package.
"""

import random
import struct

CHAMPSIM = struct.Struct("<Q BB 2B 4B 2Q 4Q")
CLOUDSUITE = struct.Struct("<Q BB 4B 4B 6x 4Q 4Q 2B 6x")
ENTRY = struct.Struct("<HHQ")

HALVES = [(0, 1 << 47), ((1 << 64) - (1 << 47), 1 << 64)]


def fits(start, size=1):
    """Whether all bytes of an access have 48-bit addresses."""
    return any(low <= start and start + size <= high for low, high in HALVES)


def split(start, kind, size):
    """An access as one tuple, or as two where it crosses a 4 KiB boundary."""
    first = min(size, 4096 - start % 4096)
    pieces = [(start, kind, first)]
    if first < size:
        pieces.append((start + first, kind, size - first))
    return pieces


def instruction(ip, reads=(), writes=(), branch=(0, 0), registers=(), asid=None):
    """A record of 64 bytes, or with `asid` of 96."""
    most = 2 if asid is None else 4
    memory = [*writes, *[0] * (most - len(writes)), *reads, *[0] * (4 - len(reads))]
    names = [*registers, *[0] * (most + 4 - len(registers))]
    if asid is None:
        return CHAMPSIM.pack(ip, *branch, *names, *memory)
    return CLOUDSUITE.pack(ip, *branch, *names, *memory, *asid)


def slow_champsim(data, cloudsuite=False):
    """Accesses (address, kind, size, process), or the number of the record that cannot be."""
    layout, writes = (CLOUDSUITE, 4) if cloudsuite else (CHAMPSIM, 2)
    accesses = []
    for number in range(-(-len(data) // layout.size)):
        record = data[number * layout.size : (number + 1) * layout.size]
        if len(record) < layout.size:
            return number
        ip, *rest = layout.unpack(record)
        memory = rest[2 + writes + 4 :]
        stores, loads = memory[:writes], memory[writes : writes + 4]
        asid = memory[writes + 4 :] or (None, None)
        if ip == 0 or not all(fits(address) for address in [ip, *stores, *loads]):
            return number
        accesses.append((ip, 2, 0, asid[0]))
        accesses += [(address, 0, 0, asid[1]) for address in loads if address]
        accesses += [(address, 1, 0, asid[1]) for address in stores if address]
    return accesses


FETCHED = {*range(10, 17), 31, 48, 49}
COUNTED = {*range(2, 10), *range(18, 22), 23, 27, *range(32, 48)}


def entry(what, size=0, value=0):
    """A record of 12 bytes."""
    return ENTRY.pack(what, size, value)


def marker(what, value=0):
    return entry(28, what, value)


def dynamorio(body, version=6, thread=77, process=70, file_type=0x40):
    """A trace file of one thread around `body`."""
    begin = [entry(25, 0, version), marker(12, version), marker(9, file_type)]
    whose = [entry(22, 0, thread), entry(24, 0, process)]
    return b"".join([*begin, *whose, body, entry(23, 0, thread), entry(26)])


def slow_dynamorio(data):
    """Accesses (address, kind, size, process, thread) and what was passed over, or a record's number."""
    inside, ended, thread, process = False, False, None, None
    last = following = None
    processes, accesses, passed = {}, [], 0
    if len(data) % 12:
        return (
            len(data) // 12
            if slow_dynamorio_ok(data)
            else slow_dynamorio(data[: -(len(data) % 12)])
        )
    for number in range(len(data) // 12):
        what, size, value = ENTRY.unpack_from(data, 12 * number)
        if what > 49 or inside == (what == 25):
            return number
        if what in FETCHED | {0, 1, 29, 30}:
            if not thread or not process or size > 4096 or not fits(value, max(size, 1)):
                return number
            if what in (0, 1):
                accesses += [(*piece, process, thread) for piece in split(value, what, size)]
                continue
            if size and what != 29 and not (what == 30 and value == last):
                accesses += [(*piece, process, thread) for piece in split(value, 2, size)]
            else:
                passed += 1
            if size:
                last, following = value, value + size
        elif what == 17:
            lengths = list(value.to_bytes(8, "little"))[:size]
            if not 1 <= size <= 8 or 0 in lengths or following is None or not process:
                return number
            for length in lengths:
                if not fits(following, length):
                    return number
                accesses += [(*piece, process, thread) for piece in split(following, 2, length)]
                last, following = following, following + length
        elif what in (22, 23, 24):
            if not 1 <= value < 1 << 32:
                return number
            if what == 24:
                process = processes[thread] = value
            else:
                thread, process = value, processes.get(value)
            passed += what == 23
        elif what == 25:
            if not 2 <= value <= 7:
                return number
            inside = True
        elif what == 26:
            inside, ended = False, True
        elif what == 28:
            if (size == 12 and not 2 <= value <= 7) or (size == 9 and value & 0x30):
                return number
            passed += size not in (9, 12)
        else:
            passed += 1
    if inside or not ended:
        return len(data) // 12
    return accesses, passed


def slow_dynamorio_ok(data):
    """Whether all whole records of a file that is cut off can be."""
    whole = data[: -(len(data) % 12)]
    found = slow_dynamorio(whole)
    return not isinstance(found, int) or found == len(whole) // 12


def number(value):
    """A varint."""
    octets = b""
    while value >= 128:
        octets += bytes([value & 127 | 128])
        value >>= 7
    return octets + bytes([value])


def field(name, value):
    """A field of a protobuf message: a number, bytes, or ("fixed", 4 or 8 bytes)."""
    if isinstance(value, int):
        return number(name << 3) + number(value)
    if isinstance(value, bytes):
        return number(name << 3 | 2) + number(len(value)) + value
    return number(name << 3 | {4: 5, 8: 1}[len(value[1])]) + value[1]


def message(*fields):
    content = b"".join(fields)
    return number(len(content)) + content


def packet(command, address, size, flags=0, tick=500, more=b""):
    parts = [field(1, tick), field(2, command), field(3, address), field(4, size)]
    return message(*parts, field(5, flags), field(6, 17), more)


REQUESTOR = field(4, field(1, 3) + field(2, b"cpu.data"))
HEADER = message(field(1, b"system.monitor"), field(3, 10**12), REQUESTOR)


def gem5(*packets, header=HEADER):
    return b"gem5" + header + b"".join(packets)


def slow_gem5(packets):
    """Accesses (address, kind, size) of packets (command, address, size, flags), or one's number."""
    accesses = []
    for index, (wide, address, width, flags) in enumerate(packets, 1):
        command, size = (
            wide % (1 << 32),
            width % (1 << 32),
        )  # of a larger number protobuf keeps 32 bits
        if command not in (1, 4):
            continue
        if not 1 <= size <= 4096 or not fits(address, size):
            return index
        kind = 1 if command == 4 else 2 if flags & 0x100 else 0
        accesses += split(address, kind, size)
    return accesses


def sample(name, count=200, seed=0):
    """A valid trace of some format, of about so many records."""
    chance = random.Random(seed)

    def address():
        return chance.choice(
            [0x400000, 0x7FFF_0000_0000, 0xFFFF_8000_0000_0000]
        ) + chance.randrange(1 << 16)

    def some(most):
        return [address() for _ in range(chance.choice([0, 0, 1, most]))]

    if name in ("champsim", "cloudsuite"):
        asid = name == "cloudsuite"
        records = [
            instruction(
                address(),
                some(4),
                some(2),
                registers=(6, 26),
                asid=(3, 4 + chance.randrange(2)) if asid else None,
            )
            for _ in range(count)
        ]
        return b"".join(records)
    if name == "dynamorio":
        kinds = [10, 10, 10, 48, 0, 1, 0, 2, 29, 47]
        body = b"".join(
            entry(chance.choice(kinds), chance.choice([1, 4, 8]), address()) for _ in range(count)
        )
        return dynamorio(marker(2, 1000) + body)
    if name == "gem5":
        return gem5(
            *(
                packet(
                    chance.choice([1, 1, 4, 30]),
                    address() & (1 << 46) - 1,
                    8,
                    chance.choice([0, 256]),
                )
                for _ in range(count)
            )
        )
    raise KeyError(name)
