"""The fully associative twin of an L2: as many entries, one set, least recently used.

A miss that the twin would have had is a conflict: the entry went because too many pages share its set.
The twin sees the look-ups and fills of its L2, and loses what invalidations, flushes and purges drop;
it has room for the arrays that can hold a page of the run. `Machine.twin` holds those of both sides,
one after the other, each as words: a head, the chains of a hash table, and the entries with their
links. There is none unless it is asked for.
"""

import numpy as np

from mmu.hardware.rows import CONTEXT_SHIFT, DENIED, EMPTY, L2_DATA, L2_FETCH, NUMBER_SHIFT, Words
from mmu.jit import at, inlined, kernel

# Fields of a twin's head: entries, chains (a power of two), and three lists of entries.
ENTRIES, CHAINS, NEWEST, OLDEST, UNUSED, HEAD_FIELDS = range(6)
# Fields of an entry. Those in use are linked by age, and in chains; the others by CHAIN.
TAG, FRAME, NEWER, OLDER, CHAIN, ENTRY_FIELDS = range(6)
NOTHING = -1
FOLD_MASK = (1 << 31) - 1
SPREAD = 0x4F1BBCDD  # odd, 31 bits, so that the product of two such numbers fits 63 bits
CONTEXT_SPREAD = 0x2F0B4C47


@inlined
def scattered(key: int) -> int:
    """Return a hash of a page, whose low 20 bits are poor; `key` is as a tag word, low bits count too."""
    folded = (
        key >> 3 ^ key >> NUMBER_SHIFT + 26 ^ (key >> CONTEXT_SHIFT) * CONTEXT_SPREAD
    ) & FOLD_MASK
    return folded * SPREAD >> 20


def twin_words(entries: int) -> int:
    """Return how many words a twin of so many entries takes."""
    return HEAD_FIELDS + chains_of(entries) + entries * ENTRY_FIELDS


def chains_of(entries: int) -> int:
    """Return the chains of a twin of so many entries: twice as many, or more."""
    return 1 << max(2 * entries - 1, 1).bit_length()


def empty_twin(entries: int) -> Words:
    """Return a twin of so many entries, none of them in use."""
    words = np.full(twin_words(entries), NOTHING, np.int64)
    words[ENTRIES], words[CHAINS] = entries, chains_of(entries)
    table = words[HEAD_FIELDS + chains_of(entries) :].reshape(entries, ENTRY_FIELDS)
    table[:, CHAIN] = np.arange(1, entries + 1)
    if entries:
        table[-1, CHAIN] = NOTHING
        words[UNUSED] = 0
    return words


@inlined
def base_of(twin: Words, group: int) -> int:
    """Return where the twin of a group of rows begins."""
    if group == L2_DATA:
        return 0
    return HEAD_FIELDS + twin[CHAINS] + twin[ENTRIES] * ENTRY_FIELDS


@inlined
def entry_at(twin: Words, base: int, entry: int) -> int:
    """Return where an entry begins."""
    return base + HEAD_FIELDS + twin[at(base + CHAINS)] + entry * ENTRY_FIELDS


@inlined
def chain_at(twin: Words, base: int, tag: int) -> int:
    """Return where the head of a page's chain is."""
    return base + HEAD_FIELDS + (scattered(tag & ~DENIED) & twin[at(base + CHAINS)] - 1)


@inlined
def unlink(twin: Words, base: int, entry: int) -> None:
    """Take an entry out of the list by age."""
    place = entry_at(twin, base, entry)
    newer, older = twin[at(place + NEWER)], twin[at(place + OLDER)]
    if newer == NOTHING:
        twin[at(base + NEWEST)] = older
    else:
        twin[at(entry_at(twin, base, newer) + OLDER)] = older
    if older == NOTHING:
        twin[at(base + OLDEST)] = newer
    else:
        twin[at(entry_at(twin, base, older) + NEWER)] = newer


@inlined
def link_newest(twin: Words, base: int, entry: int) -> None:
    """Put an entry in front of the list by age."""
    place, newest = entry_at(twin, base, entry), twin[at(base + NEWEST)]
    twin[at(place + NEWER)], twin[at(place + OLDER)] = NOTHING, newest
    if newest == NOTHING:
        twin[at(base + OLDEST)] = entry
    else:
        twin[at(entry_at(twin, base, newest) + NEWER)] = entry
    twin[at(base + NEWEST)] = entry


@kernel
def give_up(twin: Words, base: int, entry: int) -> None:
    """Take an entry out of use."""
    place = entry_at(twin, base, entry)
    unlink(twin, base, entry)
    link = chain_at(twin, base, twin[at(place + TAG)])
    while twin[at(link)] != entry:
        link = entry_at(twin, base, twin[at(link)]) + CHAIN
    twin[at(link)] = twin[at(place + CHAIN)]
    twin[at(place + TAG)] = EMPTY
    twin[at(place + CHAIN)] = twin[at(base + UNUSED)]
    twin[at(base + UNUSED)] = entry


@inlined
def in_twin(twin: Words, base: int, tag: int) -> int:
    """Return the entry of a page, or NOTHING."""
    entry = twin[at(chain_at(twin, base, tag))]
    while entry != NOTHING:
        place = entry_at(twin, base, entry)
        if not (twin[at(place + TAG)] ^ tag) & ~DENIED:
            return entry
        entry = twin[at(place + CHAIN)]
    return NOTHING


@kernel
def use_twin(twin: Words, group: int, tag: int, frame: int) -> bool:
    """Make the access to a page in the twin of a group; tell whether the twin had it."""
    base = base_of(twin, group)
    if not twin[at(base + ENTRIES)]:
        return False
    entry = in_twin(twin, base, tag)
    had = entry != NOTHING
    if had:
        unlink(twin, base, entry)
    else:
        if twin[at(base + UNUSED)] == NOTHING:
            give_up(twin, base, twin[at(base + OLDEST)])
        entry = twin[at(base + UNUSED)]
        place, chain = entry_at(twin, base, entry), chain_at(twin, base, tag)
        twin[at(base + UNUSED)] = twin[at(place + CHAIN)]
        twin[at(place + CHAIN)] = twin[at(chain)]
        twin[at(chain)] = entry
    place = entry_at(twin, base, entry)
    twin[at(place + TAG)], twin[at(place + FRAME)] = tag & ~DENIED, frame
    link_newest(twin, base, entry)
    return had


@inlined
def twin_uses(twin: Words, group: int, tag: int, frame: int) -> bool:
    """Make the access to a page in the twin of a group, if there is one; tell whether it had it."""
    return use_twin(twin, group, tag, frame) if twin.shape[0] else False


@inlined
def twin_entries(twin: Words, group: int) -> int:
    """Return how many entries the twin of a group has; 0 if there is none."""
    if not twin.shape[0] or group < L2_DATA or group > L2_FETCH:
        return 0
    base = base_of(twin, group)
    return twin[at(base + ENTRIES)] if base < twin.shape[0] else 0


@inlined
def twin_entry(twin: Words, group: int, entry: int) -> tuple[int, int]:
    """Return the tag and frame words of an entry; EMPTY if it is not in use."""
    place = entry_at(twin, base_of(twin, group), entry)
    return twin[at(place + TAG)], twin[at(place + FRAME)]
