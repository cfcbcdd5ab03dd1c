"""Memory that is no flat array: pages, extents, addresses up to the last."""

import numba
import numpy as np
import pytest
from handtables import PAGE, A, D, HandGuest, HandTables, P, U, W
from hypothesis import given, settings
from hypothesis import strategies as st

import mmu
from mmu import Ept, Memory, Outcome, translate
from mmu.errors import InputError
from mmu.hardware.memory import OUTSIDE, ZERO, locate

GVA = 0x7F12_3456_7ABC
TOP = 1 << 52
FRAME = 0xF_FFFF_FFFF_F000
WIDE = mmu.Control(maxphyaddr=52)
ALL = P | W | U
GUARD = 0x0BAD_0BAD_0000 | ALL  # an entry that whoever reads it would use
MANY = 200 if numba.config.DISABLE_JIT else 4000


def used_pages(words):
    """The pages of a flat array that are not all zero, and their addresses."""
    pages = words.reshape(-1, 512)
    held = np.flatnonzero(pages.any(axis=1))
    return (held * PAGE).astype(np.uint64), pages[held].copy()


def mapped():
    tables = HandTables()
    root = tables.take()
    tables.map_native(root, GVA, 0x5000)
    return *used_pages(tables.words), root


@pytest.mark.parametrize("kind", [np.uint64, np.int64])
def test_pages_may_be_given_in_any_order_and_of_either_sign(kind):
    addresses, pages, root = mapped()
    flat = translate(Memory.from_pages(addresses, pages), GVA, cr3=root)
    assert flat.maddr == 0x5ABC
    order = [2, 0, 3, 1]
    memory = Memory.from_pages(addresses[order].astype(kind), pages[order].astype(kind))
    assert translate(memory, GVA, cr3=root) == flat
    assert memory.ranges().tolist() == [[PAGE, 5 * PAGE - 1]]
    assert memory.base == PAGE


def test_a_page_that_was_not_given_reads_as_zero_and_is_never_written():
    addresses, pages, root = mapped()
    memory = Memory.from_pages(addresses[:-1], pages[:-1])
    t = translate(memory, GVA, cr3=root, access="write", update=True)
    assert (t.outcome, t.references, t.error_code) == (Outcome.PAGE_FAULT, 4, 6)
    assert (t.steps[-1].address & ~0xFFF, t.steps[-1].entry) == (int(addresses[-1]), 0)
    assert list(t.updates) == [step.address for step in t.steps[:-1]]
    nested = translate(memory, GVA, cr3=root, nested=Ept.at(TOP - PAGE))
    assert (nested.outcome, nested.references) == (Outcome.NESTED_VIOLATION, 1)
    assert nested.steps[0].address == TOP - PAGE + 8 * (root >> 39 & 511)
    assert translate(Memory.from_pages(addresses[:0], pages[:0]), 0, cr3=0).references == 1


