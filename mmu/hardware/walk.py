"""The two-dimensional walk: guest tables inside the hypervisor's nested tables.

The order of a 4 KiB page in 4 KiB nested pages, without any cache (N nested entry, G guest entry,
the number is the level), 24 references in all:

    N4 N3 N2 N1 G4   N4 N3 N2 N1 G3   N4 N3 N2 N1 G2   N4 N3 N2 N1 G1   N4 N3 N2 N1

Sources: Intel SDM vol. 3, "Translation of Guest-Physical Addresses Using EPT" and "Caching
Translation Information"; Bhargava et al., ASPLOS 2008, for the count.
"""

from mmu.hardware.bits import (
    LEVELS,
    OFFSET_MASK,
    WORD_SHIFT,
    entry_word,
    frame_bits,
    page_number,
    reach,
)
from mmu.hardware.datacache import read_cycles
from mmu.hardware.entry import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    EPT_CODE,
    GLOBAL_PAGE,
    LARGE_LEAF,
    PRESENT,
    RIGHTS,
    WRITE,
    X86_CODE,
    rights_of,
)
from mmu.hardware.machine import (
    ERROR_PRESENT,
    ERROR_RESERVED,
    FAULT_ERROR,
    FAULT_GPA,
    FAULT_KINDS,
    FAULT_LEVEL,
    FAULT_RIGHTS,
    FAULT_SIZE,
    FAULT_TABLE,
    GUEST_READS,
    GUEST_REFERENCES,
    NESTED_LOOKUPS,
    NESTED_READS,
    NESTED_REFERENCES,
    NESTED_TLB_CYCLES,
    NO_CONTEXT,
    READ_ACCESS,
    STEP_ENTRY,
    STEP_LEVEL,
    STEP_NESTED,
    STEP_USED,
    STEP_WORD,
    SUPERVISOR,
    UPDATE_CYCLES,
    UPDATES,
    WRITE_ACCESS,
    Machine,
)
from mmu.hardware.memory import ZERO, load, locate, store
from mmu.hardware.outcome import (
    NESTED_MISCONFIGURATION,
    NESTED_VIOLATION,
    NO_MEMORY,
    PAGE_FAULT,
)
from mmu.hardware.overlap import (
    OF_GUEST_TABLE,
    OF_NESTED_TABLE,
    OF_NESTED_TLB,
    OF_UPDATE,
    spend,
)
from mmu.hardware.rows import NESTED, ROW_SIZE, fill, look_up
from mmu.hardware.rules import DENY_WRITE, guest_denied, malformed, nested_denied
from mmu.hardware.tlb import (
    FRAME_DIRTY,
    FRAME_GLOBAL,
    FRAME_GUEST_SHIFT,
    FRAME_SIZE_SHIFT,
    frame_size,
    globals_of,
    row_for,
    tag_key,
)
from mmu.hardware.walkcache import (
    TABLE_WRITABLE,
    cache_entry,
    cache_table,
    cached_entry,
    cached_table,
)
from mmu.jit import at, constant, inlined, spliced

GUEST_STEP, NESTED_STEP = constant(0), constant(1)


@inlined
def has_caches(machine: Machine) -> bool:
    """Tell whether there is a slot at all: not to ask absent caches saved 22 of 182 ns a walk."""
    return machine.tag.shape[0] > 0


@inlined
def note(machine: Machine, nested: int, level: int, number: int, entry: int) -> None:
    """Note a table read in the trail, if there is one and it has room."""
    if machine.trail.shape[0] > 0 and machine.steps[0] < machine.trail.shape[0]:
        step = machine.steps[0]
        machine.steps[0] = step + 1
        machine.trail[at(step), STEP_NESTED] = nested
        machine.trail[at(step), STEP_LEVEL] = level
        machine.trail[at(step), STEP_WORD] = number
        machine.trail[at(step), STEP_ENTRY] = entry
        machine.trail[at(step), STEP_USED] = entry


