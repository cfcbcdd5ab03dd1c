"""When the naive model's cycles pass: walks under way beside each other, and who waits for them.

A walk's timeline is the list of what it does, in order: (cause, cycles).
"""

from dataclasses import dataclass

from naive_cache import Entry
from naive_counters import Counters
from naive_words import page_number

Timeline = list[tuple[str, int]]


def length(timeline: Timeline) -> int:
    return sum(cycles for _, cycles in timeline)


def from_offset(timeline: Timeline, offset: int) -> Timeline:
    """Return what is left of a timeline after its first `offset` cycles."""
    left = []
    begin = 0
    for cause, cycles in timeline:
        end = begin + cycles
        if end > offset:
            left.append((cause, end - max(begin, offset)))
        begin = end
    return left


@dataclass(eq=False)
class UnderWay:
    """A walk that has begun and whose end the processor has not come to."""

    row: int
    begin: int
    end: int
    timeline: Timeline
    instruction: int  # that began it
    entry: Entry  # that it found

    def leads_to(self, context: object, gva: int) -> bool:
        page = page_number(gva, self.entry.size)
        return self.entry.key() == (context, self.entry.size, page)


class Window:
    """The walkers of one processor, which goes on beside them by a number of instructions."""

    def __init__(self, counters: Counters, walkers: int, window: int) -> None:
        self.counters, self.walkers, self.window = counters, walkers, window
        self.walks: list[UnderWay] = []  # in the order in which they began
        self.instruction = -1  # before the block's first

    def begin_block(self) -> None:
        self.instruction = -1

    def begin_instruction(self, row: int) -> None:
        self.instruction += 1
        while any(self.instruction - walk.instruction > self.window for walk in self.unfinished()):
            self.wait_for(self.first_to_end())
        self.counters.spend(row, "base", self.counters.cost("INSTRUCTION"))

    def walk(self, row: int, timeline: Timeline, entry: Entry, is_fetch: bool) -> None:
        while len(self.unfinished()) >= self.walkers:
            self.wait_for(self.first_to_end())
        begin = self.counters.clock
        end = begin + length(timeline)
        new = UnderWay(row, begin, end, timeline, self.instruction, entry)
        self.walks.append(new)
        if is_fetch or self.window == 0:  # without a window even this instruction's data wait
            while new in self.unfinished():
                self.wait_for(self.first_to_end())

    def fetch_was_answered_by_l2(self, context: object, gva: int) -> None:
        while any(walk.leads_to(context, gva) for walk in self.unfinished()):
            self.wait_for(self.first_to_end())

    def wait_for_all(self) -> None:
        """Wait before a fault, and at the end of a block."""
        while self.unfinished():
            self.wait_for(self.first_to_end())

    def unfinished(self) -> list[UnderWay]:
        self.walks = [walk for walk in self.walks if walk.end > self.counters.clock]
        return self.walks

    def first_to_end(self) -> UnderWay:
        """Return who ends first; of several the one that began first."""
        return min(self.walks, key=lambda walk: walk.end)

    def wait_for(self, walk: UnderWay) -> None:
        """Let the time pass until it ends, on account of what it is doing."""
        for cause, cycles in from_offset(walk.timeline, self.counters.clock - walk.begin):
            self.counters.spend(walk.row, cause, cycles)
