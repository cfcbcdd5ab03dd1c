"""How a translation ends, in the terms of the manuals.

Sources: Intel SDM vol. 3, "Page-Fault Exceptions" (error code) and "Exit Qualification for EPT
Violations"; AMD64 APM vol. 2, "Nested versus Guest Page Faults" (EXITINFO1).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.bits import LEVEL_BITS, OFFSET_MASK, PAGE_BYTES, frame_bits
from mmu.hardware.entry import ADDRESS, EPT_CODE, EXECUTE, READ, WRITE
from mmu.hardware.machine import (
    FAULT_ERROR,
    FAULT_GPA,
    FAULT_KINDS,
    FAULT_LEVEL,
    FAULT_RIGHTS,
    FAULT_SIZE,
    FAULT_TABLE,
    FETCH,
    READ_ACCESS,
    SUPERVISOR,
    WRITE_ACCESS,
    Machine,
    Rules,
)
from mmu.hardware.outcome import NESTED_MISCONFIGURATION, NESTED_VIOLATION, PAGE_FAULT
from mmu.hardware.rows import Words
from mmu.hardware.tlb import frame_size
from mmu.jit import at, inlined, spliced

Bytes = NDArray[np.uint8]

NO_ADDRESS = -1
# Bits of a page fault's error code, beside those that the walk finds.
ERROR_WRITE, ERROR_USER, ERROR_FETCH = 1 << 1, 1 << 2, 1 << 4
# Bits of an EPT violation's exit qualification.
QUALIFICATION_RIGHTS_SHIFT, GVA_VALID, FINAL = 3, 1 << 7, 1 << 8
# Bits of EXITINFO1 beside those of an error code.
NPF_FINAL, NPF_TABLE = 1 << 32, 1 << 33


class Answers(NamedTuple):
    """How translations end; all are [n], zeros before, and `mmu.Translation` says what they mean."""

    outcome: Bytes
    gpa: Words  # NO_ADDRESS where there is none; as the next, and `fault_gpa`
    maddr: Words
    page_size: NDArray[np.uint32]  # bytes
    guest_page_size: NDArray[np.uint32]
    nested_page_size: NDArray[np.uint32]
    error_code: NDArray[np.uint16]
    exit_qualification: NDArray[np.uint16]
    exit_info: Words
    fault_gpa: Words
    references: Bytes


ANSWER_TYPES = (
    np.uint8, np.int64, np.int64, np.uint32, np.uint32, np.uint32, np.uint16, np.uint16, np.int64,
    np.int64, np.uint8,
)  # fmt: skip


@inlined
def page_bytes(size: int) -> int:
    """Return the bytes of a page of `size`."""
    return PAGE_BYTES << LEVEL_BITS * size


@spliced
def page_fault_code(rules: Rules, error: int, kind: int) -> int:
    """Return the error code of a page fault of which the walk found the bits `error`."""
    what = kind % SUPERVISOR
    if kind < SUPERVISOR:
        error |= ERROR_USER
    if what == WRITE_ACCESS:
        error |= ERROR_WRITE
    # I/D is reported where fetches can be forbidden: with NXE, or with SMEP.
    if what == FETCH and (rules.reserved >= 0 or rules.user_page >> (FETCH + SUPERVISOR) & 1):
        error |= ERROR_FETCH
    return error


@spliced
def ept_qualification(rules: Rules, fault: Words) -> int:
    """Return the exit qualification of an EPT violation."""
    rights = fault[FAULT_RIGHTS] & (READ | WRITE | EXECUTE)
    told = fault[FAULT_KINDS] | rights << QUALIFICATION_RIGHTS_SHIFT | GVA_VALID
    if not fault[FAULT_TABLE]:
        return told | FINAL
    # With accessed and dirty bits, an access to a guest table is a read and a write.
    return told | 1 << READ_ACCESS if rules.dirty else told


@spliced
def npt_info(rules: Rules, fault: Words, kind: int) -> int:
    """Return EXITINFO1 of a nested page fault: the error code of a user's access, and where it was."""
    what, told = kind % SUPERVISOR, fault[FAULT_ERROR] | ERROR_USER
    if fault[FAULT_TABLE]:
        return told | ERROR_WRITE | NPF_TABLE
    if what == WRITE_ACCESS:
        told |= ERROR_WRITE
    if what == FETCH and rules.nested_reserved >= 0:  # the host's NXE: bit 63 is not reserved
        told |= ERROR_FETCH
    return told | NPF_FINAL


@spliced
def tell_failure(machine: Machine, kind: int, word: int, answers: Answers, i: int) -> None:
    """Tell why a walk ended with the negative outcome `word`."""
    rules, fault = machine.rules, machine.fault
    answers.outcome[at(i)] = -word
    answers.maddr[at(i)] = NO_ADDRESS
    if word == PAGE_FAULT:
        answers.error_code[at(i)] = page_fault_code(rules, fault[FAULT_ERROR], kind)
    elif word == NESTED_VIOLATION:
        answers.fault_gpa[at(i)] = fault[FAULT_GPA]
        if rules.nested_code == EPT_CODE:
            answers.exit_qualification[at(i)] = ept_qualification(rules, fault)
        else:
            answers.exit_info[at(i)] = npt_info(rules, fault, kind)
    elif word == NESTED_MISCONFIGURATION:
        answers.fault_gpa[at(i)] = fault[FAULT_GPA]


@spliced
def tell(machine: Machine, gva: int, kind: int, word: int, answers: Answers, i: int) -> None:
    """Tell as answer `i` how a walk ended, from the word it returned and what it left in `fault`.

    What is zero is not written: a page of memory is there once it is touched, and that took as long as
    ten walks.
    """
    fault, level = machine.fault, machine.fault[FAULT_LEVEL]
    answers.gpa[at(i)] = answers.fault_gpa[at(i)] = NO_ADDRESS
    if level > 0:
        answers.gpa[at(i)] = fault[FAULT_GPA]
        answers.guest_page_size[at(i)] = page_bytes(level - 1)
    if word < 0:
        tell_failure(machine, kind, word, answers, i)
        return
    size = frame_size(word)
    within = frame_bits(size)
    answers.maddr[at(i)] = word & ADDRESS & ~within | gva & (within | OFFSET_MASK)
    answers.page_size[at(i)] = page_bytes(size)
    if machine.nested[0] >= 0:
        answers.nested_page_size[at(i)] = page_bytes(fault[FAULT_SIZE])
