"""Reads what DynamoRIO's ``view`` tool prints of a memory trace: ``drrun -t drmemtrace -tool view``.

Four forms, by age. Sources: the tool's ``view.cpp`` and ``view.h`` from 2018 to 2025 in
DynamoRIO's ``clients/drcachesim/tools``, and the samples in ``drmemtrace_samples``.

    T468608   0x0000000000405376  64 c7 04 25 18 00 00 movl   $0x00000001, %fs:0x18
    T468608                       00 01 00 00 00
    T468608     write 4 byte(s) @ 0x4eb898
       173369: T1774669 ifetch       3 byte(s) @ 0x0000000000402680 f3 48 a5    rep movsq
        47446       37770:     2765543 read         8 byte(s) @ 0x00007fdf64e2adc8 by PC 0x...
            7           1:       W0.T3 ifetch       4 byte(s) @ 0x000000000000002a non-branch

The numbers before the colon count records and instructions, then comes the thread, and in the newest
form before it the workload, which becomes a space. In the oldest form an instruction's size is the
number of its bytes, which may go on in the next line; in the others it is written.

Headings, dividers and empty lines are passed over, and so are, each with a count of its own, markers,
exits of threads, prefetches, flushes of caches, entries that the tool has no name for, and
instructions that it calls not fetched (where it disassembles, it shows these like the others).
"""

import re
from collections.abc import Iterator
from enum import IntEnum

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.accesses import MOST_BYTES, NOT_CANONICAL, Accesses, add, within
from mmu.trace.blocks import Bytes, Integer, Words
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.lines import (
    BEGINNING,
    END,
    FULL,
    LAST,
    LETTER_X,
    LINE,
    NEWLINE,
    NINE,
    PASSED,
    POSITION,
    RECORD,
    SPACE,
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
)
from mmu.trace.source import Source

LINE_RECORDS = 2  # an access that crosses a boundary
MOST_THREAD = (1 << 32) - 1

HEADINGS, MARKERS, EXITS, PREFETCHES, FLUSHES, NOT_FETCHED, ENTRIES = range(7)
WHAT_IS_PASSED = (
    "headings, dividers and empty lines",
    "markers",
    "exits of threads",
    "prefetches",
    "cache flushes",
    "instructions that were not fetched",
    "entries without a name",
)

COLON, DOT, AT, ANGLE, DASH = ord(":"), ord("."), ord("@"), ord("<"), ord("-")
LETTER_T, LETTER_W = ord("T"), ord("W")
FOUR_LETTERS = 0xFFFFFFFF

IFETCH, READING, WRITING, BYTES = key("ifetch"), key("read"), key("write"), key("byte(s)")
PREFETCH, IFLUSH, DFLUSH = key("pref"), key("iflush"), key("dflush")
MARKER, THREAD, ENTRY = key("<marker:"), key("<thread"), key("<entry")
OUTPUT, VIEW, RECORD_NUMBER, RECORDS = (
    key("Output"), key("View"), key("<--record#-"), key("<record#>:"),
)  # fmt: skip
UNFETCHED, TOTAL = key("non-fetched"), key("total")


class Bad(IntEnum):
    """Why a line is refused."""

    UNKNOWN = 2
    RECORD = 3
    SIZE = 4
    ADDRESS = 5
    RANGE = 6
    THREAD = 7


REASONS = {
    Bad.UNKNOWN: "not a line of DynamoRIO's view tool; keep the program's own output out of the file",
    Bad.RECORD: "not a record of DynamoRIO's view tool (ifetch, read, write, pref..., iflush, "
    "dflush, <marker: ...>, <thread ...>, <entry ...>)",
    Bad.SIZE: f"the size is not `N byte(s) @` with N from 1 to {MOST_BYTES}",
    Bad.ADDRESS: "the address is not 0x and 1 to 16 hexadecimal digits",
    Bad.RANGE: NOT_CANONICAL,
    Bad.THREAD: f"the thread is not a number from 0 to {MOST_THREAD}",
}


@inlined
def heading(text: Bytes, here: int) -> bool:
    """Tell whether the line at `here`, without its blanks, is a heading, a divider, or empty."""
    letter = text[at(here)]
    if letter == NEWLINE:
        return True
    if letter == DASH:
        return text[at(here + 1)] == DASH and text[at(here + 2)] == DASH
    word, _ = packed(text, here)
    return word in (OUTPUT, VIEW, RECORD_NUMBER, RECORDS)


