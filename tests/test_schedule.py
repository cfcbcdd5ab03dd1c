"""Schedules as the processor lives them: weights, starts, idling, and processes in a machine."""

import numpy as np
import pytest
from memory_trace import MemoryTrace

from mmu import report
from mmu.config import ConfigError, RunConfig
from mmu.errors import InputError
from mmu.run import Replay, compare_config
from mmu.software.dispatcher import FINISHED, SLICES_FULL, dispatch
from mmu.software.turns import REASONS, SLICE_FIELDS, SLICES
from mmu.trace.format import Raw
from mmu.trace.writer import write_trace
from mmu.turns import ProcessConfig, Quantum, Start

BLOCK = 4096
FREE = dict.fromkeys(("l2", "walk_cache", "nested_tlb", "reference", "update"), 0)
NO_COSTS = dict.fromkeys(("guest_fault", "nested_fault", "exit", "switch", "cr3_load"), 0)
PROCESSOR = {
    "name": "plain", "frequency_hz": 10**6, "latencies": FREE,
    "l1_data": [{"entries": 64, "ways": 4, "sizes": ["4k"]}],
    "l1_fetch": [{"entries": 64, "ways": 4, "sizes": ["4k"]}],
}  # fmt: skip


def configured(*vms, **fields):
    """Run on a processor on which an access takes one cycle and nothing else takes any."""
    named = [{"memory": "64MiB", "name": f"vm{n}"} | vm for n, vm in enumerate(vms, start=1)]
    defaults = {"processor": PROCESSOR, "costs": NO_COSTS, "memory": "1GiB", "quantum": "4096us"}
    return RunConfig(**{**defaults, "vms": named, **fields})


def blocks(count, address=0, space=0):
    return [(space, 0, address, 0)] * (BLOCK * count)


def replayed(config, *accesses, compact=False):
    replay = Replay(config, [MemoryTrace(a, compact) for a in accesses])
    room = np.zeros((1000, SLICE_FIELDS), np.int64)
    replay.host.schedule = replay.host.schedule._replace(slices=room)
    return replay, replay.run()


def turns(config, *accesses):
    """Return who ran: machine, stream within the run, blocks, and why it ended."""
    replay, result = replayed(config, *accesses)
    found = []
    for vm, stream, begin, end, made, why, *_ in room_of(replay):
        assert end - begin == made or why == REASONS.index("idle")
        found.append((vm, stream, (end - begin) / BLOCK, REASONS[why]))
    assert result.clock == sum(map(sum, result.cycles.values()))
    return found


def room_of(replay):
    return replay.host.schedule.slices[: replay.now[SLICES]].tolist()


def vm(trace="x", **fields):
    return {"trace": trace, **fields}


def test_a_machine_of_weight_three_has_turns_three_times_as_long():
    config = configured(vm(weight=3), vm())
    assert turns(config, blocks(5), blocks(3)) == [
        (1, 0, 3, "quantum"), (2, 1, 1, "quantum"), (1, 0, 2, "end"),
        (2, 1, 1, "quantum"), (2, 1, 1, "end"),
    ]  # fmt: skip


@pytest.mark.parametrize("quantum", ["4096accesses", "4096instructions", "4096cycles"])
def test_weights_multiply_a_quantum_in_any_unit(quantum):
    config = configured(vm(weight=2), vm(), quantum=quantum)
    assert [row[2] for row in turns(config, blocks(2), blocks(2))] == [2, 1, 1]


def test_a_turn_that_ends_inside_a_block_lasts_to_its_end():
    config = configured(vm(weight=2), vm(), quantum="4097accesses")
    assert [row[2] for row in turns(config, blocks(3), blocks(2))] == [3, 2]


def test_a_machine_with_a_start_gets_its_first_turn_at_the_first_turn_end_after_it():
    for start in ("8192cycles", "4097cycles", "8192us", "8192accesses", "4097accesses"):
        config = configured(vm(), vm(start=start))
        assert [row[0] for row in turns(config, blocks(4), blocks(1))] == [1, 1, 2, 1, 1], start
    config = configured(vm(), vm(start="8193cycles"))
    assert [row[0] for row in turns(config, blocks(4), blocks(1))] == [1, 1, 1, 2, 1]


