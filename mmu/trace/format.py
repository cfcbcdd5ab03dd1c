"""The native format: columns, metadata, and what makes a Parquet file a trace.

Raw, a record is an access: `address`, `kind` (0 read, 1 write, 2 fetch), `size` in bytes (0 where
the recorder does not say), and where there is more than one stream `space` and `thread`. No access
crosses a 4 KiB boundary: importers make two of one that does.

Compact, a record is an access and those after it that were folded into it (`mmu.trace.compact`):
`page` (the address shifted right by 12, so that nobody takes it for an address), `kind`, the
numbers of folded `fetches`, `reads` and `writes`, and `order`.

The file's metadata hold, as JSON under the key "mmu trace": version, layout, counts, and what is
known of the recording (command, tool, source, ...).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.trace.kinds import BLOCK, PAGE_BYTES

METADATA_KEY = b"mmu trace"
VERSION = 1
LAYOUTS = ("raw", "compact")
MOST_NESTED = 20  # levels of lists and tables in what is known of a recording
STREAM_COLUMNS = ("space", "thread")

Column = NDArray[Any]


class Raw(NamedTuple):
    """Part of a raw trace, one element per access."""

    address: Column  # int64 or uint64, bytes
    kind: Column  # uint8
    size: Column | None = None  # uint16, bytes; None and 0: not known
    space: Column | None = None  # uint16
    thread: Column | None = None  # uint32


class Compact(NamedTuple):
    """Part of a compact trace, one element per record."""

    page: Column  # uint64, address >> 12
    kind: Column  # uint8, of the access that is not folded
    fetches: Column  # uint16, folded
    reads: Column  # uint16, folded
    writes: Column  # uint16, folded
    order: Column  # uint8
    space: Column | None = None  # uint16
    thread: Column | None = None  # uint32


Part = Raw | Compact
AnyPart = TypeVar("AnyPart", bound=Part)


def rows(part: AnyPart, first: int, last: int) -> AnyPart:
    """Return the records from `first` to before `last`, not copied."""
    columns: dict[str, Any] = {
        name: None if column is None else column[first:last]
        for name, column in part._asdict().items()
    }
    return type(part)(**columns)


TYPES = {
    "address": pa.uint64(),
    "page": pa.uint64(),
    "kind": pa.uint8(),
    "size": pa.uint16(),
    "fetches": pa.uint16(),
    "reads": pa.uint16(),
    "writes": pa.uint16(),
    "order": pa.uint8(),
    "space": pa.uint16(),
    "thread": pa.uint32(),
}
COLUMNS = {"raw": Raw._fields, "compact": Compact._fields}
OPTIONAL = {"raw": ("space", "thread"), "compact": ("space", "thread")}
OPTIONAL_FOREIGN = ("size", "space", "thread")


def schema(layout: str, streams: tuple[str, ...]) -> pa.Schema:
    """Return the Arrow schema of a layout, with those of "space" and "thread" that are named."""
    names = [name for name in COLUMNS[layout] if name not in STREAM_COLUMNS or name in streams]
    return pa.schema([pa.field(name, TYPES[name], nullable=False) for name in names])


@dataclass(frozen=True)
class Header:
    """What a trace file says of itself."""

    layout: str
    accesses: int
    fetches: int
    reads: int
    writes: int
    records: int
    version: int = VERSION
    recording: dict[str, Any] = field(default_factory=dict)  # command, tool, source, ...


COUNTS = ("accesses", "fetches", "reads", "writes", "records")


def encode_header(header: Header) -> dict[bytes, bytes]:
    """Return Parquet's key-value metadata for a header."""
    return {METADATA_KEY: json.dumps(asdict(header)).encode()}


