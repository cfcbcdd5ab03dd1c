"""Instructions, and faults, that forget to drop some of what they must: the entries are put back."""

from typing import NamedTuple

from mmu.hardware import invalidate
from mmu.hardware.machine import GLOBAL
from mmu.hardware.rows import (
    CONTEXT_SHIFT,
    EMPTY,
    ENTRY_CACHE,
    NESTED,
    NUMBER_SHIFT,
    PAGE_NUMBER_MASK,
    SIZE_BITS,
    SIZE_SHIFT,
    WALK_CACHE,
)
from mmu.hardware.tlb import guest_size
from mmu.testing import processor

# Functions of `mmu.hardware.invalidate` by instruction, and their first argument where it has types.
FUNCTIONS = {
    "INVLPG": ("invlpg", None),
    "MOV CR3": ("load_cr3", None),
    "CR4.PGE": ("load_cr4", None),
    "INVLPGA": ("invlpga", None),
    "exit and entry": ("flush", None),
    **{f"INVPCID {kind}": ("invpcid", kind) for kind in range(4)},
    **{f"INVVPID {kind}": ("invvpid", kind) for kind in range(4)},
    **{f"INVEPT {kind}": ("invept", kind) for kind in (1, 2)},
    **{f"TLB_CONTROL {code}": ("tlb_control", code) for code in (1, 3, 7)},
}


class Entry(NamedTuple):
    """What a slot holds."""

    kind: str  # "page", "table" or "gpa"
    vm: int  # number of its owner, which a "gpa" has none of
    pcid: int
    tables: int
    page: int  # of its own size
    size: int
    guest: int  # size of the guest's page

    def holds(self, gva):
        """Whether its own page, and not just the guest's, holds an address."""
        shift = 12 + 9 * self.size
        return not ((gva >> shift) ^ self.page) & PAGE_NUMBER_MASK >> 9 * self.size


# What is put back: of an entry, whether it is.
everything = lambda entry: True  # noqa: E731
pages = lambda entry: entry.kind == "page"  # noqa: E731
tables = lambda entry: entry.kind == "table"  # noqa: E731
guest_physical = lambda entry: entry.kind == "gpa"  # noqa: E731
global_pages = lambda entry: entry.kind == "page" and entry.pcid == GLOBAL  # noqa: E731


def splinters_but(gva):
    """Of a large page of a guest, all pieces but that of an address."""
    return lambda entry: (
        entry.kind == "page" and entry.guest > entry.size and not entry.holds(gva)
    )  # fmt: skip


def tables_but(gva):
    return lambda entry: entry.kind == "table" and not entry.holds(gva)


def of_pcid(pcid):
    return lambda entry: entry.pcid == pcid


def of_vm(number):
    return lambda entry: entry.vm == number


def of_tables(number):
    return lambda entry: entry.tables == number


def arrays(machine):
    """First row, first slot, sets and ways of each array."""
    rows, before = machine.rows, None
    for row in range(len(rows.first)):
        first, ways = int(rows.first[row]), int(rows.ways[row])
        if ways and first != before:
            yield row, first, int(rows.sets[row]), ways
            before = first


def entry_of(machine, row, word, frame):
    begin = machine.rows.begin
    context, page = word >> CONTEXT_SHIFT, word >> NUMBER_SHIFT & PAGE_NUMBER_MASK
    size = word >> SIZE_SHIFT & SIZE_BITS
    if begin[NESTED] <= row < begin[WALK_CACHE]:
        return Entry("gpa", -2, -2, context, page, size, size)
    if row >= begin[ENTRY_CACHE] and word >> SIZE_SHIFT & SIZE_BITS:
        return Entry("nested entry", -2, -2, context, page, 0, 0)
    tags = (int(field[context]) for field in (machine.vm, machine.pcid, machine.nested_tag))
    if row >= begin[ENTRY_CACHE]:
        return Entry("entry", *tags, page, 0, 0)
    if row >= begin[WALK_CACHE]:
        level = row - int(begin[WALK_CACHE]) + 1
        return Entry("table", *tags, page, level, level)
    return Entry("page", *tags, page, size, guest_size(frame))


def put_back(machine, tag, frame, forgotten):
    """Restore entries that are gone since `tag` and `frame` were copied; others keep their order."""
    for row, first, sets, ways in arrays(machine):
        for start in range(first, first + sets * ways, ways):
            there = set(machine.tag[start : start + ways].tolist())
            free = start
            for slot in range(start, start + ways):
                word, value = int(tag[slot]), int(frame[slot])
                if word != EMPTY and (
                    word in there or forgotten(entry_of(machine, row, word, value))
                ):
                    machine.tag[free], machine.frame[free] = word, value
                    free += 1
            machine.tag[free : start + ways] = EMPTY


def weaken(monkeypatch, name, forgotten):
    """Let an instruction forget some of what it must drop."""
    function, kind = FUNCTIONS[name]
    right = getattr(invalidate, function)

    def weak(machine, *arguments):
        if kind is not None and arguments[0] != kind:
            right(machine, *arguments)
            return
        tag, frame = machine.tag.copy(), machine.frame.copy()
        right(machine, *arguments)
        put_back(machine, tag, frame, forgotten)

    monkeypatch.setattr(invalidate, function, weak)


def weaken_faults(monkeypatch, forgotten):
    """Let faults forget some of what they must drop."""
    right = processor.make_checked

    def weak(machine, *arguments):
        tag, frame = machine.tag.copy(), machine.frame.copy()
        done = right(machine, *arguments)
        if done == 0:
            put_back(machine, tag, frame, forgotten)
        return done

    monkeypatch.setattr(processor, "make_checked", weak)
