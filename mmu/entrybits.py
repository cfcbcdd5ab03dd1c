"""Table entries spelled out: the bits of one by name, what it grants, and what is wrong with it.

Sources: Intel SDM vol. 3, "4-Level Paging and 5-Level Paging" (formats of entries), "Format of EPT
Entries" and "EPT Misconfigurations"; AMD64 APM vol. 2, "Page-Translation-Table Entry Fields".
"""

from dataclasses import dataclass

from mmu.hardware.bits import PAGE_BYTES
from mmu.hardware.entry import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    EPT_ACCESSED,
    EPT_BAD_TYPES,
    EPT_DIRTY,
    EPT_EXECUTE,
    EPT_READ,
    EPT_TABLE_RESERVED,
    EPT_TYPE_SHIFT,
    EPT_WRITE,
    EXECUTE_DISABLE,
    LARGE_LEAF,
    LARGE_PAT,
    PRESENT,
    TABLE_GLOBAL,
    USER_PAGE,
    WRITABLE,
)
from mmu.hardware.rules import LARGEST_LEAF
from mmu.indices import page_bytes
from mmu.paging import Control, Ept, Npt

ENTRY_NAMES = {5: "PML5E", 4: "PML4E", 3: "PDPTE", 2: "PDE", 1: "PTE"}
TABLE_NAMES = {5: "PML5", 4: "PML4", 3: "PDPT", 2: "PD", 1: "PT"}
SIZE_NAMES = {1: "4 KiB", 2: "2 MiB", 3: "1 GiB"}  # by level of the leaf
MEMORY_TYPES = ("UC", "WC", "type 2", "type 3", "WT", "WP", "WB", "type 7")
TYPE_BITS, IGNORE_PAT = 7 << EPT_TYPE_SHIFT, 1 << 6
SUPPRESS_VE = 1 << 63
WRITE_THROUGH, CACHE_DISABLE, GLOBAL, SMALL_PAT = 1 << 3, 1 << 4, 1 << 8, 1 << 7
KEY_SHIFT, KEY_BITS = 59, 0xF << 59
ALL = (1 << 64) - 1


def ranges(mask: int) -> str:
    """Return bit numbers as manuals write them, the highest first: ``51:48`` or ``63,7``."""
    found, high = [], 63
    while high >= 0:
        low = high
        if mask >> high & 1:
            while low and mask >> low - 1 & 1:
                low -= 1
            found.append(f"{high}:{low}" if high > low else f"{high}")
        high = low - 1
    return ",".join(found)


def _too_large(level: int) -> str:
    """Say why an entry of a level maps no page."""
    if level in SIZE_NAMES:
        return f"this processor has no {SIZE_NAMES[level]} pages"
    return f"no {ENTRY_NAMES[level]} maps a page"


