"""Twenty accesses, cycle by cycle: two machines on two processors, worked out on paper.

Vm a has two vcpus: v0 runs the stream a0, v1 runs a1, both in one space. Vm b has v2. Quantum: four
accesses. Untagged TLBs: a switch and an exit flush. L1 holds two pages of each side, L2 sixteen, one
PDE cache and a nested TLB; two walkers, a window of two instructions; no fetches. All pages are mapped
before the run, tables and data of a vm in one nested 2M page.

An instruction takes 1 cycle, and the L2 is asked in 5. A walk looks in its caches (c, 1), then for each
table in the nested TLB (n, 1; the first time three nested entries N are read, 10 each), reads the guest
entry (G, 10), sets its accessed or dirty bit (u, 3) if it has to, and finds the data's nested page (n):

    new to the vm and the processor    c nNNNGu nGu nGu nGu n    88
    new to the processor               c nNNNG  nG  nG  nG  n    76
    after a flush                      c nG     nG  nG  nG  n    46
    PDE cached, and the page is new    c Gu n                    15
    PDE cached                         c G  n                    12

Processor 0
    clock
        0  takes v0, and runs a0's first block
        1  read 0: asks L2 to 6, walks from 6 to 94 (new to all)
        7  read 1: L2 to 12, walks from 12 to 27 (PDE cached, new)
       13  read 2: L2 to 18; both walkers are busy: waits for 1's walk to 27 (G 5, u 3, n 1);
           walks from 27 to 42
       42  the fourth instruction waits, as the first is more than two behind: to 42 for 2's walk
           (c 1, G 10, u 3, n 1), to 94 for 0's (G 6, then u 3, n 1, G 10 three times, u 3, n 1)
       95  read 0: L1 has 1 and 2; L2 has it at 100
      100  the slice is over; v1 runs on processor 1: switch to v2 (50, flush)
      150  b's first block
      151  read 0: L2 to 156, walks from 156 to 244 (new to all)
      157  read 1: L2 to 162, walks from 162 to 177
      163  read 0: L1 has it
      244  the fourth instruction waited: to 177 for 1's walk (G 10, u 3, n 1), to 244 for 0's
           (N 11, then G 10, u 3, n 1 four times)
      245  read 1: L1 has it. The slice is over; nobody else can run here: v2 goes on
      246  read 0, read 1 at 247: L1 has them
      248  write 0: L1 has it clean; walks from 248 to 263 (PDE cached, its dirty bit)
      263  end of the block waited for that (c 1, G 10, u 3, n 1)
      264  write 0: L1 has it dirty. At the block's end a's entries are dropped (10), as processor 1
           told at 480 by its own clock; b runs: no exit
      274  b is at its end; idle from now on

Processor 1
        0  takes v1, and runs a1's first block
        1  read 0: L2 to 6, walks from 6 to 82 (new to the processor)
        7  read 0: L1 has it
        8  read 1: L2 to 13, walks from 13 to 25 (PDE cached)
       82  the fourth instruction waited: to 25 for 1's walk (c 1, G 10, n 1), to 82 for 0's
           (N 13, then G 10, n 1 four times)
       83  read 3: L2 to 88, walks from 88 to 103 (PDE cached, new)
      103  end of the block waited for that (c 1, G 10, u 3, n 1). The slice is over, v2 runs on
           processor 0: switch to v0 (50, flush), which comes from there (migration, 3)
      156  a0's second block
      157  read 0: L2 to 162, walks from 162 to 208 (after the flush)
      163  read 1: L2 to 168, walks from 168 to 180 (PDE cached)
      208  end of the block: waited to 180 for 1's walk (c 1, G 10, n 1), to 208 for 0's
           (G 5, n 1, G 10, n 1, G 10, n 1). a0 is at its end: switch to v1 (50, flush)
      258  a1's second block
      259  read 1: L2 to 264, walks from 264 to 310 (after the flush)
      265  write 1: L1 has it clean; walks from 265 to 280 (PDE cached, its dirty bit)
      310  end of the block: waited to 280 for the write's walk (c 1, G 10, u 3, n 1), to 310 for the
           read's (G 7, n 1, G 10, n 1, G 10, n 1). The timer of 300 is due: a shootdown.
           Exit (100), own entries dropped (10), shootdown (40), processor 0 ran a and is told (20)
      480  a1 is at its end
"""

