"""Several logical processors in the naive model, cycle by cycle.

All costs are 0 but for a cycle an instruction and those that a test names: a block of 30 reads
takes 30 cycles. Blocks end where the thread changes.
"""

import pytest
from naive import READ, Geometry, ProcessSettings, Replay, Settings, VmSettings
from test_naive_model import BIG, FREE, random_run

ROOMY = Geometry([[BIG], [BIG]])
EVENTS = {"exit": 10, "shootdown": 20, "shootdown_target": 5, "invalidation": 3}


def blocks_of(*lengths):
    return [(0, i % 2, 0, READ) for i, length in enumerate(lengths) for _ in range(length)]


def vm(*lengths, **settings):
    return VmSettings(blocks_of(*lengths), memory=4 << 20, **settings)


def vm_of_processes(*traces, **settings):
    processes = [ProcessSettings(blocks_of(*lengths)) for lengths in traces]
    settings = {"turn": (10**6, "accesses")} | settings
    return VmSettings(processes=processes, memory=4 << 20, **settings)


def run(vms, costs=(), **settings):
    settings = {"lps": 2, "exit_code_pages": 0, "exit_data_pages": 0} | settings
    return Replay(Settings(ROOMY, vms, costs=FREE | dict(costs), **settings)).run()


def who(result, lp):
    """Return what one processor ran: vm, process, begin and end."""
    return [row[:4] for row in result["slices_of"][lp]]


def test_vms_run_beside_each_other():
    result = run([vm(30, 5), vm(20)])
    assert result["clocks"] == [35, 20]
    assert result["clock"] == 35
    assert result["processors"] == [[{}, {"base": 35}, {}], [{}, {}, {"base": 20}]]
    assert result["cycles"] == [{}, {"base": 35}, {"base": 20}]


def test_three_vms_take_turns_on_two_processors():
    """At 10 vm 3 follows vm 1, and vm 1 goes over to where vm 2 was; at 20 vm 2 follows vm 3."""
    result = run([vm(10, 10), vm(10, 25), vm(10)], quantum=(10, "accesses"), costs={"migration": 4})
    assert who(result, 0) == [(1, 0, 0, 10), (3, 0, 10, 20), (2, 0, 24, 49)]
    assert who(result, 1) == [(2, 0, 0, 10), (1, 0, 14, 24)]
    counts = result["counts"]
    assert [counts[n].get("MIGRATION", 0) for n in (1, 2, 3)] == [1, 1, 0]
    assert [counts[n].get("SWITCH", 0) for n in (1, 2, 3)] == [1, 1, 1]
    assert result["misses"][1] == {"first_touch": 2}  # each processor has its own TLBs
    assert result["cycles"][1] == {"base": 20, "migration": 4}


def test_a_processor_without_work_waits_and_its_last_wait_does_not_count():
    result = run([vm(30, 5), vm(10)], quantum=(1, "accesses"))
    assert result["clocks"] == [35, 10]
    assert result["slices_of"][1] == [(2, 0, 0, 10, 10, "end")]


def test_idle_cycles_are_whose_turn_comes_next():
    """Vm 1 starts at 50. Both processors wait, and the first takes it."""
    result = run([vm(10, start=(50, 0)), vm(5)])
    assert who(result, 0) == [(2, 0, 0, 5), (-1, -1, 5, 50), (1, 0, 50, 60)]
    assert result["processors"][0] == [{}, {"base": 10, "idle": 45}, {"base": 5}]
    assert result["clocks"] == [60, 0]


def test_a_waiting_processor_follows_the_others_until_enough_accesses_are_made():
    """Vm 3 waits for accesses: 40 of them are there at 30, and the second processor is at 10."""
    result = run([vm(30, 9), vm(10), vm(7, start=(0, 40))], quantum=(100, "accesses"))
    assert who(result, 1) == [(2, 0, 0, 10), (3, 0, 10, 17)]
    result = run([vm(30, 9, 1), vm(10), vm(7, start=(0, 41))], quantum=(100, "accesses"))
    # at 30 the first processor runs first, and then 39 + 10 are there
    assert who(result, 1) == [(2, 0, 0, 10), (-1, -1, 10, 30), (3, 0, 30, 37)]


