"""Walks that run while the processor goes on.

Up to `walkers` walks are under way at once, and the processor begins no instruction more than `window`
behind that of an unfinished one. A fetch waits for its walk at once. Time is counted within a block, at
the end of which nothing is under way any more.

A walk is a sequence of pieces (what it does, for how many cycles). When the processor waits for a walk,
the cycles are booked to what the walk does in them, so that all causes together are the clock's cycles.
With a window of 0 each walk is waited for: it blocks.
"""

import numpy as np

from mmu.hardware.machine import (
    INSTRUCTION_CYCLES,
    L2_CYCLES,
    OVERLAP,
    TOLD_EXPOSED,
    WALKERS,
    WINDOW,
    Machine,
)
from mmu.hardware.rows import Words
from mmu.jit import at, inlined, kernel, spliced

# What a piece of a walk is.
PIECES = ("walk_cache", "nested_tlb", "guest_table", "nested_table", "update")
OF_WALK_CACHE, OF_NESTED_TLB, OF_GUEST_TABLE, OF_NESTED_TABLE, OF_UPDATE = range(5)
PIECE_BITS = 3
PIECE_MASK = (1 << PIECE_BITS) - 1
MOST_PIECES = 256  # of a walk: the longest one, begun twice, has fewer
# Fields of `Machine.flight`: cycles and pieces of the walk that is made; then, within a block, the time,
# the number of the instruction that has begun last, and the walks under way. After them a record for each
# walk that can be under way, in the order in which they began; then the pieces of each; then those of the
# walk that is made. Where walks do not overlap the fields end with BEGIN_WALKS.
WALK_CYCLES, WALK_PIECES, NOW, INSTRUCTION, UNDER_WAY, BEGIN_WALKS = range(OVERLAP, OVERLAP + 6)
ENDS, BEGUN_BY, KEY, PLACE, WALK_FIELDS = range(5)  # of a record; PLACE: where its pieces begin


def nothing_under_way(walkers: int) -> Words:
    """Return `Machine.flight` of a processor with so many walkers that overlap; 0: they do not."""
    size = BEGIN_WALKS + walkers * WALK_FIELDS + (walkers + 1) * MOST_PIECES
    flight = np.zeros(size if walkers else BEGIN_WALKS, np.int64)
    for walk in range(walkers):
        place = BEGIN_WALKS + walkers * WALK_FIELDS + walk * MOST_PIECES
        flight[BEGIN_WALKS + walk * WALK_FIELDS + PLACE] = place
    return flight


def walks_overlap(machine: Machine) -> bool:
    """Tell whether the walks of a whole machine's virtual machines overlap with what follows."""
    return machine.flight.shape[1] > BEGIN_WALKS


@inlined
def record(walk: int) -> int:
    """Return where the record of a walk under way begins."""
    return BEGIN_WALKS + walk * WALK_FIELDS


@inlined
def overlaps(machine: Machine, account: int) -> bool:
    """Tell whether an account's walks may overlap: a virtual machine's, if the processor is set so."""
    return machine.flight.shape[0] > BEGIN_WALKS and account < machine.evictions.shape[0] - 1


@inlined
def begin_walk(machine: Machine) -> None:
    """Begin to count what a walk does."""
    machine.flight[WALK_CYCLES] = 0
    machine.flight[WALK_PIECES] = 0


@inlined
def spend(machine: Machine, piece: int, cycles: int) -> None:
    """Count cycles of the walk that is made."""
    flight = machine.flight
    flight[WALK_CYCLES] += cycles
    if flight.shape[0] > BEGIN_WALKS and cycles:
        made = flight[WALK_PIECES]
        flight[WALK_PIECES] = made + 1
        flight[at(flight.shape[0] - MOST_PIECES + made)] = cycles << PIECE_BITS | piece


@inlined
def book(flight: Words, told: Words, account: int, begin: int, count: int, cycles: int) -> None:
    """Book the last cycles of a walk, whose pieces begin at a place, to what it did in them."""
    piece = begin + count - 1
    while cycles > 0 and piece >= begin:
        took = min(flight[at(piece)] >> PIECE_BITS, cycles)
        told[at(account), at(TOLD_EXPOSED + (flight[at(piece)] & PIECE_MASK))] += took
        cycles -= took
        piece -= 1


@inlined
def leave(flight: Words, walk: int) -> None:
    """Take a walk off those under way; the others keep their order."""
    last = flight[UNDER_WAY] - 1
    place = flight[at(record(walk) + PLACE)]
    for field in range(record(walk), record(last)):
        flight[at(field)] = flight[at(field + WALK_FIELDS)]
    flight[at(record(last) + PLACE)] = place  # free for the next one
    flight[UNDER_WAY] = last


@inlined
def first_to_end(flight: Words) -> int:
    """Return the walk under way that ends first; of several, the one that was begun first."""
    first = 0
    for walk in range(1, flight[UNDER_WAY]):
        if flight[at(record(walk) + ENDS)] < flight[at(record(first) + ENDS)]:
            first = walk
    return first


