"""What drops entries: the instructions and events that invalidate, each with the scope it must have.

A processor may drop more than it must. This one drops exactly what it must, so that software which
forgets an invalidation meets the stale entry.

    linear      derived from guest tables alone          tagged by VM, PCID
    combined    from guest tables in nested ones         tagged by VM, PCID, nested tables
    guest-physical  from nested tables alone             tagged by nested tables; on AMD by VM

A context stands for one value of such a tag: its VM (VPID or ASID), its PCID and its nested tables'
number. Global translations of a VM are kept under a context whose PCID is GLOBAL, which every PCID's
accesses look into. VPID 0 is the hypervisor's.

Sources: Intel SDM vol. 3, "Operations that Invalidate TLBs and Paging-Structure Caches" and
"Operations that Invalidate Cached Mappings"; vol. 2, INVPCID; AMD64 APM vol. 2, "TLB Flush"
(TLB_CONTROL), vol. 3, INVLPGA.
"""

from mmu.hardware.associative import base_of, give_up, in_twin, twin_entries, twin_entry
from mmu.hardware.bits import LEVEL_BITS, SMALL, page_number
from mmu.hardware.causes import INVALIDATED as _INVALIDATED
from mmu.hardware.causes import RESIDENT as _RESIDENT
from mmu.hardware.causes import note_fate
from mmu.hardware.machine import FAULT_GPA, FAULT_TABLE, GLOBAL, NO_CONTEXT, Machine
from mmu.hardware.outcome import NESTED_VIOLATION, PAGE_FAULT
from mmu.hardware.rows import (
    CONTEXT_SHIFT,
    EMPTY,
    ENTRY_CACHE,
    GROUPS,
    L2_DATA,
    L2_FETCH,
    LRU,
    NESTED,
    NUMBER_SHIFT,
    PAGE_NUMBER_MASK,
    ROW_FIRST,
    ROW_RULE,
    ROW_SETS,
    ROW_SIZE,
    ROW_WAYS,
    SIZE_BITS,
    SIZE_SHIFT,
    WALK_CACHE,
    Rows,
    remove,
    slot_of,
)
from mmu.hardware.tlb import globals_of, guest_size, tag_key
from mmu.jit import at, constant, inlined, kernel

ANY = constant(-2)  # in place of a VM, a PCID or nested tables: all of them
GUESTS = constant(-3)  # in place of a VM: all but the hypervisor
COMBINED = constant(-4)  # in place of nested tables: any, but not none
NO, YES = constant(0), constant(1)
# How much of the paging-structure caches goes when the translations of one page do: what translates
# the page, or all that the tag allows.
OF_PAGE, OF_TAG = constant(0), constant(1)
WHOLE = constant(2)  # not one page's: everything that the tag allows goes
RESIDENT, INVALIDATED = constant(_RESIDENT), constant(_INVALIDATED)
GUEST_ENTRY, NESTED_ENTRY = constant(0), constant(1)  # size codes in a page-walk cache

# INVPCID and INVVPID types, INVEPT types, and TLB_CONTROL codes.
ADDRESS_IN_PCID, ONE_PCID, ALL_WITH_GLOBALS, ALL_BUT_GLOBALS = 0, 1, 2, 3
ADDRESS_IN_VM, ONE_VM, ALL_VMS, ONE_VM_BUT_GLOBALS = 0, 1, 2, 3
ONE_EPT, ALL_EPTS = 1, 2
FLUSH_NOTHING, FLUSH_ALL, FLUSH_ASID, FLUSH_ASID_BUT_GLOBALS = 0, 1, 3, 7


@inlined
def is_array(rows: Rows, row: int) -> bool:
    """Tell whether a row is the first over its slots: each array is to be swept once.

    An absent cache has no slots, and starts where the next one does.
    """
    if row == 0 or not rows.table[at(row - 1), ROW_WAYS]:
        return True
    return rows.table[at(row), ROW_FIRST] != rows.table[at(row - 1), ROW_FIRST]


@inlined
def is_tlb(rows: Rows, row: int) -> bool:
    """Tell whether a row holds translations of guest-virtual pages."""
    return row < rows.begin[NESTED]


