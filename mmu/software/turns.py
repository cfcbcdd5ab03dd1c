"""Who runs next on a processor: turns of virtual machines, and of the processes in them.

A stream is what one process replays. It can run if something of it is left and its start has come.

- The virtual machine after the outgoing one, in order and round again, that has a stream which can
  run comes next; if none has, the processor idles until the first start by the clock.
- A machine's turn ends when it has lasted its length, or when none of its streams can run.
- A stream's turn goes on in its machine's next one until it has lasted its own length or the stream
  has ended; the next of the machine's streams that can run, in order and round again, is chosen then,
  or, if none can, when the machine has its next turn.
- The timer of exits stands still while the processor idles.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.rows import Words
from mmu.jit import at, inlined, spliced

Bytes = NDArray[np.uint8]
Counts = NDArray[np.uint16]

TAGGED, PURGE, FLUSH, NATIVE = 0, 1, 2, 3
MODES = ("tagged", "purge", "flush", "native")
IN_ACCESSES, IN_INSTRUCTIONS, IN_CYCLES = 0, 1, 2
UNITS = ("accesses", "instructions", "cycles")

# Fields of `Schedule.now`.
(
    CLOCK, NEXT_EXIT, SLICE_BEGIN, CURRENT, STREAM, DONE_BLOCKS, DONE_ACCESSES, DONE_INSTRUCTIONS,
    WARM, WARM_CLOCK, STINT_BEGIN, STINT_ACCESSES, SLICES, NOW_FIELDS,
) = range(14)  # fmt: skip
NOBODY, UNDECIDED = -1, -2  # in CURRENT: all streams have ended; none has begun
# Fields of `Schedule.start`.
AT_CYCLES, AT_ACCESSES = 0, 1
# Fields of `Schedule.slices`, and why one ended.
SLICE_VM, SLICE_STREAM, BEGIN, END, MADE, WHY, SLICE_FIELDS = range(7)
ENDED, QUANTUM, TURN, IDLE = 0, 1, 2, 3
REASONS = ("end", "quantum", "turn", "idle")
MOST_AT_ONCE = 2  # slices that one block end records: what ran, and that nobody could
# Fields of `Feed.stream`.
BLOCK, BLOCKS, LEFT, STREAM_FIELDS = 0, 1, 2, 3


class Feed(NamedTuple):
    """The part of each stream that is in memory, cut into blocks. Raw streams have no folded counts."""

    stream: Words  # [stream, field] next block, blocks loaded, accesses left to the stream's end
    address: Words  # [stream, record] bytes; of a compact record, its page's first
    kind: Bytes  # [stream, record]
    fetches: Counts  # [stream, record] folded accesses, by kind
    reads: Counts
    writes: Counts
    compact: Words  # [stream] 1: the stream's records have folded accesses
    first: Words  # [stream, block + 1] its first record
    context: Words  # [stream, block]
    accesses: Words  # [stream, block]
    instructions: Words  # [stream, block]
    data: Words  # [stream, block] accesses of the data side


class Schedule(NamedTuple):
    """Who runs when, and what it costs."""

    now: Words  # [lp, field]
    charged: Words  # [lp, vm] cycles of a virtual machine that its clock shows already
    idle: Words  # [lp, vm] cycles without anybody to run, until this one started
    cost: Words  # [2, event] cycles: of a virtual machine's own events, of the hypervisor's for it
    mode: int
    unit: int  # of the quantum
    length: Words  # [vm] of its turns: the quantum times its weight
    stream: Words  # [vm + 1] its first stream
    start: Words  # [stream, field] cycles on the clock, and accesses made, before it may run
    turn: Words  # [stream] how long its turn within the machine's lasts
    turn_unit: Words  # [vm]
    current: Words  # [vm] the stream that runs in it, or ran last; -1: none yet
    used: Words  # [vm] of that stream's turn
    exit_interval: int  # cycles from one timer exit to the next; 0: none
    flush_nested: int  # 1: a flush drops the nested TLB too
    warm_up: int  # accesses before counting begins
    footprint: Words  # [vm, n] addresses that the hypervisor touches at an exit
    footprint_kind: Bytes  # [n]
    hypervisor: int  # its context
    space: Words  # [lp, vm] context that the guest's CR3 points to; -1: none yet
    pcid: Words  # [vm] 1: CR3 loads set bit 63 and drop nothing; 0: all spaces have PCID 0
    stale: Words  # [field] of a stale translation: see hardware.check
    again: Words  # [1] address of a folded access that is made for real
    again_kind: Bytes  # [1]
    slices: Words  # [n, field] what is recorded of who ran when; n is 0: nothing


@inlined
def measure(now: Words, unit: int) -> int:
    """Return what has been done so far, in accesses, instructions or cycles."""
    if unit == IN_ACCESSES:
        return now[DONE_ACCESSES]
    if unit == IN_INSTRUCTIONS:
        return now[DONE_INSTRUCTIONS]
    return now[CLOCK]


@inlined
def can_run(schedule: Schedule, feed: Feed, now: Words, stream: int) -> bool:
    """Tell whether something is left of a stream and its start has come."""
    return (
        feed.stream[at(stream), LEFT] > 0
        and now[CLOCK] >= schedule.start[at(stream), AT_CYCLES]
        and now[DONE_ACCESSES] >= schedule.start[at(stream), AT_ACCESSES]
    )


@inlined
def next_stream(schedule: Schedule, feed: Feed, now: Words, vm: int, after: int) -> int:
    """Return the next stream of a virtual machine that can run, in cyclic order; or -1."""
    first = schedule.stream[at(vm)]
    streams = schedule.stream[at(vm + 1)] - first
    for step in range(1, streams + 1):
        candidate = first + (after - first + step) % streams
        if can_run(schedule, feed, now, candidate):
            return candidate
    return -1


@inlined
def stream_of(schedule: Schedule, feed: Feed, now: Words, vm: int) -> int:
    """Return the stream that runs if a virtual machine has a turn now; or -1."""
    current = schedule.current[at(vm)]
    if current < 0:
        return next_stream(schedule, feed, now, vm, schedule.stream[at(vm)] - 1)
    if can_run(schedule, feed, now, current):
        return current
    return next_stream(schedule, feed, now, vm, current)


@inlined
def next_vm(schedule: Schedule, feed: Feed, now: Words, vm: int) -> int:
    """Return the next virtual machine that can run, in cyclic order from `vm`; or -1."""
    vms = schedule.length.shape[0]
    for step in range(1, vms + 1):
        candidate = (vm + step) % vms
        if stream_of(schedule, feed, now, candidate) >= 0:
            return candidate
    return NOBODY


@spliced
def first_start(schedule: Schedule, feed: Feed, now: Words) -> int:
    """Return the clock's value at which somebody can run again, if nobody can now; or -1."""
    first = -1
    for stream in range(schedule.start.shape[0]):
        waits = now[DONE_ACCESSES] < schedule.start[at(stream), AT_ACCESSES]
        if waits or feed.stream[at(stream), LEFT] <= 0:
            continue
        if first < 0 or schedule.start[at(stream), AT_CYCLES] < first:
            first = schedule.start[at(stream), AT_CYCLES]
    return first


