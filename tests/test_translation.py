"""The public translation on tables made by hand, and on those that a replay made."""

import naive
import numba
import numpy as np
import pytest
from handtables import EPT_RWX, EPT_WB, PAGE, XD, A, D, HandGuest, HandTables, P, U, W
from hypothesis import given, settings
from hypothesis import strategies as st

import mmu
from mmu import Control, Ept, Memory, Npt, Outcome, translate
from mmu.errors import InputError

GVA = 0x7F12_3456_7ABC
LEVEL = {"4k": 1, "2m": 2, "1g": 3}


def nested(guest, dirty=True):
    return Ept.at(guest.nested_root, dirty)


def build(guest_page, nested_page):
    guest = HandGuest(LEVEL[nested_page] if nested_page != "1g" else 1)
    level, backing = LEVEL[guest_page], LEVEL[nested_page]
    size = PAGE << 9 * (level - 1)
    gpa = 0x8000_0000 + (0 if level > 1 else 0x5000)
    guest.map(GVA, gpa & ~(size - 1), level)
    data = (gpa & ~(size - 1)) + (GVA & size - 1)
    backed = data & ~((PAGE << 9 * (backing - 1)) - 1)
    guest.memory.map_nested(guest.nested_root, backed, 0x12_4000_0000, backing)
    return guest, data, 0x12_4000_0000 + data - backed


@pytest.mark.parametrize(
    ("guest_page", "nested_page", "references"),
    [("4k", "4k", 24), ("4k", "2m", 19), ("2m", "4k", 19), ("2m", "2m", 15)],
)
def test_an_uncached_nested_walk_reads_as_many_entries_as_the_formula_says(
    guest_page, nested_page, references
):
    guest, gpa, maddr = build(guest_page, nested_page)
    memory = Memory.from_words(guest.memory.words)
    t = translate(memory, GVA, cr3=guest.root, nested=nested(guest))
    assert t.outcome == Outcome.OK
    assert t.references == len(t.steps) == references
    assert (t.gpa, t.maddr) == (gpa, maddr)
    sizes = {"4k": PAGE, "2m": PAGE << 9}
    assert t.guest_page_size == sizes[guest_page]
    assert t.nested_page_size == sizes[nested_page]
    assert t.page_size == min(sizes[guest_page], sizes[nested_page])


def test_tables_on_small_pages_and_data_on_a_large_one_take_twenty_three_reads():
    guest = HandGuest(table_level=1)
    guest.map(GVA, 0x8000_5000)
    guest.memory.map_nested(guest.nested_root, 0x8000_0000, 0x4000_0000, level=2)
    t = translate(Memory.from_words(guest.memory.words), GVA, cr3=guest.root, nested=nested(guest))
    assert t.references == 23
    assert t.maddr == 0x4000_0000 + 0x5000 + (GVA & 0xFFF)  # the offset is the guest frame's


def test_a_walk_reads_nested_and_guest_entries_in_the_order_of_the_manual():
    guest, _, _ = build("4k", "4k")
    t = translate(Memory.from_words(guest.memory.words), GVA, cr3=guest.root, nested=nested(guest))
    order = "".join(f"{'N' if s.dimension == 'nested' else 'G'}{s.level}" for s in t.steps)
    assert order == "N4N3N2N1G4N4N3N2N1G3N4N3N2N1G2N4N3N2N1G1N4N3N2N1"


@pytest.mark.parametrize(("level", "references"), [(1, 4), (2, 3), (3, 2)])
def test_a_native_walk_reads_one_entry_a_level(level, references):
    tables = HandTables()
    root = tables.take()
    tables.map_native(root, GVA, 0x1_4000_0000, level)
    t = translate(Memory.from_words(tables.words), GVA, cr3=root | 0xFFF)
    assert t.references == references
    assert t.maddr == t.gpa == 0x1_4000_0000 + (GVA & (PAGE << 9 * (level - 1)) - 1)
    assert t.page_size == t.guest_page_size == PAGE << 9 * (level - 1)
    assert t.nested_page_size is None


