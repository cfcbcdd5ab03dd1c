"""Ask the package and `mmu.testing.reference` the same question; build memories to ask about."""

from dataclasses import asdict
from itertools import product

import numba
import numpy as np

import mmu
from mmu.testing import reference as manual

PAGE = 4096
P, W, U, A, D, PS, PAT, XD = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 12, 1 << 63
EPT_A, EPT_D, WB = 1 << 8, 1 << 9, 6 << 3
ACCESSES = ("read", "write", "fetch")
OUTCOMES = [outcome.name for outcome in mmu.Outcome]
INTERPRETED = bool(numba.config.DISABLE_JIT)
# Bits of an entry to try: all, or those at which something begins or ends.
BITS = (
    (*range(9), 11, 12, 13, 20, 21, 29, 30, 39, 40, 41, 51, 52, 62, 63)
    if INTERPRETED
    else tuple(range(64))
)


PACKAGE = {manual.Control: mmu.Control, manual.Ept: mmu.Ept, manual.Npt: mmu.Npt}


def few(cases, rights, everything):
    """All cases; interpreted, those in which at most one entry grants less than everything."""
    if not INTERPRETED:
        return cases
    return [case for case in cases if sum(right != everything for right in rights(case)) <= 1]


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
        """Map a page, with what tables it takes; the root, and each entry's address by level."""
        root = table = self.take() if root is None else root
        places = {}
        for at in range(levels, level - 1, -1):
            places[at] = table + 8 * (gva >> (3 + 9 * at) & 511)
            if at > level:
                if not self.words.get(places[at]):
                    self.words[places[at]] = self.take() | link
                elif self.words[places[at]] & PS:
                    return root, places  # met a large page
                table = self.words[places[at]] & 0xF_FFFF_FFFF_F000
        self.words[places[level]] = leaf | (PS if level > 1 else 0)
        return root, places


def ask(pages, gva, *, cr3, nested=None, access="read", user=True, control=None, update=False):
    """Both answers, each a dictionary of `manual.FIELDS`, and `left`: the words that each changed."""
    control = control or manual.Control()
    before = pages.array()
    array = before.copy()
    found = mmu.translate(
        mmu.Memory.from_words(array, pages.base), gva, cr3=cr3, nested=package(nested),
        access=access, user=user, control=package(control), update=update,
    )  # fmt: skip
    answer = {name: getattr(found, name) for name in manual.FIELDS}
    answer["outcome"] = found.outcome.name
    changed = np.flatnonzero(array != before)
    answer["left"] = {pages.base + 8 * int(i): int(array[i]) for i in changed}
    by_rules = manual.translate(
        manual.Words(pages.words, pages.base, 8 * len(array)), gva, cr3=cr3, nested=nested,
        access=access, user=user, control=control, update=update,
    )  # fmt: skip
    expected = {name: getattr(by_rules, name) for name in manual.FIELDS}
    expected["outcome"] = by_rules.outcome.name
    expected["left"] = expected["updates"] if update else {}
    for place in expected["left"]:  # the next question is about the same memory
        pages.words[place] = int(before[(place - pages.base) // 8])
    return answer, expected


def agree(pages, gva, **question):
    """The answer, which must be the manual's in every field."""
    answer, expected = ask(pages, gva, **question)
    different = {
        name: f"found {answer[name]!r}, manual says {expected[name]!r}"
        for name in answer
        if answer[name] != expected[name]
    }
    assert not different, (f"{gva:#x}", question, different)
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


def identity(pages, first=8, last=16):
    """Guest tables of 1 GiB pages that map addresses to themselves, all marked.

    Covers the top-level indices first..last - 1; returns the guest's root.
    """
    root = pages.take()
    for i4 in range(first, last):
        pages.put(root, i4, (table := pages.take()) | P | W | U | A)
        for i3 in range(32):
            pages.put(table, i3, i4 << 39 | i3 << 30 | P | W | U | A | D | PS)
    return root


class Guest:
    """A 4 KiB page of a guest: its addresses, and where its entries stand."""

    gva, gpa, data = 0x12_3456_7678, 0x120_4080_5678, 0x80_0000_0000
    cr3 = nested = 0  # roots

    def __init__(self):
        self.tables = {at: 0x1_0000_0000 * at for at in range(4, 0, -1)}  # GPA, by level
        self.entries = {}  # machine address, by level
        self.backing = {}  # nested entries' addresses by level, by the table they map; 0: the data


def one_page(levels=4, level=1, leaf=7 | WB, marks=A | D, table_leaf=7 | WB, table_at=None, link=7):
    """A 4 KiB page of a guest, in a nested page of `level`.

    `marks` are set in the guest's entries as far as they have them; `table_leaf` maps the guest's table
    of level `table_at`, or all. Returns pages, guest, guest.backing.
    """
    pages, guest = Pages(), Guest()
    guest.nested = pages.take()
    guest.cr3 = guest.tables[4]
    usual = table_leaf if table_at is None else link | (WB if link == 7 and leaf & WB else 0)

    def back(gpa, frame, level, leaf):
        table, found = guest.nested, {}
        for at in range(levels, level, -1):
            place = found[at] = table + 8 * (gpa >> (3 + 9 * at) & 511)
            if place not in pages.words:
                pages.words[place] = pages.take() | link
            table = pages.words[place] & ~0xFFF
        place = found[level] = table + 8 * (gpa >> (3 + 9 * level) & 511)
        pages.words[place] = frame | leaf | (PS if level > 1 else 0)
        return found

    for at, gpa in guest.tables.items():
        frame = pages.take()
        guest.entries[at] = frame + 8 * (guest.gva >> (3 + 9 * at) & 511)
        guest.backing[at] = back(gpa, frame, 1, table_leaf if table_at == at else usual)
        target = guest.tables[at - 1] if at > 1 else guest.gpa & ~0xFFF
        pages.words[guest.entries[at]] = target | P | W | U | marks & (A | D if at == 1 else A)
    size = PAGE << 9 * (level - 1)
    guest.backing[0] = back(guest.gpa & ~(size - 1), guest.data, level, leaf)
    return pages, guest, guest.backing
