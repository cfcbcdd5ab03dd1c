"""Who runs when and where: turns of virtual processors on logical ones, and of processes on virtual ones.

A virtual machine has virtual processors (vcpus); they are numbered through, machine by machine. A
stream is what one process replays. A vcpu has a stream of its machine, which no other vcpu runs until
its turn is over. A stream can run on a vcpu if something of it is left, no other vcpu has it, its
start has come, and it ran nowhere else until later than the clock of the logical processor (lp).

- The vcpu after the outgoing one, in order and round again, comes next that runs nowhere, is allowed
  here, ran nowhere else until later than this clock, and has a stream that can run; if there is none,
  the lp idles. Its clock goes on, whenever it is the lowest, to the first moment at which somebody can
  run, or to the lowest clock of an lp that runs somebody, whichever comes first.
- A vcpu's turn ends when it has lasted its machine's length, or when it has no stream that can run.
- A stream's turn goes on in its vcpu's next one until it has lasted its own length or the stream has
  ended; the next of the machine's streams that can run, in order and round again, is chosen then, or,
  if none can, when the vcpu has its next turn.
- The timers of exits and of shootdowns stand still while the lp idles.

The lp with the lowest clock is next, to run a block or to decide what follows on its last one; of
several, one that runs somebody before one that idles, then the lowest number. Until that is decided the
vcpu and the stream run on. So nothing is decided before all that may bear on it has happened.
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

# Fields of `Schedule.now`. LAST is the vcpu that ran last here; WAKE the first moment at which somebody
# can run on an lp that idles, as found when EPOCH was SEEN; FRESH that no block has run since the
# hand-over; REQUESTS that some of `Schedule.requested` are set; PENDING that what follows on the last
# block is to be decided, and LASTED how long that block was, in the unit of its stream's turn.
(
    CLOCK, NEXT_EXIT, NEXT_SHOOTDOWN, SLICE_BEGIN, CURRENT, STREAM, LAST, RAN_ACCESSES,
    RAN_INSTRUCTIONS, WARM_CLOCK, STINT_BEGIN, STINT_ACCESSES, IDLE_SINCE, WAKE, SEEN, FRESH,
    REQUESTS, PENDING, LASTED, NOW_FIELDS,
) = range(20)  # fmt: skip
NOBODY, UNDECIDED = -1, -2  # in CURRENT: the lp idles; it is about to look for somebody
NEVER = (1 << 63) - 1  # in WAKE
# Fields of `Schedule.whole`. HIGHEST is the highest clock; EPOCH goes up whenever somebody may be able to
# run who was not; FRONT is the clock at which the last step began: no idle one is behind it; UNTIL that
# at which LP, which runs, is no longer the next; WANTED the stream that needs blocks.
(
    HIGHEST, DONE_BLOCKS, DONE_ACCESSES, WARM, SLICES, LP, WANTED, EPOCH, FRONT, UNTIL, WHOLE_FIELDS,
) = range(11)  # fmt: skip
# Fields of `Schedule.vcpu`. CHOSEN is the stream that it has, or had last; USED how much of that one's
# turn; SPACE the context that its CR3 points to; RUNS_ON and RAN_ON are lps. -1: none.
VM, RUNS_ON, RAN_ON, FREE_AT, CHOSEN, USED, SPACE, VCPU_FIELDS = range(8)
# Fields of `Schedule.taken`: the vcpu that has a stream, or -1, and the clock at which it ran last.
TAKEN_BY, FREE_FROM, TAKEN_FIELDS = range(3)
# Fields of `Schedule.start`.
AT_CYCLES, AT_ACCESSES = 0, 1
# Fields of `Schedule.slices`, and why one ended.
SLICE_VM, SLICE_STREAM, BEGIN, END, MADE, WHY, SLICE_LP, SLICE_VCPU, SLICE_FIELDS = range(9)
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
    position: (
        Words  # [stream, record] its instruction's number in the block; [stream, 0]: not needed
    )
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
    """Who runs when and where, and what it costs."""

    whole: Words  # [field] counts and clocks of all lps together
    now: Words  # [lp, field]
    charged: Words  # [lp, vm] cycles of a virtual machine that its clock shows already
    idle: Words  # [lp, vm] cycles without anybody to run, until this one ran
    holds: Words  # [lp, vm] 1: it has run a block since it last dropped all that it held of the machine
    requested: Words  # [lp, vm] 1: it is asked to drop that
    cost: Words  # [2, event] cycles: of a virtual machine's own events, of the hypervisor's for it
    mode: int
    unit: int  # of the quantum
    length: Words  # [vm] of its vcpus' turns: the quantum times its weight
    vcpu: Words  # [vcpu, field]
    stream: Words  # [vm + 1] its first stream
    taken: Words  # [stream, field]
    start: Words  # [stream, field] cycles on the clock, and accesses made, before it may run
    last_start: int  # the most accesses that a start waits for
    turn: Words  # [stream] how long its turn within the vcpu's lasts
    turn_unit: Words  # [vm]
    pinned: int  # 1: vcpu n runs on lp n mod lps only
    migration_flush: int  # 1: a vcpu that comes from another lp drops its machine's entries
    exit_interval: int  # cycles from one timer exit to the next; 0: none
    shootdown_interval: int  # the same of invalidations by the hypervisor
    flush_nested: int  # 1: a flush drops the nested TLB too
    warm_up: int  # accesses before counting begins
    footprint: Words  # [vm, n] addresses that the hypervisor touches at an exit
    footprint_kind: Bytes  # [n]
    hypervisor: int  # its context
    pcid: Words  # [vm] 1: CR3 loads set bit 63 and drop nothing; 0: all spaces have PCID 0
    stale: Words  # [field] of a stale translation: see hardware.check
    nowhere: Words  # [0] positions of accesses that nobody asks the position of
    again: Words  # [1] address of a folded access that is made for real
    again_kind: Bytes  # [1]
    slices: Words  # [n, field] what is recorded of who ran when; n is 0: nothing


@inlined
def measure(now: Words, unit: int) -> int:
    """Return what a logical processor has done so far, in accesses, instructions or cycles."""
    if unit == IN_ACCESSES:
        return now[RAN_ACCESSES]
    if unit == IN_INSTRUCTIONS:
        return now[RAN_INSTRUCTIONS]
    return now[CLOCK]


@inlined
def may_run(schedule: Schedule, feed: Feed, vcpu: int, stream: int) -> bool:
    """Tell whether only the clock can keep a stream from running on a vcpu."""
    return (
        feed.stream[at(stream), LEFT] > 0
        and schedule.taken[at(stream), TAKEN_BY] in (-1, vcpu)
        and schedule.whole[DONE_ACCESSES] >= schedule.start[at(stream), AT_ACCESSES]
    )


@inlined
def can_run(schedule: Schedule, feed: Feed, now: Words, vcpu: int, stream: int) -> bool:
    """Tell whether a stream can run on a vcpu, here and now."""
    return (
        may_run(schedule, feed, vcpu, stream)
        and now[CLOCK] >= schedule.start[at(stream), AT_CYCLES]
        and now[CLOCK] >= schedule.taken[at(stream), FREE_FROM]
    )


@inlined
def next_stream(schedule: Schedule, feed: Feed, now: Words, vcpu: int, after: int) -> int:
    """Return the next of its machine's streams that can run on a vcpu, in cyclic order; or -1."""
    vm = schedule.vcpu[at(vcpu), VM]
    first = schedule.stream[at(vm)]
    streams = schedule.stream[at(vm + 1)] - first
    for step in range(1, streams + 1):
        candidate = first + (after - first + step) % streams
        if can_run(schedule, feed, now, vcpu, candidate):
            return candidate
    return -1