@kernel
def wait(flight: Words, told: Words, account: int) -> None:
    """Wait for the walk that ends first."""
    walk = first_to_end(flight)
    cycles = flight[at(record(walk) + ENDS)] - flight[NOW]
    if cycles > 0:
        begin, count = flight[at(record(walk) + PLACE)], 0
        while flight[at(begin + count)]:
            count += 1
        book(flight, told, account, begin, count, cycles)
        flight[NOW] += cycles
    leave(flight, walk)


@inlined
def wait_until(flight: Words, told: Words, account: int, end: int) -> None:
    """Wait for all walks that end by then."""
    while flight[UNDER_WAY] and flight[at(record(first_to_end(flight)) + ENDS)] <= end:
        wait(flight, told, account)


@inlined
def let_go(flight: Words) -> None:
    """Take the walks that have ended off those under way."""
    walk = flight[UNDER_WAY] - 1
    while walk >= 0:
        if flight[at(record(walk) + ENDS)] <= flight[NOW]:
            leave(flight, walk)
        walk -= 1


@kernel
def go_on(flight: Words, told: Words, model: Words, account: int, instruction: int) -> None:
    """Begin every instruction up to a numbered one."""
    while flight[INSTRUCTION] < instruction:
        let_go(flight)
        until = instruction
        for walk in range(flight[UNDER_WAY]):
            until = min(until, flight[at(record(walk) + BEGUN_BY)] + model[WINDOW])
        if until <= flight[INSTRUCTION]:
            wait(flight, told, account)
            continue
        # A walk that ends meanwhile lets it run on: that is seen at the next turn.
        flight[NOW] += (until - flight[INSTRUCTION]) * model[INSTRUCTION_CYCLES]
        flight[INSTRUCTION] = until


@inlined
def begin_block(machine: Machine) -> None:
    """Begin a block: nothing is under way."""
    machine.flight[NOW] = 0
    machine.flight[INSTRUCTION] = -1
    machine.flight[UNDER_WAY] = 0


@spliced
def pass_time(machine: Machine, account: int, group: int, instruction: int, known: bool) -> None:
    """Come to an access of a numbered instruction that missed its L1, and asked the L2 unless `known`."""
    if overlaps(machine, account):
        go_on(machine.flight, machine.told, machine.model, account, instruction)
        if not known and machine.rows.begin[at(group)] < machine.rows.begin[at(group + 1)]:
            machine.flight[NOW] += machine.model[L2_CYCLES]


@kernel
def launch_walk(
    flight: Words, told: Words, walkers: int, account: int, key: int, at_once: bool
) -> None:
    """Let the walk that has been made run from now on, as soon as a walker is free."""
    let_go(flight)
    while flight[UNDER_WAY] >= walkers:
        wait(flight, told, account)
        let_go(flight)
    walk, made = record(flight[UNDER_WAY]), flight[WALK_PIECES]
    own, mine = flight[at(walk + PLACE)], flight.shape[0] - MOST_PIECES
    for piece in range(made):
        flight[at(own + piece)] = flight[at(mine + piece)]
    flight[at(own + made)] = 0
    end = flight[NOW] + flight[WALK_CYCLES]
    flight[at(walk + ENDS)] = end
    flight[at(walk + BEGUN_BY)] = flight[INSTRUCTION]
    flight[at(walk + KEY)] = key
    flight[UNDER_WAY] += 1
    if at_once:
        wait_until(flight, told, account, end)


@spliced
def launch(machine: Machine, account: int, key: int, at_once: bool) -> None:
    """Let the walk that has been made run, if walks overlap.

    key: tag word of the page that it translates; at_once: wait for it.
    """
    if overlaps(machine, account):
        walkers, waits = machine.model[WALKERS], at_once or machine.model[WINDOW] == 0
        launch_walk(machine.flight, machine.told, walkers, account, key, waits)


@kernel
def wait_for_key(flight: Words, told: Words, account: int, key: int) -> None:
    """Wait for the walk of a page, if it is under way."""
    end = -1
    for walk in range(flight[UNDER_WAY]):
        if flight[at(record(walk) + KEY)] == key:
            end = max(end, flight[at(record(walk) + ENDS)])
    wait_until(flight, told, account, end)


@spliced
def wait_for_page(machine: Machine, account: int, key: int) -> None:
    """Wait for the walk of a page, if it is under way: a fetch does."""
    if overlaps(machine, account):
        wait_for_key(machine.flight, machine.told, account, key)


@kernel
def end_walk_in_fault(flight: Words, told: Words, account: int) -> None:
    """Wait for all walks under way, and then for the one that has been made."""
    while flight[UNDER_WAY]:
        wait(flight, told, account)
    mine = flight.shape[0] - MOST_PIECES
    book(flight, told, account, mine, flight[WALK_PIECES], flight[WALK_CYCLES])
    flight[NOW] += flight[WALK_CYCLES]


@spliced
def fault(machine: Machine, account: int) -> None:
    """Let the walk that has been made end in a fault: after all others, and waited for."""
    if overlaps(machine, account):
        end_walk_in_fault(machine.flight, machine.told, account)


@inlined
def end_block(machine: Machine, account: int, instructions: int) -> None:
    """End a block of so many instructions: all that is under way is waited for."""
    if overlaps(machine, account):
        go_on(machine.flight, machine.told, machine.model, account, instructions - 1)
        while machine.flight[UNDER_WAY]:
            wait(machine.flight, machine.told, account)
