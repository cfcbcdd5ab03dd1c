"""Makes accesses that are like a trace, from the model that was fitted to it.

What was counted is drawn without putting it back: at the end of a phase as many fetches, turns, depths
and moves have been made as were measured in it, in another order.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmu.jit import at, inlined, kernel
from mmu.trace.blocks import Bytes, Words
from mmu.trace.draws import WORD_BITS, Draws
from mmu.trace.format import Raw
from mmu.trace.histogram import BUCKETS, EDGES
from mmu.trace.kinds import FETCH, PAGE_SHIFT
from mmu.trace.model import COLD, MOVES, STATES, TURN, Model
from mmu.trace.pages import wide
from mmu.trace.patterns import CHUNK_ACCESSES, INSTRUCTION_BYTES, WORD_BYTES, sized
from mmu.trace.reuse import DATA_SIDE, FETCH_SIDE
from mmu.trace.stack import NONE, Stack, has_room, height, new_stack, recall, renumber, visit

URN = 1 << (BUCKETS + 1).bit_length()
CHANCE_BITS = 24
CHANCE = (1 << CHANCE_BITS) - 1
WORD_STEPS = 9  # bits that choose one of the 8-byte words of a page
LAST_PAGE, NEXT, HELD, SIDE_FIELDS = range(4)
LEFT, FETCHES, TURNS, SEEN, POSITION, STATE_FIELDS = range(6)


class Side(NamedTuple):
    """One side of the program that is made."""

    stack: Stack
    urn: Words  # [bucket + 1] Fenwick's sums of the turns left in the phase
    weight: Words  # [bucket] the turns left
    page: Words  # [page] page numbers in the order of their first use
    state: Words  # [field] page that the side is at, next new page, turns in the urn


class Making(NamedTuple):
    """A trace in the making."""

    fetch: Side
    data: Side
    moves: Words  # [state, move] data accesses left in the phase
    state: Words  # [field] accesses, fetches, turns of fetches left; kinds seen; instructions made
    edges: Words  # [bucket + 1] least depth


def new_side(pages: Words) -> Side:
    """Return a side that has been nowhere yet."""
    return Side(
        stack=new_stack(max(len(pages), 1)),
        urn=np.zeros(URN + 1, np.int64),
        weight=np.zeros(COLD + 1, np.int64),
        page=pages,
        state=np.array([NONE, 0, 0], np.int64),
    )


@kernel
def fill(side: Side) -> None:
    """Fill the urn with as much as is left of each bucket."""
    total = wide(0)
    for slot in range(len(side.urn)):
        side.urn[at(slot)] = 0
    for bucket in range(COLD + 1):
        total += side.weight[at(bucket)]
        slot = bucket + 1
        while slot < len(side.urn):
            side.urn[at(slot)] += side.weight[at(bucket)]
            slot += slot & -slot
    side.state[HELD] = total


@inlined
def drop(side: Side, bucket: int) -> None:
    """Take one turn of a bucket out of the urn."""
    side.weight[at(bucket)] -= 1
    side.state[HELD] -= 1
    slot = bucket + 1
    while slot < len(side.urn):
        side.urn[at(slot)] -= 1
        slot += slot & -slot


@inlined
def bucket_at(side: Side, place: int) -> int:
    """Return the bucket of the turn at a place of the urn, counted from 0."""
    slot, left, step = 0, place, URN // 2
    while step > 0:
        if side.urn[at(slot + step)] <= left:
            slot += step
            left -= side.urn[at(slot)]
        step >>= 1
    return slot


@inlined
def scaled(word: int, limit: int) -> int:
    """Return a whole number from 0 to below a limit of up to 2^38, from the low bits of a word."""
    return (word & CHANCE) * limit >> CHANCE_BITS


@inlined
def turn(side: Side, edges: Words, word: int) -> int:
    """Go to another page, drawn from the urn; return it."""
    pages = height(side.stack)
    bucket = 1 if pages > 0 else COLD
    if side.state[HELD] > 0:
        bucket = bucket_at(side, (word & (1 << 31) - 1) * side.state[HELD] >> 31)
        # What lies deeper than all pages waits until there are more of them.
        if bucket != COLD and edges[at(bucket)] >= pages and side.weight[COLD] > 0:
            bucket = COLD
        drop(side, bucket)
    if bucket == COLD:
        number = min(side.state[NEXT], len(side.page) - 1)
        side.state[NEXT] = number + 1
        visit(side.stack, number)
        return number
    least = edges[at(bucket)]
    depth = least + ((word >> 31) * (edges[at(bucket + 1)] - least) >> WORD_BITS - 31)
    return recall(side.stack, min(depth, pages - 1))


@inlined
def move_of(making: Making, word: int) -> int:
    """Draw what a data access does, from what is left for its state."""
    seen = making.state[SEEN]
    for _ in range(STATES):
        left = wide(0)
        for move in range(MOVES):
            left += making.moves[at(seen), at(move)]
        if left > 0:
            break
        seen = (seen + 1) % STATES  # a state that nothing leaves any more: go on from another
    place = scaled(word, left)
    for move in range(MOVES):
        place -= making.moves[at(seen), at(move)]
        if place < 0:
            making.moves[at(seen), at(move)] -= 1
            return move
    return 0


@kernel
def make(making: Making, words: Words, turns: Words, address: Words, kind: Bytes) -> None:
    """Make accesses of a phase, from two random words for each."""
    state = making.state
    for i in range(len(address)):
        word = words[at(i)]
        chance = word >> CHANCE_BITS
        fetches = scaled(word, state[LEFT]) < state[FETCHES]
        side = making.fetch if fetches else making.data
        nowhere = side.state[LAST_PAGE] == NONE
        if fetches:
            turning = nowhere or scaled(chance, state[FETCHES]) < state[TURNS]
            state[FETCHES] -= 1
            state[TURNS] -= turning
            what = FETCH
        else:
            move = move_of(making, chance)
            turning = nowhere or move >= TURN
            what = move & 1
            state[SEEN] = (0 if turning else state[SEEN]) | 1 << what
        state[LEFT] -= 1
        if turning:
            if not has_room(side.stack):
                renumber(side.stack)
            side.state[LAST_PAGE] = turn(side, making.edges, turns[at(i)])
        page = side.page[at(side.state[LAST_PAGE])] << PAGE_SHIFT
        if fetches:
            inside = state[POSITION] & (1 << PAGE_SHIFT) - 1
            state[POSITION] += INSTRUCTION_BYTES
        else:
            inside = (word >> 2 * CHANCE_BITS & (1 << WORD_STEPS) - 1) * WORD_BYTES
        address[at(i)], kind[at(i)] = page | inside, what


def stretched(counts: Words, made: int, measured: int) -> Words:
    """Return counts in proportion, whose sum is so too: what is left of one is added to the next."""
    if made == measured:
        return counts.copy()
    flat = counts.reshape(-1)
    # Python's numbers: a product of accesses has more than 64 bits.
    sums = [int(total) * made // measured for total in np.cumsum(flat)]
    made_until = np.array([0, *sums], np.int64)
    return (made_until[1:] - made_until[:-1]).reshape(counts.shape)


def depths_of(model: Model, phase: int, side: int, made: int) -> Words:
    """Return the turns of a phase by depth; a longer one goes to no more new pages."""
    measured = int(model.accesses[phase])
    depths = model.depths[phase, side]
    new = int(depths[COLD])
    if made <= measured:
        return stretched(depths, made, measured)
    turns = int(depths.sum()) * made // measured
    again = depths.copy()
    again[COLD] = 0
    if not again.any():
        again[BUCKETS - 1] = 1  # as deep as can be: round all pages again
    more = stretched(again, turns - new, int(again.sum()))
    more[COLD] = new
    return more


def accesses_like(model: Model, accesses: int, seed: int) -> Iterator[Raw]:
    """Yield so many accesses that are like the model's trace, the same for the same seed."""
    making = Making(
        fetch=new_side(model.pages[0]),
        data=new_side(model.pages[1]),
        moves=np.zeros((STATES, MOVES), np.int64),
        state=np.zeros(STATE_FIELDS, np.int64),
        edges=EDGES,
    )
    choices, depths = Draws(seed, 0), Draws(seed, 1)
    ends = np.cumsum(model.accesses)
    whole = int(ends[-1])
    made_until = [0, *(int(end) * accesses // whole for end in ends)]
    new_until = np.cumsum(model.depths[:, :, COLD], axis=0)
    for phase in range(len(ends)):
        made, measured = made_until[phase + 1] - made_until[phase], int(model.accesses[phase])
        if not made:
            continue
        for number, side in ((FETCH_SIDE, making.fetch), (DATA_SIDE, making.data)):
            side.weight[:] = depths_of(model, phase, number, made)
            side.state[NEXT] = new_until[phase, number] - model.depths[phase, number, COLD]
            fill(side)
        fetches = int(model.fetches[phase]) * made // measured
        turns = int(making.fetch.weight.sum())
        making.state[[LEFT, FETCHES, TURNS]] = made, fetches, turns
        making.moves[:] = stretched(model.moves[phase], made, measured)
        for start in range(0, made, CHUNK_ACCESSES):
            size = min(CHUNK_ACCESSES, made - start)
            address, kind = np.empty(size, np.int64), np.empty(size, np.uint8)
            make(making, choices.words(size), depths.words(size), address, kind)
            yield sized(address, kind)
