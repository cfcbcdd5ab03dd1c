"""The guest's pager: maps a page when it is touched first, through the guest's own physical addresses.

Pages of a page map, which says where they were on a real machine, are mapped before the program runs.
"""

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.bits import LEVEL_BITS, LEVELS, PAGE_SHIFT, SMALL, entry_word
from mmu.hardware.entry import ADDRESS, LARGE_LEAF, PRESENT, X86
from mmu.hardware.machine import Machine, processor
from mmu.hardware.memory import load, store
from mmu.hardware.rows import Words
from mmu.jit import at, inlined, kernel, spliced
from mmu.software.frames import FIRST_VM, NONE, take_large, take_small
from mmu.software.hypervisor import clear_page, hand_out, short_of, touch_guest_page
from mmu.software.world import (
    BROKEN,
    GUEST_2M,
    GUEST_4K,
    GUEST_TABLES,
    LARGE_PAGES,
    PAGE_MAP_2M,
    PAGE_MAP_4K,
    SMALL_PAGES,
    World,
)

Bytes = NDArray[np.uint8]


@inlined
def new_table(machine: Machine, world: World, account: int, owner: int) -> int:
    """Give a guest an empty table page: its guest-physical address, or a negative status."""
    pool = world.pool[at(owner)]
    frame = take_small(world.frames, pool, FIRST_VM + owner)
    if frame == NONE:
        return short_of(world, owner, pool, SMALL)
    gpa = frame << PAGE_SHIFT
    maddr = touch_guest_page(machine, world, account, owner, gpa)
    if maddr < 0:
        return maddr
    clear_page(machine, maddr)
    world.mapped[at(owner), GUEST_TABLES] += 1
    return gpa


@spliced
def map_leaf(machine: Machine, world: World, account: int, owner: int, slot: int, size: int) -> int:
    """Map a free page of `size` by the entry at word `slot`: 0, NONE if none is free, or a status."""
    pool = world.pool[at(owner)]
    if size:
        frame = take_large(world.frames, pool, FIRST_VM + owner)
    else:
        frame = take_small(world.frames, pool, FIRST_VM + owner)
    if frame == NONE:
        return NONE
    leaf = world.leaf[at(owner)] | (LARGE_LEAF if size else 0)
    store(machine.memory, slot, frame << PAGE_SHIFT | leaf)
    world.mapped[at(owner), at(GUEST_2M if size else GUEST_4K)] += 1
    return hand_out(machine, world, account, owner, frame << PAGE_SHIFT, size)


@kernel
def map_on_touch(machine: Machine, world: World, account: int, context: int, gva: int) -> int:
    """Map the page of a context that holds `gva`, by the policy of the context.

    Returns 0 or a negative status: out of memory, or BROKEN if the page is mapped already.
    """
    owner = machine.vm[at(context)]
    pool, policy = world.pool[at(owner)], world.guest_policy[at(context)]
    gpa = machine.root[at(context)]
    for level in range(LEVELS, 0, -1):
        table = touch_guest_page(machine, world, account, owner, gpa)
        if table < 0:
            return table
        slot = entry_word(table, gva, level)
        entry = load(machine.memory, slot)
        if entry & PRESENT and (level == 1 or entry & LARGE_LEAF):
            return BROKEN
        if level == 1 or (level == 2 and not entry & PRESENT and policy != SMALL_PAGES):
            status = map_leaf(machine, world, account, owner, slot, level - 1)
            if status != NONE:
                return status
            if level == 1 or policy == LARGE_PAGES:
                return short_of(world, owner, pool, level - 1)
        if not entry & PRESENT:
            entry = new_table(machine, world, account, owner)
            if entry < 0:
                return entry
            entry |= X86.table
            store(machine.memory, slot, entry)
        gpa = entry & ADDRESS
    return BROKEN


