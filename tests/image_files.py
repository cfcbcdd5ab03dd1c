"""Memory images written by hand, field by field, without the package's help."""

import struct

EHDR, PHDR, SHDR = "<16sHHIQQQIHHHHHH", "<IIQQQQQQ", "<IIQQQQIIQQ"
CORE, X86_64, LOAD, NOTE = 4, 62, 1, 4


def load(address, offset, in_file, in_memory=None, kind=LOAD):
    """A program header."""
    size = in_file if in_memory is None else in_memory
    return struct.pack(PHDR, kind, 0, offset, 0, address, in_file, size, 0)


def header(
    number, klass=2, data=1, version=1, kind=CORE, machine=X86_64, phoff=64, shoff=0, size=56
):
    """An ELF header."""
    ident = b"\x7fELF" + bytes([klass, data, version])
    sections = (64, 1) if shoff else (0, 0)
    return struct.pack(
        EHDR, ident, kind, machine, 1, 0, phoff, shoff, 0, 64, size, number, *sections, 0
    )


def elf(segments, notes=b"", many=False, **fields):
    """An ELF core as QEMU writes one: headers, notes, memory.

    segments: (address, bytes, size in memory) each; many: their number is in a section header.
    """
    count = len(segments) + 1
    table = 64 + 56 * count
    memory = table + (64 if many else 0) + len(notes)
    programs, content = [load(0, memory - len(notes), len(notes), kind=NOTE)], b""
    for address, data, size in segments:
        programs.append(load(address, memory + len(content), len(data), size))
        content += data
    section = struct.pack(SHDR, 0, 0, 0, 0, 0, 0, 0, count, 0, 0) if many else b""
    first = header(0xFFFF if many else count, shoff=table if many else 0, **fields)
    return first + b"".join(programs) + section + notes + content


def lime(ranges, magic=0x4C694D45, version=1):
    """A LiME dump of (address, bytes)."""
    return b"".join(
        struct.pack("<IIQQ8x", magic, version, address, address + len(data) - 1) + data
        for address, data in ranges
    )
