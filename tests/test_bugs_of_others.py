"""Defects that processors, simulators, hypervisors and kernels have shipped, each as a test of its own.

Those of walks alone are in test_exact_walks.py. Each name says what must hold; the docstring where it did
not.
"""

import pytest
from processors_for_tests import LARGE_TLBS, SMALL_TLBS
from scripted_changes import VM, A, B, Script
from systems import KERNEL, LARGE, address_of

from mmu.errors import StaleTranslation
from mmu.hardware import machine as events
from mmu.hardware.outcome import Outcome
from mmu.testing.processor import KEEP, CheckedProcessor
from mmu.testing.tables import PAGE, TableMemory, Tables

FRAME, OTHER = 1 << 32, 1 << 33


class Bare:
    """One VM whose guest maps what is asked for, over nested tables; invalidates nothing by itself."""

    def __init__(
        self, form="ept", made_of=LARGE_TLBS, nested_size="4k", guest_size="2m", **options
    ):
        self.memory = TableMemory(pages=96)
        self.nested = Tables(self.memory, form) if form else None
        self.guest = Tables(self.memory, nested=self.nested)
        self.guest.map(0, 0, guest_size)
        if form:
            self.nested.map(0, FRAME, "2m")
            if nested_size == "4k":
                self.nested.split(0)
        self.cpu = CheckedProcessor(self.memory.view, made_of, pcide=True, **options)
        self.enter()

    def enter(self, vm_id=1):
        if self.nested:
            self.cpu.enter(vm_id, self.nested.pointer, self.guest.root)
        else:
            self.cpu.load_cr3(self.guest.root)


@pytest.mark.parametrize("instruction", ["invlpg", "invpcid", "invvpid", "invlpga"])
def test_invalidating_one_address_drops_all_fragments_of_its_large_page(instruction):
    """OpenXiangShan NEMU 1175, GEM5 200 and 202: only the fragment of that address went."""
    bare = Bare("npt" if instruction == "invlpga" else "ept")
    touched = [PAGE * piece for piece in (0, 1, 7, 100, 511)]
    for gva in touched:
        bare.cpu.access(gva)
    bare.nested.map(4 * LARGE, OTHER, "2m")
    bare.nested.split(4 * LARGE)
    bare.guest.move(0, 4 * LARGE)
    {
        "invlpg": lambda: bare.cpu.invlpg(PAGE * 7),
        "invpcid": lambda: bare.cpu.invpcid(0, 0, PAGE * 7),
        "invvpid": lambda: bare.cpu.invvpid(0, 1, PAGE * 7),
        "invlpga": lambda: bare.cpu.invlpga(PAGE * 7, 1),
    }[instruction]()
    for gva in touched:
        found = bare.cpu.access(gva)
        assert (found.answered_by, found.maddr) == ("walk", OTHER + gva)


@pytest.mark.parametrize("large", ["guest", "nested"])
def test_an_entry_is_of_the_smaller_page_and_hits_nowhere_else(large):
    """OpenXiangShan GEM5 202: a fragment was looked up, and dropped, as if it were the large page."""
    bare = Bare(
        nested_size="4k" if large == "guest" else "2m",
        guest_size="2m" if large == "guest" else "4k",
    )
    bare.cpu.access(0)
    assert bare.cpu.access(64).answered_by == "l1"
    if large == "nested":
        bare.guest.map(PAGE, PAGE)
    assert bare.cpu.access(PAGE).answered_by == "walk"


def test_an_entry_has_the_tags_with_which_its_walk_began():
    """bsc-loca sargantana 112: filled with the mode at its end; openhwgroup cva6 3475: with another's."""
    script = Script("ept", None)
    made = []
    for number, pcid in ((1, 1), (1, 2), (3, 1), (0, 1)):
        script.run(number)
        script.load_cr3(pcid - 1, pcid)
        made.append((number, pcid, script.access(A).maddr))
    assert len({maddr for *_, maddr in made}) == 4
    for number, pcid, maddr in made:
        script.run(number)
        script.load_cr3(pcid - 1, pcid)
        found = script.access(A)
        assert (found.answered_by, found.maddr) == ("l1", maddr)


def test_what_runs_without_nested_tables_meets_nothing_of_who_has_them():
    """gem5 PR 3434 and openhwgroup cva6 3475: the stage 2 of whoever ran before."""
    script = Script("ept", None)
    script.run(1)
    script.access(A)
    script.run(0)
    found = script.access(A)
    assert {step.dimension for step in found.tables.steps} == {"guest"}
    assert (found.answered_by, found.references) == ("walk", 4)
    script.run(1)
    assert script.access(A).answered_by == "l1"


@pytest.mark.parametrize("kind", [1, 2])
def test_a_guest_physical_invalidation_drops_combined_entries_of_that_vm(kind):
    """riscv-isa-manual 550 and 793: TLBs that keep no guest-physical address cannot find them by it."""
    bare = Bare()
    for vm_id in (1, 2):
        bare.enter(vm_id)
        bare.cpu.access(0)
    bare.nested.move(0, OTHER)
    bare.cpu.invept(kind, bare.nested.root)
    for vm_id in (1, 2):
        bare.enter(vm_id)
        found = bare.cpu.access(0)
        assert (found.answered_by, found.maddr) == ("walk", OTHER)


