"""Reads .zip archives: one file that was packed, or the chunks of a DynamoRIO trace."""

import io
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

# The list of what is in an archive is held in memory, tenfold. A chunk is ten million instructions.
MOST_LIST = 4 << 20  # bytes: about 75,000 chunks
# The record that an archive ends with, but for its comment: the mark and the number of files.
END_MARK, END_RECORD = b"PK\x05\x06", struct.Struct("<4s6xH10x")
MOST_LISTED = 0xFFFF  # the number is elsewhere
ENCRYPTED = 1  # bit of a member's flags
CHUNK = re.compile(r"chunk\.(\d{1,9})")  # TRACE_CHUNK_PREFIX in DynamoRIO's raw2trace.h
ACCEPTED = "accepted: a single file, or DynamoRIO's chunk.0000, chunk.0001, ..."


class Bounded(io.RawIOBase):
    """A file of which no more than `MOST_LIST` bytes are ever asked for at once."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        """Read as files do; an archive's list is read in one go, as long as it says it is."""
        if not -1 <= size <= MOST_LIST:
            raise ValueError(f"its list takes {size:,} bytes; accepted: up to {MOST_LIST:,}")
        return self.file.read(MOST_LIST if size == -1 else size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as files do."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Tell where the file is, as files do."""
        return self.file.tell()

    def seekable(self) -> bool:
        """Tell that one can move in it."""
        return True


def zip_pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what an archive's files hold, one after the other.

    Raises
    ------
    ValueError
        It comes through a pipe (the list of what is in an archive is at its end), or holds other files.
    EOFError, OSError, zlib.error, zipfile.BadZipFile
        It is damaged.
    """
    if not file.seekable():
        raise ValueError("it comes through a pipe; save it as a file, its list is at the end")
    try:
        with zipfile.ZipFile(Bounded(file)) as archive:
            members = archive.infolist()
            check_end(file, len(archive.comment), len(members))
            check_names([member.filename for member in members])
            check_places(members)
            for member in members:
                with archive.open(member) as unpacked:
                    while piece := unpacked.read(size):
                        yield piece
    except RuntimeError as error:  # what zipfile cannot do
        raise ValueError(str(error)) from None


def check_end(file: BinaryIO, comment: int, members: int) -> None:
    """Refuse an archive that something follows, or that lists another number of files than it says."""
    file.seek(-END_RECORD.size - comment, io.SEEK_END)
    mark, listed = END_RECORD.unpack(file.read(END_RECORD.size))
    if mark != END_MARK:
        raise ValueError("something follows its end")
    if listed not in (members, MOST_LISTED):
        raise ValueError(f"its list has {members:,} files, and its end says {listed:,}")


def check_names(names: list[str]) -> None:
    """Refuse an archive whose files are not one trace."""
    if len(names) == 1:
        return
    for number, name in enumerate(names):
        chunk = CHUNK.fullmatch(name)
        if chunk is None or int(chunk[1]) != number:
            raise ValueError(
                f"{len(names):,} files, of which number {number:,} is {name[:60]!r}; {ACCEPTED}"
            )
    if not names:
        raise ValueError(f"no files; {ACCEPTED}")


def check_places(members: list[zipfile.ZipInfo]) -> None:
    """Refuse files that are encrypted, packed in unusual ways, or lie over one another."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        name = member.filename[:60]
        if member.flag_bits & ENCRYPTED:
            raise ValueError(f"{name!r} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(
                f"{name!r} is packed by method {member.compress_type}; accepted: stored, deflated"
            )
        if member.header_offset < end:
            raise ValueError(f"{name!r} lies over another file")
        end = member.header_offset + member.compress_size
