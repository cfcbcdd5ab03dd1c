"""Imports traces of other programs; the content says which format they have."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mmu.errors import InputError
from mmu.trace import lackey
from mmu.trace.compact import fold
from mmu.trace.decompress import decompressed, shown
from mmu.trace.format import Raw
from mmu.trace.reader import Trace, open_trace
from mmu.trace.window import window
from mmu.trace.writer import write_compact, write_raw


class Format(NamedTuple):
    """A format that can be imported; one row of `FORMATS`."""

    what: str  # for messages
    recognised: Callable[[bytes], bool]  # by the first megabyte or so
    recording: Callable[[bytes], dict[str, str]]  # what that says of the recording
    read: Callable[[Iterable[bytes], str], Iterator[Raw]]


FORMATS = {
    "lackey": Format(
        "logs of valgrind --tool=lackey --trace-mem=yes",
        lackey.recognised,
        lackey.recording,
        lackey.read_lackey,
    ),
}


def import_trace(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str | None = None,
    compact: bool = False,
    skip: int = 0,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trace:
    """Import a trace of another program.

    Parameters
    ----------
    path : path
        The file, plain or packed as .gz, .xz, .zst or .bz2 (its content says which); a pipe;
        ``"-"`` for standard input.
    out : path
        The trace to write. It appears when all of the input has been read.
    format : str, optional
        One of `FORMATS`; by default the content says.
    compact : bool
        Fold accesses, see `mmu.trace.compact`.
    skip, limit : int, optional
        Keep at most `limit` accesses after the first `skip`; the input is not read any further.
    progress : callable, optional
        Called now and then with the number of accesses read so far.

    Returns
    -------
    Trace
        The trace that has been written.

    Raises
    ------
    InputError
        The format is not known, a record cannot be, the input cannot be read, or the trace cannot
        be written.
    """
    where = shown(path)
    with closing(decompressed(path)) as pieces:
        head = next(pieces, b"")
        found = chosen(format, head, where)
        kept = window(found.read(chain([head], pieces), where), where, skip, limit, progress)
        recording = found.recording(head) | {"source": shown(Path(path).name), "skipped": skip}
        if compact:
            write_compact(out, fold(kept, where), recording)
        else:
            write_raw(out, kept, recording)
    return open_trace(out)


def chosen(name: str | None, head: bytes, where: str) -> Format:
    """Return the format of that name, or the one that is recognised by its beginning."""
    accepted = "; ".join(f"{key}, {format.what}" for key, format in FORMATS.items())
    if name is not None:
        if name not in FORMATS:
            raise InputError(f"{where}: format {name!r} is not known; accepted: {accepted}")
        return FORMATS[name]
    for format in FORMATS.values():
        if format.recognised(head):
            return format
    if not head:
        raise InputError(f"{where}: is empty; accepted: {accepted}")
    if head.startswith(b"PAR1"):
        raise InputError(f"{where}: is Parquet, which needs no import; accepted: {accepted}")
    content = repr(head.split(b"\n", 1)[0][:60])[1:]
    raise InputError(
        f"{where}: begins with {content}, no format that is known; accepted: {accepted}"
    )


def import_lackey(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    compact: bool = False,
    skip: int = 0,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trace:
    """Import a log of ``valgrind --tool=lackey --trace-mem=yes``; otherwise as `import_trace`."""
    return import_trace(path, out, "lackey", compact, skip, limit, progress)
