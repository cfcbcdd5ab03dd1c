"""Translations and whole maps as lines for people, as CSV and as JSON, a piece at a time."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.ending import ERROR_BITS
from mmu.files import Table, csv_text
from mmu.hardware.outcome import Outcome
from mmu.paging import Ept, Npt
from mmu.spacemap import Mapping
from mmu.translation import NONE, Translations
from mmu.units import format_size

PIECE = 1 << 16  # rows that are plain Python values at once
WIDTH = 16  # hexadecimal digits of an address
# Bits by number, short (Intel SDM vol. 3, "Page-Fault Exceptions" and "Exit Qualification for EPT
# Violations"; AMD64 APM vol. 2, "Nested versus Guest Page Faults").
QUALIFICATION_BITS = {
    0: "read", 1: "write", 2: "fetch", 3: "R granted", 4: "W granted", 5: "X granted",
    7: "address valid", 8: "final",
}  # fmt: skip
INFO_BITS = ERROR_BITS | {32: "final", 33: "guest table"}
WORDS = {
    Outcome.NOT_CANONICAL: "#GP: not canonical",
    Outcome.NO_MEMORY: "a table lies outside memory",
}
HOLES = {
    Outcome.PAGE_FAULT: "reserved bits are set",
    Outcome.NESTED_VIOLATION: "nested violation",
    Outcome.NESTED_MISCONFIGURATION: "nested misconfiguration",
    Outcome.NO_MEMORY: "a table lies outside memory",
}


class Report(ABC):
    """What is printed, and written to files."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Return lines for people."""

    @abstractmethod
    def pieces(self) -> Iterator[Table]:
        """Return the rows, in tables of the same columns."""

    @abstractmethod
    def named(self) -> dict[str, Any]:
        """Return what JSON says beside the rows."""

    def csv(self) -> str:
        """Return all rows under one header."""
        texts = [csv_text(piece) for piece in self.pieces()]
        return "".join(texts[:1] + [text.partition("\n")[2] for text in texts[1:]])

    def json(self) -> str:
        """Return all rows as objects, one a line."""
        head = "".join(
            f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in self.named().items()
        )
        rows = [
            ",\n".join(json.dumps(dict(zip(piece.columns, row, strict=True))) for row in piece.rows)
            for piece in self.pieces()
        ]
        return "{\n" + head + '"rows": [\n' + ",\n".join(row for row in rows if row) + "\n]\n}\n"


class TranslationReport(Report):
    """Addresses, and how their translations ended."""

    COLUMNS = (
        "address", "outcome", "gpa", "maddr", "page_size", "guest_page_size", "nested_page_size",
        "error_code", "exit_qualification", "exit_info", "fault_gpa", "references",
    )  # fmt: skip

    def __init__(
        self, addresses: NDArray[np.uint64], found: Translations, nested: Ept | Npt | None
    ) -> None:
        self.addresses, self.found, self.nested = addresses, found, nested

    def named(self) -> dict[str, Any]:
        """Return how many were translated."""
        ok = int((self.found.outcome == Outcome.OK).sum())
        return {"addresses": len(self.addresses), "translated": ok}

    def pieces(self) -> Iterator[Table]:
        """Return a row for each address; what a translation has not is None."""
        for start in range(0, max(len(self.addresses), 1), PIECE):
            yield Table(list(self.COLUMNS), [self._row(row) for row in self._rows(start)])

    def _rows(self, start: int) -> Iterator[dict[str, int]]:
        part = {"address": self.addresses[start : start + PIECE].tolist()}
        for name, column in self.found._asdict().items():
            part[name] = column[start : start + PIECE].tolist()
        for values in zip(*part.values(), strict=True):
            yield dict(zip(part, values, strict=True))

    def _row(self, row: dict[str, int]) -> list[Any]:
        outcome = Outcome(row["outcome"])
        violated = outcome == Outcome.NESTED_VIOLATION
        there = {
            "error_code": outcome == Outcome.PAGE_FAULT,
            "exit_qualification": violated and isinstance(self.nested, Ept),
            "exit_info": violated and isinstance(self.nested, Npt),
        }
        shown: list[Any] = [f"{row['address']:#x}", outcome.name]
        for name in self.COLUMNS[2:]:
            value = row[name]
            if name in ("gpa", "maddr", "fault_gpa"):
                shown.append(None if value == NONE else f"{value:#x}")
            elif name in there:
                shown.append(f"{value:#x}" if there[name] else None)
            else:
                shown.append(value if name == "references" else value or None)
        return shown

    def lines(self) -> Iterator[str]:
        """Return a line for each address."""
        for start in range(0, len(self.addresses), PIECE):
            for row in self._rows(start):
                yield f"{row['address']:#x}: {self._ending(row)}"

    def _ending(self, row: dict[str, int]) -> str:
        outcome = Outcome(row["outcome"])
        if outcome == Outcome.OK:
            page = format_size(row["page_size"])
            if self.nested is None:
                return f"gpa {row['gpa']:#x}, page {page}"
            guest, nested = (format_size(row[f"{kind}_page_size"]) for kind in ("guest", "nested"))
            sizes = f"page {page} (guest {guest}, nested {nested})"
            return f"gpa {row['gpa']:#x}, maddr {row['maddr']:#x}, {sizes}"
        if outcome == Outcome.PAGE_FAULT:
            return f"#PF {spelled(row['error_code'], ERROR_BITS)}"
        if outcome == Outcome.NESTED_MISCONFIGURATION:
            return f"EPT misconfiguration at gpa {row['fault_gpa']:#x}"
        if outcome == Outcome.NESTED_VIOLATION and isinstance(self.nested, Ept):
            code = spelled(row["exit_qualification"], QUALIFICATION_BITS)
            return f"EPT violation at gpa {row['fault_gpa']:#x}, qualification {code}"
        if outcome == Outcome.NESTED_VIOLATION:
            code = spelled(row["exit_info"], INFO_BITS)
            return f"#NPF at gpa {row['fault_gpa']:#x}, EXITINFO1 {code}"
        return WORDS[outcome]


