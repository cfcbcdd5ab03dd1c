"""Ask the package and `tests/manual.py` the same question; build the memories that tests ask about."""

from dataclasses import asdict
from itertools import product

import manual
import numba
import numpy as np

import mmu

PAGE = 4096
P, W, U, A, D, PS, PAT, XD = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 12, 1 << 63
EPT_A, EPT_D, WB = 1 << 8, 1 << 9, 6 << 3
ACCESSES = ("read", "write", "fetch")
OUTCOMES = [outcome.name for outcome in mmu.Outcome]
# Interpreted, one case in so many.
EVERY = 251 if numba.config.DISABLE_JIT else 1

PACKAGE = {manual.Control: mmu.Control, manual.Ept: mmu.Ept, manual.Npt: mmu.Npt}


def package(setting):
    """The package's Control, Ept or Npt with the values of the manual's."""
    return setting and PACKAGE[type(setting)](**asdict(setting))


def controls(**fixed):
    """Every combination of the control bits that decide about rights."""
    for bits in product((False, True), repeat=5):
        chosen = dict(zip(("wp", "nxe", "smep", "smap", "ac"), bits, strict=True)) | fixed
        yield manual.Control(**chosen)


class Pages:
    """Words by address, and pages to put them in, one after the other."""

    def __init__(self, base=0):
        self.base = self.free = base
        self.words = {}

    def take(self, pages=1):
        self.free += PAGE * pages
        return self.free - PAGE * pages

    def put(self, table, index, entry):
        self.words[table + 8 * index] = entry

    def array(self):
        words = np.zeros((self.free - self.base) // 8, np.uint64)
        for address, word in self.words.items():
            words[(address - self.base) // 8] = word
        return words

    def memory(self):
        return mmu.Memory.from_words(self.array(), self.base)

    def chain(self, gva, leaf, levels=4, level=1, link=P | W | U, root=None):
        """Tables of their own for one page; returns the root and each entry's address by level."""
        root = table = self.take() if root is None else root
        places = {}
        for at in range(levels, level - 1, -1):
            places[at] = table + 8 * (gva >> (3 + 9 * at) & 511)
            if at > level:
                table = self.take()
                self.words[places[at]] = table | link
        self.words[places[level]] = leaf | (PS if level > 1 else 0)
        return root, places


def ask(pages, gva, *, cr3, nested=None, access="read", user=True, control=None, update=False):
    """Both answers, each a dictionary of `manual.FIELDS`; and the memory that each leaves."""
    control = control or manual.Control()
    array = pages.array()
    found = mmu.translate(
        mmu.Memory.from_words(array, pages.base), gva, cr3=cr3, nested=package(nested),
        access=access, user=user, control=package(control), update=update,
    )  # fmt: skip
    answer = {name: getattr(found, name) for name in manual.FIELDS}
    answer["outcome"] = found.outcome.name
    answer["steps"] = [tuple(step) for step in found.steps]
    left = {pages.base + 8 * int(i): int(array[i]) for i in np.flatnonzero(array)}
    words = manual.Words(dict(pages.words), pages.base, 8 * len(array))
    expected = manual.translate(
        words, gva, cr3=cr3, nested=nested, access=access, user=user, control=control,
        update=update,
    )  # fmt: skip
    return answer, expected, left, {place: word for place, word in words.words.items() if word}


def agree(pages, gva, **question):
    """The answer, which must be the manual's in every field."""
    answer, expected, left, rightly_left = ask(pages, gva, **question)
    different = {
        name: f"found {answer[name]!r}, manual says {expected[name]!r}"
        for name in manual.FIELDS
        if answer[name] != expected[name]
    }
    assert not different, (f"{gva:#x}", question, different)
    assert left == rightly_left, (f"{gva:#x}", question)
    return answer


def rows(found):
    """Answers of translate_many, column by column, as the values that `manual` uses."""
    none = (1 << 64) - 1
    for row in zip(*(column.tolist() for column in found), strict=True):
        answer = dict(zip(found._fields, row, strict=True))
        answer["outcome"] = mmu.Outcome(answer["outcome"]).name
        for name in ("gpa", "maddr", "fault_gpa"):
            answer[name] = None if answer[name] == none else answer[name]
        yield answer


def assert_same(names, found, expected):
    """Compare arrays of as many elements as there are names; tell the first that differs."""
    different = np.flatnonzero(np.asarray(found) != np.asarray(expected))
    if len(different):
        first = int(different[0])
        name = names(first) if callable(names) else names[first]
        raise AssertionError(
            f"{len(different)} of {len(expected)} cases differ, the first is {name}: "
            f"found {int(found[first]):#x}, expected {int(expected[first]):#x}"
        )
