"""Who ran when, as plain values: what `mmu.watch` saw and `mmu.gantt` draws."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from mmu.files import Table

IDLE, GOING_ON = "idle", "going on"
COLUMNS = ["vm", "process", "space", "begin", "end", "accesses", "why", "lp", "vcpu"]


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
    lp, vcpu : int
        The logical processor, and which of its machine's virtual ones ran there.
    """

    vm: str
    process: str
    space: int
    begin: int
    end: int
    accesses: int
    why: str
    lp: int = 0
    vcpu: int = 0


@dataclass(frozen=True)
class Slices:
    """What was seen of a run, and whether that was all.

    Attributes
    ----------
    rows : list of tuple
        Names of all machines and processes, in turn order, whether they were seen or not.
    slices : list of Slice
        In order of their beginnings; those of one logical processor do not overlap.
    frequency_hz : int
        Cycles in a second.
    whole : bool
        The run ended while it was watched.
    lps : int
        Logical processors.
    """

    rows: list[tuple[str, str]]
    slices: list[Slice]
    frequency_hz: int
    whole: bool
    lps: int = 1

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
            "lps": self.lps,
            "rows": [list(row) for row in self.rows],
            "slices": [dict(zip(COLUMNS, each, strict=True)) for each in self.slices],
        }
