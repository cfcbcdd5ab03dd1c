"""How many entries a walk reads, in which order, where its pages lie, and which of two faults it tells.

The defects that hardware and simulators shipped are tests with the names that their trackers give them.
"""

from itertools import combinations, product

import pytest
from exact import ACCESSES, PAGE, PS, WB, XD, A, D, P, Pages, U, W, agree, ask, one_page

from mmu.testing import reference as manual

KINDS = pytest.mark.parametrize("kind", ["ept", "npt"])
SIZES = {"4K": 1, "2M": 2, "1G": 3}
# References by guest and nested levels; rows: guest's page, columns: nested pages, of 4K, 2M, 1G.
REFERENCES = {
    (4, 4): ((24, 19, 14), (19, 15, 11), (14, 11, 8)),
    (4, 5): ((29, 24, 19), (23, 19, 15), (17, 14, 11)),
    (5, 4): ((29, 23, 17), (24, 19, 14), (19, 15, 11)),
    (5, 5): ((35, 29, 23), (29, 24, 19), (23, 19, 15)),
}
SHAPES = [
    (*levels, guest, nested)
    for levels, guest, nested in product(REFERENCES, ("4K", "2M", "1G"), ("4K", "2M", "1G"))
]


class Nest:
    """A guest's page in nested tables, of any shape.

    Guest tables lie from GPA `TABLES` on, in nested pages of `tables_in` that put them at machine
    addresses from 0 on; the guest's page at a GPA of its own, in a nested page of `data_in`.
    """

    TABLES, DATA, FRAME = 0x40_0000_0000, 0x3F_C000_0000, 0x80_0000_0000
    gva = 0x12_3456_789A_BCD8 & 0x7FFF_FFFF_FFFF

    def __init__(self, kind, g=4, n=4, guest=1, tables_in=1, data_in=None):
        data_in = data_in or tables_in
        pages, self.kind, self.n = Pages(), kind, n
        self.pages = pages
        link = 7
        leaf = 7 | WB if kind == "ept" else 7
        self.gva = Nest.gva | (0x5A << 48 if g == 5 else 0)
        guest_size, data_size = PAGE << 9 * (guest - 1), PAGE << 9 * (data_in - 1)
        # The guest's frame: not aligned to more than the guest's page.
        self.gpa = Nest.DATA + (0x1234_5000 & ~(guest_size - 1))
        self.root, places = pages.chain(self.gva, self.gpa | 7, g, guest)
        self.entries = places
        last = pages.free
        self.nested = pages.take()
        for table in range(0, last, PAGE << 9 * (tables_in - 1)):
            self.back(Nest.TABLES + table, table, tables_in, link, leaf)
        for at in range(g, guest, -1):
            pages.words[places[at]] += Nest.TABLES
        self.cr3 = Nest.TABLES + self.root
        self.gpa += self.gva & (guest_size - 1)
        page = self.gpa & ~(data_size - 1)
        self.back(page, Nest.FRAME, data_in, link, leaf)
        self.maddr = Nest.FRAME + self.gpa - page

    def back(self, gpa, frame, level, link, leaf):
        _, places = self.pages.chain(gpa, frame | leaf, self.n, level, link, root=self.nested)
        return places

    @property
    def pointer(self):
        if self.kind == "npt":
            return manual.Npt(self.nested, levels=self.n)
        return manual.Ept(self.nested | self.n - 1 << 3 | 0x46)


@KINDS
@pytest.mark.parametrize(("g", "n", "guest", "nested"), SHAPES)
def test_references_and_addresses_of_every_shape(kind, g, n, guest, nested):
    nest = Nest(kind, g, n, SIZES[guest], SIZES[nested])
    control = manual.Control(la57=g == 5)
    answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer, control=control)
    row, column = SIZES[guest] - 1, SIZES[nested] - 1
    assert answer["references"] == REFERENCES[g, n][row][column]
    assert (answer["gpa"], answer["maddr"]) == (nest.gpa, nest.maddr)
    assert answer["guest_page_size"] == PAGE << 9 * row
    assert answer["nested_page_size"] == PAGE << 9 * column
    assert answer["page_size"] == PAGE << 9 * min(row, column)
    nests = [f"N{at}" for at in range(n, column, -1)]
    order = [step for at in range(g, row, -1) for step in (*nests, f"G{at}")] + nests
    assert [f"{s[0][0].upper()}{s[1]}" for s in answer["steps"]] == order


