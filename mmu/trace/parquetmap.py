"""Reads another tool's Parquet file by a map of its columns.

A file whose columns are called ``address`` and ``kind``, and hold what ours do, is a trace as it stands.
Others say which column is which, as tables in text do: ``--columns address=va,kind=op``; columns with
the usual names (`mmu.trace.table.NAMES`) are found, and ``kind=read`` stands for every row.

Addresses are whole numbers of any width, or text: hexadecimal, with or without ``0x``, or with
``address=va:dec`` decimal. Kinds are numbers or words (`mmu.trace.tablerows.KIND_WORDS`), or true for a
write and false for a read. A size that is missing or 0 is not known. Any other column is passed over. An
access that crosses a 4 KiB boundary becomes two.
"""

from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmu.errors import InputError
from mmu.jit import at, kernel
from mmu.trace.accesses import MOST_BYTES, NOT_CANONICAL, Accesses, add, made, room, within
from mmu.trace.blocks import Bytes, Words
from mmu.trace.format import METADATA_KEY, Raw
from mmu.trace.kinds import FETCH, KIND_NAMES, READ, WRITE
from mmu.trace.lines import LETTER_X, LOWER_CASE, ZERO
from mmu.trace.parquet import check_groups, first_line, parquet_file, readable
from mmu.trace.source import Source
from mmu.trace.table import NAMES
from mmu.trace.tablerows import KIND_WORDS, MOST_THREAD

BATCH = 1 << 16  # rows
PARQUET = b"PAR1"
NEEDED = ("address", "kind")
DECIMAL, HEXADECIMAL = ":dec", ":hex"
MOST_PROCESS = (1 << 63) - 1
MOST = {"size": MOST_BYTES, "space": MOST_PROCESS, "thread": MOST_THREAD}
WORDS = pa.array([word for words in KIND_WORDS.values() for word in words])
WORD_KINDS = np.array([kind for kind, words in KIND_WORDS.items() for _ in words], np.uint8)
ACCEPTED_KINDS = "accepted: " + ", ".join("|".join(words) for words in KIND_WORDS.values())


DIGITS = np.full(256, 16, np.uint8)  # by letter: the value of a hexadecimal digit, or 16
DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
DIGITS[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)


class Bad(IntEnum):
    """Why a row is refused."""

    NONE = 0
    DIGITS = 1
    RANGE = 2


REASONS = {
    Bad.DIGITS: "not one of 1 to 16 hexadecimal digits; say with --columns address=NAME:dec if they "
    "are decimal",
    Bad.RANGE: NOT_CANONICAL,
}


@kernel
def read_digits(text: Bytes, edges: Words, out: Words) -> int:
    """Read hexadecimal numbers that end where the next one begins; return how many could be read."""
    for row in range(len(out)):
        here, stop = edges[at(row)], edges[at(row + 1)]
        if (
            stop - here > 2
            and text[at(here)] == ZERO
            and text[at(here + 1)] | LOWER_CASE == LETTER_X
        ):
            here += 2
        if stop == here or stop - here > 16:
            return row
        value = np.int64(0)
        for place in range(here, stop):
            digit = DIGITS[at(text[at(place)])]
            if digit > 15:
                return row
            value = value << 4 | np.int64(digit)
        out[at(row)] = value
    return len(out)


@kernel
def place(
    out: Accesses, address: Words, kind: Bytes, size: Words, process: Words, thread: Words
) -> tuple[int, int]:
    """Store rows, split at boundaries; return how many rows could be stored, and the accesses."""
    record = 0
    for row in range(len(kind)):
        start, length = address[at(row)], size[at(row)]
        if not within(start, max(length, 1)):
            return row, record
        after = add(out, record, start, length, kind[at(row)])
        for access in range(record, after):
            if len(process) > 0:
                out.process[at(access)] = process[at(row)]
            if len(thread) > 0:
                out.thread[at(access)] = thread[at(row)]
        record = after
    return len(kind), record


def recognised(head: bytes) -> bool:
    """Tell whether an input that begins like this is Parquet."""
    return head.startswith(PARQUET)


