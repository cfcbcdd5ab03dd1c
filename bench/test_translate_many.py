"""Uncached nested translations per second of `mmu.translate_many`, by the size of the tables.

A guest of 4 KiB pages in nested pages of 4 KiB, all of them in random order, so that each walk reads
24 entries, two of them anywhere in the tables. Addresses are random, the result arrays are part of
what is timed, and the cache of compiled code is warm. Times are the thread's own.
"""

import os
import statistics
import time

import numpy as np
import pytest

import mmu

SMOKE = bool(os.environ.get("MMU_BENCH_SMOKE"))
SIZES = (1, 4) if SMOKE else (1, 4, 16, 28)  # MiB
COUNT = 1 << (12 if SMOKE else 18)
ROUNDS = 2 if SMOKE else 9
LEAST = 4e6  # translations a second
ENTRIES = 512
GUEST = 0x67  # present, writable, user's, accessed, dirty
EPT_TABLE, EPT_LEAF = 0x107, 0x337


def entries(pages, flags):
    """Table entries that lead to pages, by number."""
    return pages.astype(np.uint64) << np.uint64(12) | np.uint64(flags)


def put(words, tables, values):
    """Write entries into tables, by number, as many as they take."""
    full = np.zeros((len(tables), ENTRIES), np.uint64)
    full.ravel()[: len(values)] = values
    words[tables] = full


def level_sizes(pages):
    """Tables of each of the four levels that so many pages take."""
    sizes = []
    for _ in range(4):
        pages = -(-pages // ENTRIES)
        sizes.append(pages)
    return sizes


def build(mebibytes, random):
    """Memory of about that size that holds tables only, cr3, EPT root, and the guest's pages."""
    pages = (mebibytes << 20) // 16 // ENTRIES * ENTRIES  # two entries each
    guest = level_sizes(pages)
    gfns = random.permutation(pages + sum(guest))
    data, guest_tables = gfns[:pages], np.split(gfns[pages:], np.cumsum(guest)[:-1])
    nested = level_sizes(len(gfns))
    mfns = random.permutation(sum(guest) + sum(nested))
    backing = np.empty(len(gfns), np.int64)
    backing[data] = (1 << 24) + random.permutation(pages)  # outside this memory
    backing[gfns[pages:]] = mfns[: sum(guest)]
    nested_tables = np.split(mfns[sum(guest) :], np.cumsum(nested)[:-1])
    words = np.zeros((len(mfns), ENTRIES), np.uint64)
    below = data
    for tables in guest_tables:
        put(words, backing[tables], entries(below, GUEST))
        below = tables
    below, flags = backing, EPT_LEAF
    for tables in nested_tables:
        put(words, tables, entries(below, flags))
        below, flags = tables, EPT_TABLE
    cr3, root = int(guest_tables[-1][0]) << 12, int(nested_tables[-1][0]) << 12
    return mmu.Memory.from_words(words.ravel()), cr3, mmu.Ept.at(root), pages


@pytest.mark.parametrize("mebibytes", SIZES)
def test_translations_a_second(benchmark, mebibytes):
    random = np.random.default_rng(mebibytes)
    memory, cr3, nested, pages = build(mebibytes, random)
    gvas = random.integers(0, pages << 12, COUNT, np.uint64)

    def run():
        return mmu.translate_many(memory, gvas, cr3=cr3, nested=nested)

    found = run()
    assert np.all(found.outcome == mmu.Outcome.OK)
    assert np.all(found.references == 24)
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        run()
        times.append(time.thread_time() - began)
    rate = COUNT / statistics.median(times)
    benchmark.extra_info["M translations/s"] = round(rate / 1e6, 2)
    size = memory.words.nbytes / (1 << 20)
    print(f"\n{size:5.1f} MiB of tables: {rate / 1e6:5.2f} M translations/s", end="")
    benchmark.pedantic(run, rounds=1, iterations=1)
    assert SMOKE or rate >= LEAST