def test_accessed_is_set_in_every_entry_and_dirty_in_the_leaf_of_a_write():
    tables = HandTables()
    root = tables.take()
    tables.map_native(root, GVA, 0x5000)
    memory = Memory.from_words(tables.words)
    before = tables.words.copy()
    t = translate(memory, GVA, cr3=root, access="write")
    assert np.array_equal(tables.words, before)
    assert [entry & (A | D) for entry in t.updates.values()] == [A, A, A, A | D]
    again = translate(memory, GVA, cr3=root, access="write", update=True)
    assert again.updates == t.updates
    for address, entry in t.updates.items():
        assert int(tables.words[address // 8]) == entry
    assert translate(memory, GVA, cr3=root, access="write").updates == {}
    assert translate(memory, GVA, cr3=root).updates == {}


def test_guest_tables_count_as_written_where_nested_dirty_bits_are_kept():
    guest, _, _ = build("4k", "4k")
    memory = Memory.from_words(guest.memory.words)
    kept = translate(memory, GVA, cr3=guest.root, nested=nested(guest))
    marks = {s.level: 0 for s in kept.steps}
    for address, entry in kept.updates.items():
        step = next(s for s in kept.steps if s.address == address)
        if step.dimension == "nested" and step.level == 1:
            marks[address] = entry >> 8 & 3
    assert sorted(v for k, v in marks.items() if k > 4) == [1, 3, 3, 3, 3]  # data is read only
    none = translate(memory, GVA, cr3=guest.root, nested=nested(guest, dirty=False))
    assert all(step.dimension == "guest" for step in none.steps if step.address in none.updates)


@pytest.mark.parametrize(
    ("leaf", "access", "user", "code"),
    [
        (P | U, "write", True, 7),
        (P | U, "write", False, 3),
        (P | W, "read", True, 5),
        (P | W | U | XD, "fetch", True, 21),
        (0, "read", True, 4),
        (0, "write", False, 2),
        (0, "fetch", True, 20),
    ],
)
def test_a_page_fault_says_why(leaf, access, user, code):
    tables = HandTables()
    root = tables.take()
    tables.map_native(root, GVA, 0x5000, leaf=leaf)
    t = translate(Memory.from_words(tables.words), GVA, cr3=root, access=access, user=user)
    assert (t.outcome, t.error_code) == (Outcome.PAGE_FAULT, code)
    assert t.maddr is None
    leaf_updates = [entry for entry in t.updates.values() if entry & 0xF000 == 0x5000]
    assert leaf_updates == []  # the leaf is marked only once rights have passed


@pytest.mark.parametrize("bits", [P | U, P | W, P | W | U | XD])
def test_rights_are_those_that_every_level_grants(bits):
    for level in (2, 3, 4):
        tables = HandTables()
        root = tables.take()
        tables.map_native(root, GVA, 0x5000)
        table = root
        for above in range(4, level, -1):
            table = tables.get(table, GVA >> (3 + 9 * above) & 511) & ~0xFFF
        index = GVA >> (3 + 9 * level) & 511
        tables.put(table, index, tables.get(table, index) & ~0xFFF & ~XD | bits)
        denied = {
            access
            for access in ("read", "write", "fetch")
            if translate(Memory.from_words(tables.words), GVA, cr3=root, access=access).outcome
        }
        all_kinds = {"read", "write", "fetch"}
        assert denied == (all_kinds if not bits & U else {"write"} if not bits & W else {"fetch"})


@pytest.mark.parametrize(
    ("rights", "access"), [(5, "write"), (3, "fetch"), (1, "write"), (1, "fetch"), (0, "read")]
)
def test_nested_rights_deny_what_the_guest_grants(rights, access):
    guest = HandGuest()
    guest.map(GVA, 0x8000_5000)
    guest.memory.map_nested(guest.nested_root, 0x8000_5000, 0x5000, leaf=rights | EPT_WB)
    if not rights:
        guest.memory.map_nested(guest.nested_root, 0x8000_5000, 0, leaf=0)
    t = translate(
        Memory.from_words(guest.memory.words), GVA, cr3=guest.root, nested=nested(guest),
        access=access,
    )  # fmt: skip
    assert t.outcome == Outcome.NESTED_VIOLATION
    assert t.gpa == t.fault_gpa == 0x8000_5000 | GVA & 0xFFF
    assert t.maddr is None


def test_a_violation_on_a_table_page_names_the_entry_that_was_to_be_read():
    guest = HandGuest()
    guest.map(GVA, 0x8000_5000)
    directory = guest.root + 2 * PAGE
    guest.memory.map_nested(guest.nested_root, directory, 0, leaf=0)
    t = translate(Memory.from_words(guest.memory.words), GVA, cr3=guest.root, nested=nested(guest))
    assert t.outcome == Outcome.NESTED_VIOLATION
    assert t.fault_gpa == directory + 8 * (GVA >> 21 & 511)
    assert t.gpa is None


def test_a_guest_page_fault_comes_before_the_violation_of_the_data_page():
    guest = HandGuest()
    guest.map(GVA, 0x8000_5000, leaf=P | U)
    t = translate(
        Memory.from_words(guest.memory.words), GVA, cr3=guest.root, nested=nested(guest),
        access="write",
    )  # fmt: skip
    assert t.outcome == Outcome.PAGE_FAULT


@pytest.mark.parametrize("gva", [0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFFF, 1 << 62])
def test_an_address_that_is_not_canonical_reads_no_table(gva):
    t = translate(Memory.from_words(np.zeros(512, np.uint64)), gva, cr3=0)
    assert (t.outcome, t.references) == (Outcome.NOT_CANONICAL, 0)


def test_upper_half_addresses_may_be_given_with_either_sign():
    tables = HandTables()
    root = tables.take()
    gva = 0xFFFF_8123_4567_8ABC
    tables.map_native(root, gva, 0x5000)
    memory = Memory.from_words(tables.words)
    assert translate(memory, gva, cr3=root) == translate(memory, gva - (1 << 64), cr3=root)
    assert translate(memory, gva, cr3=root).maddr == 0x5ABC


def test_memory_may_begin_anywhere():
    tables = HandTables()
    root = tables.take()
    tables.map_native(root, GVA, 0x5000)
    base = 0x7_0000_0000
    moved = tables.words.copy()
    pointers = (moved & 1 == 1) & (moved != 0x5000 | P | W | U)
    moved[pointers] += np.uint64(base)
    memory = Memory.from_words(moved, base)
    t = translate(memory, GVA, cr3=root + base)
    assert t.maddr == 0x5000 | GVA & 0xFFF
    assert min(step.address for step in t.steps) >= base
    assert translate(memory, GVA, cr3=root).outcome == Outcome.NO_MEMORY


@settings(max_examples=20 if numba.config.DISABLE_JIT else 300, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.booleans())
def test_random_words_as_tables_end_in_an_outcome_inside_memory(seed, cr3, with_nested):
    random = np.random.default_rng(seed)
    words = random.integers(0, 1 << 64, 512 * 8, np.uint64, endpoint=False)
    small = random.random(words.size) < 0.9
    words[small] &= np.uint64(0x80000000000070FF)  # pointers that stay inside, for the most part
    guarded = np.full(words.size + 1024, 0x5A5A, np.uint64)
    guarded[512:-512] = words
    memory = Memory.from_words(guarded[512:-512])
    t = translate(
        memory, int(random.integers(0, 1 << 47)), cr3=cr3 & (0x7000 if seed % 2 else -1),
        nested=Ept.at(0x1000) if with_nested else None,
        access=("read", "write", "fetch")[seed % 3], update=True,
    )  # fmt: skip
    assert t.outcome in Outcome
    assert t.references <= 24
    assert np.all(guarded[:512] == 0x5A5A)
    assert np.all(guarded[-512:] == 0x5A5A)


@settings(max_examples=20 if numba.config.DISABLE_JIT else 150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_mappings_are_translated_as_the_naive_twin_does(seed):
    """Tables of random sizes and rights, walked by both, accessed and dirty bits included."""
    random = np.random.default_rng(seed)
    guest = HandGuest(table_level=int(random.integers(1, 3)))
    bits = [P | W | U, P | W | U, P | U, P | W, P | W | U | XD]
    level = int(random.integers(1, 4))
    gva = int(random.integers(0, 1 << 47))
    guest.map(
        gva, 0x80_0000_0000, level,
        link=int(random.choice(np.array(bits, np.uint64))),
        leaf=int(random.choice(np.array(bits, np.uint64))),
    )  # fmt: skip
    data = 0x80_0000_0000 + (gva & (PAGE << 9 * (level - 1)) - 1)
    backing = int(random.integers(1, 4))
    guest.memory.map_nested(
        guest.nested_root, data & ~((PAGE << 9 * (backing - 1)) - 1), 0x40_0000_0000, backing,
        leaf=int(random.choice([7, 7, 7, 5, 3, 1])) | EPT_WB,
    )  # fmt: skip
    words = guest.memory.present()
    kind = int(random.integers(0, 3))
    machine = naive.Machine(
        naive.Geometry(l1=[[], []], l2=[], nested=None, walk=[None, None, None]),
        words, {(1, 0): guest.root}, {1: guest.nested_root},
    )  # fmt: skip
    t = translate(
        Memory.from_words(guest.memory.words), gva, cr3=guest.root, nested=nested(guest),
        access=("read", "write", "fetch")[kind], update=True,
    )  # fmt: skip
    try:
        maddr = machine.access((1, 0), gva, kind, 1)
    except naive.PageFault as fault:
        assert t.outcome == Outcome.PAGE_FAULT
        protection = fault.protection
        assert bool(t.error_code & 1) == protection
    except naive.NestedFault:
        assert t.outcome == Outcome.NESTED_VIOLATION
    else:
        assert (t.outcome, t.maddr) == (Outcome.OK, maddr)
        assert t.references == machine.references
    assert guest.memory.present() == {
        address: word for address, word in machine.memory.items() if word
    }


@pytest.mark.parametrize(
    "eptp", [0x1000, 0x1003, 0x105F, 0x106E, 0x1056, 1 << 52 | 0x1E, 0x109E, -1]
)
def test_a_malformed_pointer_to_nested_tables_is_refused(eptp):
    with pytest.raises(InputError, match="eptp"):
        Ept(eptp)
    assert Ept(0x105E).root == 0x1000
    assert EPT_RWX == 7


def test_arguments_that_make_no_sense_are_refused_with_what_is_accepted():
    memory = Memory.from_words(np.zeros(512, np.uint64))
    with pytest.raises(InputError, match="found 'jump'; accepted: read"):
        translate(memory, 0, cr3=0, access="jump")
    with pytest.raises(InputError, match="64-bit"):
        translate(memory, 1 << 64, cr3=0)
    with pytest.raises(InputError, match="float64"):
        Memory.from_words(np.zeros(512))
    with pytest.raises(InputError, match="0x8"):
        Memory.from_words(np.zeros(512, np.int64), base=8)
    constant = np.zeros(512, np.uint64)
    constant.flags.writeable = False
    frozen = Memory.from_words(constant)
    assert translate(frozen, 0, cr3=0).outcome == Outcome.PAGE_FAULT
    with pytest.raises(InputError, match="cannot be written"):
        translate(frozen, 0, cr3=0, update=True)


def test_the_package_offers_what_its_readme_names():
    for name in ("Memory", "translate", "Ept", "Outcome", "replay", "compare", "Replay"):
        assert callable(getattr(mmu, name))


@pytest.mark.parametrize("kind", [np.uint64, np.int64, np.uint16])
def test_pointers_and_widths_may_be_numbers_of_numpy(kind):
    memory = Memory.from_words(np.zeros(512 * 2, np.uint64))
    for number in (kind, int):
        found = [
            translate(memory, 0, cr3=0, nested=nested, control=Control(maxphyaddr=number(40)))
            for nested in (Ept(number(0x105E)), Npt(number(0x1000), levels=number(4)))
        ]
        assert [t.references for t in found] == [1, 1]
    assert Ept(kind(0x105E)) == Ept.at(0x1000)
