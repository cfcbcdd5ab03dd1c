"""The public translation: one address through page tables, without any cache.

It runs the same walk as a replay does, on a machine that caches nothing.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.hardware.bits import (
    ENTRIES,
    LEVEL_BITS,
    LEVELS,
    OFFSET_MASK,
    PAGE_BYTES,
    PAGE_SHIFT,
    VIRTUAL_BITS,
    WORD_BYTES,
)
from mmu.hardware.entry import ADDRESS, LARGE_LEAF
from mmu.hardware.geometry import build_processor
from mmu.hardware.machine import (
    FAULT_GPA,
    FAULT_PRESENT,
    FETCH,
    READ_ACCESS,
    STEP_ENTRY,
    STEP_FIELDS,
    STEP_LEVEL,
    STEP_NESTED,
    STEP_USED,
    STEP_WORD,
    SUPERVISOR,
    WRITE_ACCESS,
    Machine,
)
from mmu.hardware.outcome import Outcome
from mmu.hardware.rows import Words
from mmu.hardware.walk import walk_once
from mmu.memory import Memory

ACCESSES = {"read": READ_ACCESS, "write": WRITE_ACCESS, "fetch": FETCH}
MOST_STEPS = 64
# Bits of a page fault's error code (Intel SDM vol. 3, "Page-Fault Exceptions").
ERROR_PRESENT, ERROR_WRITE, ERROR_USER, ERROR_FETCH = 1 << 0, 1 << 1, 1 << 2, 1 << 4
# Fields of an EPT pointer (Intel SDM vol. 3, "Extended-Page-Table Pointer (EPTP)").
EPTP_TYPES = (0, 6)
EPTP_LEVELS_SHIFT, EPTP_DIRTY = 3, 1 << 6
EPTP_RESERVED = 0xF80


@dataclass(frozen=True)
class Ept:
    """Nested tables in Intel's format.

    Parameters
    ----------
    eptp : int
        EPT pointer: bits 2:0 memory type (0 or 6), 5:3 levels less one (3), 6 accessed and dirty
        bits on, 51:12 machine address of the root table.

    Raises
    ------
    InputError
        A field of the pointer is none that a processor accepts.
    """

    eptp: int

    def __post_init__(self) -> None:
        """Check the pointer's fields."""
        whole("eptp", self.eptp)
        levels = (self.eptp >> EPTP_LEVELS_SHIFT & 7) + 1
        fits = 0 <= self.eptp <= ADDRESS | OFFSET_MASK and not self.eptp & EPTP_RESERVED
        if not fits or self.eptp & 7 not in EPTP_TYPES or levels != LEVELS:
            raise InputError(
                f"eptp: found {self.eptp:#x}, memory type {self.eptp & 7}, {levels} levels; accepted: "
                "type 0 or 6, 4 levels, bits 11:7 and 63:52 zero, such as root | 0x5e"
            )

    @property
    def root(self) -> int:
        """Machine address of the root table."""
        return self.eptp & ADDRESS

    @property
    def dirty(self) -> bool:
        """The processor keeps accessed and dirty bits in these tables."""
        return bool(self.eptp & EPTP_DIRTY)

    @classmethod
    def at(cls, root: int, dirty: bool = True) -> "Ept":
        """Return the pointer to a root table, write-back, four levels."""
        return cls(
            whole("root", root) | (EPTP_DIRTY if dirty else 0) | LEVELS - 1 << EPTP_LEVELS_SHIFT | 6
        )


class Step(NamedTuple):
    """One table read: which table's, where its entry stands, and the entry as it was read."""

    dimension: str  # "guest" or "nested"
    level: int
    address: int  # machine address of the entry
    entry: int  # 64 bits, unsigned


@dataclass(frozen=True)
class Translation:
    """How an access ends.

    Attributes
    ----------
    outcome : Outcome
        OK, or why there is no translation.
    gpa, maddr : int or None
        Guest-physical and machine address, where the walk got that far; equal without nesting.
    page_size, guest_page_size, nested_page_size : int or None
        Bytes: what a TLB would keep, which is the smaller of the two, and each by itself.
    error_code : int or None
        Of a page fault: bits P, W, U and I/D.
    fault_gpa : int or None
        Of a nested violation: the guest-physical address, offset included.
    references : int
        Table reads made.
    steps : tuple of Step
        Those reads, in order.
    updates : dict
        New entries, by machine address, of those whose accessed or dirty bits change.
    """

    outcome: Outcome
    gpa: int | None = None
    maddr: int | None = None
    page_size: int | None = None
    guest_page_size: int | None = None
    nested_page_size: int | None = None
    error_code: int | None = None
    fault_gpa: int | None = None
    references: int = 0
    steps: tuple[Step, ...] = ()
    updates: dict[int, int] = field(default_factory=dict)


