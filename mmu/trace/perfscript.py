"""Reads samples as ``perf script`` prints them, with their addresses.

``perf script`` of what ``perf mem record`` or ``perf record -d`` recorded; where it leaves them out
by default, ``perf script -F +pid,+addr`` adds process and address. Source: ``process_event`` and what
it calls in Linux's ``tools/perf/builtin-script.c``.

    cc1 712/715 [002] 44.1: 9 cpu/mem-loads/P: 7f1de9697110 68100142 |OP LOAD|LVL L1 hit|... 4010f2
    ls 11853/11853 950.839059: mem-stores:     561880ee55c0 __progname ffffffff81752b6a elf_load

A sample has the name of its event, which ends in a colon, and before it a thread (``tid`` or
``pid/tid``), perhaps with a command before that and a processor, a time and a period between. Then
comes the address; numbers there are padded to sixteen columns, which tells them from symbols. An
instruction's address or a data source has to follow: one number alone may be the instruction's.

A sample's data source says what was done (`mmu.trace.perf`); without one, the event's name does if it
holds ``load`` or ``store`` and is not of the fetch side (``itlb``, ``icache``).

The sizes of data pages are counted in the metadata. Instruction addresses, physical addresses, times
and weights are not kept. Passed over, each with a count, are: lines of perf's header, call chains,
events of mappings and tasks, and samples that tell no address or neither load nor store.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.accesses import NOT_CANONICAL, Accesses, within
from mmu.trace.blocks import Bytes, Words
from mmu.trace.format import Raw
from mmu.trace.lines import (
    END,
    FULL,
    LINE,
    LOWER_CASE,
    NEWLINE,
    NINE,
    PASSED,
    POSITION,
    RECORD,
    TAB,
    ZERO,
    LineReader,
    blanks,
    decimal,
    ends_field,
    field_end,
    first_lines,
    hexadecimal,
    key,
    line_end,
    packed,
    read_lines,
    signed,
)
from mmu.trace.perf import (
    LINE_RECORDS,
    LOAD,
    MOST_THREAD,
    OPERATIONS,
    OWN,
    PAGE_SIZES,
    STORE,
    WHAT_IS_PASSED,
    command_in,
    last_page_size,
    note_page_sizes,
    note_samples,
    sample,
)
from mmu.trace.source import Source

HEADER, CHAINS, TASKS = OWN, OWN + 1, OWN + 2
WIDTH = 16  # columns of a number

HASH, SLASH, MINUS, DOT, COLON, BAR = ord("#"), ord("/"), ord("-"), ord("."), ord(":"), ord("|")
OPENING, CLOSING = ord("["), ord("]")
RECORD_NAME = key("PERF_RECORD_")
FOUR_LETTERS, FIVE_LETTERS, SIX_LETTERS = (1 << 32) - 1, (1 << 40) - 1, (1 << 48) - 1
LOAD_WORD, STORE_WORD, ITLB, ICACHE = key("load"), key("store"), key("itlb"), key("icache")


class Bad(IntEnum):
    """Why a line is refused."""

    UNKNOWN = 2
    ADDRESS = 3
    ALONE = 4
    RANGE = 5
    PROCESS = 6
    THREAD = 7


REASONS = {
    Bad.UNKNOWN: "not a sample of perf script (`[command] [pid/]tid [[cpu]] [time:] event: address "
    "...`)",
    Bad.ADDRESS: "the sample shows no address; record with -d and print with perf script -F +addr",
    Bad.ALONE: "one address, and it may be the instruction's; print both with perf script -F "
    "+addr,+ip",
    Bad.RANGE: NOT_CANONICAL,
    Bad.PROCESS: "the process is told in some lines and not in others; print all of them with perf "
    "script -F +pid",
    Bad.THREAD: f"the thread is not a number from 0 to {MOST_THREAD}",
}


@inlined
def event_at(text: Bytes, here: int) -> int:
    """Return where the name of an event begins that follows a thread, or -1 if none does."""
    if text[at(here)] == OPENING:  # the processor
        _, stop = decimal(text, here + 1, 9)
        if stop == here + 1 or text[at(stop)] != CLOSING:
            return -1
        here = blanks(text, stop + 1)
    _, stop = decimal(text, here, 18)
    if stop > here and text[at(stop)] == DOT:  # the time
        first = stop + 1
        _, stop = decimal(text, first, 18)
        if stop == first or text[at(stop)] != COLON:
            return -1
        here = blanks(text, stop + 1)
        _, stop = decimal(text, here, 18)
    if stop > here and ends_field(text[at(stop)]):  # the period
        here = blanks(text, stop)
    word, _ = packed(text, here)
    if word == RECORD_NAME:
        return here
    stop = field_end(text, here)
    # No event's name begins with a digit; a time does, where the command ended in a number.
    if stop - here < 2 or text[at(stop - 1)] != COLON or ZERO <= text[at(here)] <= NINE:
        return -1
    return here


@inlined
def head_of(text: Bytes, here: int) -> tuple[np.int64, np.int64, int, int]:
    """Return process and thread of a sample, whether the process is told, and where its event is.

    The event's place is -1 where the line is no sample. The command may have digits and blanks.
    """
    field = blanks(text, here)
    while text[at(field)] != NEWLINE:
        if ZERO <= text[at(field)] <= NINE or text[at(field)] == MINUS:
            process, stop = signed(text, field)
            thread, told = process, 0
            if stop >= 0 and text[at(stop)] == SLASH:
                thread, stop = signed(text, stop + 1)
                told = 1
            if stop >= 0 and ends_field(text[at(stop)]):
                event = event_at(text, blanks(text, stop))
                if event >= 0:
                    return process, thread, told, event
        field = blanks(text, field_end(text, field))
    return np.int64(0), np.int64(0), 0, -1


@inlined
def operations_of(text: Bytes, here: int, stop: int) -> int:
    """Return what the event named from `here` to `stop` counts: LOAD, STORE, or 0."""
    found, word = 0, np.int64(0)
    for i in range(here, stop):  # `word`: the last six letters, the newest highest
        word = word >> 8 | np.int64(text[at(i)] | LOWER_CASE) << 40
        if word >> 16 == LOAD_WORD:
            found |= LOAD
        elif word >> 8 == STORE_WORD:
            found |= STORE
        elif word >> 16 == ITLB or word == ICACHE:
            return 0
    return found if found != LOAD | STORE else 0


@inlined
def number_after(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the padded number after `here`, and where it ends, or -1 if there is none."""
    first = blanks(text, here)
    value, stop = hexadecimal(text, first)
    if not ends_field(text[at(stop)]) or not 1 <= stop - first <= WIDTH or stop - here < WIDTH:
        return value, -1
    return value, stop


