"""A block of a stream: its accesses, the faults that they end in, and the exits that these cause.

Within a block tables only gain. Everything that is not an access happens at its end, in `dispatcher`.
"""

from mmu.hardware.access import make_accesses
from mmu.hardware.check import make_checked
from mmu.hardware.invalidate import drop_after_fault, flush
from mmu.hardware.machine import (
    ACCESSES,
    DATA_ACCESSES,
    DATA_SIDE,
    EXITS,
    FAULT_GPA,
    FAULT_GVA,
    FAULT_OUTCOME,
    FETCH,
    FETCH_SIDE,
    GUEST_FAULTS,
    NESTED_FAULTS,
    READ_ACCESS,
    WRITE_ACCESS,
    Machine,
)
from mmu.hardware.outcome import NESTED_VIOLATION, PAGE_FAULT
from mmu.jit import at, constant, kernel, spliced
from mmu.software.guest import map_on_touch
from mmu.software.hypervisor import touch_guest_page
from mmu.software.turns import FLUSH, Bytes, Feed, Schedule
from mmu.software.world import BROKEN, STALE, World

Plain = Machine | None  # a processor's view that caches and updates nothing, to check against
FIRST, ONE = constant(0), constant(1)


@kernel
def take_exit(machine: Machine, plain: Plain, schedule: Schedule, vm: int) -> int:
    """Leave a virtual machine, run the hypervisor's handler, and enter it again."""
    account = schedule.footprint.shape[0] + vm
    machine.events[at(vm), EXITS] += 1
    if schedule.mode == FLUSH:
        flush(machine, schedule.flush_nested != 0)
    touched = schedule.footprint_kind.shape[0]
    if plain is None:
        made = make_accesses(
            machine, account, schedule.hypervisor, schedule.footprint[vm], schedule.footprint_kind,
            FIRST, touched,
        )  # fmt: skip
    else:
        made = make_checked(
            machine, plain, schedule.stale, account, schedule.hypervisor, schedule.footprint[vm],
            schedule.footprint_kind, FIRST, touched,
        )  # fmt: skip
        if made < 0:
            return STALE
    machine.events[at(account), ACCESSES] += touched
    for i in range(touched):
        machine.events[at(account), DATA_ACCESSES] += (
            machine.side[schedule.footprint_kind[i]] == DATA_SIDE
        )
    if schedule.mode == FLUSH:
        flush(machine, schedule.flush_nested != 0)
    return 0 if made == touched else BROKEN


@spliced
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
def last_head(machine: Machine, kinds: Bytes, begin: int, record: int, side: int) -> int:
    """Return the last record before `record` in its block whose head is of a side; -1 if none is."""
    for i in range(record - 1, begin - 1, -1):
        if machine.side[at(kinds[at(i)])] == side:
            return i
    return -1


@spliced
def remake(
    machine: Machine, schedule: Schedule, vm: int, context: int, address: int, kind: int
) -> int:
    """Make one folded access for real; its page is mapped, so that it cannot fault."""
    schedule.again[0] = address
    schedule.again_kind[0] = kind
    return make_accesses(machine, vm, context, schedule.again, schedule.again_kind, FIRST, ONE)


@spliced
def run_marked(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, feed: Feed, vm: int,
    stream: int, context: int, begin: int, record: int, end: int,
) -> int:  # fmt: skip
    """Go on with a compact block after an exit; returns the first record that needs no more care."""
    address, kinds = feed.address[stream], feed.kind[stream]
    data_marked, fetch_marked = True, True
    data_head = last_head(machine, kinds, begin, record, DATA_SIDE)
    fetch_head = last_head(machine, kinds, begin, record, FETCH_SIDE)
    while record < end:
        made = make_accesses(machine, vm, context, address, kinds, record, record + 1)
        if made == record:
            exits = service(machine, plain, world, schedule, vm, context)
            if exits < 0:
                return exits
            if exits:
                data_marked, fetch_marked = True, True
            continue
        if machine.side[at(kinds[at(record)])] == FETCH_SIDE:
            fetch_head, fetch_marked = record, False
        else:
            data_head, data_marked = record, False
        # The head has mended its own side, so that only the other one can still be marked, and in which
        # order the folded accesses came does not matter. A folded write finds its page dirty already.
        fetches = feed.fetches[at(stream), at(record)]
        reads, writes = feed.reads[at(stream), at(record)], feed.writes[at(stream), at(record)]
        if data_marked and (reads or writes):
            kind = READ_ACCESS if reads else WRITE_ACCESS
            made = remake(machine, schedule, vm, context, address[at(data_head)], kind)
            data_marked = False
        elif fetch_marked and fetches:
            made = remake(machine, schedule, vm, context, address[at(fetch_head)], FETCH)
            fetch_marked = False
        if not made:
            return BROKEN
        record += 1
        if not (data_marked or fetch_marked):
            break
    return record


@spliced
def run_block(
    machine: Machine, plain: Plain, world: World, schedule: Schedule, feed: Feed, vm: int,
    stream: int, context: int, begin: int, end: int,
) -> int:  # fmt: skip
    """Make the accesses of records begin..end-1, one block; returns 0 or a negative status.

    The folded accesses of a compact record find their page the most recent of its set and change
    nothing, until an exit within the block has dropped it. From there on the first folded access of
    each side is made for real, until the side has been touched again.
    """
    address, kinds = feed.address[stream], feed.kind[stream]
    record = begin
    while True:
        if plain is None:
            record = make_accesses(machine, vm, context, address, kinds, record, end)
        else:
            record = make_checked(
                machine, plain, schedule.stale, vm, context, address, kinds, record, end
            )
            if record < 0:
                return STALE
        if record == end:
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
