"""What the readers of textual page maps share: numbers, and pieces that end between words."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined
from mmu.trace.pagemap.pages import Bytes, Words

LONGEST = 1 << 20  # bytes of a line or a word
RECORDS = 1 << 17  # of one part
PADDING = 32  # zeros after the text, so that a look ahead stays inside

NEWLINE, SPACE, TAB, RETURN = ord("\n"), ord(" "), ord("\t"), ord("\r")
ZERO, NINE, LETTER_A, LETTER_F, LETTER_X = ord("0"), ord("9"), ord("a"), ord("f"), ord("x")
LOWER_CASE = 0x20
LARGEST = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

# Fields of `place` that all readers have: where reading has got to.
POSITION, RECORD, LINE, FIELDS = 0, 1, 2, 3

# How reading a piece of text ended; a reader's own faults come after these.
END, FULL, FIRST_FAULT = 0, 1, 2


@inlined
def digit(letter: int, base: int) -> int:
    """Return what a letter stands for as a digit of a base, or -1."""
    value = np.int64(-1)
    if ZERO <= letter <= NINE:
        value = np.int64(letter) - ZERO
    elif LETTER_A <= (letter | LOWER_CASE) <= LETTER_F:
        value = np.int64(letter | LOWER_CASE) - LETTER_A + 10
    return value if value < base else -1  # type: ignore[return-value]


@inlined
def unsigned(text: Bytes, here: int, base: int) -> tuple[np.uint64, int]:
    """Return the number of up to 64 bits at `here`, and where it ends: `here` if none is there.

    It ends before a digit that would make it longer than 64 bits: no reader goes on from there.
    """
    value, radix = np.uint64(0), np.uint64(base)
    most, last = LARGEST // radix, LARGEST % radix
    while True:
        found = digit(text[at(here)], base)
        if found < 0 or value > most or (value == most and np.uint64(found) > last):
            return value, here
        value = value * radix + np.uint64(found)
        here += 1


@inlined
def number(text: Bytes, here: int) -> tuple[np.uint64, int]:
    """Return the number at `here`, hexadecimal after 0x and else decimal, and where it ends."""
    if text[at(here)] == ZERO and (text[at(here + 1)] | LOWER_CASE) == LETTER_X:
        value, end = unsigned(text, here + 2, 16)
        return value, end if end > here + 2 else here
    return unsigned(text, here, 10)


class TextReader:
    """Feeds text to a kernel in pieces that end after `mark`, and says what is wrong where.

    Parameters
    ----------
    where : str
        What messages call the file.
    parse : callable
        Reads ``parse(text, end)`` from and to `place`, and returns how that ended.
    fields : int
        Of `place`.
    reasons : sequence of str
        What the statuses from `FIRST_FAULT` on mean.
    marks : bytes
        A piece can end after any of these.
    """

    def __init__(
        self,
        where: str,
        parse: Callable[[Bytes, int], int],
        fields: int,
        reasons: tuple[str, ...],
        marks: bytes = b"\n",
    ) -> None:
        self.where, self.parse, self.reasons, self.marks = where, parse, reasons, marks
        self.text = np.zeros(2 * LONGEST + PADDING, np.uint8)
        self.filled = 0  # bytes of `text` that wait
        self.place: Words = np.zeros(fields, np.int64)

    def read(self, pieces: Iterable[bytes]) -> Iterator[int]:
        """Yield how many records have been made, each time that there are some.

        Raises
        ------
        InputError
            The text is not of this format; the message has line and content.
        """
        for piece in pieces:
            for begin in range(0, len(piece), LONGEST):
                yield from self._take(piece[begin : begin + LONGEST])
        if self.filled:
            yield from self._take(b"\n")  # the last line may lack its end

    def _take(self, piece: bytes) -> Iterator[int]:
        self.text[self.filled : self.filled + len(piece)] = np.frombuffer(piece, np.uint8)
        cut = max(piece.rfind(mark) for mark in (bytes([m]) for m in self.marks))
        end = self.filled + cut + 1 if cut >= 0 else 0
        self.filled += len(piece)
        self.place[POSITION] = 0
        status = FULL if end else END
        while status == FULL:
            self.place[RECORD] = 0
            status = self.parse(self.text, end)
            if self.place[RECORD]:
                yield int(self.place[RECORD])
        if status != END:
            self.refuse(self.reasons[status - FIRST_FAULT], int(self.place[POSITION]))
        self.text[: self.filled - end] = self.text[end : self.filled].copy()
        self.filled -= end
        if self.filled > LONGEST:
            self.refuse(f"no end within {LONGEST:,} bytes", 0)

    def refuse(self, reason: str, start: int) -> None:
        """Raise the error for what begins at `start`."""
        line = self.text[start : min(self.filled, start + 200)].tobytes().split(b"\n", 1)[0]
        content = repr(line[:60])[1:] + ("..." if len(line) > 60 else "")
        raise InputError(f"{self.where}: line {int(self.place[LINE]) + 1}: {content}: {reason}")
