"""Memory that a user brings: page tables made by hand, or those of a replay."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.hardware.bits import PAGE_BYTES, WORD_BYTES
from mmu.hardware.rows import Words

HIGHEST = 1 << 52  # machine addresses have at most 52 bits


@dataclass(frozen=True)
class Memory:
    """Machine memory as an array of 64-bit words.

    Attributes
    ----------
    words : ndarray of int64 [n]
        The words; a view of what was given, wherever that can be.
    base : int
        Machine address of the first word.
    writable : bool
        Accessed and dirty bits can be written to it.
    """

    words: Words
    base: int
    writable: bool

    @property
    def extents(self) -> Words:
        """Where the words stand in the machine's address space: see `mmu.hardware.memory`."""
        return np.array([[self.base // WORD_BYTES, len(self.words), 0]], np.int64)

    @classmethod
    def from_words(cls, words: NDArray[Any], base: int = 0) -> "Memory":
        """Take an array of table words.

        Parameters
        ----------
        words : ndarray of int64 or uint64 [n]
            Not copied if it is contiguous and writable.
        base : int
            Machine address of ``words[0]``, a multiple of 4,096.

        Raises
        ------
        InputError
            The array or the base is none that machine memory can be.
        """
        try:
            array = np.asarray(words)
        except ValueError:
            array = np.zeros((0, 0))
        if array.ndim != 1 or array.dtype not in (np.dtype(np.int64), np.dtype(np.uint64)):
            raise InputError(
                f"words: found {array.ndim} dimensions of {array.dtype}; accepted: one dimension of "
                "int64 or uint64, such as numpy.zeros(512 * pages, numpy.uint64)"
            )
        if not isinstance(base, int | np.integer) or isinstance(base, bool):
            raise InputError(f"base: found {base!r}; accepted: a whole number, the machine address")
        base = int(base)
        if base % PAGE_BYTES or not 0 <= base <= HIGHEST - WORD_BYTES * array.size:
            raise InputError(
                f"base: found {base:#x} for {array.size} words; accepted: a multiple of "
                f"{PAGE_BYTES:#x} from which all words lie below {HIGHEST:#x}"
            )
        view = np.ascontiguousarray(array).view(np.int64)
        writable = view.flags.writeable and np.shares_memory(view, array)
        return cls(view if view.flags.writeable else view.copy(), base, bool(writable))
