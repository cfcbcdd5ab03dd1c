"""Frame allocators and the ownership book.

A *pool* is a run of 2 MiB regions of one address space: the hypervisor's reserve and the rest of
machine memory, and each guest's own guest-physical memory. Small frames come from regions that are
broken already, so that whole regions stay free for large pages; this is what a buddy allocator of two
orders does.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.hardware.bits import LARGE_FRAMES
from mmu.hardware.rows import Words
from mmu.jit import at, constant, inlined

# Who has a frame. Virtual machine `vm` has the frames marked FIRST_VM + vm.
FREE, TAKEN, FIRST_VM = 0, 1, 3
HYPERVISOR = constant(2)

NONE = -1


class Frames(NamedTuple):
    """All pools."""

    base: Words  # [pool] frame number of its first frame
    begin: Words  # [pool + 1] its first region
    whole: Words  # [pool] first of its regions with every frame free; NONE: there is none
    partial: Words  # [pool] first of its regions with some frames free
    left: Words  # [pool] free frames
    free: Words  # [region] free frames in it
    hint: Words  # [region] no frame below this one is free
    behind: Words  # [region] next region of its list
    before: Words  # [region] the one before it
    owner: NDArray[np.uint16]  # [region * 512 + frame] who has it


@inlined
def unlink(frames: Frames, head: Words, pool: int, region: int) -> None:
    """Take a region out of the list of a pool that begins at `head`."""
    behind, before = frames.behind[at(region)], frames.before[at(region)]
    if before == NONE:
        head[at(pool)] = behind
    else:
        frames.behind[at(before)] = behind
    if behind != NONE:
        frames.before[at(behind)] = before


@inlined
def link(frames: Frames, head: Words, pool: int, region: int) -> None:
    """Put a region in front of the list of a pool that begins at `head`."""
    behind = head[at(pool)]
    frames.behind[at(region)] = behind
    frames.before[at(region)] = NONE
    if behind != NONE:
        frames.before[at(behind)] = region
    head[at(pool)] = region


@inlined
def take_small(frames: Frames, pool: int, owner: int) -> int:
    """Take a 4 KiB frame of a pool: its frame number, or NONE."""
    region = frames.partial[at(pool)]
    if region == NONE:
        region = frames.whole[at(pool)]
        if region == NONE:
            return NONE
        unlink(frames, frames.whole, pool, region)
        link(frames, frames.partial, pool, region)
    frame = region * LARGE_FRAMES + frames.hint[at(region)]
    while frames.owner[at(frame)] != FREE:
        frame += 1
    frames.owner[at(frame)] = owner
    frames.hint[at(region)] = frame - region * LARGE_FRAMES + 1
    frames.free[at(region)] -= 1
    frames.left[at(pool)] -= 1
    if not frames.free[at(region)]:
        unlink(frames, frames.partial, pool, region)
    return frames.base[at(pool)] + frame - frames.begin[at(pool)] * LARGE_FRAMES


@inlined
def take_large(frames: Frames, pool: int, owner: int) -> int:
    """Take a whole 2 MiB region of a pool: its first frame's number, or NONE."""
    region = frames.whole[at(pool)]
    if region == NONE:
        return NONE
    unlink(frames, frames.whole, pool, region)
    first = region * LARGE_FRAMES
    for frame in range(first, first + LARGE_FRAMES):
        frames.owner[at(frame)] = owner
    frames.free[at(region)] = 0
    frames.left[at(pool)] -= LARGE_FRAMES
    return frames.base[at(pool)] + first - frames.begin[at(pool)] * LARGE_FRAMES


def pools(bases: list[int], regions: list[int]) -> Frames:
    """Build pools with every frame free: of `regions[i]` regions from frame `bases[i]` on."""
    begin = np.concatenate([[0], np.cumsum(regions)]).astype(np.int64)
    total = int(begin[-1])
    behind = np.arange(1, total + 1, dtype=np.int64)
    before = np.arange(-1, total - 1, dtype=np.int64)
    whole = np.full(len(regions), NONE, np.int64)
    for pool, size in enumerate(regions):
        if size:
            whole[pool] = begin[pool]
            before[begin[pool]] = NONE
            behind[begin[pool + 1] - 1] = NONE
    return Frames(
        base=np.array(bases, np.int64),
        begin=begin,
        whole=whole,
        partial=np.full(len(regions), NONE, np.int64),
        left=np.array(regions, np.int64) * LARGE_FRAMES,
        free=np.full(total, LARGE_FRAMES, np.int64),
        hint=np.zeros(total, np.int64),
        behind=behind,
        before=before,
        # Zeroed pages of the operating system are committed when written: a 1 TiB host opens at once.
        owner=np.zeros(total * LARGE_FRAMES, np.uint16),
    )


def break_regions(
    frames: Frames, pool: int, regions: NDArray[np.int64], taken: NDArray[np.int64]
) -> None:
    """Fragment a pool: in each of its `regions` (ascending), somebody has frame `taken` already.

    regions: int64 [n], numbered within the pool; taken: int64 [n], frame within the region.
    """
    begin = int(frames.begin[pool])
    frames.owner[(begin + regions) * LARGE_FRAMES + taken] = TAKEN
    frames.free[begin + regions] -= 1
    frames.left[pool] -= len(regions)
    relink(frames, pool)


def claim(
    frames: Frames, pool: int, first: NDArray[np.int64], size: NDArray[np.uint8], owner: int
) -> None:
    """Take certain pages out of a pool, whoever has a part of them already.

    first: int64 [n], number of each page's first frame, counted from the pool's; size: uint8 [n], 1 where
    it is of 2 MiB. A page may be named more than once, and a small one may lie inside a large one.
    """
    begin, end = int(frames.begin[pool]), int(frames.begin[pool + 1])
    book = frames.owner[begin * LARGE_FRAMES : end * LARGE_FRAMES].reshape(-1, LARGE_FRAMES)
    book[first[size != 0] // LARGE_FRAMES] = owner
    book.reshape(-1)[first[size == 0]] = owner
    marks = np.zeros(end - begin, bool)
    marks[first // LARGE_FRAMES] = True
    touched = np.flatnonzero(marks)
    # By parts, as the comparison's result takes half of what the book itself does.
    for part in np.array_split(touched, len(touched) // 4096 + 1):
        frames.free[begin + part] = np.count_nonzero(book[part] == FREE, axis=1)
    frames.left[pool] = frames.free[begin:end].sum()
    relink(frames, pool)


def relink(frames: Frames, pool: int) -> None:
    """Build the lists of a pool from what is free in its regions, in ascending order."""
    begin, end = int(frames.begin[pool]), int(frames.begin[pool + 1])
    free = frames.free[begin:end]
    whole, partial = free == LARGE_FRAMES, (free > 0) & (free < LARGE_FRAMES)
    for head, members in ((frames.whole, whole), (frames.partial, partial)):
        chain = np.concatenate([[NONE], begin + np.flatnonzero(members), [NONE]])
        frames.before[chain[1:-1]] = chain[:-2]
        frames.behind[chain[1:-1]] = chain[2:]
        head[pool] = chain[1]
