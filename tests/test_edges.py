"""Cases that random runs seldom reach, each found by a broken kernel that they let pass."""

import numpy as np
import pytest
from handtables import EPT_WB, HandGuest, HandTables
from memory_trace import MemoryTrace
from processors_for_tests import array, cache, processor

from mmu.config import RunConfig
from mmu.hardware.access import make_accesses
from mmu.hardware.geometry import build_machine, processor_rows, view_of
from mmu.hardware.invalidate import flush, purge
from mmu.hardware.outcome import Outcome
from mmu.hardware.rows import CONTEXT_SHIFT, EMPTY, L2_DATA
from mmu.hardware.rules import x86_rules
from mmu.run import Replay

MIB = 1 << 20
READ, WRITE, FETCH = 0, 1, 2


def vm(name, **fields):
    small = {"guest_pages": "4k", "nested_pages": "4k"}
    return {"trace": name, "memory": 256 * MIB} | small | fields


def configured(vms=1, **fields):
    machines = [vm(f"vm{n}") for n in range(vms)]
    return RunConfig(**{"processor": processor(), "vms": machines, "memory": 1024 * MIB} | fields)


def view(machine):
    """One processor's view of a machine, as kernels take it."""
    return view_of(machine)


def machine_over(words, made_of, root, nested=-1):
    """A machine with a user's tables as context 1 of machine 0."""
    groups = processor_rows(made_of, ("4k",))
    machine = view(build_machine(groups, 2, words.view(np.int64), x86_rules()))
    machine.root[1], machine.vm[1], machine.nested[1] = root, 0, nested
    return machine


def accesses(machine, *pairs):
    address = np.array([gva for gva, _ in pairs], np.int64)
    kinds = np.array([kind for _, kind in pairs], np.uint8)
    return make_accesses(machine, 0, 1, address, kinds, np.zeros(0, np.int64), 0, len(pairs))


def test_a_purge_moves_who_stays_to_the_front_in_order():
    config = configured(2, processor=processor(l2=[array(5, 5)]))
    host = Replay(config, [MemoryTrace([(0, 0, 0, 0)])] * 2).host
    a, b = host.context(1, 0), host.context(2, 0)
    machine = view(host.machine)
    first = int(machine.rows.first[machine.rows.begin[L2_DATA]])
    pages = [(a, 1), (a, 2), (b, 3), (a, 4), (b, 5)]
    machine.tag[first : first + 5] = [c << CONTEXT_SHIFT | page << 8 for c, page in pages]
    machine.frame[first : first + 5] = [1, 2, 3, 4, 5]
    purge(machine, 1)
    kept = [b << CONTEXT_SHIFT | page << 8 for page in (3, 5)]
    assert machine.tag[first : first + 5].tolist() == [*kept, EMPTY, EMPTY, EMPTY]
    assert machine.frame[first : first + 2].tolist() == [3, 5]


def test_a_flush_at_an_exit_comes_before_the_handler():
    config = configured(
        processor=processor(l2=[array(1, 1)]), mode="flush", exits_per_second=10**5,
        exit_code_pages=1, exit_data_pages=0,
    )  # fmt: skip
    result = Replay(config, [MemoryTrace([(0, 0, 0, READ)] * 16384)]).run()
    assert result.counters["exits"][0]
    assert result.evictions == [[0, 0], [0, 0]]
    assert result.counters["data_accesses"] == [16384, 0]
    assert result.count("fetches", "hypervisor") > 0


@pytest.mark.parametrize(
    "trace",
    [
        [(0, 0, 0x1000, FETCH), (0, 0, 0x5000, READ), (0, 0, 0x1008, FETCH), (0, 0, 0x9000, FETCH)],
        [(0, 0, 0x1000, READ), (0, 0, 0x5000, FETCH), (0, 0, 0x1008, READ), (0, 0, 0x9000, READ)],
    ],
)
def test_a_folded_access_after_an_exit_walks_again(trace):
    config = configured(mode="flush", backing="first-touch")
    raw, compact = (Replay(config, [MemoryTrace(trace, c)]).run() for c in (False, True))
    assert raw.counters["walks"] == compact.counters["walks"]


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_walk_cache_keeps_the_rights_of_the_levels_above(level):
    tables = HandTables()
    root, gva = tables.take(), 0x1000
    tables.map_native(root, gva, 0x5000)
    tables.map_native(root, gva + 0x1000, 0x6000)
    table = root
    for above in range(4, level, -1):
        table = tables.get(table, gva >> (3 + 9 * above) & 511) & ~0xFFF
    index = gva >> (3 + 9 * level) & 511
    tables.put(table, index, tables.get(table, index) & ~2)  # read-only from here on
    machine = machine_over(tables.words, processor(walk_caches={"pde": cache(4)}), root)
    assert accesses(machine, (gva, READ), (gva + 0x1000, WRITE)) == 1  # the write faults


@pytest.mark.parametrize(("rights", "kind"), [(3, FETCH), (5, WRITE)])
@pytest.mark.parametrize("level", [1, 2])
def test_a_hit_has_no_right_that_the_nested_tables_deny(rights, kind, level):
    guest = HandGuest()
    guest.map(0x1000, 0x8000_5000)
    guest.memory.map_nested(guest.nested_root, 0x8000_5000, 0x5000, link=7, leaf=7 | EPT_WB)
    table = guest.nested_root
    for above in range(4, level, -1):
        table = guest.memory.get(table, 0x8000_5000 >> (3 + 9 * above) & 511) & ~0xFFF
    index = 0x8000_5000 >> (3 + 9 * level) & 511
    guest.memory.put(table, index, guest.memory.get(table, index) & ~7 | rights)
    for made_of in (processor(l2=[array(4, 4)]), processor(nested_tlb=array(4, 4, "4k", "2m"))):
        machine = machine_over(guest.memory.words, made_of, guest.root, guest.nested_root)
        assert accesses(machine, (0x1000, READ), (0x1000, kind)) == 1
        assert machine.fault[0] == Outcome.NESTED_VIOLATION


