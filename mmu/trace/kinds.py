"""What an access is, and the grain in which traces are cut."""

READ, WRITE, FETCH = 0, 1, 2
KIND_NAMES = ("read", "write", "fetch")

BLOCK = 4096  # accesses of one stream (one space, one thread)

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
LARGE_SHIFT = 21
HUGE_SHIFT = 30
VIRTUAL_BITS = 48  # bits 63:47 of an address are equal: 4-level paging
PAGE_NUMBER_MASK = (1 << 64 - PAGE_SHIFT) - 1

# Bits of a compact record's `order`.
DATA_FIRST = 1  # the first folded data access came before the first folded fetch
WRITE_FIRST = 2  # the first folded data access is a write
