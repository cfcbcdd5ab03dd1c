"""All that CPUID tells of a processor, what is known to be told wrongly, and what it is like."""

from typing import Any, NamedTuple

from mmu.cpuid import amd, intel
from mmu.cpuid.dump import NOTHING, Leaves, bits
from mmu.cpuid.rows import Cache, Tlb, caches
from mmu.errors import InputError
from mmu.files import Table
from mmu.units import format_size, shown

INTEL = "GenuineIntel"
AMD = ("AuthenticAMD", "HygonGenuine")
# Models of family 6 (Linux, arch/x86/include/asm/intel-family.h), and the named processor that each
# is or is nearest to. Sandy and Ivy Bridge have Nehalem's L2 TLB, Broadwell what Haswell has.
INTEL_MODELS = {
    "nehalem": "1A 1E 1F 2E 25 2C 2F 2A 2D 3A 3E",
    "haswell": "3C 3F 45 46 3D 47 4F 56",
    "skylake-sp": "55 4E 5E 8E 9E A5 A6 66",
    "icelake-sp": "6A 6C 7D 7E 8C 8D A7",
    "sapphire-rapids": "8F CF 97 9A B7 BA BF AD AE",
}
ZEN4_MODELS = (range(0x10, 0x20), range(0x60, 0x80), range(0xA0, 0xB0))  # of family 19h
GOLDEN_COVE = (0x8F, 0xCF)  # models of the Xeons that tell less than they have
ICE_LAKE_SERVERS = (0x6A, 0x6C)


class Correction(NamedTuple):
    """An array that is told wrongly, what is known instead, and from where."""

    told: Tlb
    known: tuple[Tlb, ...]
    reason: str


class Told(NamedTuple):
    """What CPUID tells."""

    vendor: str
    family: int
    model: int
    stepping: int
    name: str
    frequency_hz: int  # of leaf 16h; 0: not told
    tlbs: list[Tlb]
    caches: list[Cache]
    asids: int  # tags that AMD's processors have; 0: not told
    nearest: str  # named processor
    alike: bool  # that processor's family and model are known to be like this one's
    corrections: list[Correction]
    odd: list[str]

    @property
    def notes(self) -> list[str]:
        """What is odd, one line each."""
        notes = [*self.odd, *(correction.reason for correction in self.corrections)]
        if not self.tlbs:
            notes.append("CPUID tells of no TLB")
        if not self.alike:
            notes.append(
                f"no named processor is known to be like family {self.family:X}h model "
                f"{self.model:X}h; {self.nearest} is taken as the nearest"
            )
        return notes

    def table(self) -> Table:
        """Return a row for each array and cache."""
        columns = ["what", "level", "side", "pages", "entries", "ways", "bytes", "line", "told_by"]
        rows: list[list[Any]] = []
        for tlb in self.tlbs:
            pages = "+".join(tlb.sizes)
            shape = [tlb.entries, tlb.ways, None, None]
            rows.append(["tlb", tlb.level, tlb.side, pages, *shape, tlb.origin])
        for cache in self.caches:
            shape = [None, cache.ways, cache.bytes, cache.line]
            rows.append(["cache", cache.level, cache.side, None, *shape, cache.origin])
        return Table(columns, rows)

    def plain(self) -> dict[str, Any]:
        """Return all of it as values that JSON holds."""
        fields = {
            "vendor": self.vendor, "family": self.family, "model": self.model,
            "stepping": self.stepping, "name": self.name, "nearest": self.nearest,
            "frequency_hz": self.frequency_hz or None, "asids": self.asids or None,
        }  # fmt: skip
        tlbs = [tlb._asdict() | {"sizes": list(tlb.sizes)} for tlb in self.tlbs]
        listed = {"tlbs": tlbs, "caches": [cache._asdict() for cache in self.caches]}
        return fields | listed | {"notes": self.notes}


def decode(leaves: Leaves) -> Told:
    """Return what some leaves tell.

    Raises
    ------
    InputError
        The vendor is neither Intel nor AMD (or Hygon).
    """
    zero, one = leaves[0, 0], leaves[1, 0]
    text = zero.text
    vendor = text[4:8] + text[12:16] + text[8:12]
    family, model = bits(one.eax, 11, 8), bits(one.eax, 7, 4)
    if family in (6, 15):
        model += bits(one.eax, 19, 16) << 4
    if family == 15:
        family += bits(one.eax, 27, 20)
    name = "".join(leaves.get((0x80000002 + n, 0), NOTHING).text for n in range(3))
    name = " ".join("".join(c if c.isprintable() else " " for c in name.split("\0")[0]).split())
    if vendor == INTEL:
        tlbs, odd = intel.tlbs(leaves)
        found, asids = caches(leaves, 4), 0
    elif vendor in AMD:
        tlbs, odd = amd.tlbs(leaves)
        found, asids = amd.data_caches(leaves), leaves.get((0x8000000A, 0), NOTHING).ebx
    else:
        accepted = f"CPUID 00000000 of {' | '.join((INTEL, *AMD))}"
        raise InputError(f"found vendor {shown(vendor)}; accepted: {accepted}")
    nearest, alike = _nearest(vendor, family, model)
    hertz = bits(leaves.get((0x16, 0), NOTHING).eax, 15, 0) * 10**6 if vendor == INTEL else 0
    fixed = _corrections(vendor, family, model, nearest, tlbs)
    return Told(
        vendor, family, model, bits(one.eax, 3, 0), name, hertz, tlbs, found, asids, nearest, alike,
        fixed, odd,
    )  # fmt: skip