@spliced
def next_to_run(schedule: Schedule, feed: Feed, now: Words, lp: int, vm: int) -> int:
    """Return the virtual machine that follows on `vm`, after idling if need be; -1 at the end."""
    following = next_vm(schedule, feed, now, vm)
    if following >= 0:
        return following
    begin = first_start(schedule, feed, now)
    if begin < 0:
        return NOBODY
    waited = begin - now[CLOCK]
    record_slice(schedule, now, -1, -1, now[CLOCK], begin, 0, IDLE)
    now[CLOCK] = begin
    now[NEXT_EXIT] += waited
    following = next_vm(schedule, feed, now, vm)
    schedule.idle[at(lp), at(following)] += waited
    return following


@spliced
def next_process(
    schedule: Schedule, feed: Feed, now: Words, vm: int, stream: int, made: int
) -> int:
    """Add a block to the turn of a stream; return the one that its machine runs next, or -1."""
    schedule.used[at(vm)] += made
    going_on = schedule.used[at(vm)] < schedule.turn[at(stream)]
    if going_on and feed.stream[at(stream), LEFT] > 0:
        return stream
    schedule.used[at(vm)] = 0
    following = next_stream(schedule, feed, now, vm, stream)
    if following >= 0:
        schedule.current[at(vm)] = following
    return following


@inlined
def begin_stint(schedule: Schedule, feed: Feed, now: Words, vm: int) -> None:
    """Give the processor to the stream that is next in a virtual machine."""
    stream = stream_of(schedule, feed, now, vm)
    schedule.current[at(vm)] = stream
    now[STREAM] = stream
    now[STINT_BEGIN] = now[CLOCK]
    now[STINT_ACCESSES] = now[DONE_ACCESSES]


@spliced
def end_stint(schedule: Schedule, now: Words, over: bool, ended: bool) -> None:
    """Record that a stream leaves the processor, and why."""
    why = ENDED if ended else QUANTUM if over else TURN
    made = now[DONE_ACCESSES] - now[STINT_ACCESSES]
    record_slice(schedule, now, now[CURRENT], now[STREAM], now[STINT_BEGIN], now[CLOCK], made, why)


@inlined
def record_slice(
    schedule: Schedule, now: Words, vm: int, stream: int, begin: int, end: int, made: int, why: int
) -> None:
    """Record who ran from when to when, if that is asked for and there is room."""
    place = now[SLICES]
    if place >= schedule.slices.shape[0]:
        return
    now[SLICES] += 1
    row = schedule.slices[at(place)]
    row[SLICE_VM], row[SLICE_STREAM] = vm, stream
    row[BEGIN], row[END], row[MADE], row[WHY] = begin, end, made, why


@spliced
def slices_full(schedule: Schedule, now: Words) -> bool:
    """Tell whether slices are recorded and those of one more block end would not fit."""
    room = schedule.slices.shape[0]
    return room > 0 and now[SLICES] + MOST_AT_ONCE > room
