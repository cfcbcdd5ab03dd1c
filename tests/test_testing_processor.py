"""The checked processor: what each instruction drops and keeps, and what a report says."""

import textwrap

import numpy as np
import pytest

import mmu
import mmu.testing
from mmu.errors import StaleTranslation
from mmu.testing.processor import KEEP, CheckedProcessor
from mmu.testing.tables import DIRTY, EPT_DIRTY, GLOBAL, TableMemory, Tables

GVA, OTHER, SHARED = 0x1000, 0x2000, 0x3000


def started(form="ept", **options):
    """A processor in VM 1 whose pages GVA, OTHER and, global, SHARED have been accessed."""
    memory = TableMemory(64)
    nested = Tables(memory, form) if form else None
    guest = Tables(memory, nested=nested)
    for gva in (GVA, OTHER, SHARED):
        guest.map(gva, 0x40_0000 + gva, bits=GLOBAL if gva == SHARED else 0)
    if nested:
        nested.map(0x40_0000, 0x4000_0000, "2m")
    cpu = CheckedProcessor(memory.view, **{"pcide": True} | options)
    if nested:
        cpu.enter(1, nested.pointer, guest.root | 5)
    else:
        cpu.load_cr3(guest.root | 5)
    for gva in (GVA, OTHER, SHARED):
        assert cpu.access(gva).answered_by == "walk"
    return cpu, guest, nested


def kept(cpu):
    return {gva for gva in (GVA, OTHER, SHARED) if cpu.access(gva).answered_by != "walk"}


ALL = {GVA, OTHER, SHARED}


@pytest.mark.parametrize(
    ("form", "call", "stays"),
    [
        (None, lambda cpu: cpu.invlpg(GVA), {OTHER, SHARED}),
        (None, lambda cpu: cpu.invlpg(SHARED), {GVA, OTHER}),
        (None, lambda cpu: cpu.invpcid(0, 5, GVA), {OTHER, SHARED}),
        (None, lambda cpu: cpu.invpcid(0, 5, SHARED), ALL),
        (None, lambda cpu: cpu.invpcid(1, 5), {SHARED}),
        (None, lambda cpu: cpu.invpcid(1, 6), ALL),
        (None, lambda cpu: cpu.invpcid(2), set()),
        (None, lambda cpu: cpu.invpcid(3), {SHARED}),
        (None, lambda cpu: cpu.load_cr3(cpu.mode.cr3), {SHARED}),
        (None, lambda cpu: cpu.load_cr3(cpu.mode.cr3 | KEEP), ALL),
        (None, lambda cpu: cpu.toggle_pge(), set()),
        (None, lambda cpu: cpu.invept(2), ALL),
        ("ept", lambda cpu: cpu.invvpid(0, 1, GVA), {OTHER, SHARED}),
        ("ept", lambda cpu: cpu.invvpid(1, 1), set()),
        ("ept", lambda cpu: cpu.invvpid(1, 2), ALL),
        ("ept", lambda cpu: cpu.invvpid(2), set()),
        ("ept", lambda cpu: cpu.invvpid(3, 1), {SHARED}),
        ("ept", lambda cpu: cpu.invept(1, cpu.mode.nested), set()),
        ("ept", lambda cpu: cpu.invept(1, 0x77000), ALL),
        ("npt", lambda cpu: cpu.tlb_control(0), ALL),
        ("npt", lambda cpu: cpu.tlb_control(1), set()),
        ("npt", lambda cpu: cpu.tlb_control(3), set()),
        ("npt", lambda cpu: cpu.tlb_control(3, 2), ALL),
        ("npt", lambda cpu: cpu.tlb_control(7), {SHARED}),
        ("npt", lambda cpu: cpu.invlpga(GVA, 1), {OTHER, SHARED}),
        ("npt", lambda cpu: cpu.invlpga(GVA, 2), ALL),
    ],
)
def test_an_instruction_drops_its_scope_and_nothing_else(form, call, stays):
    cpu, _, _ = started(form)
    call(cpu)
    assert kept(cpu) == stays


