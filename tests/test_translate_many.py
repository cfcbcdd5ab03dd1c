"""Many translations at once: each is what it would be alone, wherever it stands in the array."""

import numpy as np
import pytest
from handtables import PAGE, HandGuest

import mmu
import mmu.translation
from mmu.errors import InputError

COUNT = 3 * 64 + 7  # the kernel reads entries of 64 addresses ahead
COLUMNS = mmu.translation.Translations._fields
NONE = (1 << 64) - 1
GVAS = {1: 0x7F12_3456_7000, 2: 0x7F12_4000_0000, 3: 0x7E80_0000_0000}  # by level of the page


def guest_with_all_page_sizes():
    """Pages of three sizes, nested in pages of two, and a few that are missing."""
    guest = HandGuest()
    for level, gva in GVAS.items():
        size = PAGE << 9 * (level - 1)
        gpa = 0x8000_0000 + (0x5000 if level == 1 else size)
        guest.map(gva, gpa, level)
        guest.memory.map_nested(guest.nested_root, gpa, 0x12_4000_0000, 1 if level == 1 else 2)
    guest.map(GVAS[1] + PAGE, 0x9000_0000)  # not backed
    guest.map(GVAS[1] + 2 * PAGE, 0xFF_FFFF_F000)
    return guest


def addresses(random):
    """Addresses in and around those pages, some of which are not canonical."""
    pages = np.array([*GVAS.values(), GVAS[1] + PAGE, GVAS[1] + 2 * PAGE, 1 << 50, 0], np.uint64)
    return random.choice(pages, COUNT) + random.integers(0, 3 * PAGE, COUNT, np.uint64)


def noise(random):
    """Words of which many point to one another, and some nowhere."""
    size = 512 * 16
    near = (PAGE * random.integers(0, 18, size)).astype(np.uint64)
    flags = random.choice(np.array([7, 0x67, 0x87, 0x307, 0x37], np.uint64), size)
    return near | flags


def alone(words, gvas, kinds, **question):
    """The columns that one translation after the other gives."""
    rows = [
        mmu.translate(
            mmu.Memory.from_words(words), int(gva), access=("read", "write", "fetch")[kind],
            **question,
        )
        for gva, kind in zip(gvas, kinds, strict=True)
    ]  # fmt: skip
    for name in COLUMNS:
        none = NONE if name in {"gpa", "maddr", "fault_gpa"} else 0
        values = [getattr(row, name) for row in rows]
        yield name, [none if value is None else int(value) for value in values]


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("nested", ["ept", "ept without dirty", "npt", "native"])
@pytest.mark.parametrize("tables", ["all sizes", "noise"])
def test_each_of_many_is_what_it_would_be_alone(tables, nested, update):
    random = np.random.default_rng(len(nested) + update)
    guest = guest_with_all_page_sizes()
    words, cr3, root = guest.memory.words, guest.root, guest.nested_root
    if nested == "native":
        cr3 = guest.where[guest.root]
    gvas, kinds = addresses(random), random.integers(0, 3, COUNT).astype(np.uint8)
    if tables == "noise":
        words, cr3, root = noise(random), PAGE, 3 * PAGE
        gvas = (random.integers(0, 1 << 64, COUNT, np.uint64).view(np.int64) >> 16).view(np.uint64)
    question = {
        "cr3": cr3, "update": update, "user": bool(random.integers(2)),
        "nested": {
            "ept": mmu.Ept.at(root), "ept without dirty": mmu.Ept.at(root, False),
            "npt": mmu.Npt(root), "native": None,
        }[nested],
    }  # fmt: skip
    left = words.copy()
    expected = dict(alone(left, gvas, kinds, **question))
    many = words.copy()
    found = mmu.translate_many(mmu.Memory.from_words(many), gvas, access=kinds, **question)
    for name in COLUMNS:
        assert getattr(found, name).tolist() == expected[name], name
    assert np.array_equal(many, left)
    assert update or np.array_equal(many, words)
    assert tables == "noise" or len(set(expected["outcome"])) > 2


def test_addresses_may_be_read_only_strided_signed_or_none():
    guest = guest_with_all_page_sizes()
    memory = mmu.Memory.from_words(guest.memory.words)
    nested = mmu.Ept.at(guest.nested_root)
    gvas = addresses(np.random.default_rng(7))
    expected = mmu.translate_many(memory, gvas[::2].copy(), cr3=guest.root, nested=nested)
    fixed = gvas.copy()
    fixed.flags.writeable = False
    for same in (fixed[::2], gvas.view(np.int64)[::2]):
        found = mmu.translate_many(memory, same, cr3=guest.root, nested=nested)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)
    nothing = mmu.translate_many(memory, gvas[:0], cr3=guest.root, nested=nested)
    assert all(len(column) == 0 for column in nothing)
    with pytest.raises(InputError, match="gvas"):
        mmu.translate_many(memory, gvas.astype(float), cr3=guest.root)


def test_given_addresses_stay_as_they_are():
    guest = guest_with_all_page_sizes()
    gvas = addresses(np.random.default_rng(8))
    before = gvas.copy()
    mmu.translate_many(mmu.Memory.from_words(guest.memory.words), gvas, cr3=guest.root)
    assert np.array_equal(gvas, before)
