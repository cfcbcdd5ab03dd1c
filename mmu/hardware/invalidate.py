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

from mmu.hardware.bits import LEVEL_BITS, SMALL, page_number
from mmu.hardware.machine import FAULT_GPA, FAULT_TABLE, GLOBAL, NO_CONTEXT, Machine
from mmu.hardware.outcome import NESTED_VIOLATION, PAGE_FAULT
from mmu.hardware.rows import (
    CONTEXT_SHIFT,
    EMPTY,
    NESTED,
    NUMBER_SHIFT,
    PAGE_NUMBER_MASK,
    SIZE_BITS,
    SIZE_SHIFT,
    WALK_CACHE,
    Rows,
    remove,
    set_start,
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
    if row == 0 or not rows.ways[at(row - 1)]:
        return True
    return rows.first[at(row)] != rows.first[at(row - 1)]


@inlined
def dropped_by_flush(rows: Rows, row: int) -> bool:
    """Tell whether a row's array holds what is derived from guest tables: not the nested TLB's."""
    return (row < rows.begin[NESTED] or row >= rows.begin[WALK_CACHE]) and is_array(rows, row)


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


@kernel
def drop(
    machine: Machine, vm: int, pcid: int, tables: int, kept: int, gva: int, extent: int
) -> None:
    """Drop the TLB and walk-cache entries that the tags and `extent` select; the rest keeps its order.

    vm, pcid, tables: what a context must have, or ANY; kept: global translations stay; extent: WHOLE,
    or of the page that holds `gva`, with OF_PAGE or OF_TAG of the paging-structure caches.
    """
    rows, tag, frame = machine.rows, machine.tag, machine.frame
    for row in range(rows.first.shape[0]):
        if not dropped_by_flush(rows, row):
            continue
        ways, table = rows.ways[at(row)], row >= rows.begin[WALK_CACHE]
        level = row - rows.begin[WALK_CACHE] + 1
        for start in range(
            rows.first[at(row)], rows.first[at(row)] + rows.sets[at(row)] * ways, max(ways, 1)
        ):
            free = start
            for slot in range(start, start + ways):
                word = tag[at(slot)]
                if word == EMPTY:
                    break
                doomed = in_scope(machine, word >> CONTEXT_SHIFT, vm, pcid, tables, kept)
                if doomed and table and extent == OF_PAGE:
                    doomed = word >> NUMBER_SHIFT & PAGE_NUMBER_MASK == page_number(gva, level)
                elif doomed and not table and extent != WHOLE:
                    doomed = of_page(word, frame[at(slot)], gva)
                if not doomed:
                    tag[at(free)] = word
                    frame[at(free)] = frame[at(slot)]
                    free += 1
            for slot in range(free, start + ways):
                tag[at(slot)] = EMPTY


@kernel
def drop_nested(machine: Machine, tables: int) -> None:
    """Drop the guest-physical entries of some nested tables, or of ANY; the rest keeps its order."""
    rows, tag, frame = machine.rows, machine.tag, machine.frame
    for row in range(rows.begin[NESTED], rows.begin[NESTED + 1]):
        ways = rows.ways[at(row)]
        if not is_array(rows, row):
            continue
        for start in range(
            rows.first[at(row)], rows.first[at(row)] + rows.sets[at(row)] * ways, max(ways, 1)
        ):
            free = start
            for slot in range(start, start + ways):
                word = tag[at(slot)]
                if word != EMPTY and tables not in (ANY, word >> CONTEXT_SHIFT):
                    tag[at(free)] = word
                    frame[at(free)] = frame[at(slot)]
                    free += 1
            for slot in range(free, start + ways):
                tag[at(slot)] = EMPTY


@inlined
def drop_after_fault(machine: Machine, context: int, gva: int, outcome: int) -> None:
    """Drop what a fault invalidates of itself, so that it cannot come from a stale entry twice.

    A page fault drops what translates its address under the current PCID, walk-cache entries
    included. An EPT violation drops the guest-physical entry of its guest-physical address and, if
    that was the data's, what a page fault would. An EPT misconfiguration drops nothing.
    """
    rows, tag, frame = machine.rows, machine.tag, machine.frame
    if outcome not in (PAGE_FAULT, NESTED_VIOLATION):
        return
    if outcome == NESTED_VIOLATION:
        gpa, tables = machine.fault[FAULT_GPA], machine.nested_tag[at(context)]
        for row in range(rows.begin[NESTED], rows.begin[NESTED + 1]):
            page = page_number(gpa, rows.size[at(row)])
            key = tag_key(tables, page, rows.size[at(row)])
            remove(tag, frame, set_start(rows, row, page), rows.ways[at(row)], key)
        if machine.fault[FAULT_TABLE]:
            return
    shared = globals_of(machine.global_context, context)
    for row in range(rows.begin[NESTED]):
        page = page_number(gva, rows.size[at(row)])
        start, ways = set_start(rows, row, page), rows.ways[at(row)]
        remove(tag, frame, start, ways, tag_key(context, page, rows.size[at(row)]))
        if shared != NO_CONTEXT:
            remove(tag, frame, start, ways, tag_key(shared, page, rows.size[at(row)]))
    for row in range(rows.begin[WALK_CACHE], rows.begin[WALK_CACHE + 1]):
        page = page_number(gva, row - rows.begin[WALK_CACHE] + 1)
        key = tag_key(context, page, SMALL)
        remove(tag, frame, set_start(rows, row, page), rows.ways[at(row)], key)


@kernel
def flush(machine: Machine, nested: bool) -> None:
    """Drop every TLB and walk-cache entry; those of the nested TLB only if `nested`.

    This is what a VM entry and a VM exit do where VMs have no tags (all are VPID 0): linear and
    combined mappings go, guest-physical ones stay, as Intel has it.
    """
    rows = machine.rows
    for row in range(rows.first.shape[0]):
        if dropped_by_flush(rows, row) or (nested and is_array(rows, row)):
            first = rows.first[at(row)]
            for slot in range(first, first + rows.sets[at(row)] * rows.ways[at(row)]):
                machine.tag[at(slot)] = EMPTY


@kernel
def purge(machine: Machine, vm: int) -> None:
    """Drop the TLB and walk-cache entries of one virtual machine; the others keep their order."""
    drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE)


