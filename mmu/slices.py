"""Who ran when: a replay that is watched for a while instead of being counted."""

from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from mmu.config import RunConfig
from mmu.errors import InputError
from mmu.files import Table
from mmu.run import Progress, Replay
from mmu.software.dispatcher import FINISHED, NEEDS_BLOCKS, SLICES_FULL, dispatch
from mmu.software.turns import (
    CLOCK,
    CURRENT,
    DONE_ACCESSES,
    MOST_AT_ONCE,
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
GOING_ON = "going on"
COLUMNS = ["vm", "process", "space", "begin", "end", "accesses", "why"]


class Slice(NamedTuple):
    """A stretch of time in which one process ran, or nobody.

    Attributes
    ----------
    vm, process : str
        Who ran: names; both empty where the processor idled. A machine with one trace has no
        process.
    space : int
        The address space of the process.
    begin, end : int
        Cycles on the clock, warm-up included; the switch that follows is not in it.
    accesses : int
        Accesses made.
    why : str
        Why it ended: ``quantum`` of the machine, ``turn`` of the process in it, ``end`` of its
        trace; ``idle`` where nobody could run; ``going on`` where the watching ended.
    """

    vm: str
    process: str
    space: int
    begin: int
    end: int
    accesses: int
    why: str


@dataclass(frozen=True)
class Slices:
    """What was seen of a run, and whether that was all.

    Attributes
    ----------
    rows : list of tuple
        Names of all machines and processes, in turn order, whether they were seen or not.
    slices : list of Slice
        In order of time, without overlap.
    frequency_hz : int
        Cycles in a second.
    whole : bool
        The run ended while it was watched.
    """

    rows: list[tuple[str, str]]
    slices: list[Slice]
    frequency_hz: int
    whole: bool

    def table(self) -> Table:
        """Return the slices as a table, a row each; times are in cycles."""
        return Table(list(COLUMNS), [list(each) for each in self.slices])

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "format": "mmu-slices",
            "version": 1,
            "frequency_hz": self.frequency_hz,
            "whole": self.whole,
            "rows": [list(row) for row in self.rows],
            "slices": [dict(zip(COLUMNS, each, strict=True)) for each in self.slices],
        }


def record_slices(
    config: RunConfig,
    most: int = 100,
    until: str | int | None = None,
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
        status = dispatch(host.machine, host.world, schedule, feed, 0, 1)
        host.check(status)
        if status == NEEDS_BLOCKS:
            replay.streams[int(now[STREAM])].load(feed)
        if status in (FINISHED, SLICES_FULL):
            break
        if progress and turn % 64 == 0:
            progress(int(now[DONE_ACCESSES]), replay.total)
    seen = [[*row[:-1], REASONS[row[-1]]] for row in room[: now[SLICES]].tolist()][:most]
    whole = bool(now[CURRENT] == -1 and now[SLICES] <= most)
    if len(seen) < most and now[CURRENT] >= 0 and now[CLOCK] > now[STINT_BEGIN]:
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