@pytest.mark.parametrize("form", ["ept", "npt", None])
def test_a_miss_is_counted_once_and_not_again_when_its_fill_is_replayed(form):
    """gem5 484: the look-up after the fill was another miss."""
    bare = Bare(form)
    counted = bare.cpu._machine.events[0]
    for _ in range(2):
        bare.cpu.access(0)
        assert counted[events.WALKS] == counted[events.L1_DATA_MISSES] == 1
        assert counted[events.L2_LOOKUPS] == 1


@pytest.mark.parametrize("form", ["ept", "npt"])
def test_a_split_without_invalidation_leaves_the_large_page(form):
    """What "shattered" mappings need: a piece that is moved is still found in the large page."""
    bare = Bare(form, nested_size="2m")
    bare.cpu.access(PAGE)
    bare.nested.split(0)
    bare.nested.move(PAGE, OTHER)
    with pytest.raises(StaleTranslation):
        bare.cpu.access(PAGE)


@pytest.mark.parametrize("form", ["ept", "npt"])
def test_a_split_alone_already_needs_an_invalidation(form):
    """Two page sizes for one address: Intel's machine check on page size change, AMD's erratum 383."""
    bare = Bare(form, nested_size="2m")
    bare.cpu.access(PAGE)
    bare.nested.split(0)
    with pytest.raises(StaleTranslation):
        bare.cpu.access(PAGE)


@pytest.mark.parametrize("dimension", ["guest", "nested"])
@pytest.mark.parametrize("form", ["ept", "npt"])
def test_dirty_logging_without_a_flush_loses_the_next_write(form, dimension):
    """A cached dirty page takes writes and tells nobody; KVM flushes after it has cleared the bits."""
    bare = Bare(form)
    bare.cpu.access(0, "write")
    tables = getattr(bare, dimension)
    leaf = tables.leaf(0)
    bare.memory.write(leaf.place, leaf.word & ~(1 << 9 if tables.form == "ept" else 1 << 6))
    assert bare.cpu.access(PAGE).outcome == Outcome.OK
    with pytest.raises(StaleTranslation):
        bare.cpu.access(0, "write")


@pytest.mark.parametrize("form", ["ept", "npt"])
def test_dirty_logging_with_a_flush_sees_the_next_write(form):
    bare = Bare(form)
    bare.cpu.access(0, "write")
    leaf, bit = bare.nested.leaf(0), 1 << 9 if form == "ept" else 1 << 6
    bare.memory.write(leaf.place, leaf.word & ~bit)
    if form == "ept":
        bare.cpu.invept(1, bare.nested.root)
    else:
        bare.cpu.tlb_control(3)
    bare.cpu.access(0, "write")
    assert bare.memory.read(leaf.place) & bit


def two_pcids():
    """A page cached under PCIDs 1 and 2, of which 2 runs; it is moved."""
    bare = Bare(guest_size="4k")
    for pcid in (1, 2):
        bare.cpu.load_cr3(bare.guest.root | pcid)
        bare.cpu.access(0)
    bare.guest.move(0, PAGE)
    return bare


@pytest.mark.parametrize("instruction", ["INVLPG", "INVPCID 0", "INVPCID 1", "MOV CR3"])
def test_what_invalidates_one_pcid_leaves_the_others_entry(instruction):
    """Linux with PTI: the user half has a PCID of its own, which INVLPG in the other misses."""
    bare = two_pcids()
    {
        "INVLPG": lambda: bare.cpu.invlpg(0),
        "INVPCID 0": lambda: bare.cpu.invpcid(0, 2, 0),
        "INVPCID 1": lambda: bare.cpu.invpcid(1, 2),
        "MOV CR3": lambda: bare.cpu.load_cr3(bare.guest.root | 2),
    }[instruction]()
    assert bare.cpu.access(0).maddr == FRAME + PAGE
    bare.cpu.load_cr3(bare.guest.root | 1 | KEEP)
    with pytest.raises(StaleTranslation):
        bare.cpu.access(0)


def test_loading_the_pcid_with_bit_63_clear_drops_its_entry():
    bare = two_pcids()
    bare.cpu.load_cr3(bare.guest.root | 1)
    assert bare.cpu.access(0).maddr == FRAME + PAGE


@pytest.mark.parametrize(
    "instruction", ["INVVPID 0", "INVVPID 1", "INVVPID 2", "INVLPG", "CR4.PGE"]
)
def test_what_invalidates_by_vm_or_address_leaves_guest_physical_entries(instruction):
    """VPID or linear flushes in place of INVEPT: the walk that follows takes the old frame."""
    bare = Bare()
    bare.cpu.access(0)
    bare.nested.move(0, OTHER)
    {
        "INVVPID 0": lambda: bare.cpu.invvpid(0, 1, 0),
        "INVVPID 1": lambda: bare.cpu.invvpid(1, 1),
        "INVVPID 2": lambda: bare.cpu.invvpid(2),
        "INVLPG": lambda: bare.cpu.invlpg(0),
        "CR4.PGE": bare.cpu.toggle_pge,
    }[instruction]()
    with pytest.raises(StaleTranslation, match="walk"):
        bare.cpu.access(0)


