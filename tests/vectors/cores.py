"""ELF cores of machines: what QEMU dumps, and the few pages of it that are kept."""

import struct

PAGE = 4096
FRAME = 0x000F_FFFF_FFFF_F000  # of an entry


def segments(core):
    """Return (physical address, place in the file, bytes) of an ELF core's memory, and its notes."""
    header = struct.unpack_from("<16sHHIQQQIHHHHHH", core, 0)
    notes, found = b"", []
    for index in range(header[10]):
        kind, _, offset, _, address, size, _, _ = struct.unpack_from(
            "<IIQQQQQQ", core, header[5] + index * header[9]
        )
        if kind == 4:
            notes = bytes(core[offset : offset + size])
        elif kind == 1:
            found.append((address, offset, size))
    return found, notes


def table_pages(core, cr3, levels):
    """Return the pages that hold tables, by address: everything that a walk can read."""
    parts, notes = segments(core)
    pages, seen, left = {}, set(), [(cr3 & FRAME, levels)]
    while left:
        address, level = left.pop()
        if (address, level) in seen:
            continue
        seen.add((address, level))
        for first, offset, size in parts:
            if first <= address <= first + size - PAGE:
                pages[address] = bytes(core[offset + address - first :][:PAGE])
        for entry in struct.unpack("<512Q", pages.get(address, bytes(PAGE))):
            if level > 1 and entry & 1 and not (entry & 0x80 and level <= 3):
                left.append((entry & FRAME, level - 1))
    return pages, notes


def small_core(pages, notes):
    """Return an ELF core with those pages only: a segment for each run of them."""
    runs = []
    for address in sorted(pages):
        if runs and address == runs[-1][0] + len(runs[-1][1]):
            runs[-1][1].extend(pages[address])
        else:
            runs.append((address, bytearray(pages[address])))
    place = 64 + 56 * (1 + len(runs))
    head = [struct.pack("<IIQQQQQQ", 4, 0, place, 0, 0, len(notes), 0, 0)]
    place += len(notes)
    for address, content in runs:
        size = len(content)
        head.append(struct.pack("<IIQQQQQQ", 1, 0, place, 0, address, size, size, 0))
        place += size
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 4, 62, 1, 0, 64, 0, 0, 64, 56, len(head), 0, 0, 0
    )
    return b"".join([header, *head, notes, *(content for _, content in runs)])
