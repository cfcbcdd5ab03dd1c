"""What the strategies draw: that each feature they promise comes, and that examples are small."""

import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import numba
import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings

import mmu
from mmu.testing import reference, strategies
from mmu.testing.tables import SIZES

INTERPRETED = bool(numba.config.DISABLE_JIT)
SURELY = settings(
    max_examples=400, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SIZE_NAMES = {size: name for name, size in SIZES.items()}
KINDS = pytest.mark.parametrize("kind", ["native", "ept", "npt"])


def met(strategy, features, examples=400, wanted=()):
    """How often each feature comes in so many examples; in up to ten times as many for all `wanted`."""
    counts = Counter()
    for number in range(10):

        @seed(number)
        @settings(SURELY, max_examples=examples)
        @given(strategy)
        def draw(example):
            counts.update(set(features(example)))

        draw()
        if counts.keys() >= set(wanted):
            break
    return counts


def answer(question, **access):
    layout, space, gva = question
    return layout.translate(gva, space, **access)


@settings(max_examples=40 if INTERPRETED else 200, deadline=None)
@given(strategies.questions(control=strategies.controls(), malformed=True), strategies.accesses)
def test_any_question_is_answered_as_the_reference_does(question, access):
    layout, space, gva = question
    for user in (True, False):
        found = layout.translate(gva, space, access=access, user=user)
        expected = reference.translate(
            layout.memory.words, gva, access=access, user=user, **layout.question(space)
        )
        assert asdict(found) == asdict(expected)


@pytest.mark.parametrize("kind", ["ept", "npt"])
def test_pages_of_every_pair_of_sizes_are_translated(kind):
    def features(question):
        found = answer(question)
        if found.outcome == mmu.Outcome.OK:
            yield SIZE_NAMES[found.guest_page_size], SIZE_NAMES[found.nested_page_size]

    expected = {(guest, nested) for guest in SIZES for nested in SIZES}
    questions = strategies.questions(kinds=(kind,), holes=False, rights=False)
    assert set(met(questions, features, wanted=expected)) == expected


@pytest.mark.parametrize(
    ("malformed", "outcomes"),
    [
        (False, {"OK", "NOT_CANONICAL", "PAGE_FAULT", "NESTED_VIOLATION"}),
        (True, {outcome.name for outcome in mmu.Outcome}),
    ],
)
def test_every_outcome_comes_and_none_that_was_not_asked_for(malformed, outcomes):
    found = met(
        strategies.questions(malformed=malformed), lambda q: [answer(q).outcome.name],
        wanted=outcomes,
    )  # fmt: skip
    assert set(found) == outcomes
    assert found["OK"] >= found.total() * (0.1 if malformed else 0.3)


@KINDS
def test_tables_have_four_or_five_levels_in_each_dimension(kind):
    def features(layout):
        yield layout.spaces[0].levels, layout.nested and layout.nested.levels

    nested = [None] if kind == "native" else [4, 5]
    expected = {(guest, levels) for guest in (4, 5) for levels in nested}
    assert set(met(strategies.page_tables(kinds=(kind,)), features, wanted=expected)) == expected


def test_errors_name_missing_rights_and_reserved_bits_of_both_dimensions():
    def features(question):
        for access in ("read", "write", "fetch"):
            found = answer(question, access=access)
            if found.error_code is not None:
                yield "fault", found.error_code & 0b1001, access
            if found.exit_info is not None:
                yield "npf", found.exit_info & 0b1001, found.exit_info >> 32
            if found.exit_qualification is not None:
                yield "violation", found.exit_qualification & 7, found.exit_qualification >> 8

    expected = {("fault", code, "write") for code in (0, 1, 9)}
    expected |= {("npf", code, where) for code in (0, 1, 9) for where in (1, 2)}
    expected |= {("violation", kind, 1) for kind in (1, 2, 4)}
    expected |= {("violation", kind, 0) for kind in (1, 3)}
    assert expected <= set(met(strategies.questions(malformed=True), features, wanted=expected))


def test_tables_are_shared_by_addresses_and_by_spaces():
    def features(layout):
        for space, gva in layout.aliases:
            alias = [entry.place for entry in layout.spaces[space].path(gva)]
            for page in layout.pages:
                way = [entry.place for entry in layout.spaces[page.space].path(page.gva)]
                if page.gva != gva and way[1:] and alias[-1] == way[-1]:
                    yield "spaces" if space != page.space else "addresses"

    expected = {"spaces", "addresses"}
    tables = strategies.page_tables(recursive=False)
    assert set(met(tables, features, wanted=expected)) == expected


@KINDS
def test_tables_that_map_themselves_are_read_through(kind):
    """The page that a recursive address reaches is a table; through nested tables, a nested one."""

    def features(question):
        layout, found = question[0], answer(question)
        if found.outcome == mmu.Outcome.OK and layout.memory.holds(found.maddr):
            read = {step.address & ~0xFFF for step in found.steps if step.dimension == "nested"}
            yield "nested" if found.maddr & ~0xFFF in read else "guest"

    expected = {"guest"} if kind == "native" else {"guest", "nested"}
    questions = strategies.questions(kinds=(kind,), malformed=False, rights=False)
    assert set(met(questions, features, wanted=expected)) == expected


def test_only_what_is_asked_for_comes():
    plain = strategies.page_tables(
        kinds=("ept",), levels=(4,), nested_levels=(5,), sizes=("2m",), nested_sizes=("4k",),
        spaces=1, pages=2, rights=False, holes=False, shared=False, recursive=False,
    )  # fmt: skip

    @settings(SURELY, max_examples=60)
    @given(plain)
    def draw(layout):
        assert len(layout.spaces) == 1
        assert 1 <= len(layout.pages) <= 2
        assert not layout.aliases
        for page in layout.pages:
            found = layout.translate(page.gva, access="write")
            assert found.outcome == mmu.Outcome.OK
            assert (found.guest_page_size, found.nested_page_size) == (1 << 21, 1 << 12)

    draw()


def test_an_example_shrinks_to_one_small_page_at_zero():
    found = find(strategies.page_tables(), lambda layout: True, settings=SURELY)
    (page,) = found.pages
    assert (page.gva, page.size, len(found.spaces), found.nested) == (0, 4096, 1, None)
    layout, space, gva = find(
        strategies.questions(),
        lambda question: answer(question).nested_page_size == SIZES["2m"],
        settings=settings(max_examples=2000, derandomize=True, database=None, deadline=None),
    )
    assert (space, gva, len(layout.pages)) == (0, 0, 1)
    assert layout.pages[0].size == 4096


def test_a_failing_example_shows_every_entry():
    layout = find(
        strategies.page_tables(kinds=("npt",)), lambda layout: layout.aliases, settings=SURELY
    )
    text = repr(layout)
    assert "npt" in text
    assert "gva" in text
    assert "gpa" in text
    assert "alias" in text


def test_without_hypothesis_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from mmu.testing import reference, tables\n"
        "try:\n    import mmu.testing.strategies\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("InputError")
    assert "pip install 'mmu[testing]'" in done.stdout