def test_a_start_does_not_cut_a_turn_short():
    config = configured(vm(weight=3), vm(start="1cycles"))
    assert [row[0] for row in turns(config, blocks(4), blocks(1))] == [1, 2, 1]


def test_the_processor_idles_until_the_first_start_when_nobody_can_run():
    config = configured(vm(), vm(start="10000cycles"), vm(start="30000cycles"))
    assert turns(config, blocks(1), blocks(1), blocks(1)) == [
        (1, 0, 1, "end"), (-1, -1, (10000 - 4096) / BLOCK, "idle"), (2, 1, 1, "end"),
        (-1, -1, (30000 - 14096) / BLOCK, "idle"), (3, 2, 1, "end"),
    ]  # fmt: skip
    _, result = replayed(config, blocks(1), blocks(1), blocks(1))
    assert result.cycles["idle"] == [0, 10000 - 4096, 30000 - 14096]
    assert result.clock == 34096
    assert result.counters["switches"][:3] == [1, 1, 0]


def test_who_waits_for_accesses_does_not_end_the_idling():
    config = configured(vm(), vm(start="20000cycles"), vm(start="8192accesses"))
    assert [row[:2] for row in turns(config, blocks(1), blocks(1), blocks(1))] == [
        (1, 0), (-1, -1), (2, 1), (3, 2),
    ]  # fmt: skip


def test_a_run_may_begin_with_idling_which_the_warm_up_leaves_out():
    for warm_up, idle in ((0, 5000), (1, 0)):
        config = configured(vm(start="5000cycles"), vm(start="70000cycles"), warm_up=warm_up)
        _, result = replayed(config, blocks(1), blocks(1))
        assert result.cycles["idle"] == [idle, 70000 - 5000 - BLOCK]


def test_idle_cycles_are_in_the_clock_and_in_no_figure():
    late = configured(vm(start="50000cycles"))
    _, result = replayed(late, blocks(2))
    assert (result.clock, result.cycle_count()) == (50000 + 2 * BLOCK, 2 * BLOCK)
    assert result.cycles_per_instruction() == 1
    _, plain = replayed(configured(vm()), blocks(2))
    assert "idle" not in plain.cycles
    notes = [any("Idle" in note for note in report.notes(run)) for run in (result, plain)]
    assert notes == [True, False]


def test_the_same_machine_after_idling_is_no_switch():
    processes = [{"trace": "a"}, {"trace": "b", "start": "20000cycles"}]
    _, result = replayed(configured({"processes": processes}), blocks(1), blocks(1))
    assert result.counters["switches"][0] == 0
    assert result.cycles["idle"] == [20000 - BLOCK]


def test_the_timer_of_exits_stands_still_while_the_processor_idles():
    fields = {"exits_per_second": 100, "exit_code_pages": 0, "exit_data_pages": 0}  # each 10000
    for start in ("0", "12345678cycles"):
        config = configured(vm(), vm(start=start), **fields)
        _, result = replayed(config, blocks(2), blocks(3))
        assert result.counters["exits"][:2] == ([0, 2] if start != "0" else [1, 1])


def test_a_start_in_accesses_that_never_comes_is_refused_with_what_would():
    good = configured(vm(), vm(start=f"{2 * BLOCK}accesses"))
    assert [row[0] for row in turns(good, blocks(2), blocks(1))] == [1, 1, 2]
    late = configured(vm(), vm(start=f"{2 * BLOCK + 1}accesses"))
    with pytest.raises(
        InputError, match=r"8193 accesses for 'vm2', which never come; accepted: up to 8192, what"
    ):
        replayed(late, blocks(2), blocks(1))
    mutual = configured(vm(start="1accesses"), vm(start="1accesses"))
    with pytest.raises(InputError, match="accepted: up to 0"):
        replayed(mutual, blocks(2), blocks(1))
    chained = configured(vm(), vm(start="4096accesses"), vm(start="8192accesses"))
    assert [row[0] for row in turns(chained, blocks(1), blocks(1), blocks(1))] == [1, 2, 3]


