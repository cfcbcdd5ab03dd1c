"""The compiled loop over slices: blocks, faults, exits, switches, and the clock.

Everything that is not an access happens at the end of a block: see "blocks" in the README. One call
runs many blocks, since a call into compiled code costs about 5 us. Who runs next is decided in
`turns`.
"""

from mmu.hardware.invalidate import flush, load_cr3, purge
from mmu.hardware.machine import (
    ACCESSES,
    CR3_LOADS,
    DATA_ACCESSES,
    INSTRUCTIONS,
    NO_CONTEXT,
    SWITCHES,
    Machine,
    processor,
)
from mmu.hardware.rows import Words
from mmu.jit import at, kernel, spliced
from mmu.software.block import Plain, run_block, take_exit
from mmu.software.guest import open_space
from mmu.software.turns import (
    BLOCK,
    BLOCKS,
    CLOCK,
    CURRENT,
    DONE_ACCESSES,
    DONE_BLOCKS,
    DONE_INSTRUCTIONS,
    FLUSH,
    LEFT,
    NEXT_EXIT,
    PURGE,
    SLICE_BEGIN,
    STREAM,
    UNDECIDED,
    WARM,
    WARM_CLOCK,
    Feed,
    Schedule,
    begin_stint,
    end_stint,
    measure,
    next_process,
    next_to_run,
    slices_full,
)
from mmu.software.world import RUNAWAY, World

MOST_DUE = 1 << 16  # exits at one block end: far more can only be without end
# Why `dispatch` returns.
GOING, FINISHED, NEEDS_BLOCKS, WARMED, SLICES_FULL = 0, 1, 2, 3, 4


@spliced
def spent(machine: Machine, schedule: Schedule, vm: int) -> int:
    """Return the cycles of all events booked to a virtual machine and to the hypervisor for it."""
    cycles, account = 0, schedule.footprint.shape[0] + vm
    for event in range(schedule.cost.shape[1]):
        cycles += machine.events[at(vm), at(event)] * schedule.cost[0, at(event)]
        cycles += machine.events[at(account), at(event)] * schedule.cost[1, at(event)]
    return cycles


@spliced
def settle(machine: Machine, schedule: Schedule, now: Words, charged: Words, vm: int) -> None:
    """Advance the clock by the cycles of a virtual machine that it does not show yet."""
    cycles = spent(machine, schedule, vm)
    now[CLOCK] += cycles - charged[at(vm)]
    charged[at(vm)] = cycles


@spliced
def timer_exits(
    machine: Machine, plain: Plain, schedule: Schedule, now: Words, charged: Words, vm: int
) -> int:
    """Take the timer exits that are due; returns 0 or a negative status."""
    if not schedule.exit_interval or now[CLOCK] < now[NEXT_EXIT]:
        return 0
    due = (now[CLOCK] - now[NEXT_EXIT]) // schedule.exit_interval + 1
    if due > MOST_DUE:
        return RUNAWAY
    now[NEXT_EXIT] += due * schedule.exit_interval
    for _ in range(due):
        status = take_exit(machine, plain, schedule, vm)
        if status < 0:
            return status
    settle(machine, schedule, now, charged, vm)
    return 0


@spliced
def switch(machine: Machine, schedule: Schedule, now: Words, charged: Words, outgoing: int) -> None:
    """Change to the next virtual machine."""
    machine.events[at(outgoing), SWITCHES] += 1
    if schedule.mode == FLUSH:
        flush(machine, schedule.flush_nested != 0)
    elif schedule.mode == PURGE:
        purge(machine, outgoing)
    settle(machine, schedule, now, charged, outgoing)


@spliced
def hand_over(
    machine: Machine, schedule: Schedule, feed: Feed, now: Words, charged: Words, lp: int, vm: int
) -> None:
    """End the turn of a virtual machine (-1: the run begins), and begin that of the next."""
    following = next_to_run(schedule, feed, now, lp, vm)
    if 0 <= vm != following >= 0:
        switch(machine, schedule, now, charged, vm)
    now[CURRENT] = following
    if following >= 0:
        now[SLICE_BEGIN] = measure(now, schedule.unit)
        begin_stint(schedule, feed, now, following)