def test_a_busy_processor_ahead_in_time_takes_nobody_from_an_idle_one_behind():
    """The first is at 100 after its first block; the second comes to 60 before that is decided on."""
    result = run([vm(100, 10), vm(5, start=(60, 0))], quantum=(1, "accesses"))
    assert who(result, 0) == [(1, 0, 0, 100), (1, 0, 100, 110)]
    assert who(result, 1) == [(-1, -1, 0, 60), (2, 0, 60, 65)]


def test_a_vcpu_is_free_at_the_clock_at_which_it_ran_last():
    """Vm 1 is at 40 when the second processor is at 10, and is not taken over there before 40."""
    vms = [vm(40, 5), vm(10), vm(3, 3, start=(40, 0), weight=9)]
    result = run(vms, quantum=(1, "accesses"))
    # at 40 vm 3, which starts then, follows on the first; the second, at 40 too, takes vm 1
    assert who(result, 0) == [(1, 0, 0, 40), (3, 0, 40, 46)]
    assert who(result, 1) == [(2, 0, 0, 10), (-1, -1, 10, 40), (1, 0, 40, 45)]


def test_pinned_vcpus_stay_on_the_processor_of_their_number():
    """Numbers 0 and 1 are vm 1's, 2 is vm 2's."""
    vms = [vm_of_processes([10, 10], [20, 20], vcpus=2), vm(7)]
    result = run(vms, pinned=True, quantum=(1, "accesses"))
    assert who(result, 0) == [(1, 0, 0, 10), (2, 0, 10, 17), (1, 0, 17, 27)]
    assert who(result, 1) == [(1, 1, 0, 20), (1, 1, 20, 40)]
    assert "MIGRATION" not in result["counts"][1]


def test_a_stream_is_on_one_vcpu_at_a_time():
    """Three streams on two vcpus; each turn goes to the next that is on no other vcpu."""
    vms = [vm_of_processes([10, 10], [10, 10], [10, 10], vcpus=2, turn=(1, "accesses"))]
    result = run(vms)
    assert who(result, 0) == [(1, 0, 0, 10), (1, 2, 10, 20), (1, 1, 20, 30)]
    assert who(result, 1) == [(1, 1, 0, 10), (1, 0, 10, 20), (1, 2, 20, 30)]
    assert result["clocks"] == [30, 30]


def test_one_stream_keeps_one_of_two_vcpus():
    result = run([vm(10, 10, vcpus=2)], quantum=(1, "accesses"))
    assert result["clocks"] == [20, 0]


def test_each_vcpu_has_its_own_cr3():
    """One vcpu changes between two spaces, and two vcpus do not."""
    processes = [ProcessSettings(blocks_of(10, 10), space=space) for space in (0, 1)]
    for vcpus, loads in ((1, 3), (2, 0)):
        settings = VmSettings(processes=processes, vcpus=vcpus, memory=4 << 20)
        result = run([settings], costs={"cr3_load": 6})
        assert result["counts"][1].get("CR3_LOAD", 0) == loads
        assert result["cycles"][1].get("cr3_load", 0) == 6 * loads


@pytest.mark.parametrize(
    ("flush", "walks"), [(True, {"first_touch": 2, "flush": 1}), (False, {"first_touch": 2})]
)
def test_a_vcpu_that_comes_back_finds_its_entries_only_without_a_migration_flush(flush, walks):
    """Vm 1 runs on the first, the second, and the first processor again."""
    vms = [vm(10, 10, 10), vm(10, 20), vm(10)]
    result = run(vms, quantum=(10, "accesses"), migration_flush=flush)
    assert [row[0] for row in result["slices_of"][0]] == [1, 3, 2]
    assert result["counts"][1]["MIGRATION"] == 1
    vms = [vm(10, 10, 10), vm(10, 5), vm(10, 30)]
    result = run(vms, quantum=(10, "accesses"), migration_flush=flush)
    # 0: 1 to 10, 3 to 20, 2 to 25, 1 to 35. 1: 2 to 10, 1 to 20, 3 from 20
    assert [row[0] for row in result["slices_of"][0]] == [1, 3, 2, 1]
    assert result["misses"][1] == walks


