"""Memory that a user brings: tables made by hand, page by page, or in an image of a real machine."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.hardware.bits import PAGE_BYTES, WORD_BYTES
from mmu.hardware.memory import EXTENT_FIELDS, FIRST, INDEX, WORDS
from mmu.hardware.rows import Words
from mmu.sparse import HIGHEST, WHOLE_NUMBERS, pages_extents, with_zeros


@dataclass(frozen=True)
class Memory:
    """Machine memory as an array of 64-bit words.

    Attributes
    ----------
    words : ndarray of int64 [n]
        The words; a view of what was given, wherever that can be.
    base : int
        Lowest machine address of a word; of the first one, where they are one run.
    writable : bool
        Accessed and dirty bits can be written to it.
    extents : ndarray of int64 [m, 3], optional
        Where the words stand: for each run its first address divided by eight, how many words it is,
        and the index of its first word in `words`, or -1 if it reads as zero. Sorted by address,
        without overlap. By default all words are one run from `base` on.
    """

    words: Words
    base: int
    writable: bool
    extents: Words = field(default=None)  # type: ignore[arg-type]  # never None once made

    def __post_init__(self) -> None:
        """Make the extents, and check what kernels trust."""
        self._check_words()
        if self.extents is None:
            run = np.array([[self.base // WORD_BYTES, len(self.words), 0]], np.int64)
            object.__setattr__(self, "extents", run)
        check_extents(self.extents, len(self.words))

    def _check_words(self) -> None:
        words: object = self.words
        if not isinstance(words, np.ndarray) or words.ndim != 1 or words.dtype != np.int64:
            found = f"{words.dtype} {words.shape}" if isinstance(words, np.ndarray) else type(words)
            raise InputError(
                f"words: found {found}; accepted: int64 (n,); Memory.from_words takes uint64 as well"
            )
        if not words.flags.c_contiguous or not words.flags.writeable:
            raise InputError(
                "words: found an array that is strided or read-only; accepted: one that is neither; "
                "Memory.from_words makes a copy of such"
            )
        if not isinstance(self.base, int) or isinstance(self.base, bool):
            raise InputError(f"base: found {self.base!r}; accepted: a whole number")
        if not isinstance(self.writable, bool):
            raise InputError(f"writable: found {self.writable!r}; accepted: True | False")

    @classmethod
    def from_words(cls, words: NDArray[Any], base: int = 0) -> "Memory":
        """Take an array of table words; outside it there is no memory.

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
        if array.ndim != 1 or array.dtype not in WHOLE_NUMBERS:
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

    @classmethod
    def from_pages(cls, addresses: NDArray[Any], pages: NDArray[Any]) -> "Memory":
        """Take pages of table words; every other page of the machine reads as zero.

        An entry there is not present, which is a page fault or a nested violation, never missing
        memory.

        Parameters
        ----------
        addresses : ndarray of uint64 or int64 [n]
            Machine addresses of the pages: distinct multiples of 4,096 below 2^52, in any order.
        pages : ndarray of uint64 or int64 [n, 512]
            Their words. Not copied if it is contiguous and writable, so that accessed and dirty bits
            are written to it.

        Raises
        ------
        InputError
            The arrays are not these.
        """
        view, extents = pages_extents(addresses, pages)
        writable = view.flags.writeable and np.shares_memory(view, np.asarray(pages))
        words = view if view.flags.writeable else view.copy()
        # No pages have no run, but share memory with nothing either: they can be written.
        extents = with_zeros(extents)
        return cls(words, _base(extents), bool(writable) or not len(view), extents)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Memory":
        """Open an image of a machine's memory; its content tells the format.

        Read are ELF cores of x86-64 machines, such as QEMU's ``dump-guest-memory`` writes, dumps of
        LiME's version 1, and raw images, which are memory from address 0 on.

        The file is mapped, so that an image of many gigabytes opens at once and only pages that are
        touched are read. It is never written: accessed and dirty bits go to a private copy of the page,
        which this `Memory` sees and no other. The file must not get shorter as
        long as this is in use: to read what is gone ends the process.

        Parameters
        ----------
        path : str or path-like
            The image. Compressed files have to be decompressed first.

        Raises
        ------
        InputError
            There is no such file, or it is no image that can be read.
        """
        from mmu.image import open_image  # noqa: PLC0415  few need it

        words, extents = open_image(path)
        return cls(words, _base(extents), True, extents)

    def ranges(self) -> NDArray[np.uint64]:
        """Return the first and the last address of each run of words held, lowest first.

        Returns
        -------
        ndarray of uint64 [n, 2]
            Without what reads as zero and is not held.
        """
        held = self.extents[(self.extents[:, INDEX] >= 0) & (self.extents[:, WORDS] > 0)]
        first, end = held[:, FIRST], held[:, FIRST] + held[:, WORDS]
        apart = first[1:] != end[:-1]
        firsts = first[np.append(len(first) > 0, apart)[: len(first)]]
        lasts = end[np.append(apart, len(first) > 0)[: len(first)]]
        return (np.stack([firsts, lasts], axis=1) * WORD_BYTES - [0, 1]).astype(np.uint64)


def _base(extents: Words) -> int:
    """Return the lowest address of a word; 0 if all reads as zero."""
    held = extents[extents[:, INDEX] >= 0]
    return int(held[0, FIRST]) * WORD_BYTES if len(held) else 0


def check_extents(extents: Words, words: int) -> None:
    """Refuse extents by which a kernel would read outside an array of so many words."""
    given: object = extents
    if not isinstance(given, np.ndarray):
        raise InputError(f"extents: found {type(given).__name__}; accepted: an ndarray, or none")
    if extents.ndim != 2 or extents.shape[1] != EXTENT_FIELDS or extents.dtype != np.int64:
        raise InputError(
            f"extents: found {extents.dtype} {extents.shape}; accepted: int64 (n, {EXTENT_FIELDS})"
        )
    most = HIGHEST // WORD_BYTES
    first, count, index = extents.T
    fits = (first >= 0) & (first <= most) & (count >= 0) & (count <= most - first)
    fits &= (index < 0) | (index <= words) & (count <= words - index)
    if not len(extents) or not fits.all() or (first[1:] < (first + count)[:-1]).any():
        raise InputError(
            "extents: found runs outside the words, beyond 52 bits, or not in order; accepted: at "
            "least one run, sorted by address, without overlap"
        )
    if not extents.flags.c_contiguous:
        raise InputError("extents: found an array that is not contiguous; accepted: C order")
