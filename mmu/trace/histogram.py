"""Histograms of reuse distances: exact up to 4,096, fine above.

Every octave above has 512 buckets of equal width, so that powers of two, and sizes like 6,144, lie
between buckets.
"""

import numpy as np
from numpy.typing import NDArray

from mmu.jit import inlined
from mmu.trace.blocks import Words

LINEAR_BITS = 12
FINE_BITS = 9
LINEAR, FINE = 1 << LINEAR_BITS, 1 << FINE_BITS
MOST_BITS = 26  # distances are below 2^26
BUCKETS = LINEAR + (MOST_BITS - LINEAR_BITS) * FINE


@inlined
def bucket_of(distance: int) -> int:
    """Return the bucket of a distance from 0."""
    if distance < LINEAR:
        return distance
    shift = LINEAR_BITS - FINE_BITS
    while distance >> shift >= 2 * FINE:
        shift += 1
    return LINEAR + (shift - (LINEAR_BITS - FINE_BITS) - 1) * FINE + (distance >> shift)


def edges() -> Words:
    """Return the least distance of each bucket, and 2^26 in the end: int64 [bucket + 1]."""
    fine = np.arange(FINE, 2 * FINE, dtype=np.int64)
    shifts = range(LINEAR_BITS - FINE_BITS, MOST_BITS - FINE_BITS)
    octaves = [fine << shift for shift in shifts]
    return np.concatenate(
        [np.arange(LINEAR, dtype=np.int64), *octaves, np.array([1 << MOST_BITS], np.int64)]
    )


EDGES = edges()


def below(counts: NDArray[np.int64], distance: int) -> int:
    """Return how many of the counted distances are below an edge.

    Parameters
    ----------
    counts : int64 [bucket]
    distance : int
        One of `EDGES`.
    """
    return int(counts[: np.searchsorted(EDGES, distance)].sum())
