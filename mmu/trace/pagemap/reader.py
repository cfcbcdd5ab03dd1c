"""Opens page maps of any format: the content says which one it is."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmu.errors import InputError
from mmu.trace.decompress import decompressed, shown
from mmu.trace.pagemap import pagetypes, rows, textproto
from mmu.trace.pagemap.pages import MOST_PAGES, Entries, PageMap, collected
from mmu.trace.pagemap.stored import read_stored

HEAD = 1 << 16  # bytes by which a format is recognised


class Format(NamedTuple):
    """A textual format of page maps."""

    what: str  # for messages
    recognised: Callable[[bytes], bool]  # by its beginning
    read: Callable[[Iterable[bytes], str], Iterator[Entries]]


FORMATS = (
    Format("DynamoRIO's v2p.textproto", textproto.recognised, textproto.read_textproto),
    Format("page-types -r -l -p PID", pagetypes.recognised, pagetypes.read_pagetypes),
    Format("rows of virtual, physical, size, space", rows.recognised, rows.read_rows),
)
ACCEPTED = "; ".join(["Parquet with vpn and gfn", *(format.what for format in FORMATS)])


def read_page_map(path: str | os.PathLike[str]) -> PageMap:
    """Read a page map: which frame stood behind each page of a recorded program.

    Parameters
    ----------
    path : path
        Parquet, DynamoRIO's ``v2p.textproto``, a list of the kernel's ``page-types``, or rows of
        numbers; the textual ones may be packed as .gz, .xz, .zst or .bz2. The content says which.

    Returns
    -------
    PageMap
        Its pages, checked and in order.

    Raises
    ------
    InputError
        The file cannot be read or has no known format; a page is misaligned, has an address that no
        x86-64 processor of 4 levels has, or overlaps another one of its space.
    """
    where = shown(path)
    if is_parquet(path):
        return collected(read_stored(where), where, "row")
    with closing(decompressed(path)) as pieces:
        head = b""
        while len(head) < HEAD and (piece := next(pieces, b"")):
            head += piece
        for format in FORMATS:
            if format.recognised(head):
                return collected(format.read(chain([head], pieces), where), where)
    if not head.strip():
        raise InputError(f"{where}: is empty; accepted: {ACCEPTED}")
    content = repr(head.lstrip().split(b"\n", 1)[0][:60])[1:]
    raise InputError(
        f"{where}: begins with {content}, no page map that is known; accepted: {ACCEPTED}"
    )


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file begins as Parquet does; what cannot be looked at twice does not."""
    if os.fspath(path) == "-" or not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def merged(maps: Sequence[tuple[int | None, PageMap]], where: Sequence[str]) -> PageMap:
    """Return one map of several, each the pages of a space of its own.

    maps: the number of the space, or None for those that the map itself has; where: their names.

    Raises
    ------
    InputError
        Two maps have pages of the same space, or they are too many together.
    """
    parts: list[PageMap] = []
    taken: dict[int, str] = {}
    for (space, page_map), name in zip(maps, where, strict=True):
        if space is not None and len(page_map.spaces) > 1:
            raise InputError(
                f"{name}: found {len(page_map.spaces)} spaces; accepted: one, if it is to be "
                f"space {space}"
            )
        for number in page_map.spaces if space is None else [space]:
            if number in taken:
                raise InputError(
                    f"{name}: found pages of space {number}, which {taken[number]} has; accepted: each "
                    "space once"
                )
            taken[number] = name
            own = page_map.of(number if space is None else page_map.spaces[0])
            parts.append(
                PageMap(own.vpn, own.gfn, own.size, np.full(len(own.vpn), number, np.uint16))
            )
    parts.sort(key=lambda part: int(part.space[0]))
    pages = sum(len(part.vpn) for part in parts)
    if pages > MOST_PAGES:
        raise InputError(
            f"{', '.join(where)[:200]}: found {pages:,} pages together; accepted: up to {MOST_PAGES:,}"
        )
    return PageMap(
        np.concatenate([part.vpn for part in parts]),
        np.concatenate([part.gfn for part in parts]),
        np.concatenate([part.size for part in parts]),
        np.concatenate([part.space for part in parts]),
        sum(page_map.swapped for _, page_map in maps),
    )
