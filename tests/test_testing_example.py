"""The example that users read: its bug is found, and what is mended is found right."""

import numba
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mmu.errors import StaleTranslation
from mmu.testing import example
from mmu.testing.example import Fixed, Hypervisor, machine_of

FEW = settings(
    max_examples=5 if numba.config.DISABLE_JIT else 100, deadline=None,
    database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.slow
def test_the_planted_bug_is_found_and_the_report_says_what_is_missing():
    with pytest.raises(StaleTranslation) as caught:
        run_state_machine_as_test(machine_of(Hypervisor), settings=FEW)
    text = str(caught.value)
    assert "stale translation" in text
    assert "INVEPT 1 of EPTP" in text
    assert "\n" not in text


@pytest.mark.fuzz
def test_the_planted_bug_shrinks_to_an_access_a_move_and_an_access():
    with pytest.raises(StaleTranslation) as caught:
        run_state_machine_as_test(
            machine_of(Hypervisor), settings=settings(FEW, phases=list(Phase))
        )
    steps = [line for note in caught.value.__notes__ for line in note.splitlines()]
    assert len([line for line in steps if line.strip().startswith("state.")]) <= 5


def test_the_mended_hypervisor_is_found_right():
    run_state_machine_as_test(machine_of(Fixed), settings=FEW)


def test_the_report_that_the_example_quotes_is_what_comes():
    mine = Hypervisor()
    mine.cpu.access(0)
    mine.move(0)
    with pytest.raises(StaleTranslation) as caught:
        mine.cpu.access(0)
    assert str(caught.value) in " ".join(example.__doc__.split())
