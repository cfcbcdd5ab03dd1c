"""What a fault leaves in the caches, and what a cache may make of one."""

import pytest

import mmu
from mmu.hardware.rows import WALK_CACHE
from mmu.testing.processor import CheckedProcessor
from mmu.testing.tables import ACCESSED, DIRTY, EPT_DIRTY, FRAME, GLOBAL, TableMemory, Tables

GVA, NEXT, NOTHING, DATA = 0x1000, 0x2000, 0x3000, 0x40_0000


def started(dirty=True, bits=0):
    """A processor in a VM whose pages GVA and NEXT are mapped, GVA's entries with `bits`."""
    memory = TableMemory(64)
    nested = Tables(memory, "ept", dirty=dirty)
    guest = Tables(memory, nested=nested)
    guest.map(GVA, DATA, bits=bits, link_bits=bits)
    guest.map(NEXT, DATA + 0x1000)
    nested.map(DATA, 0x4000_0000, "2m")
    cpu = CheckedProcessor(memory.view)
    cpu.enter(1, nested.pointer, guest.root)
    return cpu, guest, nested


def walk_caches(cpu):
    """How many tables the walk caches know."""
    machine = cpu._machine
    first = machine.rows.first[machine.rows.begin[WALK_CACHE]]
    return int((machine.tag[first:] != -1).sum())


def test_a_walk_that_begins_again_at_the_root_keeps_each_table_once():
    """Else #PF, which must drop what is kept of its address, would leave the second of a kind."""
    cpu, guest, nested = started(dirty=False, bits=ACCESSED)
    table = guest.path(GVA)[-2].word & FRAME
    nested.protect(table, "rx")
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    assert walk_caches(cpu) == 3
    assert cpu.access(NEXT).outcome == mmu.Outcome.NESTED_VIOLATION  # to set its accessed bit
    nested.protect(table, "rwx")  # no invalidation is needed
    assert cpu.access(NEXT).outcome == mmu.Outcome.OK
    assert walk_caches(cpu) == 3
    assert cpu.access(NOTHING).outcome == mmu.Outcome.PAGE_FAULT
    assert walk_caches(cpu) == 0


def test_a_misconfiguration_drops_nothing():
    """SDM: a page fault and an EPT violation drop entries; of a misconfiguration it says nothing."""
    cpu, _, nested = started()
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    leaf = nested.leaf(DATA)
    kept = set(cpu._machine.tag.tolist())
    nested.put(DATA, leaf.level, leaf.word & ~(7 << 3) | 3 << 3)  # a memory type that there is not
    assert cpu.access(GVA, "write").outcome == mmu.Outcome.NESTED_MISCONFIGURATION
    assert set(cpu._machine.tag.tolist()) == kept
    with pytest.raises(mmu.errors.StaleTranslation, match="by the L1 TLB"):
        cpu.access(GVA)


@pytest.mark.parametrize("entry", [0, 1 << 51 | 7])
def test_a_fault_in_a_table_that_was_replaced_is_no_spurious_one(entry):
    """What is not present, or malformed, is cached nowhere; the tables have no such entry."""
    cpu, guest, _ = started()
    guest.put(NOTHING, 1, entry)
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    guest.map(NOTHING + (1 << 30), DATA)
    guest.share(NOTHING, guest, 2, NOTHING + (1 << 30))  # another table, without INVLPG
    with pytest.raises(mmu.errors.StaleTranslation) as caught:
        cpu.access(NOTHING)
    assert "walk caches and nested TLB with a page fault; the tables say 0x4" in str(caught.value)


def test_a_page_fault_for_another_reason_than_the_tables_have_is_reported():
    cpu, guest, _ = started()
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    guest.map(NOTHING + (1 << 30), DATA, rights="rx")
    guest.share(NOTHING, guest, 2, NOTHING + (1 << 30))
    with pytest.raises(mmu.errors.StaleTranslation) as caught:
        cpu.access(NOTHING)
    assert "a page fault, error code 0x4; the tables say PAGE_FAULT, error code 0x5" in str(
        caught.value
    )


