"""How a processor is set to translate: control bits, and pointers to nested tables."""

from dataclasses import dataclass

import numpy as np

from mmu.errors import InputError
from mmu.hardware.bits import LEVELS, OFFSET_MASK
from mmu.hardware.entry import ADDRESS
from mmu.hardware.machine import Rules
from mmu.hardware.rules import with_ept, with_npt, x86_rules

# Fields of an EPT pointer (Intel SDM vol. 3, "Extended-Page-Table Pointer (EPTP)").
EPTP_TYPES = (0, 6)
EPTP_LEVELS_SHIFT, EPTP_DIRTY = 3, 1 << 6
EPTP_RESERVED = 0xF80
NESTED_LEVELS = (LEVELS, LEVELS + 1)
LEAST_PHYSICAL_BITS, MOST_PHYSICAL_BITS = 32, 52


def whole(name: str, value: object) -> int:
    """Return a whole number of any type that is one."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise InputError(f"{name}: found {value!r}; accepted: a whole number, such as 0x7f0012345000")


def check_switches(switches: dict[str, object]) -> None:
    """Refuse a switch that is neither on nor off."""
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise InputError(f"{name}: found {value!r}; accepted: True | False")


def _kept(given: object, name: str) -> int:
    """Return a field's whole number, and keep it as Python's: NumPy's unsigned ones are no kernel's."""
    value = whole(name, getattr(given, name))
    object.__setattr__(given, name, value)
    return value


def _levels(value: object) -> int:
    """Return how many levels nested tables have."""
    levels = whole("levels", value)
    if levels not in NESTED_LEVELS:
        raise InputError(f"levels: found {levels}; accepted: 4 | 5")
    return levels


@dataclass(frozen=True)
class Control:
    """What the guest's control registers, and the processor, decide about a translation.

    Parameters
    ----------
    wp : bool
        CR0.WP: the supervisor, too, must not write to read-only pages.
    nxe : bool
        EFER.NXE: bit 63 of an entry forbids fetches; else it is reserved.
    smep, smap : bool
        CR4.SMEP, CR4.SMAP: the supervisor must not fetch from, read or write user pages.
    ac : bool
        RFLAGS.AC: suspends SMAP, but for implicit accesses of the supervisor (ask for these with
        ``ac=False``).
    la57 : bool
        CR4.LA57: guest tables have five levels.
    gbpages : bool
        The processor has 1 GiB pages in guest tables.
    maxphyaddr : int
        Bits of a physical address, in both dimensions: 32 to 52.

    Raises
    ------
    InputError
        A value is none of these.
    """

    wp: bool = True
    nxe: bool = True
    smep: bool = False
    smap: bool = False
    ac: bool = False
    la57: bool = False
    gbpages: bool = True
    maxphyaddr: int = 48

    def __post_init__(self) -> None:
        """Check every field."""
        check_switches({name: value for name, value in vars(self).items() if name != "maxphyaddr"})
        bits = _kept(self, "maxphyaddr")
        if not LEAST_PHYSICAL_BITS <= bits <= MOST_PHYSICAL_BITS:
            raise InputError(
                f"maxphyaddr: found {bits}; accepted: {LEAST_PHYSICAL_BITS} to {MOST_PHYSICAL_BITS}"
            )

    def rules(self, nested: "Ept | Npt | None") -> Rules:
        """Return what the walk goes by."""
        rules = x86_rules(
            wp=self.wp,
            nxe=self.nxe,
            smep=self.smep,
            smap=self.smap and not self.ac,
            la57=self.la57,
            gbpages=self.gbpages,
            maxphyaddr=self.maxphyaddr,
        )
        return rules if nested is None else nested.rules(rules, self.maxphyaddr)


@dataclass(frozen=True)
class Ept:
    """Nested tables in Intel's format.

    Parameters
    ----------
    eptp : int
        EPT pointer: bits 2:0 memory type (0 or 6), 5:3 levels less one (3 or 4), 6 accessed and dirty
        bits on, 51:12 machine address of the root table.
    execute_only : bool
        The processor has pages that can be fetched from and not read (IA32_VMX_EPT_VPID_CAP bit 0).
    gbpages : bool
        It has 1 GiB pages (bit 17).

    Raises
    ------
    InputError
        A field of the pointer is none that a processor accepts.
    """

    eptp: int
    execute_only: bool = True
    gbpages: bool = True

    def __post_init__(self) -> None:
        """Check the pointer's fields."""
        _kept(self, "eptp")
        fits = 0 <= self.eptp <= ADDRESS | OFFSET_MASK and not self.eptp & EPTP_RESERVED
        if not fits or self.eptp & 7 not in EPTP_TYPES or self.levels not in NESTED_LEVELS:
            raise InputError(
                f"eptp: found {self.eptp:#x}, memory type {self.eptp & 7}, {self.levels} levels; "
                "accepted: type 0 or 6, 4 or 5 levels, bits 11:7 and 63:52 zero, such as root | 0x5e"
            )
        check_switches({"execute_only": self.execute_only, "gbpages": self.gbpages})

    @property
    def root(self) -> int:
        """Machine address of the root table."""
        return self.eptp & ADDRESS

    @property
    def levels(self) -> int:
        """Levels of tables."""
        return (self.eptp >> EPTP_LEVELS_SHIFT & 7) + 1

    @property
    def dirty(self) -> bool:
        """The processor keeps accessed and dirty bits in these tables."""
        return bool(self.eptp & EPTP_DIRTY)

    @classmethod
    def at(cls, root: int, dirty: bool = True, levels: int = LEVELS) -> "Ept":
        """Return the pointer to a root table, write-back."""
        place = whole("root", root)
        if place & ~ADDRESS:
            raise InputError(
                f"root: found {place:#x}; accepted: a multiple of {OFFSET_MASK + 1:#x} below "
                f"{ADDRESS + OFFSET_MASK + 1:#x}"
            )
        check_switches({"dirty": dirty})
        high = _levels(levels) - 1 << EPTP_LEVELS_SHIFT
        return cls(place | (EPTP_DIRTY if dirty else 0) | high | 6)

    def rules(self, rules: Rules, maxphyaddr: int) -> Rules:
        """Return rules with those of these tables."""
        return with_ept(
            rules,
            dirty=self.dirty,
            levels=self.levels,
            execute_only=self.execute_only,
            gbpages=self.gbpages,
            maxphyaddr=maxphyaddr,
        )