class MapReport(Report):
    """Every page that tables map, and the holes."""

    COLUMNS = (
        "first", "end", "size", "outcome", "user", "read", "write", "execute", "global", "page_size",
        "guest_page_size", "nested_page_size", "gpa", "maddr", "entry",
    )  # fmt: skip

    def __init__(self, found: Mapping, nested: Ept | Npt | None) -> None:
        self.found, self.nested = found, nested

    def named(self) -> dict[str, Any]:
        """Return how much was found."""
        found = self.found
        return {
            "ranges": len(found.first),
            "holes": len(found.hole_first),
            "bytes": int(found.size.sum()),
            "pages": found.pages,
            "tables": found.tables,
        }

    def pieces(self) -> Iterator[Table]:
        """Return a row for each range, then one for each hole."""
        columns = list(self.COLUMNS)
        found = self.found
        for start in range(0, max(len(found.first), 1), PIECE):
            yield Table(columns, [self._row(*values) for values in self._ranges(start)])
        for start in range(0, len(found.hole_first), PIECE):
            yield Table(
                columns,
                [
                    [f"{first:#x}", f"{first + size:#x}", size, outcome.name, *[None] * 10, entry]
                    for first, size, outcome, entry in self._holes(start)
                ],
            )

    def _ranges(self, start: int) -> Iterator[tuple[Any, ...]]:
        found = self.found
        columns = (
            found.first, found.size, found.user, found.read, found.write, found.execute,
            found.is_global, found.page_size, found.guest_page_size, found.nested_page_size,
            found.gpa, found.maddr,
        )  # fmt: skip
        return zip(*(column[start : start + PIECE].tolist() for column in columns), strict=True)

    def _holes(self, start: int) -> Iterator[tuple[int, int, Outcome, str | None]]:
        found = self.found
        columns = (found.hole_first, found.hole_size, found.hole_outcome, found.hole_entry)
        parts = [column[start : start + PIECE].tolist() for column in columns]
        for first, size, outcome, entry in zip(*parts, strict=True):
            yield first, size, Outcome(outcome), None if entry == NONE else f"{entry:#x}"

    @staticmethod
    def _row(first: int, size: int, *rest: Any) -> list[Any]:
        *rights, page, guest, nested, gpa, maddr = rest
        sizes = [value or None for value in (page, guest, nested)]
        return [
            f"{first:#x}", f"{first + size:#x}", size, "OK", *rights, *sizes, f"{gpa:#x}",
            f"{maddr:#x}", None,
        ]  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Return a line for each range as /proc/PID/maps does, the holes, and how much there is."""
        found, nested = self.found, self.nested is not None
        where = f"{'gpa':<15}  maddr" if nested else "gpa"
        sizes = "page  guest  nested" if nested else "page"
        yield f"{'first-end':<{2 * WIDTH + 1}}  rights  {'size':>8}  {sizes}  {where}"
        for start in range(0, len(found.first), PIECE):
            for values in self._ranges(start):
                yield self._line(*values)
        for start in range(0, len(found.hole_first), PIECE):
            for first, size, outcome, entry in self._holes(start):
                at = f", entry at {entry}" if entry else ", beyond what nested tables translate"
                yield f"{span(first, size)}  {HOLES[outcome]}{at}"
        yield (
            f"{len(found.first):,} ranges, {len(found.hole_first):,} holes: {found.pages:,} pages "
            f"below {found.tables:,} tables"
        )

    def _line(self, first: int, size: int, *rest: Any) -> str:
        *has, page, guest, nested, gpa, maddr = rest
        rights = "".join(name if right else "-" for name, right in zip("urwxg", has, strict=True))
        text = f"{span(first, size)}  {rights:6}  {format_size(size):>8}  {size_name(page):>4}  "
        if self.nested is None:
            return f"{text}{gpa:#x}"
        return f"{text}{size_name(guest):>5}  {size_name(nested):>6}  {gpa:<#15x}  {maddr:#x}"


def span(first: int, size: int) -> str:
    """Return the first address and the one after the last, as /proc/PID/maps does."""
    return f"{first:0{WIDTH}x}-{first + size:0{WIDTH}x}"


def size_name(size: int) -> str:
    """Return a page size, short; there is none where pages differ."""
    return format_size(size) if size else "-"


def spelled(code: int, names: dict[int, str]) -> str:
    """Return a code and the names of the bits that are set in it."""
    bits = [names.get(number, str(number)) for number in range(64) if code >> number & 1]
    return f"{code:#x}: {', '.join(bits)}" if bits else f"{code:#x}"
