r"""Reads tables in text, CSV and its relatives: one row per access.

Columns are separated by what the first line has: tab, comma, semicolon, bar, else blanks. Fields may be
quoted. Empty lines and lines that begin with ``#`` are passed over.

What a column is for says its name in the first line, in upper or lower case (`NAMES`), or the caller:
``--columns address=va,kind=op,size=len``, each with a name of the first line or, for tables without
one, the number of the column counted from 1. Columns that nobody names are passed over. ``kind=read``,
``write`` or ``fetch`` stands for all rows where no column tells the kind and none has such a name.

    address,kind,size        va;op                   1 7fff2a30          0x7fff2a30<tab>load
    0x7fff2a30,read,4        140735340871216;W       2 401000            0x401000<tab>ifetch

Kinds are words, letters or our own numbers (`mmu.trace.tablerows.KIND_WORDS`); anything else is
refused. Sizes, spaces and threads are decimal, or hexadecimal with ``0x``; a size that is empty or 0 is
not known. Spaces are numbered anew in order of appearance.

Addresses are hexadecimal if one of the column's first values (64 KiB of the table) begins with ``0x``
(then all must, but for a plain 0), has a letter, or is padded with zeros. Otherwise they are decimal if
one is negative, or if at least 32 different ones have no letter: of as many hexadecimal numbers hardly
one in a million lists would have none. What is neither is refused; ``address=va:hex`` and
``address=va:dec`` settle it.
"""

import csv
import re
from collections.abc import Iterator, Mapping

import numpy as np

from mmu.errors import InputError
from mmu.trace.format import Raw
from mmu.trace.kinds import KIND_NAMES
from mmu.trace.lines import BEGINNING, LineReader, first_lines, read_lines
from mmu.trace.source import Source
from mmu.trace.tablerows import (
    ADDRESS,
    DECIMAL,
    EITHER,
    HEXADECIMAL,
    IGNORED,
    KIND,
    MOST_COLUMNS,
    PREFIXED,
    PROCESS,
    REASONS,
    SIZE,
    THREAD,
    WHAT_IS_PASSED,
    Layout,
    parse,
)

NAMES = {
    "address": ("address", "addr", "va", "vaddr", "virtual_address", "data_address"),
    "kind": ("kind", "type", "op", "operation", "rw", "access"),
    "size": ("size", "bytes", "len", "length"),
    "space": ("space", "pid", "process", "asid"),
    "thread": ("thread", "tid"),
}
ROLES = {"address": ADDRESS, "kind": KIND, "size": SIZE, "space": PROCESS, "thread": THREAD}
BASES = {"hex": HEXADECIMAL, "dec": DECIMAL}
SEPARATORS = "\t,;|"
MARK = b"\xef\xbb\xbf"  # what some programs put before UTF-8
ENOUGH = 32  # different addresses without a letter


def separator_of(line: str) -> str:
    """Return what separates the columns of a line; a blank stands for any number of blanks."""
    return next((letter for letter in SEPARATORS if letter in line), " ")


def fields_of(line: str, separator: str) -> list[str]:
    """Return the fields of a line, without quotes and blanks around them."""
    if separator == " ":
        line, separator = " ".join(line.split()), " "
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [field.strip() for field in row]


def is_number(field: str) -> bool:
    """Tell whether a field may be an address."""
    return re.fullmatch(r"-?\d+|(0[xX])?[0-9a-fA-F]+", field) is not None


