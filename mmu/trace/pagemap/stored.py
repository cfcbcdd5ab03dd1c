"""Stores page maps as Parquet: ``vpn`` and ``gfn`` uint64, ``size`` uint32, ``space`` uint16.

`vpn` and `gfn` count 4 KiB pages, `size` is 4096, 2097152 or 1073741824. Files of other tools may lack
`size` (4096) and `space` (0), or have ``virtual`` and ``physical`` in bytes for `vpn` and `gfn`; any
integers will do.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmu.errors import InputError
from mmu.trace.kinds import PAGE_BYTES, PAGE_SHIFT
from mmu.trace.output import cannot_write, replacing
from mmu.trace.pagemap.pages import Entries, PageMap, Words
from mmu.trace.parquet import check_groups, parquet_file, readable

KEY = b"mmu_page_map"  # of the schema's metadata
VERSION = 1
ROWS = 1 << 20  # of a row group, and of a part
# (name, bits by which its numbers are shifted) of each column, the first that is there
COLUMNS = (
    (("vpn", PAGE_SHIFT), ("virtual", 0)),
    (("gfn", PAGE_SHIFT), ("physical", 0)),
    (("size", 0),),
    (("space", 0),),
)
DEFAULTS = (None, None, PAGE_BYTES, 0)


def write_page_map(
    path: str | os.PathLike[str], page_map: PageMap, source: Mapping[str, Any] | None = None
) -> None:
    """Write a page map as Parquet, all or not at all.

    Parameters
    ----------
    path : path
        The file.
    page_map : PageMap
        The map.
    source : mapping, optional
        Where it comes from, kept in the metadata.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    vpn = page_map.vpn.astype(np.uint64) & np.uint64((1 << 64 - PAGE_SHIFT) - 1)
    table = pa.table(
        {
            "vpn": vpn,
            "gfn": page_map.gfn.astype(np.uint64),
            "size": np.where(page_map.size, 1 << 21, PAGE_BYTES).astype(np.uint32),
            "space": page_map.space,
        }
    )
    said = {"version": VERSION, "swapped": page_map.swapped, "source": dict(source or {})}
    table = table.replace_schema_metadata({KEY: json.dumps(said).encode()})
    with replacing(path) as temporary, cannot_write(Path(path)):
        pq.write_table(
            table, temporary, row_group_size=ROWS, compression="zstd", use_dictionary=["size", "space"],
            column_encoding={"vpn": "DELTA_BINARY_PACKED", "gfn": "DELTA_BINARY_PACKED"},
        )  # fmt: skip


def read_stored(path: str) -> Iterator[Entries]:
    """Yield the pages of a Parquet file.

    Raises
    ------
    InputError
        It cannot be read, or its columns are not those of a page map.
    """
    with readable(path), parquet_file(path) as file:
        names, shifts, swapped = checked(file, path)
        row = 0
        for batch in file.iter_batches(batch_size=ROWS, columns=[n for n in names if n]):
            found = [
                column(batch, name, shift, default, row, path)
                for name, shift, default in zip(names, shifts, DEFAULTS, strict=True)
            ]
            virtual, physical, size, space = found
            rows = row + np.arange(batch.num_rows)
            yield Entries(virtual, physical, size, space, rows, swapped)
            row += batch.num_rows
            swapped = 0


def checked(file: pq.ParquetFile, where: str) -> tuple[list[str | None], list[int], int]:
    """Return the names of the columns, their shifts, and how many pages were swapped out."""
    schema, metadata = file.schema_arrow, file.metadata
    names: list[str | None] = []
    shifts = []
    for choices, default in zip(COLUMNS, DEFAULTS, strict=True):
        there = [choice for choice in choices if choice[0] in schema.names]
        if not there and default is None:
            raise InputError(
                f"{where}: no column {choices[0][0]}; found {', '.join(schema.names)[:80]}; accepted: "
                "vpn and gfn, or virtual and physical; size and space"
            )
        name, shift = there[0] if there else (None, 0)
        names.append(name)
        shifts.append(shift)
        if name and not pa.types.is_integer(schema.field(name).type):
            raise InputError(
                f"{where}: column {name} has type {schema.field(name).type}; accepted: an integer"
            )
    check_groups(metadata, where)
    return names, shifts, swapped_pages(metadata.metadata or {}, where)


def swapped_pages(metadata: Mapping[bytes, bytes], where: str) -> int:
    """Return how many pages were swapped out, by what the file says of itself."""
    if KEY not in metadata:
        return 0
    try:
        said = json.loads(metadata[KEY])
        version, swapped = said["version"], said["swapped"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{where}: its metadata are damaged: make the map again") from None
    if version != VERSION:
        raise InputError(f"{where}: a page map of version {version!r}; accepted: {VERSION}")
    if type(swapped) is not int or swapped < 0:
        raise InputError(f"{where}: its metadata are damaged: make the map again")
    return swapped


def column(
    batch: pa.RecordBatch, name: str | None, shift: int, default: int | None, row: int, where: str
) -> Words:
    """Return a column as int64: the 64 bits of what it holds, in bytes."""
    if name is None:
        return np.full(batch.num_rows, default, np.int64)
    values = batch.column(name)
    if values.null_count:
        missing = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"{where}: row {row + missing}: {name} is missing (null)")
    numbers = values.to_numpy(zero_copy_only=False)
    numbers = (
        numbers.astype(np.uint64).view(np.int64)
        if numbers.dtype.kind == "u"
        else numbers.astype(np.int64)
    )
    lost = numbers >> 64 - shift if shift else np.zeros(1, np.int64)
    bad = (lost != 0) & (lost != -1)
    if bad.any():
        i = int(np.argmax(bad))
        found = int(numbers[i]) % (1 << 64)
        raise InputError(f"{where}: row {row + i}: {name} {found:#x} has more than 52 bits")
    return numbers << shift
