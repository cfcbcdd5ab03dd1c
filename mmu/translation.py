"""The public translation: addresses through page tables, without any cache.

It runs the same walk as a replay does, on a machine that caches nothing.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.hardware.answers import ANSWER_TYPES, Answers
from mmu.hardware.bits import WORD_BYTES
from mmu.hardware.entry import ADDRESS
from mmu.hardware.geometry import build_processor
from mmu.hardware.machine import (
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
from mmu.hardware.many import walk_many
from mmu.hardware.outcome import Outcome
from mmu.hardware.rows import Words
from mmu.memory import Memory
from mmu.paging import Control, Ept, Npt, whole

ACCESSES = {"read": READ_ACCESS, "write": WRITE_ACCESS, "fetch": FETCH}
MOST_STEPS = 64


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
        Of a page fault: bits P, W/R, U/S, RSVD and I/D.
    exit_qualification : int or None
        Of an EPT violation: bits 0 to 5, 7 and 8.
    exit_info : int or None
        EXITINFO1 of a nested page fault: the error code, and bit 32 or 33.
    fault_gpa : int or None
        Of a nested violation or misconfiguration: the guest-physical address, offset included.
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
    exit_qualification: int | None = None
    exit_info: int | None = None
    fault_gpa: int | None = None
    references: int = 0
    steps: tuple[Step, ...] = ()
    updates: dict[int, int] = field(default_factory=dict)


class Translations(NamedTuple):
    """How accesses end, in arrays of one element each; `Translation` says what the fields mean.

    Where a translation has no such thing, `gpa`, `maddr` and `fault_gpa` are NONE, the others 0.
    """

    outcome: NDArray[np.uint8]
    gpa: NDArray[np.uint64]
    maddr: NDArray[np.uint64]
    page_size: NDArray[np.uint32]
    guest_page_size: NDArray[np.uint32]
    nested_page_size: NDArray[np.uint32]
    error_code: NDArray[np.uint16]
    exit_qualification: NDArray[np.uint16]
    exit_info: NDArray[np.uint64]
    fault_gpa: NDArray[np.uint64]
    references: NDArray[np.uint8]


NONE = (1 << 64) - 1
USUAL = Control()


def signed(gva: int) -> int:
    """Return a 64-bit address of either sign as the signed number that kernels use."""
    if not -(1 << 63) <= gva < 1 << 64:
        raise InputError(f"gva: found {gva:#x}; accepted: a 64-bit address, of either sign")
    return gva - (1 << 64) if gva >= 1 << 63 else gva


def machine_over(
    memory: Memory, cr3: int, nested: Ept | Npt | None, control: Control, update: bool
) -> Machine:
    """Return a machine that caches nothing, over a user's memory."""
    rules = control.rules(nested)._replace(update=int(update))
    machine = build_processor(memory.words, memory.extents, rules)
    machine.root[0] = cr3 & ADDRESS
    machine.nested[0] = nested.root if nested else -1
    return machine


def check_arguments(
    memory: Memory, cr3: int, nested: object, control: object, user: object, update: object
) -> None:
    """Refuse what no translation can be made of."""
    if not isinstance(memory, Memory):
        raise InputError(
            f"memory: found {type(memory).__name__}; accepted: Memory.from_words(words), "
            "Memory.from_pages(addresses, pages), Memory.open(path)"
        )
    if nested is not None and not isinstance(nested, Ept | Npt):
        found = type(nested).__name__
        raise InputError(f"nested: found {found}; accepted: None, Ept(eptp) or Npt(ncr3)")
    if not isinstance(control, Control):
        raise InputError(f"control: found {type(control).__name__}; accepted: Control(wp=...)")
    if not 0 <= whole("cr3", cr3) < 1 << 64:
        raise InputError(f"cr3: found {cr3:#x}; accepted: 64 bits, of which 51:12 count")
    if not isinstance(user, bool) or not isinstance(update, bool):
        raise InputError(f"user, update: found {user!r}, {update!r}; accepted: True | False")
    if update and not memory.writable:
        raise InputError(
            "update: found memory that cannot be written; accepted: a contiguous, writable array"
        )


def access_code(access: object) -> int:
    """Return the kind of access that a word names."""
    if not isinstance(access, str) or access not in ACCESSES:
        raise InputError(f"access: found {access!r}; accepted: {' | '.join(ACCESSES)}")
    return ACCESSES[access]


def answers_for(machine: Machine, gvas: Words, kind: NDArray[np.uint8]) -> Translations:
    """Walk for each address, int64 [n], and kind of access, uint8 [n]."""
    columns: list[Any] = [np.zeros(len(gvas), each) for each in ANSWER_TYPES]
    walk_many(machine, gvas, kind, Answers(*columns))
    return Translations(
        *(column.view(np.uint64) if column.dtype == np.int64 else column for column in columns)
    )


