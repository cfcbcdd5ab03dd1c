"""The two-dimensional walk: guest tables inside the hypervisor's nested tables.

The order of a 4 KiB page in 4 KiB nested pages, without any cache (N nested entry, G guest entry,
the number is the level), 24 references in all:

    N4 N3 N2 N1 G4   N4 N3 N2 N1 G3   N4 N3 N2 N1 G2   N4 N3 N2 N1 G1   N4 N3 N2 N1

Sources: Intel SDM vol. 3, "Translation of Guest-Physical Addresses Using EPT" and "Caching
Translation Information"; Bhargava et al., ASPLOS 2008, for the count.
"""

from mmu.hardware.bits import GUEST_PHYSICAL_BITS, LEVELS, entry_word, frame_bits, page_number
from mmu.hardware.entry import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    LARGE_LEAF,
    PRESENT,
    RIGHTS,
    X86_CODE,
    rights_of,
)
from mmu.hardware.machine import (
    FAULT_GPA,
    FAULT_PRESENT,
    GUEST_REFERENCES,
    NESTED_LOOKUPS,
    NESTED_REFERENCES,
    STEP_ENTRY,
    STEP_LEVEL,
    STEP_NESTED,
    STEP_USED,
    STEP_WORD,
    SUPERVISOR,
    UPDATES,
    WRITE_ACCESS,
    Machine,
)
from mmu.hardware.memory import inside, load, store
from mmu.hardware.outcome import NESTED_VIOLATION, NO_MEMORY, PAGE_FAULT
from mmu.hardware.rows import DENIED, NESTED, fill, find, set_start, touch
from mmu.hardware.tlb import (
    FRAME_DIRTY,
    FRAME_SIZE_SHIFT,
    FRAME_SPLINTER,
    denied_by,
    frame_size,
    row_for,
    tag_key,
)
from mmu.hardware.walkcache import cache_table, cached_table
from mmu.jit import at, constant, inlined, kernel

GUEST_STEP, NESTED_STEP = constant(0), constant(1)


@inlined
def note(machine: Machine, nested: int, level: int, slot: int, entry: int) -> None:
    """Note a table read in the trail, if there is one and it has room."""
    if machine.trail.shape[0] > 0 and machine.steps[0] < machine.trail.shape[0]:
        step = machine.steps[0]
        machine.steps[0] = step + 1
        machine.trail[at(step), STEP_NESTED] = nested
        machine.trail[at(step), STEP_LEVEL] = level
        machine.trail[at(step), STEP_WORD] = slot
        machine.trail[at(step), STEP_ENTRY] = entry
        machine.trail[at(step), STEP_USED] = entry


@inlined
def mark_used(machine: Machine, account: int, slot: int, entry: int, used: int) -> None:
    """Write the accessed and dirty bits of an entry, if that changes it."""
    if used != entry:
        if machine.formats.update:
            store(machine.memory, slot, used)
        if machine.trail.shape[0] > 0:
            machine.trail[at(machine.steps[0] - 1), STEP_USED] = used
        machine.events[at(account), UPDATES] += 1


@inlined
def nested_hit(machine: Machine, account: int, vm: int, gpa: int, kind: int) -> tuple[int, bool]:
    """Look a guest-physical address up in the nested TLB.

    Returns the frame word of its page, or 0; and whether an entry that denies the access was found.
    """
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    # Large pages first: hypervisors back with them where they can, and the order changes no count.
    for row in range(rows.begin[NESTED + 1] - 1, rows.begin[NESTED] - 1, -1):
        page = page_number(gpa, rows.size[at(row)])
        start = set_start(rows, row, page)
        key = tag_key(vm, page, rows.size[at(row)])
        way = find(tag, start, rows.ways[at(row)], key, ~DENIED)
        if way >= 0:
            touch(tag, frame, start, way)
            if tag[at(start)] >> kind & 1:
                return 0, True
            machine.hits[at(account), at(row)] += 1
            return frame[at(start)], False
    return 0, False


@inlined
def fill_nested(machine: Machine, vm: int, gpa: int, word: int, stale: bool) -> None:
    """Keep a nested translation in the nested TLB; one without pages so large keeps a piece."""
    rows = machine.rows
    row = row_for(rows, NESTED, frame_size(word))
    if row < 0:
        return
    size = rows.size[at(row)]
    page = page_number(gpa, size)
    start, ways = set_start(rows, row, page), rows.ways[at(row)]
    key = tag_key(vm, page, size) | denied_by(word & RIGHTS, word & FRAME_DIRTY != 0)
    fill(machine.tag, machine.frame, start, ways, key, word, stale)


