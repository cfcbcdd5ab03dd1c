"""A walk as lines of text: each table read, under the address that it serves, and how it ended."""

from collections.abc import Iterator

from mmu.entrybits import TABLE_NAMES
from mmu.indices import table_index
from mmu.paging import Ept
from mmu.walkthrough import Read, Walkthrough

SETS = "+"  # before the name of a bit that the access sets


def lines(walk: Walkthrough) -> list[str]:
    """Return the walk as text: the question, every table read, how it ended."""
    return [*question(walk), "", *steps(walk), *ending(walk)]


def question(walk: Walkthrough) -> list[str]:
    """Return what was asked: the access, the roots, and the indices in the address."""
    who = "user" if walk.user else "supervisor"
    where = f"CR3 {walk.cr3:#x}, {walk.levels} levels"
    nested = walk.nested
    if isinstance(nested, Ept):
        marks = "on" if nested.dirty else "off"
        where += f"; EPTP {nested.eptp:#x}, {nested.levels} levels, A/D bits {marks}"
    elif nested:
        where += f"; nCR3 {nested.ncr3:#x}, {nested.levels} levels"
    indices = " ".join(f"{table_index(walk.gva, level)}" for level in range(walk.levels, 0, -1))
    return [
        f"{who} {walk.access} of gva {walk.gva:#x}",
        where,
        f"indices {indices}, offset {walk.gva & 0xFFF:#x}",
    ]


def steps(walk: Walkthrough) -> list[str]:
    """Return a line for each table read, in columns, after a line for each address translated."""
    if not walk.reads:
        return []
    rows = [cells(read) for read in walk.reads]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    found: list[str] = []
    before = -1
    for read, row in zip(walk.reads, rows, strict=True):
        if read.row != before and walk.nested:
            found.append(heading(walk, read))
        before = read.row
        text = "  ".join(
            f"{cell:>{width}}" if n in (0, 3) else f"{cell:<{width}}"
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        found.append(f"  {text}".rstrip())
    return [*found, ""]


def heading(walk: Walkthrough, read: Read) -> str:
    """Return the line above the reads that serve one guest-physical address."""
    guests = [each for each in walk.reads if each.row < read.row and each.dimension == "guest"]
    if guests and guests[-1].leaf:
        return f"the data, gpa {read.gpa:#x}"
    level = walk.levels - read.row
    what = f"entry {table_index(walk.gva, level)} of the guest's {TABLE_NAMES[level]}"
    return f"{what}, gpa {read.gpa:#x}"


def cells(read: Read) -> list[str]:
    """Return the columns of a table read."""
    bits = " ".join([*read.bits, *(SETS + name for name in read.sets)])
    leads = f"-> {read.leads_to}" if read.leads_to and not read.ended else ""
    if read.ended:
        leads = "<- ends here"
    return [
        f"{read.number}", read.label, read.name, f"[{read.index}]", f"{read.address:#x}",
        f"{read.entry:#018x}", bits, leads,
    ]  # fmt: skip


def ending(walk: Walkthrough) -> Iterator[str]:
    """Yield how the walk ended, which bits it sets, and how many tables it read."""
    end = walk.ending
    yield f"{end.title}: {end.reason}" if end.reason else end.title
    rows = [*end.facts, ("tables read", references(walk)), ("sets (+)", marked(walk))]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"  {name:<{width}}  {value}"


def references(walk: Walkthrough) -> str:
    """Return how many tables were read, by dimension."""
    total = len(walk.reads)
    inner = sum(read.dimension == "nested" for read in walk.reads)
    text = f"{total} reference{'' if total == 1 else 's'}"
    return f"{text}, {total - inner} guest and {inner} nested" if walk.nested else text


def marked(walk: Walkthrough) -> str:
    """Return which entries the access sets bits in, by the number of the reference."""
    found = []
    for name in ("A", "D"):
        numbers = [read.number for read in walk.reads if name in read.sets]
        if numbers:
            found.append(f"{name} in {_spans(numbers)}")
    return "; ".join(found) or "no accessed or dirty bit"


def _spans(numbers: list[int]) -> str:
    """Return ascending numbers with those in a row as first-last."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(f"{low}-{high}" if high > low else f"{low}" for low, high in spans)
