"""Reads a trace's columns out of its Parquet file, part by part, and checks that it is one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmu.errors import InputError
from mmu.trace.format import (
    COLUMNS,
    Column,
    Compact,
    Header,
    Part,
    Raw,
    check_columns,
    decode_header,
    fit,
    refuse_crossing,
)

READ_BUFFER = 1 << 20  # bytes read ahead per column, so that a row group is never held as a whole
# A column chunk may hold its dictionary and pages as one piece in memory: of so many records 256 MiB, if
# they are numbers of 64 bits. PyArrow tells bytes as well, but ends the process where it is asked for
# those of a damaged file (22.0: "terminate called after throwing an instance of ParquetException").
MOST_GROUP_RECORDS = 1 << 25
DAMAGED = (pa.ArrowException, OSError, ValueError, MemoryError)


@dataclass(frozen=True)
class Stored:
    """A trace file that has been checked: its layout, its columns, what it says of itself."""

    file: pq.ParquetFile
    where: str
    layout: str
    names: tuple[str, ...]
    records: int
    header: Header | None  # None: a file of other tools


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@contextmanager
def readable(where: str, what: str = "not a Parquet file that can be read") -> Iterator[None]:
    """Turn what PyArrow raises on a damaged file into a line for the user."""
    try:
        yield
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(
            f"{where}: {what}, it is damaged or something else ({first_line(error)}); "
            "accepted: traces that mmu has written, or Parquet with columns address and kind; what "
            "other tools have recorded becomes one by mmu trace import"
        ) from None


def parquet_file(path: str | os.PathLike[str]) -> pq.ParquetFile:
    """Open a Parquet file to be read in pieces; PyArrow itself takes no names that are not UTF-8."""
    return pq.ParquetFile(
        pa.OSFile(os.fsencode(path)),
        pre_buffer=False,
        buffer_size=READ_BUFFER,
        page_checksum_verification=True,
    )


@contextmanager
def stored(path: str) -> Iterator[Stored]:
    """Open a trace file, check its metadata and columns, and close it in the end.

    Raises
    ------
    InputError
        There is no such file, or it is not a trace.
    """
    with readable(path):
        if not Path(path).exists():
            raise InputError(f"{path}: no such file")
        if not Path(path).is_file():
            raise InputError(f"{path}: not a regular file; accepted: a Parquet file")
        file = parquet_file(path)
    try:
        yield checked(file, path)
    finally:
        file.close(force=True)


def checked(file: pq.ParquetFile, where: str) -> Stored:
    """Check what can be seen without reading records."""
    with readable(where):
        metadata = file.metadata
        schema = file.schema_arrow
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        rows = sum(group.num_rows for group in groups)
    header = decode_header(metadata.metadata or {}, where)
    layout = "raw" if header is None else header.layout
    check_columns(schema, layout, header is not None, where)
    if rows == 0:
        raise InputError(f"{where}: a trace without records; record or import it again")
    if rows != metadata.num_rows or (header is not None and rows != header.records):
        raise InputError(
            f"{where}: the file holds {rows} records and claims another number; "
            "it is damaged: import or record it again"
        )
    check_groups(metadata, where)
    names = tuple(name for name in COLUMNS[layout] if name in schema.names)
    return Stored(file, where, layout, names, rows, header)


def check_groups(metadata: pq.FileMetaData, where: str) -> None:
    """Refuse a file of which a row group has more records than memory should hold."""
    with readable(where):
        groups = range(metadata.num_row_groups)
        most = max((metadata.row_group(group).num_rows for group in groups), default=0)
    if most > MOST_GROUP_RECORDS:
        raise InputError(
            f"{where}: a row group of {most:,} records; accepted: up to {MOST_GROUP_RECORDS:,}; write "
            "it with row groups of about a million"
        )


def parts(source: Stored, records: int, sizes: bool = False) -> Iterator[Part]:
    """Yield the columns of about `records` records at a time.

    The sizes of accesses concern no replay: unless they are asked for they are left out once it is
    sure that no access crosses a 4 KiB boundary, which our own writer has seen to.

    Raises
    ------
    InputError
        A page is damaged, or a value is missing or does not fit its column.
    """
    foreign = source.header is None
    names = [name for name in source.names if foreign or sizes or name != "size"]
    done = 0
    with readable(source.where, "cannot be read to its end"):
        for batch in source.file.iter_batches(batch_size=records, columns=names):
            columns = {
                name: column_values(batch.column(name), name, done, source.where) for name in names
            }
            if source.layout == "compact":
                yield Compact(**columns)
            else:
                part = Raw(**columns)
                refuse_crossing(part, done, source.where)
                yield part if sizes else part._replace(size=None)
            done += batch.num_rows
    if done != source.records:
        raise InputError(
            f"{source.where}: {done} of {source.records} records can be read; it is damaged: "
            "import or record it again"
        )


def column_values(values: pa.Array, name: str, done: int, where: str) -> Column:
    """Return a column's values in the trace's own type."""
    if values.null_count:
        missing = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{where}: record {done + missing}: {name} is missing (null)")
    return fit(values.to_numpy(zero_copy_only=True), name, done, where)
