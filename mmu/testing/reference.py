"""What the manuals say about translating one access, word for word, slowly.

A translation to compare other code with: a kernel, an emulator, a hypervisor's own page walker. It
imports NumPy and nothing of this package, shares no constant with it, and has no speed.

Sources: Intel SDM vol. 3, "4-Level Paging and 5-Level Paging", "Access Rights", "Page-Fault Exceptions",
"Accessed and Dirty Flags", "EPT Translation Mechanism", "EPT-Induced VM Exits", "Accessed and Dirty
Flags for EPT", "Exit Qualification for EPT Violations"; AMD64 APM vol. 2, "Nested Paging" and, for
bit 8 of PML4E and PDPE, "Long-Mode Page Translation".

Three choices the manuals leave open: accessed is set in a table's entry when the entry is used, even
if the walk then fails further down; in the last entry once the rights have passed; and an EPT
violation of an update of a guest entry reports a read and a write.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

TABLE_ADDRESS = 0x000F_FFFF_FFFF_F000
LOW = {1: (1 << 12) - 1, 2: (1 << 21) - 1, 3: (1 << 30) - 1}  # offset in a page, by leaf's level


class Outcome(IntEnum):
    """How a translation ends; names and numbers are those of `mmu.Outcome`."""

    OK = 0
    NOT_CANONICAL = 1
    PAGE_FAULT = 2
    NESTED_VIOLATION = 3
    NESTED_MISCONFIGURATION = 4
    NO_MEMORY = 5


@dataclass(frozen=True)
class Control:
    """Control registers, and what the processor has; as `mmu.Control`, which serves as well."""

    wp: bool = True
    nxe: bool = True
    smep: bool = False
    smap: bool = False
    ac: bool = False
    la57: bool = False
    gbpages: bool = True
    maxphyaddr: int = 48


@dataclass(frozen=True)
class Ept:
    """Nested tables in Intel's format; as `mmu.Ept`, which serves as well."""

    eptp: int
    execute_only: bool = True
    gbpages: bool = True


@dataclass(frozen=True)
class Npt:
    """Nested tables in AMD's format; as `mmu.Npt`, which serves as well."""

    ncr3: int
    nxe: bool = True
    levels: int = 4
    gbpages: bool = True


class Step(NamedTuple):
    """One table read."""

    dimension: str  # "guest" or "nested"
    level: int
    address: int  # machine address of the entry
    entry: int  # 64 bits, unsigned


@dataclass(frozen=True)
class Translation:
    """How an access ends; `mmu.Translation` says what the fields, which are the same, mean."""

    outcome: Outcome
    gpa: int | None
    maddr: int | None
    page_size: int | None
    guest_page_size: int | None
    nested_page_size: int | None
    error_code: int | None
    exit_qualification: int | None
    exit_info: int | None
    fault_gpa: int | None
    references: int
    steps: tuple[Step, ...]
    updates: dict[int, int]


FIELDS = tuple(field.name for field in fields(Translation))


# --- memory ----------------------------------------------------------------------------------------


class Readable(Protocol):
    """Machine memory as the walk sees it; addresses are multiples of eight."""

    def holds(self, address: int) -> bool:
        """Tell whether the word at an address lies in memory."""

    def read(self, address: int) -> int:
        """Return that word, unsigned."""

    def write(self, address: int, word: int) -> None:
        """Replace that word."""


class Words:
    """Machine memory: `size` bytes at `base`, zero but for the words of a dictionary."""

    def __init__(self, words: dict[int, int], base: int = 0, size: int = 1 << 52) -> None:
        self.words, self.base, self.size = words, base, size

    def holds(self, address: int) -> bool:
        """Tell whether the word at an address lies in memory."""
        return self.base <= address and address + 8 <= self.base + self.size

    def read(self, address: int) -> int:
        """Return that word."""
        return self.words.get(address, 0)

    def write(self, address: int, word: int) -> None:
        """Replace that word."""
        self.words[address] = word


class Array:
    """Machine memory: 64-bit words in an array, in runs.

    A run is the number (address divided by eight) of its first word, how many words it is, and the
    index of the first one in the array; -1 if all of it reads as zero.
    """

    def __init__(self, words: NDArray[Any], runs: Iterable[Iterable[int]] | None = None) -> None:
        self.words = words.view(np.uint64)
        runs = [(0, len(words), 0)] if runs is None else runs
        self.runs = [tuple(int(number) for number in run) for run in runs]

    def index(self, address: int) -> int | None:
        """Return where a word is in the array, -1 if it is zero; None if there is no such memory."""
        for first, count, index in self.runs:
            if first <= address // 8 < first + count:
                return index + address // 8 - first if index >= 0 else -1
        return None

    def holds(self, address: int) -> bool:
        """Tell whether the word at an address lies in memory."""
        return self.index(address) is not None

    def read(self, address: int) -> int:
        """Return that word."""
        index = self.index(address)
        return int(self.words[index]) if index is not None and index >= 0 else 0

    def write(self, address: int, word: int) -> None:
        """Replace that word, which is one of the array's."""
        self.words[self.index(address)] = word