@inlined
def is_kept_by_flush(rows: Rows, row: int, word: int) -> bool:
    """Tell whether an entry is derived from nested tables alone: of the nested TLB, or nested entries."""
    if row >= rows.begin[ENTRY_CACHE]:
        return word >> SIZE_SHIFT & SIZE_BITS != GUEST_ENTRY
    return rows.begin[NESTED] <= row < rows.begin[WALK_CACHE]


@inlined
def in_scope(machine: Machine, context: int, vm: int, pcid: int, tables: int, kept: int) -> bool:
    """Tell whether an invalidation by these tags reaches a context's entries.

    `kept`: global translations stay; without it they belong to every PCID.
    """
    owner, own_pcid = machine.vm[at(context)], machine.pcid[at(context)]
    if vm == GUESTS:
        if owner == machine.evictions.shape[0] - 1:
            return False
    elif vm not in (ANY, owner):
        return False
    if own_pcid == GLOBAL:
        if kept:
            return False
    elif pcid not in (ANY, own_pcid):
        return False
    nested = machine.nested_tag[at(context)]
    return tables in (ANY, nested) or (tables == COMBINED and nested != NO_CONTEXT)


@inlined
def of_page(word: int, frame: int, gva: int) -> bool:
    """Tell whether a TLB entry translates the guest's page that holds `gva`: splinters and pieces do."""
    size = word >> SIZE_SHIFT & SIZE_BITS
    page = word >> NUMBER_SHIFT << LEVEL_BITS * size & PAGE_NUMBER_MASK  # its first of 4 KiB
    shift = LEVEL_BITS * guest_size(frame)
    return page >> shift == page_number(gva, SMALL) >> shift


@inlined
def is_doomed(
    machine: Machine, row: int, word: int, frame: int, vm: int, pcid: int, tables: int, kept: int,
    gva: int, extent: int,
) -> bool:  # fmt: skip
    """Tell whether `drop` drops an entry of a row."""
    rows = machine.rows
    if is_kept_by_flush(rows, row, word):
        return False
    if not in_scope(machine, word >> CONTEXT_SHIFT, vm, pcid, tables, kept):
        return False
    if is_tlb(rows, row):
        return extent == WHOLE or of_page(word, frame, gva)
    if row < rows.begin[ENTRY_CACHE] and extent == OF_PAGE:
        level = row - rows.begin[WALK_CACHE] + 1
        return word >> NUMBER_SHIFT & PAGE_NUMBER_MASK == page_number(gva, level)
    return True


@inlined
def keep_at(machine: Machine, row: int, free: int, slot: int) -> int:
    """Keep the entry at `slot`, at `free` if its set is in order of use; return what is free next."""
    if machine.rows.table[at(row), ROW_RULE] != LRU:
        return free
    if free != slot:
        machine.tag[at(free)] = machine.tag[at(slot)]
        machine.frame[at(free)] = machine.frame[at(slot)]
        machine.tag[at(slot)] = EMPTY
    return free + 1


@kernel
def drop(
    machine: Machine, vm: int, pcid: int, tables: int, kept: int, gva: int, extent: int, fate: int
) -> None:
    """Drop the TLB and walk-cache entries that the tags and `extent` select; the rest keeps its order.

    vm, pcid, tables: what a context must have, or ANY; kept: global translations stay; extent: WHOLE,
    or of the page that holds `gva`, with OF_PAGE or OF_TAG of the paging-structure caches; fate: what a
    miss of these pages will have been caused by, RESIDENT for a flush (see `causes`).
    """
    rows, tag, frame = machine.rows, machine.tag, machine.frame
    for group in range(GROUPS):
        for row in range(rows.begin[at(group)], rows.begin[at(group + 1)]):
            if not is_array(rows, row):
                continue
            ways = rows.table[at(row), ROW_WAYS]
            for start in range(
                rows.table[at(row), ROW_FIRST],
                rows.table[at(row), ROW_FIRST] + rows.table[at(row), ROW_SETS] * ways,
                max(ways, 1),
            ):
                free = start
                for slot in range(start, start + ways):
                    word = tag[at(slot)]
                    if word == EMPTY:
                        continue
                    if is_doomed(
                        machine, row, word, frame[at(slot)], vm, pcid, tables, kept, gva, extent
                    ):
                        tag[at(slot)] = EMPTY
                        if fate != RESIDENT and group < NESTED:
                            note_fate(machine, word, group, fate)
                    else:
                        free = keep_at(machine, row, free, slot)
    for group in range(L2_DATA, L2_FETCH + 1):
        entries = twin_entries(machine.twin, group)
        for entry in range(entries):
            word, held = twin_entry(machine.twin, group, entry)
            if word != EMPTY and is_doomed(
                machine, rows.begin[at(group)], word, held, vm, pcid, tables, kept, gva, extent
            ):
                give_up(machine.twin, base_of(machine.twin, group), entry)


