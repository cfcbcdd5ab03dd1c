"""Every combination of rights, level, access and setting of Intel's nested tables.

Expectations are written out from Intel SDM vol. 3, "EPT-Induced VM Exits", "Accessed and Dirty Flags
for EPT", "Exit Qualification for EPT Violations"; the lists of cases are those of the EPT tests in
kvm-unit-tests (x86/vmx_tests.c), whose names the tests give.
"""

from itertools import product

import numpy as np
import pytest
from exact import (
    ACCESSES,
    BITS,
    EPT_A,
    EPT_D,
    PAGE,
    PS,
    WB,
    A,
    D,
    Pages,
    agree,
    assert_same,
    few,
    identity,
    one_page,
    package,
)  # fmt: skip

import mmu
from mmu.testing import reference as manual

OK, VIOLATION, MISCONFIGURATION = (
    int(mmu.Outcome.OK),
    int(mmu.Outcome.NESTED_VIOLATION),
    int(mmu.Outcome.NESTED_MISCONFIGURATION),
)
RWX = range(8)
SIZES = {1: "4K", 2: "2M", 3: "1G"}
DIRTY = pytest.mark.parametrize("dirty", [False, True], ids=["without A/D", "with A/D"])
EXECUTE_ONLY = pytest.mark.parametrize("execute_only", [False, True], ids=["R or RX", "X alone"])
LEVELS = pytest.mark.parametrize("levels", [4, 5], ids=["4-level", "5-level"])
NEEDS = {"read": 1, "write": 2, "fetch": 4}


def eptp(root, dirty, levels=4):
    return root | levels - 1 << 3 | dirty << 6 | 6


def bad(rwx, execute_only):
    return rwx in {2, 6} or (rwx == 4 and not execute_only)