def readable(memory: Any) -> Readable:
    """Return what the walk reads: of an array, a dictionary, an `mmu.Memory`, or already readable."""
    if hasattr(memory, "holds"):
        found: Readable = memory
        return found
    if isinstance(memory, Mapping):
        return Words(dict(memory))
    if isinstance(memory, np.ndarray):  # whose `base` is another thing
        return Array(memory)
    whole = [(memory.base // 8, len(memory.words), 0)]
    return Array(memory.words, getattr(memory, "extents", whole))


# --- the walk --------------------------------------------------------------------------------------


class Stop(Exception):
    """The walk ends here without a translation."""

    def __init__(self, outcome: Outcome, **found: int) -> None:
        super().__init__(outcome)
        self.outcome, self.found = outcome, found


class Backed(NamedTuple):
    """Where a guest-physical address lies."""

    maddr: int
    size: int | None  # bytes of its nested page; None without nesting
    writable: bool  # the nested entries permit writes
    rights: int  # bits 2:0 of all its EPT entries, ANDed


class Walk:
    """One access: what was read, what is marked, how it ends."""

    def __init__(
        self, memory: Readable, cr3: int, nested: Any, access: str, user: bool, control: Any
    ) -> None:
        self.memory, self.nested, self.control = memory, nested, control
        self.cr3, self.access, self.user = cr3, access, user
        self.is_ept, self.is_npt = hasattr(nested, "eptp"), hasattr(nested, "ncr3")
        self.marked: dict[int, int] = {}  # words that the walk changed
        self.steps: list[Step] = []

    def word(self, address: int) -> int:
        """Return the word at an address as the walk has left it."""
        marked = self.marked.get(address)
        return self.memory.read(address) if marked is None else marked

    def load(self, dimension: str, level: int, address: int) -> int:
        """Read an entry."""
        if not self.memory.holds(address):
            raise Stop(Outcome.NO_MEMORY)
        word = self.word(address)
        self.steps.append(Step(dimension, level, address, word))
        return word

    def mark(self, address: int, bits: int) -> None:
        """Set accessed and dirty bits of an entry."""
        word = self.word(address)
        if word | bits != word:
            self.marked[address] = word | bits

    # --- second level: a guest-physical address to a machine address -----------------------------

    def machine(self, gpa: int, reads: bool, writes: bool, fetches: bool, table: bool) -> Backed:
        """Translate a guest-physical address; `table`: it is that of a guest's entry."""
        if self.is_ept:
            return self.through_ept(gpa, reads, writes, fetches, table)
        if self.is_npt:
            return self.through_npt(gpa, writes, fetches, table)
        return Backed(gpa, None, True, 7)

    def through_ept(
        self, gpa: int, reads: bool, writes: bool, fetches: bool, table: bool
    ) -> Backed:
        """Translate a guest-physical address by Intel's tables."""
        eptp = self.nested.eptp
        keeps_dirty = bool(eptp & 0x40)
        if keeps_dirty and table:
            writes = True  # "are treated as writes"
        levels = (eptp >> 3 & 7) + 1
        if levels == 4 and gpa >> 48:
            self.violate(gpa, reads, writes, fetches, table, 0)
        where, rights = eptp & TABLE_ADDRESS, 7
        for level in range(levels, 0, -1):
            place = where + 8 * (gpa >> (12 + 9 * (level - 1)) & 511)
            entry = self.load("nested", level, place)
            if entry & 7 == 0:
                self.violate(gpa, reads, writes, fetches, table, 0)
            large = level > 1 and bool(entry >> 7 & 1)
            leaf = level == 1 or large
            if self.ept_is_misconfigured(entry, level, large, leaf):
                raise Stop(Outcome.NESTED_MISCONFIGURATION, fault_gpa=gpa)
            rights &= entry & 7
            if leaf:
                denied = (reads and not rights & 1) or (writes and not rights & 2)
                if denied or (fetches and not rights & 4):
                    self.violate(gpa, reads, writes, fetches, table, rights)
                if keeps_dirty:
                    self.mark(place, 0x300 if writes else 0x100)
                frame = entry & TABLE_ADDRESS & ~LOW[level]
                return Backed(frame | gpa & LOW[level], 1 + LOW[level], bool(rights & 2), rights)
            if keeps_dirty:
                self.mark(place, 0x100)
            where = entry & TABLE_ADDRESS
        raise AssertionError

    def ept_is_misconfigured(self, entry: int, level: int, large: bool, leaf: bool) -> bool:
        """Tell whether a present EPT entry holds what no processor accepts."""
        if entry & 7 in (2, 6) or (entry & 7 == 4 and not self.nested.execute_only):
            return True
        if large and (level > 3 or (level == 3 and not self.nested.gbpages)):
            return True  # bit 7 is reserved there
        for bit in range(self.control.maxphyaddr, 52):
            if entry >> bit & 1:
                return True
        if not leaf:
            return bool(entry & 0x78)
        if entry & LOW[level] & TABLE_ADDRESS:
            return True
        return entry >> 3 & 7 in (2, 3, 7)

    def violate(
        self, gpa: int, reads: bool, writes: bool, fetches: bool, table: bool, rights: int
    ) -> NoReturn:
        """End the walk in an EPT violation."""
        qualification = reads | writes << 1 | fetches << 2 | rights << 3 | 1 << 7
        if not table:
            qualification |= 1 << 8
        raise Stop(Outcome.NESTED_VIOLATION, exit_qualification=qualification, fault_gpa=gpa)

    def through_npt(self, gpa: int, writes: bool, fetches: bool, table: bool) -> Backed:
        """Translate a guest-physical address by AMD's tables: always as a user."""
        code = 1 << 2 | (1 << 33 if table else 1 << 32)
        if writes or table:
            writes, code = True, code | 1 << 1
        if fetches and not table and self.nested.nxe:
            code |= 1 << 4
        if gpa >> (48 if self.nested.levels == 4 else 57):
            raise Stop(Outcome.NESTED_VIOLATION, exit_info=code, fault_gpa=gpa)
        where = self.nested.ncr3 & TABLE_ADDRESS
        writable = user = executable = True
        for level in range(self.nested.levels, 0, -1):
            place = where + 8 * (gpa >> (12 + 9 * (level - 1)) & 511)
            entry = self.load("nested", level, place)
            if not entry & 1:
                raise Stop(Outcome.NESTED_VIOLATION, exit_info=code, fault_gpa=gpa)
            leaf = level == 1 or bool(entry >> 7 & 1)
            if self.x86_is_reserved(entry, level, leaf, self.nested.gbpages, self.nested.nxe):
                raise Stop(Outcome.NESTED_VIOLATION, exit_info=code | 1 | 1 << 3, fault_gpa=gpa)
            writable &= bool(entry & 2)
            user &= bool(entry & 4)
            executable &= not entry >> 63
            if leaf:
                denied = not user or (writes and not writable)
                if denied or (fetches and not table and not executable):
                    raise Stop(Outcome.NESTED_VIOLATION, exit_info=code | 1, fault_gpa=gpa)
                self.mark(place, 0x60 if writes else 0x20)
                frame = entry & TABLE_ADDRESS & ~LOW[level]
                return Backed(frame | gpa & LOW[level], 1 + LOW[level], writable, 7)
            self.mark(place, 0x20)
            where = entry & TABLE_ADDRESS
        raise AssertionError

    # --- first level: a virtual address to a guest-physical address -------------------------------

    def x86_is_reserved(self, entry: int, level: int, leaf: bool, gbpages: bool, nxe: bool) -> bool:
        """Tell whether a present x86-64 entry holds reserved bits."""
        for bit in range(self.control.maxphyaddr, 52):
            if entry >> bit & 1:
                return True
        if entry >> 63 and not nxe:
            return True
        if not leaf:
            # What would be the global bit is reserved by AMD, in tables of level 2 and more.
            return self.is_npt and level > 2 and bool(entry >> 8 & 1)
        if level == 1:
            return False
        if level > 3 or (level == 3 and not gbpages):
            return True  # PS is reserved there
        return bool(entry & LOW[level] & ~0x1FFF)  # bit 12 is PAT

    def guest(self, gva: int) -> tuple[int, int]:
        """Return the guest-physical address of gva, and the size of its page."""
        control = self.control
        levels = 5 if control.la57 else 4
        top = gva >> (12 + 9 * levels - 1)
        if top not in (0, (1 << (64 - (12 + 9 * levels - 1))) - 1):
            raise Stop(Outcome.NOT_CANONICAL)
        code = 0
        if self.access == "write":
            code |= 2
        if self.user:
            code |= 4
        if self.access == "fetch" and (control.nxe or control.smep):
            code |= 16
        where = self.cr3 & TABLE_ADDRESS
        writable = user_page = executable = True
        for level in range(levels, 0, -1):
            gpa = where + 8 * (gva >> (12 + 9 * (level - 1)) & 511)
            backed = self.machine(gpa, reads=True, writes=False, fetches=False, table=True)
            entry = self.load("guest", level, backed.maddr)
            if not entry & 1:
                raise Stop(Outcome.PAGE_FAULT, error_code=code)
            leaf = level == 1 or bool(entry >> 7 & 1)
            if self.x86_is_reserved(entry, level, leaf, control.gbpages, control.nxe):
                raise Stop(Outcome.PAGE_FAULT, error_code=code | 1 | 8)
            writable &= bool(entry & 2)
            user_page &= bool(entry & 4)
            executable &= not entry >> 63
            if leaf:
                if not self.allowed(writable, user_page, executable):
                    raise Stop(Outcome.PAGE_FAULT, error_code=code | 1)
                self.mark_guest(backed, gpa, 0x60 if self.access == "write" else 0x20, entry)
                frame = entry & TABLE_ADDRESS & ~LOW[level]
                return frame | gva & LOW[level], 1 + LOW[level]
            self.mark_guest(backed, gpa, 0x20, entry)
            where = entry & TABLE_ADDRESS
        raise AssertionError

    def allowed(self, writable: bool, user_page: bool, executable: bool) -> bool:
        """Judge the rights of the guest's entries."""
        control = self.control
        if self.user:
            if not user_page:
                return False
            if self.access == "write":
                return writable
            return self.access == "read" or executable
        if self.access == "fetch":
            return executable and not (control.smep and user_page)
        if control.smap and user_page and not control.ac:
            return False
        return self.access == "read" or writable or not control.wp

    def mark_guest(self, backed: Backed, gpa: int, bits: int, entry: int) -> None:
        """Set accessed and dirty in a guest's entry: a write that EPT may forbid."""
        if entry & bits == bits:
            return
        if self.is_ept and not backed.writable:
            self.violate(gpa, True, True, False, True, backed.rights)
        self.mark(backed.maddr, bits)

    def run(self, gva: int) -> dict[str, Any]:
        """Walk; return the fields of the answer that this decides."""
        found: dict[str, Any] = {}
        try:
            gpa, size = self.guest(gva)
            found |= {"gpa": gpa, "guest_page_size": size}
            reads, writes, fetches = (self.access == kind for kind in ("read", "write", "fetch"))
            backed = self.machine(gpa, reads, writes, fetches, table=False)
            found |= {"maddr": backed.maddr, "page_size": min(size, backed.size or size)}
            return found | {"outcome": Outcome.OK, "nested_page_size": backed.size}
        except Stop as stop:
            return found | {"outcome": stop.outcome} | stop.found


def translate(
    memory: Any,
    gva: int,
    *,
    cr3: int,
    nested: Any = None,
    access: str = "read",
    user: bool = True,
    control: Any = None,
    update: bool = False,
) -> Translation:
    """Translate one access as the manuals say; arguments and answer as of `mmu.translate`.

    Parameters
    ----------
    memory : ndarray [n], dict, Readable or mmu.Memory
        Machine memory: 64-bit words from address 0; words by address, zero where there are none;
        or anything that has `holds`, `read` and `write`, or `words` and `base`.
    gva : int
        Virtual address, of either sign.
    cr3 : int
        Address of the root table.
    nested : Ept or Npt, optional
        The hypervisor's tables: of this module, of `mmu`, or of your own with their attributes.
    access : {"read", "write", "fetch"}
        What the access does.
    user : bool
        Of the user, or of the supervisor.
    control : Control, optional
        Of this module, of `mmu`, or of your own with their attributes.
    update : bool
        Write accessed and dirty bits to memory.

    Returns
    -------
    Translation
        Equal, field by field, to what `mmu.translate` returns.
    """
    words = readable(memory)
    walk = Walk(words, cr3, nested, access, user, control or Control())
    found: dict[str, Any] = dict.fromkeys(FIELDS) | walk.run(gva % (1 << 64))
    found |= {"steps": tuple(walk.steps), "references": len(walk.steps), "updates": walk.marked}
    if update:
        for address, word in walk.marked.items():
            words.write(address, word)
    return Translation(**found)