def shallow(value: object, levels: int) -> bool:
    """Tell whether lists and tables are nested no deeper than so many levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(shallow(each, levels - 1) for each in inner)


def decode_header(metadata: Mapping[bytes, bytes], where: str) -> Header | None:
    """Return the header in Parquet's key-value metadata, or None where there is none.

    Raises
    ------
    InputError
        The header is damaged or of another version.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        return None
    try:
        values = json.loads(text)
        version, layout = values.pop("version"), values.pop("layout")
        counts = {name: values.pop(name) for name in COUNTS}
        recording = values.pop("recording")
        if not isinstance(recording, dict) or not shallow(recording, MOST_NESTED):
            raise ValueError
        json.dumps(recording, allow_nan=False)  # it is written again
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        shown = text[:60].decode(errors="replace")
        raise InputError(
            f"{where}: metadata {METADATA_KEY.decode()!r} are damaged ({shown!r}); "
            "import or record the trace again"
        ) from None
    if version != VERSION:
        raise InputError(
            f"{where}: trace format version {version!r}, this program reads version {VERSION}; "
            "update it, or import the trace again"
        )
    if layout not in LAYOUTS:
        raise InputError(f"{where}: layout {layout!r} is neither 'raw' nor 'compact'")
    if not counts_fit(layout, counts):
        raise InputError(
            f"{where}: the metadata's counts do not add up ({counts}); record or import it again"
        )
    return Header(layout=layout, version=version, recording=recording, **counts)


def counts_fit(layout: str, counts: Mapping[str, Any]) -> bool:
    """Tell whether numbers of accesses and records can be those of one trace."""
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        return False
    accesses, records = counts["accesses"], counts["records"]
    if accesses != counts["fetches"] + counts["reads"] + counts["writes"]:
        return False
    return bool(records <= accesses <= records * (BLOCK if layout == "compact" else 1))


def check_columns(found: pa.Schema, layout: str, native: bool, where: str) -> None:
    """Refuse a file whose columns are not those of a layout.

    Without our metadata (`native` false) any integers are accepted, since their values are checked.

    Raises
    ------
    InputError
        A column is missing, unknown, there twice, or of another type.
    """
    names = list(found.names)
    optional = OPTIONAL[layout] if native else OPTIONAL_FOREIGN
    accepted = "accepted: " + ", ".join(
        f"{name} {TYPES[name]}" + (" (optional)" if name in optional else "")
        for name in COLUMNS[layout]
    )
    for name in COLUMNS[layout]:
        if name not in names and name not in optional:
            raise InputError(f"{where}: not a trace, it has no column {name!r}; {accepted}")
    for number, column in enumerate(found):
        if column.name not in COLUMNS[layout] or column.name in names[:number]:
            raise InputError(f"{where}: unknown or repeated column {column.name!r}; {accepted}")
        right = column.type == TYPES[column.name] if native else pa.types.is_integer(column.type)
        if not right:
            raise InputError(f"{where}: column {column.name!r} is {column.type}; {accepted}")


def fit(values: Column, name: str, done: int, where: str) -> Column:
    """Return a column's values in the type that it is stored in.

    Addresses may be signed: an upper half is as good as negative numbers.

    Raises
    ------
    InputError
        The values are not whole numbers, or one is too large; `done` records came before these.
    """
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise InputError(
            f"{where}: {name} is {values.dtype} {values.shape}; accepted: whole numbers"
        )
    wanted = np.dtype(TYPES[name].to_pandas_dtype())
    if values.dtype == wanted:
        return values
    if name == "address":
        return values.astype(np.int64).view(np.uint64)
    limit = np.iinfo(wanted).max
    outside = np.flatnonzero((values < 0) | (values > limit))
    if len(outside):
        record = int(outside[0])
        raise InputError(
            f"{where}: record {done + record}: {name} {values[record]}; accepted: 0 to {limit}"
        )
    return values.astype(wanted)


def refuse_crossing(part: Raw, done: int, where: str) -> None:
    """Refuse an access that crosses a 4 KiB boundary: it is two, and whoever reads it splits it."""
    if part.size is None:
        return
    address = part.address.view(np.uint64)
    crossing = np.flatnonzero(address % PAGE_BYTES + part.size > PAGE_BYTES)
    if len(crossing):
        record = int(crossing[0])
        raise InputError(
            f"{where}: record {done + record}: {part.size[record]} bytes at "
            f"{int(address[record]):#x} cross a 4 KiB boundary; make two records of it"
        )