@inlined
def open_space(machine: Machine, world: World, context: int) -> int:
    """Give a context that runs for the first time an empty root table; 0 or a negative status.

    Where memory is backed at its first touch, the first walk is what touches it.
    """
    owner = machine.vm[at(context)]
    pool = world.pool[at(owner)]
    frame = take_small(world.frames, pool, FIRST_VM + owner)
    if frame == NONE:
        return short_of(world, owner, pool, SMALL)
    machine.root[at(context)] = frame << PAGE_SHIFT
    world.mapped[at(owner), GUEST_TABLES] += 1
    status = hand_out(machine, world, owner, owner, frame << PAGE_SHIFT, SMALL)
    return min(status, 0)


@inlined
def open_table(
    machine: Machine, world: World, account: int, context: int, gva: int, level: int
) -> int:
    """Return the machine address of the table of `level` for `gva`, made if need be; or a status."""
    owner = machine.vm[at(context)]
    gpa = machine.root[at(context)]
    for above in range(LEVELS, level, -1):
        table = touch_guest_page(machine, world, account, owner, gpa)
        if table < 0:
            return table
        slot = entry_word(table, gva, above)
        entry = load(machine.memory, slot)
        if entry & LARGE_LEAF:
            return BROKEN
        if not entry & PRESENT:
            entry = new_table(machine, world, account, owner)
            if entry < 0:
                return entry
            entry |= X86.table
            store(machine.memory, slot, entry)
        gpa = entry & ADDRESS
    return touch_guest_page(machine, world, account, owner, gpa)


@kernel
def map_found(
    machine: Machine, world: World, lp: int, context: int, vpn: Words, gfn: Words, size: Bytes
) -> int:
    """Open a space, and map the pages of a page map at the frames that it names.

    vpn, gfn: int64 [n], in ascending order of `vpn`, none overlapping; size: uint8 [n], 1 where a page is
    of 2 MiB. The frames are nobody's any more (see `frames.claim`). Returns 0 or a negative status.
    """
    here = processor(machine, lp)
    owner = here.vm[at(context)]
    status = open_space(here, world, context)
    if status < 0:
        return status
    table, region, known = 0, 0, False
    for i in range(vpn.shape[0]):
        large = 1 if size[at(i)] else 0
        gva = vpn[at(i)] << PAGE_SHIFT
        # Most pages are in the table of the one before.
        if large or not known or vpn[at(i)] >> LEVEL_BITS != region:
            table = open_table(here, world, owner, context, gva, large + 1)
            if table < 0:
                return table
            known, region = not large, vpn[at(i)] >> LEVEL_BITS
        slot = entry_word(table, gva, large + 1)
        if load(here.memory, slot) & PRESENT:
            return BROKEN
        leaf = world.leaf[at(owner)] | (LARGE_LEAF if large else 0)
        store(here.memory, slot, gfn[at(i)] << PAGE_SHIFT | leaf)
        world.mapped[at(owner), at(GUEST_2M if large else GUEST_4K)] += 1
        world.mapped[at(owner), at(PAGE_MAP_2M if large else PAGE_MAP_4K)] += 1
    return 0


@kernel
def back_found(machine: Machine, world: World, lp: int, vm: int, gfn: Words, size: Bytes) -> int:
    """Back the pages of a page map, where all guest memory counts as backed from the start.

    gfn: int64 [n], ascending, so that one nested table after the other is written: 0.9 against 7 s for 10
    million pages all over a large memory.
    Returns 0 or a negative status.
    """
    here = processor(machine, lp)
    for i in range(gfn.shape[0]):
        large = 1 if size[at(i)] else 0
        status = hand_out(here, world, vm, vm, gfn[at(i)] << PAGE_SHIFT, large)
        if status < 0:
            return status
    return 0


@kernel
def map_pages(
    machine: Machine, world: World, lp: int, context: int, address: NDArray[np.int64]
) -> int:
    """Open a space, and map the pages that hold each of `address` (int64 [n]).

    Returns 0 or a negative status.
    """
    here = processor(machine, lp)
    status = open_space(here, world, context)
    if status < 0:
        return status
    for i in range(address.shape[0]):
        status = map_on_touch(here, world, here.vm[at(context)], context, address[at(i)])
        if status < 0:
            return status
    return 0