@kernel
def drop_nested(machine: Machine, tables: int) -> None:
    """Drop the guest-physical entries of some nested tables, or of ANY; the rest keeps its order."""
    rows, tag = machine.rows, machine.tag
    for row in range(rows.begin[NESTED], rows.table.shape[0]):
        if not is_array(rows, row):
            continue
        ways = rows.table[at(row), ROW_WAYS]
        for start in range(
            rows.table[at(row), ROW_FIRST],
            rows.table[at(row), ROW_FIRST] + rows.table[at(row), ROW_SETS] * ways,
            max(ways, 1),
        ):
            free = start
            for slot in range(start, start + ways):
                word = tag[at(slot)]
                if word == EMPTY:
                    continue
                if is_kept_by_flush(rows, row, word) and tables in (ANY, word >> CONTEXT_SHIFT):
                    tag[at(slot)] = EMPTY
                else:
                    free = keep_at(machine, row, free, slot)


@kernel
def drop_after_fault(machine: Machine, context: int, gva: int, outcome: int) -> None:
    """Drop what a fault invalidates of itself, so that it cannot come from a stale entry twice.

    A page fault drops what translates its address under the current PCID, walk-cache entries
    included. An EPT violation drops the guest-physical entry of its guest-physical address and, if
    that was the data's, what a page fault would. An EPT misconfiguration drops nothing. Of a page-walk
    cache, which does not know addresses, all of the context goes, or of the nested tables.
    """
    rows, tag, frame = machine.rows, machine.tag, machine.frame
    if outcome not in (PAGE_FAULT, NESTED_VIOLATION):
        return
    if outcome == NESTED_VIOLATION:
        gpa, tables = machine.fault[FAULT_GPA], machine.nested_tag[at(context)]
        for row in range(rows.begin[NESTED], rows.begin[NESTED + 1]):
            size = rows.table[at(row), ROW_SIZE]
            page = page_number(gpa, size)
            remove(tag, frame, rows, row, page, tag_key(tables, page, size))
        drop_entries(machine, tables, NESTED_ENTRY)
        if machine.fault[FAULT_TABLE]:
            return
    shared = globals_of(machine.global_context, context)
    for group in range(NESTED):
        for row in range(rows.begin[at(group)], rows.begin[at(group + 1)]):
            size = rows.table[at(row), ROW_SIZE]
            page = page_number(gva, size)
            forget(machine, group, row, page, tag_key(context, page, size))
            if shared != NO_CONTEXT:
                forget(machine, group, row, page, tag_key(shared, page, size))
    for row in range(rows.begin[WALK_CACHE], rows.begin[WALK_CACHE + 1]):
        page = page_number(gva, row - rows.begin[WALK_CACHE] + 1)
        if rows.table[at(row), ROW_WAYS]:
            remove(tag, frame, rows, row, page, tag_key(context, page, SMALL))
    drop_entries(machine, context, GUEST_ENTRY)


@inlined
def forget(machine: Machine, group: int, row: int, page: int, key: int) -> None:
    """Drop an entry of a TLB, and of its twin, for a fault."""
    if slot_of(machine.tag, machine.rows, row, page, key) >= 0:
        remove(machine.tag, machine.frame, machine.rows, row, page, key)
        note_fate(machine, key, group, INVALIDATED)
    if twin_entries(machine.twin, group):
        base = base_of(machine.twin, group)
        entry = in_twin(machine.twin, base, key)
        if entry >= 0:
            give_up(machine.twin, base, entry)


