"""LiME dumps: ranges of memory, each behind a header of its own.

Source: LiME, ``doc/README.md``, "Memory Range Header Version 1 Specification": packed magic, version,
first and last address, eight reserved bytes. AVML writes the same, and its own version 2 compressed.
"""

import os
import struct

from mmu.errors import InputError
from mmu.image.segments import HIGHEST, MOST_SEGMENTS, Segment

MAGIC = (0x4C694D45).to_bytes(4, "little")
VERSION = 1
HEADER = struct.Struct("<4sIQQ8x")


def segments(descriptor: int, size: int) -> list[Segment]:
    """Return the segments of a LiME dump of so many bytes.

    Raises
    ------
    InputError
        It is of another version, or is damaged.
    """
    found: list[Segment] = []
    offset = 0
    while offset < size:
        data = os.pread(descriptor, HEADER.size, offset)
        if len(data) < HEADER.size:
            raise InputError(f"found {len(data)} bytes of a range's header; the file is cut short")
        magic, version, first, last = HEADER.unpack(data)
        if magic != MAGIC:
            raise InputError(f"found no range's header at {offset:#x}; the dump is damaged")
        if version != VERSION:
            raise InputError(
                f"found a LiME dump of version {version}; accepted: version {VERSION}, which "
                "avml-convert makes of AVML's compressed version 2"
            )
        if first > last or last >= HIGHEST:
            raise InputError(
                f"found a range from {first:#x} to {last:#x}; accepted: memory below {HIGHEST:#x}"
            )
        if len(found) == MOST_SEGMENTS:
            raise InputError(f"found more ranges than the {MOST_SEGMENTS:,} that are accepted")
        offset += HEADER.size
        found.append(Segment(first, last + 1 - first, offset))
        offset += last + 1 - first
    return found
