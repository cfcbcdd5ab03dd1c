"""Random words that are the same everywhere.

NumPy keeps the bit streams of PCG64 (M. E. O'Neill, "PCG: A family of simple fast space-efficient
statistically good algorithms for random number generation", 2014) and of SeedSequence as they are from
version to version, but not what `Generator` makes of them; so only the bits are taken from there, and
what is made of them needs whole numbers, or sums and products of doubles, which IEEE 754 rules.
"""

import numpy as np

from mmu.trace.blocks import Words

WORD_BITS = 63
FRACTION_BITS = 53


class Draws:
    """A stream of random words."""

    def __init__(self, seed: int, stream: int) -> None:
        self.bits = np.random.PCG64(np.random.SeedSequence([seed, stream]))

    def words(self, size: int) -> Words:
        """Return whole numbers from 0 to below 2^63: int64 [size]."""
        return (self.bits.random_raw(size) >> np.uint64(1)).view(np.int64)

    def below(self, limit: int, size: int) -> Words:
        """Return whole numbers from 0 to below `limit`: int64 [size].

        No number is favoured by more than `limit` / 2^53.
        """
        fraction = (self.words(size) >> WORD_BITS - FRACTION_BITS) * 2.0**-FRACTION_BITS
        return (fraction * limit).astype(np.int64)

    def chosen(self, share: float, size: int) -> np.typing.NDArray[np.bool_]:
        """Return for each of `size` things whether it is among a share of them."""
        return self.below(1 << 32, size) < round(share * (1 << 32))