@inlined
def nested_walk(machine: Machine, account: int, vm: int, root: int, gpa: int, kind: int) -> int:
    """Translate a guest-physical address for an access of `kind`, one of the user's three.

    Returns the frame word of the nested page, or a negative outcome.
    """
    machine.events[at(account), NESTED_LOOKUPS] += 1
    word, stale = nested_hit(machine, account, vm, gpa, kind)
    if word:
        return word
    formats = machine.formats
    machine.fault[FAULT_GPA] = gpa
    if gpa >> GUEST_PHYSICAL_BITS:
        return NESTED_VIOLATION
    table, rights, level = root, RIGHTS, LEVELS
    while True:
        slot = entry_word(table, gpa, level) - formats.origin
        if not inside(machine.memory, slot):
            return NO_MEMORY
        entry = load(machine.memory, slot)
        machine.events[at(account), NESTED_REFERENCES] += 1
        note(machine, NESTED_STEP, level, slot, entry)
        if not entry & formats.present:
            return NESTED_VIOLATION
        rights &= rights_of(entry, formats.code)
        leaf = level == 1 or (entry & LARGE_LEAF != 0 and level < LEVELS)
        if leaf and denied_by(rights, True) >> kind & 1:
            return NESTED_VIOLATION
        used = entry | formats.accessed
        if leaf and kind == WRITE_ACCESS:
            used |= formats.dirty
        mark_used(machine, account, slot, entry, used)
        if leaf:
            break
        table = entry & ADDRESS
        level -= 1
    size = level - 1
    word = (entry & ADDRESS & ~frame_bits(size)) | size << FRAME_SIZE_SHIFT | rights
    if not formats.dirty or used & formats.dirty:
        word |= FRAME_DIRTY
    fill_nested(machine, vm, gpa, word, stale)
    return word


@inlined
def walk(machine: Machine, account: int, context: int, gva: int, kind: int) -> tuple[int, int]:
    """Translate an address by its tables, from the lowest table that a walk cache knows.

    Returns the frame word of the effective page and the kinds of access it denies; or a negative
    outcome and 0. The effective page is the smaller of the guest's and the nested one, its rights are
    those that both grant, and it is dirty if both are.
    """
    root, vm = machine.nested[at(context)], machine.vm[at(context)]
    write = kind == WRITE_ACCESS or kind == WRITE_ACCESS + SUPERVISOR
    gpa, rights, located = machine.root[at(context)], RIGHTS, False
    level, table = cached_table(machine, account, context, gva)
    if level < LEVELS:
        rights, located = table & RIGHTS, True
    leaf, entry, word = False, 0, 0
    while True:
        if not located:
            word = gpa & ADDRESS | FRAME_DIRTY | RIGHTS | (level - 1) << FRAME_SIZE_SHIFT
            if root >= 0:
                nested_kind = kind % SUPERVISOR if leaf else machine.formats.table_kind
                word = nested_walk(machine, account, vm, root, gpa, nested_kind)
                if word < 0:
                    return word, 0
            if leaf:
                break
            table = word & ADDRESS | gpa & frame_bits(frame_size(word))
            if level < LEVELS:
                cache_table(machine, context, gva, level, table & ADDRESS | rights)
        located = False
        slot = entry_word(table, gva, level) - machine.formats.origin
        if not inside(machine.memory, slot):
            return NO_MEMORY, 0
        entry = load(machine.memory, slot)
        machine.events[at(account), GUEST_REFERENCES] += 1
        note(machine, GUEST_STEP, level, slot, entry)
        machine.fault[FAULT_PRESENT] = entry & PRESENT
        if not entry & PRESENT:
            return PAGE_FAULT, 0
        rights &= rights_of(entry, X86_CODE)
        leaf = level == 1 or (entry & LARGE_LEAF != 0 and level < LEVELS)
        if leaf and denied_by(rights, True) >> kind & 1:
            return PAGE_FAULT, 0
        used = entry | ACCESSED
        if leaf and write:
            used |= DIRTY
        mark_used(machine, account, slot, entry, used)
        gpa = entry & ADDRESS
        if leaf:
            within = frame_bits(level - 1)
            gpa = gpa & ~within | gva & within
            entry = used
        else:
            level -= 1
    rights &= word
    size = min(level - 1, frame_size(word))
    base = (word & ADDRESS | gpa & frame_bits(frame_size(word))) & ~frame_bits(size)
    splinter = FRAME_SPLINTER if level - 1 > size else 0
    dirty = entry & DIRTY != 0 and word & FRAME_DIRTY != 0
    return base | splinter | size << FRAME_SIZE_SHIFT | rights, denied_by(rights, dirty)


@kernel
def walk_once(machine: Machine, gva: int, kind: int) -> int:
    """Translate an address of context 0 on one processor's view: its frame word, or an outcome.

    The word is that of `walk`; a negative number is an outcome.
    """
    word, _ = walk(machine, 0, 0, gva, kind)
    return word
