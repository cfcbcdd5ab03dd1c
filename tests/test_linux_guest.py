"""A real kernel's tables: every translation and the whole map are what QEMU and Linux say they are."""

import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from linux_vectors import NAMES, VECTORS, linux_state, unfolded

import mmu

PAGE, LARGE, HUGE = 1 << 12, 1 << 21, 1 << 30
KERNEL = os.environ.get("MMU_LINUX_KERNEL")
compiled = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="tens of thousands of pages, one by one"
)


def judged(state):
    """Hold a state against everything that was said about it."""
    translations_are_those_of_gva2gpa(state)
    the_map_is_info_tlb(state)
    the_rights_are_info_mem(state)
    user_pages_lie_in_areas_of_the_process(state)
    frames_are_those_of_pagemap(state)


@pytest.fixture(scope="module", params=NAMES)
def state(request):
    return linux_state(request.param)


def whole_map(state, **options):
    return mmu.mapping(state.memory, cr3=state.registers["CR3"], control=state.control, **options)


def pages_of(found):
    """Every page of a map: address, frame and size, each as often as it is mapped."""
    sizes = found.page_size.astype(np.uint64)
    counts = (found.size // sizes).astype(np.int64)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ahead = within.astype(np.uint64) * np.repeat(sizes, counts)
    ranges = np.repeat(np.arange(len(counts)), counts)
    return found.first[ranges] + ahead, found.gpa[ranges] + ahead, sizes[ranges], ranges


def translations_are_those_of_gva2gpa(state):
    asked = np.array([gva for gva, _ in state.answers], np.uint64)
    found = mmu.translate_many(
        state.memory, asked, cr3=state.registers["CR3"], user=False,
        control=mmu.Control(la57=state.control.la57, maxphyaddr=40),
    )  # fmt: skip
    ok = found.outcome == mmu.Outcome.OK
    answers = {
        int(gva): int(gpa) if fine else None
        for gva, gpa, fine in zip(asked, found.gpa, ok, strict=True)
    }
    assert answers == dict(state.answers)
    assert np.all(found.outcome != mmu.Outcome.NO_MEMORY)
    assert ok.sum() > 300
    assert (~ok).sum() > 300


def the_map_is_info_tlb(state):
    found = whole_map(state)
    assert len(found.hole_first) == 0
    first, frame, size, ranges = pages_of(found)
    assert len(first) == found.pages
    lines = sorted(
        (gva % (1 << 64), gpa, flags) for gva, gpa, flags in unfolded(state.said["info_tlb"])
    )
    assert first.tolist() == [gva for gva, _, _ in lines]
    assert frame.tolist() == [gpa for _, gpa, _ in lines]
    flags = np.array([list(flags) for _, _, flags in lines])
    # QEMU shows what the leaf says; entries above it may take rights away, never grant them.
    has = {name: flags[:, column] == name for column, name in enumerate("XGPDACTUW")}
    assert np.array_equal(size > PAGE, has["P"])
    assert np.array_equal(found.is_global[ranges], has["G"])
    assert not np.any(found.user[ranges] & ~has["U"])
    assert not np.any(found.write[ranges] & ~has["W"])
    assert not np.any(found.execute[ranges] & has["X"])
    if (
        state.control.la57
    ):  # where info mem says nothing; Linux's upper entries grant what leaves do
        assert np.array_equal(found.user[ranges], has["U"])
        assert np.array_equal(found.write[ranges], has["W"])
    if not state.name.endswith(
        "kernel"
    ):  # Linux's upper entries take no rights away, but that one's
        kernel = first >= np.uint64(1 << 63)
        assert np.array_equal(found.execute[ranges] | kernel, ~has["X"] | kernel)


def the_rights_are_info_mem(state):
    """QEMU merges by what all entries grant together, but not whether it can be executed."""
    found = whole_map(state, merge="rights")
    ranges = []
    for first, size, user, write in zip(
        *(column.tolist() for column in (found.first, found.size, found.user, found.write)),
        strict=True,
    ):
        rights = f"{'u' if user else '-'}r{'w' if write else '-'}"
        if ranges and sum(ranges[-1][:2]) == first and ranges[-1][2] == rights:
            ranges[-1][1] += size
        else:
            ranges.append([first, size, rights])
    said = sorted(
        [first % (1 << 64), size, rights]
        for first, size, rights in unfolded(state.said["info_mem"])
    )
    assert said or state.control.la57  # QEMU 7.2 prints nothing of five levels
    assert ranges == said or not said


def user_pages_lie_in_areas_of_the_process(state):
    areas = list(state.areas)
    found = whole_map(state)
    checked = 0
    for row in np.flatnonzero(found.user & (found.first < np.uint64(1 << 63))):
        first, size = int(found.first[row]), int(found.size[row])
        inside = [area for area in areas if area[0] < first + size and first < area[1]]
        # Areas of equal rights that touch may be one range.
        assert sum(min(end, first + size) - max(begin, first) for begin, end, *_ in inside) == size
        for _, _, rights, name in inside:
            assert not found.write[row] or rights[1] == "w", name
            assert state.name.endswith("kernel") or found.execute[row] == (rights[2] == "x"), name
            assert rights[:3] != "---", name
            checked += 1
    assert checked > 10


def frames_are_those_of_pagemap(state):
    """Linux says a page without rights has a frame; the processor says it is not present."""
    closed = {
        page
        for first, end, rights, _ in state.areas
        if rights[:3] == "---"
        for page in range(first >> 12, end >> 12)
    }
    said = {page: frame for page, frame in state.present.items() if page not in closed}
    step = 97 if numba.config.DISABLE_JIT and len(said) > 10_000 else 1
    pages = np.array(sorted(said)[::step], np.uint64)
    found = mmu.translate_many(
        state.memory, pages << np.uint64(12), cr3=state.registers["CR3"],
        control=mmu.Control(la57=state.control.la57, maxphyaddr=40),
    )  # fmt: skip
    assert np.all(found.outcome == mmu.Outcome.OK)
    assert (found.maddr >> np.uint64(12)).tolist() == [said[page] for page in pages.tolist()]
    shut = np.array(sorted(set(state.present) & closed), np.uint64)
    found = mmu.translate_many(
        state.memory, shut << np.uint64(12), cr3=state.registers["CR3"],
        control=mmu.Control(la57=state.control.la57, maxphyaddr=40),
    )  # fmt: skip
    assert np.all(found.outcome == mmu.Outcome.PAGE_FAULT)
    assert np.all(found.error_code == 4)  # a user's, and not present


def test_translations_are_those_of_qemu(state):
    translations_are_those_of_gva2gpa(state)


@compiled
def test_the_whole_map_is_what_qemu_lists(state):
    the_map_is_info_tlb(state)


@compiled
def test_rights_are_what_qemu_merges_by(state):
    the_rights_are_info_mem(state)


@compiled
def test_user_pages_lie_in_areas_of_the_process_that_permit_as_much(state):
    user_pages_lie_in_areas_of_the_process(state)


def test_frames_are_those_that_linux_tells(state):
    frames_are_those_of_pagemap(state)


@compiled
def test_vectors_have_what_they_were_made_for():
    """Large and huge pages, five levels with an address beyond 47 bits, protection keys, isolation."""
    user = whole_map(linux_state("five-user"))
    assert set(user.page_size.tolist()) == {PAGE, LARGE, HUGE}
    assert np.any(user.user & (user.page_size == HUGE))
    assert np.any(user.user & (user.first > np.uint64(1 << 47)))
    assert np.any(~user.user & (user.page_size == HUGE))
    state = linux_state("five-user")
    keyed = mmu.translate(
        state.memory, 0x1_0014_0000, cr3=state.registers["CR3"], control=state.control
    )
    assert keyed.outcome == mmu.Outcome.OK
    assert keyed.steps[-1].entry >> 59 & 0xF
    isolated, kernel = whole_map(linux_state("four-user")), whole_map(linux_state("four-kernel"))
    assert not np.any(kernel.user & kernel.execute)  # its top-level entries forbid it
    assert np.any(isolated.user & isolated.execute)
    assert not np.any(~isolated.user & (isolated.size > np.uint64(1 << 27)))  # no direct map


@pytest.fixture(scope="module")
def machine():
    """A machine that Linux runs with KVM, in NPT."""
    return linux_state("nested-kvm")


def translated_in(machine, gvas, **options):
    return mmu.translate_many(
        machine.memory, np.array(gvas, np.uint64), cr3=machine.registers["CR3"],
        nested=mmu.Npt(int(machine.said["ncr3"], 16)), control=machine.control, user=False, **options,
    )  # fmt: skip


def test_a_machine_in_kvm_has_its_pages_where_linux_says(machine):
    """Each page of each mapping that the machine's own tables were made of, through KVM's tables."""
    said = machine.present
    where = {}
    for gva, gpa, size in ([int(part, 16) for part in made] for made in machine.said["made"]):
        for page in said:
            if gpa <= page << 12 < gpa + size:
                where[gva + (page << 12) - gpa] = page
    assert len(where) > len(said) > 1000
    found = translated_in(machine, list(where))
    assert np.all(found.outcome == mmu.Outcome.OK)
    assert (found.gpa >> np.uint64(12)).tolist() == list(where.values())
    assert (found.maddr >> np.uint64(12)).tolist() == [said[page] for page in where.values()]
    pairs = set(zip(found.guest_page_size.tolist(), found.nested_page_size.tolist(), strict=True))
    assert pairs == {
        (guest, nested) for guest in (PAGE, LARGE, HUGE) for nested in (PAGE, LARGE)
    }  # fmt: skip


def test_a_machine_in_kvm_must_not_write_where_its_memory_is_the_page_of_zeros(machine):
    """KVM maps what was only read without the right to write; Linux's frame for it is one for all."""
    frames = list(machine.present.values())
    zeros = max(frames, key=frames.count)
    found = translated_in(machine, [0xFFFF_8880_0000_0000 + (page << 12) for page in machine.present],
                          access="write")  # fmt: skip
    denied = found.outcome == mmu.Outcome.NESTED_VIOLATION
    assert denied.tolist() == [frame == zeros for frame in frames]
    assert np.all(found.exit_info[denied] == (1 << 32 | 0b111))  # a write of a present page, final


@compiled
def test_the_whole_map_of_a_machine_in_kvm_is_what_linux_says(machine):
    found = mmu.mapping(
        machine.memory, cr3=machine.registers["CR3"], control=machine.control,
        nested=mmu.Npt(int(machine.said["ncr3"], 16)),
    )  # fmt: skip
    said = machine.present
    for gpa, maddr, size in zip(
        found.gpa.tolist(), found.maddr.tolist(), found.size.tolist(), strict=True
    ):
        for offset in range(0, size, PAGE):
            assert said[gpa + offset >> 12] == maddr + offset >> 12
    mapped = {(gpa >> 12) + i for gpa, size in zip(found.gpa.tolist(), found.size.tolist(), strict=True)
              for i in range(size >> 12)}  # fmt: skip
    assert mapped == set(said)
    assert set(found.hole_outcome.tolist()) == {mmu.Outcome.NESTED_VIOLATION}
    every = int(found.size.sum()) + int(found.hole_size.sum())
    assert every == sum(int(size, 16) for *_, size in machine.said["made"])


def test_vectors_stay_small():
    sizes = [len(lzma.compress(path.read_bytes())) for path in VECTORS.iterdir() if path.is_file()]
    assert sum(sizes) < 400_000


@pytest.mark.skipif(
    not (KERNEL and shutil.which("qemu-system-x86_64") and shutil.which("busybox")),
    reason="boots Linux for minutes: needs MMU_LINUX_KERNEL=/boot/vmlinuz-..., QEMU and busybox",
)
@pytest.mark.fuzz
def test_a_guest_that_boots_now_is_translated_as_qemu_does(tmp_path):
    script = Path(VECTORS / "linux_guest.py")
    subprocess.run(
        [sys.executable, script, "--kernel", KERNEL, "--out", tmp_path, "four"], check=True
    )
    for name in NAMES[:3]:
        judged(linux_state(name, tmp_path))
