"""Reads text formats line by line: what each of them shares with the others.

A format is a kernel that reads the whole lines of a text, and the reasons for which it stops.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined
from mmu.trace.accesses import Accesses, made, room
from mmu.trace.blocks import Bytes, Words
from mmu.trace.format import Raw
from mmu.trace.notes import Notes

LONGEST_LINE = 4 << 20  # bytes
MOST_IN_VAIN = 1 << 24  # lines without an access: a packed file may unfold into any number
BEGINNING = 1 << 16  # bytes by which a format is told
RECORDS = 1 << 18  # of one part
MOST_SHOWN = 100  # letters of a line in a message
PADDING = 16  # bytes after the text: a line's first ones are looked at together

NEWLINE, SPACE, TAB, COMMA = ord("\n"), ord(" "), ord("\t"), ord(",")
ZERO, NINE, MINUS = ord("0"), ord("9"), ord("-")
LETTER_A, LETTER_F, LETTER_X, LOWER_CASE = ord("a"), ord("f"), ord("x"), 0x20

# Fields of `place`: where a reader of lines has got to, whether nothing follows the text, and from
# PASSED on how many of each thing that is no access it has passed over.
POSITION, RECORD, LINE, LAST, PASSED = range(5)

# How reading lines ended: at the end of the text, for lack of room; a format's own reasons follow.
END, FULL = 0, 1

Parse = Callable[[Bytes, int, Accesses, Words], int]


@inlined
def hexadecimal(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the number at `here` as int64 (more than 16 digits are lost) and where it ends."""
    value = np.int64(0)
    while True:
        letter = text[at(here)]
        if ZERO <= letter <= NINE:
            digit = np.int64(letter) - ZERO
        elif LETTER_A <= (letter | LOWER_CASE) <= LETTER_F:
            digit = np.int64(letter | LOWER_CASE) - LETTER_A + 10
        else:
            return value, here
        value = value << 4 | digit
        here += 1


@inlined
def decimal(text: Bytes, here: int, digits: int) -> tuple[np.int64, int]:
    """Return the number of up to `digits` (at most 18) digits at `here`, and where it ends."""
    value, stop = np.int64(0), here + digits
    while here < stop and ZERO <= text[at(here)] <= NINE:
        value = value * 10 + np.int64(text[at(here)]) - ZERO
        here += 1
    return value, here


@inlined
def blanks(text: Bytes, here: int) -> int:
    """Return where the spaces and tabs at `here` end."""
    while text[at(here)] == SPACE or text[at(here)] == TAB:
        here += 1
    return here


@inlined
def ends_field(letter: int) -> bool:
    """Tell whether a letter is no part of a field: a space, a tab, a newline."""
    return letter in (SPACE, NEWLINE, TAB)


@inlined
def field_end(text: Bytes, here: int) -> int:
    """Return where the field at `here` ends: at a space, a tab, a newline."""
    while not ends_field(text[at(here)]):
        here += 1
    return here


@inlined
def prefix_end(text: Bytes, here: int) -> int:
    """Return where the ``0x`` or ``0X`` at `here` ends, or `here` if there is none."""
    if text[at(here)] == ZERO and text[at(here + 1)] | LOWER_CASE == LETTER_X:
        return here + 2
    return here


def key(word: str) -> int:
    """Return the first eight letters of a word as one number, as `packed` makes it."""
    return int.from_bytes(word.encode()[:8], "little")


