"""Writing a small image, for tests and for those who share a guest's page tables."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.files import write_whole
from mmu.hardware.bits import ENTRIES, PAGE_BYTES, WORD_BYTES
from mmu.hardware.memory import FIRST, INDEX, WORDS
from mmu.image import elf
from mmu.sparse import pages_extents


def write_elf(path: str | os.PathLike[str], addresses: NDArray[Any], pages: NDArray[Any]) -> None:
    """Write pages of memory as an ELF core, all or not at all.

    Parameters
    ----------
    path : str or path-like
        The file; it is replaced.
    addresses : ndarray of uint64 or int64 [n]
        Machine addresses of the pages: distinct multiples of 4,096 below 2^52, in any order.
    pages : ndarray of uint64 or int64 [n, 512]
        What stands there.

    Raises
    ------
    InputError
        The arrays are not these, or the file cannot be written.
    """
    words, extents = pages_extents(addresses, pages)
    # Sorted, so that a run of addresses is one segment however the pages were given.
    order = np.argsort(np.asarray(addresses), kind="stable")
    content = words.reshape(-1, ENTRIES)[order]
    _, extents = pages_extents(np.asarray(addresses)[order], content)
    write_whole(os.fspath(path), program_headers(extents) + content.astype("<i8").tobytes())


def program_headers(extents: NDArray[np.int64]) -> bytes:
    """Return all that precedes memory in a core, padded to a whole page.

    extents: int64 [n, EXTENT_FIELDS], of words that follow in that order.
    """
    many = len(extents) >= elf.MANY
    header = np.zeros(1, elf.HEADER)
    header["ident"] = elf.MAGIC + bytes([elf.CLASS_64, elf.LITTLE_ENDIAN, elf.VERSION])
    header["type"], header["machine"], header["version"] = elf.CORE, elf.X86_64, elf.VERSION
    header["ehsize"], header["phentsize"] = elf.HEADER.itemsize, elf.PROGRAM.itemsize
    header["phoff"] = elf.HEADER.itemsize
    header["phnum"] = elf.MANY if many else len(extents)
    programs = np.zeros(len(extents), elf.PROGRAM)
    section = np.zeros(int(many), elf.SECTION)
    if many:
        header["shoff"] = elf.HEADER.itemsize + programs.nbytes
        header["shentsize"], header["shnum"] = elf.SECTION.itemsize, 1
        section["info"] = len(extents)
    length = header.nbytes + programs.nbytes + section.nbytes
    begin = -(-length // PAGE_BYTES) * PAGE_BYTES
    programs["type"], programs["align"] = elf.LOAD, PAGE_BYTES
    programs["offset"] = begin + extents[:, INDEX] * WORD_BYTES
    programs["paddr"] = programs["vaddr"] = extents[:, FIRST] * WORD_BYTES
    programs["filesz"] = programs["memsz"] = extents[:, WORDS] * WORD_BYTES
    return (header.tobytes() + programs.tobytes() + section.tobytes()).ljust(begin, b"\0")