@inlined
def source_after(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the data source that follows an address, or -1, and whether any number does."""
    while True:
        value, stop = number_after(text, here)
        if stop >= 0:
            if text[at(blanks(text, stop))] == BAR:
                return value, 1
            return np.int64(-1), 1
        here = blanks(text, here)
        if text[at(here)] == NEWLINE:
            return np.int64(-1), 0
        here = field_end(text, here)


class Sample(NamedTuple):
    """What a line says; `operations` as in `mmu.trace.perf`."""

    process: np.int64
    thread: np.int64
    address: np.int64
    operations: np.int64
    rest: int  # where what follows the address begins; -1: the line is no sample, and passed over


@inlined
def sample_at(text: Bytes, here: int, told: bool, alone: bool) -> tuple[int, Sample, int]:
    """Return why a line is refused, or END; what it says, and where it ends: at its newline.

    `told`: samples tell their process. `alone`: their instructions are in call chains.
    """
    nothing = np.int64(0)
    process, thread, has_process, event = head_of(text, here)
    if event < 0:
        return Bad.UNKNOWN, Sample(nothing, nothing, nothing, nothing, -1), here
    stop = line_end(text, event)
    word, _ = packed(text, event)
    if word == RECORD_NAME:
        return END, Sample(process, thread, nothing, nothing, -1), stop
    name_end = field_end(text, event)
    address, field = number_after(text, name_end)
    none = Sample(process, thread, address, nothing, field)
    if field < 0:
        return Bad.ADDRESS, none, stop
    source, followed = source_after(text, field)
    if not followed and not alone:
        return Bad.ALONE, none, stop
    if not within(address, 1):
        return Bad.RANGE, none, stop
    if told != (has_process == 1):
        return Bad.PROCESS, none, stop
    thread = np.int64(MOST_THREAD) if thread == -1 else thread
    if not 0 <= thread <= MOST_THREAD:
        return Bad.THREAD, none, stop
    operations = source & OPERATIONS
    if source < 0:
        operations = np.int64(operations_of(text, event, name_end))
    return END, Sample(process, thread, address, operations, field), stop


@kernel
def parse(
    text: Bytes, end: int, out: Accesses, place: Words, alone: bool, page_sizes: Words
) -> int:
    """Read lines as `LineReader` wants it; `alone`: instructions are in call chains."""
    here, record, line = place[POSITION], place[RECORD], place[LINE]
    status = END
    while here < end:
        if record + LINE_RECORDS > len(out.kind):
            status = FULL
            break
        first = text[at(here)]
        if first in (NEWLINE, HASH, TAB):
            place[PASSED + (CHAINS if first == TAB else HEADER)] += 1
            stop = line_end(text, here)
        else:
            status, said, stop = sample_at(text, here, len(out.process) > 0, alone)
            if status != END:
                break
            if said.rest < 0:
                place[PASSED + TASKS] += 1
            else:
                before = record
                record = sample(
                    out, record, place, said.address, said.operations, said.process, said.thread
                )
                bits = last_page_size(text, said.rest, stop) if record > before else -1
                if bits >= 0:
                    page_sizes[at(bits)] += 1
        here = stop + 1
        line += 1
    place[POSITION], place[RECORD], place[LINE] = here, record, line
    return status


SAMPLE = re.compile(
    r"(?P<command>.*?)(?<!\S)(?P<pid>-?\d+/)?-?\d+\s+(\[\d+\]\s+)?(?:\d+\.\d+:\s+)?(\d+\s+)?"
    r"(PERF_RECORD_\S*|[^\s0-9]\S*:)(\s.*|$)"
)


def samples(head: bytes) -> list[re.Match[str]]:
    """Return the samples of an input's first lines, or nothing if another line is among them."""
    lines = first_lines(head)
    found = [SAMPLE.fullmatch(line) for line in lines if line.strip() and line[0] not in "#\t"]
    return [each for each in found if each] if all(found) else []


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this is a list of ``perf script``."""
    return bool(samples(head)) or (head.startswith(b"# ========\n") and b"# cmdline : " in head)


def read_perfscript(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a list of ``perf script``.

    Raises
    ------
    InputError
        A line is no sample, or tells no address; the message has its number, counted from 1, and its
        content.
    """
    numbered = re.compile(rb"(?<!\S)-?\d+/-?\d+ +(\[\d+\] +)?(\d+\.\d+: +)?(\d+ +)?\S+: ")
    processes = numbered.search(source.head) is not None
    alone = b"\n\t" in source.head
    note_samples(source.notes, "perf script", processes)
    command = command_in(source.head)
    if command:
        source.notes.said["command"] = command
    page_sizes = np.zeros(PAGE_SIZES, np.int64)
    passed = (
        *WHAT_IS_PASSED,
        "empty lines and lines of perf's header",
        "lines of call chains",
        "records of mappings and tasks",
    )
    reader = LineReader(
        lambda text, end, out, place: parse(text, end, out, place, alone, page_sizes),
        REASONS, source.where, source.notes, passed, processes=processes, threads=True,
    )  # fmt: skip
    yield from read_lines(reader, source.pieces)
    note_page_sizes(source.notes, page_sizes.tolist())
