"""Intel's leaves: descriptors of one byte each (2), and tables of parameters (4, 18h)."""

from mmu.cpuid.dump import NOTHING, Leaves, bits, subleaves
from mmu.cpuid.rows import Tlb

# Intel SDM volume 2, CPUID, "Encoding of CPUID Leaf 2 Descriptors"; 63, 64, 6A to 6D, A0, C3 and C4
# as in the tables of github.com/tycho/cpuid. (level, side, sizes, entries, ways), ways 0: fully
# associative, None: not told.
_2M4M = ("2m", "4m")
DESCRIPTORS: dict[int, tuple[tuple[int, str, tuple[str, ...], int, int | None], ...]] = {
    0x01: ((1, "fetch", ("4k",), 32, 4),),
    0x02: ((1, "fetch", ("4m",), 2, 0),),
    0x03: ((1, "data", ("4k",), 64, 4),),
    0x04: ((1, "data", ("4m",), 8, 4),),
    0x05: ((1, "data", ("4m",), 32, 4),),
    0x0B: ((1, "fetch", ("4m",), 4, 4),),
    0x4F: ((1, "fetch", ("4k",), 32, None),),
    0x50: ((1, "fetch", ("4k", *_2M4M), 64, None),),
    0x51: ((1, "fetch", ("4k", *_2M4M), 128, None),),
    0x52: ((1, "fetch", ("4k", *_2M4M), 256, None),),
    0x55: ((1, "fetch", _2M4M, 7, 0),),
    0x56: ((1, "data", ("4m",), 16, 4),),
    0x57: ((1, "data", ("4k",), 16, 4),),
    0x59: ((1, "data", ("4k",), 16, 0),),
    0x5A: ((1, "data", _2M4M, 32, 4),),
    0x5B: ((1, "data", ("4k", "4m"), 64, None),),
    0x5C: ((1, "data", ("4k", "4m"), 128, None),),
    0x5D: ((1, "data", ("4k", "4m"), 256, None),),
    0x61: ((1, "fetch", ("4k",), 48, 0),),
    0x63: ((1, "data", _2M4M, 32, 4), (1, "data", ("1g",), 4, 4)),
    0x64: ((1, "data", ("4k",), 512, 4),),
    0x6A: ((1, "data", ("4k",), 64, 8),),
    0x6B: ((2, "data", ("4k",), 256, 8),),
    0x6C: ((2, "data", _2M4M, 128, 8),),
    0x6D: ((2, "data", ("1g",), 16, 0),),
    0x76: ((1, "fetch", _2M4M, 8, 0),),
    0xA0: ((1, "data", ("4k",), 32, 0),),
    0xB0: ((1, "fetch", ("4k",), 128, 4),),
    0xB1: ((1, "fetch", ("2m",), 8, 4),),
    0xB2: ((1, "fetch", ("4k",), 64, 4),),
    0xB3: ((1, "data", ("4k",), 128, 4),),
    0xB4: ((1, "data", ("4k",), 256, 4),),
    0xB5: ((1, "fetch", ("4k",), 64, 8),),
    0xB6: ((1, "fetch", ("4k",), 128, 8),),
    0xBA: ((1, "data", ("4k",), 64, 4),),
    0xC0: ((1, "data", ("4k", "4m"), 8, 4),),
    0xC1: ((2, "all", ("4k", "2m"), 1024, 8),),
    0xC2: ((1, "data", _2M4M, 16, 4),),
    0xC3: ((2, "all", ("4k", "2m"), 1536, 12), (2, "all", ("1g",), 16, 4)),
    0xC4: ((1, "data", _2M4M, 32, 4),),
    0xCA: ((2, "all", ("4k",), 512, 4),),
}
SIX_WAYS = (
    "leaf 2 byte C3: the text of Intel's table says 6 ways; 12 are known (J. McCalpin, Intel "
    "community, thread 1371605)"
)
# Data caches, traces and prefetch, of which leaf 4 says more; FE and FF point to other leaves.
CACHES = frozenset(
    bytes.fromhex(
        "06 08 09 0A 0C 0D 0E 1D 21 22 23 24 25 29 2C 30 40 41 42 43 44 45 46 47 48 49 4A 4B 4C 4D"
        "4E 60 66 67 68 70 71 72 78 79 7A 7B 7C 7D 7F 80 82 83 84 85 86 87 D0 D1 D2 D6 D7 D8 DC DD"
        "DE E2 E3 E4 EA EB EC F0 F1 FE FF"
    )
)
_FIRST_OF_TWO = {0x56, 0x57, 0x59}  # "DTLB0" of Core 2 and Atom, beside which stands a "DTLB1"
_SECOND_OF_TWO = {0x05, 0xB3, 0xB4, 0xBA}
TYPES = {1: "data", 2: "fetch", 3: "all", 4: "load", 5: "store"}


def descriptors(leaves: Leaves) -> list[int]:
    """Return leaf 2's bytes in the order of registers, without its count and empty ones."""
    found: list[int] = []
    for _, registers in subleaves(leaves, 2):
        for number, word in enumerate(registers):
            if not word >> 31:
                data = word.to_bytes(4, "little")
                found += [byte for byte in data[number == 0 :] if byte]
    return found


def tlbs(leaves: Leaves) -> tuple[list[Tlb], list[str]]:
    """Return what Intel's leaves tell of TLBs, and what is odd about it."""
    told = descriptors(leaves)
    if 0xFE in told:
        rows, odd = _parameters(leaves)
        if not rows:
            odd.append("leaf 2 points to leaf 18h (byte FE), which tells of no TLB")
        return rows, odd
    rows, odd = [], []
    for byte in told:
        for level, side, sizes, entries, ways in DESCRIPTORS.get(byte, ()):
            second = byte in _SECOND_OF_TWO and _FIRST_OF_TWO & set(told)
            shape = (entries, entries if ways == 0 else ways)
            origin = f"CPUID leaf 2 byte {byte:02X}"
            rows.append(Tlb(2 if second else level, side, sizes, *shape, origin))
        if byte not in DESCRIPTORS and byte not in CACHES:
            odd.append(f"leaf 2 byte {byte:02X}: not known")
    return rows, odd + ([SIX_WAYS] if 0xC3 in told else [])


def _parameters(leaves: Leaves) -> tuple[list[Tlb], list[str]]:
    """Return the rows of leaf 18h; empty ones may stand between others.

    Intel SDM volume 2, CPUID: EBX[3:0] pages of 4K, 2M, 4M, 1G, [31:16] ways; ECX sets; EDX[4:0]
    type, [7:5] level, [8] fully associative.
    """
    most = leaves.get((0x18, 0), NOTHING).eax
    rows, odd = [], []
    for sub, (_, ebx, ecx, edx) in subleaves(leaves, 0x18):
        kind = bits(edx, 4, 0)
        if kind == 0 or sub > most:
            continue
        sizes = tuple(size for bit, size in enumerate(("4k", "2m", "4m", "1g")) if ebx >> bit & 1)
        entries = bits(ebx, 31, 16) * ecx
        if kind not in TYPES or not sizes or not entries:
            odd.append(f"leaf 18h subleaf {sub}: not known, type {kind}, {entries} entries")
            continue
        ways = entries if bits(edx, 8, 8) else bits(ebx, 31, 16)
        origin = f"CPUID leaf 18h subleaf {sub}"
        rows.append(Tlb(bits(edx, 7, 5), TYPES[kind], sizes, entries, ways, origin))
    return rows, odd
