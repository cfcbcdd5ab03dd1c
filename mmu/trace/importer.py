"""Imports traces of other programs; the content says which format they have."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from mmu.errors import InputError
from mmu.trace import (
    champsim,
    din,
    drview,
    dynamorio,
    gem5,
    lackey,
    parquetmap,
    perfmem,
    perfscript,
    table,
)
from mmu.trace.ahead import ahead
from mmu.trace.compact import fold
from mmu.trace.decompress import decompressed, shown
from mmu.trace.folder import read_folder
from mmu.trace.format import Part, Raw
from mmu.trace.lines import first_lines
from mmu.trace.reader import Trace, open_trace
from mmu.trace.source import Source
from mmu.trace.window import window
from mmu.trace.writer import write_trace

HEAD = 1 << 20  # bytes by which a format is recognised


class Format(NamedTuple):
    """A format that can be imported; one row of `FORMATS`."""

    what: str  # for messages
    recognised: Callable[[bytes], bool]  # by its first megabyte, or all of it if it is shorter
    read: Callable[[Source], Iterator[Raw]]
    columns: bool = False  # it takes a map of columns


FORMATS = {
    "lackey": Format(
        "logs of valgrind --tool=lackey --trace-mem=yes", lackey.recognised, lackey.read_lackey
    ),
    "din": Format("traces for Dinero III and IV", din.recognised_din, din.read_din),
    "xdin": Format("extended din traces for Dinero IV", din.recognised_xdin, din.read_xdin),
    "drview": Format(
        "what DynamoRIO's view tool prints of a memory trace", drview.recognised, drview.read_drview
    ),
    "perf-script": Format(
        "what perf script prints of samples with addresses",
        perfscript.recognised,
        perfscript.read_perfscript,
    ),
    "perf-mem": Format("what perf mem report -D lists", perfmem.recognised, perfmem.read_perfmem),
    "csv": Format("tables in text, one access a row", table.recognised, table.read_table, True),
    "parquet": Format(
        "other tools' Parquet files, by a map of their columns",
        parquetmap.recognised,
        parquetmap.read_parquet,
        columns=True,
    ),
    "champsim": Format(
        "ChampSim's records of 64 bytes", champsim.recognised_champsim, champsim.read_champsim
    ),
    "cloudsuite": Format(
        "ChampSim's records of 96 bytes for CloudSuite",
        champsim.recognised_cloudsuite,
        champsim.read_cloudsuite,
    ),
    "dynamorio": Format(
        "DynamoRIO's final memory traces", dynamorio.recognised, dynamorio.read_dynamorio
    ),
    "gem5": Format("gem5's packet traces", gem5.recognised, gem5.read_gem5),
}
FOLDER = "dynamorio"  # the format that is a folder


def import_trace(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    format: str | None = None,
    compact: bool = False,
    skip: int = 0,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
    columns: Mapping[str, str] | None = None,
    level: int | None = None,
) -> Trace:
    """Import a trace of another program.

    Parameters
    ----------
    path : path
        The file, plain or packed as .gz, .xz, .zst, .bz2, .lz4 or .zip (its content says which);
        a pipe; ``"-"`` for standard input; a folder that DynamoRIO has written.
    out : path
        The trace to write. It appears when all of the input has been read.
    format : str, optional
        One of `FORMATS`; by default the content says.
    compact : bool
        Fold accesses, see `mmu.trace.compact`.
    skip, limit : int, optional
        Keep at most `limit` accesses after the first `skip`; the input is not read any further.
    progress : callable, optional
        Called now and then with the number of accesses read so far, perhaps from another thread.
    columns : mapping of str to str, optional
        For tables: what the input calls a column, by our name for it.
    level : int, optional
        Of the compression, see `mmu.trace.writer`.

    Returns
    -------
    Trace
        The trace that has been written. Its metadata tell under ``passed_over`` what of the input
        was no access, and how often.

    Raises
    ------
    InputError
        The format is not known, a record cannot be, the input cannot be read, or the trace cannot
        be written.
    """
    where = shown(path)
    with ExitStack() as stack:
        name, source = opened(path, format, dict(columns or {}), stack)
        folder = os.path.isdir(path)
        read = read_folder(source) if folder else FORMATS[name].read(source)
        kept = window(read, where, skip, limit, progress, source.notes)
        parts: Iterator[Part] = fold(kept, where) if compact else kept
        if folder or source.path:  # a pipe may be silent, and nothing could stop who waits for it
            parts = ahead(generated(parts))

        def recording() -> dict[str, object]:
            known = {"format": name, "source": shown(Path(path).name), "skipped": skip}
            return source.notes.recording() | known

        write_trace(out, parts, "compact" if compact else "raw", recording, level)
    return open_trace(out)


def opened(
    path: str | os.PathLike[str], format: str | None, columns: dict[str, str], stack: ExitStack
) -> tuple[str, Source]:
    """Open an input; return the name of its format, and what the format's reader is given."""
    where = shown(path)
    if os.path.isdir(path):
        if format not in (None, FOLDER):
            raise InputError(f"{where}: is a folder; accepted: a file, or format {FOLDER!r}")
        if columns:
            raise InputError(f"{where}: {FOLDER} has no columns to name")
        return FOLDER, Source(where, b"", iter(()))
    pieces = stack.enter_context(closing(decompressed(path)))
    head = beginning(pieces)
    regular = os.path.isfile(path) and os.fspath(path) != "-"
    file = os.fspath(path) if regular else None
    name = chosen(format, head, where, bool(columns))
    return name, Source(where, head, chain([head], pieces), file, columns)


def generated(items: Iterator[Part]) -> Generator[Part]:
    """Return an iterator as a generator, which can be closed."""
    yield from items


def beginning(pieces: Iterator[bytes]) -> bytes:
    """Take the first megabyte or so of an input, or all of it if there is less."""
    head = b""
    while len(head) < HEAD and (piece := next(pieces, b"")):
        head += piece
    return head


def chosen(name: str | None, head: bytes, where: str, columns: bool = False) -> str:
    """Return the name of the format that is asked for, or the one that an input begins like.

    Where `columns` are given, it is a table: a text is then csv, whatever else it may look like.
    """
    accepted = f"accepted: {', '.join(FORMATS)}"
    if name is not None:
        if name not in FORMATS:
            raise InputError(f"{where}: format {name!r} is not known; {accepted}")
        if columns and not FORMATS[name].columns:
            tables = ", ".join(key for key, format in FORMATS.items() if format.columns)
            raise InputError(
                f"{where}: {name} has no columns to name; accepted with them: {tables}"
            )
        return name
    if not head:
        raise InputError(f"{where}: is empty; {accepted}")
    if parquetmap.recognised(head) and not columns:
        raise InputError(
            f"{where}: is Parquet, which needs no import if it has columns address and kind; else say "
            "which is which with --columns address=NAME,kind=NAME"
        )
    found = [
        key
        for key, format in FORMATS.items()
        if (format.columns or not columns) and format.recognised(head)
    ]
    if len(found) > 1:
        raise InputError(
            f"{where}: may be {' or '.join(found)}; say which with --format, or format= in Python"
        )
    if found:
        return found[0]
    if columns and first_lines(head):
        return "csv"
    content = repr(head.split(b"\n", 1)[0][:60])[1:]
    raise InputError(
        f"{where}: begins with {content}, no format that is known; {accepted}; a table needs a line "
        "that names its columns, or --columns"
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
