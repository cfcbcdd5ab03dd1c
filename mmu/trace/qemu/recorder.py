"""Records under QEMU's user-mode emulation: threads apart, and many times faster than valgrind.

QEMU 7.2 and lackey 3.19 tell the same fetches, loads and stores of a program, in the same order, but:
an access of 16 bytes is two of 8 in QEMU; a locked instruction loads once in QEMU and twice in
lackey. Neither tells what the kernel reads and writes for a system call.
"""

import mmap
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, kernel
from mmu.trace.accesses import Accesses, add, made, room
from mmu.trace.blocks import Words
from mmu.trace.format import Raw
from mmu.trace.qemu.build import SLOT_WORDS, SLOTS, option, plugin, version_of
from mmu.trace.session import Session, tool

TRACER = "qemu-"
EMULATOR = "qemu-x86_64"
HEAD_WORDS, SLOT_HEAD = 8, 8
STATE, THREAD, RECORDS, SEQUENCE = range(4)
FREE, FILLING, FULL = range(3)
NAP = 0.0005  # seconds between looks for full slots
X86_64 = b"\x7fELF\x02\x01", 62  # a 64-bit little-endian file, for that machine: elf(5)


@kernel
def unpack(records: Words, out: Accesses) -> int:
    """Take the plugin's records apart; return how many accesses that makes."""
    made = 0
    for i in range(len(records)):
        what = records[at(i)]
        made = add(out, made, what >> 16, what >> 2 & 0x3FFF, what & 3)
    return made


def accesses_of(slot: Words) -> Raw:
    """Return what a slot holds."""
    held = slot[SLOT_HEAD : SLOT_HEAD + int(slot[RECORDS])]
    out = room(2 * len(held))
    part = made(out, unpack(held, out))
    return part._replace(thread=np.full(len(part.kind), slot[THREAD], np.uint32))


def under_qemu(session: Session) -> Iterator[Raw]:
    """Yield the accesses of a session's program, with its threads, not of its children.

    Raises
    ------
    InputError
        QEMU is not installed or takes no plugins, or the program is none that it runs.
    """
    qemu = tool("qemu", EMULATOR)
    file = program_file(session)
    built = plugin(qemu)
    session.notes.said |= {"tool": EMULATOR, "tool_version": version_of(qemu)}
    memory = os.memfd_create("mmu")
    size = 8 * (HEAD_WORDS + SLOTS * SLOT_WORDS)
    try:
        os.ftruncate(memory, size)
        shared = mmap.mmap(memory, size)
        words = np.frombuffer(shared, np.int64)
        given = option(built, map=f"/proc/{os.getpid()}/fd/{memory}")
        command = [qemu, "-0", session.command[0], "-plugin", given, file, *session.command[1:]]
        session.start(command, -1, -1, tracer=TRACER)
        try:
            yield from slots(session, words[HEAD_WORDS:].reshape(SLOTS, SLOT_WORDS))
        finally:
            words[0] = 1  # nothing waits for us any more
    finally:
        os.close(memory)


def slots(session: Session, table: Words) -> Iterator[Raw]:
    """Yield what full slots hold, in their sequence, and in the end what the others hold."""
    traced = session.traced
    assert traced is not None
    while True:
        traced.listen()
        last = traced.over or session.interrupted
        full = np.flatnonzero(table[:, STATE] == FULL)
        for number in full[np.argsort(table[full, SEQUENCE])].tolist():
            part = accesses_of(table[number])
            table[number, STATE] = FREE
            yield part
        if last:
            break
        if not len(full):
            time.sleep(NAP)
    for number in np.flatnonzero((table[:, STATE] == FILLING) & (table[:, RECORDS] > 0)).tolist():
        yield accesses_of(table[number])


def program_file(session: Session) -> str:
    """Return the file of the program, which QEMU does not look for, and must be able to run."""
    name = session.command[0]
    found = name if "/" in name else shutil.which(name, path=session.environment.get("PATH"))
    assert found is not None  # it has been checked
    with Path(found).open("rb") as file:
        head = file.read(20)
    magic, machine = X86_64
    if not head.startswith(magic) or int.from_bytes(head[18:20], "little") != machine:
        script = " is a script: put its interpreter before it" if head[:2] == b"#!" else ""
        raise InputError(
            f"COMMAND: {found!r}{script or ' is no x86-64 program'}; {EMULATOR} runs ELF files of "
            "x86-64"
        )
    return found