@inlined
def numbers_end(text: Bytes, here: int) -> int:
    """Return where the numbers of a record and its colon end, 0 for the total at the end, or -1."""
    _, here = decimal(text, here, 18)
    if text[at(here)] == SPACE:
        here = blanks(text, here)
        if text[at(here)] == COLON:
            word, _ = packed(text, blanks(text, here + 1))
            return 0 if word == TOTAL else -1
        first = here
        _, here = decimal(text, here, 18)
        if here == first:
            return -1
    if text[at(here)] != COLON:
        return -1
    return blanks(text, here + 1)


@inlined
def stream(text: Bytes, here: int) -> tuple[np.int64, np.int64, int]:
    """Return workload and thread, as in ``W0.T3``, ``T3`` or ``3``, and where they end, or -1."""
    workload = np.int64(0)
    if text[at(here)] == LETTER_W:
        minus = 1 if text[at(here + 1)] == DASH else 0
        workload, here = decimal(text, here + 1 + minus, 9)
        workload = -workload if minus else workload
        if text[at(here)] != DOT:
            return workload, workload, -1
        here += 1
    here += text[at(here)] == LETTER_T
    minus = 1 if text[at(here)] == DASH else 0  # a core that idles has the thread -1
    first = here + minus
    thread, here = decimal(text, first, 18)
    if here == first or text[at(here)] != SPACE:
        return workload, thread, -1
    return workload, -thread if minus else thread, here


@inlined
def hex_bytes(text: Bytes, here: int) -> tuple[int, int]:
    """Return how many bytes an instruction's encoding at `here` has, and where it ends.

    They are pairs of digits, or words of eight where all instructions have four bytes.
    """
    count = 0
    while True:
        _, stop = hexadecimal(text, here)
        if stop - here not in (2, 8) or not ends_field(text[at(stop)]):
            return count, here
        count += (stop - here) >> 1
        here = stop
        if text[at(here)] == SPACE:
            here += 1
        if text[at(here)] == SPACE or text[at(here)] == NEWLINE:
            return count, here


@inlined
def instruction(text: Bytes, end: int, here: int, last: Integer) -> tuple[int, int, int]:
    """Return the size of an instruction whose bytes begin at `here`, and its last line's end.

    The third number is how many lines it takes, or 0 where the next one has to be seen first.
    """
    size, _ = hex_bytes(text, here)
    stop, lines = line_end(text, here), 1
    while True:
        if stop + 1 >= end:
            return size, stop, lines if last else 0
        following = stop + 1
        if text[at(following)] != LETTER_T:
            return size, stop, lines
        following = blanks(text, field_end(text, following))
        more, _ = hex_bytes(text, following)
        if more == 0:
            return size, stop, lines
        size += more
        stop, lines = line_end(text, following), lines + 1


@inlined
def passed_over(word: np.int64) -> int:
    """Return what a record that begins with `word` is counted as, or -1 if there is none such."""
    if word == MARKER:
        return MARKERS
    if word & FOUR_LETTERS == PREFETCH:
        return PREFETCHES
    if word == THREAD:
        return EXITS
    if word in (IFLUSH, DFLUSH):
        return FLUSHES
    if word == ENTRY:
        return ENTRIES
    return -1


@inlined
def access(text: Bytes, stop: int, place: Words, kind: int) -> tuple[int, np.int64, np.int64, int]:
    """Return why the access whose name ends at `stop` is refused, or END; address, size, line's end.

    An instruction that was not fetched is counted, and has the size 0.
    """
    length, stop = decimal(text, blanks(text, stop), 5)
    word, stop = packed(text, blanks(text, stop))
    stop = blanks(text, stop)
    if not 1 <= length <= MOST_BYTES or word != BYTES or text[at(stop)] != AT:
        return Bad.SIZE, length, length, stop
    first = blanks(text, stop + 1)
    start, stop = hexadecimal(text, first + 2)
    if (
        text[at(first)] != ZERO
        or text[at(first + 1)] != LETTER_X
        or not 3 <= stop - first <= 18
        or not ends_field(text[at(stop)])
    ):
        return Bad.ADDRESS, start, length, stop
    word, _ = packed(text, blanks(text, stop))
    if kind == FETCH and word == UNFETCHED:
        place[PASSED + NOT_FETCHED] += 1
        length = np.int64(0)
    return END, start, length, line_end(text, stop)