@KINDS
@pytest.mark.parametrize(("g", "n"), [(4, 4), (4, 5), (5, 4), (5, 5)])
def test_tables_and_data_in_nested_pages_of_different_sizes(kind, g, n):
    control = manual.Control(la57=g == 5)
    for guest, tables_in, data_in in product((1, 2, 3), repeat=3):
        nest = Nest(kind, g, n, guest, tables_in, data_in)
        answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer, control=control)
        assert answer["maddr"] == nest.maddr
        tables = g - guest + 1
        assert answer["references"] == tables * (n - tables_in + 2) + n - data_in + 1


@pytest.mark.parametrize("g", [4, 5])
def test_stage_2_disabled_does_not_walk(g):
    """gem5 PR 3434: a second stage that is off must not be walked."""
    for level in (1, 2, 3):
        pages = Pages()
        root, _ = pages.chain(0x7654_3210, 0x40_0000_0000 | 7, g, level)
        control = manual.Control(la57=g == 5)
        answer = agree(pages, 0x7654_3210, cr3=root, control=control)
        assert {step[0] for step in answer["steps"]} == {"guest"}
        assert answer["references"] == g - level + 1


@KINDS
def test_a_second_stage_page_larger_than_the_first_stages_takes_offset_bits_from_the_frame(kind):
    """XiangShan PR 4658: the page number is that of stage 2, then bits of the first stage's frame."""
    for guest, nested in ((1, 2), (1, 3), (2, 3)):
        nest = Nest(kind, guest=guest, tables_in=nested)
        answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer)
        size = PAGE << 9 * (guest - 1)
        assert answer["maddr"] - Nest.FRAME == nest.gpa % (PAGE << 9 * (nested - 1))
        assert (nest.gpa ^ nest.gva) & (PAGE << 9 * (nested - 1)) - size  # else it shows nothing


@KINDS
def test_stage_2_translates_every_read_of_a_guest_table(kind):
    """XiangShan PR 4551: taking any table's page away must be met, and at the table's address."""
    for at in (4, 3, 2, 1):
        nest = Nest(kind)
        gpa = Nest.TABLES + nest.entries[at]
        nest.back(gpa & ~0xFFF, 0, 1, 7, 0)
        answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer)
        assert answer["outcome"] == "NESTED_VIOLATION"
        assert answer["fault_gpa"] == gpa
        assert answer["references"] == 5 * (4 - at) + 4


@pytest.mark.parametrize(("g", "n"), [(4, 5), (5, 4)])
def test_nested_tables_are_walked_in_the_hosts_paging_mode(g, n):
    """bochs-emu/Bochs 234: not in the guest's."""
    nest = Nest("npt", g, n)
    answer = agree(
        nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer, control=manual.Control(la57=g == 5)
    )
    assert next(step[1] for step in answer["steps"] if step[0] == "nested") == n
    assert next(step[1] for step in answer["steps"] if step[0] == "guest") == g


@pytest.mark.parametrize("kind", ["ept", "npt"])
def test_a_guest_physical_address_beyond_four_levels_is_a_violation(kind):
    nest = Nest(kind)  # bit 47 is the last within
    nest.back(nest.gpa & ~0xFFF | 1 << 47, Nest.FRAME, 1, 7, 7 | (WB if kind == "ept" else 0))
    nest.pages.words[nest.entries[1]] |= 1 << 47
    control = manual.Control(maxphyaddr=52)
    answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer, control=control)
    assert answer["maddr"] == nest.maddr
    for bit in range(48, 52):
        nest = Nest(kind)
        cr3 = nest.cr3 | 1 << bit
        answer = agree(nest.pages, nest.gva, cr3=cr3, nested=nest.pointer, control=control)
        assert (answer["outcome"], answer["references"]) == ("NESTED_VIOLATION", 0)
        assert answer["fault_gpa"] == cr3 + 8 * (nest.gva >> 39)
        nest.pages.words[nest.entries[1]] |= 1 << bit
        for access in ACCESSES:
            answer = agree(
                nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer, control=control,
                access=access,
            )  # fmt: skip
            assert (answer["outcome"], answer["references"]) == ("NESTED_VIOLATION", 20)
            assert answer["fault_gpa"] == nest.gpa | 1 << bit
        five = Nest(kind, n=5)
        five.back(five.gpa & ~0xFFF | 1 << bit, Nest.FRAME, 1, 7, 7 | (WB if kind == "ept" else 0))
        five.pages.words[five.entries[1]] |= 1 << bit
        answer = agree(five.pages, five.gva, cr3=five.cr3, nested=five.pointer, control=control)
        assert answer["maddr"] == five.maddr