def test_a_trace_runs_as_often_as_its_process_its_machine_or_the_run_says():
    processes = [{"trace": "a"}, {"trace": "b", "repeat": 5}]
    config = configured(vm(), vm(repeat=2), {"processes": processes, "repeat": 4}, repeat=3)
    _, result = replayed(config, *[blocks(1)] * 4)
    assert result.counters["accesses"][:3] == [3 * BLOCK, 2 * BLOCK, 9 * BLOCK]


def three(turn="4096accesses", **fields):
    processes = [{"trace": "a", "weight": 2}, {"trace": "b"}, {"trace": "c"}]
    return {"processes": processes, "turn": turn, **fields}


def test_processes_have_turns_inside_those_of_their_machine_in_cyclic_order():
    config = configured(three(weight=8))
    assert turns(config, blocks(3), blocks(1), blocks(3)) == [
        (1, 0, 2, "turn"), (1, 1, 1, "end"), (1, 2, 1, "turn"), (1, 0, 1, "end"),
        (1, 2, 2, "end"),
    ]  # fmt: skip


@pytest.mark.parametrize("unit", ["accesses", "instructions", "cycles", "us"])
def test_turns_of_processes_are_in_any_unit(unit):
    config = configured(three(f"4096{unit}", weight=8))
    assert [row[2] for row in turns(config, blocks(3), blocks(1), blocks(3))] == [2, 1, 1, 1, 2]


def test_a_turn_of_a_process_goes_on_in_the_next_turn_of_its_machine():
    config = configured(three("8192accesses"), vm())
    found = [(stream, why) for _, stream, _, why in turns(config, *[blocks(5)] * 3, blocks(9))]
    assert found[:12:2] == [(0, "quantum")] * 4 + [(1, "quantum")] * 2  # 2 x 8192, then 8192
    assert found[1:12:2] == [(3, "quantum")] * 6


def test_without_a_turn_of_its_own_a_process_has_the_quantum():
    config = configured({"processes": [{"trace": "a"}, {"trace": "b"}]}, quantum="8192accesses")
    assert config.vms[0].turn == Quantum(value=8192, unit="accesses")
    assert [row[1] for row in turns(config, blocks(4), blocks(4))] == [0, 1, 0, 1]


def test_a_process_starts_when_its_start_and_that_of_its_machine_have_come():
    processes = [{"trace": "a"}, {"trace": "b", "start": "8192accesses"}]
    config = configured(vm(), {"processes": processes, "start": "4096cycles"})
    found = turns(config, blocks(3), blocks(2), blocks(1))
    assert [row[1] for row in found] == [0, 1, 0, 2, 0, 1]


def spaces_of(config, *accesses):
    replay, _ = replayed(config, *accesses)
    return sorted(space for _, space in replay.host.contexts)


def test_processes_have_spaces_of_their_own_unless_they_say_that_they_share_one():
    own = configured({"processes": [{"trace": "a"}, {"trace": "b"}]})
    assert spaces_of(own, blocks(1), blocks(1)) == [0, 1]
    threads = configured({"processes": [{"trace": "a", "space": 7}, {"trace": "b", "space": 7}]})
    _, apart = replayed(own, blocks(1), blocks(1))
    _, shared = replayed(threads, blocks(1), blocks(1))
    assert apart.counters["guest_faults"][0] == 2  # the page, in either
    assert shared.counters["guest_faults"][0] == 1
    assert apart.memory["guest_tables"][0] == 2 * shared.memory["guest_tables"][0]


def test_numbers_that_were_given_are_not_given_again():
    processes = [{"trace": "a"}, {"trace": "b", "space": 0}, {"trace": "c"}, {"trace": "d"}]
    config = configured({"processes": [*processes, {"trace": "e", "space": 2}]})
    assert [p.space for p in config.vms[0].processes] == [1, 0, 3, 4, 2]


def test_spaces_of_a_trace_stay_apart_from_those_of_other_processes():
    both = blocks(1) + blocks(1, space=1)
    config = configured({"processes": [{"trace": "a"}, {"trace": "b"}]}, vm())
    assert spaces_of(config, both, both, both) == [0, 0, 1, 1, 65536, 65537]
    replay, result = replayed(config, both, both, both)
    assert result.counters["guest_faults"][:2] == [4, 2]
    assert replay.space("vm1", 65537)["cr3"] != replay.space("vm1", 1)["cr3"]


