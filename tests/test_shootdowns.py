"""Shootdowns, invalidations, migrations and CR3 loads: who pays for what, to the cycle."""

import pytest
from lps_runs import BLOCK, blocks, clocks_of, configured, counts, replayed, vm
from memory_trace import MemoryTrace

from mmu.run import Replay
from mmu.software.dispatcher import FINISHED, dispatch
from mmu.software.turns import CLOCK

# One shootdown in 10,000 cycles: at the third block's end if nothing but accesses takes time.
EVERY = {"shootdowns_per_second": 100}
PAIR = vm("a", "b", vcpus=2, weight=9, turn="99ms")


def test_a_shootdown_falls_due_at_the_first_block_end_after_its_interval():
    for per_second, expected in ((100, 1), (122, 1), (123, 2), (245, 4), (1000, 16), (0, 0)):
        config = configured(vm(weight=9), lps=1, shootdowns_per_second=per_second)
        _, result = replayed(config, blocks(4))
        assert result.counters["shootdowns"][0] == expected, per_second  # of 16384 cycles
        assert result.counters["exits"][0] == expected
        assert result.counters["invalidations"][0] == expected
        assert result.counters["shootdown_targets"][0] == 0


def test_both_sides_of_a_shootdown_pay_what_they_do():
    """Both reach 12288 with a shootdown due; lp 0 is first: exit, invalidation, one target.

    lp 1 then has one of its own, of which lp 0, which has run nothing since it dropped all, is no
    target; and it takes the exit that lp 0 asked for.
    """
    config = configured(PAIR, **EVERY)
    replay, _ = replayed(config, blocks(4), blocks(4))
    assert counts(replay, "shootdowns") == [[1], [1]]
    assert counts(replay, "shootdown_targets") == [[1], [0]]
    assert counts(replay, "invalidations") == [[1], [2]]
    assert counts(replay, "exits") == [[1], [2]]
    assert clocks_of(replay) == [4 * BLOCK, 4 * BLOCK]


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("shootdown", [1, 1]), ("shootdown_target", [1, 0]), ("invalidation", [1, 2]),
        ("exit", [1, 2]), ("migration", [0, 0]), ("cr3_load", [0, 0]), ("switch", [0, 0]),
    ],
)  # fmt: skip
def test_each_cost_is_booked_once_for_each_event_and_is_in_the_clock(name, each):
    config = configured(PAIR, costs={name: 7}, **EVERY)
    replay, result = replayed(config, blocks(4), blocks(4))
    assert clocks_of(replay) == [4 * BLOCK + 7 * n for n in each]
    cause = {"shootdown_target": "shootdown"}.get(name, name)
    assert result.cycles[cause] == [7 * sum(each)]


def test_who_runs_another_machine_drops_what_it_holds_without_an_exit():
    """lp 1 has run a process of vm1 to its end, and then runs vm2."""
    config = configured(PAIR, vm(start="4096cycles", weight=9), costs={"invalidation": 3}, **EVERY)
    replay, result = replayed(config, blocks(9), blocks(1), blocks(9))
    # lp 0 asks once: lp 1 has run nothing of vm1 since. Each has its own at 12288, 20480, 32768 and,
    # as only lp 1 gets so far, at 40960.
    assert counts(replay, "shootdowns") == [[3, 0], [0, 4]]
    assert counts(replay, "shootdown_targets") == [[1, 0], [0, 0]]
    assert counts(replay, "invalidations") == [[3, 0], [1, 4]]
    assert counts(replay, "exits") == [[3, 0], [0, 4]]
    assert clocks_of(replay) == [9 * BLOCK + 9, 10 * BLOCK + 15]
    assert result.cycles["invalidation"] == [12, 12]


def test_a_processor_that_has_not_run_a_machine_since_it_dropped_it_is_no_target():
    """vm1 stays on lp 0, vm2 on lp 1: nobody but themselves holds anything."""
    config = configured(vm(weight=9), vm(weight=9), pinned=True, **EVERY)
    replay, _ = replayed(config, blocks(9), blocks(9))
    assert counts(replay, "shootdown_targets") == [[0, 0], [0, 0]]
    assert counts(replay, "shootdowns")[0][0] > 1