class Map:
    """Which of a file's columns are which of ours.

    Attributes
    ----------
    names : dict of str to str
        The file's name of a column, by ours.
    kind : int or None
        Of every row, where no column tells it.
    decimal : bool
        Addresses that are text are decimal.

    Raises
    ------
    InputError
        A column is missing, there twice, or cannot hold what it is to hold.
    """

    def __init__(self, source: Source, schema: pa.Schema) -> None:
        self.where = source.where
        self.kind: int | None = None
        self.decimal = False
        self.names: dict[str, str] = {}
        for ours, theirs in source.columns.items():
            if ours not in NAMES:
                raise InputError(
                    f"{self.where}: column {ours!r} is none of ours; accepted: {', '.join(NAMES)}"
                )
            if ours == "kind" and theirs in KIND_NAMES and theirs not in schema.names:
                self.kind = KIND_NAMES.index(theirs)
                continue
            self.names[ours] = self.found(ours, theirs, schema)
        for ours, usual in NAMES.items():
            known = [name for name in schema.names if name.lower().replace(" ", "_") in usual]
            free = len(known) == 1 and known[0] not in self.names.values()
            if ours not in source.columns and free:
                self.names[ours] = known[0]
        for ours in NEEDED:
            if ours not in self.names and not (ours == "kind" and self.kind is not None):
                raise InputError(
                    f"{self.where}: no column is known as the {ours} ({', '.join(schema.names)[:100]});"
                    " say which with --columns address=NAME,kind=NAME"
                )
        if len(set(self.names.values())) < len(self.names):
            raise InputError(
                f"{self.where}: two of our columns are one of the file's: {self.names}"
            )
        for ours, theirs in self.names.items():
            self.check(ours, theirs, schema.field(theirs).type)

    def found(self, ours: str, theirs: str, schema: pa.Schema) -> str:
        """Return the file's column that the caller calls so."""
        name = theirs
        if ours == "address" and theirs not in schema.names:
            name = theirs.removesuffix(DECIMAL).removesuffix(HEXADECIMAL)
            self.decimal = theirs.endswith(DECIMAL)
        if schema.names.count(name) != 1:
            raise InputError(
                f"{self.where}: {ours}={theirs}: the file has {schema.names.count(name)} such columns; "
                f"accepted: one of {', '.join(schema.names)[:200]}"
            )
        return name

    def check(self, ours: str, theirs: str, kind: pa.DataType) -> None:
        """Refuse a column whose type is none that ours can be read from."""
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        fits = pa.types.is_integer(kind) or (text and ours in NEEDED)
        if not fits and not (ours == "kind" and pa.types.is_boolean(kind)):
            accepted = "whole numbers" + (" or text" if ours in NEEDED else "")
            raise InputError(
                f"{self.where}: column {theirs!r}, the {ours}, is {kind}; accepted: {accepted}"
            )