# --- which of two faults is told ---------------------------------------------------------------------


def faults(kind, writes_tables):
    """What can be wrong with a walk, in the order in which the walk meets it; changes of one_page."""

    def set_entry(at, change):
        def breaks(pages, guest):
            pages.words[guest.entries[at]] = change(pages.words[guest.entries[at]])

        return breaks

    def set_nested(walk, at, change):
        def breaks(pages, guest):
            place = guest.backing[walk][at]
            pages.words[place] = change(pages.words[place])

        return breaks

    wrong = (lambda e: e & ~3 | 2) if kind == "ept" else (lambda e: e | 1 << 50)
    for at in (4, 3, 2, 1):
        yield f"table {at} not mapped", set_nested(at, 1, lambda e: 0)
        yield f"table {at}'s nested entry is malformed", set_nested(at, 1, wrong)
        if writes_tables:
            yield f"table {at} read-only", set_nested(at, 1, lambda e: e & ~W)
        yield f"entry {at} not present", set_entry(at, lambda e: e & ~P)
        yield f"entry {at} has a reserved bit set", set_entry(at, lambda e: e | 1 << 50)
        if at == 1:
            yield "the guest's rights", set_entry(3, lambda e: e & ~W)
        if not writes_tables:
            yield f"entry {at} cannot be marked", set_nested(at, 1, lambda e: e & ~W)
    yield "data not mapped", set_nested(0, 2, lambda e: 0)
    yield "data's nested entry is malformed", set_nested(0, 1, wrong)
    yield "data read-only", set_nested(0, 1, lambda e: e & ~W)


@pytest.mark.parametrize("dirty", [False, True], ids=["without A/D", "with A/D"])
@KINDS
def test_of_two_faults_the_one_that_the_walk_meets_first_is_told(kind, dirty):
    """A guest's fault wins over the data's violation, and loses to one of a table page before it."""

    def told(*breaks):
        pages, guest, _ = one_page(leaf=7 | (WB if kind == "ept" else 0), marks=0, table_leaf=(
            7 | (WB if kind == "ept" else 0)
        ))  # fmt: skip
        for change in breaks:
            change(pages, guest)
        nested = manual.Npt(guest.nested)
        if kind == "ept":
            nested = manual.Ept(guest.nested | dirty << 6 | 0x1E)
        return agree(pages, guest.gva, cr3=guest.cr3, nested=nested, access="write")

    assert told()["outcome"] == "OK"
    listed = list(faults(kind, kind == "npt" or dirty))
    alone = {name: told(change) for name, change in listed}
    assert all(answer["outcome"] != "OK" for answer in alone.values())
    for (first, breaks), (second, also) in combinations(listed, 2):
        both = told(also, breaks)
        for field in ("outcome", "error_code", "exit_qualification", "exit_info", "fault_gpa"):
            assert both[field] == alone[first][field], (first, second, field)
        assert both["references"] <= alone[first]["references"], (first, second)


def test_the_guests_page_fault_comes_before_the_violation_of_its_page():
    """ept_access_test_paddr_not_present_page_fault, and the reverse."""
    pages, guest, backing = one_page()
    pages.words[backing[0][1]] = 0
    nested = manual.Ept(guest.nested | 0x5E)
    assert agree(pages, guest.gva, cr3=guest.cr3, nested=nested)["exit_qualification"] == 0x181
    pages.words[guest.entries[1]] &= ~P
    assert agree(pages, guest.gva, cr3=guest.cr3, nested=nested)["error_code"] == 4
    pages.words[backing[1][1]] = 0
    assert agree(pages, guest.gva, cr3=guest.cr3, nested=nested)["exit_qualification"] == 0x83