def test_accessed_and_dirty_bits_are_written_to_the_pages_that_were_given():
    addresses, pages, root = mapped()
    order = [3, 1, 0, 2]
    addresses, pages = addresses[order], pages[order]
    before = pages.copy()
    memory = Memory.from_pages(addresses, pages)
    told = translate(memory, GVA, cr3=root, access="write")
    assert np.array_equal(pages, before)
    assert translate(memory, GVA, cr3=root, access="write", update=True) == told
    where = {int(address): page for address, page in zip(addresses, pages, strict=True)}
    for address, entry in told.updates.items():
        assert int(where[address & ~0xFFF][address // 8 % 512]) == entry
    assert np.count_nonzero(pages != before) == 4
    assert (pages ^ before)[pages != before].tolist() == [A | D, A, A, A]


def test_pages_that_cannot_be_written_are_copied_and_keep_their_bits():
    addresses, pages, root = mapped()
    pages.flags.writeable = False
    memory = Memory.from_pages(addresses, pages)
    assert translate(memory, GVA, cr3=root).outcome == Outcome.OK
    with pytest.raises(InputError, match="cannot be written"):
        translate(memory, GVA, cr3=root, update=True)
    apart = np.zeros((4, 1024), np.uint64)[:, ::2]
    assert not Memory.from_pages(addresses, apart).writable


@pytest.mark.parametrize(
    ("addresses", "pages", "message"),
    [
        ([0, 0x1000, 0], (3, 512), "found 0x0 twice"),
        ([0, 0x1008], (2, 512), "found 0x1008; accepted: multiples of 0x1000"),
        ([TOP], (1, 512), "below 0x10000000000000"),
        ([0], (2, 512), r"found shape \(2, 512\) for 1 addresses"),
        ([0], (1, 511), "found shape"),
        ([[0]], (1, 512), "found 2 dimensions"),
        ([0], (512,), "pages: found 1 dimensions"),
    ],
)
def test_pages_that_no_machine_has_are_refused(addresses, pages, message):
    with pytest.raises(InputError, match=message) as error:
        Memory.from_pages(np.array(addresses, np.uint64), np.zeros(pages, np.uint64))
    assert "\n" not in str(error.value)


def test_arrays_that_are_no_words_are_refused():
    for addresses, pages in (
        (np.zeros(1), np.zeros((1, 512), np.uint64)),
        (np.zeros(1, np.uint64), np.zeros((1, 512))),
        (np.array([-4096]), np.zeros((1, 512), np.uint64)),
        ([[0], [0, 1]], np.zeros((1, 512), np.uint64)),
    ):
        with pytest.raises(InputError, match="accepted"):
            Memory.from_pages(addresses, pages)


@pytest.mark.parametrize(
    "extents",
    [
        [[0, 9, 0]],
        [[0, 4, 5]],
        [[0, 4, 0], [3, 4, 4]],
        [[4, 2, 0], [0, 2, 2]],
        [[TOP // 8 - 1, 2, 0]],
        [[-1, 2, 0]],
        [[0, -1, 0]],
        [[0, 1, 1 << 62]],
        [[1 << 62, 1 << 62, 0]],
        np.zeros((0, 3), np.int64),
    ],
)
def test_extents_by_which_a_walk_would_leave_the_array_are_refused(extents):
    with pytest.raises(InputError, match="accepted: at least one run"):
        Memory(np.zeros(8, np.int64), 0, True, np.array(extents, np.int64))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.booleans()), min_size=1))
def test_a_word_is_found_where_a_search_from_the_front_finds_it(parts):
    rows, number, index, expected = [], 0, 0, {}
    for gap, count, zero in parts:
        number += gap
        rows.append((number, count, -1 if zero else index))
        for k in range(count):
            expected[number + k] = int(ZERO) if zero else index + k
        number, index = number + count, index + (0 if zero else count)
    extents, words = np.array(rows, np.int64), np.zeros(index, np.int64)
    for each in range(-2, number + 3):
        assert locate(words, extents, each) == expected.get(each, int(OUTSIDE))
    flat = [locate(words, None, each) for each in range(-2, index + 3)]
    assert flat == [int(OUTSIDE)] * 2 + list(range(index)) + [int(OUTSIDE)] * 3


def moved(words, pages, where):
    """Pages of flat tables, their entries pointing to where each page is now."""
    out = {}
    for page, at in where.items():
        words_of = [int(word) for word in words[page // 8 : page // 8 + 512]]
        if page in pages:
            words_of = [
                word & ~FRAME | where.get(word & FRAME, word & FRAME) if word else 0
                for word in words_of
            ]
        out[at] = words_of
    return np.array(list(out), np.uint64), np.array(list(out.values()), np.uint64)


@settings(max_examples=10 if numba.config.DISABLE_JIT else 100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_tables_are_walked_the_same_wherever_their_pages_stand(seed):
    random = np.random.default_rng(seed)
    guest = HandGuest(1, 64)
    gvas = [int(random.integers(0, 1 << 47)) for _ in range(2)]
    for gva in gvas:
        guest.map(gva, 0x7000_0000)
    guest.memory.map_nested(guest.nested_root, 0x7000_0000, 0x9_0000_0000)
    words = guest.memory.words
    addresses, _ = used_pages(words)
    addresses = [int(address) for address in addresses]
    places = random.choice(1 << 20, len(addresses), replace=False)
    last = TOP // PAGE - (1 << 20)
    base = int(random.choice([0, 1 << 30, last]))
    where = {
        page: (base + int(place)) * PAGE for page, place in zip(addresses, places, strict=True)
    }
    nested_tables = set(addresses) - set(guest.where.values())
    memory = Memory.from_pages(*moved(words, nested_tables, where))
    flat = Memory.from_words(words.copy())
    for gva in [*gvas, int(random.integers(0, 1 << 47))]:
        for access in ("read", "write"):
            kept = {"cr3": guest.root, "access": access, "control": WIDE}
            one = translate(flat, gva, nested=Ept.at(guest.nested_root), **kept)
            other = translate(memory, gva, nested=Ept.at(where[guest.nested_root]), **kept)
            assert (one.outcome, one.gpa, one.maddr) == (other.outcome, other.gpa, other.maddr)
            assert [
                (step.dimension, step.level, where[step.address & ~0xFFF] | step.address & 0xFFF)
                for step in one.steps
            ] == [(step.dimension, step.level, step.address) for step in other.steps]
            assert len(one.updates) == len(other.updates)


def test_thousands_of_extents_are_searched_and_the_very_last_page_is_memory():
    random = np.random.default_rng(5)
    numbers = np.unique(random.integers(0, TOP // PAGE, MANY, np.uint64))
    numbers[-1] = TOP // PAGE - 1
    addresses = numbers * np.uint64(PAGE)
    random.shuffle(addresses)
    chosen = random.permutation(len(addresses))
    pages = np.zeros((len(addresses), 512), np.uint64)
    # Each page is a root whose entry n leads on; the four levels meet pages anywhere.
    pages[:, 5] = addresses[chosen] | np.uint64(ALL)
    memory = Memory.from_pages(addresses, pages)
    assert len(memory.extents) > MANY
    follow = dict(zip(addresses.tolist(), addresses[chosen].tolist(), strict=True))
    gva = 5 << 39 | 5 << 30 | 5 << 21 | 5 << 12
    for root in (*addresses[:50].tolist(), TOP - PAGE):
        t = translate(memory, gva, cr3=root, control=WIDE)
        at = root
        for step in t.steps:
            assert step.address == at + 40
            at = follow[at]
        assert (t.outcome, t.maddr) == (Outcome.OK, at)
    assert len(memory.ranges()) == len(memory.extents[memory.extents[:, 2] >= 0])


@settings(max_examples=20 if numba.config.DISABLE_JIT else 200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_no_word_outside_the_extents_is_read_or_written(seed, with_nested, sparse):
    random = np.random.default_rng(seed)
    count, gap = 8, 512
    words = np.full(count * (512 + gap) + gap, GUARD, np.uint64)
    begins = [gap + page * (512 + gap) for page in range(count)]
    for begin in begins:
        page = random.integers(0, 1 << 64, 512, np.uint64)
        small = random.random(512) < 0.9
        page[small] &= np.uint64(0x8000_0000_0000_00FF)
        page[small] |= random.integers(0, 2 * count, int(small.sum()), np.uint64) << np.uint64(12)
        words[begin : begin + 512] = page
    lengths = random.integers(1, 513, count)  # an extent may end within a page
    rows = [[512 * 2 * n, lengths[n], begins[n]] for n in range(count)]
    if sparse:
        rows[1::2] = [[first, size, -1] for first, size, _ in rows[1::2]]
    before = words.copy()
    memory = Memory(words.view(np.int64), 0, True, np.array(rows, np.int64))
    for access in ("read", "write", "fetch"):
        t = translate(
            memory, int(random.integers(0, 1 << 47)), cr3=int(random.integers(0, count)) << 13,
            nested=Ept.at(int(random.integers(0, count)) << 13) if with_nested else None,
            access=access, update=True,
        )  # fmt: skip
        assert t.outcome in Outcome
        assert all(step.entry != GUARD for step in t.steps)
        assert t.outcome == Outcome.NO_MEMORY or t.references > 0
    held = np.zeros(words.size, bool)
    for _, size, index in rows:
        if index >= 0:
            held[index : index + size] = True
    assert np.array_equal(words[~held], before[~held])
    given = [first for first, _, index in rows if index >= 0]
    assert memory.ranges()[:, 0].tolist() == [8 * first for first in given]


def test_memory_without_a_word_has_no_range():
    memory = Memory.from_words(np.zeros(0, np.uint64))
    assert memory.ranges().shape == (0, 2)
    assert translate(memory, 0, cr3=0).outcome == Outcome.NO_MEMORY