@inlined
def mark_used(machine: Machine, account: int, slot: int, entry: int, used: int) -> None:
    """Write the accessed and dirty bits of an entry, if that changes it; or note what they would be."""
    if used != entry:
        if machine.rules.update:
            store(machine.memory, slot, used)
        else:
            count = machine.steps[1]
            machine.steps[1] = count + 1
            machine.marked[at(count), 0], machine.marked[at(count), 1] = slot, used
        if machine.trail.shape[0] > 0:
            machine.trail[at(machine.steps[0] - 1), STEP_USED] = used
        machine.events[at(account), UPDATES] += 1
        spend(machine, OF_UPDATE, machine.model[UPDATE_CYCLES])


@inlined
def read_entry(machine: Machine, slot: int) -> int:
    """Read the entry at an index of memory, with the bits that this walk has set in it, written or not.

    A recursive table is met twice in one walk, and as guest and nested entry may mean another thing.
    Where bits are written nothing is ever marked (not to ask for that saved 12 of 189 ns a walk).
    """
    entry = load(machine.memory, slot)
    mark = machine.steps[1]
    while mark > 0:
        mark -= 1
        if machine.marked[at(mark), 0] == slot:
            return machine.marked[at(mark), 1]
    return entry


@spliced
def nested_hit(
    machine: Machine, account: int, tables: int, gpa: int, kind: int
) -> tuple[int, bool]:
    """Look a guest-physical address up in the nested TLB.

    Returns the frame word of its page, or 0; and whether an entry that denies the access was found.
    """
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    # Large pages first: hypervisors back with them where they can, and the order changes no count.
    for row in range(rows.begin[NESTED + 1] - 1, rows.begin[NESTED] - 1, -1):
        page = page_number(gpa, rows.table[at(row), ROW_SIZE])
        key = tag_key(tables, page, rows.table[at(row), ROW_SIZE])
        slot = look_up(tag, frame, machine.order, rows, row, page, key)
        if slot >= 0:
            if tag[at(slot)] >> kind & 1:
                return 0, True
            machine.hits[at(account), at(row)] += 1
            return frame[at(slot)], False
    return 0, False


@spliced
def fill_nested(machine: Machine, tables: int, gpa: int, word: int, stale: bool) -> None:
    """Keep a nested translation in the nested TLB; one without pages so large keeps a piece."""
    rows = machine.rows
    row = row_for(rows, NESTED, frame_size(word))
    if row < 0:
        return
    size = rows.table[at(row), ROW_SIZE]
    page = page_number(gpa, size)
    clean = 0 if word & FRAME_DIRTY else DENY_WRITE
    key = tag_key(tables, page, size) | nested_denied(word & RIGHTS) | clean
    fill(machine.tag, machine.frame, machine.order, rows, row, page, key, word, stale)


@inlined
def nested_fault(machine: Machine, gpa: int, kinds: int, rights: int, error: int) -> None:
    """Note where and why a guest-physical address was not translated."""
    machine.fault[FAULT_GPA] = gpa
    machine.fault[FAULT_KINDS] = kinds
    machine.fault[FAULT_RIGHTS] = rights
    machine.fault[FAULT_ERROR] = error


