"""Address arithmetic of tables outside kernels, on Python's numbers: see `mmu.hardware.bits`.

To call a kernel from Python would compile it for that alone, and unsigned addresses do not fit one.
"""

from mmu.hardware.bits import ENTRIES, LEVEL_BITS, PAGE_BYTES, PAGE_SHIFT


def table_index(address: int, level: int) -> int:
    """Return which entry of a table of `level` an address selects."""
    return address >> PAGE_SHIFT + LEVEL_BITS * (level - 1) & ENTRIES - 1


def page_bytes(level: int) -> int:
    """Return the bytes of a page whose leaf is at a level."""
    return PAGE_BYTES << LEVEL_BITS * (level - 1)


def reach(levels: int) -> int:
    """Return the number of address bits that tables of so many levels translate: 48 or 57."""
    return PAGE_SHIFT + LEVEL_BITS * levels