@inlined
def stream_of(schedule: Schedule, feed: Feed, now: Words, vcpu: int) -> int:
    """Return the stream that runs if a vcpu has a turn now; or -1."""
    chosen = schedule.vcpu[at(vcpu), CHOSEN]
    if chosen < 0:
        return next_stream(
            schedule, feed, now, vcpu, schedule.stream[at(schedule.vcpu[at(vcpu), VM])] - 1
        )
    if can_run(schedule, feed, now, vcpu, chosen):
        return chosen
    return next_stream(schedule, feed, now, vcpu, chosen)


@inlined
def is_free(schedule: Schedule, lp: int, vcpu: int) -> bool:
    """Tell whether a vcpu runs nowhere and may run on an lp."""
    here = not schedule.pinned or vcpu % schedule.now.shape[0] == lp
    return here and schedule.vcpu[at(vcpu), RUNS_ON] < 0


@spliced
def next_vcpu(schedule: Schedule, feed: Feed, now: Words, lp: int) -> int:
    """Return the next vcpu that can run on an lp, in cyclic order from its last one; or -1."""
    vcpus = schedule.vcpu.shape[0]
    for step in range(1, vcpus + 1):
        candidate = (now[LAST] + step) % vcpus
        if (
            is_free(schedule, lp, candidate)
            and now[CLOCK] >= schedule.vcpu[at(candidate), FREE_AT]
            and stream_of(schedule, feed, now, candidate) >= 0
        ):
            return candidate
    return NOBODY