@inlined
def drop_entries(machine: Machine, owner: int, kind: int) -> None:
    """Drop the entries of a context, or of some nested tables, from the page-walk cache."""
    rows, tag = machine.rows, machine.tag
    row = rows.begin[ENTRY_CACHE]
    ways = rows.table[at(row), ROW_WAYS]
    for start in range(
        rows.table[at(row), ROW_FIRST],
        rows.table[at(row), ROW_FIRST] + rows.table[at(row), ROW_SETS] * ways,
        max(ways, 1),
    ):
        free = start
        for slot in range(start, start + ways):
            word = tag[at(slot)]
            if word == EMPTY:
                continue
            if word >> CONTEXT_SHIFT == owner and word >> SIZE_SHIFT & SIZE_BITS == kind:
                tag[at(slot)] = EMPTY
            else:
                free = keep_at(machine, row, free, slot)


@kernel
def flush(machine: Machine, nested: bool) -> None:
    """Drop every TLB and walk-cache entry; guest-physical ones only if `nested`.

    This is what a VM entry and a VM exit do where VMs have no tags (all are VPID 0): linear and
    combined mappings go, guest-physical ones stay, as Intel has it.
    """
    rows = machine.rows
    for row in range(rows.table.shape[0]):
        if not is_array(rows, row):
            continue
        whole = (
            nested or is_tlb(rows, row) or rows.begin[WALK_CACHE] <= row < rows.begin[ENTRY_CACHE]
        )
        if not whole and row < rows.begin[WALK_CACHE]:
            continue
        first, ways = rows.table[at(row), ROW_FIRST], rows.table[at(row), ROW_WAYS]
        if whole:
            for slot in range(first, first + rows.table[at(row), ROW_SETS] * ways):
                machine.tag[at(slot)] = EMPTY
            continue
        for start in range(first, first + rows.table[at(row), ROW_SETS] * ways, max(ways, 1)):
            free = start
            for slot in range(start, start + ways):
                word = machine.tag[at(slot)]
                if word == EMPTY:
                    continue
                if is_kept_by_flush(rows, row, word):
                    free = keep_at(machine, row, free, slot)
                else:
                    machine.tag[at(slot)] = EMPTY
    empty_twins(machine)


@inlined
def empty_twins(machine: Machine) -> None:
    """Drop every entry of the fully associative twins."""
    for group in range(L2_DATA, L2_FETCH + 1):
        for entry in range(twin_entries(machine.twin, group)):
            if twin_entry(machine.twin, group, entry)[0] != EMPTY:
                give_up(machine.twin, base_of(machine.twin, group), entry)


@kernel
def purge(machine: Machine, vm: int) -> None:
    """Drop the TLB and walk-cache entries of one virtual machine; the others keep their order."""
    drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE, RESIDENT)


@kernel
def load_cr3(machine: Machine, context: int, keep: int) -> None:
    """MOV to CR3 that makes a context current; `keep`: bit 63 was set, and nothing is dropped.

    Else all of its PCID goes but global translations (those of PCID 0 where CR4.PCIDE is clear), for
    all nested tables of the VM.
    """
    if not keep:
        vm, pcid = machine.vm[at(context)], machine.pcid[at(context)]
        drop(machine, vm, pcid, ANY, YES, SMALL, WHOLE, RESIDENT)


@kernel
def load_cr4(machine: Machine, context: int, everything: int) -> None:
    """MOV to CR4 in a context.

    `everything`: PGE changed, or PCIDE was cleared: all PCIDs of the VM, global translations
    included. Else SMEP was set, or PAE changed: the current PCID, and what is global stays (the manual
    says "all entries of the current PCID", and global ones are of every PCID: they need not go).
    """
    vm, pcid = machine.vm[at(context)], machine.pcid[at(context)]
    if everything:
        drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE, INVALIDATED)
    else:
        drop(machine, vm, pcid, ANY, YES, SMALL, WHOLE, INVALIDATED)


