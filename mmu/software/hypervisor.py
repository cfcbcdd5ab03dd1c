"""The hypervisor: the only writer of nested tables.

It backs guest-physical memory with machine frames, 4 KiB or 2 MiB at a time. The root partition is
mapped one to one; what the hypervisor reserves for itself is off limits to it.
"""

from mmu.hardware.bits import (
    ENTRIES,
    LARGE_FRAMES,
    LEVELS,
    PAGE_BYTES,
    PAGE_SHIFT,
    SMALL,
    WORD_SHIFT,
    entry_word,
    frame_bits,
)
from mmu.hardware.entry import ADDRESS, EPT, LARGE_LEAF
from mmu.hardware.machine import NESTED_FAULTS, Machine
from mmu.hardware.memory import load, store
from mmu.jit import at, inlined, kernel, spliced
from mmu.software.frames import FIRST_VM, HYPERVISOR, NONE, take_large, take_small
from mmu.software.world import (
    HOST_POOL,
    LARGE_PAGES,
    NESTED_2M,
    NESTED_4K,
    NESTED_TABLES,
    OFF_LIMITS,
    OUT_OF_MEMORY,
    RESERVE_POOL,
    SHORT_OWNER,
    SHORT_POOL,
    SHORT_SIZE,
    SMALL_PAGES,
    World,
)


@inlined
def short_of(world: World, owner: int, pool: int, size: int) -> int:
    """Note who could not get a page of `size` from which pool; returns OUT_OF_MEMORY."""
    world.shortage[SHORT_OWNER] = owner
    world.shortage[SHORT_POOL] = pool
    world.shortage[SHORT_SIZE] = size
    return OUT_OF_MEMORY


@kernel
def open_partition(world: World, vm: int) -> int:
    """Give a virtual machine an empty nested root table; returns 0 or a negative status."""
    frame = take_small(world.frames, RESERVE_POOL, HYPERVISOR)
    if frame == NONE:
        return short_of(world, vm, RESERVE_POOL, SMALL)
    world.nested_root[at(vm)] = frame << PAGE_SHIFT
    world.mapped[at(vm), NESTED_TABLES] += 1
    return 0


@inlined
def clear_page(machine: Machine, maddr: int) -> None:
    """Zero a page that is to hold a table."""
    first = maddr >> WORD_SHIFT
    for word in range(first, first + ENTRIES):
        store(machine.memory, word, 0)


@inlined
def machine_frame(world: World, vm: int, gpa: int, large: bool) -> int:
    """Choose the machine frame for a guest-physical page: a free one, or the same one for the root."""
    if world.identity[at(vm)]:
        return gpa >> PAGE_SHIFT & ~(LARGE_FRAMES - 1 if large else 0)
    if large:
        return take_large(world.frames, HOST_POOL, FIRST_VM + vm)
    return take_small(world.frames, HOST_POOL, FIRST_VM + vm)


@spliced
def off_limits(world: World, vm: int, gpa: int) -> bool:
    """Tell whether the root partition asks for memory that is the hypervisor's, or is not there."""
    frames = world.frames
    frame = gpa >> PAGE_SHIFT
    reserved = frame < frames.base[HOST_POOL]
    regions = frames.begin[HOST_POOL + 1] - frames.begin[HOST_POOL]
    beyond = frame >= frames.base[HOST_POOL] + regions * LARGE_FRAMES
    return world.identity[at(vm)] != 0 and (reserved or beyond)


@spliced
def back(machine: Machine, world: World, vm: int, gpa: int) -> int:
    """Map the page that holds a guest-physical address, if it is not mapped yet.

    Returns the machine address of the 4 KiB frame that holds it, or a negative status.
    """
    if off_limits(world, vm, gpa):
        return OFF_LIMITS
    table, policy = world.nested_root[at(vm)], world.nested_policy[at(vm)]
    for level in range(LEVELS, 1, -1):
        slot = entry_word(table, gpa, level)
        entry = load(machine.memory, slot)
        if entry & LARGE_LEAF:
            return entry & ADDRESS & ~frame_bits(1) | gpa & frame_bits(1)
        if not entry and level == 2 and policy != SMALL_PAGES:
            frame = machine_frame(world, vm, gpa, True)
            if frame != NONE:
                store(machine.memory, slot, frame << PAGE_SHIFT | EPT.leaf | LARGE_LEAF)
                world.mapped[at(vm), NESTED_2M] += 1
                return frame << PAGE_SHIFT | gpa & frame_bits(1)
            if policy == LARGE_PAGES:
                return short_of(world, vm, HOST_POOL, level - 1)
        if not entry:
            frame = take_small(world.frames, RESERVE_POOL, HYPERVISOR)
            if frame == NONE:
                return short_of(world, vm, RESERVE_POOL, SMALL)
            entry = frame << PAGE_SHIFT | EPT.table
            clear_page(machine, frame << PAGE_SHIFT)
            store(machine.memory, slot, entry)
            world.mapped[at(vm), NESTED_TABLES] += 1
        table = entry & ADDRESS
    slot = entry_word(table, gpa, 1)
    entry = load(machine.memory, slot)
    if not entry:
        frame = machine_frame(world, vm, gpa, False)
        if frame == NONE:
            return short_of(world, vm, HOST_POOL, SMALL)
        entry = frame << PAGE_SHIFT | EPT.leaf
        store(machine.memory, slot, entry)
        world.mapped[at(vm), NESTED_4K] += 1
    return entry & ADDRESS


@inlined
def pages_backed(world: World, vm: int) -> int:
    """Return how many pages of any size the hypervisor has backed for a virtual machine."""
    return world.mapped[at(vm), NESTED_4K] + world.mapped[at(vm), NESTED_2M]


@kernel
def touch_guest_page(machine: Machine, world: World, account: int, vm: int, gpa: int) -> int:
    """Return the machine address of the frame behind a guest-physical address that software touches.

    Backs it if need be, which is a nested fault where memory is backed at its first touch.
    A negative status if that fails.
    """
    if world.nested_root[at(vm)] < 0:
        return gpa & ADDRESS
    before = pages_backed(world, vm)
    maddr = back(machine, world, vm, gpa)
    if world.first_touch[0] and pages_backed(world, vm) != before:
        machine.events[at(account), NESTED_FAULTS] += 1
    return maddr


@spliced
def hand_out(machine: Machine, world: World, account: int, vm: int, gpa: int, size: int) -> int:
    """Back what a pager hands out, where all guest memory counts as backed from the start.

    That an entry is written only now cannot be told from its having been there: no count depends on
    it, and a large guest costs nothing to start. Returns 0 or a negative status.
    """
    if world.first_touch[0] or world.nested_root[at(vm)] < 0:
        return 0
    for offset in range(0, PAGE_BYTES << (9 * size), PAGE_BYTES):
        maddr = touch_guest_page(machine, world, account, vm, gpa + offset)
        if maddr < 0:
            return maddr
    return 0