@spliced
def first_moment(schedule: Schedule, feed: Feed, lp: int) -> int:
    """Return the clock's value at which somebody can run on an lp on which nobody can now; or NEVER."""
    first = NEVER
    for vcpu in range(schedule.vcpu.shape[0]):
        if not is_free(schedule, lp, vcpu):
            continue
        vm = schedule.vcpu[at(vcpu), VM]
        for stream in range(schedule.stream[at(vm)], schedule.stream[at(vm + 1)]):
            if may_run(schedule, feed, vcpu, stream):
                moment = max(
                    schedule.vcpu[at(vcpu), FREE_AT],
                    schedule.taken[at(stream), FREE_FROM],
                    schedule.start[at(stream), AT_CYCLES],
                )
                first = min(first, moment)
    return first


@spliced
def next_lp(schedule: Schedule) -> int:
    """Return the lp whose step is next, or -1 at the end; clocks of those that idle go on till then."""
    whole, lps = schedule.whole, schedule.now.shape[0]
    chosen, clock, idle, lowest = -1, NEVER, True, NEVER
    for lp in range(lps):
        now = schedule.now[at(lp)]
        idles = now[CURRENT] < 0
        if idles:
            now[CLOCK] = max(now[CLOCK], whole[FRONT])
        else:
            lowest = min(lowest, now[CLOCK])
        begin = now[CLOCK]
        if idles and now[SEEN] == whole[EPOCH]:
            begin = max(begin, now[WAKE])
        if begin < clock or (begin == clock < NEVER and idle and not idles):
            chosen, clock, idle = lp, begin, idles
    if chosen < 0:
        return -1
    until = NEVER
    for lp in range(lps):
        now = schedule.now[at(lp)]
        idles, begin = now[CURRENT] < 0, now[CLOCK]
        if lp == chosen:
            continue
        if idles and now[SEEN] == whole[EPOCH]:
            # It is to wait: it has done so as far as it gets before the chosen one's step.
            waits = min(now[WAKE], lowest)
            first = begin < clock or (begin == clock and idle and lp < chosen)
            if first and waits < NEVER:
                now[CLOCK] = max(begin, waits)
            begin = max(begin, now[WAKE])
        if begin < NEVER:
            until = min(until, begin + (idles or lp > chosen))
    schedule.now[at(chosen), CLOCK] = clock
    whole[LP], whole[FRONT], whole[UNTIL] = chosen, clock, until
    return chosen


@spliced
def next_process(
    schedule: Schedule, feed: Feed, now: Words, vcpu: int, stream: int, made: int
) -> int:
    """Add a block to the turn of a stream; return the one that its vcpu runs next, or -1."""
    mine = schedule.vcpu[at(vcpu)]
    mine[USED] += made
    going_on = mine[USED] < schedule.turn[at(stream)]
    if going_on and feed.stream[at(stream), LEFT] > 0:
        return stream
    mine[USED] = 0
    following = next_stream(schedule, feed, now, vcpu, stream)
    if following >= 0:
        choose_stream(schedule, now, vcpu, following)
    return following


@inlined
def choose_stream(schedule: Schedule, now: Words, vcpu: int, stream: int) -> None:
    """Give a vcpu a stream, and let go of the one that it had."""
    before = schedule.vcpu[at(vcpu), CHOSEN]
    if before == stream:
        return
    if before >= 0:
        schedule.taken[at(before), TAKEN_BY] = -1
        schedule.taken[at(before), FREE_FROM] = now[CLOCK]
        schedule.whole[EPOCH] += 1
    schedule.taken[at(stream), TAKEN_BY] = vcpu
    schedule.vcpu[at(vcpu), CHOSEN] = stream


