"""Watches a replay for a while, to see who runs when."""

from itertools import count

import numpy as np

from mmu.config import RunConfig
from mmu.errors import InputError
from mmu.run import Progress, Replay
from mmu.slices import GOING_ON, Slice, Slices
from mmu.software.dispatcher import FINISHED, NEEDS_BLOCKS, SLICES_FULL, dispatch
from mmu.software.turns import (
    CLOCK,
    CURRENT,
    DONE_ACCESSES,
    MOST_AT_ONCE,
    NOBODY,
    REASONS,
    SLICE_FIELDS,
    SLICES,
    STINT_ACCESSES,
    STINT_BEGIN,
    STREAM,
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
    now, status = replay.now, 0
    reached = CLOCK if stop and stop.unit == "cycles" else DONE_ACCESSES
    for turn in count():
        if now[SLICES] >= most or (stop and now[reached] >= stop.value):
            break
        status = dispatch(host.machine, None, host.world, schedule, feed, 0, 1)
        host.check(status)
        if status == NEEDS_BLOCKS:
            replay.streams[int(now[STREAM])].load(feed)
        if status in (FINISHED, SLICES_FULL):
            break
        if progress and turn % 64 == 0:
            progress(int(now[DONE_ACCESSES]), replay.total)
    seen = [[*row[:-1], REASONS[row[-1]]] for row in room[: now[SLICES]].tolist()][:most]
    whole = bool(now[CURRENT] == NOBODY)
    if now[CURRENT] >= 0 and now[CLOCK] > now[STINT_BEGIN]:
        made = int(now[DONE_ACCESSES] - now[STINT_ACCESSES])
        begin, end = int(now[STINT_BEGIN]), int(now[CLOCK])
        seen.append([int(now[CURRENT]), int(now[STREAM]), begin, end, made, GOING_ON])
    rows = [_names(replay, number) for number in range(len(host.streams))]
    spaces = [stream.setting.space or 0 for stream in host.streams]
    slices = []
    for vm, stream, begin, end, made, why in seen:
        name, process = ("", "") if vm < 0 else rows[stream]
        slices.append(Slice(name, process, 0 if vm < 0 else spaces[stream], begin, end, made, why))
    return Slices(rows, slices, config.processor.frequency_hz, whole)


def _names(replay: Replay, stream: int) -> tuple[str, str]:
    vm, process = replay.host.streams[stream]
    setting = replay.host.vms[vm]
    several = bool(setting and setting.processes)
    return replay.host.names[vm], process.name if several else ""
