"""Machine memory: an array of 64-bit words, and where in the machine's address space they stand.

A word's number is its machine address divided by eight. A replay's memory is flat: the number is the
index. A user's is *extents*, sorted by address and without overlap; each row is the number of the first
word, how many words there are, and the index of the first one in the array. An extent without an index
reads as zero, and takes no room there.
"""

from mmu.hardware.rows import Words
from mmu.jit import at, constant, inlined

FIRST, WORDS, INDEX, EXTENT_FIELDS = range(4)
# What is no index: the word reads as zero, or there is no memory. Zero is an entry that is not present
# in every format, so that no walk writes to it.
ZERO, OUTSIDE = constant(-1), constant(-2)


@inlined
def bisect(extents: Words, number: int) -> int:
    """Return the index of a word that extents, of which there is one at least, hold; or as `locate`."""
    low, high = 0, extents.shape[0]
    while high - low > 1:
        middle = (low + high) >> 1
        if extents[at(middle), FIRST] <= number:
            low = middle
        else:
            high = middle
    within = number - extents[at(low), FIRST]
    if not 0 <= within < extents[at(low), WORDS]:
        return OUTSIDE
    index = extents[at(low), INDEX]
    return index + within if index >= 0 else ZERO


@inlined
def locate(memory: Words, extents: Words | None, number: int) -> int:
    """Return the index of a word by its number; or ZERO, or OUTSIDE.

    Whether there are extents is known by type: code for a replay is compiled without them (the mere
    loop of a search that is never made costs a replay 5 to 15 %).
    """
    if extents is None:
        return number if 0 <= number < memory.shape[0] else OUTSIDE
    # Most memory is one extent, or has its tables in the first: 1.02 against 1.07 of the time without
    # extents.
    within = number - extents[0, FIRST]
    if 0 <= within < extents[0, WORDS] and extents[0, INDEX] >= 0:
        return extents[0, INDEX] + within
    return bisect(extents, number)


@inlined
def load(memory: Words, word: int) -> int:
    """Return the table word at an index that is known to be inside."""
    return memory[at(word)]


@inlined
def store(memory: Words, word: int, value: int) -> None:
    """Write the table word at an index that is known to be inside."""
    memory[at(word)] = value