@inlined
def packed(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return up to eight letters of the field at `here`, the first lowest, and where they end.

    A zero counts as another letter: a word must not equal the same with zeros after it.
    """
    value, shift = np.int64(0), 0
    while shift < 64 and not ends_field(text[at(here)]):
        value |= np.int64(text[at(here)] if text[at(here)] else 0xFF) << shift
        shift += 8
        here += 1
    return value, here


@inlined
def signed(text: Bytes, here: int) -> tuple[np.int64, int]:
    """Return the decimal number at `here`, perhaps negative, and where it ends, or -1."""
    minus = 1 if text[at(here)] == MINUS else 0
    value, stop = decimal(text, here + minus, 18)
    if stop == here + minus:
        return value, -1
    return -value if minus else value, stop


@inlined
def line_end(text: Bytes, here: int) -> int:
    """Return where the line that `here` is in ends: at its newline."""
    while text[at(here)] != NEWLINE:
        here += 1
    return here


class LineReader:
    """Turns pieces of text into parts of a raw trace.

    Parameters
    ----------
    parse : kernel
        ``parse(text, end, out, place) -> status`` reads the lines of `text` up to `end`, which is the
        end of a line. `place` says where to begin, and afterwards where reading stopped: always where
        a line begins. It returns END, FULL (no room in `out`), or one of `reasons`. With END it may
        leave lines unread that it cannot judge before it sees the next one, unless ``place[LAST]``.
    reasons : mapping of int to str
        Why a line is refused.
    where : str
        What messages call the input.
    notes : Notes
        Where processes get their spaces, and what is passed over is counted.
    passed : sequence of str
        What is counted in ``place[PASSED]`` and after it, in the words of a list.
    processes, threads : bool
        The format tells them.
    open_end : bool
        The last line may lack its newline; otherwise it counts as cut off.
    """

    def __init__(
        self,
        parse: Parse,
        reasons: Mapping[Any, str],
        where: str,
        notes: Notes,
        passed: Sequence[str] = ("empty lines",),
        processes: bool = False,
        threads: bool = False,
        open_end: bool = False,
    ) -> None:
        self.parse, self.reasons, self.where, self.notes = parse, reasons, where, notes
        self.passed = passed
        self.processes, self.threads, self.open_end = processes, threads, open_end
        self.text = np.zeros(2 * LONGEST_LINE + PADDING, np.uint8)
        self.filled = 0  # bytes of `text` that wait
        self.place = np.zeros(PASSED + len(passed), np.int64)
        self.since = 0  # lines since the last access, about

    def read(self, piece: bytes) -> Iterator[Raw]:
        """Yield the accesses of the lines that a piece completes.

        Raises
        ------
        InputError
            A line is no record; the message has its number, counted from 1.
        """
        self.text[self.filled : self.filled + len(piece)] = np.frombuffer(piece, np.uint8)
        newline = piece.rfind(b"\n")
        end = self.filled + newline + 1 if newline >= 0 else 0
        self.filled += len(piece)
        if end:
            yield from self.parsed(end)
        if self.filled > LONGEST_LINE:
            self.refuse(f"a line of more than {LONGEST_LINE >> 20} MiB", 0, self.filled)

    def parsed(self, end: int) -> Iterator[Raw]:
        """Yield the accesses of the lines up to `end`, and keep what follows them."""
        self.place[POSITION] = 0
        status = FULL
        while status == FULL:
            out = room(RECORDS, self.processes, self.threads)
            self.place[RECORD] = 0
            before = int(self.place[LINE])
            status = self.parse(self.text, end, out, self.place)
            records = int(self.place[RECORD])
            for what, count in zip(self.passed, self.place[PASSED:].tolist(), strict=True):
                self.notes.pass_over(what, count)
            self.place[PASSED:] = 0
            spaces = self.notes.spaces_of(out.process[:records], self.where)
            self.since = 0 if records else self.since + int(self.place[LINE]) - before
            if self.since > MOST_IN_VAIN:
                self.refuse(f"more than {MOST_IN_VAIN:,} lines without an access", 0, self.filled)
            yield made(out, records, spaces)
        done = int(self.place[POSITION])
        if status != END:
            self.refuse(self.reasons[status], done, end)
        self.text[: self.filled - done] = self.text[done : self.filled].copy()
        self.filled -= done

    def finish(self) -> Iterator[Raw]:
        """Yield the accesses of the lines that waited for others; refuse a last one that does not end.

        Raises
        ------
        InputError
            As `read`, and for the last line.
        """
        self.place[LAST] = 1
        if self.filled and self.open_end and self.text[self.filled - 1] != NEWLINE:
            self.text[self.filled] = NEWLINE
            self.filled += 1
        newlines = np.flatnonzero(self.text[: self.filled] == NEWLINE)
        if len(newlines):
            yield from self.parsed(int(newlines[-1]) + 1)
        if self.filled:
            self.refuse("the last line is cut off: complete it, or take it out", 0, self.filled)

    def refuse(self, reason: str, start: int, end: int) -> None:
        """Raise the error for the line that begins at `start`."""
        line = self.text[start : min(end, start + 200)].tobytes().split(b"\n", 1)[0]
        shown = 60 if len(repr(line[:60])) <= MOST_SHOWN else MOST_SHOWN // 4
        content = repr(line[:shown])[1:] + ("..." if len(line) > shown else "")
        raise InputError(f"{self.where}: line {int(self.place[LINE]) + 1}: {content}: {reason}")


def unix_lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces of a text with the line ends of Windows made newlines."""
    kept = b""
    for piece in pieces:
        if kept or b"\r" in piece:  # the search is quick: 10 GB/s
            joined = kept + piece
            kept = b"\r" if joined.endswith(b"\r") else b""
            yield joined[: len(joined) - len(kept)].replace(b"\r\n", b"\n")
        else:
            yield piece
    yield kept


def read_lines(reader: LineReader, pieces: Iterable[bytes]) -> Iterator[Raw]:
    """Yield the accesses of a text that comes in pieces of any length."""
    for piece in unix_lines(pieces):
        for begin in range(0, len(piece), LONGEST_LINE):
            yield from reader.read(piece[begin : begin + LONGEST_LINE])
    yield from reader.finish()


def first_lines(head: bytes, most: int = 20, cut_off: bool = True) -> list[str]:
    """Return the first lines of an input; none if it is no plain text.

    A last one that does not end counts only if it is the only one, or unless `cut_off`.
    """
    start = head[:BEGINNING]
    if any(byte < SPACE and byte not in b"\t\n\r\f" for byte in start[: 1 << 12]):
        return []
    lines = start.decode(errors="replace").replace("\r\n", "\n").split("\n")
    return (lines[:-1] if cut_off and len(lines) > 1 else lines)[:most]
