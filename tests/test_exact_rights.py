"""Every combination of rights, level, access, privilege and control bit of x86-64 tables.

The expectation of each test is written out from the rules, apart from `mmu.testing.reference`: Intel SDM
vol. 3, "Determination of Access Rights", "Page-Fault Exceptions", formats of entries.
"""

from itertools import product

import numpy as np
import pytest
from exact import (
    ACCESSES,
    BITS,
    INTERPRETED,
    PAGE,
    PS,
    XD,
    A,
    D,
    P,
    Pages,
    U,
    W,
    agree,
    assert_same,
    controls,
    few,
    package,
)  # fmt: skip

import mmu
from mmu.testing import reference as manual

OK, FAULT = int(mmu.Outcome.OK), int(mmu.Outcome.PAGE_FAULT)
# What one entry grants: writable, user's, executable.
GRANTS = list(product((False, True), repeat=3))
SIZES = {1: "4K", 2: "2M", 3: "1G"}


def bits(grant):
    writable, user, executable = grant
    return P | writable * W | user * U | (not executable) * XD


def refused(writable, user_page, executable, access, user, control):
    """Whether a page with these rights refuses the access."""
    if access == "fetch":
        if not executable:
            return True
        return not user_page if user else control.smep and user_page
    if user:
        return not user_page or (access == "write" and not writable)
    if user_page and control.smap and not control.ac:
        return True
    return access == "write" and control.wp and not writable


def code(access, user, control, present=True, reserved=False):
    """The error code of a page fault."""
    fetch = access == "fetch" and (control.nxe or control.smep)
    return present | (access == "write") << 1 | user << 2 | reserved << 3 | fetch << 4


class Forest:
    """Pages of every size below entries of every combination of rights, one of each."""

    def __init__(self):
        pages = Pages()
        self.root5, self.root = pages.take(), pages.take()
        cases = []  # gva, level of the leaf, index into GRANTS from the root down, leaf's address
        for five, grant in enumerate(GRANTS):
            pages.put(self.root5, five, self.root | bits(grant))
        for i4, grant4 in enumerate(GRANTS):
            pointers = pages.take()
            pages.put(self.root, i4, pointers | bits(grant4))
            for i3, grant3 in enumerate(GRANTS):
                directory = pages.take()
                pages.put(pointers, i3, directory | bits(grant3))
                pages.put(pointers, i3 + 8, i3 << 30 | PS | bits(grant3))
                cases.append((i4 << 39 | i3 + 8 << 30, 3, (i4, i3), pointers + 8 * (i3 + 8)))
                for i2, grant2 in enumerate(GRANTS):
                    table = pages.take()
                    pages.put(directory, i2, table | bits(grant2))
                    pages.put(directory, i2 + 8, i2 << 21 | PS | bits(grant2))
                    place = directory + 8 * (i2 + 8)
                    cases.append((i4 << 39 | i3 << 30 | i2 + 8 << 21, 2, (i4, i3, i2), place))
                    for i1, grant1 in enumerate(GRANTS):
                        gva = i4 << 39 | i3 << 30 | i2 << 21 | i1 << 12
                        pages.put(table, i1, i1 << 12 | bits(grant1))
                        cases.append((gva, 1, (i4, i3, i2, i1), table + 8 * i1))
        self.cases = few(cases, lambda case: case[2], 7)
        self.words = pages.array()
        self.tables = pages

    def named(self, case):
        gva, level, path, _ = self.cases[case]
        rights = " > ".join(
            "".join(n if g else "-" for n, g in zip("WUX", GRANTS[i], strict=True)) for i in path
        )
        return f"{SIZES[level]} page at {gva:#x}, from the root: {rights}"

    def effective(self):
        """[case, 3]: what all entries grant together."""
        return np.array([np.all([GRANTS[i] for i in path], 0) for _, _, path, _ in self.cases])


@pytest.fixture(scope="module")
def forest():
    return Forest()


def told(effective, access, user, control):
    """Outcome of each case, by the rights that its entries grant together."""
    by_rights = np.array(
        [FAULT if refused(*grant, access, user, control) else OK for grant in GRANTS]
    )
    return by_rights[effective @ np.array([4, 2, 1])]