def _nearest(vendor: str, family: int, model: int) -> tuple[str, bool]:
    """Return the named processor that is nearest, and whether it is known to be like this one."""
    if vendor == INTEL:
        for name, models in INTEL_MODELS.items():
            if family == 6 and f"{model:02X}" in models.split():
                return name, True
        return ("nehalem" if family == 6 and model < 0x1A else "sapphire-rapids"), False
    if family in (0x17, 0x18):
        return "zen2", family == 0x17 and model >= 0x30
    if family == 0x19:
        four = any(model in models for models in ZEN4_MODELS)
        return ("zen4" if four else "zen3"), True
    if family < 0x17:
        return "barcelona", family == 0x10
    return "zen5", family == 0x1A


def _corrections(
    vendor: str, family: int, model: int, nearest: str, tlbs: list[Tlb]
) -> list[Correction]:
    """Return what is known of arrays that some processors tell wrongly."""
    found: list[Correction] = []
    if vendor != INTEL or family != 6:
        return found
    for tlb in tlbs:
        shape = (tlb.level, tlb.side, tlb.entries, tlb.ways)
        if model in GOLDEN_COVE and shape == (1, "load", 64, 4) and tlb.sizes == ("4k",):
            why = (
                f"{tlb.origin} tells 64 entries in 4 ways of the load TLB; Golden Cove has 96 in 6 "
                "(Intel; leaf 18h of a Core i9-12900K and of Granite Rapids)"
            )
            found.append(Correction(tlb, (tlb._replace(entries=96, ways=6, origin=why),), why))
        if model in ICE_LAKE_SERVERS and shape == (1, "fetch", 8, 8) and "4k" in tlb.sizes:
            why = (
                f"{tlb.origin} tells 8 entries of the fetch TLB; Tiger Lake and Rocket Lake tell "
                "128 in 8 ways for pages of 4K, 16 in 8 for those of 2M"
            )
            small = tlb._replace(sizes=("4k",), entries=128, ways=8, origin=why)
            large = tlb._replace(sizes=("2m", "4m"), entries=16, ways=8, origin=why)
            found.append(Correction(tlb, (small, large), why))
        if nearest == "skylake-sp" and shape == (1, "fetch", 64, 8) and tlb.sizes == ("4k",):
            why = (
                f"{tlb.origin} tells the 64 entries of one of two threads; 128 in 8 ways are shared "
                "out dynamically (Intel optimization manual, Skylake)"
            )
            found.append(Correction(tlb, (tlb._replace(entries=128, origin=why),), why))
    return found


def lines(told: Told) -> list[str]:
    """Return what is told as a table to be read, with what is odd below it."""
    found = f"{told.vendor} family {told.family:X}h model {told.model:X}h stepping {told.stepping}"
    head = [f"{told.name}: {found}" if told.name else found]
    head.append(f"Nearest named processor: {told.nearest}")
    if told.asids:
        head.append(f"Tags of address spaces (ASIDs): {told.asids}")
    rows = [("TLB", "level", "pages", "entries", "ways", "told by")]
    for tlb in told.tlbs:
        pages, ways = ", ".join(tlb.sizes), "?" if tlb.ways is None else str(tlb.ways)
        ways = "all" if tlb.ways == tlb.entries else ways
        rows.append((tlb.side, str(tlb.level), pages, str(tlb.entries), ways, tlb.origin))
    rows.append(("cache", "level", "size", "sets", "ways", "told by"))
    for cache in told.caches:
        size, sets = format_size(cache.bytes), str(cache.bytes // (cache.line * cache.ways))
        rows.append((cache.side, str(cache.level), size, sets, str(cache.ways), cache.origin))
    widths = [max(len(row[n]) for row in rows) for n in range(5)]
    right = (False, True, False, True, True)
    body = []
    for row in rows:
        cells = [
            f"{cell:>{width}}" if to_right else f"{cell:{width}}"
            for cell, width, to_right in zip(row[:5], widths, right, strict=True)
        ]
        body.append("  ".join([*cells, row[5]]))
        if row[0] == "cache" and row[1] == "level":
            body.insert(-1, "")
    return [*head, "", *body, *([""] if told.notes else []), *(f"Note: {n}" for n in told.notes)]
