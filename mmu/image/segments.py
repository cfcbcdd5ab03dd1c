"""Segments of memory in a file: looked at, and turned into extents."""

from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.hardware.bits import WORD_BYTES
from mmu.hardware.memory import ZERO
from mmu.hardware.rows import Words

HIGHEST = 1 << 52  # machine addresses have at most 52 bits
MOST_SEGMENTS = (
    1 << 20
)  # a real machine has some ten; one that QEMU walks page tables of, thousands


class Segment(NamedTuple):
    """Memory that is one run in both the machine and the file; all in bytes."""

    address: int
    size: int
    offset: int | None  # in the file; None: all zero, and not in the file

    @property
    def apart(self) -> int | None:
        """How far its bytes in the file are from their address."""
        return None if self.offset is None else self.offset - self.address


def lay_out(segments: list[Segment], file_size: int) -> tuple[int, Words]:
    """Return where the first word stands in a file, 0 to 7, and extents of its words from there.

    Raises
    ------
    InputError
        A segment lies outside the file, beyond 52 bits, or over another; or is no whole words.
    """
    kept = sorted((each for each in segments if each.size), key=lambda each: each.address)
    if not kept:
        raise InputError("found no memory in it; accepted: an image with at least one segment")
    for each in kept:
        _check(each, file_size)
    shifts = {each.offset % WORD_BYTES for each in kept if each.offset is not None} or {0}
    if len(shifts) > 1:
        raise InputError(
            f"found segments at file offsets of which the remainders by {WORD_BYTES} are "
            f"{sorted(shifts)}; accepted: the same remainder for all"
        )
    shift = shifts.pop()
    runs: list[Segment] = []
    for each in kept:
        if runs and each.address < runs[-1].address + runs[-1].size:
            runs[-1] = _united(runs[-1], each)
        else:
            runs.append(each)
    rows = [
        (
            each.address // WORD_BYTES,
            each.size // WORD_BYTES,
            int(ZERO) if each.offset is None else (each.offset - shift) // WORD_BYTES,
        )
        for each in runs
    ]
    return shift, np.array(rows, np.int64)


def _check(segment: Segment, file_size: int) -> None:
    address, size, offset = segment
    what = f"found a segment of {size:#x} bytes at {address:#x}"
    if address + size > HIGHEST:
        raise InputError(f"{what}; accepted: memory below {HIGHEST:#x}")
    if address % WORD_BYTES or size % WORD_BYTES:
        raise InputError(f"{what}; accepted: multiples of {WORD_BYTES}")
    if offset is not None and offset + size > file_size:
        raise InputError(
            f"{what}, which is at {offset:#x} in a file of {file_size:#x} bytes; the file is cut short"
        )


def _united(one: Segment, other: Segment) -> Segment:
    """Return two segments that overlap as one, if the file says the same of both.

    A core written from a guest's page tables has a segment for each virtual mapping of a page.
    """
    if one.apart != other.apart:
        raise InputError(
            f"found segments of {one.size:#x} bytes at {one.address:#x} and {other.size:#x} at "
            f"{other.address:#x}, which overlap; accepted: memory that stands in the file once"
        )
    return one._replace(size=max(one.size, other.address + other.size - one.address))
