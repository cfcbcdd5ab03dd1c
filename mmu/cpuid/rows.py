"""What one leaf tells: a TLB's array, or a data cache."""

from typing import NamedTuple

from mmu.cpuid.dump import Leaves, bits, subleaves


class Tlb(NamedTuple):
    """An array of a TLB, or AMD's word for one page size of it."""

    level: int
    side: str  # data, load, store, fetch, or all
    sizes: tuple[str, ...]  # 4k, 2m, 4m (of 32-bit tables), 1g
    entries: int
    ways: int | None  # None where it is not told
    origin: str


class Cache(NamedTuple):
    """A data cache."""

    level: int
    side: str  # data, fetch, or all
    bytes: int
    ways: int
    line: int
    origin: str


def caches(leaves: Leaves, leaf: int) -> list[Cache]:
    """Return the caches of leaf 4, or of 8000001D, which has the same format.

    Intel SDM volume 2, CPUID: EAX[4:0] type, [7:5] level; EBX[11:0] + 1 line, [21:12] + 1
    partitions, [31:22] + 1 ways; ECX + 1 sets.
    """
    found = []
    for sub, (eax, ebx, ecx, _) in subleaves(leaves, leaf):
        kind = {1: "data", 2: "fetch", 3: "all"}.get(bits(eax, 4, 0))
        if kind is None:
            continue
        line, ways = bits(ebx, 11, 0) + 1, bits(ebx, 31, 22) + 1
        size = line * (bits(ebx, 21, 12) + 1) * ways * (ecx + 1)
        origin = f"CPUID {f'leaf {leaf}' if leaf < 10 else f'{leaf:X}'} subleaf {sub}"
        found.append(Cache(bits(eax, 7, 5), kind, size, ways, line, origin))
    return found
