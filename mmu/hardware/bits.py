"""Address arithmetic of x86-64 paging: pages, table indices, page sizes.

     63        48 47     39 38     30 29     21 20     12 11        0
    | sign       | index 4 | index 3 | index 2 | index 1 | offset    |

Each of the four levels of tables takes nine bits (Intel SDM vol. 3, "4-Level Paging and 5-Level
Paging"); with five levels, bits 56:48 are index 5. Addresses are int64 inside kernels: those of the
upper half are negative, and every field is taken out by a shift followed by a mask, so the sign never
shows.

A page *size* is coded 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB: it is the level of its leaf minus one.
"""

from mmu.jit import constant, inlined

PAGE_SHIFT = 12
LEVEL_BITS = 9
WORD_SHIFT = 3
WORD_BYTES = 1 << WORD_SHIFT
ENTRIES = 1 << LEVEL_BITS
PAGE_BYTES = 1 << PAGE_SHIFT
LARGE_FRAMES = 1 << LEVEL_BITS  # 4 KiB frames in a 2 MiB page
LARGE_BYTES = PAGE_BYTES * LARGE_FRAMES
LEVELS = 4
GUEST_PHYSICAL_BITS = PAGE_SHIFT + LEVEL_BITS * LEVELS  # what nested tables of so many translate
PAGE_NUMBER_BITS = 45  # enough for 57-bit addresses: what a tag word has room for
PAGE_NUMBER_MASK = (1 << PAGE_NUMBER_BITS) - 1
OFFSET_MASK = PAGE_BYTES - 1
SMALL = constant(0)  # size code


@inlined
def page_number(address: int, size: int) -> int:
    """Return the number of the page of `size` that holds an address, without its sign extension."""
    return address >> (PAGE_SHIFT + LEVEL_BITS * size) & PAGE_NUMBER_MASK


@inlined
def frame_bits(size: int) -> int:
    """Return the mask of the 4 KiB frame number's bits that lie inside a page of `size`."""
    return (1 << (PAGE_SHIFT + LEVEL_BITS * size)) - PAGE_BYTES


@inlined
def reach(levels: int) -> int:
    """Return the number of address bits that tables of so many levels translate: 48 or 57."""
    return PAGE_SHIFT + LEVEL_BITS * levels


@inlined
def table_index(address: int, level: int) -> int:
    """Return which entry of a table of `level` an address selects."""
    return address >> (PAGE_SHIFT - LEVEL_BITS + LEVEL_BITS * level) & (ENTRIES - 1)


@inlined
def entry_word(table: int, address: int, level: int) -> int:
    """Return the index, in 8-byte words, of the entry of `table` that `address` selects at `level`.

    `table` is the machine address of a table page; bits below the page are ignored.
    """
    return (table >> PAGE_SHIFT << (PAGE_SHIFT - WORD_SHIFT)) + table_index(address, level)