import naive
import numpy as np
from memory_trace import MemoryTrace
from naive import READ, WRITE, Array, Geometry, ProcessSettings, VmSettings
from test_replay_equals_naive import EVENT, recorded

from mmu.config import RunConfig
from mmu.run import Replay
from mmu.software.turns import SLICE_FIELDS
from mmu.trace.pagemap.pages import page_map_of

A0 = [[(0, READ), (1, READ), (2, READ), (0, READ)], [(0, READ), (1, READ)]]
A1 = [[(0, READ), (0, READ), (1, READ), (3, READ)], [(1, READ), (1, WRITE)]]
B = [[(0, READ), (1, READ)] * 2, [(0, READ), (1, READ), (0, WRITE)], [(0, WRITE)]]
PAGES = [(0, n << 12, 0x10_0000 + (n << 12), 0) for n in range(4)]  # space, gva, gpa, 4K
COSTS = {
    "base": 1, "l2": 5, "walk_cache": 1, "nested_tlb": 1, "guest_table": 10, "nested_table": 10,
    "update": 3, "exit": 100, "switch": 50, "migration": 3, "shootdown": 40, "shootdown_target": 20,
    "invalidation": 10,
}  # fmt: skip

CLOCKS = [274, 480]
SLICES = [  # of each processor: vm, stream of it, begin, end, accesses, why
    [(1, 0, 0, 100, 4, "quantum"), (2, 0, 150, 245, 4, "quantum"), (2, 0, 245, 274, 4, "end")],
    [(1, 1, 0, 103, 4, "quantum"), (1, 0, 156, 208, 2, "end"), (1, 1, 258, 480, 2, "end")],
]
CYCLES = [  # of each processor: of a, of b
    [
        {
            "base": 4, "l2": 4 * 5, "walk_cache": 1, "guest_table": 5 + 10 + 36,
            "update": 3 + 3 + 12, "nested_tlb": 1 + 1 + 4, "switch": 50, "invalidation": 10,
        },
        {
            "base": 8, "l2": 2 * 5, "walk_cache": 1, "guest_table": 10 + 40 + 10,
            "nested_table": 11, "update": 3 + 12 + 3, "nested_tlb": 1 + 4 + 1,
        },
    ],
    [
        {
            "base": 8, "l2": (3 + 2 + 1) * 5, "walk_cache": 2 + 1 + 1,
            "guest_table": (10 + 40 + 10) + (10 + 25) + (10 + 27), "nested_table": 13,
            "update": 3 + 3, "nested_tlb": (1 + 4 + 1) + (1 + 3) + (1 + 3), "switch": 2 * 50,
            "migration": 3, "exit": 100, "invalidation": 10, "shootdown": 40 + 20,
        },
        {},
    ],
]  # fmt: skip
COUNTS = [  # of a, of b
    {
        "ACCESS": 12, "INSTRUCTION": 12, "L2_LOOKUP": 10, "WALK": 9, "DIRTY_WALK": 1,
        "GUEST_REFERENCE": 5 * 1 + 1 + 4 * 4, "NESTED_REFERENCE": 6, "NESTED_LOOKUP": 6 + 4 * 5,
        "UPDATE": 4 + 1 + 1 + 1 + 1, "SWITCH": 3, "MIGRATION": 1, "EXIT": 1, "SHOOTDOWN": 1,
        "SHOOTDOWN_TARGET": 1, "INVALIDATION": 2,
    },
    {
        "ACCESS": 8, "INSTRUCTION": 8, "L2_LOOKUP": 2, "WALK": 2, "DIRTY_WALK": 1,
        "GUEST_REFERENCE": 4 + 1 + 1, "NESTED_REFERENCE": 3, "NESTED_LOOKUP": 5 + 1 + 1,
        "UPDATE": 4 + 1 + 1,
    },
]  # fmt: skip
MISSES = [{"first_touch": 6, "flush": 3}, {"first_touch": 2}]
LATENCIES = [{88: 1, 76: 1, 46: 2, 15: 4, 12: 2}, {88: 1, 15: 2}]


def accesses(blocks):
    """Return space, thread, address and kind; another thread begins another block."""
    return [(0, i % 2, page << 12, kind) for i, block in enumerate(blocks) for page, kind in block]


