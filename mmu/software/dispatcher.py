"""The compiled loop over slices: blocks, faults, exits, switches, and the clocks.

Everything that is not an access happens at the end of a block: see "blocks" in the README. One call
runs many blocks, on whichever logical processors (lps) are next, since a call into compiled code costs
about 5 us. Who runs next, and where, is decided in `turns`.
"""

from mmu.hardware.causes import is_crowded
from mmu.hardware.invalidate import ONE_EPT, flush, invept, load_cr3, purge
from mmu.hardware.machine import (
    ACCESSES,
    CR3_LOADS,
    DATA_ACCESSES,
    INSTRUCTIONS,
    INVALIDATIONS,
    MIGRATIONS,
    NO_CONTEXT,
    SHOOTDOWN_TARGETS,
    SHOOTDOWNS,
    SWITCHES,
    TOLD_EXPOSED,
    TOLD_LATENCIES,
    Machine,
    processor,
)
from mmu.hardware.rows import Words
from mmu.jit import at, constant, inlined, kernel, spliced
from mmu.software.block import Plain, run_block, take_exit
from mmu.software.guest import open_space
from mmu.software.turns import (
    BLOCK,
    BLOCKS,
    CLOCK,
    CURRENT,
    DONE_ACCESSES,
    DONE_BLOCKS,
    EPOCH,
    FLUSH,
    FRESH,
    FRONT,
    HIGHEST,
    LAST,
    LASTED,
    LEFT,
    NEXT_EXIT,
    NEXT_SHOOTDOWN,
    NOBODY,
    PENDING,
    PURGE,
    RAN_ACCESSES,
    RAN_INSTRUCTIONS,
    RAN_ON,
    REQUESTS,
    RUNS_ON,
    SLICE_BEGIN,
    SPACE,
    STREAM,
    UNTIL,
    VM,
    WANTED,
    WARM,
    WARM_CLOCK,
    Feed,
    Schedule,
    begin_idling,
    begin_stint,
    end_idling,
    end_stint,
    end_waiting,
    leave,
    measure,
    next_lp,
    next_process,
    next_vcpu,
    slices_full,
)
from mmu.software.world import RUNAWAY, RUNAWAY_SHOOTDOWNS, World

MOST_DUE = 1 << 16  # exits or shootdowns at one block end: far more can only be without end
# Why `dispatch` returns.
GOING, FINISHED, NEEDS_BLOCKS, WARMED, SLICES_FULL, NEEDS_ROOM = 0, 1, 2, 3, 4, 5
# Pages that a block may walk for: whole ones, and those of its tables' faults.
BLOCK_PAGES = 2 * 4096
SINGLE_CONTEXT, NO_VM = constant(ONE_EPT), constant(-1)


@inlined
def spent(machine: Machine, schedule: Schedule, vm: int) -> int:
    """Return the cycles of all events booked to a virtual machine and to the hypervisor for it."""
    cycles, account = 0, schedule.footprint.shape[0] + vm
    for event in range(schedule.cost.shape[1]):
        cycles += machine.events[at(vm), at(event)] * schedule.cost[0, at(event)]
        cycles += machine.events[at(account), at(event)] * schedule.cost[1, at(event)]
    for field in range(TOLD_EXPOSED, TOLD_LATENCIES):
        cycles += machine.told[at(vm), field]
    return cycles


@inlined
def settle(machine: Machine, schedule: Schedule, now: Words, charged: Words, vm: int) -> None:
    """Advance the clock by the cycles of a virtual machine that it does not show yet."""
    cycles = spent(machine, schedule, vm)
    now[CLOCK] += cycles - charged[at(vm)]
    charged[at(vm)] = cycles
    schedule.whole[HIGHEST] = max(schedule.whole[HIGHEST], now[CLOCK])


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


@inlined
def invalidate(machine: Machine, schedule: Schedule, lp: int, vm: int) -> None:
    """Drop all that an lp holds of a virtual machine: combined and guest-physical entries."""
    invept(machine, SINGLE_CONTEXT, vm)
    machine.events[at(vm), INVALIDATIONS] += 1
    schedule.holds[at(lp), at(vm)] = 0


@spliced
def shootdowns(
    machine: Machine, plain: Plain, schedule: Schedule, now: Words, charged: Words, lp: int, vm: int
) -> int:
    """Let the hypervisor change the tables of a virtual machine as often as is due, and say so to all.

    Every other lp that may hold translations of the machine is asked to drop them. Returns 0 or a
    negative status.
    """
    if not schedule.shootdown_interval or now[CLOCK] < now[NEXT_SHOOTDOWN]:
        return 0
    due = (now[CLOCK] - now[NEXT_SHOOTDOWN]) // schedule.shootdown_interval + 1
    if due > MOST_DUE:
        return RUNAWAY_SHOOTDOWNS
    now[NEXT_SHOOTDOWN] += due * schedule.shootdown_interval
    for _ in range(due):
        status = take_exit(machine, plain, schedule, vm)
        if status < 0:
            return status
        invalidate(machine, schedule, lp, vm)
        machine.events[at(vm), SHOOTDOWNS] += 1
        for other in range(schedule.now.shape[0]):
            if other != lp and schedule.holds[at(other), at(vm)]:
                machine.events[at(vm), SHOOTDOWN_TARGETS] += 1
                schedule.requested[at(other), at(vm)] = 1
                schedule.now[at(other), REQUESTS] = 1
    settle(machine, schedule, now, charged, vm)
    return 0


