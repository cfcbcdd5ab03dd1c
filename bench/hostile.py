"""The TLB-hostile trace: no real program, but the far end of what an emulator is asked to replay.

Each access is, independently, with probability `cold` (0.3) a *cold* one: a read (two in three) or
a write (one in three) anywhere in a span of 256 MiB, each 4 KiB page as likely as any other. Nearly
every one of them misses a 1,536-entry TLB and walks, and it also wears down the side that the
program's own data uses.

The rest are *hot*, and look like a program: 70 % fetches, 20 % reads, 10 % writes, over 32 pages of
code and 64 pages of data. A side stays on its hot page with probability 0.85 from one hot access
to the next, else it moves to one drawn from a geometric order of popularity (page k is 0.9 times as
likely as page k - 1). Addresses lie where Linux puts them: code at 0x40_0000, the heap with the hot
data at 0x1000_0000, the span at 0x7f00_0000_0000. Offsets within a page are multiples of 8.
"""

import numpy as np
from numpy.typing import NDArray

READ, WRITE, FETCH = 0, 1, 2
PAGE = 4096
CODE, DATA, SPAN = 0x40_0000, 0x1000_0000, 0x7F00_0000_0000
CODE_PAGES, DATA_PAGES = 32, 64
STAY, POPULARITY = 0.85, 0.9


def hostile(
    accesses: int, seed: int = 0, span: int = 256 << 20, cold: float = 0.3
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return (address, kind) of the trace: int64 and uint8, each ``[accesses]``."""
    random = np.random.default_rng(seed)
    is_cold = random.random(accesses) < cold
    draw = random.random(accesses)
    kind = np.where(draw < 0.7, FETCH, np.where(draw < 0.9, READ, WRITE)).astype(np.uint8)
    kind[is_cold] = np.where(draw[is_cold] < 2 / 3, READ, WRITE)
    page = np.empty(accesses, np.int64)
    page[is_cold] = SPAN // PAGE + random.integers(0, span // PAGE, int(is_cold.sum()))
    for chosen, base, pages in (
        (~is_cold & (kind == FETCH), CODE, CODE_PAGES),
        (~is_cold & (kind != FETCH), DATA, DATA_PAGES),
    ):
        page[chosen] = base // PAGE + _hot_pages(random, int(chosen.sum()), pages)
    return page * PAGE + 8 * random.integers(0, PAGE // 8, accesses), kind


def _hot_pages(random: np.random.Generator, accesses: int, pages: int) -> NDArray[np.int64]:
    """Page numbers of one side's hot accesses: runs on one page, each begun by popularity."""
    weight = POPULARITY ** np.arange(pages)
    page = random.choice(pages, accesses, p=weight / weight.sum())
    begins = np.where(random.random(accesses) < STAY, 0, np.arange(accesses))
    return page[np.maximum.accumulate(begins)] if accesses else page
