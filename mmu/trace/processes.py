"""Puts the logs of several processes, which arrive at the same time, into one trace.

Each address space gets a number, in order of appearance: a new process has one, and so has a process
that runs another program, as its address space is new. Lines that take turns are not written so: a
change of space ends a block. A space's accesses wait until there are whole blocks of them, and come
in the order in which these get full; what waits in a space that was silent since before the first of
them comes first. So the order is that of arrival, but for less than a few blocks of each space.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from mmu.errors import InputError
from mmu.trace import lackey
from mmu.trace.format import Raw, rows
from mmu.trace.kinds import BLOCK
from mmu.trace.lackey import read_lackey
from mmu.trace.lines import LONGEST_LINE
from mmu.trace.notes import MOST_NAMED, MOST_SPACES, Notes
from mmu.trace.source import Source

ENOUGH = 1 << 17  # bytes of text that are looked at together: 9,000 accesses or so
SILENCE = (0, b"")  # a message that says that nothing has come for a while
# What lackey begins with in each program that it runs.
BANNER = re.compile(rb"^==\d+== Lackey, ", re.MULTILINE)


@dataclass
class Space:
    """An address space, and what of its accesses waits."""

    number: int
    process: int
    text: list[bytes] = field(default_factory=list)  # whole lines
    size: int = 0  # bytes of `text`
    first: int = 0  # when the first byte of `text` came, in messages
    last: int = 0  # when the last byte came
    rest: Raw | None = None  # accesses, less than a block


class Processes:
    """The address spaces of a recording.

    Parameters
    ----------
    where : str
        What messages call the recording.
    notes : Notes
        Gets ``processes``: number, command and count of accesses of each space.
    """

    def __init__(self, where: str, notes: Notes) -> None:
        self.where, self.notes = where, notes
        self.spaces: dict[int, Space] = {}  # the present ones by process
        self.waiting: dict[int, Space] = {}  # those with anything that waits, by number
        self.known: list[dict[str, int | str]] = []
        self.unfinished: dict[int, bytes] = {}  # by process, the beginning of a line
        self.count = 0
        notes.said["processes"] = self.known
        notes.said["order"] = "of arrival, in blocks"

    def merged(self, messages: Iterable[tuple[int, bytes]]) -> Iterator[Raw]:
        """Yield the accesses of processes whose texts come in turns."""
        for now, (process, text) in enumerate(messages):
            if not text:
                yield from self.all_that_waits()
                continue
            lines = self.whole_lines(process, text)
            begun = [found.start() for found in BANNER.finditer(lines)]
            for start, end in pairwise([0, *begun, len(lines)]):
                space = self.spaces.get(process)
                if start == end:
                    continue
                if space is None or start in begun:
                    if space is not None:
                        yield from self.complete(space)
                    space = self.spaces[process] = self.new(process)
                yield from self.grown(space, lines[start:end], now)
        yield from self.all_that_waits()
        self.notes.pass_over("lines that do not end", len(self.unfinished))

    def whole_lines(self, process: int, text: bytes) -> bytes:
        """Return a process's lines that have come to their ends; the rest of the last one waits."""
        text = self.unfinished.pop(process, b"") + text
        end = text.rfind(b"\n") + 1
        if end < len(text):
            self.unfinished[process] = text[end:]
        if len(text) - end > LONGEST_LINE:
            raise InputError(
                f"{self.where}: process {process} wrote a line of more than "
                f"{LONGEST_LINE >> 20} MiB, which is not a lackey record"
            )
        return text[:end]

    def all_that_waits(self) -> Iterator[Raw]:
        """Yield what waits in any space, the one that was silent longest first."""
        for space in sorted(self.waiting.values(), key=lambda space: space.last):
            yield from self.complete(space)

    def new(self, process: int) -> Space:
        """Return the next address space."""
        if self.count == MOST_SPACES:
            raise InputError(
                f"{self.where}: process {process} begins address space {MOST_SPACES + 1:,}; "
                f"accepted: up to {MOST_SPACES:,}; record a part of it, or without children"
            )
        self.count += 1
        if self.count <= MOST_NAMED:
            self.known.append({"process": process, "command": "", "accesses": 0})
        return Space(self.count - 1, process)

    def grown(self, space: Space, text: bytes, now: int) -> Iterator[Raw]:
        """Add text to a space; yield whole blocks if there is enough of it."""
        self.waiting[space.number] = space
        if not space.text:
            space.first = now
        space.text.append(text)
        space.size += len(text)
        space.last = now
        if space.size >= ENOUGH:
            for other in list(self.waiting.values()):
                if other.last < space.first:
                    yield from self.complete(other)
            yield from self.taken(space, last=False)

    def complete(self, space: Space) -> Iterator[Raw]:
        """Yield all that waits in a space."""
        yield from self.taken(space, last=True)
        self.waiting.pop(space.number, None)

    def taken(self, space: Space, last: bool) -> Iterator[Raw]:
        """Yield what a space's text holds, in whole blocks unless these are the last."""
        text = b"".join(space.text)
        space.text, space.size = [], 0
        where = f"{self.where}: process {space.process}, lines that came together"
        source = Source(where, b"", iter([text]), notes=self.notes)
        parts = [part for part in read_lackey(source) if len(part.kind)]
        self.describe(space, text)
        if space.rest is not None:
            parts.insert(0, space.rest)
        space.rest = None
        made = sum(len(part.kind) for part in parts)
        left = 0 if last else made % BLOCK
        if made == 0:
            return
        whole = Raw(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in Raw._fields[:3])
        )
        if left:
            space.rest = rows(whole, made - left, made)
        if made > left:
            if space.number < len(self.known):
                known = self.known[space.number]
                known["accesses"] = int(known["accesses"]) + made - left
            number = np.full(made - left, space.number, np.uint16)
            yield rows(whole, 0, made - left)._replace(space=number)

    def describe(self, space: Space, text: bytes) -> None:
        """Note which program a space runs, or which it was forked from."""
        if space.number < len(self.known) and not self.known[space.number]["command"]:
            said = lackey.recording(text[: 1 << 13])
            self.known[space.number]["command"] = said.get("command", "(forked)")