@spliced
def nested_walk(  # noqa: PLR0915  one procedure of the manuals
    machine: Machine, account: int, tables: int, root: int, gpa: int, kind: int
) -> int:
    """Translate a guest-physical address for an access of `kind`, one of the user's three.

    Returns the frame word of the nested page, or a negative outcome.
    """
    machine.events[at(account), NESTED_LOOKUPS] += 1
    word, stale = 0, False
    if has_caches(machine):
        spend(machine, OF_NESTED_TLB, machine.model[NESTED_TLB_CYCLES])
        word, stale = nested_hit(machine, account, tables, gpa, kind)
    if word:
        return word
    rules = machine.rules
    table, rights, level = root, RIGHTS, rules.nested_levels
    if gpa >> reach(level):
        nested_fault(machine, gpa, 1 << kind, 0, 0)
        return NESTED_VIOLATION
    while True:
        number = entry_word(table, gpa, level)
        slot = locate(machine.memory, machine.extents, number)
        if slot < 0:
            if slot != ZERO:
                return NO_MEMORY
            machine.events[at(account), NESTED_REFERENCES] += 1
            note(machine, NESTED_STEP, level, number, 0)
            nested_fault(machine, gpa, 1 << kind, 0, 0)
            return NESTED_VIOLATION
        kept = 0
        if has_caches(machine):
            kept = cached_entry(machine, account, slot, level, tables, NESTED_STEP)
        if kept:
            rights &= rights_of(kept, rules.nested_code)
            table = kept & ADDRESS
            level -= 1
            continue
        entry = read_entry(machine, slot)
        machine.events[at(account), NESTED_REFERENCES] += 1
        if has_caches(machine):
            cycles = read_cycles(machine, account, slot, NESTED_READS)
            spend(machine, OF_NESTED_TABLE, cycles)
        note(machine, NESTED_STEP, level, number, entry)
        if not entry & rules.present:
            nested_fault(machine, gpa, 1 << kind, 0, 0)
            return NESTED_VIOLATION
        leaf = level == 1 or (entry & LARGE_LEAF != 0 and level <= rules.nested_largest)
        rights &= rights_of(entry, rules.nested_code)
        if malformed(rules, entry, level, leaf, rules.nested_reserved, rules.nested_code):
            nested_fault(machine, gpa, 1 << kind, rights, ERROR_PRESENT | ERROR_RESERVED)
            return NESTED_MISCONFIGURATION if rules.nested_code == EPT_CODE else NESTED_VIOLATION
        if leaf and nested_denied(rights) >> kind & 1:
            nested_fault(machine, gpa, 1 << kind, rights, ERROR_PRESENT)
            return NESTED_VIOLATION
        used = entry | rules.accessed
        if leaf and kind == WRITE_ACCESS:
            used |= rules.dirty
        mark_used(machine, account, slot, entry, used)
        if leaf:
            break
        if has_caches(machine):
            cache_entry(machine, slot, level, tables, NESTED_STEP, used)
        table = entry & ADDRESS
        level -= 1
    size = level - 1
    word = (entry & ADDRESS & ~frame_bits(size)) | size << FRAME_SIZE_SHIFT | rights
    if not rules.dirty or used & rules.dirty:
        word |= FRAME_DIRTY
    if has_caches(machine):
        fill_nested(machine, tables, gpa, word, stale)
    return word


@spliced
def guest_entry(
    machine: Machine, account: int, context: int, number: int, level: int, kind: int, rights: int
) -> tuple[int, int, int, bool, bool]:
    """Read the guest entry that is word `number`, and judge it below entries that grant `rights`.

    Returns 0 or a negative outcome, its index in memory, the entry, whether it maps a page, and whether
    it was in the page-walk cache and not read.
    """
    rules = machine.rules
    slot = locate(machine.memory, machine.extents, number)
    if slot < 0:
        if slot != ZERO:
            return NO_MEMORY, slot, 0, False, False
        machine.events[at(account), GUEST_REFERENCES] += 1
        note(machine, GUEST_STEP, level, number, 0)
        machine.fault[FAULT_ERROR] = 0
        return PAGE_FAULT, slot, 0, False, False
    if has_caches(machine):
        kept = cached_entry(machine, account, slot, level, context, GUEST_STEP)
        if kept:
            return 0, slot, kept, False, True
    entry = read_entry(machine, slot)
    machine.events[at(account), GUEST_REFERENCES] += 1
    if has_caches(machine):
        cycles = read_cycles(machine, account, slot, GUEST_READS)
        spend(machine, OF_GUEST_TABLE, cycles)
    note(machine, GUEST_STEP, level, number, entry)
    leaf = level == 1 or (entry & LARGE_LEAF != 0 and level <= rules.largest)
    error = -1
    if not entry & PRESENT:
        error = 0
    elif malformed(rules, entry, level, leaf, rules.reserved, X86_CODE):
        error = ERROR_PRESENT | ERROR_RESERVED
    elif leaf and guest_denied(rules, rights & rights_of(entry, X86_CODE)) >> kind & 1:
        error = ERROR_PRESENT
    if error >= 0:
        machine.fault[FAULT_ERROR] = error
        return PAGE_FAULT, slot, entry, leaf, False
    return 0, slot, entry, leaf, False


