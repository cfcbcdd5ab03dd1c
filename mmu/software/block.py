"""A block of a stream: its accesses, the faults that they end in, and the exits that these cause.

Within a block tables only gain. Everything that is not an access happens at its end, in `dispatcher`.
"""

from mmu.hardware.access import make_accesses
from mmu.hardware.check import make_checked
from mmu.hardware.invalidate import drop_after_fault, flush
from mmu.hardware.machine import (
    ACCESSES,
    DATA_ACCESSES,
    EXITS,
    FAULT_GPA,
    FAULT_GVA,
    FAULT_OUTCOME,
    FETCH_SIDE,
    GUEST_FAULTS,
    NESTED_FAULTS,
    READ_ACCESS,
    SIDES,
    WRITE_ACCESS,
    Machine,
)
from mmu.hardware.outcome import NESTED_VIOLATION, PAGE_FAULT
from mmu.hardware.overlap import begin_block, end_block
from mmu.hardware.rows import Words
from mmu.jit import at, constant, inlined, kernel, spliced
from mmu.software.guest import map_on_touch
from mmu.software.hypervisor import touch_guest_page
from mmu.software.turns import BLOCK, FLUSH, Bytes, Feed, Schedule
from mmu.software.world import BROKEN, STALE, World

Plain = Machine | None  # a processor's view that caches and updates nothing, to check against
FIRST, ONE = constant(0), constant(1)
ALL_MARKED = (1 << SIDES) - 1


@spliced
def make(
    machine: Machine, plain: Plain, schedule: Schedule, account: int, context: int, address: Words,
    kinds: Bytes, positions: Words, start: int, stop: int,
) -> int:  # fmt: skip
    """Make accesses as `make_accesses` does, checked or not."""
    if plain is not None:
        return make_checked(
            machine, plain, schedule.stale, account, context, address, kinds, positions, start, stop
        )  # fmt: skip
    return make_accesses(machine, account, context, address, kinds, positions, start, stop)


@kernel
def take_exit(machine: Machine, plain: Plain, schedule: Schedule, vm: int) -> int:
    """Leave a virtual machine, run the hypervisor's handler, and enter it again."""
    account = schedule.footprint.shape[0] + vm
    machine.events[at(vm), EXITS] += 1
    if schedule.mode == FLUSH:
        flush(machine, schedule.flush_nested != 0)
    touched = schedule.footprint_kind.shape[0]
    made = make(
        machine, plain, schedule, account, schedule.hypervisor, schedule.footprint[vm],
        schedule.footprint_kind, schedule.nowhere, FIRST, touched,
    )  # fmt: skip
    if made < 0:
        return STALE
    machine.events[at(account), ACCESSES] += touched
    for i in range(touched):
        machine.events[at(account), DATA_ACCESSES] += (
            machine.side[schedule.footprint_kind[i]] != FETCH_SIDE
        )
    if schedule.mode == FLUSH:
        flush(machine, schedule.flush_nested != 0)
    return 0 if made == touched else BROKEN


@kernel
def service(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, vm: int, context: int
) -> int:
    """Mend the fault that the last access ended in; then take the exits that this caused.

    Returns the number of exits, or a negative status.
    """
    outcome = -machine.fault[FAULT_OUTCOME]
    drop_after_fault(machine, context, machine.fault[FAULT_GVA], outcome)
    before = machine.events[at(vm), NESTED_FAULTS]
    if outcome == PAGE_FAULT:
        machine.events[at(vm), GUEST_FAULTS] += 1
        status = map_on_touch(machine, world, vm, context, machine.fault[FAULT_GVA])
    elif outcome == NESTED_VIOLATION:
        status = touch_guest_page(machine, world, vm, vm, machine.fault[FAULT_GPA])
        if status >= 0 and machine.events[at(vm), NESTED_FAULTS] == before:
            status = BROKEN
    else:
        status = BROKEN
    if status < 0:
        return status
    exits = machine.events[at(vm), NESTED_FAULTS] - before
    for _ in range(exits):
        status = take_exit(machine, plain, schedule, vm)
        if status < 0:
            return status
    return exits