@kernel
def invlpg(machine: Machine, context: int, gva: int) -> None:
    """INVLPG in a context: the page that holds `gva`, of its PCID and global; its whole walk caches.

    Every TLB entry of the guest's page goes, however many pieces it is kept in.
    """
    vm, pcid = machine.vm[at(context)], machine.pcid[at(context)]
    drop(machine, vm, pcid, ANY, NO, gva, OF_TAG, INVALIDATED)


@kernel
def invpcid(machine: Machine, kind: int, context: int, pcid: int, gva: int) -> None:
    """INVPCID of type `kind` in a context, for any PCID of its VM.

    0: one page of the PCID, unless global; 1: the PCID, but global translations; 2: all PCIDs and
    global translations; 3: all PCIDs, but global translations.
    """
    vm = machine.vm[at(context)]
    if kind == ADDRESS_IN_PCID:
        drop(machine, vm, pcid, ANY, YES, gva, OF_PAGE, INVALIDATED)
    elif kind == ONE_PCID:
        drop(machine, vm, pcid, ANY, YES, SMALL, WHOLE, INVALIDATED)
    elif kind == ALL_WITH_GLOBALS:
        drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE, INVALIDATED)
    else:
        drop(machine, vm, ANY, ANY, YES, SMALL, WHOLE, INVALIDATED)


@kernel
def invvpid(machine: Machine, kind: int, vm: int, gva: int) -> None:
    """INVVPID of type `kind`; guest-physical entries stay.

    0: one page of a VM, in all its PCIDs and global; 1: the VM; 2: all VMs, the hypervisor's VPID 0
    excepted; 3: the VM, but global translations.
    """
    if kind == ADDRESS_IN_VM:
        drop(machine, vm, ANY, ANY, NO, gva, OF_PAGE, INVALIDATED)
    elif kind == ONE_VM:
        drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE, INVALIDATED)
    elif kind == ALL_VMS:
        drop(machine, GUESTS, ANY, ANY, NO, SMALL, WHOLE, INVALIDATED)
    else:
        drop(machine, vm, ANY, ANY, YES, SMALL, WHOLE, INVALIDATED)


@kernel
def invept(machine: Machine, kind: int, tables: int) -> None:
    """INVEPT of type `kind`, 1: combined and guest-physical entries of some nested tables; 2: of all.

    Linear entries, of contexts without nested tables, stay.
    """
    if kind == ONE_EPT:
        drop(machine, ANY, ANY, tables, NO, SMALL, WHOLE, INVALIDATED)
        drop_nested(machine, tables)
        return
    drop(machine, ANY, ANY, COMBINED, NO, SMALL, WHOLE, INVALIDATED)
    drop_nested(machine, ANY)


@kernel
def drop_nested_of(machine: Machine, vm: int) -> None:
    """Drop the guest-physical entries of the nested tables that a virtual machine runs on."""
    last = NO_CONTEXT
    for context in range(machine.vm.shape[0]):
        tables = machine.nested_tag[at(context)]
        if machine.vm[at(context)] == vm and tables not in (NO_CONTEXT, last):
            drop_nested(machine, tables)
            last = tables


@kernel
def tlb_control(machine: Machine, code: int, vm: int) -> None:
    """VMRUN with a TLB_CONTROL code, for the ASID of a VM.

    0: nothing; 1: all ASIDs; 3: this ASID; 7: this ASID, but global translations. AMD has no other
    way to drop guest-physical entries: they go with their ASID, with 7 too, which is an assumption.
    """
    if code == FLUSH_ALL:
        drop(machine, ANY, ANY, ANY, NO, SMALL, WHOLE, INVALIDATED)
        drop_nested(machine, ANY)
    elif code != FLUSH_NOTHING:
        kept = YES if code == FLUSH_ASID_BUT_GLOBALS else NO
        drop(machine, vm, ANY, ANY, kept, SMALL, WHOLE, INVALIDATED)
        drop_nested_of(machine, vm)


@kernel
def invlpga(machine: Machine, vm: int, gva: int) -> None:
    """INVLPGA: one page of an ASID, in all its PCIDs and global, and the ASID's whole walk caches.

    That it reaches every PCID is an assumption: the manual names the page and the ASID only.
    """
    drop(machine, vm, ANY, ANY, NO, gva, OF_TAG, INVALIDATED)
