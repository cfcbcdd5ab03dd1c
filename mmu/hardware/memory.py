"""Machine memory: one flat array of 64-bit words, the address divided by eight its index."""

from mmu.hardware.rows import Words
from mmu.jit import at, inlined


@inlined
def inside(memory: Words, word: int) -> bool:
    """Tell whether a word index lies in memory."""
    return 0 <= word < memory.shape[0]


@inlined
def load(memory: Words, word: int) -> int:
    """Return the table word at an index that is known to be inside."""
    return memory[at(word)]


@inlined
def store(memory: Words, word: int, value: int) -> None:
    """Write the table word at an index that is known to be inside."""
    memory[at(word)] = value