class Forest:
    """Guest-physical pages of every size below entries of every combination of rights."""

    def __init__(self, levels):
        pages = Pages()
        self.cr3 = identity(pages)
        last = pages.free
        self.root = pages.take()
        four = self.root
        if levels == 5:
            four = pages.take()
            pages.put(self.root, 0, four | 7)
        # The guest's tables: mapped to themselves, with all rights.
        table = four
        for level in (4, 3, 2):
            pages.put(table, 0, (below := pages.take()) | 7)
            table = below
            assert level
        for page in range(last // PAGE):
            pages.put(table, page, PAGE * page | 7 | WB | EPT_A | EPT_D)
        cases = []  # gpa, level of the leaf, RWX of each entry from the root down
        for c4 in RWX:
            pages.put(four, 8 + c4, (pointers := pages.take()) | c4)
            for c3 in RWX:
                pages.put(pointers, c3, (directory := pages.take()) | c3)
                pages.put(pointers, c3 + 8, c3 << 30 | PS | WB | c3)
                cases.append((8 + c4 << 39 | c3 + 8 << 30, 3, (c4, c3)))
                for c2 in RWX:
                    pages.put(directory, c2, (table := pages.take()) | c2)
                    pages.put(directory, c2 + 8, c2 << 21 | PS | WB | c2)
                    cases.append((8 + c4 << 39 | c3 << 30 | c2 + 8 << 21, 2, (c4, c3, c2)))
                    for c1 in RWX:
                        gpa = 8 + c4 << 39 | c3 << 30 | c2 << 21 | c1 << 12
                        pages.put(table, c1, c1 << 12 | WB | c1)
                        cases.append((gpa, 1, (c4, c3, c2, c1)))
        self.cases = few(cases, lambda case: case[2], 7)
        self.memory = pages.memory()

    def named(self, case):
        gpa, level, path = self.cases[case]
        return f"{SIZES[level]} page at {gpa:#x}, RWX from the root: {path}"


@pytest.fixture(scope="module", params=[4, 5], ids=["4-level", "5-level"])
def forest(request):
    return request.param, Forest(request.param)


def expected(path, access, execute_only):
    """Outcome, exit qualification and entries read, for the data of one path of entries."""
    together = 7
    needs = NEEDS[access]
    for depth, rwx in enumerate(path, 1):
        if rwx == 0:
            return VIOLATION, needs | 0x180, depth
        if bad(rwx, execute_only):
            return MISCONFIGURATION, 0, depth
        together &= rwx
    if not together & needs:
        return VIOLATION, needs | together << 3 | 0x180, len(path)
    return OK, 0, len(path)


@EXECUTE_ONLY
@DIRTY
def test_every_combination_of_rights_of_every_level_for_data(forest, dirty, execute_only):
    levels, forest = forest
    gvas = np.array([case[0] | 0x123 for case in forest.cases], np.uint64)
    nested = mmu.Ept(eptp(forest.root, dirty, levels), execute_only)
    above = 2 * (levels + 1) + levels - 4  # guest tables, and the data's level 5
    for access in ACCESSES:
        for user in (True, False):
            t = mmu.translate_many(
                forest.memory, gvas, cr3=forest.cr3, nested=nested, access=access, user=user
            )
            told = np.array([expected(path, access, execute_only) for _, _, path in forest.cases])
            assert_same(forest.named, t.outcome, told[:, 0])
            assert_same(forest.named, t.exit_qualification, told[:, 1])
            assert_same(forest.named, t.references, told[:, 2] + above)
            fine = told[:, 0] == OK
            size = np.array([PAGE << 9 * (level - 1) for _, level, _ in forest.cases])
            frame = np.array([path[-1] for _, _, path in forest.cases]) * size
            place = frame + (gvas.astype(np.int64) & size - 1)
            assert_same(forest.named, t.maddr.view(np.int64), np.where(fine, place, -1))
            assert_same(forest.named, t.nested_page_size, np.where(fine, size, 0))
            assert_same(forest.named, t.page_size, np.where(fine, size, 0))
            assert np.all(t.guest_page_size == 1 << 30)
            assert_same(forest.named, t.gpa, gvas)
            assert_same(forest.named, t.fault_gpa, np.where(fine, np.uint64((1 << 64) - 1), gvas))
            assert not t.error_code.any()
            assert not t.exit_info.any()


@LEVELS
def test_every_memory_type_of_every_page_size(levels):
    for level, kind, dirty in product((1, 2, 3), range(8), (False, True)):
        pages, guest, _ = one_page(levels, level, leaf=7 | kind << 3)
        nested = manual.Ept(eptp(guest.nested, dirty, levels))
        answer = agree(pages, guest.gva, cr3=guest.cr3, nested=nested)
        good = kind in {0, 1, 4, 5, 6}
        assert answer["outcome"] == ("OK" if good else "NESTED_MISCONFIGURATION"), (level, kind)
        assert answer["exit_qualification"] is None
        assert answer["fault_gpa"] == (None if good else guest.gpa)


@DIRTY
@EXECUTE_ONLY
def test_every_combination_of_rights_of_the_page_that_holds_a_guest_table(dirty, execute_only):
    """ept_access_test_paddr_*: R or W of the table's page, by what the guest has marked."""
    for at, rwx, marks in product((4, 3, 2, 1), RWX, (0, A, A | D)):
        pages, guest, _ = one_page(marks=marks, table_leaf=rwx | WB if rwx else 0, table_at=at)
        memory = pages.memory()
        nested = manual.Ept(eptp(guest.nested, dirty), execute_only)
        for access, user in product(ACCESSES, (True, False)):
            answer = mmu.translate(
                memory, guest.gva, cr3=guest.cr3, nested=package(nested), access=access, user=user
            )
            name = (at, rwx, marks, access, user)
            needs_mark = not marks & A or (at == 1 and access == "write" and not marks & D)
            table_gpa = guest.tables[at] + 8 * (guest.gva >> (3 + 9 * at) & 511)
            refs = 5 * (4 - at) + 4
            if rwx == 0:
                kinds = 3 if dirty else 1
                assert answer.outcome == VIOLATION, name
                assert answer.exit_qualification == kinds | 0x80, name
            elif bad(rwx, execute_only):
                assert answer.outcome == MISCONFIGURATION, name
                assert answer.exit_qualification is None
            elif not rwx & 1:
                assert answer.outcome == VIOLATION, name
                kinds = 3 if dirty else 1
                assert answer.exit_qualification == kinds | rwx << 3 | 0x80, name
            elif not rwx & 2 and (dirty or needs_mark):
                assert answer.outcome == VIOLATION, name
                assert answer.exit_qualification == 3 | rwx << 3 | 0x80, name
                refs += not dirty  # the entry was read, and could not be marked
            else:
                assert answer.outcome == OK, name
                refs = 24
            if answer.outcome != OK:
                assert (answer.fault_gpa, answer.gpa) == (table_gpa, None), name
                assert answer.guest_page_size is None
                assert answer.maddr is None
            assert answer.references == refs, name


def test_the_right_to_fetch_is_not_needed_to_read_a_guest_table():
    for at, access in product((4, 3, 2, 1), ACCESSES):
        pages, guest, _ = one_page(table_leaf=3 | WB, table_at=at)
        nested = manual.Ept(eptp(guest.nested, dirty=True))
        assert agree(pages, guest.gva, cr3=guest.cr3, nested=nested, access=access)["maddr"]


@LEVELS
@DIRTY
def test_accessed_and_dirty_are_kept_where_the_pointer_says_so(levels, dirty):
    for level, access in product((1, 2, 3), ACCESSES):
        pages, guest, places = one_page(levels, level, marks=0)
        nested = manual.Ept(eptp(guest.nested, dirty, levels))
        answer = agree(pages, guest.gva, cr3=guest.cr3, nested=nested, access=access, update=True)
        assert answer["outcome"] == "OK"
        marked = {place: word ^ pages.words[place] for place, word in answer["updates"].items()}
        told = {guest.entries[at]: A for at in (4, 3, 2, 1)}
        told[guest.entries[1]] |= D if access == "write" else 0
        if dirty:
            for walk, found in places.items():
                for at, place in found.items():
                    leaf = at == min(found)
                    written = walk > 0 or access == "write"
                    told[place] = EPT_A | (EPT_D if leaf and written else 0)
        assert marked == told


def test_a_nested_page_is_marked_only_once_its_rights_have_passed():
    for rwx, access in product((1, 3, 5, 4), ACCESSES):
        pages, guest, places = one_page(leaf=rwx | WB)
        nested = manual.Ept(eptp(guest.nested, dirty=True))
        answer = agree(pages, guest.gva, cr3=guest.cr3, nested=nested, access=access)
        passed = bool(rwx & NEEDS[access])
        assert (answer["outcome"] == "OK") == passed
        assert (places[0][1] in answer["updates"]) == passed
        assert places[0][2] in answer["updates"]  # an entry above it was used all the same


def reserved(entry, level, width, gbpages):
    """Whether a present EPT entry of all rights has a bit set that must not be set."""
    if entry & sum(1 << bit for bit in range(width, 52)):
        return True
    if level > 1 and not entry & PS:
        return bool(entry & 0x78)
    if level > 3 or (level == 3 and not gbpages):
        return True
    return bool(entry & {1: 0, 2: 0x1F_F000, 3: 0x3FFF_F000}[level]) or entry >> 3 & 7 in {2, 3, 7}


@LEVELS
@pytest.mark.parametrize("page", [1, 2, 3], ids=["4K", "2M", "1G"])
def test_every_bit_of_every_nested_entry_is_reserved_or_not(levels, page):
    """ept_access_test_reserved_bits, ept_access_test_ignored_bits."""
    pages, guest, places = one_page(levels, page)
    words = pages.array()
    memory = mmu.Memory.from_words(words)
    for at, place in places[0].items():
        for bit in BITS[3:]:
            entry = pages.words[place] ^ 1 << bit
            words[place // 8] = entry
            for width, gbpages in product((41, 46, 52), (False, True)):
                t = mmu.translate(
                    memory, guest.gva, cr3=guest.cr3,
                    nested=mmu.Ept(eptp(guest.nested, bool(bit % 2), levels), gbpages=gbpages),
                    control=mmu.Control(maxphyaddr=width),
                )  # fmt: skip
                name = f"bit {bit} of level {at}, {width} bits wide, 1 GiB pages: {gbpages}"
                wrong = reserved(entry, at, width, gbpages)
                if not wrong and page == 3 and at > 3 and not gbpages:
                    continue  # what is below is refused
                assert (t.outcome == MISCONFIGURATION) == wrong, name
                if wrong:
                    first = at == 5  # every walk begins there, and a table's is the first
                    gpa = guest.tables[4] + 8 * (guest.gva >> 39) if first else guest.gpa
                    assert (t.fault_gpa, t.gpa) == (gpa, None if first else gpa), name
                    assert t.references == (1 if first else 4 * (levels + 1) + levels - at + 1)
        words[place // 8] = pages.words[place]


def test_every_bit_of_every_nested_entry_says_what_the_manual_says_it_does():
    for level, levels in product((1, 2, 3), (4, 5)):
        pages, guest, places = one_page(levels, level)
        for at, bit in product(range(level, levels + 1), BITS):
            place = places[0][at]
            before = pages.words[place]
            pages.words[place] = before ^ 1 << bit
            for width, gbpages in ((41, False), (52, True)):
                control = manual.Control(maxphyaddr=width)
                nested = manual.Ept(eptp(guest.nested, bit % 2 == 0, levels), gbpages=gbpages)
                agree(
                    pages, guest.gva, cr3=guest.cr3, nested=nested, control=control,
                    access=ACCESSES[bit % 3],
                )  # fmt: skip
            pages.words[place] = before