@pytest.mark.parametrize("la57", [False, True])
@pytest.mark.parametrize("gva", [GVA | 1 << 63, GVA - (1 << 62), GVA | 1 << 57, GVA | 1 << 47])
def test_an_address_that_is_not_canonical_names_no_page(la57, gva):
    """SDM vol. 2: INVLPG is a NOP then, INVPCID and INVVPID of one address fail."""
    cpu, _, _ = started(None)
    cpu.control = mmu.Control(la57=la57)
    before = cpu._machine.tag.tolist()
    canonical = la57 and gva == GVA | 1 << 47
    cpu.invlpg(gva)
    cpu.invlpga(gva, 0)
    assert (cpu._machine.tag.tolist() == before) != canonical  # INVLPG drops all walk caches, too
    for kind, call in [(0, cpu.invpcid), (0, cpu.invvpid)]:
        if canonical:
            call(kind, 1, gva)
            continue
        with pytest.raises(mmu.InputError, match="not canonical"):
            call(kind, 1, gva)
    cpu.invpcid(3, 0, gva)  # which has no address
    cpu.invvpid(2, 0, gva)


@pytest.mark.parametrize("form", ["ept", "npt"])
@pytest.mark.parametrize("tagged", [True, False])
def test_without_tags_an_exit_and_entry_drops_everything(form, tagged):
    cpu, _, _ = started(form, tagged=tagged)
    mode = cpu.mode
    cpu.exit()
    cpu.enter(1, mode.nested)  # with the CR3 that it had
    assert kept(cpu) == (ALL if tagged else set())


def test_virtual_machines_do_not_meet_each_others_entries():
    cpu, guest, nested = started()
    cpu.enter(2, nested.pointer, guest.root | 5)
    assert cpu.access(GVA).answered_by == "walk"
    cpu.enter(1, nested.pointer)
    assert cpu.access(GVA).answered_by == "l1"


@pytest.mark.parametrize("form", ["ept", "npt"])
def test_a_report_names_the_entry_and_the_instruction(form):
    cpu, _, nested = started(form)
    place, was = nested.leaf(0x40_0000).place, nested.leaf(0x40_0000).word
    nested.move(0x40_0000, 0x8000_0000)
    with pytest.raises(StaleTranslation) as caught:
        cpu.access(GVA)
    text = str(caught.value)
    assert "user read of 0x1000 was answered by the L1 TLB with 0x40001000" in text
    assert "the tables say 0x80001000, 4KiB, urwx, of a guest page" not in text
    assert "the tables say 0x80001000, 4KiB, urwx" in text
    assert f"level 2 at {place:#x} was {was:#x}" in text
    assert ("INVEPT 1" if form == "ept" else "TLB_CONTROL 3 for ASID 1") in text
    assert caught.value.gva == GVA


@pytest.mark.parametrize(("gva", "named"), [(GVA, True), (SHARED, False)])
def test_a_report_names_no_instruction_that_keeps_the_translation(gva, named):
    cpu, guest, _ = started(None)
    guest.move(gva, 0x80_0000)
    with pytest.raises(StaleTranslation, match=f"INVLPG {gva:#x}") as caught:
        cpu.access(gva)
    assert ("INVPCID of PCID 5" in str(caught.value)) == named  # which keeps what is global


def test_a_report_blames_the_entry_that_changed_since_the_last_walk():
    """An earlier change, of a page of another size, was followed by what it needed."""
    memory = TableMemory(16)
    guest = Tables(memory)
    guest.map(0, 0x40_0000, "2m")
    guest.split(0)
    cpu = CheckedProcessor(memory.view)
    cpu.load_cr3(guest.root)
    cpu.access(0)
    guest.merge(0)
    cpu.invlpg(0)
    cpu.access(0)
    was = guest.move(0, 0x80_0000)
    with pytest.raises(StaleTranslation, match=f" was {was:#x} and is "):
        cpu.access(0)


