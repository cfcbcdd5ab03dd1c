"""What `mmu.translate` says of a map: of every range, every hole, and what lies between."""

from dataclasses import replace
from itertools import product

import numpy as np
from exact import ACCESSES, PAGE

import mmu

LARGE, HUGE = 512 * PAGE, 512 * 512 * PAGE
NONE = (1 << 64) - 1


def permitted(control, user, right, of_user):
    """Whether a page's rights permit an access; None where they alone do not decide."""
    if of_user:
        return user and right["now"]
    if user and control.smep and right["access"] == "fetch":
        return False
    if user and control.smap and not control.ac and right["access"] != "fetch":
        return False
    if right["access"] == "write" and not right["now"] and not control.wp:
        return None
    return right["now"]


def ranges_are_translated_so(space, found, limit=60):
    """The first, a middle and the last byte of ranges, for every kind of access."""
    memory, question = space
    control = question["control"]
    rows = np.arange(len(found.first))
    if len(rows) > limit:
        rows = np.random.default_rng(0).choice(rows, limit, replace=False)
    for row in rows:
        first, size = int(found.first[row]), int(found.size[row])
        offsets = np.array([0, size // 2 + 5, size - 1], np.uint64)
        rights = dict(
            zip(ACCESSES, (found.read[row], found.write[row], found.execute[row]), strict=True)
        )
        for access, of_user in product(ACCESSES, (True, False)):
            right = {"access": access, "now": bool(rights[access])}
            fine = permitted(control, bool(found.user[row]), right, of_user)
            t = mmu.translate_many(
                memory, np.uint64(first) + offsets, user=of_user, access=access, **question
            )
            ok = t.outcome == mmu.Outcome.OK
            assert fine is None or np.all(ok == fine), (hex(first), access, of_user, t)
            expected = {
                "gpa": found.gpa[row] + offsets,
                "maddr": found.maddr[row] + offsets,
                "page_size": np.repeat(found.page_size[row], 3),
                "guest_page_size": np.repeat(found.guest_page_size[row], 3),
                "nested_page_size": np.repeat(found.nested_page_size[row], 3),
            }
            for name, values in expected.items():
                assert np.array_equal(getattr(t, name)[ok], values[ok]), (hex(first), name)


def holes_are_translated_so(space, found, limit=60):
    """A supervisor that may read all meets that outcome, at that entry."""
    memory, question = space
    question = question | {"control": replace(question["control"], smap=False)}
    for row in range(min(limit, len(found.hole_first))):
        first, size = int(found.hole_first[row]), int(found.hole_size[row])
        outcome = mmu.Outcome(found.hole_outcome[row])
        for gva in (first, first + size // 2, first + size - 1):
            t = mmu.translate(memory, gva, user=False, **question)
            assert t.outcome == outcome, hex(gva)
            assert outcome != mmu.Outcome.PAGE_FAULT or t.error_code & 8
            entry = int(found.hole_entry[row])
            if gva == first and entry != NONE and outcome != mmu.Outcome.NO_MEMORY:
                assert t.steps[-1].address == entry


def nothing_else_is_mapped(space, found, asked):
    """An address is translated if it lies in a range, and only then."""
    memory, question = space
    question = question | {"control": replace(question["control"], smap=False)}
    t = mmu.translate_many(memory, asked, user=False, **question)
    readable = found.read
    first, last = found.first[readable], (found.first + (found.size - np.uint64(1)))[readable]
    row = np.searchsorted(first, asked, "right") - 1
    inside = (row >= 0) & (asked <= last[row]) if len(first) else np.zeros(len(asked), bool)
    assert np.array_equal(t.outcome == mmu.Outcome.OK, inside)


def ranges_are_as_long_as_can_be(found):
    """Ordered, apart, and no two that could be one."""
    ends = found.first + found.size  # of the last one: 0, if it ends the space
    assert np.all(found.first[1:] > found.first[:-1])
    assert np.all(found.first[1:] >= ends[:-1])
    same = found.first[1:] == ends[:-1]
    for name in ("gpa", "maddr"):
        place = getattr(found, name)
        same &= place[1:] == place[:-1] + found.size[:-1]
    for name in (
        "user", "read", "write", "execute", "is_global", "page_size", "guest_page_size",
        "nested_page_size",
    ):  # fmt: skip
        same &= getattr(found, name)[1:] == getattr(found, name)[:-1]
    assert not np.any(same)


def grid(levels, asked):
    """Every address that small indices make, in both halves; those asked, and what is around them."""
    indices = [
        (np.arange(4, dtype=np.uint64) << np.uint64(3 + 9 * at)) for at in range(1, levels + 1)
    ]
    made = np.zeros(1, np.uint64)
    for column in indices:
        made = (made[:, None] | column).ravel()
    upper = np.uint64((1 << 64) - (1 << (11 + 9 * levels)))
    more = [gva + step & NONE for gva in asked for step in (0, PAGE, -PAGE, LARGE, HUGE, 37 * PAGE)]
    return np.concatenate([made, made | upper, np.array(more, np.uint64)])


def agrees(space, found, asked):
    ranges_are_translated_so(space, found)
    holes_are_translated_so(space, found)
    ranges_are_as_long_as_can_be(found)
    edges = np.concatenate([found.first - np.uint64(1), found.first + found.size])
    nothing_else_is_mapped(space, found, np.concatenate([asked, edges]))