@kernel
def load_cr3(machine: Machine, context: int, keep: int) -> None:
    """MOV to CR3 that makes a context current; `keep`: bit 63 was set, and nothing is dropped.

    Else all of its PCID goes but global translations (those of PCID 0 where CR4.PCIDE is clear), for
    all nested tables of the VM.
    """
    if not keep:
        drop(
            machine, machine.vm[at(context)], machine.pcid[at(context)], ANY, YES, SMALL, WHOLE
        )  # fmt: skip


@kernel
def load_cr4(machine: Machine, context: int, everything: int) -> None:
    """MOV to CR4 in a context.

    `everything`: PGE changed, or PCIDE was cleared: all PCIDs of the VM, global translations
    included. Else SMEP was set, or PAE changed: the current PCID, and what is global stays (the manual
    says "all entries of the current PCID", and global ones are of every PCID: they need not go).
    """
    vm, pcid = machine.vm[at(context)], machine.pcid[at(context)]
    if everything:
        drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE)
    else:
        drop(machine, vm, pcid, ANY, YES, SMALL, WHOLE)


@kernel
def invlpg(machine: Machine, context: int, gva: int) -> None:
    """INVLPG in a context: the page that holds `gva`, of its PCID and global; its whole walk caches.

    Every TLB entry of the guest's page goes, however many pieces it is kept in.
    """
    vm, pcid = machine.vm[at(context)], machine.pcid[at(context)]
    drop(machine, vm, pcid, ANY, NO, gva, OF_TAG)


@kernel
def invpcid(machine: Machine, kind: int, context: int, pcid: int, gva: int) -> None:
    """INVPCID of type `kind` in a context, for any PCID of its VM.

    0: one page of the PCID, unless global; 1: the PCID, but global translations; 2: all PCIDs and
    global translations; 3: all PCIDs, but global translations.
    """
    vm = machine.vm[at(context)]
    if kind == ADDRESS_IN_PCID:
        drop(machine, vm, pcid, ANY, YES, gva, OF_PAGE)
    elif kind == ONE_PCID:
        drop(machine, vm, pcid, ANY, YES, SMALL, WHOLE)
    elif kind == ALL_WITH_GLOBALS:
        drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE)
    else:
        drop(machine, vm, ANY, ANY, YES, SMALL, WHOLE)


@kernel
def invvpid(machine: Machine, kind: int, vm: int, gva: int) -> None:
    """INVVPID of type `kind`; guest-physical entries stay.

    0: one page of a VM, in all its PCIDs and global; 1: the VM; 2: all VMs, the hypervisor's VPID 0
    excepted; 3: the VM, but global translations.
    """
    if kind == ADDRESS_IN_VM:
        drop(machine, vm, ANY, ANY, NO, gva, OF_PAGE)
    elif kind == ONE_VM:
        drop(machine, vm, ANY, ANY, NO, SMALL, WHOLE)
    elif kind == ALL_VMS:
        drop(machine, GUESTS, ANY, ANY, NO, SMALL, WHOLE)
    else:
        drop(machine, vm, ANY, ANY, YES, SMALL, WHOLE)


@kernel
def invept(machine: Machine, kind: int, tables: int) -> None:
    """INVEPT of type `kind`, 1: combined and guest-physical entries of some nested tables; 2: of all.

    Linear entries, of contexts without nested tables, stay.
    """
    if kind == ONE_EPT:
        drop(machine, ANY, ANY, tables, NO, SMALL, WHOLE)
        drop_nested(machine, tables)
        return
    drop(machine, ANY, ANY, COMBINED, NO, SMALL, WHOLE)
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
        drop(machine, ANY, ANY, ANY, NO, SMALL, WHOLE)
        drop_nested(machine, ANY)
    elif code != FLUSH_NOTHING:
        kept = YES if code == FLUSH_ASID_BUT_GLOBALS else NO
        drop(machine, vm, ANY, ANY, kept, SMALL, WHOLE)
        drop_nested_of(machine, vm)


@kernel
def invlpga(machine: Machine, vm: int, gva: int) -> None:
    """INVLPGA: one page of an ASID, in all its PCIDs and global, and the ASID's whole walk caches.

    That it reaches every PCID is an assumption: the manual names the page and the ASID only.
    """
    drop(machine, vm, ANY, ANY, NO, gva, OF_TAG)