@dataclass(frozen=True)
class Npt:
    """Nested tables in AMD's format, which is that of x86-64.

    Parameters
    ----------
    ncr3 : int
        Machine address of the root table; bits outside 51:12 are ignored.
    nxe : bool
        The host's EFER.NXE.
    levels : int
        4, or 5 if the host's tables have five.
    gbpages : bool
        The processor has 1 GiB pages.

    Raises
    ------
    InputError
        A value is none of these.
    """

    ncr3: int
    nxe: bool = True
    levels: int = LEVELS
    gbpages: bool = True

    def __post_init__(self) -> None:
        """Check every field."""
        if not 0 <= _kept(self, "ncr3") < 1 << 64:
            raise InputError(f"ncr3: found {self.ncr3:#x}; accepted: 64 bits, of which 51:12 count")
        object.__setattr__(self, "levels", _levels(self.levels))
        check_switches({"nxe": self.nxe, "gbpages": self.gbpages})

    @property
    def root(self) -> int:
        """Machine address of the root table."""
        return self.ncr3 & ADDRESS

    def rules(self, rules: Rules, maxphyaddr: int) -> Rules:
        """Return rules with those of these tables."""
        return with_npt(
            rules, levels=self.levels, nxe=self.nxe, gbpages=self.gbpages, maxphyaddr=maxphyaddr
        )
