"""Checked mode: whatever the caches answer is compared with what the tables say now.

A translation that differs from an uncached walk is *stale*: somebody changed tables and did not
invalidate. What an entry may keep is what the manuals allow (Intel SDM vol. 3, "Optional
Invalidation" and "Delayed Invalidation"): it may grant less than the tables, never more, and it may not
be of another page size; and a page that the entry calls dirty must be dirty in the tables. An accessed
bit that was cleared stays clear until the next walk. A walk from cached tables must have set the bits
that a whole walk sets in the last table: else that is another table by now, or its page was clean. Memory
types are not kept, and not compared.
"""

from mmu.hardware.access import Kinds, l1_lookup, make_accesses
from mmu.hardware.entry import ADDRESS, RIGHTS
from mmu.hardware.invalidate import drop_after_fault
from mmu.hardware.machine import (
    DIRTY_WALKS,
    FAULT_KINDS,
    FAULT_OUTCOME,
    FAULT_TABLE,
    READ_ACCESS,
    STEP_ENTRY,
    STEP_NESTED,
    STEP_USED,
    STEP_WORD,
    SUPERVISOR,
    WALKS,
    WRITE_ACCESS,
    Machine,
)
from mmu.hardware.outcome import NESTED_VIOLATION
from mmu.hardware.rows import CONTEXT_SHIFT, DENIED, Words
from mmu.hardware.tlb import FRAME_GLOBAL, FRAME_GUEST_SHIFT, FRAME_SIZE_MASK, FRAME_SIZE_SHIFT
from mmu.hardware.walk import walk
from mmu.jit import at, inlined, kernel

# Fields of what is noted of a stale translation. The words are those of `tlb`; NOW is negative where the
# tables do not translate: an outcome. DENIED_NOW is 0 then. If USED is not 0, a walk left bits clear that
# it had to set: PLACE is the word's number, ENTRY what it is, USED what it would be.
(
    STALE_INDEX, STALE_CONTEXT, STALE_GVA, STALE_KIND, STALE_WORD, STALE_DENIED, STALE_NOW,
    STALE_DENIED_NOW, STALE_PLACE, STALE_ENTRY, STALE_USED, STALE_FIELDS,
) = range(12)  # fmt: skip
SAME = (
    ADDRESS | FRAME_SIZE_MASK << FRAME_SIZE_SHIFT | FRAME_SIZE_MASK << FRAME_GUEST_SHIFT
)  # what must be equal
NOT_MORE = RIGHTS | FRAME_GLOBAL  # what an entry must not have beyond the tables


@inlined
def is_stale(word: int, denied: int, now: int, denied_now: int) -> bool:
    """Tell whether an entry differs from a walk in a way that no lazy invalidation explains."""
    if now < 0 or (word ^ now) & SAME or word & ~now & NOT_MORE:
        return True
    return denied_now & ~denied & DENIED != 0


@inlined
def left_clear(plain: Machine) -> int:
    """Return the step of the last walk whose bits a walk just before should have set; or -1.

    It is the guest's last entry, which stays as it was if the walk read another table; or the nested
    entry of the page that holds it, which is dirty once the guest's entry has been written to.
    """
    last = plain.steps[0] - 1
    while last >= 0 and plain.trail[at(last), STEP_NESTED]:
        last -= 1
    if last < 0:
        return -1
    if plain.trail[at(last), STEP_USED] != plain.trail[at(last), STEP_ENTRY]:
        return last
    above = last - 1
    if above >= 0 and plain.trail[at(above), STEP_NESTED]:
        missing = plain.trail[at(above), STEP_USED] ^ plain.trail[at(above), STEP_ENTRY]
        if missing & plain.rules.dirty:
            return above
    return -1


@inlined
def cannot_tell(plain: Machine, now: int) -> bool:
    """Tell whether a walk could not set an accessed bit, which a hit need not set."""
    return (
        now == NESTED_VIOLATION
        and plain.fault[FAULT_TABLE] != 0
        and plain.fault[FAULT_KINDS] == 1 << READ_ACCESS | 1 << WRITE_ACCESS
    )


@kernel
def make_checked(
    machine: Machine, plain: Machine, stale: Words, account: int, context: int, address: Words,
    kinds: Kinds, positions: Words, start: int, stop: int,
) -> int:  # fmt: skip
    """Make accesses as `access.make_accesses` does, and check each that succeeds.

    machine: one that writes dirty bits; plain: a view of the same memory and contexts that caches and
    updates nothing; stale: int64 [STALE_FIELDS].
    Returns as `make_accesses`; or the complement of the index of an access that met a stale
    translation, noted in `stale`.
    """
    for i in range(start, stop):
        gva = address[at(i)]
        events = machine.events[at(account)]
        before = events[WALKS] + events[DIRTY_WALKS]
        made = make_accesses(machine, account, context, address, kinds, positions, i, i + 1)
        if made == i:
            drop_after_fault(machine, context, gva, -machine.fault[FAULT_OUTCOME])
            return i
        kind: int = kinds[at(i)]
        slot = l1_lookup(machine, machine.side[at(kind)], context, gva)
        word, denied = machine.frame[at(slot)], machine.tag[at(slot)] & DENIED
        walked = events[WALKS] + events[DIRTY_WALKS] != before
        plain.steps[:] = 0
        # A walk for a write would set the dirty bit, and not show that somebody has cleared it: by now
        # it is set, or an entry called the page dirty. Whoever may write may read.
        asked = kind - (WRITE_ACCESS - READ_ACCESS) if kind % SUPERVISOR == WRITE_ACCESS else kind
        now, denied_now = walk(plain, 0, context, gva, asked)
        found, left = is_stale(word, denied, now, denied_now), -1
        if found and not walked:
            found = not cannot_tell(plain, now)
        elif walked and not found:
            left = left_clear(plain)
        if found or left >= 0:
            stale[STALE_INDEX], stale[STALE_CONTEXT] = i, machine.tag[at(slot)] >> CONTEXT_SHIFT
            stale[STALE_GVA], stale[STALE_KIND] = gva, kind
            stale[STALE_WORD], stale[STALE_DENIED] = word, denied
            stale[STALE_NOW], stale[STALE_DENIED_NOW] = now, denied_now
            stale[STALE_USED] = 0
            if left >= 0:
                stale[STALE_PLACE] = plain.trail[at(left), STEP_WORD]
                stale[STALE_ENTRY] = plain.trail[at(left), STEP_ENTRY]
                stale[STALE_USED] = plain.trail[at(left), STEP_USED]
            return ~i
    return stop
