"""Random memories: every field of the answer is the manual's, and nothing outside memory is touched."""

import os
from dataclasses import replace

import numba
import numpy as np
import pytest
from exact import ACCESSES, PAGE, PS, WB, XD, A, D, Pages, agree, package, rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mmu
from mmu.testing import reference as manual

EXAMPLES = 8 if numba.config.DISABLE_JIT else 150
RELAXED = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

booleans = st.booleans()
mostly = st.sampled_from([True, True, True, False])
seldom = st.sampled_from([False, False, False, True])
accesses = st.sampled_from(ACCESSES)


@st.composite
def controls(draw):
    return manual.Control(
        draw(mostly), draw(mostly), draw(seldom), draw(seldom), draw(booleans), draw(seldom),
        draw(mostly), draw(st.sampled_from([36, 40, 46, 48, 51, 52])),
    )  # fmt: skip


# --- mappings that lead somewhere, with any one thing wrong -------------------------------------------


class World:
    """A guest whose tables and pages lie in nested pages of chosen sizes, built as it grows.

    Tables are shared at times: one guest table, or nested table, serves several addresses.
    """

    def __init__(self, kind, levels, nested_levels, base):
        self.pages = Pages(base)
        self.kind, self.levels, self.nested_levels = kind, levels, nested_levels
        self.leaf = 7 | WB if kind == "ept" else 7
        self.nested = self.pages.take() if kind else None
        self.where = {}  # machine address of each guest table, by its guest-physical one
        self.next_gpa = 0x2_0000_0000
        self.root = self.table()

    def table(self):
        frame = self.pages.take()
        if not self.kind:
            return frame
        gpa = self.next_gpa
        self.next_gpa += PAGE
        self.pages.chain(gpa, frame | self.leaf, self.nested_levels, 1, 7, root=self.nested)
        self.where[gpa] = frame
        return gpa

    def map(self, gva, gpa, level, link, leaf):
        """The addresses of the guest's entries, root first."""
        table, places = self.root, []
        for at in range(self.levels, level, -1):
            place = self.where.get(table, table) + 8 * (gva >> (3 + 9 * at) & 511)
            places.append(place)
            if not self.pages.words.get(place):
                self.pages.words[place] = self.table() | link
            table = self.pages.words[place] & 0xF_FFFF_FFFF_F000
            if self.pages.words[place] & PS:
                return places  # met a large page
        place = self.where.get(table, table) + 8 * (gva >> (3 + 9 * level) & 511)
        self.pages.words[place] = gpa | leaf | (PS if level > 1 else 0)
        return [*places, place]

    def back(self, gpa, frame, level, link, leaf):
        _, places = self.pages.chain(
            gpa, frame | leaf, self.nested_levels, level, link, self.nested
        )
        return list(places.values())


X86_RIGHTS = st.sampled_from([7, 7, 7, 7, 5, 3, 1, 7 | XD, 7 | A, 7 | A | D, 7 | 1 << 8, 0x67 | XD])
EPT_RIGHTS = st.sampled_from([7, 7, 7, 7, 5, 3, 1, 4, 2, 6, 7 | 1 << 8, 7 | 3 << 8, 7 | 1 << 11])
SMALL = st.integers(0, 3)


@st.composite
def worlds(draw):
    """A world, the addresses worth asking about, and the entries on their way."""
    kind = draw(st.sampled_from([None, "ept", "npt"]))
    control = draw(controls())
    levels, nested_levels = 5 if control.la57 else 4, draw(st.sampled_from([4, 4, 5]))
    base = draw(st.sampled_from([0, 0x7000, 1 << 34, 1 << 35]))
    world = World(kind, levels, nested_levels, base)
    rights = EPT_RIGHTS if kind == "ept" else X86_RIGHTS
    gvas, entries = [], []
    for _ in range(draw(st.integers(1, 3))):
        level = draw(st.sampled_from([1, 1, 2, 3]))
        gva = sum(draw(SMALL) << (3 + 9 * at) for at in range(1, levels + 1))
        if draw(seldom):
            gva |= (1 << 64) - (1 << (11 + 9 * levels))
        size = PAGE << 9 * (level - 1)
        pat = (1 << 12) * draw(seldom) if level > 1 else 0
        gpa = draw(SMALL) << 21 | draw(SMALL) << 12 | draw(st.integers(4, 7)) << 30
        places = world.map(gva, gpa & ~(size - 1) | pat, level, draw(X86_RIGHTS), draw(X86_RIGHTS))
        entries += places
        gva |= draw(st.integers(0, PAGE - 1))
        gvas.append(gva)
        if kind:
            data = (gpa & ~(size - 1)) + (gva & size - 1)
            backing = draw(st.sampled_from([1, 1, 2, 3]))
            mask = (PAGE << 9 * (backing - 1)) - 1
            leaf = draw(rights) | (WB if kind == "ept" else 0)
            frame = draw(SMALL) << 30 | draw(SMALL) << 21 | draw(SMALL) << 12
            entries += world.back(data & ~mask, frame & ~mask, backing, draw(rights) | 1, leaf)
    nested = None
    if kind == "ept":
        pointer = world.nested | nested_levels - 1 << 3 | draw(booleans) << 6 | 6
        nested = manual.Ept(pointer, draw(booleans), draw(mostly))
    if kind == "npt":
        nested = manual.Npt(world.nested, draw(mostly), nested_levels, draw(mostly))
    return world, control, nested, gvas, entries


