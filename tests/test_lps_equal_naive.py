"""Several logical processors against the slow twin, which shares no code with them, on random input."""

import pytest
from hypothesis import given
from test_lps_random import PHASES, several
from test_replay_equals_naive import compare_with_naive

pytestmark = pytest.mark.slow


@PHASES
@given(several())
def test_every_count_cycle_and_slice_equals_naives(run):
    config, accesses = run
    compare_with_naive(config, accesses)
