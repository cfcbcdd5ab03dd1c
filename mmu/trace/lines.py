"""Reads text formats line by line: what each of them shares with the others.

A format is a kernel that reads the whole lines of a text, and the reasons for which it stops.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined
from mmu.trace.accesses import Accesses, made, room
from mmu.trace.blocks import Bytes, Words
from mmu.trace.format import Raw
from mmu.trace.notes import Notes

LONGEST_LINE = 4 << 20  # bytes
RECORDS = 1 << 18  # of one part
PADDING = 16  # bytes after the text: a line's first ones are looked at together

NEWLINE, SPACE, COMMA = ord("\n"), ord(" "), ord(",")
ZERO, NINE = ord("0"), ord("9")
LETTER_A, LETTER_F, LOWER_CASE = ord("a"), ord("f"), 0x20

# Fields of `place`, where a reader of lines has got to, and how many lines it has passed over.
POSITION, RECORD, LINE, PASSED, PLACE_FIELDS = range(5)

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
        a line begins. It returns END, FULL (no room in `out`), or one of `reasons`.
    reasons : mapping of int to str
        Why a line is refused.
    where : str
        What messages call the input.
    notes : Notes
        Where processes get their spaces, and what is passed over is counted.
    passed : str
        What the lines are that are passed over.
    processes, threads : bool
        The format tells them.
    """

    def __init__(
        self,
        parse: Parse,
        reasons: Mapping[Any, str],
        where: str,
        notes: Notes,
        passed: str = "empty lines",
        processes: bool = False,
        threads: bool = False,
    ) -> None:
        self.parse, self.reasons, self.where, self.notes = parse, reasons, where, notes
        self.passed = passed
        self.processes, self.threads = processes, threads
        self.text = np.zeros(2 * LONGEST_LINE + PADDING, np.uint8)
        self.filled = 0  # bytes of `text` that wait
        self.place = np.zeros(PLACE_FIELDS, np.int64)

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
        self.place[POSITION] = 0
        status = FULL if end else END
        while status == FULL:
            out = room(RECORDS, self.processes, self.threads)
            self.place[RECORD] = 0
            status = self.parse(self.text, end, out, self.place)
            records = int(self.place[RECORD])
            self.notes.pass_over(self.passed, int(self.place[PASSED]))
            self.place[PASSED] = 0
            spaces = self.notes.spaces_of(out.process[:records], self.where)
            yield made(out, records, spaces)
        if status != END:
            self.refuse(self.reasons[status], int(self.place[POSITION]), end)
        self.text[: self.filled - end] = self.text[end : self.filled].copy()
        self.filled -= end
        if self.filled > LONGEST_LINE:
            self.refuse(f"a line of more than {LONGEST_LINE >> 20} MiB", 0, self.filled)

    def finish(self) -> None:
        """Refuse a last line that does not end."""
        if self.filled:
            self.refuse("the line is cut off: take it out", 0, self.filled)

    def refuse(self, reason: str, start: int, end: int) -> None:
        """Raise the error for the line that begins at `start`."""
        line = self.text[start : min(end, start + 200)].tobytes().split(b"\n", 1)[0]
        content = repr(line[:60])[1:] + ("..." if len(line) > 60 else "")
        raise InputError(f"{self.where}: line {int(self.place[LINE]) + 1}: {content}: {reason}")


def read_lines(reader: LineReader, pieces: Iterable[bytes]) -> Iterator[Raw]:
    """Yield the accesses of a text that comes in pieces of any length."""
    for piece in pieces:
        for begin in range(0, len(piece), LONGEST_LINE):
            yield from reader.read(piece[begin : begin + LONGEST_LINE])
    reader.finish()
