"""Paging-structure caches, Intel style: where the tables of recent walks stand.

Three caches, tagged by context and keyed by the address bits that select the table: PDE (the page
table of a 2 MiB region), PDPTE (the page directory of a 1 GiB region), PML4E. Each value is the
table's machine address with the rights that the entries above it grant, and whether nested tables let
it be written. Look-up is longest first. Source: Intel SDM vol. 3, "Caches for Paging Structures".
"""

from mmu.hardware.bits import LEVELS, page_number
from mmu.hardware.machine import Machine
from mmu.hardware.rows import EMPTY, WALK_CACHE, fill, find, set_start, touch
from mmu.hardware.tlb import tag_key
from mmu.jit import at, inlined

TABLE_WRITABLE = 1 << 4  # of a value, above the rights


@inlined
def cached_table(
    machine: Machine, account: int, context: int, gva: int, levels: int
) -> tuple[int, int]:
    """Return the level and the word of the lowest table known; level `levels` if none is."""
    tag, frame, rows = machine.tag, machine.frame, machine.rows
    first = rows.begin[WALK_CACHE]
    for level in range(1, LEVELS):
        row = first + level - 1
        page = page_number(gva, level)
        start = set_start(rows, row, page)
        way = find(tag, start, rows.ways[at(row)], tag_key(context, page, 0), EMPTY)
        if way >= 0:
            touch(tag, frame, start, way)
            machine.hits[at(account), at(row)] += 1
            return level, frame[at(start)]
    return levels, 0


@inlined
def cache_table(
    machine: Machine, context: int, gva: int, level: int, word: int, stale: bool
) -> None:
    """Keep where the table of `level` that `gva` selects stands; `stale`: it may be kept already."""
    rows = machine.rows
    row = rows.begin[WALK_CACHE] + level - 1
    ways = rows.ways[at(row)]
    if ways:
        page = page_number(gva, level)
        start = set_start(rows, row, page)
        fill(machine.tag, machine.frame, start, ways, tag_key(context, page, 0), word, stale)
