"""Several logical processors: who runs where and when."""

from lps_runs import (
    BLOCK,
    blocks,
    clocks_of,
    comings,
    configured,
    counts,
    replayed,
    seen,
    slices_of,
    stepped,
    turns,
    vm,
)
from memory_trace import MemoryTrace

from mmu import gantt
from mmu.run import Replay
from mmu.slices import Slice, Slices


def test_machines_go_round_over_processors_in_order_of_clocks():
    config = configured(vm(), vm(), vm())
    assert turns(config, blocks(2), blocks(2), blocks(2)) == [
        (0, 1, 0, 0, 1, "quantum"),  # then vm3, as vm2 runs on lp 1
        (1, 2, 1, 0, 1, "quantum"),  # then vm1, which left lp 0 at this clock
        (0, 3, 2, 1, 2, "quantum"),  # then vm2
        (1, 1, 0, 1, 2, "end"),  # then vm3: it is after vm1, and vm2 runs
        (0, 2, 1, 2, 3, "end"),
        (1, 3, 2, 2, 3, "end"),
    ]


def test_the_processor_with_the_lowest_clock_is_next_and_of_several_the_first():
    """vm1's block takes three times as long: three of vm2's go by."""
    slow = [(0, 0, 0, 0)] * BLOCK
    config = configured(vm(weight=9), vm(weight=9), costs={"guest_fault": 2 * BLOCK})
    found = turns(config, slow, [(0, 0, 0, 0)] * (5 * BLOCK))
    assert found == [(0, 1, 0, 0, 3, "end"), (1, 2, 1, 0, 7, "end")]
    replay = Replay(config, [MemoryTrace(slow * 2), MemoryTrace(slow * 5)])
    order = stepped(replay)
    # lp 0 to 3; lp 1 to 3; a tie, so lp 0 to 4; lp 1 to 4, 5, 6 and 7
    assert order == [0, 1, 0, 1, 1, 1, 1]


def test_who_runs_nobody_yields_to_who_runs_somebody_at_the_same_clock():
    """lp 1 idles to 1, where lp 0 ends its turn only after its next block: nobody comes to lp 1."""
    config = configured(vm(weight=2), quantum="4096accesses")
    assert seen(config, blocks(4)) == [[(1, 0, 2), (1, 2, 4)], []]


def test_at_one_clock_who_runs_decides_before_who_idles():
    """vm3 starts when lp 1 ends a turn of vm2, and lp 0, which has idled, gets what lp 1 leaves."""
    config = configured(vm(), vm(), vm(start="4096cycles"))
    assert seen(config, [(0, 0, 0, 0)], blocks(3), blocks(1)) == [
        [(1, 0, 1 / BLOCK), (-1, 1 / BLOCK, 1), (2, 1, 2), (2, 2, 3)], [(2, 0, 1), (3, 1, 2)],
    ]  # fmt: skip


def test_who_waits_for_accesses_wakes_an_idle_processor_as_soon_as_they_are_made():
    """The second block has them, which lp 0 begins at 1, where lp 1 idles."""
    config = configured(vm(weight=9), vm(start="4097accesses"))
    assert seen(config, blocks(4), blocks(1)) == [[(1, 0, 4)], [(-1, 0, 1), (2, 1, 2)]]


def test_a_process_whose_turn_is_over_goes_to_a_processor_that_idles():
    """b starts as a's turn ends: lp 0 goes on with b, and lp 1, which has idled, takes a."""
    processes = [{"trace": "a"}, {"trace": "b", "start": "4096cycles"}]
    machine = {"processes": processes, "vcpus": 2, "weight": 9, "turn": "4096accesses"}
    found = seen(configured(machine), blocks(3), blocks(2))
    assert found == [[(1, 0, 1), (1, 1, 3)], [(-1, 0, 1), (1, 1, 3)]]


def test_a_virtual_processor_is_pinned_to_its_number_modulo_the_processors():
    config = configured(vm(), vm(), vm(), pinned=True)
    assert seen(config, blocks(2), blocks(2), blocks(2)) == [
        [(1, 0, 1), (3, 1, 2), (1, 2, 3), (3, 3, 4)],
        [(2, 0, 1), (2, 1, 2)],
    ]
    several = configured(vm("a", "b", vcpus=2), vm(), pinned=True)
    assert seen(several, blocks(2), blocks(2), blocks(2)) == [
        [(1, 0, 1), (2, 1, 2), (1, 2, 3), (2, 3, 4)],
        [(1, 0, 1), (1, 1, 2)],
    ]


