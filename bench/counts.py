"""Published counts of table reads of a walk without caches: exact, so that they pass or fail."""

from collections.abc import Callable
from typing import NamedTuple

import mmu

MOST = "'up to 24': abstracts of Nested ECPT (ASPLOS 2022) and DMT (ASPLOS 2024)"
FORMULA = "(g + 1)(n + 1) - 1 for g and n levels, which gives that 24"


class Count(NamedTuple):
    """A combination of page sizes or levels, how many reads are published, and the walk made."""

    what: str
    source: str
    theirs: int
    ours: Callable[[], int]


def walked(
    guest: str, nested: str, levels: int = 4, nested_levels: int = 4, format: str = "ept"
) -> mmu.Translation:
    """Translate an address through tables made on the spot."""
    example = mmu.example_tables(
        guest, nested, levels=levels, nested_levels=nested_levels, format=format
    )
    return mmu.translate(
        example.memory, example.gva, cr3=example.cr3, nested=example.nested,
        control=mmu.Control(la57=levels == 5),
    )  # fmt: skip


def reads(guest: str, nested: str, levels: int = 4, nested_levels: int = 4) -> Callable[[], int]:
    """Return what counts the reads of a walk through EPT, and finds as many through NPT."""

    def counted() -> int:
        found = [
            walked(guest, nested, levels, nested_levels, format).references
            for format in ("ept", "npt")
        ]
        return found[0] if found[0] == found[1] else -1

    return counted


def flat() -> int:
    """Count reads as if nested tables had one level, as those of Ahn et al. have.

    Of a walk with four levels in both dimensions, the nested reads above the last level are left
    out: no format of x86 is flat.
    """
    found = walked("4k", "4k")
    return sum(step.dimension == "guest" or step.level == 1 for step in found.steps)


COUNTS = (
    Count("4K pages in 4K pages", MOST, 24, reads("4k", "4k")),
    Count("2M pages in 4K pages", FORMULA, 19, reads("2m", "4k")),
    Count("4K pages in 2M pages", FORMULA, 19, reads("4k", "2m")),
    Count("2M pages in 2M pages", "terms of DMT's artifact (Formula.cs, VirtVanilla2M)", 15,
          reads("2m", "2m")),
    Count("native, 4K pages", "four levels", 4, reads("4k", "native")),
    Count("native, 2M pages", "three of them", 3, reads("2m", "native")),
    Count("5 guest levels, 4 nested", FORMULA, 29, reads("4k", "4k", 5, 4)),
    Count("5 guest levels, 5 nested", FORMULA, 35, reads("4k", "4k", 5, 5)),
    Count("flat nested table, 4K pages", FORMULA, 9, flat),
)  # fmt: skip
