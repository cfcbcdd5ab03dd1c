"""Tables made by plain code mean what they say: each change is seen by a translation."""

import numpy as np
import pytest

import mmu
from mmu.testing.tables import (
    ACCESSED,
    DIRTY,
    EPT_ACCESSED,
    EPT_DIRTY,
    LARGE,
    PAGE,
    PAT,
    SIZES,
    TableMemory,
    Tables,
)

LARGER = ("2m", "1g")


def make(form, **options):
    """Tables of a form, and a function that translates one of their addresses."""
    memory = TableMemory(32)
    if form == "x86":
        tables = Tables(memory, **options)
        control = mmu.Control(la57=options.get("levels") == 5)
        return tables, lambda gva, access="read": mmu.translate(
            memory.view, gva, cr3=tables.root, access=access, control=control
        )
    tables = Tables(memory, form, **options)
    guest = Tables(memory, nested=tables)
    guest.map(0, 0, "1g")
    return tables, lambda gpa, access="read": mmu.translate(
        memory.view, gpa, cr3=guest.root, nested=tables.pointer, access=access
    )


FORMS = pytest.mark.parametrize("form", ["x86", "ept", "npt"])


def ends(translation):
    return translation.outcome.name, translation.maddr


@FORMS
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("size", SIZES)
def test_a_mapped_page_is_translated_and_an_unmapped_one_no_more(form, levels, size):
    tables, translate = make(form, levels=levels)
    tables.map(0, 0x40_0000_0000, size)
    assert ends(translate(0xABC)) == ("OK", 0x40_0000_0ABC)
    assert tables.leaf(0xABC).size == SIZES[size]
    word = tables.unmap(0xABC)
    assert word & ~0xFFF == 0x40_0000_0000
    assert translate(0).maddr is None
    assert tables.leaf(0) is None


@FORMS
def test_rights_are_those_of_the_letters(form):
    tables, translate = make(form)
    tables.map(0, 0x7000, rights="rwxu")
    for rights in ("rwxu", "rxu", "rwu", "ru"):
        tables.protect(0, rights)
        may = {
            access: translate(0, access).maddr is not None for access in ("read", "write", "fetch")
        }
        assert may == {"read": True, "write": "w" in rights, "fetch": "x" in rights}
        assert set(tables.rights_of(tables.leaf(0).word)) == set(rights) - set(
            "u" if form == "ept" else ""
        )
    tables.protect(0, "x" if form == "ept" else "rwx")  # execute only; supervisor only
    assert translate(0).maddr is None