def test_spaces_of_one_machine_may_have_pages_of_different_sizes():
    processes = [{"trace": "a", "guest_pages": "2m"}, {"trace": "b"}]
    config = configured({"processes": processes, "memory": "64MiB", "guest_pages": "4k"})
    assert [p.guest_pages for p in config.vms[0].processes] == ["2m", "4k"]
    _, result = replayed(config, blocks(1), blocks(1))
    assert (result.memory["guest_2m"][0], result.memory["guest_4k"][0]) == (1, 1)


def test_layouts_move_by_space_so_that_threads_see_the_same_addresses():
    same = [{"trace": "a", "space": 1}, {"trace": "b", "space": 1}, {"trace": "c", "space": 2}]
    config = configured({"processes": same, "aslr": 5})
    replay = Replay(config, [MemoryTrace(blocks(1))] * 3)
    offsets = [stream.offset for stream in replay.streams.values()]
    assert offsets[0] == offsets[1] != offsets[2]
    alone = Replay(configured(vm(aslr=5)), [MemoryTrace(blocks(1))])
    zero = Replay(configured({"processes": [{"trace": "a"}], "aslr": 5}), [MemoryTrace(blocks(1))])
    steps = np.random.default_rng([5, 1]).integers(0, (1 << 46) // (2 << 20))  # as ever
    assert alone.streams[0].offset == zero.streams[0].offset == int(steps) * (2 << 20)


def test_every_mode_runs_the_same_schedule_and_the_root_partition_has_one_too():
    root = {"processes": [{"trace": "r"}, {"trace": "s"}], "weight": 2, "memory": "64MiB"}
    config = configured(vm(start="9000cycles"), root=root)
    assert [row[:2] for row in turns(config, blocks(2), blocks(2), blocks(1))] == [
        (0, 0), (0, 1), (0, 0), (0, 1), (1, 2),
    ]  # fmt: skip


def test_the_expanded_configuration_says_everything_and_makes_the_same_run_again():
    root = {"processes": [{"trace": "r", "start": "5ms"}]}
    config = configured(three("1ms", weight=4, repeat=2), vm(start="2ms"), root=root)
    plain = config.expanded()
    assert plain["vms"][0]["processes"][0] == {
        "weight": 2, "repeat": 2, "start": {"value": 0, "unit": "cycles"}, "trace": "a",
        "name": "a", "space": 0, "guest_pages": "4k",
    }  # fmt: skip
    assert plain["vms"][0]["turn"] == {"value": 1000, "unit": "cycles"}
    assert plain["vms"][1]["start"] == {"value": 2000, "unit": "cycles"}
    assert plain["root"]["processes"][0]["start"] == {"value": 5000, "unit": "cycles"}
    assert RunConfig(**plain) == config
    assert RunConfig(**plain).expanded() == plain


def test_a_comparison_has_the_schedule_in_every_mode(tmp_path):
    path = tmp_path / "t.parquet"
    write_trace(path, [Raw(np.zeros(9000, np.uint64), np.zeros(9000, np.uint8))], "raw")
    config = configured({"trace": path, "weight": 2}, {"trace": path, "start": "30000cycles"})
    comparison = compare_config(config, ["tagged", "flush", "native"])
    for result in comparison.results.values():
        assert result.cycles["idle"][1] > 0
        assert result.config["vms"][0]["weight"] == 2


@pytest.mark.parametrize("room", [2, 3, 5])
def test_the_loop_returns_before_a_slice_would_be_lost(room):
    processes = [{"trace": "a"}, {"trace": "b", "start": "40000cycles"}, {"trace": "c"}]
    machine = {"processes": processes, "turn": "1cycles", "weight": 3}
    config = configured(machine, vm(start="99999cycles"), vm(start="9cycles"))
    traces = [MemoryTrace(blocks(n)) for n in (2, 3, 4, 2, 1)]
    whole, _ = replayed(config, *[blocks(n) for n in (2, 3, 4, 2, 1)])
    replay = Replay(config, traces)
    slices = np.zeros((room, SLICE_FIELDS), np.int64)
    schedule = replay.host.schedule._replace(slices=slices)
    for stream in replay.streams.values():
        stream.load(replay.feed)
    found, status = [], SLICES_FULL
    while status != FINISHED:
        status = dispatch(
            replay.host.machine, None, replay.host.world, schedule, replay.feed, 1 << 40
        )
        assert status in (SLICES_FULL, FINISHED)
        found += slices[: replay.now[SLICES]].tolist()
        replay.now[SLICES] = 0
    assert found == room_of(whole)
    assert [row[0] for row in found].count(-1) == 2


@pytest.mark.parametrize(
    ("vms", "message"),
    [
        ([vm(weight=0)], r"vms.0.weight: found 0; accepted: a whole number from 1 to 10000"),
        ([vm(weight=-1)], r"vms.0.weight: found -1"),
        ([vm(weight=10_001)], r"vms.0.weight: found 10001"),
        ([vm(weight="2")], r"vms.0.weight: found '2'"),
        ([vm(weight=True)], r"vms.0.weight: found True"),
        ([vm(repeat=0)], r"vms.0.repeat: found 0; accepted: a whole number from 1"),
        ([vm(start="5")], r"vms.0.start: found '5'; accepted: 0, or a number with us, ms, s"),
        ([vm(start="-5ms")], r"vms.0.start: found '-5ms'"),
        ([vm(start="5instructions")], r"vms.0.start: found '5instructions'; accepted: 0, or"),
        ([vm(start="5 acesses")], r"vms.0.start: .*did you mean 'accesses'"),
        ([vm(start=5)], r"vms.0.start: found 5; accepted"),
        ([vm(start="1.5cycles")], r"vms.0.start: found '1.5cycles'"),
        ([vm(), vm(start="99999999999999999999s")], r"vms.1.start: found '9+s'; .* 2\^62 - 1 cyc"),
        ([vm(start={"value": -1, "unit": "cycles"})], r"vms.0.start.value: found -1"),
        ([vm(turn="1ms")], r"vms.0.turn: found a turn of processes; accepted: with processes"),
        ([{"processes": [vm()], "turn": "0ms"}], r"vms.0.turn: found '0ms'; accepted: a number"),
        ([{}], r"vms.0.trace: missing; a value must be given, or processes"),
        ([{"processes": []}], r"vms.0.trace: missing"),
        ([vm(processes=[vm()])], r"vms.0.processes: found a trace and 1 processes; accepted: one"),
        ([{"processes": [{}]}], r"vms.0.processes.0.trace: missing"),
        ([{"processes": [vm(wait=1)]}], r"vms.0.processes.0.wait: no such field.*'weight'"),
        ([{"processes": [vm(space=65536)]}], r"processes.0.space: found 65536; .* 0 to 65535"),
        ([{"processes": [vm(start="5 h")]}], r"vms.0.processes.0.start: found '5 h'"),
        ([{"processes": [vm("a", name="b"), vm("b", name="b")]}], r"processes.1.name: found 'b'"),
        (
            [{"processes": [vm(space=1), vm(space=1, guest_pages="2m")]}],
            r"vms.0.processes.1.guest_pages: found '2m' in space 1, which has '4k' already",
        ),
        ([{"processes": [vm()] * 501}] * 2, "vms: found 1002 traces; accepted: up to 1000"),
    ],
)
def test_what_cannot_be_scheduled_is_refused_with_where_found_and_accepted(vms, message):
    with pytest.raises(ConfigError, match=message) as caught:
        configured(*vms)
    assert "\n" not in str(caught.value)


def test_a_turn_is_at_most_what_a_clock_can_count():
    with pytest.raises(ConfigError, match=r"vms.0.weight: found 5; accepted: up to 4, with a qua"):
        configured(vm(weight=5), quantum={"value": (1 << 62) // 5 + 1, "unit": "cycles"})


def test_processes_and_starts_can_be_built_by_themselves():
    process = ProcessConfig(trace="a", start="0ms", space=3.0)
    assert (process.space, process.start) == (3, "0ms")
    assert Start.parse("0", 10) == Start.parse(0, 10) == Start(value=0, unit="cycles")
    assert Start.parse("1.5s", 10) == Start(value=15, unit="cycles")