@inlined
def effective(
    machine: Machine, context: int, word: int, gpa: int, guest_size: int, rights: int, entry: int
) -> tuple[int, int]:
    """Return what a walk does: of the guest page of `entry` at `gpa`, in the nested page of `word`."""
    size = min(guest_size, frame_size(word))
    base = (word & ADDRESS | gpa & frame_bits(frame_size(word))) & ~frame_bits(size)
    base |= guest_size << FRAME_GUEST_SHIFT
    if entry & GLOBAL_PAGE and globals_of(machine.global_context, context) != NO_CONTEXT:
        base |= FRAME_GLOBAL
    denied = guest_denied(machine.rules, rights) | nested_denied(word & RIGHTS)
    if not (entry & DIRTY and word & FRAME_DIRTY):
        denied |= DENY_WRITE
    return base | size << FRAME_SIZE_SHIFT | rights & word & RIGHTS, denied


@spliced
def walk(  # noqa: PLR0915  one procedure of the manuals
    machine: Machine, account: int, context: int, gva: int, kind: int
) -> tuple[int, int]:
    """Translate an address by its tables, from the lowest table that a walk cache knows.

    Returns the frame word of the effective page and the kinds of access it denies; or a negative
    outcome and 0. The effective page is the smaller of the guest's and the nested one, it denies what
    either denies, and it is dirty if both are.

    An accessed bit is set as an entry is used, those of the leaf only once the rights have passed. To
    set one where nested tables keep no dirty bits is a nested access of its own, a write; a walk that
    began at a cached table which must not be written begins again at the root.
    """
    root, tag, rules = machine.nested[at(context)], machine.nested_tag[at(context)], machine.rules
    level, table = (
        cached_table(machine, account, context, gva, rules.levels)
        if has_caches(machine)
        else (rules.levels, 0)
    )
    located = level < rules.levels
    rights, gpa, writable, again = RIGHTS, 0, table & TABLE_WRITABLE, False
    if located:
        rights = table & RIGHTS
    else:
        gpa = entry_word(machine.root[at(context)], gva, level) << WORD_SHIFT
    leaf, entry, word = False, 0, 0
    while True:
        if not located:
            word = gpa & ADDRESS | FRAME_DIRTY | RIGHTS | (level - 1) << FRAME_SIZE_SHIFT
            if root >= 0:
                nested_kind = kind % SUPERVISOR if leaf else rules.table_kind
                word = nested_walk(machine, account, tag, root, gpa, nested_kind)
                if word < 0:
                    machine.fault[FAULT_TABLE] = not leaf
                    return word, 0
            if leaf:
                break
            table = word & ADDRESS | gpa & frame_bits(frame_size(word))
            writable = TABLE_WRITABLE if word & WRITE else 0
            if level < LEVELS and has_caches(machine):
                cache_table(
                    machine, context, gva, level, table & ADDRESS | rights | writable, again
                )  # fmt: skip
        number = entry_word(table, gva, level)
        status, slot, entry, leaf, kept = guest_entry(
            machine, account, context, number, level, kind, rights
        )
        if status < 0:
            return status, 0
        rights &= rights_of(entry, X86_CODE)
        used = entry | ACCESSED
        if leaf and kind % SUPERVISOR == WRITE_ACCESS:
            used |= DIRTY
        if used != entry and root >= 0 and rules.table_kind == READ_ACCESS and not writable:
            if located:
                level, rights, located, leaf, again = rules.levels, RIGHTS, False, False, True
                gpa = entry_word(machine.root[at(context)], gva, level) << WORD_SHIFT
                continue
            both = 1 << READ_ACCESS | 1 << WRITE_ACCESS
            nested_fault(machine, gpa, both, word & RIGHTS, ERROR_PRESENT)
            machine.fault[FAULT_TABLE] = 1
            return NESTED_VIOLATION, 0
        mark_used(machine, account, slot, entry, used)
        located = False
        if leaf:
            within = frame_bits(level - 1)
            gpa = entry & ADDRESS & ~within | gva & (within | OFFSET_MASK)
            entry = used
            machine.fault[FAULT_GPA], machine.fault[FAULT_LEVEL] = gpa, level
        else:
            if has_caches(machine) and not kept:
                cache_entry(machine, slot, level, context, GUEST_STEP, used)
            level -= 1
            gpa = entry_word(entry & ADDRESS, gva, level) << WORD_SHIFT
    machine.fault[FAULT_SIZE] = frame_size(word)
    return effective(machine, context, word, gpa, level - 1, rights, entry)
