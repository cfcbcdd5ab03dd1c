"""AMD's leaves: a word for each page size, and data caches (AMD64 manual volume 3, appendix E)."""

from mmu.cpuid.dump import NOTHING, Leaves, bits
from mmu.cpuid.rows import Cache, Tlb, caches

FULL = 0xF  # code of a fully associative array
OFF = 0
# Codes of 80000006 and 80000019; 9 refers to leaf 8000001D.
WAYS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, 8: 16, 0xA: 32, 0xB: 48, 0xC: 64, 0xD: 96, 0xE: 128}
NO_FACTOR = (
    "80000019 EBX (L2 TLB, pages of 1G): whether 80000021 EAX[14] multiplies it, too, is not "
    "documented; taken as it stands"
)


def tlbs(leaves: Leaves) -> tuple[list[Tlb], list[str]]:
    """Return what AMD's leaves tell of TLBs, a row for each page size, and what is odd about it."""
    first = leaves.get((0x80000005, 0), NOTHING)
    second = leaves.get((0x80000006, 0), NOTHING)
    huge = leaves.get((0x80000019, 0), NOTHING)
    factor = 32 if leaves.get((0x80000021, 0), NOTHING).eax >> 14 & 1 else 1
    rows: list[Tlb] = []
    ways: int | None
    for name, size, word in (("EBX", "4k", first.ebx), ("EAX", "2m", first.eax)):
        for side, low in (("data", 16), ("fetch", 0)):
            entries, code = bits(word, low + 7, low), bits(word, low + 15, low + 8)
            if entries and code:
                ways = entries if code == 0xFF else code
                origin = f"CPUID 80000005 {name}[{low + 15}:{low}]"
                rows.append(Tlb(1, side, (size,), entries, ways, origin))
    odd = []
    words = [
        (1, "80000019 EAX", "1g", huge.eax, 1), (2, "80000006 EBX", "4k", second.ebx, factor),
        (2, "80000006 EAX", "2m", second.eax, factor), (2, "80000019 EBX", "1g", huge.ebx, 1),
    ]  # fmt: skip
    for level, name, size, word, times in words:
        for side, low in (("data", 16), ("fetch", 0)):
            entries, code = bits(word, low + 11, low) * times, bits(word, low + 15, low + 12)
            if not entries or code == OFF:
                continue
            ways = entries if code == FULL else WAYS.get(code)
            by = f", times {times} (80000021 EAX[14])" if times > 1 else ""
            origin = f"CPUID {name}[{low + 15}:{low}]{by}"
            rows.append(Tlb(level, side, (size,), entries, ways, origin))
            if factor > 1 and name == "80000019 EBX":
                odd.append(NO_FACTOR)
    return rows, odd[:1]


def data_caches(leaves: Leaves) -> list[Cache]:
    """Return the caches of leaf 8000001D, or of 80000005 and 80000006 where it is not there."""
    if found := caches(leaves, 0x8000001D):
        return found
    first = leaves.get((0x80000005, 0), NOTHING)
    second = leaves.get((0x80000006, 0), NOTHING)
    rows = []
    for side, name, word in (("data", "ECX", first.ecx), ("fetch", "EDX", first.edx)):
        size, ways, line = bits(word, 31, 24) << 10, bits(word, 23, 16), bits(word, 7, 0)
        if size and ways and line:
            ways = size // line if ways == 0xFF else ways
            rows.append(Cache(1, side, size, ways, line, f"CPUID 80000005 {name}"))
    sizes = ((2, "ECX", second.ecx, bits(second.ecx, 31, 16) << 10),
             (3, "EDX", second.edx, bits(second.edx, 31, 18) << 19))  # fmt: skip
    for level, name, word, size in sizes:
        code, line = bits(word, 15, 12), bits(word, 7, 0)
        if size and line and (code == FULL or code in WAYS):
            ways = size // line if code == FULL else WAYS[code]
            rows.append(Cache(level, "all", size, ways, line, f"CPUID 80000006 {name}"))
    return rows