@inlined
def begin_stint(schedule: Schedule, feed: Feed, now: Words, vcpu: int) -> None:
    """Give the lp to the stream that is next on a vcpu."""
    stream = stream_of(schedule, feed, now, vcpu)
    choose_stream(schedule, now, vcpu, stream)
    now[STREAM] = stream
    now[STINT_BEGIN] = now[CLOCK]
    now[STINT_ACCESSES] = now[RAN_ACCESSES]


@spliced
def end_stint(schedule: Schedule, now: Words, lp: int, over: bool, ended: bool) -> None:
    """Record that a stream leaves the lp, and why."""
    why = ENDED if ended else QUANTUM if over else TURN
    made = now[RAN_ACCESSES] - now[STINT_ACCESSES]
    record_slice(
        schedule, lp, now[CURRENT], now[STREAM], now[STINT_BEGIN], now[CLOCK], made, why
    )  # fmt: skip


@spliced
def leave(schedule: Schedule, now: Words) -> None:
    """End the turn of the vcpu that runs."""
    mine = schedule.vcpu[at(now[CURRENT])]
    mine[RUNS_ON] = -1
    mine[FREE_AT] = now[CLOCK]
    schedule.whole[EPOCH] += 1
    now[CURRENT] = UNDECIDED


@spliced
def begin_idling(schedule: Schedule, feed: Feed, now: Words, lp: int) -> None:
    """Let an lp wait, or wait on."""
    if now[CURRENT] == UNDECIDED:
        now[IDLE_SINCE] = now[CLOCK]
    now[CURRENT] = NOBODY
    now[WAKE] = first_moment(schedule, feed, lp)
    now[SEEN] = schedule.whole[EPOCH]


@spliced
def end_idling(schedule: Schedule, now: Words, lp: int, vcpu: int) -> None:
    """Book what an lp has waited for a vcpu; the part of it that was warm-up does not count."""
    waited = now[CLOCK] - now[IDLE_SINCE]
    if waited:
        record_slice(schedule, lp, -1, -1, now[IDLE_SINCE], now[CLOCK], 0, IDLE)
    now[NEXT_EXIT] += waited
    now[NEXT_SHOOTDOWN] += waited
    counted = now[CLOCK] - max(now[IDLE_SINCE], now[WARM_CLOCK])
    schedule.idle[at(lp), at(schedule.vcpu[at(vcpu), VM])] += counted


@spliced
def end_waiting(schedule: Schedule) -> None:
    """Take back what lps have waited for nobody: the run is over."""
    for lp in range(schedule.now.shape[0]):
        now = schedule.now[at(lp)]
        now[CLOCK] = max(now[IDLE_SINCE], now[WARM_CLOCK])


@inlined
def record_slice(
    schedule: Schedule, lp: int, vcpu: int, stream: int, begin: int, end: int, made: int, why: int
) -> None:
    """Record who ran from when to when, if that is asked for and there is room."""
    place = schedule.whole[SLICES]
    if place >= schedule.slices.shape[0]:
        return
    schedule.whole[SLICES] += 1
    row = schedule.slices[at(place)]
    row[SLICE_VM] = schedule.vcpu[at(vcpu), VM] if vcpu >= 0 else -1
    row[SLICE_STREAM], row[SLICE_LP], row[SLICE_VCPU] = stream, lp, vcpu
    row[BEGIN], row[END], row[MADE], row[WHY] = begin, end, made, why


@spliced
def slices_full(schedule: Schedule) -> bool:
    """Tell whether slices are recorded and those of one more block end would not fit."""
    room = schedule.slices.shape[0]
    return room > 0 and schedule.whole[SLICES] + MOST_AT_ONCE > room


def clocks(schedule: Schedule) -> Words:
    """Return each lp's cycles since the warm-up; of one that idles, those up to then."""
    now = schedule.now
    since = np.maximum(now[:, IDLE_SINCE], now[:, WARM_CLOCK])
    clock = np.where(now[:, CURRENT] == NOBODY, since, now[:, CLOCK])
    reached: Words = clock - now[:, WARM_CLOCK]
    return reached
