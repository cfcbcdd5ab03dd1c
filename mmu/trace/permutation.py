"""Random permutations of any length in no memory.

A Feistel network (M. Luby, C. Rackoff, "How to construct pseudorandom permutations from pseudorandom
functions", 1988) permutes the numbers of so many bits; a number that comes out too large goes through
it again until it is not (J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", 2002).
"""

from typing import NamedTuple

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Words
from mmu.trace.draws import WORD_BITS, Draws

ROUNDS = 6  # three suffice for secret functions; these are cheap ones
MULTIPLIER_BITS, ADDEND_BITS = 31, 53  # with halves of up to 23 bits nothing overflows
MIDDLE = 20  # the low bits of a product are as good as none
MOST_BITS = 46


class Permutation(NamedTuple):
    """A permutation of the numbers from 0 to below `length`."""

    length: int
    upper: int  # bits of the two halves of a number
    lower: int
    factor: Words  # [round]
    addend: Words  # [round]


def permutation(length: int, draws: Draws) -> Permutation:
    """Return a random permutation of 1 to 2^46 numbers."""
    bits = max(2, (length - 1).bit_length())
    words = draws.words(2 * ROUNDS)
    return Permutation(
        length=length,
        upper=bits // 2,
        lower=bits - bits // 2,
        factor=words[:ROUNDS] >> WORD_BITS - MULTIPLIER_BITS | 1,
        addend=words[ROUNDS:] >> WORD_BITS - ADDEND_BITS,
    )


@inlined
def mixed(half: int, factor: int, addend: int, bits: int) -> int:
    """Return so many bits that depend on all of a half."""
    product = half * factor + addend
    return (product ^ product >> MIDDLE) >> MIDDLE & (1 << bits) - 1


@kernel
def permute(
    number: Words, length: int, upper: int, lower: int, factor: Words, addend: Words
) -> None:
    """Put in the place of each number the one that it is taken to."""
    for i in range(len(number)):
        high, low = number[at(i)] >> lower, number[at(i)] & (1 << lower) - 1
        while True:
            for turn in range(0, ROUNDS, 2):
                high ^= mixed(low, factor[at(turn)], addend[at(turn)], upper)
                low ^= mixed(high, factor[at(turn + 1)], addend[at(turn + 1)], lower)
            if high << lower | low < length:
                break
        number[at(i)] = high << lower | low


def permuted(how: Permutation, number: Words) -> Words:
    """Return where a permutation takes numbers: int64 [n]."""
    taken = np.array(number, np.int64)
    permute(taken, *how)
    return taken
