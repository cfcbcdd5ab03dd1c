"""Strategies for page tables, and for addresses that meet them."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from mmu.errors import InputError
from mmu.paging import Control
from mmu.testing.layouts import Layout, Page
from mmu.testing.lazily import strategies as st
from mmu.testing.tables import ACCESSED, DIRTY, EPT_ACCESSED, EPT_DIRTY, PAGE, SIZES, Tables
from mmu.testing.tables import TableMemory as Memory

Draw = st.DrawFn
KINDS = ("native", "ept", "npt")
EVERY_SIZE = tuple(SIZES)
GUEST_RIGHTS = ("rwxu", "rxu", "rwu", "ru", "rwx", "rx", "rw", "r")
EPT_RIGHTS = ("rwx", "rx", "rw", "r", "x")
TABLE_PAGES = 96  # of memory: the largest example takes about 70
RECURSIVE, SHARED = 7, 5  # entries of root tables; pages are mapped by entries 0 and 1
DATA = 1 << 30  # guest-physical addresses of data lie in entries 1 to 4 of their level 3 table
FRAMES = 1 << 32  # machine addresses of data: beyond tables

one_of = cache(lambda *values: st.sampled_from(values))
accesses = st.sampled_from(["read", "write", "fetch"])
booleans, bit_numbers = st.booleans(), st.integers(0, 63)
offsets = st.integers(0, PAGE - 1) | st.integers(0, (1 << 30) - 1)
steps = st.sampled_from([-PAGE, -1, PAGE, 1 << 21, 1 << 30])
flips = st.lists(st.tuples(st.integers(0, 255), bit_numbers), min_size=1, max_size=3)
what_of_pages = st.sampled_from(["page"] * 6 + ["alias", "alias", "next", "bit", "anywhere"])
anywhere = st.integers(0, (1 << 64) - 1)


def controls(**fixed: Any) -> "st.SearchStrategy[Control]":
    """Draw control registers: any of WP, NXE, SMEP, SMAP, AC, 1 GiB pages, MAXPHYADDR.

    Parameters
    ----------
    **fixed
        Fields of `mmu.Control` that are not drawn. LA57 is one by default: tables have it their way.
    """
    fields: dict[str, Any] = {name: st.booleans() for name in ("smep", "smap", "ac")}
    fields |= {name: st.sampled_from([True, False]) for name in ("wp", "nxe", "gbpages")}
    fields |= {"maxphyaddr": st.sampled_from([48, 52, 46, 40]), "la57": st.just(False)}
    fields |= {name: st.just(value) for name, value in fixed.items()}
    return st.builds(Control, **fields)


class Plan(NamedTuple):
    """One page to be mapped, in small numbers: they name neighbours and the same tables again."""

    space: int
    size: str
    number: int  # which address: see _address
    frame: int  # which guest-physical, or machine address: see _spread
    rights: str
    link_rights: str
    marks: int  # accessed and dirty bits, as of x86
    hole: str  # what is not present: "", "guest" or "nested"
    nested_size: str
    nested_frame: int
    nested_rights: str
    piece: int  # which nested page of a larger guest page


@cache  # making strategies takes longer than drawing from them
def _plans(
    kind: str,
    spaces: int,
    sizes: Sequence[str],
    nested_sizes: Sequence[str],
    rights: bool,
    holes: bool,
) -> "st.SearchStrategy[Plan]":
    """Draw what to map."""
    guest = (("rwxu",) * 14 + GUEST_RIGHTS[1:]) if rights else ("rwxu",)
    others = EPT_RIGHTS if kind == "ept" else GUEST_RIGHTS
    nested = (others[:1] * 10 + others[1:]) if rights else others[:1]
    only = st.just(0)
    return st.tuples(
        st.integers(0, spaces - 1),
        st.sampled_from(sizes),
        st.integers(0, (1 << 9) - 1),
        st.integers(0, (1 << 6) - 1),
        st.sampled_from(guest),
        st.sampled_from(("rwxu",) * 20 + guest),
        st.sampled_from([0, ACCESSED, ACCESSED | DIRTY]),
        st.sampled_from(("",) * 8 + ("guest", "nested") if holes else ("",)),
        st.sampled_from(nested_sizes if kind != "native" else EVERY_SIZE[:1]),
        st.integers(0, (1 << 6) - 1) if kind != "native" else only,
        st.sampled_from(nested),
        st.integers(0, 3) if kind != "native" else only,
    ).map(Plan._make)


@cache
def _lists(most: int, *options: Any) -> "st.SearchStrategy[list[Plan]]":
    return st.lists(_plans(*options), min_size=1, max_size=most)


def _address(number: int, levels: int) -> int:
    """Return an address of eight bits, two for each of the last three indices and one for the root's.

    Bit 8 asks for the upper half.
    """
    address = sum((number >> 2 * at & 3) << 12 + 9 * at for at in range(3))
    address |= (number >> 6 & 1) << 3 + 9 * levels
    return address | (number >> 8 & 1) * ((1 << 64) - (1 << 11 + 9 * levels))


def _spread(number: int) -> int:
    """Return a frame of six bits: which of four 4 KiB pages, 2 MiB pages and 1 GiB pages."""
    return sum((number >> 2 * at & 3) << 12 + 9 * at for at in range(3))


@cache
def data_frames(kind: str) -> "st.SearchStrategy[int]":
    """Draw where pages of data lie: guest-physical, or machine addresses where `kind` is "native"."""
    start = FRAMES if kind == "native" else DATA
    return st.integers(0, (1 << 6) - 1).map(lambda number: start + _spread(number))


def _place(layout: Layout, plan: Plan) -> None:
    """Map a page as planned, unless something is in its way."""
    tables, nested = layout.spaces[plan.space], layout.nested
    size = SIZES[plan.size]
    gva = _address(plan.number, tables.levels) & -size
    gpa = (DATA if nested else FRAMES) + _spread(plan.frame) & -size
    marks = plan.marks
    try:
        tables.map(
            gva, gpa, size, plan.rights, bits=marks, link_rights=plan.link_rights,
            link_bits=marks & ACCESSED,
        )  # fmt: skip
    except InputError:  # in use
        return
    if plan.hole == "guest":
        tables.unmap(gva)
    if nested is None:
        layout.pages.append(Page(plan.space, gva, gpa, size))
        return
    nested_size = SIZES[plan.nested_size]
    piece = gpa + plan.piece * nested_size % size
    frame = FRAMES + _spread(plan.nested_frame) & -nested_size
    if nested.form == "ept":
        marks = (EPT_ACCESSED if marks else 0) | (EPT_DIRTY if marks & DIRTY else 0)
    try:
        nested.map(piece & -nested_size, frame, nested_size, plan.nested_rights, bits=marks)
        if plan.hole == "nested":
            nested.unmap(piece)
    except InputError:  # another page has had it backed, in its own way
        leaf = nested.leaf(piece)
        nested_size = leaf.size if leaf else 0
    if nested_size < size:
        gva, gpa = gva + piece - gpa, piece
    layout.pages.append(Page(plan.space, gva, gpa, size, nested_size))


def _share(layout: Layout, level: int) -> None:
    """Let the last space have a table of the first one's first page, at a place of its own."""
    page, last = layout.pages[0], len(layout.spaces) - 1
    source, tables = layout.spaces[page.space], layout.spaces[last]
    level = min(level, tables.levels)
    if level <= source.path(page.gva)[-1].level:
        level = tables.levels  # what maps a page is no table
    alias = SHARED << 3 + 9 * tables.levels | page.gva & (1 << 3 + 9 * tables.levels) - 1
    if level < tables.levels:
        alias = page.gva ^ SHARED << 3 + 9 * level
    try:
        tables.share(alias, source, level, page.gva)
    except InputError:  # the last space has no table there
        return
    layout.aliases.append((last, alias))


