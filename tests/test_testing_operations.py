"""A model that invalidates what it must meets no stale translation; one that forgets does."""

import numba
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from test_testing_strategies import met

import mmu
from mmu.testing import strategies
from mmu.testing.operations import CHANGES, Operation, Session

INTERPRETED = bool(numba.config.DISABLE_JIT)
SEARCH = settings(
    max_examples=3000, derandomize=True, database=None, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@st.composite
def sessions(draw, kinds=("native", "ept", "npt"), names=None, most=20, **options):
    layout = draw(strategies.page_tables(kinds=kinds, **options))
    return layout, draw(strategies.operations(layout, most, names))


@settings(
    max_examples=20 if INTERPRETED else 150, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(
    sessions(control=strategies.controls()), strategies.processors(), st.booleans(), st.booleans()
)
def test_a_right_model_meets_no_stale_translation(drawn, processor, pcide, tagged):
    layout, operations = drawn
    session = Session(layout, processor, pcide=pcide, tagged=tagged)
    for access in session.run(operations):
        if access.outcome == mmu.Outcome.OK:
            assert access.maddr == access.tables.maddr
        elif not access.spurious:
            assert access.outcome == access.tables.outcome


def stale(drawn, **options):
    layout, operations = drawn
    try:
        Session(layout, **options).run(operations)
    except mmu.errors.StaleTranslation as error:
        return str(error)
    return ""


FORGOTTEN = [
    ("native", "unmap", "INVLPG"),
    ("native", "merge", "INVLPG"),
    ("ept", "guest move", "INVLPG"),
    ("ept", "nested unmap", "INVEPT 1"),
    ("ept", "nested protect", "INVEPT 1"),
    ("npt", "guest protect", "INVLPG"),
    ("npt", "nested move", "TLB_CONTROL 3"),
]


def forgetful(kind, forget):
    """Sessions of few operations, of which one is of the change that is not invalidated."""
    names = ("access", "access", forget.split()[-1])
    options = {"spaces": 1, "pages": 2, "holes": False, "recursive": False}
    if forget == "merge":
        options["sizes"], names = ("2m",), (*names, "split")
    return sessions(kinds=(kind,), names=names, most=6, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "forget", "instruction"), FORGOTTEN)
def test_a_forgotten_invalidation_is_found_and_the_report_says_which(kind, forget, instruction):
    reports = met(
        forgetful(kind, forget),
        lambda drawn: [
            report
            for report in [stale(drawn, forget=[forget])]
            if f"; {instruction} " in report or f"; {instruction}," in report
        ],
        300,
    )
    assert reports


@pytest.mark.fuzz
@pytest.mark.parametrize(("kind", "forget", "instruction"), FORGOTTEN[:1] + FORGOTTEN[-1:])
def test_what_is_found_shrinks_to_little_more_than_an_access_the_change_and_an_access(
    kind, forget, instruction
):
    layout, operations = find(
        forgetful(kind, forget), lambda drawn: stale(drawn, forget=[forget]), settings=SEARCH
    )
    assert len(layout.pages) <= 2
    names = [operation.name for operation in operations]
    assert names[-3:] == ["access", forget.split()[-1], "access"]
    assert len(names) <= 4


def test_every_operation_comes():
    def features(drawn):
        _, operations = drawn
        for operation in operations:
            yield operation.name
            if operation.name in CHANGES:
                yield operation.name, operation.arguments["dimension"]

    expected = {(change, dimension) for change in CHANGES for dimension in ("guest", "nested")}
    expected |= {
        "access", "switch", "enter", "invlpg", "invpcid", "invvpid", "invept", "tlb_control",
        "invlpga",
    }  # fmt: skip
    assert expected <= set(met(sessions(most=40), features, wanted=expected))


def test_an_operation_shows_as_the_call_that_it_is():
    shown = repr(Operation("move", {"dimension": "nested", "space": 0, "address": 0x5000}))
    assert shown == "move(dimension='nested', space=0, address=0x5000)"
