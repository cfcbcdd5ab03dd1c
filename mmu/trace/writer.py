"""Writes traces, streaming: parts come in, row groups of about a million records go out."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmu.errors import InputError
from mmu.trace.chunks import Cutter
from mmu.trace.format import (
    STREAM_COLUMNS,
    Compact,
    Header,
    Part,
    Raw,
    encode_header,
    fit,
    refuse_crossing,
    schema,
)
from mmu.trace.kinds import FETCH, KIND_NAMES, READ, WRITE
from mmu.trace.output import cannot_write, replacing

GROUP_RECORDS = 1 << 20
# Without dictionaries zstd sees the repeats of loops: half the size at level 15, and quicker to read.
# Raw, level 3 takes 40 M accesses a second and level 6 12 M, for 15 % less; compact, 9 takes 17 to 44 M
# and 15 2 to 5 M, for 28 to 51 % less: right for a trace that is recorded once and read for years.
ZSTD_LEVELS = {"raw": 3, "compact": 9}
LEAST_LEVEL, MOST_LEVEL = 1, 22

Recording = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


def write_raw(
    path: str | os.PathLike[str],
    parts: Iterable[Raw],
    recording: Recording | None = None,
    level: int | None = None,
) -> Header:
    """Write a raw trace; the file appears when all of it has been written.

    Parameters
    ----------
    path : path
        A file that is there already is replaced.
    parts : iterable of Raw
        Addresses int64 or uint64, canonical; kinds 0, 1, 2; no access may cross a 4 KiB boundary.
        All parts have the same columns.
    recording : mapping of str to str or int, optional
        What is known of the recording: ``command``, ``tool``, ``source``; or a function that returns
        it and is called after the last part.
    level : int, optional
        Of zstd: 1, quick, to 22, small; by default 3, and 9 for a compact trace.

    Returns
    -------
    Header
        What was written.

    Raises
    ------
    InputError
        A record cannot be, there is none, or the file cannot be written.
    """
    return write_trace(path, parts, "raw", recording, level)


def write_compact(
    path: str | os.PathLike[str],
    parts: Iterable[Compact],
    recording: Recording | None = None,
    level: int | None = None,
) -> Header:
    """Write a compact trace, as `mmu.trace.fold` makes it; otherwise as `write_raw`."""
    return write_trace(path, parts, "compact", recording, level)


def write_trace(
    path: str | os.PathLike[str],
    parts: Iterable[Part],
    layout: str,
    recording: Recording | None = None,
    level: int | None = None,
) -> Header:
    """Write a trace of either layout, "raw" or "compact"; otherwise as `write_raw`."""
    target = Path(path)
    if level is None:
        level = ZSTD_LEVELS[layout]
    elif not LEAST_LEVEL <= level <= MOST_LEVEL:
        raise InputError(
            f"{target}: cannot be written: compression level {level}; accepted: {LEAST_LEVEL}, quick, "
            f"to {MOST_LEVEL}, small"
        )
    if not callable(recording):
        json.dumps(dict(recording or {}))  # what cannot be written shall not show at the very end
    with replacing(target) as temporary:
        output = None
        try:
            for part in parts:
                if len(part.kind):
                    output = output or Output(temporary, target, layout, part, level)
                    output.add(part)
            if output is None:
                raise InputError(f"{target}: cannot be written: there is no record for it")
            return output.finish(recording() if callable(recording) else recording)
        finally:
            if output is not None:
                output.close()


class Output:
    """A Parquet file in the making."""

    def __init__(self, file: Path, target: Path, layout: str, part: Part, level: int) -> None:
        self.target, self.layout = target, layout
        streams = tuple(name for name in STREAM_COLUMNS if getattr(part, name) is not None)
        self.schema = schema(layout, streams)
        self.waiting: list[pa.RecordBatch] = []
        self.counts = np.zeros(len(KIND_NAMES), np.int64)  # [kind] accesses
        self.records = 0
        self.checker = Cutter(f"{target}: cannot be written")
        with cannot_write(target):
            self.file = pa.OSFile(os.fsencode(file), "wb")  # names need not be UTF-8
            self.writer = pq.ParquetWriter(
                self.file,
                self.schema,
                compression="zstd",
                compression_level=level,
                use_dictionary=False,
                write_page_checksum=True,
                write_statistics=False,
            )

    def add(self, part: Part) -> None:
        """Check a part and write it, or keep it until there is a row group's worth."""
        part = typed(part, self.schema.names, self.records, self.target)
        if isinstance(part, Raw):
            refuse_crossing(part, self.records, self.checker.where)
            self.checker.cut(part._replace(size=None))
        else:
            self.checker.cut(part)
            for kind, column in ((FETCH, part.fetches), (READ, part.reads), (WRITE, part.writes)):
                self.counts[kind] += int(column.sum(dtype=np.int64))
        self.counts += np.bincount(part.kind, minlength=len(KIND_NAMES))
        self.records += len(part.kind)
        # Copied: the caller may fill the same arrays again before they are written.
        arrays = [pa.array(getattr(part, name).copy()) for name in self.schema.names]
        self.waiting.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        if sum(batch.num_rows for batch in self.waiting) >= GROUP_RECORDS:
            self.flush(last=False)

    def flush(self, last: bool) -> None:
        """Write the records that wait; unless they are the last, full row groups only."""
        table = pa.Table.from_batches(self.waiting, self.schema)
        ready = len(table) if last else len(table) // GROUP_RECORDS * GROUP_RECORDS
        with cannot_write(self.target):
            self.writer.write_table(table.slice(0, ready), row_group_size=GROUP_RECORDS)
        self.waiting = table.slice(ready).to_batches()

    def finish(self, recording: Mapping[str, Any] | None) -> Header:
        """Write the rest and the header."""
        reads, writes, fetches = (int(self.counts[kind]) for kind in (READ, WRITE, FETCH))
        header = Header(
            self.layout,
            int(self.counts.sum()),
            fetches,
            reads,
            writes,
            self.records,
            recording=dict(recording or {}),
        )
        self.flush(last=True)
        with cannot_write(self.target):
            self.writer.add_key_value_metadata(encode_header(header))
            self.writer.close()
            self.file.close()
        return header

    def close(self) -> None:
        """Let go of the file; after an error what is in it does not matter."""
        with suppress(OSError, pa.ArrowException):
            self.writer.close()
        with suppress(OSError, pa.ArrowException):
            self.file.close()


def typed(part: Part, names: list[str], done: int, target: Path) -> Part:
    """Return a part with every column in the type it is stored in."""
    where = f"{target}: cannot be written"
    columns = {name: column for name, column in part._asdict().items() if column is not None}
    if isinstance(part, Raw):
        columns.setdefault("size", np.zeros(len(part.kind), np.uint16))
    if sorted(columns) != sorted(names):
        raise InputError(
            f"{where}: columns {', '.join(columns)} after a part with {', '.join(names)}; "
            "give every part the same columns"
        )
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise InputError(f"{where}: columns of unequal length ({lengths})")
    return type(part)(**{name: fit(column, name, done, where) for name, column in columns.items()})