@pytest.mark.parametrize("user", [True, False], ids=["user", "supervisor"])
@pytest.mark.parametrize("access", ACCESSES)
def test_every_combination_of_rights_under_every_control_bit(forest, access, user):
    gvas = np.array([case[0] | 0x123 for case in forest.cases], np.uint64)
    level = np.array([case[1] for case in forest.cases])
    effective = forest.effective()
    # Depth at which the first entry with XD stands: reserved there without NXE.
    first_xd = np.array(
        [
            next((depth for depth, i in enumerate(path, 1) if not GRANTS[i][2]), 0)
            for _, _, path, _ in forest.cases
        ]
    )
    memory = mmu.Memory.from_words(forest.words)
    for control in controls():
        t = mmu.translate_many(
            memory, gvas, cr3=forest.root, access=access, user=user, control=package(control)
        )
        outcome = told(effective, access, user, control)
        error = np.where(outcome == FAULT, code(access, user, control), 0)
        depth = 5 - level
        if not control.nxe:
            outcome[first_xd > 0] = FAULT
            error[first_xd > 0] = code(access, user, control, reserved=True)
            depth = np.where(first_xd > 0, first_xd, depth)

        def named(case, control=control):
            return f"{forest.named(case)}; {access}, {control}"

        assert_same(named, t.outcome, outcome)
        assert_same(named, t.error_code, error)
        assert_same(named, t.references, depth)
        fine = outcome == OK
        size = np.int64(PAGE) << 9 * (level - 1)
        assert_same(named, t.page_size, np.where(fine, size, 0))
        frame = np.array([(case[2][-1]) for case in forest.cases]) * size
        offset = gvas.astype(np.int64) & size - 1
        assert_same(named, t.maddr.view(np.int64), np.where(fine, frame + offset, -1))
        assert_same(named, t.gpa, t.maddr)


@pytest.mark.parametrize("user", [True, False], ids=["user", "supervisor"])
@pytest.mark.parametrize("access", ACCESSES)
def test_a_fifth_level_grants_or_denies_as_the_others_do(forest, access, user):
    gvas = np.array([case[0] for case in forest.cases], np.uint64)
    memory = mmu.Memory.from_words(forest.words)
    control = manual.Control(wp=False, smep=True, smap=True, la57=True)
    for five, grant in enumerate(GRANTS):
        t = mmu.translate_many(
            memory, gvas | np.uint64(five << 48), cr3=forest.root5, access=access, user=user,
            control=package(control),
        )  # fmt: skip
        effective = forest.effective() & np.array(grant)
        assert_same(forest.named, t.outcome, told(effective, access, user, control))
        assert_same(forest.named, t.references, [6 - case[1] for case in forest.cases])