@spliced
def last_head(machine: Machine, kinds: Bytes, begin: int, record: int, fetch: bool) -> int:
    """Return the last record before `record` in its block that is a fetch, or is not; -1 if none is."""
    for i in range(record - 1, begin - 1, -1):
        if (machine.side[at(kinds[at(i)])] == FETCH_SIDE) == fetch:
            return i
    return -1


@spliced
def remake(
    machine: Machine, schedule: Schedule, vm: int, context: int, address: int, kind: int
) -> int:
    """Make one folded access for real; its page is mapped, so that it cannot fault."""
    schedule.again[0] = address
    schedule.again_kind[0] = kind
    return make_accesses(
        machine, vm, context, schedule.again, schedule.again_kind, schedule.nowhere, FIRST, ONE
    )  # fmt: skip


@spliced
def run_marked(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, feed: Feed, vm: int,
    stream: int, context: int, begin: int, record: int, end: int,
) -> int:  # fmt: skip
    """Go on with a compact block after an exit; returns the first record that needs no more care.

    Each side's L1 has lost its last page. The first access of each side that is folded is made for real;
    in which order does not matter, as both are to one page. A folded write finds its page dirty already.
    """
    address, kinds, positions = feed.address[stream], feed.kind[stream], feed.position[stream]
    marked = ALL_MARKED
    data_head = last_head(machine, kinds, begin, record, False)
    fetch_head = last_head(machine, kinds, begin, record, True)
    while record < end:
        made = make_accesses(
            machine, vm, context, address, kinds, positions, record, record + 1
        )  # fmt: skip
        if made == record:
            exits = service(machine, plain, world, schedule, vm, context)
            if exits < 0:
                return exits
            if exits:
                marked = ALL_MARKED
            continue
        side = machine.side[at(kinds[at(record)])]
        marked &= ~(1 << side)
        if side == FETCH_SIDE:
            fetch_head = record
        else:
            data_head = record
        folded = (feed.reads, feed.writes, feed.fetches)
        for kind in range(len(folded)):
            side = machine.side[at(kind)]
            if not (marked >> side & 1 and folded[kind][at(stream), at(record)]):
                continue
            head = fetch_head if side == FETCH_SIDE else data_head
            if not remake(machine, schedule, vm, context, address[at(head)], kind):
                return BROKEN
            marked &= ~(1 << side)
        record += 1
        if not marked & every_side(machine):
            break
    return record


@inlined
def every_side(machine: Machine) -> int:
    """Return the marks of the sides that there are."""
    return 1 << FETCH_SIDE | 1 << machine.side[READ_ACCESS] | 1 << machine.side[WRITE_ACCESS]


@spliced
def run_block(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, feed: Feed, vm: int,
    stream: int, context: int, begin: int, end: int,
) -> int:  # fmt: skip
    """Make the accesses of records begin..end-1, one block; returns 0 or a negative status.

    The folded accesses of a compact record find their page the last used of its set and change
    nothing, until an exit within the block has dropped it. From there on the first folded access of
    each side is made for real, until the side has been touched again.
    """
    address, kinds, positions = feed.address[stream], feed.kind[stream], feed.position[stream]
    record = begin
    begin_block(machine)
    while True:
        record = make(
            machine, plain, schedule, vm, context, address, kinds, positions, record, end
        )  # fmt: skip
        if record < 0:
            return STALE
        if record == end:
            end_block(machine, vm, feed.instructions[at(stream), at(feed.stream[stream, BLOCK])])
            return 0
        exits = service(machine, plain, world, schedule, vm, context)
        if exits < 0:
            return exits
        if exits and feed.compact[at(stream)]:
            record = run_marked(
                machine, plain, world, schedule, feed, vm, stream, context, begin, record, end
            )
            if record < 0:
                return record
