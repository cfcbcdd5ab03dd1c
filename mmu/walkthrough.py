"""A walk told step by step: every table read by name, what it led to, and why the walk ended.

All of it is worked out from what `mmu.translate` returns, and from the formats of the manuals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from mmu.ending import Ending, ending_of
from mmu.entrybits import ENTRY_NAMES, SIZE_NAMES, TABLE_NAMES, EntryFormat
from mmu.files import Table
from mmu.hardware.bits import LEVELS, OFFSET_MASK, WORD_BYTES
from mmu.hardware.entry import ADDRESS
from mmu.hardware.outcome import Outcome
from mmu.indices import page_bytes, reach, table_index
from mmu.memory import Memory
from mmu.paging import Control, Ept, Npt
from mmu.translation import USUAL, Translation, signed, translate

COLUMNS = [
    "reference", "row", "label", "dimension", "level", "name", "gpa", "table_gpa", "table_maddr",
    "index", "maddr", "entry", "bits", "sets", "leads_to", "ended",
]  # fmt: skip


@dataclass(frozen=True)
class Read:
    """One table read.

    Attributes
    ----------
    number : int
        Its place in the order of references, from 1.
    row : int
        Which guest-physical address it serves, from 0: that of the guest's root entry; the last is
        that of the data.
    dimension : {"guest", "nested"}
        Whose table it is; "guest" without nesting.
    level : int
        1 is the last, 4 or 5 the root.
    name : str
        The entry's, in the manuals' terms: ``"guest PDE"``, ``"EPT PTE"``.
    gpa : int or None
        Guest-physical address of the guest's entry, or that which the nested entry translates; None
        without nesting.
    address : int
        Machine address of the entry.
    index : int
        Which of its table's 512 entries it is.
    entry : int
        64 bits, unsigned, as they were read.
    bits : tuple of str
        Names of the bits that are set, but the address; ``("not present",)``.
    grants : str
        What the entry permits, out of ``RWXU``.
    sets : tuple of str
        Bits that the access sets in it: ``"A"``, ``"D"``.
    leaf : bool
        It maps a page.
    target : int or None
        Address of the table or page that it leads to, guest-physical in a guest's entry.
    leads_to : str
        The same in words, or why it leads nowhere.
    ended : bool
        The walk ended here, in a fault.
    """

    number: int
    row: int
    dimension: str
    level: int
    name: str
    gpa: int | None
    address: int
    index: int
    entry: int
    bits: tuple[str, ...]
    grants: str
    sets: tuple[str, ...]
    leaf: bool
    target: int | None
    leads_to: str
    ended: bool

    @property
    def label(self) -> str:
        """The short name of textbooks: ``G4``, ``N1``."""
        return f"{'N' if self.dimension == 'nested' else 'G'}{self.level}"

    @property
    def table(self) -> int:
        """Machine address of the table."""
        return self.address & ~OFFSET_MASK

    @property
    def table_gpa(self) -> int | None:
        """Guest-physical address of a guest's table under nesting."""
        if self.gpa is None or self.dimension == "nested":
            return None
        return self.gpa & ~OFFSET_MASK


class Place(NamedTuple):
    """Where a walk stands between two reads.

    Attributes
    ----------
    row : int
        As of `Read`.
    label : str
        Short name of the entry that comes next; empty for the data.
    address : int
        Machine address of that entry, or of the data.
    gpa : int or None
        Its guest-physical address, or that which is being translated; None without nesting.
    """

    row: int
    label: str
    address: int
    gpa: int | None