def translate(
    memory: Memory,
    gva: int,
    *,
    cr3: int,
    nested: Ept | Npt | None = None,
    access: str = "read",
    user: bool = True,
    control: Control = USUAL,
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
    nested : Ept or Npt, optional
        The hypervisor's tables.
    access : {"read", "write", "fetch"}
        What the access does.
    user : bool
        Of the user, or of the supervisor.
    control : Control
        Control registers, and what the processor has.
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

    Notes
    -----
    The accessed bit is set in an entry as it is used, even if the walk fails further down, and those
    of the leaf once the rights have passed; the manuals leave the former open (Intel SDM vol. 3,
    "Accessed and Dirty Flags").
    """
    gva, cr3 = whole("gva", gva), whole("cr3", cr3)
    check_arguments(memory, cr3, nested, control, user, update)
    kind = np.array([access_code(access) + (0 if user else SUPERVISOR)], np.uint8)
    machine = machine_over(memory, cr3, nested, control, update)
    machine = machine._replace(trail=np.zeros((MOST_STEPS, STEP_FIELDS), np.int64))
    answers = answers_for(machine, np.array([signed(gva)], np.int64), kind)
    row = {name: int(column[0]) for name, column in answers._asdict().items()}
    outcome = Outcome(row["outcome"])
    faulted = outcome == Outcome.PAGE_FAULT
    violated = outcome == Outcome.NESTED_VIOLATION
    ept, npt = isinstance(nested, Ept) and violated, isinstance(nested, Npt) and violated
    trail = machine.trail[: machine.steps[0]]
    places = [int(word) * WORD_BYTES for word in trail[:, STEP_WORD]]
    updates: dict[int, int] = {}
    for place, step in zip(places, trail, strict=True):
        if step[STEP_USED] != step[STEP_ENTRY]:
            updates[place] = updates.get(place, 0) | int(step[STEP_USED]) % (1 << 64)
    return Translation(
        outcome,
        gpa=None if row["gpa"] == NONE else row["gpa"],
        maddr=None if row["maddr"] == NONE else row["maddr"],
        page_size=row["page_size"] or None,
        guest_page_size=row["guest_page_size"] or None,
        nested_page_size=row["nested_page_size"] or None,
        error_code=row["error_code"] if faulted else None,
        exit_qualification=row["exit_qualification"] if ept else None,
        exit_info=row["exit_info"] if npt else None,
        fault_gpa=None if row["fault_gpa"] == NONE else row["fault_gpa"],
        references=row["references"],
        steps=tuple(
            Step(
                "nested" if step[STEP_NESTED] else "guest",
                int(step[STEP_LEVEL]),
                place,
                int(step[STEP_ENTRY]) % (1 << 64),
            )
            for place, step in zip(places, trail, strict=True)
        ),
        updates=updates,
    )


def translate_many(
    memory: Memory,
    gvas: NDArray[np.uint64] | NDArray[np.int64],
    *,
    cr3: int,
    nested: Ept | Npt | None = None,
    access: str | NDArray[np.uint8] = "read",
    user: bool = True,
    control: Control = USUAL,
    update: bool = False,
) -> Translations:
    """Translate addresses one by one, each with nothing cached; parameters as of `translate`.

    Parameters
    ----------
    gvas : ndarray of uint64 or int64 [n]
        Virtual addresses.
    access : {"read", "write", "fetch"} or ndarray of uint8 [n]
        What every access does, or each: 0 read, 1 write, 2 fetch, as in traces.

    Returns
    -------
    Translations
        Arrays of n elements.

    Raises
    ------
    InputError
        As `translate`; or an array is of another shape, type or content.
    """
    check_arguments(memory, cr3, nested, control, user, update)
    try:
        addresses = np.asarray(gvas)
    except ValueError:  # lists of different lengths
        addresses = np.zeros((0, 0), np.int64)
    if addresses.ndim != 1 or addresses.dtype not in (np.dtype(np.int64), np.dtype(np.uint64)):
        raise InputError(
            f"gvas: found {addresses.ndim} dimensions of {addresses.dtype}; accepted: one dimension "
            "of uint64 or int64"
        )
    if isinstance(access, np.ndarray):
        if (
            access.shape == addresses.shape
            and access.dtype == np.uint8
            and access.max(initial=0) > FETCH
        ):
            raise InputError(f"access: found {access.max()}; accepted: 0 read, 1 write, 2 fetch")
        if access.shape != addresses.shape or access.dtype != np.uint8:
            raise InputError(
                f"access: found {access.dtype} {access.shape}; accepted: uint8 {addresses.shape}, "
                "0 read, 1 write, 2 fetch"
            )
        kind = access.copy()
    else:
        kind = np.full(len(addresses), access_code(access), np.uint8)
    if not user:
        kind += np.uint8(SUPERVISOR)
    machine = machine_over(memory, cr3, nested, control, update)
    return answers_for(
        machine, np.require(addresses.view(np.int64), requirements=("C", "A", "W")), kind
    )