@RELAXED
@given(st.data())
def test_random_mappings_are_translated_as_the_manual_says(data):
    world, control, nested, gvas, entries = data.draw(worlds())
    words = world.pages.words
    for _ in range(data.draw(st.integers(0, 2))):  # any bit of any entry on the way
        place = data.draw(st.sampled_from(entries))
        words[place] = words.get(place, 0) ^ 1 << data.draw(st.integers(0, 63))
    if data.draw(seldom):  # a table in another's place, or in its own
        place, other = data.draw(st.sampled_from(entries)), data.draw(st.sampled_from(entries))
        words[place] = words.get(place, 0) & 0xFFF | words.get(other, 0) & ~0xFFF
    if data.draw(seldom):
        world.pages.free -= data.draw(st.sampled_from([8, PAGE // 2, PAGE]))
        for place in [place for place in words if place >= world.pages.free]:
            del words[place]
    for gva in gvas:
        for update in (False, True):
            agree(
                world.pages, gva, cr3=world.root | data.draw(st.sampled_from([0, 0xFFF, 1 << 63])),
                nested=nested, access=data.draw(accesses), user=data.draw(booleans),
                control=control, update=update,
            )  # fmt: skip


# --- memories in which anything may be anything: guest table, nested table, both ----------------------


class Soup(Pages):
    """Pages whose words were drawn as an array."""

    def array(self):
        return self.drawn.copy()


@st.composite
def soups(draw):
    """A few pages of words, each of which mostly points to one of the pages; a question to ask."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from([1, 2, 4, 8]))
    base = draw(st.sampled_from([0, 0, 0x1000, 1 << 40, (1 << 52) - PAGE * count]))
    pages = Soup(base)
    flags = [
        [7, 7, 7, 7, 3, 5, 0x27, 0x67, 0x67, 0x87],
        [7, 7, 7, 0x37, 0x87, 0xB7, 0x107, 0x307, 1, 4, 2],
        [7, 0x27, 0x107, 0x327, 0x37, 0xB7, 0x87],
    ][draw(st.integers(0, 2))]
    words = (base + PAGE * random.integers(0, count, 512 * count)).astype(np.uint64)
    words |= random.choice(np.array(flags, np.uint64), len(words))
    flipped = random.random(len(words)) < draw(st.sampled_from([0.0, 0.02, 0.3]))
    words[flipped] ^= np.uint64(1) << random.integers(0, 64, flipped.sum()).astype(np.uint64)
    pages.drawn = words
    pages.words = {base + 8 * i: word for i, word in enumerate(words.tolist())}
    roots = base + PAGE * random.integers(0, count, 2)
    control = replace(draw(controls()), maxphyaddr=draw(st.sampled_from([36, 48, 52, 52])))
    nested = [
        None,
        manual.Ept(
            int(roots[0]) | draw(st.sampled_from([0x18, 0x1E, 0x58, 0x5E, 0x26, 0x66])),
            draw(booleans), draw(mostly),
        ),
        manual.Npt(int(roots[0]), draw(mostly), draw(st.sampled_from([4, 5])), draw(mostly)),
    ][draw(st.integers(0, 2))]  # fmt: skip
    gvas = random.integers(0, 1 << 47, 6).tolist()
    gvas += [-1, int(random.integers(1 << 62))]
    return pages, gvas, {"cr3": int(roots[1]), "nested": nested, "control": control}


@RELAXED
@given(soups(), accesses, booleans, booleans)
def test_memories_where_tables_are_each_others_are_translated_as_the_manual_says(
    soup, access, user, update
):
    pages, gvas, question = soup
    for gva in gvas:
        agree(pages, gva, access=access, user=user, update=update, **question)


COLUMNS = [name for name in manual.FIELDS if name not in {"steps", "updates"}]


@RELAXED
@given(soups(), st.lists(st.integers(0, 2), min_size=8, max_size=8), booleans, booleans)
def test_many_at_once_are_translated_as_one_by_one(soup, kinds, user, update):
    """translate_many, in every field, and the memory that it leaves behind."""
    pages, gvas, question = soup
    array = pages.array()
    given_gvas = np.array([gva % (1 << 64) for gva in gvas], np.uint64)
    found = mmu.translate_many(
        mmu.Memory.from_words(array, pages.base), given_gvas, cr3=question["cr3"],
        nested=package(question["nested"]), control=package(question["control"]),
        access=np.array(kinds, np.uint8), user=user, update=update,
    )  # fmt: skip
    words = manual.Words(dict(pages.words), pages.base, 8 * len(array))
    for row, gva, kind in zip(rows(found), gvas, kinds, strict=True):
        answer = manual.translate(
            words, gva, access=ACCESSES[kind], user=user, update=update, **question
        )
        expected = {name: getattr(answer, name) for name in COLUMNS} | {
            "outcome": answer.outcome.name
        }
        for name in COLUMNS:
            assert row[name] == (expected[name] or 0 if row[name] == 0 else expected[name]), name
    left = {pages.base + 8 * i: word for i, word in enumerate(array.tolist())}
    assert left == words.words


# --- hostile memory: no answer to compare with, but one there must be ---------------------------------

WALKS = int(os.environ.get("MMU_FUZZ_WALKS", "12000000"))
GUARD = 0x5A5A_5A5A_5A5A_5A5A


def hostile(random, count):
    """Words of one of several kinds: noise, pointers that are near, within or off, rights or none."""
    size = 512 * count
    noise = random.integers(0, 1 << 64, size, np.uint64)
    near = (PAGE * random.integers(0, count + 2, size)).astype(np.uint64)
    flags = random.choice(np.array([7, 0x67, 0x37, 0x87, 0xB7, 0x307, 5, 0], np.uint64), size)
    style = random.integers(0, 6)
    if style == 0:
        return noise
    if style == 1:
        return near | flags
    share = random.random(size)
    if style > 3:  # of either format, and all rights: walks that go deep
        within = (PAGE * random.integers(0, count, size)).astype(np.uint64)
        return np.where(share < 0.97, within | np.uint64(7), noise)
    words = np.where(share < 0.9, near | flags, noise)
    if style == 3:
        words = np.where(
            share < 0.1, near | flags | noise & np.uint64(0xFFF0_0000_0000_0000), words
        )
    return words


def walk_hostile_memory(random, walks):
    """Walk so often; whatever the words, an outcome, and nothing read or written outside."""
    codes = {int(outcome) for outcome in mmu.Outcome}
    met = set()
    step = 500 if numba.config.DISABLE_JIT else 100_000
    for _ in range(0, walks, step):
        count = int(random.choice([1, 2, 8, 64]))
        inside = hostile(random, count)[: 512 * count - int(random.choice([0, 1, 300]))]
        guarded = np.full(inside.size + 1024, GUARD, np.uint64)
        guarded[512 : 512 + inside.size] = inside
        base = int(random.choice([0, 0x1000, 1 << 46, (1 << 52) - PAGE * count]))
        if base:
            near = inside < np.uint64(1 << 40)
            guarded[512 : 512 + inside.size][near] += np.uint64(base)
        memory = mmu.Memory.from_words(guarded[512 : 512 + inside.size], base)
        control = mmu.Control(
            *(bool(bit) for bit in random.integers(0, 2, 7)), int(random.choice([36, 48, 52]))
        )
        root = min(base + PAGE * int(random.integers(0, count + 1)), (1 << 52) - PAGE)
        nested = [
            None,
            mmu.Ept(root | int(random.choice([0x1E, 0x5E, 0x66, 0x20])), bool(random.integers(2))),
            mmu.Npt(root, bool(random.integers(2)), int(random.choice([4, 5]))),
        ][int(random.integers(0, 3))]
        gvas = random.integers(0, 1 << 64, step, np.uint64)
        canonical = random.random(step) < 0.95
        gvas[canonical] = (gvas[canonical].view(np.int64) >> (7 if control.la57 else 16)).view(
            np.uint64
        )
        cr3 = base + PAGE * int(random.integers(0, count + 1))
        if random.random() < 0.05:
            cr3 = int(random.integers(0, 1 << 64, dtype=np.uint64))
        t = mmu.translate_many(
            memory, gvas, cr3=cr3, nested=nested, control=control,
            access=random.integers(0, 3, step, np.uint8), user=bool(random.integers(2)),
            update=bool(random.integers(2)),
        )  # fmt: skip
        assert np.all(guarded[:512] == GUARD)
        assert np.all(guarded[512 + inside.size :] == GUARD)
        found = set(np.unique(t.outcome).tolist())
        assert found <= codes
        met |= found
        assert t.references.max() <= 35
        fine = t.outcome == mmu.Outcome.OK
        assert np.all(t.maddr[fine] < np.uint64(1 << 52))
        assert np.all(t.maddr[~fine] == np.uint64(2**64 - 1))
        assert np.all((t.page_size > 0) == fine)
    return met


def test_hostile_memory_ends_every_walk_inside_it():
    walk_hostile_memory(np.random.default_rng(1), 2_000 if numba.config.DISABLE_JIT else 1_000_000)


@pytest.mark.fuzz
def test_millions_of_walks_over_hostile_memory_end_inside_it():
    met = walk_hostile_memory(np.random.default_rng(), WALKS)
    assert met == {int(outcome) for outcome in mmu.Outcome}


@pytest.mark.fuzz
@settings(max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(soups(), accesses, booleans)
def test_thousands_of_memories_where_tables_are_each_others(soup, access, user):
    pages, gvas, question = soup
    for gva in gvas:
        agree(pages, gva, access=access, user=user, update=True, **question)