@inlined
def encoded(
    text: Bytes, end: int, field: int, last: Integer
) -> tuple[int, np.int64, np.int64, int, int]:
    """Return the same of an instruction of the oldest form, and how many lines it takes.

    They are 0 where the next line has to be seen first.
    """
    start, stop = hexadecimal(text, field + 2)
    if not 3 <= stop - field <= 18 or text[at(stop)] != SPACE:
        return Bad.ADDRESS, start, start, stop, 1
    size, stop, lines = instruction(text, end, blanks(text, stop), last)
    if lines and not 1 <= size <= MOST_BYTES:
        return Bad.RECORD, start, start, stop, lines
    return END, start, np.int64(size), stop, lines


@inlined
def record_at(text: Bytes, field: int) -> tuple[bool, np.int64, np.int64, int]:
    """Return whether a line is a record, then its workload, thread, and where its details are.

    Otherwise the last is 0 for a heading and the like, and -1 for what the tool does not print.
    """
    letter = text[at(field)]
    none = np.int64(0)
    if ZERO <= letter <= NINE:
        field = numbers_end(text, field)
        if field <= 0:
            return False, none, none, field
    elif letter != LETTER_T:
        return False, none, none, 0 if heading(text, field) else -1
    workload, thread, field = stream(text, field)
    return field >= 0, workload, thread, field


@kernel
def parse(text: Bytes, end: int, out: Accesses, place: Words) -> int:
    """Read the lines of `text` up to `end`; as `mmu.trace.lines.LineReader` wants it."""
    here, record, line = place[POSITION], place[RECORD], place[LINE]
    status = END
    while here < end:
        if record + LINE_RECORDS > len(out.kind):
            status = FULL
            break
        first = blanks(text, here)
        is_record, workload, thread, field = record_at(text, first)
        if not is_record:
            if field < 0:
                status = Bad.UNKNOWN
                break
            place[PASSED + HEADINGS] += 1
            here = line_end(text, first) + 1
            line += 1
            continue
        field = blanks(text, field)
        word, stop = packed(text, field)
        start, length, kind, lines = np.int64(0), np.int64(0), FETCH, 1
        if word in (IFETCH, READING, WRITING):
            kind = FETCH if word == IFETCH else READ if word == READING else WRITE
            status, start, length, stop = access(text, stop, place, kind)
        elif text[at(field)] == ZERO and text[at(field + 1)] == LETTER_X:
            status, start, length, stop, lines = encoded(text, end, field, place[LAST])
        else:
            counted = passed_over(word)
            if counted >= 0:
                place[PASSED + counted] += 1
            elif hex_bytes(text, field)[0] == 0:  # not more bytes of the instruction before
                status = Bad.RECORD
            stop = line_end(text, field)
        if status == END and length:
            if not within(start, length):
                status = Bad.RANGE
            elif not 0 <= thread <= MOST_THREAD:
                status = Bad.THREAD
        if status != END or lines == 0:
            break
        if length:
            before = record
            record = add(out, record, start, length, kind)
            for i in range(before, record):
                out.thread[at(i)] = thread
                if len(out.process):
                    out.process[at(i)] = workload
        here = stop + 1
        line += lines
    place[POSITION], place[RECORD], place[LINE] = here, record, line
    return status


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this is DynamoRIO's."""
    lines = [line for line in first_lines(head) if line.strip() and not line.startswith("---")]
    if not lines:
        return False
    if lines[0] == "Output format:":
        return True
    where = r" *\d+( +\d+)?: +(W\d+\.)?T?\d+ |T\d+ "
    what = r" *(ifetch|read|write|pref|iflush|dflush) | *<(marker:|thread|entry) | *0x[0-9a-f]+  "
    return re.match(f"({where})({what})", lines[0]) is not None


def read_drview(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a trace as DynamoRIO's view tool prints it.

    Raises
    ------
    InputError
        A line is none that the tool prints; the message has its number, counted from 1, and its
        content.
    """
    source.notes.said["tool"] = "drrun -t drmemtrace -tool view"
    workloads = re.search(rb"^ *\d+ +\d+: +W-?\d+\.", source.head[:BEGINNING], re.MULTILINE)
    reader = LineReader(
        parse, REASONS, source.where, source.notes, WHAT_IS_PASSED,
        processes=workloads is not None, threads=True,
    )  # fmt: skip
    return read_lines(reader, source.pieces)