def test_a_nested_fault_on_the_way_of_an_old_table_is_no_spurious_one():
    cpu, guest, _ = started()
    guest.put(NOTHING, 1, DATA * 2 | 7)  # which nothing backs
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    guest.map(NOTHING + (1 << 30), DATA)
    guest.share(NOTHING, guest, 2, NOTHING + (1 << 30))
    with pytest.raises(mmu.errors.StaleTranslation, match="with a nested violation"):
        cpu.access(NOTHING)


def test_a_right_that_was_added_above_gives_a_spurious_fault():
    cpu, guest, _ = started()
    place = guest.path(GVA)[-2].place
    word = guest.memory.read(place)
    guest.memory.write(place, word & ~2)
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    guest.memory.write(place, word)
    found = cpu.access(NEXT, "write")
    assert (found.outcome, found.spurious) == (mmu.Outcome.PAGE_FAULT, True)
    assert cpu.access(NEXT, "write").outcome == mmu.Outcome.OK


def stays_clear(caught):
    return "with a walk that left" in str(caught.value) and "clear in the entry" in str(
        caught.value
    )


def test_a_walk_by_way_of_a_table_that_has_moved_is_met_by_its_accessed_bit():
    """The copy translates alike, but the walk marks the old table, which may be anybody's by now."""
    memory = TableMemory(64)
    guest = Tables(memory)
    guest.map(GVA, DATA)
    guest.map(NEXT, DATA + 0x1000)
    cpu = CheckedProcessor(memory.view)
    cpu.load_cr3(guest.root)
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    pointer = guest.path(GVA)[-2]
    old, new = pointer.word & FRAME, memory.take()
    for offset in range(0, 4096, 8):
        memory.write(new + offset, memory.read(old + offset))
    memory.write(pointer.place, pointer.word - old + new)
    with pytest.raises(mmu.errors.StaleTranslation) as caught:
        cpu.access(NEXT)
    assert stays_clear(caught)


@pytest.mark.parametrize("form", ["ept", "npt"])
def test_dirty_logging_that_forgets_the_pages_of_guest_tables_is_met(form):
    """A walk writes accessed bits, and the nested entry of the page that it writes to stays clean."""
    memory = TableMemory(64)
    nested = Tables(memory, form)
    guest = Tables(memory, nested=nested)
    guest.map(GVA, DATA)
    guest.map(NEXT, DATA + 0x1000)
    nested.map(DATA, 0x4000_0000, "2m")
    cpu = CheckedProcessor(memory.view)
    cpu.enter(1, nested.pointer, guest.root)
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    leaf = nested.leaf(guest.path(GVA)[-2].word & FRAME)
    memory.write(leaf.place, leaf.word & ~(EPT_DIRTY if form == "ept" else DIRTY))
    with pytest.raises(mmu.errors.StaleTranslation) as caught:
        cpu.access(NEXT)
    assert stays_clear(caught)


def test_a_hit_need_not_set_an_accessed_bit_that_a_walk_could_not():
    """Tables that must not be written, no dirty bits in EPT, and the guest clears an accessed bit."""
    cpu, guest, nested = started(dirty=False, bits=ACCESSED)
    nested.protect(guest.path(GVA)[-2].word & FRAME, "rx")
    assert cpu.access(GVA).outcome == mmu.Outcome.OK
    entry = guest.path(GVA)[-1]
    guest.memory.write(entry.place, entry.word & ~ACCESSED)
    assert cpu.access(GVA).answered_by == "l1"


@pytest.mark.parametrize("at_first", [True, False])
def test_a_page_that_becomes_global_or_is_so_no_longer_is_kept_once(at_first):
    """Else the old entry, which denies writes while the page is clean, is found first for ever."""
    memory = TableMemory(64)
    guest = Tables(memory)
    guest.map(GVA, DATA, bits=0 if at_first else GLOBAL)
    cpu = CheckedProcessor(memory.view)
    cpu.load_cr3(guest.root)
    cpu.access(GVA)
    entry = guest.path(GVA)[-1]
    memory.write(entry.place, entry.word ^ GLOBAL)
    found = [cpu.access(GVA, "write").answered_by for _ in range(3)]
    assert found == ["walk", "l1", "l1"]