def test_a_root_partition_that_runs_nothing_has_no_virtual_processor():
    root = vm(memory="64MiB")
    config = configured(vm(), root=root, pinned=True)
    assert seen(config, blocks(2), blocks(2)) == [
        [(0, 0, 1), (0, 1, 2)], [(1, 0, 1), (1, 1, 2)],
    ]  # fmt: skip


def test_processes_run_side_by_side_on_as_many_virtual_processors_as_there_are():
    one = configured(vm("a", "b", turn="4096accesses"))
    assert seen(one, blocks(2), blocks(2)) == [[(1, 0, 1), (1, 1, 2), (1, 2, 3), (1, 3, 4)], []]
    two = configured(vm("a", "b", vcpus=2, turn="4096accesses"))
    replay, result = replayed(two, blocks(2), blocks(2))
    assert [row[:4] for row in slices_of(replay)] == [
        [1, 0, 0, BLOCK], [1, 1, 0, BLOCK], [1, 0, BLOCK, 2 * BLOCK], [1, 1, BLOCK, 2 * BLOCK],
    ]  # fmt: skip
    assert result.counters["guest_faults"][0] == 2
    alone = configured(vm("a", vcpus=2))
    assert seen(alone, blocks(2)) == [[(1, 0, 1), (1, 1, 2)], []]


def test_a_process_stays_with_its_virtual_processor_until_its_turn_there_is_over():
    """Two vcpus of three processes on one lp: a slice that ends does not free the process."""
    config = configured(vm("a", "b", "c", vcpus=2, turn="8192accesses"), lps=1)
    replay, _ = replayed(config, blocks(4), blocks(4), blocks(4))
    ran = [(row[7], row[1]) for row in slices_of(replay)]  # vcpu, stream
    # vcpu 0 has a, vcpu 1 has b, two blocks each; then c is free, so vcpu 0 takes it, and vcpu 1 takes a
    assert ran[:8] == [(0, 0), (1, 1), (0, 0), (1, 1), (0, 2), (1, 0), (0, 2), (1, 0)]


def test_who_ran_elsewhere_until_later_is_not_taken_before_that():
    """vm1's first block takes lp 0 to 3. lp 1, at 1 by then, waits for it."""
    config = configured(vm(), vm(), vm(start="12290cycles"), costs={"guest_fault": BLOCK})
    pages = [(0, 0, 0, 0), (0, 0, 0x10000, 0)] + [(0, 0, 0, 0)] * (BLOCK - 2)
    assert seen(config, pages + blocks(1), blocks(1), blocks(1)) == [
        [(1, 0, 3), (1, 3, 4)],  # goes on with vm1, and lp 1 waits for vm3
        [(2, 0, 2), (-1, 2, 12290 / BLOCK), (3, 12290 / BLOCK, 12290 / BLOCK + 2)],
    ]  # fmt: skip


def test_an_idle_processor_takes_who_leaves_another_at_once():
    """One vcpu at a time can run, in turn: the second of two waits for its start on the idle lp."""
    config = configured(vm(weight=9), vm(start="6000cycles"))
    replay, result = replayed(config, blocks(4), blocks(1))
    rows = turns(config, blocks(4), blocks(1))
    assert rows == [
        (1, -1, -1, 0, 6000 / BLOCK, "idle"), (1, 2, 1, 6000 / BLOCK, 6000 / BLOCK + 1, "end"),
        (0, 1, 0, 0, 4, "end"),
    ]  # fmt: skip
    assert result.cycles["idle"] == [0, 6000]
    assert clocks_of(replay) == [4 * BLOCK, 6000 + BLOCK]
    assert result.clock == 4 * BLOCK


def test_who_starts_while_a_processor_idles_starts_there():
    """lp 0's second turn lasts to 8192, but lp 1 has idled till vm2's start."""
    config = configured(vm(), vm(start="6000cycles"))
    start = 6000 / BLOCK
    assert seen(config, blocks(4), blocks(1)) == [
        [(1, 0, 1), (1, 1, 2), (1, 2, 3), (1, 3, 4)], [(-1, 0, start), (2, start, start + 1)],
    ]  # fmt: skip


