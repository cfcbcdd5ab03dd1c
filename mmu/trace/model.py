"""A working-set model of a trace: what has to be the same for TLBs to behave the same.

The LRU stack model (J. R. Spirn, "Distance string models for program behavior", Computer 9, 1976), a
phase at a time: each side goes from page to page, and the page that it goes to is the one at a depth of
its LRU stack, drawn from the depths measured in the phase, or the next new one. Kinds of data accesses,
and how long the side stays at a page, follow a chain of the first order: what follows an access depends
on the kinds that its page has seen since the side came to it, as does folding.

What the model does not have: which page it is that is used again. Pages take turns at every depth, so
that written pages, and pages that share a set, are other ones than in the program.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.jit import at, inlined, kernel
from mmu.trace.ahead import ahead
from mmu.trace.blocks import Bytes, Counts, Words
from mmu.trace.chunks import Chunk, chunk_of
from mmu.trace.histogram import BUCKETS, bucket_of
from mmu.trace.kinds import BLOCK, FETCH, PAGE_SHIFT, READ, WRITE
from mmu.trace.pages import Pages, find, grown, new_pages, wide
from mmu.trace.reader import Trace
from mmu.trace.reuse import DATA_SIDE, FETCH_SIDE
from mmu.trace.stack import NONE, Stack, has_room, heightened, new_stack, renumber, visit

FIRST_ROOM = 1 << 14
MOST_PAGES = 1 << 24
COLD = BUCKETS  # the bucket of new pages
MODEL_SIDES = 2
STATES = 4  # kinds that the page has seen since the side came to it, as bits; 0 at the beginning
STAY, TURN = 0, 2  # what a data access does, and added to it its kind
MOVES = 4
PHASE, LEVEL, DONE, SEEN, FIT_FIELDS = range(5)


class Model(NamedTuple):
    """What a trace is like, phase by phase."""

    accesses: Words  # [phase]
    fetches: Words  # [phase]
    depths: Words  # [phase, side, bucket] turns to a page that lies so deep; the last: to a new one
    moves: Words  # [phase, state, move] data accesses
    pages: tuple[Words, Words]  # of each side: [page] page numbers in the order of their first use


class Fit(NamedTuple):
    """A model in the making."""

    pages: Pages
    fetch: Stack
    data: Stack
    first: Words  # [side, page] page numbers in the order of their first use
    tally: Words  # [side] how many
    accesses: Words  # [phase]
    fetches: Words  # [phase]
    depths: Words  # [phase, side, bucket]
    moves: Words  # [phase, state, move]
    progress: Words  # [field]


def new_fit(room: int, phases: int) -> Fit:
    """Return a model of nothing yet, with room for so many pages, a power of two."""
    return Fit(
        pages=new_pages(room),
        fetch=new_stack(room),
        data=new_stack(room),
        first=np.zeros((MODEL_SIDES, room), np.int64),
        tally=np.zeros(MODEL_SIDES, np.int64),
        accesses=np.zeros(phases, np.int64),
        fetches=np.zeros(phases, np.int64),
        depths=np.zeros((phases, MODEL_SIDES, BUCKETS + 1), np.int64),
        moves=np.zeros((phases, STATES, MOVES), np.int64),
        progress=np.zeros(FIT_FIELDS, np.int64),
    )


def widened(fit: Fit) -> Fit:
    """Return the same with room for twice as many pages."""
    room = 2 * len(fit.pages.key)
    return fit._replace(
        pages=grown(fit.pages, room),
        fetch=heightened(fit.fetch, room),
        data=heightened(fit.data, room),
        first=np.concatenate([fit.first, np.zeros_like(fit.first)], axis=1),
    )


@inlined
def note(fit: Fit, side: int, page: int, depth: int) -> None:
    """Take note of where a side goes, if it does not stay."""
    phase = fit.progress[PHASE]
    if depth == NONE:
        fit.first[at(side), at(fit.tally[at(side)])] = page
        fit.tally[at(side)] += 1
        fit.depths[at(phase), at(side), COLD] += 1
    elif depth > 0:
        fit.depths[at(phase), at(side), at(bucket_of(depth))] += 1


@kernel
def fit_blocks(
    fit: Fit,
    address: Words,
    kind: Bytes,
    fetches: Counts,
    reads: Counts,
    writes: Counts,
    first: Words,
    accesses: Words,
    data: Words,
    whole: int,
    block: int,
) -> int:
    """Fit blocks from `block` on; return the first for which there is no room."""
    compact = len(fetches) > 0
    phases = len(fit.accesses)
    while block < len(accesses):
        if fit.pages.tally[0] + BLOCK > len(fit.pages.key):
            return block
        for stack in (fit.fetch, fit.data):
            if not has_room(stack):
                renumber(stack)
        phase, seen = fit.progress[PHASE], fit.progress[SEEN]
        for i in range(first[at(block)], first[at(block + 1)]):
            page = address[at(i)] >> PAGE_SHIFT
            side = FETCH_SIDE if kind[at(i)] == FETCH else DATA_SIDE
            stack = fit.fetch if kind[at(i)] == FETCH else fit.data
            depth = visit(stack, find(fit.pages, page))
            note(fit, side, page, depth)
            if side == DATA_SIDE:
                move = (STAY if depth == 0 else TURN) + wide(kind[at(i)])
                fit.moves[at(phase), at(seen), at(move)] += 1
                if depth != 0:
                    seen = 0
                seen |= 1 << wide(kind[at(i)])
            if compact:
                fit.moves[at(phase), at(seen), STAY + READ] += wide(reads[at(i)])
                fit.moves[at(phase), at(seen), STAY + WRITE] += wide(writes[at(i)])
        fit.progress[SEEN] = seen
        fit.accesses[at(phase)] += accesses[at(block)]
        fit.fetches[at(phase)] += accesses[at(block)] - data[at(block)]
        fit.progress[DONE] += accesses[at(block)]
        level = fit.progress[DONE] * phases // whole
        if level > fit.progress[LEVEL]:
            fit.progress[LEVEL] = level
            fit.progress[PHASE] = min(phase + 1, phases - 1)
        block += 1
    return block


def fitted(trace: Trace, phases: int, progress: Callable[[int, int], None] | None = None) -> Model:
    """Fit a model to a trace of one address space; both of its layouts give the same.

    Parameters
    ----------
    trace : Trace
    phases : int
        Parts of about as many accesses each, cut at block ends, that are fitted one by one.
    progress : callable, optional
        Called now and then with the numbers of accesses read and to be read.

    Raises
    ------
    InputError
        The trace is damaged, has several spaces, or too many pages.
    """
    fit = new_fit(FIRST_ROOM, phases)
    space = None
    for blocks in ahead(trace.blocks()):
        chunk = chunk_of(blocks, trace.has_fetches)
        space = chunk.space[0] if space is None else space
        if (chunk.space != space).any():
            raise InputError(
                f"{os.fspath(trace.path)}: has several spaces; accepted: a trace of one, which "
                "'mmu trace cut --space' takes out"
            )
        fit = fitted_chunk(fit, chunk, trace)
        if progress is not None:
            progress(int(fit.progress[DONE]), trace.accesses)
    used = fit.accesses > 0
    return Model(
        accesses=fit.accesses[used],
        fetches=fit.fetches[used],
        depths=fit.depths[used],
        moves=fit.moves[used],
        pages=(fit.first[0, : fit.tally[0]].copy(), fit.first[1, : fit.tally[1]].copy()),
    )


def fitted_chunk(fit: Fit, chunk: Chunk, trace: Trace) -> Fit:
    """Fit a chunk, making room where it is short."""
    columns = (chunk.address, chunk.kind, chunk.fetches, chunk.reads, chunk.writes)
    block = 0
    while True:
        block = fit_blocks(
            fit, *columns, chunk.first, chunk.accesses, chunk.data, trace.accesses, block
        )
        if block == len(chunk.accesses):
            return fit
        if len(fit.pages.key) >= MOST_PAGES:
            raise InputError(
                f"{trace.path}: touches more than {MOST_PAGES - BLOCK:,} pages of 4 KiB, too many for "
                "a model; cut a part of it out"
            )
        fit = widened(fit)