@kernel
def serve(
    machine: Machine, plain: Plain, schedule: Schedule, now: Words, charged: Words, lp: int,
    running: int,
) -> int:  # fmt: skip
    """Drop what other lps have asked for; `running`: the virtual machine that it interrupts, or -1.

    Returns 0 or a negative status.
    """
    now[REQUESTS] = 0
    for vm in range(schedule.requested.shape[1]):
        if not schedule.requested[at(lp), at(vm)]:
            continue
        schedule.requested[at(lp), at(vm)] = 0
        if vm == running:
            status = take_exit(machine, plain, schedule, vm)
            if status < 0:
                return status
        invalidate(machine, schedule, lp, vm)
        settle(machine, schedule, now, charged, vm)
    return 0


@spliced
def switch(
    machine: Machine, schedule: Schedule, now: Words, charged: Words, outgoing: int, incoming: int
) -> None:
    """Change to another vcpu, of the same virtual machine or of another one."""
    machine.events[at(outgoing), SWITCHES] += 1
    if schedule.mode == FLUSH:
        flush(machine, schedule.flush_nested != 0)
    elif schedule.mode == PURGE and outgoing != incoming:
        purge(machine, outgoing)
    settle(machine, schedule, now, charged, outgoing)


@spliced
def migrate(machine: Machine, schedule: Schedule, now: Words, charged: Words, vm: int) -> None:
    """Let a vcpu go on that ran on another lp before."""
    machine.events[at(vm), MIGRATIONS] += 1
    if schedule.migration_flush:
        purge(machine, vm)
    settle(machine, schedule, now, charged, vm)


@kernel
def take_next(
    machine: Machine, schedule: Schedule, feed: Feed, now: Words, charged: Words, lp: int
) -> None:
    """Give an lp that runs nobody the next vcpu that can run there, or let it wait."""
    vcpu = next_vcpu(schedule, feed, now, lp)
    if vcpu < 0:
        begin_idling(schedule, feed, now, lp)
        return
    if now[CURRENT] == NOBODY:
        end_idling(schedule, now, lp, vcpu)
    mine, last = schedule.vcpu[at(vcpu)], now[LAST]
    if 0 <= last != vcpu:
        switch(machine, schedule, now, charged, schedule.vcpu[at(last), VM], mine[VM])
    if 0 <= mine[RAN_ON] != lp:
        migrate(machine, schedule, now, charged, mine[VM])
    mine[RUNS_ON] = mine[RAN_ON] = lp
    now[CURRENT] = now[LAST] = vcpu
    now[FRESH] = 1
    now[SLICE_BEGIN] = measure(now, schedule.unit)
    begin_stint(schedule, feed, now, vcpu)


@spliced
def change_space(machine: Machine, schedule: Schedule, vcpu: int, vm: int, context: int) -> None:
    """Load CR3 with the root of a context, unless it is there."""
    mine = schedule.vcpu[at(vcpu)]
    if mine[SPACE] != context:
        if mine[SPACE] != NO_CONTEXT:
            load_cr3(machine, context, schedule.pcid[at(vm)])
            machine.events[at(vm), CR3_LOADS] += 1
        mine[SPACE] = context


@spliced
def make_block(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, feed: Feed, now: Words, lp: int,
    vcpu: int, vm: int, stream: int, block: int,
) -> int:  # fmt: skip
    """Run a block of a stream and count it; returns 0 or a negative status."""
    context = feed.context[at(stream), at(block)]
    begin, end = feed.first[at(stream), at(block)], feed.first[at(stream), at(block + 1)]
    if not machine.root[at(context)]:
        status = open_space(machine, world, context)
        if status < 0:
            return status
    change_space(machine, schedule, vcpu, vm, context)
    schedule.holds[at(lp), at(vm)] = 1
    status = run_block(machine, plain, world, schedule, feed, vm, stream, context, begin, end)
    if status < 0:
        return status
    whole, events, fed = schedule.whole, machine.events[at(vm)], feed.stream[stream]
    made = feed.accesses[at(stream), at(block)]
    instructions = feed.instructions[at(stream), at(block)]
    fed[BLOCK] += 1
    fed[LEFT] -= made
    events[ACCESSES] += made
    events[INSTRUCTIONS] += instructions
    events[DATA_ACCESSES] += feed.data[at(stream), at(block)]
    # Who waits for accesses may have waited long enough.
    whole[EPOCH] += whole[DONE_ACCESSES] < schedule.last_start
    whole[DONE_BLOCKS] += 1
    whole[DONE_ACCESSES] += made
    now[RAN_ACCESSES] += made
    now[RAN_INSTRUCTIONS] += instructions
    return 0


