"""Reads a file, or standard input, that may be compressed: what it is, its content says."""

import bz2
import gzip
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import pyarrow as pa

from mmu.errors import InputError
from mmu.trace.archive import zip_pieces

PIECE = 1 << 20  # bytes
# An .xz file says how much memory it needs: `xz -9` 65 MiB. A hostile one may ask for 4 GiB.
XZ_MEMORY = 256 << 20  # bytes
DAMAGED = (
    EOFError,
    OSError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
    MemoryError,
    BadZipFile,
)

Unpack = Callable[[BinaryIO, int], Iterator[bytes]]
Decompressor = bz2.BZ2Decompressor | lzma.LZMADecompressor


def whole_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what is left of a file."""
    while piece := file.read(size):
        yield piece


def gzip_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what a .gz file holds."""
    with gzip.GzipFile(fileobj=file) as unpacked:
        while piece := unpacked.read(size):
            yield piece


def arrow_pieces(file: BinaryIO, size: int, codec: str) -> Iterator[bytes]:
    """Yield what a file holds that Arrow can unpack."""
    with pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec) as unpacked:
        while piece := unpacked.read(size):
            yield piece


def zstd_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what a .zst file holds."""
    return arrow_pieces(file, size, "zstd")


def lz4_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what an .lz4 file holds."""
    return arrow_pieces(file, size, "lz4")


def stream_pieces(file: BinaryIO, size: int, start: Callable[[], Decompressor]) -> Iterator[bytes]:
    """Yield what the streams of a .bz2 or .xz file hold, one after the other, and all of it.

    The standard library's file classes set no limit to memory and pass over what follows a stream.
    """
    decompressor = start()
    packed = b""
    while True:
        if decompressor.eof:
            packed = (decompressor.unused_data or file.read(size)).lstrip(b"\0")  # padding
            if not packed:
                break
            decompressor = start()
        elif decompressor.needs_input and not packed:
            packed = file.read(size)
            if not packed:
                raise EOFError("it ends in the middle")
        piece = decompressor.decompress(packed, size)
        packed = b""
        if piece:
            yield piece


def bz2_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what a .bz2 file holds."""
    return stream_pieces(file, size, bz2.BZ2Decompressor)


def xz_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what an .xz file holds."""
    return stream_pieces(
        file, size, lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    )


COMPRESSIONS: dict[bytes, tuple[str, Unpack]] = {
    b"\x1f\x8b": ("gzip", gzip_pieces),
    b"\xfd7zXZ\0": ("xz", xz_pieces),
    b"\x28\xb5\x2f\xfd": ("zstd", zstd_pieces),
    b"BZh": ("bzip2", bz2_pieces),
    b"\x04\x22\x4d\x18": ("lz4", lz4_pieces),
    b"PK\x03\x04": ("zip", zip_pieces),
}


def shown(path: str | os.PathLike[str]) -> str:
    """Return what messages call an input."""
    return "standard input" if os.fspath(path) == "-" else os.fspath(path)


def decompressed(path: str | os.PathLike[str], size: int = PIECE) -> Generator[bytes]:
    """Yield an input's bytes in pieces, unpacked if it is compressed.

    Parameters
    ----------
    path : path
        A file, a pipe, or ``"-"`` for standard input.
    size : int
        Bytes of a piece, about.

    Raises
    ------
    InputError
        It cannot be read, or the compressed data are damaged or cut off.
    """
    where = shown(path)
    compression = "a file"
    with ExitStack() as stack:
        try:
            if os.fspath(path) == "-":
                file: BinaryIO = sys.stdin.buffer
            else:
                file = stack.enter_context(Path(path).open("rb"))
            head = file.peek(8)  # type: ignore[attr-defined]
            pieces: Unpack = whole_pieces
            for magic, (name, unpack) in COMPRESSIONS.items():
                if head.startswith(magic):
                    compression, pieces = f"{name} data", unpack
            yield from pieces(file, size)
        except DAMAGED as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise InputError(f"{where}: {compression} that cannot be read: {reason}") from None