def test_twenty_accesses_take_the_cycles_worked_out_by_hand():
    pages = [Array(2, 2)]
    geometry = Geometry(
        l1=[pages, pages],
        l2=[Array(16, 4)],
        walk=[Array(4, 4), None, None],
        nested=Array(8, 4, (naive.K4, naive.M2)),
        walkers=2,
        window=2,
    )
    vm = {"memory": 4 << 20, "nested_pages": "2m", "page_map": PAGES}
    streams = [ProcessSettings(accesses(A0)), ProcessSettings(accesses(A1))]
    a = VmSettings(processes=streams, vcpus=2, turn=(10**6, "accesses"), **vm)
    b = VmSettings(accesses(B), **vm)
    settings = naive.Settings(
        geometry,
        [a, b],
        mode="flush",
        lps=2,
        quantum=(4, "accesses"),
        shootdown_interval=300,
        exit_code_pages=0,
        exit_data_pages=0,
        nested_dirty=False,
        costs=COSTS,
    )
    result = naive.Replay(settings).run()
    assert result["clocks"] == CLOCKS
    assert result["slices_of"] == SLICES
    assert [lp[1:] for lp in result["processors"]] == CYCLES
    assert result["counts"][1:3] == COUNTS
    assert result["misses"][1:3] == MISSES
    assert result["walk_latency"][1:3] == LATENCIES
    assert [sum(sum(vm.values()) for vm in lp) for lp in CYCLES] == CLOCKS


def test_the_emulator_takes_the_same_cycles():
    def tlb(entries, ways, **more):
        return {"entries": entries, "ways": ways, "sizes": ["4k"]} | more

    vm = {"memory": 4 << 20, "guest_pages": "4k", "nested_pages": "2m"}
    config = RunConfig(
        processor={
            "name": "paper", "frequency_hz": 300_000,  # 1,000 shootdowns a second are 300 cycles apart
            "l1_data": [tlb(2, 2)], "l1_fetch": [tlb(2, 2)], "l2": [tlb(16, 4)],
            "walk_caches": {"pde": {"entries": 4, "ways": 4}},
            "nested_tlb": tlb(8, 4, sizes=["4k", "2m"]), "walkers": 2,
            "latencies": {"l2": 5, "walk_cache": 1, "nested_tlb": 1, "reference": 10, "update": 3},
        },
        vms=[
            {
                "name": "a", "vcpus": 2, "turn": {"value": 10**6, "unit": "accesses"},
                "processes": [{"trace": "a0", "space": 0}, {"trace": "a1", "space": 0}], **vm,
            },
            {"name": "b", "trace": "b", **vm},
        ],
        mode="flush", lps=2, window=2, quantum={"value": 4, "unit": "accesses"},
        shootdowns_per_second=1000, exit_code_pages=0, exit_data_pages=0, nested_dirty=False,
        backing="start",
        memory=256 << 20, reserve=64 << 20,
        costs={
            name: COSTS[name]
            for name in ("exit", "switch", "migration", "shootdown", "shootdown_target", "invalidation")
        },
    )  # fmt: skip
    space, virtual, physical, _ = zip(*PAGES, strict=True)
    maps = {vm: page_map_of(virtual, physical, [4096] * len(PAGES), space) for vm in (1, 2)}
    traces = [MemoryTrace(accesses(blocks)) for blocks in (A0, A1, B)]
    replay = Replay(config, traces, page_maps=maps)
    room = np.zeros((100, SLICE_FIELDS), np.int64)
    replay.host.schedule = replay.host.schedule._replace(slices=room)
    result = replay.run()
    assert result.clocks == CLOCKS
    assert recorded(replay) == SLICES
    assert [by_vm(lp) for lp in result.processors] == CYCLES
    for ours, theirs in EVENT.items():
        assert result.counters[ours][:2] == [counts.get(theirs, 0) for counts in COUNTS], ours
    assert by_vm(result.misses) == MISSES
    assert result.walk_latency[:2] == LATENCIES


def by_vm(table):
    """Turn {name: [of a, of b, ...]} into what a and b have of it."""
    return [{name: row[vm] for name, row in table.items() if row[vm]} for vm in (0, 1)]