def test_entries_without_tags_outlive_no_exit_but_guest_physical_ones_do():
    """VPID off: VM exit and entry drop combined entries of VPID 0, and keep guest-physical ones."""
    bare = Bare(made_of=SMALL_TLBS, tagged=False)
    bare.cpu.access(0)
    bare.cpu.exit()
    bare.enter()
    found = bare.cpu.access(0)
    assert (found.answered_by, found.references) == ("walk", 3)  # the guest's alone
    bare.nested.move(0, OTHER)
    bare.cpu.exit()
    bare.enter()
    with pytest.raises(StaleTranslation):
        bare.cpu.access(0)


@pytest.mark.parametrize("flushed", [True, False])
def test_a_root_page_used_again_for_another_vms_tables_needs_invept(flushed):
    """KVM, roots freed and reused: entries are tagged by the root's address, not by whose it is."""
    bare = Bare()
    bare.cpu.access(0)
    bare.nested.move(
        0, OTHER
    )  # as another VM's tables, made where the old ones were, would have it
    if flushed:
        bare.cpu.invept(1, bare.nested.root)
    bare.enter(vm_id=2)
    if flushed:
        assert bare.cpu.access(0).maddr == OTHER
    else:
        with pytest.raises(StaleTranslation):
            bare.cpu.access(0)


@pytest.mark.parametrize("flushed", [True, False])
def test_a_table_page_that_was_freed_lives_on_in_walk_caches(flushed):
    """Linux, "flush before page tables are freed": what is then written into one is taken for entries."""
    bare = Bare(None, guest_size="4k")
    bare.cpu.access(0)
    page = bare.guest.path(0)[2].word & ~0xFFF
    bare.guest.unmap(0)
    if flushed:
        bare.cpu.invpcid(0, 0, 0)
    bare.guest.put(0, 2, 0)
    bare.memory.write(page + 8, OTHER | 7)  # somebody's data
    if flushed:
        assert bare.cpu.access(PAGE).outcome == Outcome.PAGE_FAULT
    else:
        with pytest.raises(StaleTranslation, match="walk"):
            bare.cpu.access(PAGE)


def test_invpcid_of_a_page_leaves_it_if_it_is_global():
    """Linux native_flush_tlb_one_user: INVPCID type 0 in place of INVLPG is no flush of kernel pages."""
    script = Script("ept", "INVPCID 0", with_globals=7)
    script.run(1)
    script.access(KERNEL, user=False)
    script.change_guest(VM, 0, KERNEL, "move", LARGE + PAGE)
    script.cpu.invpcid(0, 0, KERNEL)
    script.needs.clear()
    with pytest.raises(StaleTranslation, match="global"):
        script.access(KERNEL, user=False)


def test_invept_leaves_what_a_vm_without_nested_tables_has():
    """Shadow paging: its linear entries need INVVPID."""
    script = Script("ept", None, shadow=True)
    script.run(3)
    script.access(A)
    script.change_guest(2, 0, A, "move", LARGE)
    script.needs.clear()
    script.cpu.invept(2)
    with pytest.raises(StaleTranslation):
        script.access(A)


def test_invvpid_of_all_vms_leaves_the_hosts():
    """VPID 0 is nobody's to invalidate: the host's own entries need its own instructions."""
    script = Script("ept", None)
    script.access(A)
    script.change_guest(0, 0, A, "move", LARGE)
    script.needs.clear()
    script.cpu.invvpid(2)
    with pytest.raises(StaleTranslation):
        script.access(A)


def test_rights_given_need_no_invalidation_and_the_fault_is_spurious_once():
    """Lazy TLB flushing of Linux and KVM counts on it: at worst one spurious fault."""
    script = Script("ept", "INVLPG")
    script.run(1)
    script.change_link(VM, 0, A, 2, "w")
    script.access(A)
    script.change_link(VM, 0, A, 2, "w")
    assert script.cpu.access(A, "write").spurious
    assert script.cpu.access(A, "write").outcome == Outcome.OK
    assert script.cpu.access(B, "write").outcome == Outcome.OK


@pytest.mark.parametrize("region", [0, 1, 2])
def test_what_was_not_present_needs_no_invalidation(region):
    script = Script("ept", None)
    gva = address_of(region, 1)
    script.run(1)
    script.change_guest(VM, 0, gva, "unmap")
    assert script.access(gva).outcome == Outcome.PAGE_FAULT
    script.change_guest(VM, 0, gva, "map", 0, "4k", "rwxu")
    assert not [need for need in script.needs if need.concerns(1, 0, script.root)]
    script.access(gva)
