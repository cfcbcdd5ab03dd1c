"""Why a translation is stale: which entry changed since, and what would have dropped what came of it."""

from typing import Any, NamedTuple

from mmu.paging import Ept
from mmu.translation import Step, Translation

# Accessed and dirty bits, of any format of tables; a dirty bit that is cleared is a change as well.
MARKS = {"guest": 3 << 5, "nested": 3 << 5 | 3 << 8}
DIRTY = {"guest": 1 << 6, "nested": 1 << 6 | 1 << 9}
Key = tuple[int, int, int]


class Change(NamedTuple):
    """An entry that is no longer what it was when a translation was cached."""

    dimension: str
    text: str


class History:
    """The entries that translations came of, when they were last made."""

    def __init__(self) -> None:
        self._steps: dict[tuple[Key, int, int], tuple[int, tuple[Step, ...]]] = {}
        self._noted = 0

    def note(self, key: Key, gva: int, made: Translation) -> None:
        """Remember what a translation came of, if it is another than before."""
        size = made.page_size or 1
        used = [s._replace(entry=made.updates.get(s.address, s.entry)) for s in made.steps]
        self._noted += 1
        self._steps[key, size, gva % (1 << 64) // size] = self._noted, tuple(used)

    def change(self, key: Key, gva: int, now: Translation) -> Change | None:
        """Return the first entry that has changed since the translation of an address was made.

        `now` is what the tables say. Of pages of several sizes the one that was made last counts.
        """
        sizes = (1 << 12, 1 << 21, 1 << 30)
        made = [
            self._steps[key, size, gva // size]
            for size in sizes
            if (key, size, gva // size) in self._steps
        ]
        entries = {step.address: step for step in now.steps}
        for _, then in sorted(made, key=lambda noted: -noted[0]):
            for step in then:
                found = entries.get(step.address)
                if found is None:
                    continue
                marks, cleaned = MARKS[step.dimension], step.entry & ~found.entry
                if (found.entry ^ step.entry) & ~marks or cleaned & DIRTY[step.dimension]:
                    return Change(
                        step.dimension,
                        f"the {step.dimension} entry of level {step.level} at {step.address:#x} was "
                        f"{step.entry:#x} and is {found.entry:#x}",
                    )
        return None


def remedy(mode: Any, pcide: bool, gva: int, dimension: str | None, shared: bool) -> str:
    """Say which instruction drops what is cached of a page.

    mode: what runs, with `vm_id`, `nested` and `cr3`; dimension: "guest" or "nested", where known;
    shared: the translation is global, which INVPCID of a PCID keeps.
    """
    guest = f"INVLPG {gva:#x}"
    if pcide and not shared:
        guest += f", or INVPCID of PCID {(mode.cr3 or 0) & 0xFFF},"
    if mode.nested is None or dimension == "guest":
        return guest
    nested = f"TLB_CONTROL 3 for ASID {mode.vm_id}"
    if isinstance(mode.nested, Ept):
        nested = f"INVEPT 1 of EPTP {mode.nested.eptp:#x}"
    return nested if dimension else f"{nested}, or {guest} if the guest changed its tables,"