def test_a_shootdown_interrupts_the_other_processor_at_its_next_block_end():
    """Timers are due at 100.

    1: at 110 exit 120, own drop 123, shootdown 143, target 148; last block to 168.
    0: at 120 its own: exit 130, drop 133, shootdown 153; nobody to tell, 1 has not run since.
       Then the request: exit 163, drop 166; last block to 176.
    """
    vms = [vm_of_processes([90, 30, 10], [60, 50, 20], vcpus=2)]
    result = run(vms, costs=EVENTS, shootdown_interval=100)
    assert result["clocks"] == [176, 168]
    assert result["processors"][0][1] == {
        "base": 130, "exit": 20, "shootdown": 20, "invalidation": 6,
    }  # fmt: skip
    assert result["processors"][1][1] == {
        "base": 130, "exit": 10, "shootdown": 20 + 5, "invalidation": 3,
    }  # fmt: skip
    counts = result["counts"][1]
    names = ("EXIT", "SHOOTDOWN", "SHOOTDOWN_TARGET", "INVALIDATION")
    assert [counts[name] for name in names] == [3, 2, 1, 3]
    assert result["misses"][1] == {"first_touch": 2, "invalidation": 2}


def test_a_request_is_answered_without_an_exit_before_the_first_block_after_a_hand_over():
    """0: vm 1's first to 50, vm 2 to 80, then vm 1's second, which is told at 80 and begins at 83.

    1: vm 1's second to 60, its first from 60 to 110, shootdown to 143, tells 0 until 148.
    """
    vms = [vm_of_processes([50, 50], [60, 8], vcpus=2), vm(30)]
    result = run(vms, costs=EVENTS, shootdown_interval=100, quantum=(1, "accesses"))
    assert who(result, 0) == [(1, 0, 0, 50), (2, 0, 50, 80), (1, 1, 80, 91)]
    assert result["clocks"] == [91, 148]
    assert result["processors"][0][1] == {"base": 58, "invalidation": 3}
    assert result["processors"][1][1] == {
        "base": 110, "exit": 10, "invalidation": 3, "shootdown": 25,
    }  # fmt: skip


def test_another_vm_is_not_interrupted_by_a_request():
    """0: vm 1 to 50, vm 2 to 120; vm 2's own shootdown to 153, then vm 1's drop to 156."""
    vms = [vm_of_processes([50, 50], [60], vcpus=2), vm(30, 40, weight=100)]
    result = run(vms, costs=EVENTS, shootdown_interval=100, quantum=(1, "accesses"))
    assert who(result, 0) == [(1, 0, 0, 50), (2, 0, 50, 156)]
    assert result["processors"][0] == [
        {},
        {"base": 50, "invalidation": 3},
        {"base": 70, "exit": 10, "shootdown": 20, "invalidation": 3},
    ]
    assert result["clocks"] == [156, 148]


def test_idling_that_began_in_the_warm_up_counts_from_its_end_and_stops_timers_from_its_begin():
    """The second idles from 10; the first ends the warm-up at 40, when the second is at 30.

    Vm 3 starts at 50 and is on the second to 130: 90 cycles that somebody ran, no shootdown.
    """
    vms = [vm(30, 10, 90), vm(10), vm(80, start=(50, 0))]
    settings = {"quantum": (10**6, "accesses"), "shootdown_interval": 100, "costs": EVENTS}
    result = run(vms, warm_up=50, **settings)
    assert result["slices_of"][1][1] == (-1, -1, 10, 50, 0, "idle")
    assert result["processors"][1][3] == {"base": 80, "idle": 20}
    assert result["clocks"][1] == 130 - 30


def test_shootdown_timers_stand_still_while_nobody_runs():
    """Idle from 10 to 95; 99 cycles of vm 2 make 10 + 99 that somebody ran: due at 100 + 85."""
    vms = [vm(10), vm(89, 1, start=(95, 0))]
    result = run(vms, lps=1, costs=EVENTS, shootdown_interval=100)
    assert result["counts"][2].get("SHOOTDOWN") == 1  # at 185, and not at the block end of 184
    assert result["clocks"] == [95 + 90 + 33]


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("mode", ["tagged", "purge", "flush", "native"])
def test_each_processors_cycles_sum_to_its_clock(mode, pinned):
    settings = {"lps": 2, "pinned": pinned, "exit_interval": 50_000, "shootdown_interval": 40_000}
    result = random_run(mode, **settings, warm_up=1000).run()
    assert [sum(map(sum, map(dict.values, lp))) for lp in result["processors"]] == result["clocks"]
    assert all(result["clocks"])
    if mode != "native":
        assert sum(row.get("SHOOTDOWN", 0) for row in result["counts"]) > 0
    walks = [sum(row.values()) for row in result["misses"]]
    assert walks == [row.get("WALK", 0) for row in result["counts"]]