@spliced
def change_space(machine: Machine, schedule: Schedule, lp: int, vm: int, context: int) -> None:
    """Load CR3 with the root of a context, unless it is there."""
    if schedule.space[at(lp), at(vm)] != context:
        if schedule.space[at(lp), at(vm)] != NO_CONTEXT:
            load_cr3(machine, context, schedule.pcid[at(vm)])
            machine.events[at(vm), CR3_LOADS] += 1
        schedule.space[at(lp), at(vm)] = context


@kernel
def dispatch(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, feed: Feed, lp: int,
    blocks: int,
) -> int:  # fmt: skip
    """Run up to `blocks` blocks on a logical processor.

    plain: None; or, to check each access, the view of this processor that caches nothing. Numba
    compiles the two apart, so that a run without checks does not pay for them.
    Returns GOING after that many; FINISHED when every stream has ended; NEEDS_BLOCKS when the blocks
    in memory of the current stream are used up; WARMED once, at the end of the block that reaches the
    warm-up; SLICES_FULL when no other block end's slices can be recorded; or a negative status.
    """
    here, now, charged = processor(machine, lp), schedule.now[lp], schedule.charged[lp]
    if blocks and now[CURRENT] == UNDECIDED:
        hand_over(here, schedule, feed, now, charged, lp, -1)
    for _ in range(blocks):
        vm, stream = now[CURRENT], now[STREAM]
        if vm < 0:
            return FINISHED
        if slices_full(schedule, now):
            return SLICES_FULL
        fed, events = feed.stream[stream], here.events[at(vm)]
        block = fed[BLOCK]
        if block == fed[BLOCKS]:
            return NEEDS_BLOCKS
        context = feed.context[at(stream), at(block)]
        begin, end = feed.first[at(stream), at(block)], feed.first[at(stream), at(block + 1)]
        if not here.root[at(context)]:
            status = open_space(here, world, context)
            if status < 0:
                return status
        before = measure(now, schedule.turn_unit[at(vm)])
        change_space(here, schedule, lp, vm, context)
        status = run_block(here, plain, world, schedule, feed, vm, stream, context, begin, end)
        if status < 0:
            return status
        fed[BLOCK] += 1
        fed[LEFT] -= feed.accesses[at(stream), at(block)]
        events[ACCESSES] += feed.accesses[at(stream), at(block)]
        events[INSTRUCTIONS] += feed.instructions[at(stream), at(block)]
        events[DATA_ACCESSES] += feed.data[at(stream), at(block)]
        now[DONE_BLOCKS] += 1
        now[DONE_ACCESSES] += feed.accesses[at(stream), at(block)]
        now[DONE_INSTRUCTIONS] += feed.instructions[at(stream), at(block)]
        settle(here, schedule, now, charged, vm)
        status = timer_exits(here, plain, schedule, now, charged, vm)
        if status < 0:
            return status
        warmed = not now[WARM] and now[DONE_ACCESSES] >= schedule.warm_up
        if warmed:
            now[WARM] = 1
            now[WARM_CLOCK] = now[CLOCK]
            start_counting(here, charged, schedule.idle[lp])
        made = measure(now, schedule.turn_unit[at(vm)]) - before
        following = next_process(schedule, feed, now, vm, stream, made)
        over = measure(now, schedule.unit) - now[SLICE_BEGIN] >= schedule.length[at(vm)]
        if following < 0 or over or following != stream:
            end_stint(schedule, now, over, fed[LEFT] <= 0)
            if following < 0 or over:
                hand_over(here, schedule, feed, now, charged, lp, vm)
            else:
                begin_stint(schedule, feed, now, vm)
        if warmed:
            return WARMED
    return GOING


@spliced
def start_counting(machine: Machine, charged: Words, idle: Words) -> None:
    """Zero every counter: what came before was warm-up."""
    machine.events[:] = 0
    machine.hits[:] = 0
    machine.references[:] = 0
    machine.evictions[:] = 0
    charged[:] = 0
    idle[:] = 0