@dataclass(frozen=True)
class Walkthrough:
    """What `explain` returns: the question, every table read, and how it ended.

    Attributes
    ----------
    gva, cr3, nested, control, access, user
        The question, as `mmu.translate` takes it; `gva` unsigned.
    translation : Translation
        The answer.
    reads : tuple of Read
        The table reads, in order.
    reached : Place
        What the last entry led to: the data, or where the entry stands that is not in memory or out
        of reach.
    ending : Ending
        How it ended, and why.
    """

    gva: int
    cr3: int
    nested: Ept | Npt | None
    control: Control
    access: str
    user: bool
    translation: Translation
    reads: tuple[Read, ...]
    reached: Place
    ending: Ending

    @property
    def levels(self) -> int:
        """Levels of the guest's tables."""
        return LEVELS + self.control.la57

    @property
    def nested_levels(self) -> int:
        """Levels of nested tables, 0 without."""
        return self.nested.levels if self.nested else 0

    @property
    def format(self) -> str:
        """Name of the nested format: ``EPT``, ``NPT``, or nothing."""
        return {Ept: "EPT", Npt: "NPT"}.get(type(self.nested), "")

    @property
    def stop(self) -> tuple[int, str] | None:
        """Row and label of the entry where a walk ended that found no page; None if it read nothing."""
        if self.translation.outcome in (Outcome.OK, Outcome.NOT_CANONICAL):
            return None
        if self.reads and self.reads[-1].ended:
            return self.reads[-1].row, self.reads[-1].label
        return self.reached.row, self.reached.label

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values; addresses and entries as hexadecimal text."""
        t, nested = self.translation, self.nested
        pointer = nested.eptp if isinstance(nested, Ept) else nested.ncr3 if nested else None
        codes = ("error_code", "exit_qualification", "exit_info", "fault_gpa")
        steps = [dict(zip(COLUMNS, row, strict=True)) for row in self._rows()]
        for step, read in zip(steps, self.reads, strict=True):
            step |= {"bits": list(read.bits), "sets": list(read.sets), "ended": read.ended}
        return {
            "kind": "walk",
            "gva": hexadecimal(self.gva),
            "access": self.access,
            "user": self.user,
            "cr3": hexadecimal(self.cr3),
            "nested": self.format or None,
            {"EPT": "eptp", "NPT": "ncr3"}.get(self.format, "root"): hexadecimal(pointer),
            "levels": self.levels,
            "nested_levels": self.nested_levels,
            "control": dict(vars(self.control)),
            "outcome": t.outcome.name,
            "title": self.ending.title,
            "reason": self.ending.reason,
            "gpa": hexadecimal(t.gpa),
            "maddr": hexadecimal(t.maddr),
            "page_size": t.page_size,
            "guest_page_size": t.guest_page_size,
            "nested_page_size": t.nested_page_size,
            "rights": self.ending.rights,
            **{name: hexadecimal(getattr(t, name)) for name in codes},
            "references": t.references,
            "updates": {hexadecimal(at): hexadecimal(new) for at, new in t.updates.items()},
            "steps": steps,
        }

    def table(self) -> Table:
        """Return a row for each table read."""
        return Table(COLUMNS, list(self._rows()))

    def _rows(self) -> Iterator[list[Any]]:
        for read in self.reads:
            yield [
                read.number, read.row, read.label, read.dimension, read.level, read.name,
                hexadecimal(read.gpa), hexadecimal(read.table_gpa), hexadecimal(read.table),
                read.index, hexadecimal(read.address), f"{read.entry:#018x}", " ".join(read.bits),
                " ".join(read.sets), read.leads_to, int(read.ended),
            ]  # fmt: skip


def hexadecimal(value: int | None) -> str | None:
    """Return an address as text; None stays."""
    return None if value is None else f"{value:#x}"


def explain(
    memory: Memory,
    gva: int,
    *,
    cr3: int,
    nested: Ept | Npt | None = None,
    access: str = "read",
    user: bool = True,
    control: Control = USUAL,
) -> Walkthrough:
    """Translate an address as `mmu.translate` does, and tell every step; memory is not changed.

    Parameters
    ----------
    memory, gva, cr3, nested, access, user, control
        As of `mmu.translate`.

    Returns
    -------
    Walkthrough
        Every table read by name, and why the walk ended.

    Raises
    ------
    InputError
        As `mmu.translate`.

    Examples
    --------
    >>> example = mmu.example_tables("4k", "2m")
    >>> walk = mmu.explain(example.memory, example.gva, cr3=example.cr3, nested=example.nested)
    >>> [read.name for read in walk.reads][:4]
    ['EPT PML4E', 'EPT PDPTE', 'EPT PDE', 'guest PML4E']
    """
    found = translate(
        memory, gva, cr3=cr3, nested=nested, access=access, user=user, control=control
    )
    question = (signed(int(gva)), int(cr3), nested, access, control)
    reads, reached = _reads(found, *question)
    ending = ending_of(found, int(gva), reads, reached, nested, control, access, user)
    address = int(gva) % (1 << 64)
    return Walkthrough(
        address, int(cr3), nested, control, access, user, found, tuple(reads), reached, ending
    )


def _reads(
    found: Translation,
    gva: int,
    cr3: int,
    nested: Ept | Npt | None,
    access: str,
    control: Control,
) -> tuple[list[Read], Place]:
    """Follow the steps of a translation; returns the reads, and which would have come next."""
    guest = EntryFormat.of_guest(control, nested)
    form = EntryFormat.of_nested(control, nested) if nested else guest
    root, depth = (nested.root, nested.levels) if nested else (0, 0)
    level, row, data = LEVELS + control.la57, 0, False
    gpa = (cr3 & ADDRESS) + WORD_BYTES * table_index(gva, level)
    # The nested walk under way has `below` levels left; with none, `where` is the machine address.
    below, where = depth, root if nested else gpa
    reads: list[Read] = []
    for number, step in enumerate(found.steps, 1):
        inner = step.dimension == "nested"
        own, at, entry = (form, below, step.entry) if inner else (guest, level, step.entry)
        ended = number == len(found.steps) and _stopped(found, inner, depth)
        leaf = own.present(entry) and own.leaf(entry, at)
        sound = own.present(entry) and not own.problems(entry, at)
        within = page_bytes(at) - 1 if leaf else OFFSET_MASK
        target = entry & ADDRESS & ~within if sound else None
        marks = 0 if ended else own.accessed
        if leaf and not ended and (access == "write" or (inner and not data)):
            marks |= own.dirty  # to a guest's table every access is a write, if there are such bits
        new = marks & ~entry
        reads.append(
            Read(
                number, row, step.dimension, at,
                f"{(form.name if inner else 'guest') if nested else ''} {ENTRY_NAMES[at]}".strip(),
                gpa if nested else None, step.address,
                table_index(gpa if inner else gva, at), entry, own.bits(entry, at),
                own.grants(entry) if own.present(entry) else "",
                tuple(name for name, bit in (("A", own.accessed), ("D", own.dirty)) if new & bit),
                leaf, target, "" if target is None else _leads(own, nested, at, leaf, target), ended,
            )
        )  # fmt: skip
        if target is None or ended:
            break
        if inner:
            below, where = (0, target | gpa & within) if leaf else (at - 1, target)
            continue
        row += 1
        data = leaf
        if leaf:
            gpa = target | gva & within
        else:
            level -= 1
            gpa = target + WORD_BYTES * table_index(gva, level)
        below, where = depth, root if nested else gpa
    if below:
        return reads, Place(row, f"N{below}", where + WORD_BYTES * table_index(gpa, below), gpa)
    return reads, Place(row, "" if data else f"G{level}", where, gpa if nested else None)


def _stopped(found: Translation, inner: bool, depth: int) -> bool:
    """Tell whether the walk ended in the last entry that it read, and not on the way from it."""
    if found.outcome == Outcome.NESTED_VIOLATION and not inner:
        # Either a bit of it could not be set, or what it points to is beyond the nested tables.
        return not (found.fault_gpa or 0) >> reach(depth)
    return found.outcome not in (Outcome.OK, Outcome.NO_MEMORY)


def _leads(own: EntryFormat, nested: object, level: int, leaf: bool, target: int) -> str:
    """Say what an entry points to."""
    of_guest = nested is not None and not own.name
    what = f"{SIZE_NAMES[level]} page" if leaf else TABLE_NAMES[level - 1]
    return f"{what} at {'gpa ' if of_guest else ''}{target:#x}"
