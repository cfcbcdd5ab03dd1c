"""A walk told step by step agrees with the translation that it tells, whatever the tables hold."""

import json
from itertools import product

import numpy as np
from exact import ACCESSES, package
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exact_random import EXAMPLES, hostile, soups, worlds
from test_exact_random import RELAXED as MANY

import mmu
from mmu.entrybits import EntryFormat
from mmu.report_walk import lines

P, W, U, A, D, PS, XD = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 63
WB = 6 << 3
RELAXED = settings(MANY, max_examples=min(EXAMPLES, 60))
LETTERS = dict(zip(ACCESSES, "RWX", strict=True))
VIOLATION, MISCONFIGURATION = mmu.Outcome.NESTED_VIOLATION, mmu.Outcome.NESTED_MISCONFIGURATION


def inside(memory, address):
    return memory.base <= address < memory.base + 8 * len(memory.words)


def formats(walk):
    guest = EntryFormat.of_guest(walk.control, walk.nested)
    return {
        "guest": guest,
        "nested": EntryFormat.of_nested(walk.control, walk.nested) if walk.nested else guest,
    }


def updates_of(walk):
    """The entries that change, from the bits that the steps say they set."""
    found = {}
    for read in walk.reads:
        form = formats(walk)[read.dimension]
        new = sum({"A": form.accessed, "D": form.dirty}[name] for name in read.sets)
        if new:
            found[read.address] = found.get(read.address, 0) | read.entry | new
    return found


def judge(memory, walk):
    """Everything that a walkthrough says must follow from the translation."""
    t, reads = walk.translation, walk.reads
    assert [(r.dimension, r.level, r.address, r.entry) for r in reads] == [
        tuple(s) for s in t.steps
    ]
    assert [read.number for read in reads] == list(range(1, t.references + 1))
    assert all(read.address == read.table + 8 * read.index for read in reads)
    assert updates_of(walk) == t.updates
    rows = [read.row for read in reads]
    assert rows == sorted(rows)
    for read in reads:
        form = formats(walk)[read.dimension]
        ended = read.ended or read.target is None
        assert not ended or read is reads[-1]
        if form.present(read.entry):
            problems = form.problems(read.entry, read.level)
            assert bool(problems) <= (read is reads[-1])
            assert any("rsvd" in name for name in read.bits) == bool(
                form.reserved(read.entry, read.level)
            )
        else:
            assert read.bits == ("not present",)
    title, reason = walk.ending.title, walk.ending.reason
    last = formats(walk)[reads[-1].dimension] if reads else None
    problems = bool(
        reads and last.present(reads[-1].entry) and last.problems(reads[-1].entry, reads[-1].level)
    )
    if t.outcome == mmu.Outcome.OK:
        assert walk.reached.address == t.maddr
        assert walk.reached.label == reason == ""
        assert LETTERS[walk.access] in walk.ending.rights["user" if walk.user else "supervisor"]
    else:
        assert reason
        assert walk.ending.rights is None
    if t.outcome == mmu.Outcome.PAGE_FAULT:
        assert reads[-1].ended
        assert problems == bool(t.error_code & 8)
        assert ("not present" in reason) == (not t.error_code & 1)
    if t.outcome == MISCONFIGURATION:
        assert problems
        assert title == "EPT misconfiguration, exit reason 49"
    if t.exit_info is not None:
        assert problems == bool(t.exit_info & 8)
    if t.outcome == VIOLATION and (not reads or not reads[-1].ended):
        assert t.fault_gpa >> 48
        assert walk.reached.gpa == t.fault_gpa
    if t.outcome == mmu.Outcome.NO_MEMORY:
        assert not inside(memory, walk.reached.address)
        assert f"{walk.reached.address:#x}" in reason
    assert t.outcome in (mmu.Outcome.OK, mmu.Outcome.NOT_CANONICAL) or walk.stop[1]
    text = lines(walk)
    assert text
    json.dumps(walk.plain())
    assert len(walk.table().rows) == len(reads)


def judge_rights(memory, walk, question):
    """Of a page that was found, rights name exactly the accesses that are allowed."""
    for access, user in product(ACCESSES, (True, False)):
        other = mmu.explain(memory, walk.gva, **question | {"access": access, "user": user})
        fine = other.translation.outcome == mmu.Outcome.OK
        says = LETTERS[access] in walk.ending.rights["user" if user else "supervisor"]
        # Where nested tables keep no dirty bits, one of the guest's may be the thing that is denied.
        marking = (
            not fine
            and other.reads[-1].dimension == "guest"
            and other.translation.exit_qualification
        )
        assert fine == says or marking


@RELAXED
@given(worlds(), st.sampled_from(ACCESSES), st.booleans())
def test_a_walkthrough_of_a_mapping_agrees_with_the_translation(made, access, user):
    world, control, nested, gvas, _ = made
    memory = world.pages.memory()
    for gva in gvas:
        question = {
            "cr3": world.root, "nested": package(nested), "control": package(control),
            "access": access, "user": user,
        }  # fmt: skip
        walk = mmu.explain(memory, gva, **question)
        judge(memory, walk)
        if walk.ending.rights:
            judge_rights(memory, walk, question)


@RELAXED
@given(soups(), st.sampled_from(ACCESSES), st.booleans())
def test_a_walkthrough_of_tables_that_are_each_others_agrees_with_the_translation(
    soup, access, user
):
    pages, gvas, question = soup
    memory = pages.memory()
    question = question | {
        "nested": package(question["nested"]),
        "control": package(question["control"]),
    }
    for gva in gvas:
        judge(memory, mmu.explain(memory, gva, access=access, user=user, **question))


@RELAXED
@given(st.integers(0, 2**32 - 1))
def test_hostile_memory_never_stops_an_explanation(seed):
    random = np.random.default_rng(seed)
    count = int(random.choice([1, 2, 8]))
    base = int(random.choice([0, 0x1000, (1 << 52) - 4096 * count]))
    memory = mmu.Memory.from_words(hostile(random, count), base)
    root = min(base + 4096 * int(random.integers(0, count + 1)), (1 << 52) - 4096)
    nested = [
        None, mmu.Ept(root | int(random.choice([0x1E, 0x5E, 0x66])), bool(random.integers(2))),
        mmu.Npt(root, bool(random.integers(2)), int(random.choice([4, 5]))),
    ][int(random.integers(3))]  # fmt: skip
    control = mmu.Control(
        *(bool(b) for b in random.integers(0, 2, 7)), int(random.choice([36, 52]))
    )
    for gva in [*random.integers(0, 1 << 64, 4, np.uint64).tolist(), 1 << 46, (1 << 64) - 1]:
        walk = mmu.explain(
            memory, gva, cr3=int(random.integers(0, 1 << 64, dtype=np.uint64)), nested=nested,
            control=control, access=str(random.choice(ACCESSES)), user=bool(random.integers(2)),
        )  # fmt: skip
        judge(memory, walk)
