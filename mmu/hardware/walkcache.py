"""What walks keep of upper levels: paging-structure caches as Intel has, a page-walk cache as AMD has.

Paging-structure caches know where the tables of recent walks stand. Three caches, tagged by context and
keyed by the address bits that select the table: PDE (the page table of a 2 MiB region), PDPTE (the page
directory of a 1 GiB region), PML4E. Each value is the table's machine address with the rights that the
entries above it grant, and whether nested tables let it be written. Look-up is longest first. Source:
Intel SDM vol. 3, "Caches for Paging Structures".

A page-walk cache keeps table entries by where they stand, of some levels, guest's and nested ones: an
entry that it has is not read. Leaves are not kept. Sources: Barr et al., "Translation Caching: Skip,
Don't Walk (the Page Table)", ISCA 2010, for the two kinds; Bhargava et al., ASPLOS 2008, for AMD's and
its extension to nested entries.
"""

from mmu.hardware.bits import LEVELS, page_number
from mmu.hardware.machine import ENTRY_HITS, ENTRY_LEVELS, WALK_CACHE_CYCLES, Machine
from mmu.hardware.overlap import OF_WALK_CACHE, spend
from mmu.hardware.rows import ENTRY_CACHE, MISS, ROW_WAYS, WALK_CACHE, Rows, Words, fill, look_up
from mmu.hardware.tlb import tag_key
from mmu.jit import at, inlined, kernel, spliced

TABLE_WRITABLE = 1 << 4  # of a value, above the rights


@spliced
def cached_table(
    machine: Machine, account: int, context: int, gva: int, levels: int
) -> tuple[int, int]:
    """Return the level and the word of the lowest table known; level `levels` if none is."""
    rows = machine.rows
    first = rows.begin[WALK_CACHE]
    spend(machine, OF_WALK_CACHE, machine.model[WALK_CACHE_CYCLES])
    for level in range(1, LEVELS):
        row = first + level - 1
        if rows.table[at(row), ROW_WAYS]:
            page = page_number(gva, level)
            key = tag_key(context, page, 0)
            slot = look_up(machine.tag, machine.frame, machine.order, rows, row, page, key)
            if slot >= 0:
                machine.hits[at(account), at(row)] += 1
                return level, machine.frame[at(slot)]
    return levels, 0


@spliced
def cache_table(
    machine: Machine, context: int, gva: int, level: int, word: int, stale: bool
) -> None:
    """Keep where the table of `level` that `gva` selects stands; `stale`: it may be kept already."""
    rows = machine.rows
    row = rows.begin[WALK_CACHE] + level - 1
    if rows.table[at(row), ROW_WAYS]:
        page = page_number(gva, level)
        key = tag_key(context, page, 0)
        fill(machine.tag, machine.frame, machine.order, rows, row, page, key, word, stale)


@kernel
def find_entry(
    tag: Words, frame: Words, order: Words, rows: Rows, slot: int, owner: int, nested: int
) -> int:
    """Return the entry at an index of memory from the page-walk cache, or 0."""
    row = rows.begin[ENTRY_CACHE] + nested
    place = MISS
    if rows.table[at(row), ROW_WAYS]:
        place = look_up(tag, frame, order, rows, row, slot, tag_key(owner, slot, nested))
    return frame[at(place)] if place >= 0 else 0


@inlined
def cached_entry(
    machine: Machine, account: int, slot: int, level: int, owner: int, nested: int
) -> int:
    """Return the entry at an index of memory from the page-walk cache, or 0.

    owner: the context of a guest's entry (nested: 0), the tag of the nested tables of another (1).
    """
    if not machine.model[ENTRY_LEVELS] >> level & 1:
        return 0
    entry = find_entry(
        machine.tag, machine.frame, machine.order, machine.rows, slot, owner, nested
    )  # fmt: skip
    if entry:
        machine.hits[at(account), at(machine.rows.begin[ENTRY_CACHE] + nested)] += 1
        machine.events[at(account), ENTRY_HITS] += 1
        spend(machine, OF_WALK_CACHE, machine.model[WALK_CACHE_CYCLES])
    return entry


@kernel
def keep_entry(
    tag: Words, frame: Words, order: Words, rows: Rows, slot: int, owner: int, nested: int,
    entry: int,
) -> None:  # fmt: skip
    """Keep an entry in the page-walk cache, if that keeps its kind."""
    row = rows.begin[ENTRY_CACHE] + nested
    if rows.table[at(row), ROW_WAYS]:
        key = tag_key(owner, slot, nested)
        fill(tag, frame, order, rows, row, slot, key, entry, False)


@inlined
def cache_entry(
    machine: Machine, slot: int, level: int, owner: int, nested: int, entry: int
) -> None:
    """Keep an entry that is no leaf, and that was read because it was not kept."""
    if machine.model[ENTRY_LEVELS] >> level & 1:
        keep_entry(
            machine.tag, machine.frame, machine.order, machine.rows, slot, owner, nested, entry
        )  # fmt: skip
