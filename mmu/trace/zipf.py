"""Ranks with Zipf's frequencies: rank k of n, from 1, is drawn in proportion to k to the power of -s.

Inversion, by a table with a guide into it (H.-C. Chen, Y. Asau, "On generating random variates from an
empirical distribution", AIIE Transactions 6, 1974). The first ranks have a row each; further on a row is
a run of ranks, a 32nd of an octave, whose sum is exact (Euler and Maclaurin's formula) and within which
the frequency falls along a straight line: off by less than s^2 / 5,000 of itself.

Powers come from `decimal`, whose results are the same on every machine; those of C libraries are not.
"""

from decimal import Context, Decimal
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.jit import at, kernel
from mmu.trace.blocks import Words
from mmu.trace.draws import FRACTION_BITS, WORD_BITS

SINGLE = 512  # ranks with a row of their own
ROWS_PER_OCTAVE = 32
GUIDE_BITS = 12
DIGITS = 28


class Zipf(NamedTuple):
    """A table of ranks."""

    above: Words  # [row] a word below it, and not below that of the row before, is of this row
    first: Words  # [row + 1] rank, from 0
    bend: NDArray[np.float64]  # [row] by how much the first half of a row is preferred
    guide: Words  # [leading bits of a word] the first row that it can be of


def row_starts(ranks: int) -> list[int]:
    """Return the first rank, from 1, of each row, and the one after the last."""
    starts = list(range(1, min(SINGLE, ranks) + 1))
    octave = SINGLE
    while octave < ranks:
        starts += [octave + octave * n // ROWS_PER_OCTAVE for n in range(1, ROWS_PER_OCTAVE + 1)]
        octave *= 2
    return [*(start for start in starts if start <= ranks), ranks + 1]


def zipf(ranks: int, exponent: float) -> Zipf:
    """Return the table for so many ranks and an exponent from 0."""
    context = Context(prec=DIGITS)
    s = Decimal(exponent)

    def frequency(rank: int) -> Decimal:
        return context.exp(context.multiply(-s, context.ln(Decimal(rank))))

    starts = row_starts(ranks)
    at_start = [frequency(rank) for rank in starts]
    sums, bends, total = [], [], Decimal(0)
    for row, (low, high) in enumerate(pairwise(starts)):
        if high - low == 1:
            total = context.add(total, at_start[row])
        else:
            pair = (at_start[row], at_start[row + 1])
            total = context.add(total, run_sum(context, s, (low, high), pair))
        sums.append(total)
        bends.append(exponent * (high - low) / (high + low) if high - low > 1 else 0.0)
    scale = Decimal(1 << WORD_BITS)
    above = np.array([int(context.multiply(context.divide(x, total), scale)) - 1 for x in sums])
    above[-1] = np.iinfo(np.int64).max
    leading = np.arange(1 << GUIDE_BITS, dtype=np.int64) << WORD_BITS - GUIDE_BITS
    return Zipf(
        above=above,
        first=np.array(starts, np.int64) - 1,
        bend=np.array(bends),
        guide=np.searchsorted(above, leading, side="right").astype(np.int64),
    )


def run_sum(
    context: Context, s: Decimal, ranks: tuple[int, int], at_ends: tuple[Decimal, Decimal]
) -> Decimal:
    """Return the sum of the frequencies of ranks from the first to before the second."""
    low, high = map(Decimal, ranks)
    f_low, f_high = at_ends
    one = Decimal(1)
    if s == one:
        integral = context.ln(context.divide(high, low))
    else:
        upper, lower = context.multiply(high, f_high), context.multiply(low, f_low)
        integral = context.divide(context.subtract(upper, lower), context.subtract(one, s))
    slope_low = context.divide(context.multiply(-s, f_low), low)
    slope_high = context.divide(context.multiply(-s, f_high), high)
    ends = context.divide(context.subtract(f_low, f_high), Decimal(2))
    slopes = context.divide(context.subtract(slope_high, slope_low), Decimal(12))
    return context.add(context.add(integral, ends), slopes)


@kernel
def draw_ranks(table: Zipf, words: Words, within: Words, ranks: Words) -> None:
    """Turn random words, two for each, into ranks from 0."""
    for i in range(len(words)):
        word = words[at(i)]
        row = table.guide[at(word >> WORD_BITS - GUIDE_BITS)]
        while table.above[at(row)] <= word:
            row += 1
        first = table.first[at(row)]
        wide = table.first[at(row + 1)] - first
        if wide > 1:
            share = (within[at(i)] >> WORD_BITS - FRACTION_BITS) * 2.0**-FRACTION_BITS
            share -= table.bend[at(row)] * (share * (1.0 - share))
            first += min(int(share * wide), wide - 1)
        ranks[at(i)] = first
