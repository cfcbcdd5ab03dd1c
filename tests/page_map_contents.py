"""What a page map says, in plain numbers; and a map read from text."""

from mmu.trace.pagemap.reader import read_page_map


def content(page_map):
    """(space, address, frame's address, bytes) of each page."""
    return [
        (space, vpn << 12, gfn << 12, 4096 << 9 * size)
        for space, vpn, gfn, size in zip(
            page_map.space.tolist(), page_map.vpn.tolist(), page_map.gfn.tolist(),
            page_map.size.tolist(), strict=True,
        )
    ]  # fmt: skip


def read(tmp_path, text, name="map"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_page_map(path)
