"""CPUID of the machine that this runs on: by Linux's device, else by a few bytes of machine code."""

import ctypes
import mmap
import os
import platform
import struct
from collections.abc import Callable

from mmu.cpuid.dump import Leaf, Registers, bits
from mmu.errors import InputError

DEVICE = "/dev/cpu/0/cpuid"
BASIC = (1, 2, 0x16)
EXTENDED = (
    0x80000002, 0x80000003, 0x80000004, 0x80000005, 0x80000006, 0x8000000A, 0x80000019, 0x80000021,
)  # fmt: skip
TABLES = (4, 0x8000001D)  # each of their subleaves is a cache; type 0 ends them
MOST_SUBLEAVES = 64  # of one leaf: no processor has a tenth of it
Ask = Callable[[int, int], Registers]

# void ask(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]), as Linux and macOS call it.
CODE = bytes.fromhex(
    "53"  # push rbx, which is the caller's
    "89f8 89f1"  # mov eax, edi; mov ecx, esi
    "4989d0"  # mov r8, rdx, as rdx is overwritten
    "0fa2"  # cpuid
    "418900 41895804 41894808 4189500c"  # mov [r8], eax; [r8+4], ebx; [r8+8], ecx; [r8+12], edx
    "5b c3"  # pop rbx; ret
)


def host_leaves() -> dict[Leaf, Registers]:
    """Return what this machine's processor tells, of the leaves that are decoded.

    Raises
    ------
    InputError
        It is no x86-64 processor, or neither way of asking it is allowed here.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        found = f"found a processor {platform.machine()!r}"
        raise InputError(f"{found}; accepted: x86-64, or a dump, with 'from-cpuid'")
    try:
        return _with_device()
    except OSError as by_device:
        try:
            return _with_code()
        except OSError as error:
            tried = f"{DEVICE}: {by_device.strerror}, and executable memory: {error.strerror}"
            accepted = "one of them, or a dump, with 'from-cpuid'"
            raise InputError(f"cannot ask this processor: {tried}; accepted: {accepted}") from None


def _with_device() -> dict[Leaf, Registers]:
    device = os.open(DEVICE, os.O_RDONLY)
    try:

        def ask(leaf: int, sub: int) -> Registers:
            data = os.pread(device, 16, leaf | sub << 32)
            if len(data) < 16:
                raise OSError(0, "it ended early")
            return Registers(*struct.unpack("<4I", data))

        return gather(ask)
    finally:
        os.close(device)


def _with_code() -> dict[Leaf, Registers]:
    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, mmap.PAGESIZE, prot=protection) as code:
        code.write(CODE)
        first = ctypes.c_char.from_buffer(code)
        words = (ctypes.c_uint32 * 4)()
        kinds = (None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)
        call = ctypes.CFUNCTYPE(*kinds)(ctypes.addressof(first))

        def ask(leaf: int, sub: int) -> Registers:
            call(leaf, sub, ctypes.addressof(words))
            return Registers(*words)

        try:
            return gather(ask)
        finally:
            del first  # the mapping is not closed while something points into it


def gather(ask: Ask) -> dict[Leaf, Registers]:
    """Ask for each leaf that there is and that is decoded."""
    leaves = {(0, 0): ask(0, 0), (0x80000000, 0): ask(0x80000000, 0)}
    most = {0: leaves[0, 0].eax, 1: leaves[0x80000000, 0].eax}
    for leaf in (*BASIC, *EXTENDED):
        if leaf <= most[leaf >> 31]:
            leaves[leaf, 0] = ask(leaf, 0)
    for leaf in TABLES:
        if leaf > most[leaf >> 31]:
            continue
        for sub in range(MOST_SUBLEAVES):
            registers = ask(leaf, sub)
            if bits(registers.eax, 4, 0) == 0:
                break
            leaves[leaf, sub] = registers
    if most[0] >= 0x18:
        last = ask(0x18, 0).eax
        for sub in range(min(last + 1, MOST_SUBLEAVES)):
            leaves[0x18, sub] = ask(0x18, sub)
    return leaves
