"""Measures reuse distances and working sets of a trace, block by block."""

from typing import NamedTuple

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Bytes, Counts, Words
from mmu.trace.histogram import BUCKETS, bucket_of
from mmu.trace.kinds import BLOCK, FETCH, LARGE_SHIFT, PAGE_SHIFT
from mmu.trace.pages import SPACE_BITS, Pages, Slots, find, grown, new_pages, wide
from mmu.trace.stack import NONE, Stack, has_room, heightened, new_stack, renumber, visit

FETCH_SIDE, DATA_SIDE, BOTH, SIDES = range(4)
DONE, HEADS, WINDOW, LEVEL, PROGRESS_FIELDS = range(5)
ENDS, PAGES, LARGE_PAGES, ALL_PAGES, ALL_LARGE_PAGES, SERIES = range(6)


class Measures(NamedTuple):
    """What has been seen of a trace."""

    pages: Pages  # 4 KiB
    large: Pages  # 2 MiB
    large_of: Slots  # [page] its 2 MiB page
    window_of: Slots  # [page] the last window that touched it, + 1
    large_window_of: Slots  # [large page]
    fetch: Stack
    data: Stack
    both: Stack
    histogram: Words  # [side, bucket] accesses
    cold: Words  # [side] accesses to a page that is new to the side
    series: Words  # [what, window] accesses until its end; distinct pages in it; and until its end
    progress: Words  # [field]


def new_measures(room: int, windows: int) -> Measures:
    """Return measures of nothing yet, with room for so many pages, a power of two."""
    return Measures(
        pages=new_pages(room),
        large=new_pages(room),
        large_of=np.zeros(room, np.int32),
        window_of=np.zeros(room, np.int32),
        large_window_of=np.zeros(room, np.int32),
        fetch=new_stack(room),
        data=new_stack(room),
        both=new_stack(room),
        histogram=np.zeros((SIDES, BUCKETS), np.int64),
        cold=np.zeros(SIDES, np.int64),
        series=np.zeros((SERIES, windows), np.int64),
        progress=np.zeros(PROGRESS_FIELDS, np.int64),
    )


def widened(measures: Measures) -> Measures:
    """Return the same measures with room for twice as many pages."""
    room = 2 * len(measures.pages.key)

    def longer(column: Slots) -> Slots:
        return np.concatenate([column, np.zeros(room - len(column), np.int32)])

    return measures._replace(
        pages=grown(measures.pages, room),
        large=grown(measures.large, room),
        large_of=longer(measures.large_of),
        window_of=longer(measures.window_of),
        large_window_of=longer(measures.large_window_of),
        fetch=heightened(measures.fetch, room),
        data=heightened(measures.data, room),
        both=heightened(measures.both, room),
    )


@inlined
def touch(measures: Measures, page: int, space: int, window: int) -> int:
    """Return the number of a page, and count it in the window."""
    known = measures.pages.tally[0]
    key = page << SPACE_BITS | space
    number = find(measures.pages, key)
    if number == known:
        large_key = page >> LARGE_SHIFT - PAGE_SHIFT << SPACE_BITS | space
        measures.large_of[at(number)] = find(measures.large, large_key)
    if measures.window_of[at(number)] != window + 1:
        measures.window_of[at(number)] = window + 1
        measures.series[PAGES, at(window)] += 1
        large = wide(measures.large_of[at(number)])
        if measures.large_window_of[at(large)] != window + 1:
            measures.large_window_of[at(large)] = window + 1
            measures.series[LARGE_PAGES, at(window)] += 1
    return number


@inlined
def count(measures: Measures, side: int, distance: int) -> None:
    """Count an access of a side by its distance, -1 if its page is new to the side."""
    if distance == NONE:
        measures.cold[at(side)] += 1
    else:
        measures.histogram[at(side), at(bucket_of(distance))] += 1


@kernel
def measure(
    measures: Measures,
    address: Words,
    kind: Bytes,
    fetches: Counts,
    reads: Counts,
    writes: Counts,
    first: Words,
    space: Words,
    accesses: Words,
    whole: int,
    block: int,
) -> int:
    """Measure blocks from `block` on; return the first for which there is no room.

    The columns are those of a `Chunk`; `whole` is the number of accesses of the trace.
    """
    compact = len(fetches) > 0
    windows = measures.series.shape[1]
    while block < len(space):
        if measures.pages.tally[0] + BLOCK > len(measures.pages.key):
            return block
        for stack in (measures.fetch, measures.data, measures.both):
            if not has_room(stack):
                renumber(stack)
        window, here = measures.progress[WINDOW], space[at(block)]
        fetch_page, data_page = wide(0), wide(0)
        fetch_seen, data_seen = False, 0  # data: the kinds since `data_page` became the last
        heads, fetch_repeats, data_repeats = wide(0), wide(0), wide(0)
        for i in range(first[at(block)], first[at(block + 1)]):
            page = address[at(i)] >> PAGE_SHIFT
            if kind[at(i)] == FETCH:
                stack, side = measures.fetch, FETCH_SIDE
                repeats = fetch_seen and page == fetch_page
                head = not repeats
                fetch_repeats += repeats
                fetch_page, fetch_seen = page, True
            else:
                stack, side = measures.data, DATA_SIDE
                repeats = data_seen != 0 and page == data_page
                if not repeats:
                    data_page, data_seen = page, 0
                head = data_seen & 1 << kind[at(i)] == 0
                data_repeats += repeats
                data_seen |= 1 << kind[at(i)]
            heads += head
            if not repeats:
                number = touch(measures, page, here, window)
                count(measures, side, visit(stack, number))
                count(measures, BOTH, visit(measures.both, number))
            if compact:
                fetch_repeats += wide(fetches[at(i)])
                data_repeats += wide(reads[at(i)]) + wide(writes[at(i)])
        measures.histogram[FETCH_SIDE, 0] += fetch_repeats
        measures.histogram[DATA_SIDE, 0] += data_repeats
        measures.histogram[BOTH, 0] += fetch_repeats + data_repeats
        measures.progress[HEADS] += heads
        end_block(measures, accesses[at(block)], windows, whole)
        block += 1
    return block


@inlined
def end_block(measures: Measures, accesses: int, windows: int, whole: int) -> None:
    """Take note of a block's end, and of the window's if enough accesses have been made."""
    progress, series = measures.progress, measures.series
    window = progress[WINDOW]
    progress[DONE] += accesses
    series[ENDS, at(window)] = progress[DONE]
    series[ALL_PAGES, at(window)] = measures.pages.tally[0]
    series[ALL_LARGE_PAGES, at(window)] = measures.large.tally[0]
    level = progress[DONE] * windows // whole
    if level > progress[LEVEL]:
        progress[LEVEL] = level
        progress[WINDOW] = min(window + 1, windows - 1)