def test_with_ept_accessed_and_dirty_all_accesses_to_guest_tables_are_writes():
    """ept_access_test_paddr_read_only_ad_enabled, and ..._ad_disabled: by what the guest has marked."""
    for marks, access, dirty in product((0, A, A | D), ACCESSES, (False, True)):
        pages, guest, _ = one_page(marks=marks, table_leaf=1 | WB, table_at=1)
        nested = manual.Ept(guest.nested | dirty << 6 | 0x1E)
        answer = agree(pages, guest.gva, cr3=guest.cr3, nested=nested, access=access)
        allowed = not dirty and (marks == A | D or (marks == A and access != "write"))
        assert answer["exit_qualification"] == (None if allowed else 0x80 | 1 << 3 | 3)


def test_large_pages_of_either_dimension_split_at_the_smaller():
    """'Splintering': the effective page is the smaller one, whichever dimension it comes from."""
    for kind, guest, nested in product(("ept", "npt"), (1, 2, 3), (1, 2, 3)):
        nest = Nest(kind, guest=guest, tables_in=1, data_in=nested)
        answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer)
        assert answer["page_size"] == PAGE << 9 * (min(guest, nested) - 1)


@KINDS
def test_tables_outside_memory_end_the_walk_where_it_met_them(kind):
    nest = Nest(kind)
    for at in (4, 3, 2, 1):
        table = nest.pages.words[nest.entries[at]] & 0xF_FFFF_FFFF_F000
        # The nested leaf of the table points beyond memory, then the nested table itself does.
        for place, word in list(nest.pages.words.items()):
            if word & 0xF_FFFF_FFFF_F000 == table - Nest.TABLES and place >= nest.nested:
                nest.pages.words[place] = word | 1 << 45
                answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer)
                assert answer["outcome"] == "NO_MEMORY"
                assert answer["maddr"] is None
                nest.pages.words[place] = word
    for level in (4, 3, 2):
        nest = Nest(kind)
        place = nest.nested + 8 * (Nest.DATA >> (3 + 9 * level) & 511)
        if level == 4:
            data = nest.pages.words[place]
            nest.pages.words[place] = data | 1 << 46
            answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer)
            assert answer["outcome"] == "NO_MEMORY"
    # A frame may lie anywhere.
    nest = Nest(kind)
    answer = agree(nest.pages, nest.gva, cr3=nest.cr3, nested=nest.pointer)
    assert answer["maddr"] > 8 * len(nest.pages.array())


def test_memory_that_ends_in_the_middle_of_a_table():
    pages = Pages(base=(1 << 52) - 2 * PAGE)
    root = pages.take()
    pages.put(root, 0, root + PAGE | P | W | U)
    pages.free += PAGE // 2
    control = manual.Control(maxphyaddr=52)
    assert agree(pages, 255 << 30, cr3=root, control=control)["error_code"] == 4
    assert agree(pages, 256 << 30, cr3=root, control=control)["outcome"] == "NO_MEMORY"
    assert agree(pages, 511 << 30, cr3=root, control=control)["references"] == 1


def test_a_table_that_contains_itself_maps_itself():
    pages = Pages()
    root = pages.take()
    pages.put(root, 510, root | P | W)
    gva = 0xFFFF_FF7F_BFDF_E000 + 8 * 510
    answer = agree(pages, gva, cr3=root, user=False, access="write", update=True)
    assert answer["maddr"] == root + 8 * 510
    assert answer["references"] == 4
    assert answer["updates"] == {root + 8 * 510: root | P | W | A | D}
    quiet = agree(pages, gva, cr3=root, user=False, access="write")
    assert quiet["updates"] == answer["updates"]
    assert agree(pages, gva, cr3=root)["error_code"] == 5
    pages.put(root, 510, root | P | W | PS)
    assert ask(pages, gva, cr3=root)[0]["error_code"] == 13
    pages.put(root, 510, root | P | W | U | XD)
    assert agree(pages, gva, cr3=root, access="fetch")["error_code"] == 0x15


@KINDS
@pytest.mark.parametrize("n", [4, 5])
def test_bits_of_cr3_outside_the_address_do_not_matter_to_nested_tables_either(kind, n):
    nest = Nest(kind, n=n)
    for bit in (*range(12), *range(52, 64)):
        cr3 = nest.cr3 | 1 << bit
        answer = agree(nest.pages, nest.gva, cr3=cr3, nested=nest.pointer)
        assert (answer["maddr"], answer["references"]) == (nest.maddr, 4 * (n + 1) + n)
