"""What drops entries: flush everything, or purge one virtual machine by its tag.

Scopes: Intel SDM vol. 3, "Operations that Invalidate Cached Mappings" for a processor without VPIDs
(every VM entry and exit drops linear and combined mappings, and keeps guest-physical ones).
"""

from mmu.hardware.machine import Machine
from mmu.hardware.rows import CONTEXT_SHIFT, EMPTY, NESTED, WALK_CACHE, Rows
from mmu.jit import at, inlined, kernel


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


@kernel
def flush(machine: Machine, nested: bool) -> None:
    """Drop every TLB and walk-cache entry; those of the nested TLB only if `nested`."""
    rows = machine.rows
    for row in range(rows.first.shape[0]):
        if dropped_by_flush(rows, row) or (nested and is_array(rows, row)):
            first = rows.first[at(row)]
            for slot in range(first, first + rows.sets[at(row)] * rows.ways[at(row)]):
                machine.tag[at(slot)] = EMPTY


@kernel
def purge(machine: Machine, vm: int) -> None:
    """Drop the TLB and walk-cache entries of one virtual machine; the others keep their order."""
    rows = machine.rows
    for row in range(rows.first.shape[0]):
        if dropped_by_flush(rows, row):
            ways = rows.ways[at(row)]
            for chosen in range(rows.sets[at(row)]):
                purge_set(machine, rows.first[at(row)] + chosen * ways, ways, vm)


@inlined
def purge_set(machine: Machine, start: int, ways: int, vm: int) -> None:
    """Move the entries that stay to the front of their set, in their order, and empty the rest."""
    tag, frame = machine.tag, machine.frame
    kept = start
    for slot in range(start, start + ways):
        word = tag[at(slot)]
        if word != EMPTY and machine.vm[at(word >> CONTEXT_SHIFT)] != vm:
            tag[at(kept)] = word
            frame[at(kept)] = frame[at(slot)]
            kept += 1
    for slot in range(kept, start + ways):
        tag[at(slot)] = EMPTY
