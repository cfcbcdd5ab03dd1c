"""Writes files that may be packed: how, the name's ending says."""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from mmu.errors import InputError

# Of 20 MB of ChampSim records level 0 of xz made a twelfth at 56 MB a second; 3 the same at 12, and 6 a
# twentieth less at 1.5.
GZIP_LEVEL, XZ_LEVEL = 6, 0


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: Any, /) -> Any:
        """Take bytes, or what has a buffer of them."""


def gzip_sink(file: BinaryIO) -> Any:
    """Return a stream that packs for .gz, without name and time: the same trace is the same file."""
    return gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0)


def xz_sink(file: BinaryIO) -> Any:
    """Return a stream that packs for .xz."""
    return lzma.LZMAFile(file, "wb", preset=XZ_LEVEL)


def bz2_sink(file: BinaryIO) -> Any:
    """Return a stream that packs for .bz2."""
    return bz2.BZ2File(file, "wb")


def zstd_sink(file: BinaryIO) -> Any:
    """Return a stream that packs for .zst."""
    return pa.CompressedOutputStream(pa.PythonFile(file, mode="w"), "zstd")


PACKERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip_sink,
    ".xz": xz_sink,
    ".bz2": bz2_sink,
    ".zst": zstd_sink,
}


@contextmanager
def packing(path: Path, name: str) -> Iterator[Sink]:
    """Open a file to write, packed as the ending of `name` says; close it in the end.

    Raises
    ------
    OSError
        It cannot be written.
    InputError
        The ending is that of a packing which importing knows and exporting does not.
    """
    ending = Path(name).suffix.lower()
    if ending in (".lz4", ".zip"):
        known = ", ".join(PACKERS)
        raise InputError(f"{name}: ends in {ending}; accepted: {known} to pack, others not to")
    with path.open("wb") as file:
        packer = PACKERS.get(ending)
        if packer is None:
            yield file
            return
        with packer(file) as packed:
            yield packed