def test_who_leaves_a_processor_for_another_one_is_taken_by_one_that_idles():
    """From vm2's start on two machines take turns on lp 0, and lp 1 takes the one that waits."""
    config = configured(vm(), vm(start="4096cycles"), vm(start="4096cycles"), lps=2)
    found = seen(config, blocks(3), blocks(3), blocks(3))
    assert sum(end - begin for _, begin, end in found[1] if begin) > 3


def test_a_start_in_accesses_counts_those_of_all_processors():
    config = configured(vm(weight=9), vm(weight=9), vm(start="12288accesses"), lps=3)
    assert seen(config, blocks(4), blocks(4), blocks(1)) == [
        # lp 0 and 1 make a block each, then lp 0 the third: lp 2, at clock 1 by then, goes on
        [(1, 0, 4)], [(2, 0, 4)], [(-1, 0, 1), (3, 1, 2)],
    ]  # fmt: skip


def test_idling_at_the_end_is_not_counted():
    config = configured(vm(), lps=4)
    replay, result = replayed(config, blocks(3))
    assert clocks_of(replay) == [3 * BLOCK, 0, 0, 0]
    assert result.cycles["idle"] == [0]
    assert len(slices_of(replay)) == 3


def test_idling_is_booked_to_who_comes_and_not_before_the_warm_up():
    config = configured(vm(weight=9), vm(start="10000cycles"), warm_up=1)
    replay, result = replayed(config, blocks(4), blocks(1))
    # the warm-up ends with lp 0's first block, when lp 1 has waited to its beginning
    assert result.cycles["idle"] == [0, 10000]
    assert clocks_of(replay) == [3 * BLOCK, 10000 + BLOCK]
    later = configured(vm(weight=9), vm(start="10000cycles"), warm_up=BLOCK + 1)
    replay, result = replayed(later, blocks(4), blocks(1))
    assert result.cycles["idle"] == [0, 10000 - BLOCK]
    assert clocks_of(replay) == [2 * BLOCK, 10000]


def test_another_virtual_processor_of_the_same_machine_is_a_switch_but_no_purge():
    for mode, misses in (("tagged", 2), ("purge", 2), ("flush", 3)):
        config = configured(
            vm("a", "b", vcpus=2), lps=1, mode=mode, costs={"switch": 7}, backing="first-touch"
        )
        replay, result = replayed(config, blocks(2), blocks(1))
        assert [row[7] for row in slices_of(replay)] == [0, 1, 0]
        assert result.counters["switches"][0] == 2
        assert result.clock == 3 * BLOCK + 2 * 7
        assert result.counters["walks"][0] == misses, mode


def test_who_comes_from_another_processor_is_a_migration_and_drops_what_its_machine_has_there():
    """vm1 alone has work; vm2 takes lp 0 for a block while vm1 goes to lp 1, where it was never."""
    for flush in (True, False):
        config = configured(vm(), vm(), vm(), migration_flush=flush, costs={"migration": 5})
        replay, result = replayed(config, *[blocks(4)] * 3)
        migrated = counts(replay, "migrations")
        assert sum(map(sum, migrated)) == comings(replay) > 3
        assert result.cycles["migration"] == [5 * sum(each) for each in zip(*migrated, strict=True)]
        walks = sum(map(sum, counts(replay, "walks")))
        # Each of three has a page: without drops each lp walks once for each machine that it runs.
        ran = {(row[6], row[0]) for row in slices_of(replay)}
        assert walks == (3 + comings(replay) if flush else len(ran))


def test_slices_of_several_processors_are_told_apart_and_drawn_in_rows_of_their_own():
    slices = [
        Slice("a", "", 0, 0, 50, 1, "quantum", 0, 0), Slice("b", "", 0, 0, 100, 1, "end", 1, 0),
        Slice("", "", 0, 50, 100, 0, "idle", 0, 0),
    ]  # fmt: skip
    lines = gantt.lines(Slices([("a", ""), ("b", "")], slices, 1000, True, 2), width=31)
    assert lines[2:5] == [
        "lp0 a       ##########".replace("#", "█"),
        "lp0 (idle)            ██████████",
        "lp1 b       ████████████████████",
    ]