@pytest.mark.parametrize("user", [True, False], ids=["user", "supervisor"])
@pytest.mark.parametrize("access", ACCESSES)
def test_a_page_is_marked_when_its_rights_have_passed_and_a_table_when_it_is_used(
    forest, access, user
):
    control = manual.Control(smep=True, smap=True)
    words = forest.words.copy()
    gvas = np.array([case[0] for case in forest.cases], np.uint64)
    mmu.translate_many(
        mmu.Memory.from_words(words), gvas, cr3=forest.root, access=access, user=user,
        control=package(control), update=True,
    )  # fmt: skip
    passed = told(forest.effective(), access, user, control) == OK
    leaves = np.array([case[3] // 8 for case in forest.cases])
    mark = A | D if access == "write" else A
    assert_same(forest.named, words[leaves] & np.uint64(A | D), np.where(passed, mark, 0))
    if not INTERPRETED:
        below = words.copy()
        below[leaves] = 0
        below[forest.root5 // 8 : forest.root5 // 8 + 512] = 0
        used = below[below != 0]
        assert np.all(used & np.uint64(A | D) == A)
    assert np.array_equal(words & ~np.uint64(A | D), forest.words)


def changed_entries(levels, page, at, change):
    """Chains of tables for a page each, whose entry of level `at` is changed in 64 ways.

    Returns the pages, the root, the addresses and the changed entries; the way is the root's index.
    """
    pages = Pages(base=1 << 31)
    root = pages.take()
    gvas = np.arange(64, dtype=np.uint64) << np.uint64(3 + 9 * levels)
    entries = []
    for way, gva in enumerate(gvas.tolist()):
        _, places = pages.chain(gva, 0x4000_0000 | P | W | U, levels, page, root=root)
        pages.words[places[at]] = change(pages.words[places[at]], way)
        entries.append(pages.words[places[at]])
    return pages, root, gvas, entries


LEVELS = pytest.mark.parametrize("levels", [4, 5], ids=["4-level", "5-level"])
PAGES = pytest.mark.parametrize("page", [1, 2, 3], ids=["4K", "2M", "1G"])


@PAGES
@LEVELS
@pytest.mark.parametrize("user", [True, False], ids=["user", "supervisor"])
def test_what_else_an_entry_that_is_not_present_holds_does_not_matter(levels, page, user):
    for at in range(page, levels + 1):
        for change in (
            lambda _, way: (1 << way) & ~1,
            lambda _, way: ((1 << 64) - 1 ^ 1 << way) & ~1,
        ):
            pages, root, gvas, _ = changed_entries(levels, page, at, change)
            for access, nxe, smep in product(ACCESSES, (False, True), (False, True)):
                control = manual.Control(
                    nxe=nxe, smep=smep, smap=True, la57=levels == 5, maxphyaddr=36
                )
                t = mmu.translate_many(
                    pages.memory(), gvas[list(BITS)], cr3=root, access=access,
                    user=user, control=package(control),
                )  # fmt: skip
                name = f"level {at} of {levels}, {access}, {control}"
                assert np.all(t.outcome == FAULT), name
                assert np.all(t.error_code == code(access, user, control, present=False)), name
                assert np.all(t.references == levels - at + 1), name


def reserved(entry, level, page, control):
    """Whether a present entry, of a table or of a page, has a bit set that must not be set."""
    no_address = sum(1 << bit for bit in range(control.maxphyaddr, 52))
    if entry & no_address or (entry & XD and not control.nxe):
        return True
    if level == 1 or not page:
        return False
    within = {2: 0x1F_E000, 3: 0x3FFF_E000}  # frame bits, but that of PAT
    too_large = level > 3 or (level == 3 and not control.gbpages)
    return too_large or bool(entry & within[level])


@PAGES
@LEVELS
def test_every_bit_of_every_entry_is_reserved_or_not(levels, page):
    widths = (32, 36, 39, 40, 46, 48, 51, 52) if not INTERPRETED else (40,)
    for at in range(page, levels + 1):
        pages, root, gvas, entries = changed_entries(
            levels, page, at, lambda entry, way: (entry ^ 1 << way) | P
        )
        memory, depth = pages.memory(), levels - at + 1
        for width, nxe, gbpages in product(widths, (False, True), (False, True)):
            control = manual.Control(nxe=nxe, gbpages=gbpages, maxphyaddr=width, la57=levels == 5)
            t = mmu.translate_many(memory, gvas, cr3=root, control=package(control))
            found = (t.outcome == FAULT) & (t.error_code == 0b1101) & (t.references == depth)
            expected = [
                reserved(entry, at, at == 1 or bool(entry & PS), control) for entry in entries
            ]

            def named(way, at=at, control=control):
                return f"bit {way} of level {at}, {control}"

            assert_same(named, found, expected)


@PAGES
def test_every_bit_of_every_entry_says_what_the_manual_says_it_does(page):
    """Flip each bit of each entry of one chain of tables; the whole answer must be the manual's."""
    gva = 0x7F12_3456_7ABC
    for bit in BITS:
        for at in range(page, 6):
            pages = Pages()
            root, places = pages.chain(gva, 0x40_0000_0000 | P | W | U, 5, page)
            pages.words[places[at]] ^= 1 << bit
            for width in (40, 52):
                control = manual.Control(la57=True, nxe=bit != 63, maxphyaddr=width)
                agree(pages, gva, cr3=root, control=control, access=ACCESSES[bit % 3])


def test_pat_is_no_address_bit_of_a_large_page():
    for level in (2, 3):
        pages = Pages()
        root, _ = pages.chain(0x5000, 0x40_0000_1000 | P | W | U, 4, level)
        for gva in (0x5123, 0x6123):
            assert agree(pages, gva, cr3=root)["maddr"] == 0x40_0000_0000 + gva


@pytest.mark.parametrize(("la57", "top"), [(False, 47), (True, 56)], ids=["4-level", "5-level"])
def test_an_address_is_canonical_if_the_bits_above_its_top_one_equal_it(la57, top):
    control = mmu.Control(la57=la57)
    memory = mmu.Memory.from_words(np.zeros(512, np.uint64))
    for bit in range(top, 64):
        for sign in (0, (1 << 64) - (1 << top)):
            gva = sign ^ 1 << bit
            t = mmu.translate(memory, gva, cr3=0, control=control)
            canonical = top == 63 or (gva >> top in {0, (1 << 64 - top) - 1})
            assert (t.outcome == mmu.Outcome.NOT_CANONICAL) == (not canonical), hex(gva)
            assert t.references == (1 if canonical else 0)
    for gva in (0, (1 << top) - 1, (1 << 64) - (1 << top), (1 << 64) - 1, -(1 << top), -1):
        assert mmu.translate(memory, gva, cr3=0, control=control).outcome == FAULT


def test_bits_of_cr3_outside_the_address_do_not_matter():
    pages = Pages()
    root, _ = pages.chain(0x5000, 0x7000 | P | W | U)
    for bit in (*range(12), *range(52, 64)):
        assert agree(pages, 0x5000, cr3=root | 1 << bit)["maddr"] == 0x7000
    for bit in range(20, 52):
        assert agree(pages, 0x5000, cr3=root | 1 << bit)["outcome"] == "NO_MEMORY"