class Rows:
    """Rows of a file on their way into a trace; says where one is refused."""

    def __init__(self, where: str, done: int) -> None:
        self.where, self.done = where, done

    def refuse(self, row: int, name: str, value: object, reason: str) -> None:
        """Raise the error for a row of these."""
        raise InputError(f"{self.where}: record {self.done + row}: {name} {value!r:.40}: {reason}")

    def whole(self, column: pa.Array, name: str) -> pa.Array:
        """Return a column that has no missing values."""
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            self.refuse(row, name, None, "the value is missing")
        return column

    def addresses(self, column: pa.Array, decimal: bool) -> Words:
        """Return a column's addresses, sign-extended."""
        column = self.whole(column, "address")
        if pa.types.is_integer(column.type):
            return column.to_numpy(zero_copy_only=False).astype(np.int64)
        if decimal:
            try:
                return column.cast(pa.uint64()).to_numpy().view(np.int64)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"{self.where}: records from {self.done} on: an address that is no decimal number "
                    f"({first_line(error)})"
                ) from None
        column = column.cast(pa.large_string())
        _, edges, text = column.buffers()
        first = np.frombuffer(edges, np.int64)[
            column.offset : column.offset + len(column) + 1
        ].copy()
        letters = np.frombuffer(text, np.uint8).copy() if text else np.empty(0, np.uint8)
        out = np.empty(len(column), np.int64)
        read = read_digits(letters, first, out)
        if read < len(out):
            self.refuse(read, "address", column[read].as_py(), REASONS[Bad.DIGITS])
        return out

    def kinds(self, column: pa.Array) -> Bytes:
        """Return a column's kinds."""
        column = self.whole(column, "kind")
        if pa.types.is_boolean(column.type):
            flags = column.to_numpy(zero_copy_only=False)
            return np.where(flags, WRITE, READ).astype(np.uint8)
        if pa.types.is_integer(column.type):
            numbers = column.to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero((numbers < READ) | (numbers > FETCH))
            if len(wrong):
                self.refuse(int(wrong[0]), "kind", int(numbers[wrong[0]]), ACCEPTED_KINDS)
            return numbers.astype(np.uint8)
        words = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
        found = pc.index_in(words, WORDS)
        if found.null_count:
            row = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
            self.refuse(row, "kind", column[row].as_py(), ACCEPTED_KINDS)
        return WORD_KINDS[found.to_numpy()]

    def numbers(self, column: pa.Array, name: str) -> Words:
        """Return a column of whole numbers that are not negative."""
        if name == "size":
            column = pc.fill_null(column, 0)
        column = self.whole(column, name)
        numbers = column.to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero((numbers < 0) | (numbers > MOST[name]))
        if len(wrong):
            self.refuse(int(wrong[0]), name, int(numbers[wrong[0]]), f"accepted: 0 to {MOST[name]}")
        return numbers.astype(np.int64)


def read_parquet(source: Source) -> Iterator[Raw]:
    """Yield the accesses of another tool's Parquet file.

    Raises
    ------
    InputError
        It comes through a pipe or is packed, is a trace already, has no such columns, or a row is no
        access; the message has its number, counted from 0.
    """
    path, where = source.path, source.where
    if path is None:
        raise InputError(f"{where}: Parquet cannot be read through a pipe; save it as a file")
    with open(path, "rb") as file:
        if file.read(len(PARQUET)) != PARQUET:
            raise InputError(f"{where}: not Parquet, or packed once more; unpack it first")
    with readable(where):
        file = parquet_file(path)
    with file:
        with readable(where):
            schema, metadata = file.schema_arrow, file.metadata
        if METADATA_KEY in (metadata.metadata or {}):
            raise InputError(f"{where}: is a trace of mmu already, which needs no import")
        columns = Map(source, schema)
        names = list(columns.names.values())
        check_groups(metadata, where)
        done = 0
        with readable(where, "cannot be read to its end"):
            for batch in file.iter_batches(batch_size=BATCH, columns=names):
                yield accesses(batch, columns, source, done)
                done += batch.num_rows


def accesses(batch: pa.RecordBatch, columns: Map, source: Source, done: int) -> Raw:
    """Return the accesses of some rows."""
    rows = Rows(source.where, done)
    found = {ours: plain(batch.column(theirs)) for ours, theirs in columns.names.items()}
    address = rows.addresses(found["address"], columns.decimal)
    kind = (
        rows.kinds(found["kind"])
        if "kind" in found
        else np.full(len(address), columns.kind, np.uint8)
    )
    none = np.empty(0, np.int64)
    size, process, thread = (
        rows.numbers(found[name], name) if name in found else none for name in MOST
    )
    if "size" not in found:
        size = np.zeros(len(address), np.int64)
    out = room(2 * len(address), "space" in found, "thread" in found)
    read, records = place(out, address, kind, size, process, thread)
    if read < len(address):
        value = f"{int(address[read]) & (1 << 64) - 1:#x}"
        rows.refuse(read, "address", value, REASONS[Bad.RANGE])
    spaces = source.notes.spaces_of(out.process[:records], source.where)
    return made(out, records, spaces)


def plain(column: pa.Array) -> pa.Array:
    """Return a column whose values stand in it, not in a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