@FORMS
@pytest.mark.parametrize("size", LARGER)
def test_a_split_changes_no_translation_and_a_merge_undoes_it(form, size):
    tables, translate = make(form)
    marks = EPT_ACCESSED | EPT_DIRTY if form == "ept" else ACCESSED | DIRTY
    pat = 0 if form == "ept" else PAT
    tables.map(0, 0x40_0000_0000, size, "rxu", bits=marks | pat)
    before = tables.memory.words.copy()
    tables.split(0x1000)
    leaf = tables.leaf(SIZES[size] - 1)
    assert leaf.size == SIZES[size] // 512
    assert leaf.word & marks == marks
    if size == "2m" and pat:
        assert leaf.word & (PAT | LARGE) == LARGE | leaf.frame & PAT  # where a 4k page has its PAT
    for gpa in (0, 0x1234, SIZES[size] // 512, SIZES[size] - 8):
        assert ends(translate(gpa)) == ("OK", 0x40_0000_0000 + gpa)
        assert translate(gpa, "write").maddr is None
    tables.merge(0x1000)
    assert np.array_equal(tables.memory.words, before)
    assert tables.memory.take() != 0  # the table's page is handed out again


@FORMS
def test_a_merge_keeps_accessed_and_dirty_of_any_piece_and_rights_of_both_levels(form):
    tables, _ = make(form)
    tables.map(0, 0x4000_0000, "2m")
    tables.split(0)
    marks = EPT_ACCESSED | EPT_DIRTY if form == "ept" else ACCESSED | DIRTY
    piece = tables.leaf(PAGE)
    tables.memory.write(piece.place, piece.word | marks)
    link = tables.path(0)[-2]
    tables.memory.write(link.place, link.word & ~2)
    tables.merge(0)
    assert tables.leaf(0).word & marks == marks
    assert "w" not in tables.rights_of(tables.leaf(0).word)


@FORMS
def test_pieces_that_differ_are_not_merged(form):
    tables, _ = make(form)
    tables.map(0, 0x4000_0000, "2m")
    tables.split(0)
    tables.protect(5 * PAGE, "ru")
    with pytest.raises(mmu.InputError, match="entry 5"):
        tables.merge(0)
    tables.protect(5 * PAGE, "rwxu")
    tables.move(511 * PAGE, 0x7000)
    with pytest.raises(mmu.InputError, match="entry 511"):
        tables.merge(0)


@FORMS
def test_a_moved_page_keeps_all_but_its_frame(form):
    tables, translate = make(form)
    tables.map(0, 0x4000_0000, "2m", "rxu")
    before = tables.leaf(0).word
    assert tables.move(0x1000, 0x8020_0000) == before
    assert ends(translate(0x1234)) == ("OK", 0x8020_1234)
    assert tables.leaf(0).word ^ before == 0x4000_0000 ^ 0x8020_0000


def test_guest_tables_lie_in_guest_memory_and_are_backed():
    tables = Tables(TableMemory(32), "npt")
    guest = Tables(tables.memory, nested=tables)
    guest.map(0x1000, 0x5000)
    for table in {entry.word & ~0xFFF for entry in guest.path(0x1000)[:-1]} | {guest.root}:
        assert table >= 1 << 32
        assert tables.leaf(table).size == PAGE


def test_a_shared_table_serves_both_addresses():
    tables, translate = make("x86")
    tables.map(0x1000, 0x7000)
    tables.share(1 << 30, tables, 3, 0)
    assert ends(translate((1 << 30) + 0x1000)) == ("OK", 0x7000)
    tables.map(0x2000, 0x9000)
    assert ends(translate((1 << 30) + 0x2000)) == ("OK", 0x9000)


def test_a_recursive_root_shows_the_root():
    tables, translate = make("x86")
    tables.recurse(3)
    assert ends(translate(sum(3 << 12 + 9 * at for at in range(4)))) == ("OK", tables.root)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: t.map(0x123, 0), "address: found 0x123; accepted: a multiple of 0x1000"),
        (lambda t: t.map(0, 0x1000, "2m"), "frame: found 0x1000; accepted: a multiple of 0x200000"),
        (lambda t: t.map(0x5000, 0), "address: found 0x5000 in use"),
        (lambda t: t.map(0, 0, "2m"), "address: found 0x0 in use"),
        (lambda t: t.map(0, 0, "3m"), "4k | 2m | 1g"),
        (lambda t: t.map(0x6000, 0, rights="w"), "r among them"),
        (lambda t: t.map(0x6000, 0, rights="rq"), "letters of rwxu"),
        (lambda t: t.unmap(0x6000), "0x6000, which nothing maps"),
        (lambda t: t.split(0x5000), "in a 4k page"),
        (lambda t: t.merge(1 << 30), "in a 1g page"),
        (lambda t: t.put(1 << 39, 1, 0), "levels of 0x8000000000 that have a table: 4"),
        (lambda t: t.memory.read(1 << 40), "address: found 0x10000000000; accepted: 0x0 to"),
        (lambda t: [t.memory.take() for _ in range(99)], "TableMemory"),
        (lambda t: TableMemory(-1), "pages: found -1"),
        (lambda t: TableMemory("x"), "pages: found 'x'"),
        (lambda t: TableMemory(1 << 60), "accepted: 0 to 262,144"),
        (lambda t: t.memory.write(0, -1), "word: found -0x1"),
        (lambda t: t.memory.write(0, 1 << 64), "word: found 0x10000000000000000"),
        (lambda t: t.memory.read("x"), "address: found 'x'"),
        (lambda t: t.memory.give(31 * PAGE), "page: found 0x1f000, which nobody has"),
        (lambda t: t.map("x", 0), "address: found 'x'"),
        (lambda t: t.map(0x6000, -4096), "frame: found -0x1000"),
        (lambda t: t.map(0x6000, 1 << 52), "frame: found 0x10000000000000"),
        (lambda t: t.move(0x5000, 1 << 52), "frame: found 0x10000000000000"),
        (lambda t: Tables(t.memory, "arm"), "x86 | ept | npt"),
        (lambda t: Tables(t.memory, levels=3), "4 | 5"),
    ],
)
def test_what_cannot_be_done_is_refused_on_one_line(call, says):
    tables, _ = make("x86")
    tables.map(0x5000, 0x7000)
    tables.map(1 << 30, 1 << 30, "1g")
    before = tables.memory.words.copy()
    with pytest.raises(mmu.InputError) as caught:
        call(tables)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert np.array_equal(tables.memory.words, before)


def test_a_page_is_given_back_once():
    memory = TableMemory(2)
    page = memory.take()
    memory.give(page)
    with pytest.raises(mmu.InputError, match="nobody has"):
        memory.give(page)
    assert memory.take() == page


def test_a_root_that_nested_tables_no_longer_map_is_said_to_be_in_no_memory():
    memory = TableMemory(16)
    nested = Tables(memory, "ept")
    tables = Tables(memory, nested=nested)
    nested.unmap(tables.root)
    with pytest.raises(mmu.InputError, match="in no memory"):
        tables.map(0x5000, 0)