@spliced
def interrupt(
    machine: Machine, plain: Plain, schedule: Schedule, now: Words, charged: Words, lp: int, vm: int
) -> int:
    """Do what is due at the end of a block; returns 0 or a negative status."""
    settle(machine, schedule, now, charged, vm)
    status = timer_exits(machine, plain, schedule, now, charged, vm)
    if status < 0:
        return status
    status = shootdowns(machine, plain, schedule, now, charged, lp, vm)
    if status < 0:
        return status
    if now[REQUESTS]:
        return serve(machine, plain, schedule, now, charged, lp, vm)
    return 0


@spliced
def go_on(
    machine: Machine, schedule: Schedule, feed: Feed, now: Words, charged: Words, lp: int
) -> None:
    """Decide what follows on the last block: the same stream, another one, or another vcpu."""
    now[PENDING] = 0
    vcpu, stream = now[CURRENT], now[STREAM]
    following = next_process(schedule, feed, now, vcpu, stream, now[LASTED])
    length = schedule.length[at(schedule.vcpu[at(vcpu), VM])]
    over = measure(now, schedule.unit) - now[SLICE_BEGIN] >= length
    if following == stream and not over:
        return
    end_stint(schedule, now, lp, over, feed.stream[at(stream), LEFT] <= 0)
    if following < 0 or over:
        leave(schedule, now)
        take_next(machine, schedule, feed, now, charged, lp)
    else:
        begin_stint(schedule, feed, now, vcpu)


@kernel
def dispatch(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, feed: Feed, blocks: int
) -> int:
    """Run up to `blocks` blocks, each on the logical processor that is next.

    plain: None; or, to check each access, the view of a processor that caches nothing. Numba compiles
    the two apart, so that a run without checks does not pay for them.
    Returns GOING after that many; FINISHED when every stream has ended; NEEDS_BLOCKS when the blocks
    in memory of stream ``whole[WANTED]`` are used up; WARMED once, at the end of the block that
    reaches the warm-up; SLICES_FULL when no other block end's slices can be recorded; NEEDS_ROOM when
    the table of known pages is to be doubled (`causes.with_room`); or a negative status, which is of
    lp ``whole[LP]``.
    """
    if blocks == 0:
        return GOING
    whole = schedule.whole
    while True:
        lp = next_lp(schedule)
        if lp < 0:
            if blocks == 0:
                return GOING
            end_waiting(schedule)
            return FINISHED
        here, now, charged = processor(machine, lp), schedule.now[lp], schedule.charged[lp]
        epoch = whole[EPOCH]
        # As long as it stays the next, `here` is the view of this lp.
        while now[CLOCK] < whole[UNTIL] and epoch == whole[EPOCH]:
            if slices_full(schedule):
                return SLICES_FULL
            if now[CURRENT] < 0:
                take_next(here, schedule, feed, now, charged, lp)
                break
            if now[PENDING]:
                whole[FRONT] = now[CLOCK]
                go_on(here, schedule, feed, now, charged, lp)
                continue
            if blocks == 0:
                return GOING
            vcpu, stream = now[CURRENT], now[STREAM]
            vm, block = schedule.vcpu[at(vcpu), VM], feed.stream[at(stream), BLOCK]
            if block == feed.stream[at(stream), BLOCKS]:
                whole[WANTED] = stream
                return NEEDS_BLOCKS
            if is_crowded(here, BLOCK_PAGES + schedule.footprint.size):
                return NEEDS_ROOM
            whole[FRONT] = now[CLOCK]
            if now[FRESH]:
                now[FRESH] = 0
                if now[REQUESTS]:
                    status = serve(here, plain, schedule, now, charged, lp, NO_VM)
                    if status < 0:
                        return status
            before = measure(now, schedule.turn_unit[at(vm)])
            status = make_block(
                here, plain, world, schedule, feed, now, lp, vcpu, vm, stream, block
            )
            if status < 0:
                return status
            blocks -= 1
            status = interrupt(here, plain, schedule, now, charged, lp, vm)
            if status < 0:
                return status
            now[PENDING], now[LASTED] = 1, measure(now, schedule.turn_unit[at(vm)]) - before
            if not whole[WARM] and whole[DONE_ACCESSES] >= schedule.warm_up:
                start_counting(machine, schedule)
                return WARMED


@spliced
def start_counting(machine: Machine, schedule: Schedule) -> None:
    """Zero every counter of every lp: what came before was warm-up."""
    schedule.whole[WARM] = 1
    for lp in range(schedule.now.shape[0]):
        now = schedule.now[at(lp)]
        if now[CURRENT] < 0:
            now[CLOCK] = max(now[CLOCK], schedule.whole[FRONT])
        now[WARM_CLOCK] = now[CLOCK]
    machine.events[:] = 0
    machine.hits[:] = 0
    machine.references[:] = 0
    machine.told[:] = 0
    machine.evictions[:] = 0
    schedule.charged[:] = 0
    schedule.idle[:] = 0
