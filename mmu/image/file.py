"""An image's file: which format it has, and its bytes as an array of words."""

import mmap
import os
import stat
from typing import Any

import numpy as np

from mmu.errors import InputError
from mmu.hardware.bits import PAGE_BYTES, WORD_BYTES
from mmu.hardware.rows import Words
from mmu.image import elf, lime
from mmu.image.segments import Segment, lay_out

MAP_NORESERVE = 0x4000  # Linux; Python does not name it before 3.13
ACCEPTED = (
    "a raw image of whole pages, an ELF core of an x86-64 machine (QEMU's dump-guest-memory), "
    "or a LiME dump"
)
PACKED = "a compressed file; decompress it first"
# How formats begin that are not read, and what to do about them.
REFUSED = {
    b"KDUMP   ": "a kdump-compressed dump; dump-guest-memory writes ELF without -z, -l and -s",
    b"DISKDUMP": "a diskdump; accepted: ELF cores, which makedumpfile -E writes",
    b"makedumpfile": "a flattened dump; makedumpfile -R puts it together",
    b"PAGEDU64": "a Windows crash dump, which is none of the accepted formats",
    b"PAGEDUMP": "a Windows crash dump, which is none of the accepted formats",
    b"QFI\xfb": "a qcow2 disk image, not one of memory",
    b"QEVM": "a QEMU migration stream; dump-guest-memory writes ELF",
    b"AVML": "a compressed AVML dump; avml-convert makes a LiME dump of it",
    b"\x1f\x8b\x08": PACKED,
    b"\x28\xb5\x2f\xfd": PACKED,
    b"\xfd7zXZ\x00": PACKED,
    b"BZh": PACKED,
    b"\x04\x22\x4d\x18": PACKED,
    b"PK\x03\x04": PACKED,
}


def open_image(path: str | os.PathLike[str]) -> tuple[Words, Words]:
    """Map an image's file privately.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    words : ndarray of int64 [n]
        The file's bytes as words; what is written to it never gets to the file.
    extents : ndarray of int64 [m, EXTENT_FIELDS]
        Where they stand, as `mmu.hardware.memory` has it.

    Raises
    ------
    InputError
        There is no such file, or it is no image that can be read.
    """
    try:
        name = os.fspath(path)
    except TypeError:
        name = None
    if not isinstance(name, str):
        raise InputError(f"path: found {path!r}; accepted: the name of a memory image")
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InputError(f"{name!r}: {_reason(error)}; accepted: {ACCEPTED}") from None
    try:
        return _open(descriptor)
    except InputError as error:
        raise InputError(f"{name!r}: {error}") from None
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(f"{name!r}: cannot be mapped: {_reason(error)}") from None
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    """Return what an error says, without the file's name and a number."""
    return str(error.strerror if isinstance(error, OSError) else error)


def _open(descriptor: int) -> tuple[Words, Words]:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise InputError(f"found {kind}; accepted: {ACCEPTED}")
    size = status.st_size
    if size == 0:
        raise InputError(f"found an empty file; accepted: {ACCEPTED}")
    shift, extents = lay_out(_segments(descriptor, size), size)
    # Private: writes stay with this process. The mapping outlives the descriptor.
    whole = mmap.mmap(
        descriptor,
        size,
        flags=mmap.MAP_PRIVATE | MAP_NORESERVE,
        prot=mmap.PROT_READ | mmap.PROT_WRITE,
    )
    # Words that no address divisible by eight holds are read as fast, and are the same type to Numba.
    count = (size - shift) // WORD_BYTES
    if count == 0:  # nothing is held, all of it reads as zero
        return np.zeros(0, np.int64), extents
    words: np.ndarray[Any, np.dtype[np.int64]] = np.frombuffer(whole, np.int64, count, shift)
    return words, extents


def _segments(descriptor: int, size: int) -> list[Segment]:
    """Return what stands where, by the format that the file's beginning tells."""
    head = os.pread(descriptor, 64, 0)
    for magic, what in REFUSED.items():
        if head.startswith(magic):
            raise InputError(f"found {what}")
    if head.startswith(elf.MAGIC):
        return elf.segments(descriptor, size)
    if head.startswith(lime.MAGIC):
        return lime.segments(descriptor, size)
    if size % PAGE_BYTES:
        raise InputError(
            f"found {size:,} bytes in no format that is known, and no whole pages of "
            f"{PAGE_BYTES:,} bytes; accepted: {ACCEPTED}"
        )
    return [Segment(0, size, 0)]
