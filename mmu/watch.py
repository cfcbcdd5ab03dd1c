"""Watches a replay for a while, to see who runs when."""

from itertools import count
from typing import Any

import numpy as np

from mmu.config import RunConfig
from mmu.errors import InputError
from mmu.hardware.causes import with_room
from mmu.run import Progress, Replay
from mmu.slices import GOING_ON, Slice, Slices
from mmu.software.dispatcher import (
    BLOCK_PAGES,
    FINISHED,
    NEEDS_BLOCKS,
    NEEDS_ROOM,
    SLICES_FULL,
    dispatch,
)
from mmu.software.turns import (
    BEGIN,
    CLOCK,
    CURRENT,
    DONE_ACCESSES,
    FRONT,
    HIGHEST,
    IDLE,
    IDLE_SINCE,
    LEFT,
    MOST_AT_ONCE,
    NOBODY,
    RAN_ACCESSES,
    REASONS,
    SLICE_FIELDS,
    SLICE_LP,
    SLICES,
    STINT_ACCESSES,
    STINT_BEGIN,
    STREAM,
    VM,
    WANTED,
    WHY,
    Schedule,
)
from mmu.turns import Start
from mmu.units import refusal

MOST_SLICES = 1 << 20


def record_slices(
    config: RunConfig,
    most: int = 100,
    until: str | None = None,
    progress: Progress | None = None,
) -> Slices:
    """Replay a run and record who runs when, for its first slices.

    Parameters
    ----------
    config : RunConfig
        The run.
    most : int
        Slices after which to stop.
    until : str, optional
        When to stop before that: at the first block end that reaches it. A time such as ``2ms``,
        or cycles or accesses.
    progress : callable, optional
        Called with the accesses made and their total, now and then.

    Raises
    ------
    InputError
        `most` or `until` cannot be used, or a trace cannot.
    OutOfMemory
        A virtual machine touches more than its memory, or the host's, holds.
    """
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_SLICES:
        raise InputError(f"slices: {refusal(most, f'a whole number from 1 to {MOST_SLICES}')}")
    stop = None if until is None else Start.parse(until, config.processor.frequency_hz)
    if stop is not None and not stop.value:
        raise InputError(f"until: {refusal(until, 'a time above 0, such as 2ms')}")
    replay = Replay(config)
    host, feed = replay.host, replay.feed
    room = np.zeros((most + MOST_AT_ONCE, SLICE_FIELDS), np.int64)
    schedule = host.schedule._replace(slices=room)
    for stream in replay.streams.values():
        stream.load(feed)
    whole, status = replay.now, 0
    for turn in count():
        if whole[SLICES] >= most or (stop and _reached(schedule, stop.unit) >= stop.value):
            break
        status = dispatch(host.machine, None, host.world, schedule, feed, 1)
        host.check(status)
        if status == NEEDS_ROOM:
            host.machine = with_room(host.machine, BLOCK_PAGES + host.footprint.size)
        if status == NEEDS_BLOCKS:
            replay.streams[int(whole[WANTED])].load(feed)
        if status in (FINISHED, SLICES_FULL):
            break
        if progress and turn % 64 == 0:
            progress(int(whole[DONE_ACCESSES]), replay.total)
    seen: list[list[Any]] = room[: min(int(whole[SLICES]), most)].tolist()
    for row in seen:
        row[WHY] = REASONS[row[WHY]]
    ended = not feed.stream[:, LEFT].any() and bool((schedule.now[:, CURRENT] == NOBODY).all())
    if not ended:
        seen += _unfinished(schedule, len(seen) < most)
    rows = [_names(replay, number) for number in range(len(host.streams))]
    spaces = [stream.setting.space or 0 for stream in host.streams]
    owners = schedule.vcpu[:, VM].tolist()
    slices = []
    seen.sort(key=lambda row: (row[BEGIN], row[SLICE_LP]))
    for vm, stream, begin, end, made, why, lp, vcpu in seen:
        name, process = ("", "") if vm < 0 else rows[stream]
        space, number = (0, 0) if vm < 0 else (spaces[stream], vcpu - owners.index(vm))
        slices.append(Slice(name, process, space, begin, end, made, why, lp, number))
    return Slices(rows, slices, config.processor.frequency_hz, ended, len(schedule.now))


def _reached(schedule: Schedule, unit: str) -> int:
    """Return how far the run is: accesses made, or the clock that all who run have reached."""
    if unit != "cycles":
        return int(schedule.whole[DONE_ACCESSES])
    runs = schedule.now[schedule.now[:, CURRENT] != NOBODY]
    return int(runs[:, CLOCK].min()) if len(runs) else int(schedule.whole[HIGHEST])


def _unfinished(schedule: Schedule, idle: bool) -> list[list[Any]]:
    """Return the slices that each processor is in, those of who idles only if `idle`."""
    found: list[list[Any]] = []
    for lp, now in enumerate(schedule.now):
        clock, vcpu = int(now[CLOCK]), int(now[CURRENT])
        if vcpu >= 0 and clock > now[STINT_BEGIN]:
            vm, stream, begin = (
                int(n) for n in (schedule.vcpu[vcpu, VM], now[STREAM], now[STINT_BEGIN])
            )
            made = int(now[RAN_ACCESSES] - now[STINT_ACCESSES])
            found.append([vm, stream, begin, clock, made, GOING_ON, lp, vcpu])
        elif vcpu == NOBODY and idle:
            end = max(clock, int(schedule.whole[FRONT]))
            if now[IDLE_SINCE] < end:
                found.append([-1, -1, int(now[IDLE_SINCE]), end, 0, REASONS[IDLE], lp, -1])
    return found


def _names(replay: Replay, stream: int) -> tuple[str, str]:
    vm, process = replay.host.streams[stream]
    setting = replay.host.vms[vm]
    several = bool(setting and setting.processes)
    return replay.host.names[vm], process.name if several else ""
