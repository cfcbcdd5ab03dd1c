"""Which entries each invalidation drops, judged entry by entry by the manuals' tables."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.config import Processor
from mmu.hardware.geometry import build_machine, processor_rows, view_of
from mmu.hardware.invalidate import (
    flush,
    invept,
    invlpg,
    invlpga,
    invpcid,
    invvpid,
    load_cr3,
    load_cr4,
    purge,
    tlb_control,
)
from mmu.hardware.rows import ENTRY_CACHE, NESTED, WALK_CACHE, set_of
from mmu.hardware.rules import x86_rules
from mmu.hardware.tlb import tag_key

LATENCIES = {"l2": 9, "walk_cache": 1, "nested_tlb": 1, "reference": 14, "update": 20}
PROCESSOR = Processor(
    name="test",
    frequency_hz=10**9,
    l1_data=[
        {"entries": 8, "ways": 4, "sizes": ["4k", "2m"]},
        {"entries": 3, "ways": 3, "sizes": ["1g"]},
    ],
    l1_fetch=[{"entries": 6, "ways": 2, "sizes": ["4k"]}],
    l2=[{"entries": 16, "ways": 4, "sizes": ["4k", "2m"], "index": "xor-2"}],
    walk_caches={"pde": {"entries": 8, "ways": 4}, "pml4e": {"entries": 2, "ways": 2}},
    page_walk_cache={"entries": 8, "ways": 4, "levels": [2, 3], "nested": True},
    nested_tlb={"entries": 6, "ways": 3, "sizes": ["4k", "2m"]},
    latencies=LATENCIES,
)
GROUPS = processor_rows(PROCESSOR, ("4k", "2m", "1g"))
OWNERS = 4  # three guests, and the hypervisor, VPID 0
HOST = 3
GLOBAL = None
# (vm, pcid, nested tables): numbers 10 and up are EPT roots; None: no nested tables.
CONTEXTS = [
    (HOST, 0, None), (HOST, 5, None), (HOST, GLOBAL, None),
    (0, 0, 10), (0, 5, 10), (0, 6, 10), (0, GLOBAL, 10),
    (0, 5, 11), (0, GLOBAL, 11),
    (1, 0, 12), (1, 5, 12), (1, GLOBAL, 12),
    (2, 5, None), (2, GLOBAL, None),
    (1, 5, 10),
]  # fmt: skip
# Few pages, near one another, so that ranges of all sizes overlap.
PAGES = [0, 1, 2, 511, 512, 513, 1 << 18, (1 << 18) + 1, (1 << 36) - 1, -1, -512]


@dataclass(frozen=True)
class Cached:
    """What a slot holds, in plain terms."""

    what: str  # "page", "table" or "gpa"; "entry" or "nested entry" of a table
    row: int
    context: int  # of "gpa" and "nested entry": the nested tables
    first: int  # 4 KiB page at which it begins
    size: int  # code of its own size; of a table: its level
    guest: int  # code of the guest page's size

    def tags(self):
        return CONTEXTS[self.context]

    def translates(self, gva):
        """The guest's page that this is a translation of, or of a part of, holds the address.

        Which addresses an entry of a table translates is not known where it is kept.
        """
        if self.what == "entry":
            return True
        number = 9 * (self.size if self.what == "table" else self.guest)
        return self.first >> number == (gva >> 12 & (1 << 45) - 1) >> number


def empty_machine():
    memory = np.zeros(512, np.int64)
    machine = view_of(
        build_machine(GROUPS, OWNERS, memory, x86_rules(), contexts=len(CONTEXTS), pge=True)
    )
    for number, (vm, pcid, tables) in enumerate(CONTEXTS):
        machine.vm[number] = vm
        machine.pcid[number] = -1 if pcid is GLOBAL else pcid
        machine.nested_tag[number] = -1 if tables is None else tables
        shared = (vm, GLOBAL, tables)
        if pcid is not GLOBAL and shared in CONTEXTS:
            machine.global_context[number] = CONTEXTS.index(shared)
    return machine


def rows_of(machine):
    """Row number, kind, and code of its size, of each cache that is there."""
    rows = machine.rows
    for row in range(len(rows.first)):
        if rows.ways[row]:
            tables = row >= rows.begin[WALK_CACHE]
            kind = "page" if row < rows.begin[NESTED] else "table" if tables else "gpa"
            if row >= rows.begin[ENTRY_CACHE]:
                yield row, "nested entry" if rows.size[row] else "entry", 0
                continue
            yield row, kind, int(rows.size[row]) + (kind == "table")


def put(machine, row, cached):
    """Put an entry behind those of its set, if there is room."""
    rows = machine.rows
    shift = 9 * cached.size
    signed = cached.first - (cached.first >> 44 << 45)  # as the upper half's addresses are
    page = signed >> shift & (1 << 45) - 1
    number = set_of(page, rows.fold[row], rows.mask[row], rows.sets[row])
    start = int(rows.first[row] + number * rows.ways[row])
    for slot in range(start, start + int(rows.ways[row])):
        if machine.tag[slot] == -1:
            size = (
                0 if cached.what == "table" else int(cached.what == "nested entry") or cached.size
            )
            machine.tag[slot] = tag_key(cached.context, page, size)
            machine.frame[slot] = slot << 12 | cached.size << 4 | cached.guest << 7
            return slot
    return None


@st.composite
def filled(draw):
    """A machine, and what stands in which slot."""
    machine, there = empty_machine(), {}
    for row, kind, size in rows_of(machine):
        for page in draw(st.lists(st.sampled_from(PAGES), max_size=6)):
            first = (page & (1 << 45) - 1) >> 9 * size << 9 * size
            if kind in ("gpa", "nested entry"):
                cached = Cached(
                    kind, row, draw(st.integers(10, 12)), first & (1 << 36) - 1, size, size
                )
            elif kind in ("table", "entry"):
                own = [n for n, (_, pcid, _) in enumerate(CONTEXTS) if pcid is not GLOBAL]
                cached = Cached(kind, row, draw(st.sampled_from(own)), first, size, 0)
            else:
                context = draw(st.integers(0, len(CONTEXTS) - 1))
                cached = Cached(kind, row, context, first, size, draw(st.integers(size, 2)))
            slot = put(machine, row, cached)
            if slot is not None:
                there[slot] = cached
    return machine, there


def same_pcid(entry, pcid, with_global):
    own = entry.tags()[1]
    return with_global if own is GLOBAL else own == pcid


def dropped_pages_and_tables(entry, vm, pcid, gva, *, with_global, tables):
    """One address: of the pages those of its guest page, of the tables `tables` says which."""
    owner, own, _ = entry.tags()
    if owner != vm or not (
        (pcid is None and (own is not GLOBAL or with_global)) or same_pcid(entry, pcid, with_global)
    ):
        return False
    return (entry.what == "table" and tables == "all") or entry.translates(gva)


def of_vm(entry, vm, *, with_global=True):
    owner, pcid, _ = entry.tags()
    return owner == vm and (with_global or pcid is not GLOBAL)


GUEST = 4  # the current context: VM 0, PCID 5, tables 10
GVA = st.sampled_from(PAGES).map(lambda page: page << 12 | 0x123)
not_gpa = "gpa stays"


def gpa(tables):
    return lambda entry: tables is None or entry.context in tables


# name: (run it, which page and table entries must go, which guest-physical ones)
INSTRUCTIONS = {
    "INVLPG": (
        lambda m, gva: invlpg(m, GUEST, gva),
        lambda e, gva: dropped_pages_and_tables(e, 0, 5, gva, with_global=True, tables="all"),
        not_gpa,
    ),
    "INVPCID 0": (
        lambda m, gva: invpcid(m, 0, GUEST, 6, gva),
        lambda e, gva: dropped_pages_and_tables(e, 0, 6, gva, with_global=False, tables="its"),
        not_gpa,
    ),
    "INVPCID 1": (
        lambda m, gva: invpcid(m, 1, GUEST, 6, gva),
        lambda e, gva: e.tags()[:2] == (0, 6),
        not_gpa,
    ),
    "INVPCID 2": (
        lambda m, gva: invpcid(m, 2, GUEST, 6, gva), lambda e, gva: of_vm(e, 0), not_gpa,
    ),
    "INVPCID 3": (
        lambda m, gva: invpcid(m, 3, GUEST, 6, gva),
        lambda e, gva: of_vm(e, 0, with_global=False),
        not_gpa,
    ),
    "INVVPID 0": (
        lambda m, gva: invvpid(m, 0, 1, gva),
        lambda e, gva: dropped_pages_and_tables(e, 1, None, gva, with_global=True, tables="its"),
        not_gpa,
    ),
    "INVVPID 1": (lambda m, gva: invvpid(m, 1, 1, gva), lambda e, gva: of_vm(e, 1), not_gpa),
    "INVVPID 2": (
        lambda m, gva: invvpid(m, 2, 1, gva), lambda e, gva: e.tags()[0] != HOST, not_gpa,
    ),
    "INVVPID 3": (
        lambda m, gva: invvpid(m, 3, 1, gva),
        lambda e, gva: of_vm(e, 1, with_global=False),
        not_gpa,
    ),
    "INVEPT 1": (
        lambda m, gva: invept(m, 1, 10), lambda e, gva: e.tags()[2] == 10, gpa({10}),
    ),
    "INVEPT 2": (
        lambda m, gva: invept(m, 2, 10), lambda e, gva: e.tags()[2] is not None, gpa(None),
    ),
    "MOV CR3": (
        lambda m, gva: load_cr3(m, GUEST, 0), lambda e, gva: e.tags()[:2] == (0, 5), not_gpa,
    ),
    "MOV CR3 with bit 63": (
        lambda m, gva: load_cr3(m, GUEST, 1), lambda e, gva: False, not_gpa,
    ),
    "MOV CR4 that changes PGE": (
        lambda m, gva: load_cr4(m, GUEST, 1), lambda e, gva: of_vm(e, 0), not_gpa,
    ),
    "MOV CR4 that sets SMEP": (
        lambda m, gva: load_cr4(m, GUEST, 0), lambda e, gva: e.tags()[:2] == (0, 5), not_gpa,
    ),
    "VM entry without tags": (
        lambda m, gva: flush(m, False), lambda e, gva: True, not_gpa,
    ),
    "VM entry without tags, nested TLB too": (
        lambda m, gva: flush(m, True), lambda e, gva: True, gpa(None),
    ),
    "purge": (lambda m, gva: purge(m, 0), lambda e, gva: of_vm(e, 0), not_gpa),
    "TLB_CONTROL 0": (
        lambda m, gva: tlb_control(m, 0, 0), lambda e, gva: False, not_gpa,
    ),
    "TLB_CONTROL 1": (
        lambda m, gva: tlb_control(m, 1, 0), lambda e, gva: True, gpa(None),
    ),
    "TLB_CONTROL 3": (
        lambda m, gva: tlb_control(m, 3, 0), lambda e, gva: of_vm(e, 0), gpa({10, 11}),
    ),
    "TLB_CONTROL 7": (
        lambda m, gva: tlb_control(m, 7, 0),
        lambda e, gva: of_vm(e, 0, with_global=False),
        gpa({10, 11}),
    ),
    "INVLPGA": (
        lambda m, gva: invlpga(m, 1, gva),
        lambda e, gva: dropped_pages_and_tables(e, 1, None, gva, with_global=True, tables="all"),
        not_gpa,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INSTRUCTIONS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_an_invalidation_drops_what_its_scope_says_and_nothing_else(name, data):
    run, drops, drops_gpa = INSTRUCTIONS[name]
    machine, there = data.draw(filled())
    gva = data.draw(GVA)
    before = {slot: int(machine.tag[slot]) for slot in there}
    run(machine, gva)

    def goes(cached):
        if cached.what in ("gpa", "nested entry"):
            return drops_gpa is not not_gpa and drops_gpa(cached)
        return drops(cached, gva)

    kept = {slot: cached for slot, cached in there.items() if not goes(cached)}
    # An entry is known by its frame, which names the slot that it was put into.
    found = {
        int(machine.frame[slot]) >> 12: int(word)
        for slot, word in enumerate(machine.tag)
        if word != -1
    }
    assert found == {slot: before[slot] for slot in kept}


@pytest.mark.parametrize("name", INSTRUCTIONS)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_entries_that_stay_keep_their_order_in_front_of_the_empty_slots(name, data):
    run, _, _ = INSTRUCTIONS[name]
    machine, _ = data.draw(filled())
    run(machine, data.draw(GVA))
    rows = machine.rows
    for row in range(len(rows.first)):
        ways = int(rows.ways[row])
        for number in range(int(rows.sets[row]) if ways else 0):
            start = int(rows.first[row]) + number * ways
            words = machine.tag[start : start + ways].tolist()
            there = [word for word in words if word != -1]
            assert words == there + [-1] * (ways - len(there))
            frames = machine.frame[start : start + len(there)].tolist()
            assert frames == sorted(frames)