def test_a_quantum_ends_at_the_block_that_reaches_it_exactly():
    config = configured(2, quantum={"value": 4096, "unit": "accesses"})
    result = Replay(config, [MemoryTrace([(0, 0, 0, READ)] * 8192)] * 2).run()
    assert sum(result.counters["switches"]) == 3


def test_a_timer_exit_is_due_when_the_clock_is_exactly_there():
    names = ("l2", "walk_cache", "nested_tlb", "reference", "update")
    free = processor(frequency_hz=4096 * 1000, latencies=dict.fromkeys(names, 0))
    costs = {"guest_fault": 0, "nested_fault": 0, "exit": 0, "switch": 0}
    config = configured(
        processor=free, exits_per_second=1000, exit_code_pages=0, exit_data_pages=0,
        costs=costs | {"cycles_per_instruction": 1},
    )  # fmt: skip
    result = Replay(config, [MemoryTrace([(0, 0, 0, READ)] * 4096)]).run()
    assert (result.clock, result.counters["exits"][0]) == (4096, 1)


def test_a_flush_reaches_the_cache_behind_an_absent_one():
    config = configured(processor=processor(walk_caches={"pdpte": cache(4)}))
    machine = view(Replay(config, [MemoryTrace([(0, 0, 0, 0)])]).host.machine)
    machine.tag[:] = 7
    flush(machine, True)
    assert (machine.tag == EMPTY).all()


def test_automatic_pages_are_small_where_no_large_frame_is_free():
    machines = [vm("a", guest_pages="auto", nested_pages="4k", fragmentation=1.0)]
    config = RunConfig(processor=processor(), vms=machines, memory=1024 * MIB)
    result = Replay(config, [MemoryTrace([(0, 0, 0, READ)])]).run()
    assert (result.memory["guest_2m"][0], result.memory["guest_4k"][0]) == (0, 1)


@pytest.mark.slow
def test_purge_and_flush_give_equal_counts_without_exits():
    trace = [(0, 0, 4096 * (n * n % 97), n % 3) for n in range(30_000)]
    quantum = {"value": 5000, "unit": "accesses"}
    made_of = processor(l1_data=[array(8, 4)], l1_fetch=[array(8, 4)], l2=[array(32, 4)])
    purged, flushed = (
        Replay(
            configured(3, processor=made_of, quantum=quantum, mode=mode), [MemoryTrace(trace)] * 3
        ).run()
        for mode in ("purge", "flush")
    )
    assert purged.counters == flushed.counters
    assert purged.hits == flushed.hits
    assert purged.counters["switches"][0] > 1


def test_the_root_partition_is_mapped_one_to_one_and_kept_off_the_reserve():
    root = {"trace": "r", "memory": 64 * MIB, "nested_pages": "4k"}
    run = Replay(configured(root=root), [MemoryTrace([(0, 0, 0x1000, READ)])] * 2)
    run.run()
    from mmu.translation import translate  # noqa: PLC0415

    found = translate(run.memory, 0x1000, **run.space("root"))
    assert found.gpa == found.maddr >= run.config.reserve
    nested = run.space("root")["nested"]
    inside = translate(run.memory, 0, cr3=run.config.reserve - 4096, nested=nested)
    assert inside.outcome == Outcome.NESTED_VIOLATION
    guest = translate(run.memory, 0x1000, **run.space("vm0"))
    assert guest.gpa != guest.maddr


@pytest.mark.parametrize("replacement", ["lru", "tree-plru"])
def test_a_page_size_that_a_side_lacks_is_not_met_in_another_array(replacement):
    """The fetch L1 has pieces only; the slot that the data L1's last way would name there is the L2's."""
    made_of = processor(
        l1_data=[array(16, 16) | {"replacement": replacement}], l2=[array(16, 16, "4k", "2m")]
    )
    machines = [vm("a", guest_pages="2m", nested_pages="2m")]
    trace = [
        (0, 0, 0x0000, FETCH),
        (0, 0, 0x1000, READ),
        (0, 0, 0x2000, READ),
        (0, 0, 0x3000, FETCH),
    ]
    config = RunConfig(processor=made_of, vms=machines, memory=1024 * MIB)
    result = Replay(config, [MemoryTrace(trace)]).run()
    assert result.counters["l1_fetch_misses"] == [2, 0]
    assert result.hits["l2.2m"] == [3, 0]


def test_a_page_that_a_write_brought_back_to_the_l2_is_lost_to_the_flush_that_follows():
    """Pages 1 and 2 take page 0's place in the L2, but not in the L1, which denies the write."""
    made_of = processor(l1_data=[array(8, 8)], l2=[array(2, 2)])
    trace = [(0, 0, page << 12, READ) for page in range(3)] + [(0, 0, 0, WRITE)]
    trace += [(1, 0, 0, READ), (0, 0, 0, READ)]  # without PCIDs a change of space drops all
    config = RunConfig(processor=made_of, vms=[vm("a", pcid=False)], memory=1024 * MIB)
    result = Replay(config, [MemoryTrace(trace)]).run()
    assert result.counters["dirty_walks"] == [1, 0]
    told = {cause: walks[0] for cause, walks in result.misses.items() if walks[0]}
    assert told == {"first_touch": 4, "flush": 1}
