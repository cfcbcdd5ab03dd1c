"""Every combination of rights, level, access and setting of AMD's nested tables.

Expectations are written out from AMD64 APM vol. 2, "Nested Paging"; the codes by name are those that
kvm-unit-tests (x86/svm_npt.c) expects of a processor.
"""

from itertools import product

import numpy as np
import pytest
from exact import (
    ACCESSES,
    BITS,
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
    few,
    identity,
    one_page,
    package,
)  # fmt: skip

import mmu
from mmu.testing import reference as manual

OK, VIOLATION = int(mmu.Outcome.OK), int(mmu.Outcome.NESTED_VIOLATION)
ALL = P | W | U
FINAL, TABLE = 1 << 32, 1 << 33
GRANTS = list(product((False, True), repeat=3))  # writable, user's, executable
LEVELS = pytest.mark.parametrize("levels", [4, 5], ids=["4-level", "5-level"])
NXE = pytest.mark.parametrize("nxe", [False, True], ids=["host without NX", "host with NX"])


def bits(grant):
    writable, user, executable = grant
    return P | writable * W | user * U | (not executable) * XD


def npt_page(levels=4, level=1, leaf=ALL, marks=0, table_leaf=ALL, table_at=None):
    return one_page(levels, level, leaf, marks, table_leaf, table_at, link=ALL)


