"""Synthetic accesses: where each data access of a pattern goes, and the fetches between them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.trace.blocks import Bytes, Words
from mmu.trace.draws import Draws
from mmu.trace.format import Raw
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.permutation import permutation, permuted
from mmu.trace.zipf import draw_ranks, zipf

WORD_BYTES = 8  # of a data access
INSTRUCTION_BYTES = 4
CHUNK_ACCESSES = 1 << 17
PLACES, FINER_PLACES, WITHIN, KINDS, ORDER = range(5)  # streams of random words

Offsets = Callable[[int, int], Words]


@dataclass(frozen=True)
class Pattern:
    """What a synthetic trace is made of; sizes are bytes."""

    kind: str  # one of `KINDS_OF_PATTERN`
    accesses: int
    seed: int
    footprint: int
    base: int  # first address of the data
    code: int  # size of the loop that instructions are fetched from
    code_base: int
    fetches: int  # before each data access; of gups, before each pair
    write_share: float
    exponent: float
    stride: int
    grain: int  # what is permuted, or has a popularity


class Kind(NamedTuple):
    """A pattern's generator, and the options that are its own; one row of `KINDS_OF_PATTERN`."""

    what: str
    offsets: Callable[[Pattern], Offsets]  # of data accesses from one number on, so many
    own: tuple[str, ...] = ()


def uniform(pattern: Pattern) -> Offsets:
    """Draw words evenly."""
    places = Draws(pattern.seed, PLACES)
    words = pattern.footprint // WORD_BYTES
    return lambda _, size: places.below(words, size) * WORD_BYTES


def strided(pattern: Pattern) -> Offsets:
    """Go on by the same step, and start over where the footprint ends."""
    lap = -(-pattern.footprint // pattern.stride)
    return lambda start, size: (start + np.arange(size, dtype=np.int64)) % lap * pattern.stride


def chased(pattern: Pattern) -> Offsets:
    """Follow pointers round a random cycle through all grains: one leads to each."""
    grains = pattern.footprint // pattern.grain
    order = permutation(grains, Draws(pattern.seed, ORDER))

    def offsets(start: int, size: int) -> Words:
        steps = (start + np.arange(size, dtype=np.int64)) % grains
        return permuted(order, steps) * pattern.grain

    return offsets


def popular(pattern: Pattern) -> Offsets:
    """Draw grains by Zipf's law, which lie scattered, and in them words evenly."""
    grains, words = pattern.footprint // pattern.grain, pattern.grain // WORD_BYTES
    order = permutation(grains, Draws(pattern.seed, ORDER))
    table = zipf(grains, pattern.exponent)
    places, finer = Draws(pattern.seed, PLACES), Draws(pattern.seed, FINER_PLACES)
    within = Draws(pattern.seed, WITHIN)

    def offsets(_: int, size: int) -> Words:
        ranks = np.empty(size, np.int64)
        draw_ranks(table, places.words(size), finer.words(size), ranks)
        inside = within.below(words, size) * WORD_BYTES
        return permuted(order, ranks) * pattern.grain + inside

    return offsets


KINDS_OF_PATTERN = {
    "uniform": Kind("words drawn evenly", uniform, ("write_share",)),
    "zipf": Kind("pages drawn by Zipf's law", popular, ("write_share", "exponent", "grain")),
    "stride": Kind("words at equal steps", strided, ("write_share", "stride")),
    "chase": Kind("pointers followed round a random cycle", chased, ("grain",)),
    "gups": Kind("random words read and written", uniform),
}


def accesses_of(pattern: Pattern) -> Iterator[Raw]:
    """Yield a pattern's accesses, the same for the same seed whatever the size of the parts."""
    offsets = KINDS_OF_PATTERN[pattern.kind].offsets(pattern)
    base = pattern.base - (1 << 64) if pattern.base >> 63 else pattern.base
    choices = Draws(pattern.seed, KINDS)
    pair = pattern.kind == "gups"
    turn = pattern.fetches + (2 if pair else 1)  # accesses that repeat as a whole
    each = max(1, CHUNK_ACCESSES // turn)
    turns = -(-pattern.accesses // turn)
    left = pattern.accesses
    for start in range(0, turns, each):
        size = min(each, turns - start)
        address = np.empty((size, turn), np.int64)
        kind = np.empty((size, turn), np.uint8)
        if pattern.fetches:
            loop = pattern.code // INSTRUCTION_BYTES
            fetched = start * pattern.fetches + np.arange(size * pattern.fetches, dtype=np.int64)
            code = pattern.code_base + fetched % loop * INSTRUCTION_BYTES
            address[:, : pattern.fetches] = code.reshape(size, -1)
            kind[:, : pattern.fetches] = FETCH
        data = base + offsets(start, size)
        address[:, pattern.fetches :] = data[:, np.newaxis]
        if pair:
            kind[:, pattern.fetches :] = READ, WRITE
        elif pattern.write_share:
            kind[:, pattern.fetches] = choices.chosen(pattern.write_share, size)
        else:
            kind[:, pattern.fetches] = READ
        here = min(left, size * turn)
        left -= here
        yield sized(address.reshape(-1)[:here], kind.reshape(-1)[:here])


def sized(address: Words, kind: Bytes) -> Raw:
    """Return accesses with their sizes."""
    size: NDArray[np.uint16] = np.where(kind == FETCH, INSTRUCTION_BYTES, WORD_BYTES).astype(
        np.uint16
    )
    return Raw(address, kind, size)