def test_a_report_tells_the_rights_where_they_alone_differ():
    cpu, guest, _ = started(None)
    cpu.access(GVA)
    frame = guest.leaf(GVA).frame
    guest.protect(GVA, "rxu")
    with pytest.raises(StaleTranslation) as caught:
        cpu.access(GVA)
    assert f"with {frame:#x}, 4KiB, urwx" in str(caught.value)
    assert f"the tables say {frame:#x}, 4KiB, ur-x" in str(caught.value)


@pytest.mark.parametrize("form", [None, "ept", "npt"])
@pytest.mark.parametrize("dimension", ["guest", "nested"])
def test_a_dirty_bit_cleared_behind_the_processor_is_reported_at_the_next_write(form, dimension):
    cpu, guest, nested = started(form)
    cpu.access(GVA, "write")
    cpu.access(GVA, "write")
    tables, address = (nested, 0x40_1000) if dimension == "nested" and nested else (guest, GVA)
    leaf = tables.leaf(address)
    bit = EPT_DIRTY if tables.form == "ept" else DIRTY
    assert leaf.word & bit
    tables.memory.write(leaf.place, leaf.word & ~bit)
    with pytest.raises(
        StaleTranslation, match=f"the {(tables is guest and 'guest') or 'nested'} entry"
    ):
        cpu.access(GVA, "write")


def test_a_right_that_was_added_gives_a_spurious_fault_once():
    cpu, guest, _ = started(None)
    guest.protect(GVA, "rxu")
    cpu.invlpg(GVA)
    assert cpu.access(GVA, "write").outcome == mmu.Outcome.PAGE_FAULT
    cpu.access(GVA)
    guest.protect(GVA, "rwxu")  # no invalidation is needed
    found = cpu.access(GVA, "write")
    assert found.outcome == mmu.Outcome.OK or found.spurious
    assert cpu.access(GVA, "write").outcome == mmu.Outcome.OK


def test_a_wrong_argument_is_refused_on_one_line():
    cpu, _, _ = started()
    for call, says in [
        (lambda: cpu.enter(0), "1 to 65535"),
        (lambda: cpu.enter(1, 5), "Ept"),
        (lambda: cpu.invvpid(1, 0), "VPID 0 fails"),
        (lambda: cpu.invvpid(4), "0 | 1 | 2 | 3"),
        (lambda: cpu.invept(0), "1 | 2"),
        (lambda: cpu.invept(1), "for type 1"),
        (lambda: cpu.tlb_control(2), "0 | 1 | 3 | 7"),
        (lambda: cpu.tlb_control(3, 0), "1 to 65535"),
        (lambda: cpu.invpcid(1, 4096), "0 to 4095"),
        (lambda: cpu.invlpga(0, -1), "0 to 65535"),
        (lambda: cpu.load_cr3(-1), "51:12"),
        (lambda: cpu.access(0, "look"), "read | write | fetch"),
        (lambda: CheckedProcessor(cpu.memory).access(0), "load_cr3"),
        (lambda: CheckedProcessor(np.zeros(512)), "from_words"),
        (lambda: CheckedProcessor(cpu.memory, 5), "processor: found int"),
        (lambda: CheckedProcessor(cpu.memory, control=5), "control: found int"),
        (lambda: CheckedProcessor(cpu.memory, pcide=1), "pcide: found 1"),
        (lambda: CheckedProcessor(cpu.memory, tagged=None), "tagged: found None"),
        (lambda: cpu.invpcid(2, 1 << 64), "0 to 4095"),
        (lambda: cpu.invpcid(3, -1), "0 to 4095"),
        (lambda: cpu.invept(1, -1), "nested: found -0x1"),
        (lambda: cpu.flush(1 << 64), "nested: found 18446744073709551616"),
    ]:  # fmt: skip
        with pytest.raises(mmu.InputError) as caught:
            call()
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_packages_own_example_runs_and_fails_without_its_invalidation():
    text = mmu.testing.__doc__.partition("The shortest of tests:")[2]
    code = textwrap.dedent(text).strip()
    exec(code, {})
    with pytest.raises(StaleTranslation):
        exec("\n".join(line for line in code.splitlines() if "invlpg" not in line), {})