class Forest:
    """Guest-physical pages of every size below entries of every combination of rights."""

    def __init__(self, levels):
        pages = Pages()
        self.cr3 = identity(pages)
        last = pages.free
        self.root = four = pages.take()
        if levels == 5:
            pages.put(self.root, 0, (four := pages.take()) | ALL)
        table = four
        for _ in range(3):
            pages.put(table, 0, (below := pages.take()) | ALL)
            table = below
        for page in range(last // PAGE):
            pages.put(table, page, PAGE * page | ALL)
        cases = []  # gpa, level of the leaf, index into GRANTS from the root down
        for c4, grant4 in enumerate(GRANTS):
            pages.put(four, 8 + c4, (pointers := pages.take()) | bits(grant4))
            for c3, grant3 in enumerate(GRANTS):
                pages.put(pointers, c3, (directory := pages.take()) | bits(grant3))
                pages.put(pointers, c3 + 8, c3 << 30 | PS | bits(grant3))
                cases.append((8 + c4 << 39 | c3 + 8 << 30, 3, (c4, c3)))
                for c2, grant2 in enumerate(GRANTS):
                    pages.put(directory, c2, (table := pages.take()) | bits(grant2))
                    pages.put(directory, c2 + 8, c2 << 21 | PS | bits(grant2))
                    cases.append((8 + c4 << 39 | c3 << 30 | c2 + 8 << 21, 2, (c4, c3, c2)))
                    for c1, grant1 in enumerate(GRANTS):
                        pages.put(table, c1, c1 << 12 | bits(grant1))
                        gpa = 8 + c4 << 39 | c3 << 30 | c2 << 21 | c1 << 12
                        cases.append((gpa, 1, (c4, c3, c2, c1)))
        self.cases = few(cases, lambda case: case[2], 7)
        self.memory = pages.memory()

    def named(self, case):
        gpa, level, path = self.cases[case]
        return f"page of level {level} at {gpa:#x}, from the root: {[GRANTS[i] for i in path]}"


@pytest.fixture(scope="module", params=[4, 5], ids=["4-level", "5-level"])
def forest(request):
    return request.param, Forest(request.param)


def expected(path, access, nxe):
    """Outcome, EXITINFO1 and entries read, for the data of one path of entries."""
    code = FINAL | 4 | (access == "write") << 1 | (access == "fetch" and nxe) << 4
    for depth, grant in enumerate(path, 1):
        if not nxe and not GRANTS[grant][2]:
            return VIOLATION, code | 9, depth
    writable, user, executable = np.all([GRANTS[grant] for grant in path], 0)
    denied = not user or (access == "write" and not writable)
    if denied or (access == "fetch" and not executable):
        return VIOLATION, code | 1, len(path)
    return OK, 0, len(path)


@NXE
def test_every_combination_of_rights_of_every_level_for_data(forest, nxe):
    levels, forest = forest
    gvas = np.array([case[0] | 0x123 for case in forest.cases], np.uint64)
    above = 2 * (levels + 1) + levels - 4
    for access in ACCESSES:
        told = np.array([expected(path, access, nxe) for _, _, path in forest.cases])
        # Neither the guest's privilege nor its control bits matter: it may do everything.
        for user, wp in ((True, True), (False, True), (False, False)):
            t = mmu.translate_many(
                forest.memory, gvas, cr3=forest.cr3, nested=mmu.Npt(forest.root, nxe, levels),
                access=access, user=user, control=mmu.Control(wp=wp, nxe=not nxe),
            )  # fmt: skip
            assert_same(forest.named, t.outcome, told[:, 0])
            assert_same(forest.named, t.exit_info, told[:, 1].astype(np.uint64))
            assert_same(forest.named, t.references, told[:, 2] + above)
            fine = told[:, 0] == OK
            size = np.array([PAGE << 9 * (level - 1) for _, level, _ in forest.cases])
            frame = np.array([path[-1] for _, _, path in forest.cases]) * size
            place = frame + (gvas.astype(np.int64) & size - 1)
            none = np.uint64((1 << 64) - 1)
            assert_same(forest.named, t.maddr, np.where(fine, place.astype(np.uint64), none))
            assert_same(forest.named, t.nested_page_size, np.where(fine, size, 0))
            assert_same(forest.named, t.fault_gpa, np.where(fine, none, gvas))
            assert not t.exit_qualification.any()


@NXE
def test_a_guest_table_is_always_written_by_a_user(nxe):
    for at, grant, marks in product((4, 3, 2, 1), GRANTS, (0, A, A | D)):
        pages, guest, backing = npt_page(marks=marks, table_leaf=bits(grant), table_at=at)
        for access, user in product(ACCESSES, (True, False)):
            answer = agree(
                pages, guest.gva, cr3=guest.cr3, nested=manual.Npt(guest.nested, nxe),
                access=access, user=user,
            )  # fmt: skip
            writable, users, executable = grant
            code = 0xF if not nxe and not executable else 0 if writable and users else 7
            assert answer["exit_info"] == (TABLE | code if code else None), (at, grant, access)
            assert (answer["outcome"] == "OK") == (code == 0)
            place = backing[at][1]
            assert (place in answer["updates"]) == (code == 0)
            if code == 0:
                assert answer["updates"][place] == pages.words[place] | A | D


# Name in kvm-unit-tests, what becomes of which entry, access, EXITINFO1.
CODES = [
    ("npt_np", 0, 1, lambda entry: 0, "read", 0x1_0000_0004),
    ("npt_np write", 0, 1, lambda entry: 0, "write", 0x1_0000_0006),
    ("npt_np fetch", 0, 1, lambda entry: 0, "fetch", 0x1_0000_0014),
    ("npt_np pfwalk", 1, 1, lambda entry: 0, "read", 0x2_0000_0006),
    ("npt_nx", 0, 1, lambda entry: entry | XD, "fetch", 0x1_0000_0015),
    ("npt_us", 0, 1, lambda entry: entry & ~U, "read", 0x1_0000_0005),
    ("npt_rw", 0, 1, lambda entry: entry & ~W, "write", 0x1_0000_0007),
    ("npt_rw_pfwalk", 4, 1, lambda entry: entry & ~W, "read", 0x2_0000_0007),
    ("npt_rsvd_pfwalk", 4, 4, lambda entry: entry | PS, "read", 0x2_0000_000F),
    ("npt_rsvd", 0, 2, lambda entry: entry | 1 << 50, "read", 0x1_0000_000D),
    ("npt_rsvd fetch", 0, 2, lambda entry: entry | 1 << 50, "fetch", 0x1_0000_001D),
    ("npt_rsvd write", 0, 2, lambda entry: entry | 1 << 50, "write", 0x1_0000_000F),
]


@pytest.mark.parametrize(
    ("walk", "at", "change", "access", "info"), [c[1:] for c in CODES], ids=[c[0] for c in CODES]
)
@pytest.mark.parametrize("user", [True, False], ids=["user", "supervisor"])
def test_the_codes_that_kvm_unit_tests_expect(walk, at, change, access, info, user):
    pages, guest, backing = npt_page()
    pages.words[backing[walk][at]] = change(pages.words[backing[walk][at]])
    answer = agree(
        pages, guest.gva, cr3=guest.cr3, nested=manual.Npt(guest.nested), access=access, user=user
    )
    assert answer["exit_info"] == info
    first = guest.tables[4] + 8 * (guest.gva >> 39)
    last = guest.tables[1] + 8 * (guest.gva >> 12 & 511)
    assert answer["fault_gpa"] == {0: guest.gpa, 1: last, 4: first}[walk]


@LEVELS
def test_accessed_and_dirty_are_kept_in_every_entry_used(levels):
    for level, access in product((1, 2, 3), ACCESSES):
        pages, guest, backing = npt_page(levels, level)
        answer = agree(
            pages, guest.gva, cr3=guest.cr3, nested=manual.Npt(guest.nested, levels=levels),
            access=access, update=True,
        )  # fmt: skip
        marked = {place: word ^ pages.words[place] for place, word in answer["updates"].items()}
        told = {guest.entries[at]: A for at in (4, 3, 2, 1)}
        told[guest.entries[1]] |= D if access == "write" else 0
        for walk, found in backing.items():
            for at, place in found.items():
                written = at == min(found) and (walk > 0 or access == "write")
                told[place] = A | D if written else A
        assert marked == told


def test_a_nested_page_is_marked_only_once_its_rights_have_passed():
    for grant, access in product(GRANTS, ACCESSES):
        pages, guest, backing = npt_page(leaf=bits(grant))
        answer = agree(pages, guest.gva, cr3=guest.cr3, nested=manual.Npt(guest.nested))
        answer = agree(
            pages, guest.gva, cr3=guest.cr3, nested=manual.Npt(guest.nested), access=access
        )
        assert (backing[0][1] in answer["updates"]) == (answer["outcome"] == "OK")
        assert backing[0][2] in answer["updates"]


def reserved(entry, level, width, nxe, gbpages):
    if entry & sum(1 << bit for bit in range(width, 52)) or (entry & XD and not nxe):
        return True
    if level == 1 or not entry & PS:
        return level > 2 and bool(entry & 1 << 8)  # AMD's: not Intel's
    if level > 3 or (level == 3 and not gbpages):
        return True
    return bool(entry & {2: 0x1F_E000, 3: 0x3FFF_E000}[level])


@LEVELS
@pytest.mark.parametrize("page", [1, 2, 3], ids=["4K", "2M", "1G"])
def test_every_bit_of_every_nested_entry_is_reserved_or_not(levels, page):
    pages, guest, backing = npt_page(levels, page)
    words = pages.array()
    memory = mmu.Memory.from_words(words)
    for at, place in backing[0].items():
        for bit in BITS[3:]:
            entry = pages.words[place] ^ 1 << bit
            words[place // 8] = entry
            for width, nxe, gbpages in product((41, 52), (False, True), (False, True)):
                t = mmu.translate(
                    memory, guest.gva, cr3=guest.cr3,
                    nested=mmu.Npt(guest.nested, nxe, levels, gbpages=gbpages),
                    control=mmu.Control(maxphyaddr=width),
                )  # fmt: skip
                name = f"bit {bit} of level {at}, {width} bits wide, NX {nxe}, 1 GiB {gbpages}"
                wrong = reserved(entry, at, width, nxe, gbpages)
                if not wrong and page == 3 and at > 3 and not gbpages:
                    continue  # what is below is refused
                assert bool((t.exit_info or 0) & 8) == wrong, name
                if wrong:
                    first = at == 5  # every walk begins there, and a table's is the first
                    gpa = guest.tables[4] + 8 * (guest.gva >> 39) if first else guest.gpa
                    assert (t.fault_gpa, t.gpa) == (gpa, None if first else gpa), name
                    assert t.exit_info == (TABLE | 0xF if first else FINAL | 0xD), name
                    assert t.references == (1 if first else 4 * (levels + 1) + levels - at + 1)
        words[place // 8] = pages.words[place]


def test_the_guests_nx_has_no_effect_on_nested_tables():
    """'guest's EFER.NX should not affect NPT behaviour', kvm-unit-tests' svm_npt.c."""
    pages, guest, _ = npt_page(leaf=ALL | XD)
    for guest_nxe, access in product((False, True), ACCESSES):
        control = manual.Control(nxe=guest_nxe)
        nested = manual.Npt(guest.nested)
        answer = agree(
            pages, guest.gva, cr3=guest.cr3, nested=nested, control=control, access=access
        )
        assert answer["exit_info"] == (0x1_0000_0015 if access == "fetch" else None)
        barred = mmu.translate(
            pages.memory(), guest.gva, cr3=guest.cr3, nested=package(manual.Npt(guest.nested, False)),
            control=package(control), access="read",
        )  # fmt: skip
        assert barred.exit_info == 0x1_0000_000D


def test_amd_reserves_bit_8_of_an_entry_that_points_to_a_table_of_level_2_or_more():
    """As npt_rsvd_pfwalk does in a PML4E. The guest's tables are AMD's as well; Intel ignores the bit."""
    for at in (4, 3, 2, 1):
        for dimension in ("guest", "nested"):
            pages, guest, backing = npt_page()
            place = guest.entries[at] if dimension == "guest" else backing[0][at]
            pages.words[place] |= 1 << 8
            answer = agree(pages, guest.gva, cr3=guest.cr3, nested=manual.Npt(guest.nested))
            assert (answer["outcome"] == "OK") == (at < 3)
            if at > 2:
                assert answer["error_code"] == (0xD if dimension == "guest" else None)
                assert answer["exit_info"] == (FINAL | 0xD if dimension == "nested" else None)
        for link in (P | W | U, P | W | U | 1 << 8):
            pages = Pages()
            root, _ = pages.chain(0x5000, 0x7000 | ALL, link=link)
            assert agree(pages, 0x5000, cr3=root)["maddr"] == 0x7000
