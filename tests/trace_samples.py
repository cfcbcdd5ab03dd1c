"""Random accesses for the tests of traces, and slow, obvious blocks and folding to hold them against.

Shares no code with the package.
"""

import numpy as np

LAST_PAGE = 0xFFFF_FFFF_FFFF_F000


def random_accesses(seed, count, pages=12, streams=1, fetches=True):
    """Columns of a raw trace: address, kind, size and space, with runs on a page and repeats."""
    random = np.random.default_rng(seed)
    bases = np.concatenate(
        [
            random.integers(0, 1 << 35, pages, dtype=np.uint64) << np.uint64(12),
            np.array([0, LAST_PAGE, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000], np.uint64),
        ]
    )
    stay = random.random(count) < 0.7
    chosen = random.integers(0, len(bases), count)
    turns = np.maximum.accumulate(np.where(stay, 0, np.arange(count)))
    address = bases[chosen[turns]] + random.integers(0, 4096, count, dtype=np.uint64)
    kind = random.choice(np.array([0, 1, 2], np.uint8), count, p=[0.25, 0.15, 0.6])
    if not fetches:
        kind %= 2
    size = np.minimum(random.integers(1, 33, count), 4096 - (address & np.uint64(4095)))
    lengths = random.integers(1, 9000, 2 * streams * count // 9000 + 2 * streams)
    space = np.repeat(random.integers(0, streams, len(lengths)), lengths)
    space = np.resize(space, count) if streams > 1 else np.zeros(count, np.int64)
    return address, kind, size.astype(np.uint16), space.astype(np.uint16)


def slow_blocks(kind, space):
    """One list of indices for each block."""
    blocks = []
    for index in range(len(kind)):
        fresh = index == 0 or len(blocks[-1]) == 4096 or space[index] != space[index - 1]
        if fresh:
            blocks.append([])
        blocks[-1].append(index)
    return blocks


def slow_fold(address, kind, space):
    """Records as tuples (page, kind, fetches, reads, writes, order, space)."""
    records = []
    for block in slow_blocks(kind, space):
        last_page = {}
        seen = {}
        for index in block:
            page, what = int(address[index]) >> 12, int(kind[index])
            side = "fetch" if what == 2 else "data"
            if last_page.get(side) != page:
                last_page[side], seen[side] = page, set()
            if what in seen[side]:
                records[-1][2].append(what)
            else:
                records.append((page, what, [], int(space[index])))
            seen[side].add(what)
    result = []
    for page, what, folded, place in records:
        data = [k for k in folded if k != 2]
        order = 0
        if data and 2 in folded and folded.index(data[0]) < folded.index(2):
            order += 1
        if data and data[0] == 1:
            order += 2
        counts = (folded.count(2), folded.count(0), folded.count(1))
        result.append((page, what, *counts, order, place))
    return result
