"""Writes accesses as lines of text, in the formats that are one line an access."""

from enum import IntEnum

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Bytes, Counts, Integer, Words
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, KIND_NAMES

LONGEST = 64  # bytes of a line: CSV takes 2 + 16 + 5 + 5 + 5 + 10, and commas between
LACKEY_DIGITS = 8  # of an address, at least

NEWLINE, SPACE, COMMA = ord("\n"), ord(" "), ord(",")
ZERO, LETTER = ord("0"), ord("a") - 10
# By kind: read, write, fetch.
DIN_LABELS = np.frombuffer(b"012", np.uint8).copy()
EXTENDED_LABELS = np.frombuffer(b"rwi", np.uint8).copy()
LACKEY_LABELS = np.frombuffer(b"LSI", np.uint8).copy()
WORDS = np.frombuffer("".join(f"{name:6}" for name in KIND_NAMES).encode(), np.uint8).copy()
WORD = 6  # bytes of `WORDS` a kind


class Style(IntEnum):
    """What a line looks like."""

    DIN = 0
    DIN_EXTENDED = 1
    LACKEY = 2
    CSV = 3


@inlined
def put_hexadecimal(text: Bytes, here: int, value: Integer, least: int) -> int:
    """Write a number of at least so many hexadecimal digits; return where it ends."""
    digits = least
    while digits < 16 and value >> 4 * digits & 0xFFFF_FFFF_FFFF_FFF != 0:
        digits += 1
    for place in range(digits):
        digit = value >> 4 * (digits - 1 - place) & 0xF
        text[at(here + place)] = digit + (ZERO if digit < 10 else LETTER)
    return here + digits


@inlined
def put_decimal(text: Bytes, here: int, value: Integer) -> int:
    """Write a number that is not negative; return where it ends."""
    digits, rest = 1, value // 10
    while rest > 0:
        digits, rest = digits + 1, rest // 10
    rest = value
    for place in range(digits):
        text[at(here + digits - 1 - place)] = ZERO + rest % 10
        rest //= 10
    return here + digits


@inlined
def put_word(text: Bytes, here: int, kind: int) -> int:
    """Write a kind's name; return where it ends."""
    for letter in range(WORD * kind, WORD * kind + WORD):
        if WORDS[at(letter)] == SPACE:
            break
        text[at(here)] = WORDS[at(letter)]
        here += 1
    return here


@kernel
def write_lines(
    text: Bytes,
    style: int,
    address: Words,
    kind: Bytes,
    size: Counts,
    space: Words,
    thread: Words,
) -> int:
    """Write a line for each access; return where they end. There must be room for the longest."""
    here = 0
    for i in range(len(kind)):
        what, start, length = kind[at(i)], address[at(i)], int(np.int64(size[at(i)]))
        if style == Style.CSV:
            text[at(here)], text[at(here + 1)] = ZERO, ord("x")
            here = put_hexadecimal(text, here + 2, start, 1)
            text[at(here)] = COMMA
            here = put_word(text, here + 1, what)
            text[at(here)] = COMMA
            here = put_decimal(text, here + 1, length)
            if len(space) > 0:
                text[at(here)] = COMMA
                here = put_decimal(text, here + 1, space[at(i)])
            if len(thread) > 0:
                text[at(here)] = COMMA
                here = put_decimal(text, here + 1, thread[at(i)])
        elif style == Style.LACKEY:
            fetch = what == FETCH
            text[at(here)] = LACKEY_LABELS[at(what)] if fetch else SPACE
            text[at(here + 1)] = SPACE if fetch else LACKEY_LABELS[at(what)]
            text[at(here + 2)] = SPACE
            here = put_hexadecimal(text, here + 3, start, LACKEY_DIGITS)
            text[at(here)] = COMMA
            here = put_decimal(text, here + 1, max(length, 1))
        else:
            text[at(here)] = (
                DIN_LABELS[at(what)] if style == Style.DIN else EXTENDED_LABELS[at(what)]
            )
            text[at(here + 1)] = SPACE
            here = put_hexadecimal(text, here + 2, start, 1)
            if style == Style.DIN_EXTENDED:
                text[at(here)] = SPACE
                here = put_hexadecimal(text, here + 1, max(length, 1), 1)
        text[at(here)] = NEWLINE
        here += 1
    return here


class TextWriter:
    """Turns parts of a raw trace into lines of one style."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.records = 0
        self.begun = False
        self.sizeless = False  # an access has no size

    def add(self, part: Raw) -> bytes:
        """Return the lines of a part; of the first one after the line that names the columns."""
        none = np.empty(0, np.int64)
        columns = [
            none if column is None else column.astype(np.int64)
            for column in (part.space, part.thread)
        ]
        size = np.zeros(len(part.kind), np.uint16) if part.size is None else part.size
        self.sizeless = self.sizeless or bool((size == 0).any())
        text = np.empty(len(part.kind) * LONGEST, np.uint8)
        end = write_lines(text, self.style, part.address.view(np.int64), part.kind, size, *columns)
        self.records += len(part.kind)
        begin = b"" if self.begun else self.heading(part)
        self.begun = True
        return begin + text[:end].tobytes()

    def heading(self, part: Raw) -> bytes:
        """Return the line that names the columns, where a style has one."""
        if self.style != Style.CSV:
            return b""
        streams = [name for name in ("space", "thread") if getattr(part, name) is not None]
        return (",".join(["address", "kind", "size", *streams]) + "\n").encode()

    def finish(self) -> bytes:
        """Return what ends the file."""
        return b""

    def remarks(self) -> list[str]:
        """Return what the user should know of the file."""
        if self.style == Style.DIN:
            return ["sizes of accesses are left out"]
        if self.style == Style.CSV or not self.sizeless:
            return []
        return ["sizes that are not known are written as 1"]