def whole(name: str, value: object) -> int:
    """Return a whole number of any type that is one."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise InputError(f"{name}: found {value!r}; accepted: a whole number, such as 0x7f0012345000")


def signed(gva: int) -> int:
    """Return a 64-bit address of either sign as the signed number that kernels use."""
    if not -(1 << 63) <= gva < 1 << 64:
        raise InputError(f"gva: found {gva:#x}; accepted: a 64-bit address, of either sign")
    return gva - (1 << 64) if gva >= 1 << 63 else gva


def machine_over(memory: Memory, cr3: int, nested: Ept | None, update: bool) -> Machine:
    """Return a machine that caches nothing, over a user's memory."""
    machine = build_processor(memory.words, nested_dirty=nested is not None and nested.dirty)
    machine.root[0] = cr3 & ADDRESS
    machine.nested[0] = nested.root if nested else -1
    return machine._replace(
        formats=machine.formats._replace(origin=memory.base // WORD_BYTES, update=int(update)),
        trail=np.zeros((MOST_STEPS, STEP_FIELDS), np.int64),
    )


def page_bytes(step: Words) -> int:
    """Return the bytes of the page that the leaf of a step maps."""
    return PAGE_BYTES << LEVEL_BITS * (int(step[STEP_LEVEL]) - 1)


def is_leaf(step: Words) -> bool:
    """Tell whether the entry that a step read maps a page."""
    large = step[STEP_LEVEL] < LEVELS and int(step[STEP_ENTRY]) & LARGE_LEAF
    return bool(step[STEP_LEVEL] == 1 or large)


def translate(
    memory: Memory,
    gva: int,
    *,
    cr3: int,
    nested: Ept | None = None,
    access: str = "read",
    user: bool = True,
    update: bool = False,
) -> Translation:
    """Translate an address as a processor does that has nothing cached.

    Parameters
    ----------
    memory : Memory
        Machine memory with the tables.
    gva : int
        Virtual address, unsigned or signed.
    cr3 : int
        Address of the root table, guest-physical if `nested`; bits outside 51:12 are ignored.
    nested : Ept, optional
        The hypervisor's tables.
    access : {"read", "write", "fetch"}
        What the access does.
    user : bool
        Of the user, or of the supervisor (with CR0.WP set, SMEP and SMAP off).
    update : bool
        Write accessed and dirty bits to `memory`.

    Returns
    -------
    Translation
        The addresses and sizes, or why there are none; a hostile table is an outcome as well.

    Raises
    ------
    InputError
        An argument is none of these, or `update` was asked of memory that cannot be written.
    """
    gva, cr3 = whole("gva", gva), whole("cr3", cr3)
    if not isinstance(memory, Memory):
        raise InputError(
            f"memory: found {type(memory).__name__}; accepted: Memory.from_words(words)"
        )
    if nested is not None and not isinstance(nested, Ept):
        raise InputError(f"nested: found {type(nested).__name__}; accepted: None or Ept(eptp)")
    if not 0 <= cr3 < 1 << 64:
        raise InputError(f"cr3: found {cr3:#x}; accepted: 64 bits, of which 51:12 count")
    if not isinstance(user, bool) or not isinstance(update, bool):
        raise InputError(f"user, update: found {user!r}, {update!r}; accepted: True | False")
    if not isinstance(access, str) or access not in ACCESSES:
        raise InputError(f"access: found {access!r}; accepted: {' | '.join(ACCESSES)}")
    if update and not memory.writable:
        raise InputError(
            "update: found memory that cannot be written; accepted: a contiguous, writable array"
        )
    address = signed(gva)
    if address >> (VIRTUAL_BITS - 1) not in (0, -1):
        return Translation(Outcome.NOT_CANONICAL)
    machine = machine_over(memory, cr3, nested, update)
    kind = ACCESSES[access] + (0 if user else SUPERVISOR)
    word = walk_once(machine, address, kind)
    trail = machine.trail[: machine.steps[0]]
    guest = trail[trail[:, STEP_NESTED] == 0]
    leaf = guest[-1] if len(guest) and is_leaf(guest[-1]) else None
    outcome = Outcome(max(-word, 0))
    found: dict[str, int] = {}
    if outcome == Outcome.PAGE_FAULT:
        present = ERROR_PRESENT if machine.fault[FAULT_PRESENT] else 0
        kinds = {"write": ERROR_WRITE, "fetch": ERROR_FETCH}
        found["error_code"] = present | kinds.get(access, 0) | (ERROR_USER if user else 0)
    elif leaf is not None:
        inside = page_bytes(leaf) - 1
        found["gpa"] = int(leaf[STEP_ENTRY]) & ADDRESS & ~inside | address & inside
        found["guest_page_size"] = inside + 1
    if outcome == Outcome.NESTED_VIOLATION:
        level = int(guest[-1][STEP_LEVEL]) - 1 if len(guest) else LEVELS
        entry = address >> (PAGE_SHIFT + LEVEL_BITS * (level - 1)) & (ENTRIES - 1)
        entry = WORD_BYTES * entry if leaf is None else 0
        found["fault_gpa"] = found.get("gpa", int(machine.fault[FAULT_GPA]) + entry)
    elif outcome == Outcome.OK:
        size = found["guest_page_size"]
        if nested:
            found["nested_page_size"] = page_bytes(trail[-1])
            size = min(size, found["nested_page_size"])
        found["page_size"] = size
        found["maddr"] = word & ADDRESS & ~(size - 1) | address & (size - 1)
    updates: dict[int, int] = {}
    for step in trail[trail[:, STEP_USED] != trail[:, STEP_ENTRY]]:
        where = memory.base + int(step[STEP_WORD]) * WORD_BYTES
        updates[where] = updates.get(where, 0) | int(step[STEP_USED]) % (1 << 64)
    return Translation(
        outcome,
        references=int(machine.steps[0]),
        steps=tuple(
            Step(
                "nested" if step[STEP_NESTED] else "guest",
                int(step[STEP_LEVEL]),
                memory.base + int(step[STEP_WORD]) * WORD_BYTES,
                int(step[STEP_ENTRY]) % (1 << 64),
            )
            for step in trail
        ),
        updates=updates,
        **found,
    )
