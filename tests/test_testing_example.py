"""The example that users read: its bug is found, and what is mended is found right."""

import numba
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from mmu.errors import StaleTranslation
from mmu.testing.example import Fixed, Hypervisor, machine_of

FEW = settings(
    max_examples=10 if numba.config.DISABLE_JIT else 60, stateful_step_count=20, deadline=None,
    database=None, derandomize=True, suppress_health_check=list(HealthCheck),
)  # fmt: skip


def test_the_planted_bug_is_found_and_the_report_says_what_is_missing():
    with pytest.raises(StaleTranslation) as caught:
        run_state_machine_as_test(machine_of(Hypervisor), settings=FEW)
    text = str(caught.value)
    assert "stale translation" in text
    assert "INVEPT 1 of EPTP" in text
    assert "\n" not in text
    assert len([note for note in caught.value.__notes__ if "state." in note]) <= 7


def test_the_mended_hypervisor_is_found_right():
    run_state_machine_as_test(machine_of(Fixed), settings=FEW)


def test_it_is_short_steps_by_hand():
    mine = Hypervisor()
    mine.cpu.access(0)
    mine.move(0)
    with pytest.raises(StaleTranslation, match="INVEPT 1"):
        mine.cpu.access(0)
