"""ELF cores of whole machines: layouts, and the segments of memory in them.

Sources: System V ABI, "Object Files" (headers); Linux man page elf(5), PN_XNUM; QEMU, ``dump.c``: a
PT_LOAD segment for each run of memory, the physical address in ``p_paddr``. Memory that a filter left
out has ``p_offset`` -1 and no bytes.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.image.segments import HIGHEST, MOST_SEGMENTS, Segment

MAGIC = b"\x7fELF"
CLASS_64, LITTLE_ENDIAN, VERSION = 2, 1, 1  # e_ident[4:7]; VirtualBox writes version 0
CORE, X86_64 = 4, 62  # e_type, e_machine
LOAD, NOTE = 1, 4  # p_type
MANY = 0xFFFF  # PN_XNUM in e_phnum: the number is in sh_info of the first section
LEFT_OUT = (1 << 64) - 1  # p_offset
HEADER = np.dtype([
    ("ident", "S16"), ("type", "<u2"), ("machine", "<u2"), ("version", "<u4"), ("entry", "<u8"),
    ("phoff", "<u8"), ("shoff", "<u8"), ("flags", "<u4"), ("ehsize", "<u2"), ("phentsize", "<u2"),
    ("phnum", "<u2"), ("shentsize", "<u2"), ("shnum", "<u2"), ("shstrndx", "<u2"),
])  # fmt: skip
PROGRAM = np.dtype([
    ("type", "<u4"), ("flags", "<u4"), ("offset", "<u8"), ("vaddr", "<u8"), ("paddr", "<u8"),
    ("filesz", "<u8"), ("memsz", "<u8"), ("align", "<u8"),
])  # fmt: skip
SECTION = np.dtype([
    ("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("addr", "<u8"), ("offset", "<u8"),
    ("size", "<u8"), ("link", "<u4"), ("info", "<u4"), ("addralign", "<u8"), ("entsize", "<u8"),
])  # fmt: skip
ACCEPTED = "a 64-bit little-endian ELF core of an x86-64 machine"


def segments(descriptor: int, size: int) -> list[Segment]:
    """Return the segments of an ELF core of so many bytes.

    Raises
    ------
    InputError
        It is another kind of ELF file, or is damaged.
    """
    header = read(descriptor, size, HEADER, 0, 1, "the ELF header")[0]
    ident = os.pread(descriptor, 7, 0)
    found = {
        ident[4] != CLASS_64: f"a 32-bit ELF file (class {ident[4]})",
        ident[5] != LITTLE_ENDIAN: f"a big-endian ELF file (data {ident[5]})",
        ident[6] not in (0, VERSION): f"an ELF file of version {ident[6]}",
    }
    if True in found:
        raise InputError(f"found {found[True]}; accepted: {ACCEPTED}")
    if header["type"] != CORE:
        raise InputError(
            f"found an ELF file of type {header['type']}, no core; accepted: {ACCEPTED}"
        )
    if header["machine"] != X86_64:
        raise InputError(
            f"found an ELF core of machine {header['machine']}; accepted: {ACCEPTED} ({X86_64})"
        )
    number = int(header["phnum"])
    if number == MANY:
        place = int(header["shoff"])
        if place == 0:
            raise InputError(
                f"found {MANY:#x} program headers, which means more than that, and no section header "
                "with their number; the file is damaged"
            )
        number = int(
            read(descriptor, size, SECTION, place, 1, "the first section header")["info"][0]
        )
    if number and header["phentsize"] != PROGRAM.itemsize:
        raise InputError(
            f"found program headers of {header['phentsize']} bytes; accepted: {PROGRAM.itemsize}"
        )
    if number > MOST_SEGMENTS:
        raise InputError(f"found {number:,} program headers; accepted: up to {MOST_SEGMENTS:,}")
    programs = read(descriptor, size, PROGRAM, int(header["phoff"]), number, "program headers")
    loads = programs[(programs["type"] == LOAD) & (programs["memsz"] > 0)]
    if len(loads) > 1 and not loads["paddr"].any():
        raise InputError(
            "found a core without physical addresses, as those of processes are; accepted: "
            f"{ACCEPTED}, such as QEMU's dump-guest-memory writes"
        )
    return [part for load in loads.tolist() for part in parts(load)]


def parts(load: tuple[int, ...]) -> list[Segment]:
    """Return what a program header says of memory: what is in the file, and what reads as zero."""
    _, _, offset, _, address, in_file, in_memory, _ = load
    if in_file > in_memory or in_memory > HIGHEST:
        raise InputError(
            f"found a segment of {in_memory:#x} bytes at {address:#x}, {in_file:#x} of them in the "
            f"file; accepted: no more in the file than in memory, which ends at {HIGHEST:#x}"
        )
    if in_file == 0 and offset == LEFT_OUT:
        return []
    rest = Segment(address + in_file, in_memory - in_file, None)
    return [Segment(address, in_file, offset), rest]


def read(
    descriptor: int, size: int, layout: np.dtype[Any], offset: int, number: int, what: str
) -> NDArray[Any]:
    """Return so many records at an offset of a file of `size` bytes."""
    wanted = number * layout.itemsize
    data = os.pread(descriptor, wanted, offset) if offset + wanted <= size else b""
    if len(data) != wanted:
        raise InputError(
            f"found no room for {what} ({wanted:#x} bytes at {offset:#x}) in a file of {size:#x} bytes; "
            "the file is cut short, or is no ELF core"
        )
    return np.frombuffer(data, layout, number)