@dataclass(frozen=True)
class EntryFormat:
    """How entries of one dimension read, on a processor that is set in one way.

    Attributes
    ----------
    name : {"", "EPT", "NPT"}
        The nested format; empty for the guest's entries.
    largest : int
        Level of the largest page.
    maxphyaddr : int
        Bits of a physical address.
    nxe : bool
        Bit 63 of an x86-64 entry forbids fetches; else it is reserved.
    amd : bool
        Bit 8 of an x86-64 entry for a table of level 2 or more is reserved.
    execute_only : bool
        An EPT entry may permit nothing but fetches.
    marks : bool
        The processor keeps accessed and dirty bits.
    """

    name: str
    largest: int
    maxphyaddr: int
    nxe: bool = True
    amd: bool = False
    execute_only: bool = True
    marks: bool = True

    @classmethod
    def of_guest(cls, control: Control, nested: Ept | Npt | None) -> "EntryFormat":
        """Return the format of the guest's entries; AMD's if the nested tables are."""
        largest = LARGEST_LEAF[control.gbpages]
        return cls("", largest, control.maxphyaddr, nxe=control.nxe, amd=isinstance(nested, Npt))

    @classmethod
    def of_nested(cls, control: Control, nested: Ept | Npt) -> "EntryFormat":
        """Return the format of the nested entries."""
        largest, width = LARGEST_LEAF[nested.gbpages], control.maxphyaddr
        if isinstance(nested, Npt):
            return cls("NPT", largest, width, nxe=nested.nxe, amd=True)
        return cls(
            "EPT", largest, width, execute_only=nested.execute_only, marks=nested.dirty
        )  # fmt: skip

    @property
    def ept(self) -> bool:
        """Entries are Intel's for nested tables; else those of x86-64."""
        return self.name == "EPT"

    @property
    def accessed(self) -> int:
        """Mask of the accessed bit; 0 where the processor keeps none."""
        return (EPT_ACCESSED if self.ept else ACCESSED) if self.marks else 0

    @property
    def dirty(self) -> int:
        """Mask of the dirty bit; 0 where the processor keeps none."""
        return (EPT_DIRTY if self.ept else DIRTY) if self.marks else 0

    def present(self, entry: int) -> bool:
        """Tell whether an entry leads anywhere."""
        return bool(entry & (EPT_READ | EPT_WRITE | EPT_EXECUTE if self.ept else PRESENT))

    def leaf(self, entry: int, level: int) -> bool:
        """Tell whether a present entry maps a page."""
        return level == 1 or (level <= self.largest and bool(entry & LARGE_LEAF))

    def grants(self, entry: int) -> str:
        """Return what a present entry grants, out of ``RWXU``; U is that users may."""
        if self.ept:
            rights = zip("RWX", (EPT_READ, EPT_WRITE, EPT_EXECUTE), strict=True)
            return "".join(letter for letter, bit in rights if entry & bit) + "U"
        executable = not entry & EXECUTE_DISABLE
        return "R" + "W" * bool(entry & WRITABLE) + "X" * executable + "U" * bool(entry & USER_PAGE)

    def reserved(self, entry: int, level: int) -> int:
        """Return the reserved bits that a present entry has set."""
        mask = ADDRESS & ~((1 << self.maxphyaddr) - 1)
        leaf = self.leaf(entry, level)
        if leaf:
            within = page_bytes(level) - PAGE_BYTES
            mask |= within if self.ept else within & ~LARGE_PAT
        else:
            mask |= LARGE_LEAF | (EPT_TABLE_RESERVED if self.ept else 0)
            if self.amd and level > 2:
                mask |= TABLE_GLOBAL
        if not self.ept and not self.nxe:
            mask |= EXECUTE_DISABLE
        return entry & mask

    def problems(self, entry: int, level: int) -> tuple[str, ...]:
        """Return what no processor accepts in a present entry, each rule in words."""
        found = []
        if self.ept:
            rights = entry & (EPT_READ | EPT_WRITE | EPT_EXECUTE)
            if rights & (EPT_READ | EPT_WRITE) == EPT_WRITE:
                found.append("W without R")
            if rights == EPT_EXECUTE and not self.execute_only:
                found.append("X alone, which this processor does not have")
            kind = entry >> EPT_TYPE_SHIFT & 7
            if self.leaf(entry, level) and EPT_BAD_TYPES >> kind & 1:
                found.append(f"memory type {kind}, which is reserved")
        low = (1 << self.maxphyaddr) - 1
        for mask, why in (
            (ADDRESS & ~low, f"above MAXPHYADDR, {self.maxphyaddr} bits"),
            (EXECUTE_DISABLE, "XD with EFER.NXE clear"),
            (LARGE_LEAF, _too_large(level)),
            (low & ~LARGE_LEAF, self._elsewhere(entry, level)),
        ):
            bits = self.reserved(entry, level) & mask
            if bits:
                found.append(f"reserved bit{'s' * (bits.bit_count() > 1)} {ranges(bits)}: {why}")
        return tuple(found)

    def _elsewhere(self, entry: int, level: int) -> str:
        if self.leaf(entry, level):
            return f"inside the frame of a {SIZE_NAMES[level]} page"
        return "of an entry that points to a table"

    def bits(self, entry: int, level: int) -> tuple[str, ...]:
        """Return the names of the bits that an entry has set, but its address.

        Reserved bits are ``rsvd(51:48)``, bits that the processor ignores ``ign(11:9)``.
        """
        if not self.present(entry):
            return ("not present",)
        leaf = self.leaf(entry, level)
        names, known = (
            self._ept_names(entry, leaf, level) if self.ept else self._names(entry, leaf, level)
        )
        reserved = self.reserved(entry, level)
        ignored = entry & ALL & ~(known | ADDRESS | reserved)
        found = [name for mask, name in names if mask & ~reserved]
        if reserved:
            found.append(f"rsvd({ranges(reserved)})")
        if ignored:
            found.append(f"ign({ranges(ignored)})")
        return tuple(found)

    def _names(self, entry: int, leaf: bool, level: int) -> tuple[list[tuple[int, str]], int]:
        """Return masks and names of the set bits of an x86-64 entry, and what bits have names."""
        names = {
            PRESENT: "P", WRITABLE: "RW", USER_PAGE: "US", WRITE_THROUGH: "PWT",
            CACHE_DISABLE: "PCD", ACCESSED: "A",
        }  # fmt: skip
        key = 0
        if leaf:
            names |= {DIRTY: "D", SMALL_PAT: "PAT", GLOBAL: "G"}
            key = 0 if self.name else KEY_BITS  # nested tables have no protection keys
        if level > 1:
            names[LARGE_LEAF] = "PS"
        if leaf and level > 1:
            names[LARGE_PAT] = "PAT"
        names[EXECUTE_DISABLE] = "XD"
        found = [(mask, name) for mask, name in names.items() if entry & mask]
        if entry & key:
            found.insert(
                -1 if entry & EXECUTE_DISABLE else len(found),
                (key, f"pkey={entry >> KEY_SHIFT & 15}"),
            )
        return found, sum(names) | key

    def _ept_names(self, entry: int, leaf: bool, level: int) -> tuple[list[tuple[int, str]], int]:
        """Return the same of an EPT entry."""
        names = {EPT_READ: "R", EPT_WRITE: "W", EPT_EXECUTE: "X"}
        found = [(mask, name) for mask, name in names.items() if entry & mask]
        if leaf:
            found.append((TYPE_BITS, MEMORY_TYPES[entry >> EPT_TYPE_SHIFT & 7]))
        late = {IGNORE_PAT: "IPAT"} if leaf else {}
        if level > 1:
            late[LARGE_LEAF] = "PS"
        late |= {mask: name for mask, name in ((self.accessed, "A"),) if mask}
        if leaf and self.dirty:
            late[self.dirty] = "D"
        late[SUPPRESS_VE] = "SVE"
        found += [(mask, name) for mask, name in late.items() if entry & mask]
        return found, sum(names) | sum(late) | (TYPE_BITS if leaf else 0)