def test_invalidations_drop_translations_of_their_machine_on_the_target_and_of_no_other():
    """lp 1 has a page of vm1 and one of vm2, on one virtual processor each, which take turns there."""
    processes = [{"trace": "a"}, {"trace": "b"}]
    machine = {"processes": processes, "vcpus": 2, "turn": "99ms"}
    for per_second, walked in ((0, 1), (100, 2)):
        config = configured(machine, lps=2, quantum="99ms", shootdowns_per_second=per_second)
        replay, _ = replayed(config, blocks(5), blocks(5))
        assert counts(replay, "walks") == [[walked], [walked]]
    # vm1 shoots down at 12288, and vm2, which ran before, finds its page after it.
    alone = configured(vm(), vm(), lps=1, **EVERY)
    replay, _ = replayed(alone, blocks(2), blocks(2))
    assert counts(replay, "shootdowns") == [[1, 0]]
    assert counts(replay, "walks") == [[1, 1]]


def test_an_invalidation_while_idle_waits_for_the_next_block_and_its_cost_is_in_the_slice():
    config = configured(
        vm("a", "b", vcpus=2, weight=9, turn="99ms"), costs={"invalidation": 100}, **EVERY
    )
    replay, _ = replayed(config, blocks(9), blocks(1))
    # lp 1 ends at 4096 and never runs again: what lp 0 asks for from 12288 on is never done.
    assert counts(replay, "shootdown_targets") == [[3], [0]]
    assert counts(replay, "invalidations") == [[3], [0]]
    assert clocks_of(replay)[1] == BLOCK


def test_a_request_that_met_an_idle_processor_is_done_before_its_next_block_without_an_exit():
    processes = [{"trace": "a"}, {"trace": "b"}, {"trace": "c", "start": "20000cycles"}]
    config = configured(
        {"processes": processes, "vcpus": 2, "weight": 99, "turn": "99ms"},
        costs={"invalidation": 100}, **EVERY,
    )  # fmt: skip
    replay, result = replayed(config, blocks(9), blocks(1), blocks(1))
    # lp 0 asks at 12288 and at 24676 (two blocks later: 20480 is before 20000 + 100), lp 1 has c then
    assert counts(replay, "invalidations")[1] == [1]
    assert counts(replay, "exits")[1] == [0]
    assert clocks_of(replay)[1] == 20000 + 100 + BLOCK
    assert result.cycles["idle"] == [20000 - BLOCK]


def test_native_programs_have_no_hypervisor_that_shoots_down():
    config = configured(vm(weight=9), vm(weight=9), mode="native", **EVERY)
    _, result = replayed(config, blocks(4), blocks(4))
    assert result.counters["shootdowns"][:2] == [0, 0]


def test_the_timer_of_shootdowns_stands_still_while_a_processor_idles():
    for start in ("0", "12345678cycles"):
        config = configured(vm(weight=9), vm(weight=9, start=start), lps=1, **EVERY)
        _, result = replayed(config, blocks(2), blocks(3))
        assert sum(result.counters["shootdowns"]) == 2, start


def test_changes_of_space_cost_a_cr3_load_each_but_the_first():
    config = configured(vm(weight=9), lps=1, costs={"cr3_load": 7})
    trace = blocks(1, space=0) + blocks(2, space=1) + blocks(1, space=0)
    _, result = replayed(config, trace)
    assert result.counters["cr3_loads"][0] == 2
    assert result.cycles["cr3_load"] == [14]
    assert result.clock == 4 * BLOCK + 14


def test_a_virtual_processor_has_a_cr3_of_its_own_and_takes_it_along():
    """Two processes on two vcpus of one lp: each keeps its space, and nothing is loaded."""
    config = configured(vm("a", "b", vcpus=2, turn="99ms"), lps=1)
    _, result = replayed(config, blocks(3), blocks(3))
    assert result.counters["cr3_loads"][0] == 0
    one = configured(vm("a", "b", turn="4096accesses"), lps=1)
    _, result = replayed(one, blocks(3), blocks(3))
    assert result.counters["cr3_loads"][0] == 5
    moving = configured(vm(), vm(), vm())
    _, result = replayed(moving, *[blocks(4)] * 3)
    assert sum(result.counters["migrations"]) > 0
    assert sum(result.counters["cr3_loads"]) == 0


def test_shootdowns_that_take_all_time_are_refused_before_or_when_it_shows():
    config = configured(vm(weight=9), lps=1, shootdowns_per_second=10**6 - 1)
    replay = Replay(config, [MemoryTrace(blocks(40))])
    for stream in replay.streams.values():
        stream.load(replay.feed)
    host = replay.host
    status = 0
    while 0 <= status != FINISHED:
        host.schedule.now[0, CLOCK] += 1 << 20  # as misses may make it
        status = dispatch(host.machine, None, host.world, host.schedule, replay.feed, 1)
    with pytest.raises(Exception, match=r"--shootdowns-per-second: found 999999: one falls due"):
        host.check(status)