def _recurse(layout: Layout) -> None:
    """Let tables map themselves: the first space's, and the nested ones as the guest's memory."""
    guest, nested = layout.spaces[0], layout.nested
    guest.recurse(RECURSIVE)
    way = [RECURSIVE << 12 + 9 * at for at in range(guest.levels)]
    for depth in range(1, guest.levels + 1):  # each turn through the root ends one level higher
        layout.aliases.append((0, sum(way[-depth:])))
    if nested:
        nested.recurse(RECURSIVE)
        gpa = sum(RECURSIVE << 12 + 9 * at for at in range(nested.levels))
        gva = (SHARED - 1) << 3 + 9 * guest.levels
        guest.map(gva, gpa)
        layout.aliases.append((0, gva))


def _spoil(layout: Layout, which: int, bit: int) -> None:
    """Flip a bit of an entry on the way of a page."""
    page = layout.pages[which % len(layout.pages)]
    way = layout.spaces[page.space].path(page.gva)
    if layout.nested:
        way = way + layout.nested.path(page.gpa)
    place = way[which // len(layout.pages) % len(way)].place
    layout.memory.write(place, layout.memory.read(place) ^ 1 << bit)


@st.composite
def page_tables(
    draw: Draw,
    kinds: Sequence[str] = KINDS,
    *,
    levels: Sequence[int] = (4, 5),
    nested_levels: Sequence[int] = (4, 5),
    sizes: Sequence[str] = EVERY_SIZE,
    nested_sizes: Sequence[str] = EVERY_SIZE,
    spaces: int = 2,
    pages: int = 4,
    rights: bool = True,
    holes: bool = True,
    shared: bool = True,
    recursive: bool = True,
    malformed: bool = False,
    control: "st.SearchStrategy[Control] | None" = None,
) -> Layout:
    """Draw page tables over one memory.

    Parameters
    ----------
    kinds : sequence of {"native", "ept", "npt"}
        Nested tables: none, Intel's, AMD's.
    levels, nested_levels : sequence of {4, 5}
        Of guest tables, and of nested ones.
    sizes, nested_sizes : sequence of {"4k", "2m", "1g"}
        Of pages, in each dimension.
    spaces, pages : int
        At most so many address spaces, and pages in all of them.
    rights : bool
        Entries may grant less than everything; also pages of guest tables in nested ones.
    holes : bool
        Entries of some pages, in either dimension, are not present.
    shared, recursive : bool
        Tables may be those of two addresses, and map themselves.
    malformed : bool
        Any bit of up to three entries may be flipped: reserved ones, bad memory types, pointers
        that lead astray.
    control : strategy of Control, optional
        What the tables are made for; by default everything usual, with MAXPHYADDR 48. LA57 is set
        as the tables are.

    Returns
    -------
    Layout
        With at least one page.
    """
    kind, depth = draw(one_of(*kinds)), draw(one_of(*levels))
    memory, nested = Memory(TABLE_PAGES), None
    table_rights = "rwxu"
    if kind != "native":
        if rights:
            table_rights = draw(one_of(*("rwxu",) * 8, "rxu", "ru"))
        dirty = kind != "ept" or draw(one_of(True, False))
        nested = Tables(memory, kind, levels=draw(one_of(*nested_levels)), dirty=dirty)
    count = draw(one_of(*range(1, spaces + 1)))
    guests = [
        Tables(memory, levels=depth, nested=nested, table_rights=table_rights) for _ in range(count)
    ]
    given = Control() if control is None else draw(control)
    fields = vars(given) | {"la57": depth == 5}
    layout = Layout(memory, guests, nested, Control(**fields))
    plans = _lists(pages, kind, count, tuple(sizes), tuple(nested_sizes), rights, holes)
    for plan in draw(plans):
        _place(layout, plan)
    if shared and draw(booleans):
        _share(layout, draw(one_of(depth, 3, 2)))
    if recursive and draw(booleans):
        _recurse(layout)
    if malformed:
        for which, bit in draw(flips):
            _spoil(layout, which, bit)
    return layout


@st.composite
def addresses(draw: Draw, /, layout: Layout) -> tuple[int, int]:
    """Draw a space of a layout, and an address that is worth asking it about.

    Inside its pages, next to them, the same but for one bit, where tables are shared or recursive, at
    the edges of what is canonical, and anywhere.

    Returns
    -------
    (int, int)
        Index of the space, and the address, unsigned.
    """
    kind = draw(what_of_pages)
    if kind == "anywhere":
        edge = 1 << 11 + 9 * layout.spaces[0].levels
        edges = (edge - 1, edge, (1 << 64) - edge - 1, (1 << 64) - edge)
        gva = draw(one_of(*edges)) if draw(booleans) else draw(anywhere)
        return draw(one_of(*range(len(layout.spaces)))), gva
    if kind == "alias" and layout.aliases:
        space, gva = draw(one_of(*layout.aliases))
        return space, gva + draw(offsets) % PAGE
    page = layout.pages[draw(one_of(*range(len(layout.pages))))]
    if kind == "next":
        return page.space, (page.gva + draw(steps)) % (1 << 64)
    if kind == "bit":
        return page.space, page.gva ^ 1 << draw(bit_numbers)
    return page.space, page.gva + draw(offsets) % page.alike


@st.composite
def questions(draw: Draw, /, **options: Any) -> tuple[Layout, int, int]:
    """Draw page tables, and a space and an address of them; options as of `page_tables`."""
    layout: Layout = draw(page_tables(**options))
    space, gva = draw(addresses(layout))
    return layout, space, gva