def beginning_of(head: bytes) -> list[tuple[int, str]]:
    """Return the numbers, from 0, and texts of an input's first lines that are rows."""
    lines = first_lines(head.removeprefix(MARK), most=1 << 16, cut_off=len(head) >= BEGINNING)
    return [
        (number, line)
        for number, line in enumerate(lines)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def known_columns(names: list[str]) -> dict[str, int]:
    """Return the columns whose names tell what they are for."""
    low = [name.lower().replace(" ", "_") for name in names]
    found = {}
    for ours, accepted in NAMES.items():
        columns = [column for column, name in enumerate(low) if name in accepted]
        if len(columns) == 1:
            found[ours] = columns[0]
    return found


def recognised(head: bytes) -> bool:
    """Tell whether a file that begins like this has a line that names address and kind."""
    rows = beginning_of(head)
    if not rows:
        return False
    names = fields_of(rows[0][1], separator_of(rows[0][1]))
    return {"address", "kind"} <= known_columns(names).keys()


def column_of(ours: str, theirs: str, names: list[str], where: str) -> tuple[int, str]:
    """Return the column that the caller calls `theirs`, and what follows its colon.

    Raises
    ------
    InputError
        There is no such column, or two of them.
    """
    name, _, base = theirs.rpartition(":")
    if theirs in names or base not in BASES or not name:
        name, base = theirs, ""
    if names.count(name) == 1:
        return names.index(name), base
    if name.isdecimal() and name not in names:
        if not 1 <= int(name) <= len(names):
            raise InputError(
                f"{where}: {ours}={theirs}: the first row has {len(names)} columns; accepted: "
                f"1 to {len(names)}, or a column's name"
            )
        return int(name) - 1, base
    known = "twice the same name" if name in names else "no such column"
    raise InputError(
        f"{where}: {ours}={theirs}: {known} in the first line ({', '.join(names)[:100]}); accepted: "
        "a name that is there once, or a column's number, counted from 1"
    )


def base_of(values: list[str], name: str, where: str) -> int:
    """Return how a column that begins with these addresses writes them.

    Raises
    ------
    InputError
        It may be both.
    """
    found = {value.lower() for value in values}
    if any(value.startswith("0x") for value in found):
        return PREFIXED
    if any(set(value) & set("abcdef") for value in found):
        return HEXADECIMAL
    if any(value.startswith("0") and len(value) > 1 for value in found):
        return HEXADECIMAL
    if len(found) >= ENOUGH or any(value.startswith("-") for value in found):
        return DECIMAL
    raise InputError(
        f"{where}: addresses such as {values[0][:20]!r} may be decimal or hexadecimal; say which with "
        f"--columns address={name}:hex or address={name}:dec"
    )


def laid_out(head: bytes, columns: Mapping[str, str], where: str) -> Layout:
    """Return what the columns of a table are for.

    Raises
    ------
    InputError
        A column cannot be found, is there twice, or may be read in more than one way.
    """
    rows = beginning_of(head)
    if not rows:
        raise InputError(f"{where}: not a table in text: no line of it has columns")
    heading, first = rows[0]
    separator = separator_of(first)
    names = fields_of(first, separator)
    chosen: dict[str, int] = {}
    base, every = "", None
    for ours, theirs in columns.items():
        if ours not in ROLES:
            raise InputError(
                f"{where}: column {ours!r} is none of ours; accepted: {', '.join(ROLES)}"
            )
        if ours == "kind" and theirs in KIND_NAMES and theirs not in names:
            every = KIND_NAMES.index(theirs)
            continue
        chosen[ours], suffix = column_of(ours, theirs, names, where)
        base = suffix if ours == "address" else base
    for ours, column in known_columns(names).items():
        if ours not in columns and column not in chosen.values():
            chosen[ours] = column
    if (every is None and "kind" not in chosen) or "address" not in chosen:
        missing = "address" if "address" not in chosen else "kind"
        raise InputError(
            f"{where}: no column is known as the {missing} (first line: {first[:60]!r}); say which "
            f"with --columns address=COLUMN,kind=COLUMN, by names or by numbers counted from 1"
        )
    if len(set(chosen.values())) < len(chosen) or max(chosen.values()) >= MOST_COLUMNS:
        raise InputError(
            f"{where}: {', '.join(f'{k} is column {v + 1}' for k, v in chosen.items())}; accepted: "
            f"each a column of its own, up to {MOST_COLUMNS}"
        )
    place = chosen["address"]
    named = not is_number(names[place])
    body = [fields_of(line, separator) for _, line in rows[named:]]
    roles = np.full(max(chosen.values()) + 1, IGNORED, np.uint8)
    bases = np.full(len(roles), EITHER, np.uint8)
    for ours, column in chosen.items():
        roles[column] = ROLES[ours]
    if base:
        bases[place] = BASES[base]
    else:
        values = [row[place] for row in body if len(row) > place and row[place]]
        name = columns.get("address", names[place] if named else str(place + 1))
        bases[place] = base_of(values, name, where) if values else PREFIXED
    return Layout(
        separator=ord(separator),
        roles=roles,
        bases=bases,
        needed=sum(1 << ROLES[ours] for ours in chosen),
        kind=every or 0,
        heading=heading if named else -1,
    )


def unmarked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield pieces without the mark that UTF-8 may begin with."""
    yield next(pieces, b"").removeprefix(MARK)
    yield from pieces


def read_table(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a table in text.

    Raises
    ------
    InputError
        It is not clear which column holds what, or a row is no access; the message has its number,
        counted from 1, and its content.
    """
    layout = laid_out(source.head, source.columns, source.where)
    reader = LineReader(
        lambda text, end, out, place: parse(text, end, out, place, layout),
        REASONS, source.where, source.notes, WHAT_IS_PASSED,
        processes=PROCESS in layout.roles, threads=THREAD in layout.roles, open_end=True,
    )  # fmt: skip
    return read_lines(reader, unmarked(source.pieces))
