"""Memory given page by page, as words and extents."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.hardware.bits import ENTRIES, PAGE_BYTES, WORD_BYTES
from mmu.hardware.memory import EXTENT_FIELDS, FIRST, WORDS, ZERO
from mmu.hardware.rows import Words

HIGHEST = 1 << 52  # machine addresses have at most 52 bits
WHOLE_NUMBERS = (np.dtype(np.int64), np.dtype(np.uint64))


def pages_extents(addresses: NDArray[Any], pages: NDArray[Any]) -> tuple[Words, Words]:
    """Return the words of pages, not copied if that can be, and where they stand.

    addresses: [n] of uint64 or int64; pages: [n, 512] of either.
    """
    where, what = _array("addresses", addresses, 1), _array("pages", pages, 2)
    if what.shape != (len(where), ENTRIES):
        raise InputError(
            f"pages: found shape {what.shape} for {len(where)} addresses; accepted: "
            f"({len(where)}, {ENTRIES})"
        )
    numbers = where.view(np.uint64)
    wrong = (numbers % PAGE_BYTES != 0) | (numbers >= HIGHEST)
    if wrong.any():
        raise InputError(
            f"addresses: found {int(where[wrong][0]):#x}; accepted: multiples of {PAGE_BYTES:#x} "
            f"below {HIGHEST:#x}"
        )
    order = np.argsort(numbers, kind="stable")
    first = numbers[order].view(np.int64) // WORD_BYTES
    again = np.flatnonzero(first[1:] == first[:-1])
    if len(again):
        raise InputError(
            f"addresses: found {int(first[again[0]]) * WORD_BYTES:#x} twice; accepted: each page once"
        )
    index = order.astype(np.int64) * ENTRIES
    # A run goes on where both the address and the place in the array do.
    new = (np.diff(first) != ENTRIES) | (np.diff(index) != ENTRIES)
    begins = np.flatnonzero(np.concatenate([np.ones(min(len(first), 1), bool), new]))
    counts = np.diff(np.append(begins, len(first))) * ENTRIES
    extents = np.stack([first[begins], counts, index[begins]], axis=1)
    return np.ascontiguousarray(what).view(np.int64).reshape(-1), extents.astype(np.int64)


def with_zeros(extents: Words) -> Words:
    """Return extents that cover all machine addresses: between those given, memory reads as zero."""
    begins = np.append(0, extents[:, FIRST] + extents[:, WORDS])
    ends = np.append(extents[:, FIRST], HIGHEST // WORD_BYTES)
    gaps = np.full((len(begins), EXTENT_FIELDS), ZERO, np.int64)
    gaps[:, FIRST], gaps[:, WORDS] = begins, ends - begins
    every = np.concatenate([extents, gaps[ends > begins]])
    return np.ascontiguousarray(every[np.argsort(every[:, FIRST])])


def _array(name: str, given: Any, dimensions: int) -> NDArray[Any]:
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.zeros((0, 0, 0))
    if array.ndim != dimensions or array.dtype not in WHOLE_NUMBERS:
        raise InputError(
            f"{name}: found {array.ndim} dimensions of {array.dtype}; accepted: {dimensions} of "
            "uint64 or int64"
        )
    return array
