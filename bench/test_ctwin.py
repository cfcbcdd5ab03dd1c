"""The C program of the model: against numbers worked out by hand, and against the naive model."""

import random
import shutil
import sys
from pathlib import Path

import ctwin
import hostile
import numpy as np
import pytest
from ctwin import Machine, Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import naive

READ, WRITE, FETCH = 0, 1, 2
KIB4, MIB2, GIB = 1 << 12, 1 << 21, 1 << 30
BLOCK = 4096
NO_CACHES = {"PDE": (0, 1), "PDPTE": (0, 1), "PML4E": (0, 1), "NESTED": (0, 1)}
TINY = {
    "DATA_4K": (4, 2),
    "DATA_2M": (2, 2),
    "FETCH_4K": (4, 2),
    "FETCH_2M": (2, 1),
    "L2": (16, 4),
    "PDE": (4, 2),
    "PDPTE": (2, 2),
    "PML4E": (1, 1),
    "NESTED": (4, 2),
}
BARE = TINY | NO_CACHES | {"DATA_2M": (0, 1), "FETCH_2M": (0, 1)}
THIRDS = TINY | {"DATA_4K": (12, 6), "FETCH_4K": (24, 12), "L2": (48, 24), "NESTED": (6, 6)}
FEW_LINES = {"L1D": (512, 2), "L2D": (6 * 64 * 4, 4), "L3D": (5 * 64 * 11, 11)}
LRU = {"replacement": "none", "caches": "none"}
EACH_RULE = {
    "tree-plru": {"DATA_4K", "DATA_2M", "FETCH_4K", "L2", "PDE", "PDPTE", "NESTED"},
    "rotating-plru": {"DATA_4K", "FETCH_4K", "L2", "NESTED"},
}
PROCESSORS = {  # what `ctwin.library` is asked for
    "skylake": {},
    "skylake-lru": LRU,
    "tiny-lru": {"changed": TINY, **LRU},
    "bare-lru": {"changed": BARE, **LRU},
    "tiny-tree": {
        "changed": TINY,
        "replacement": dict.fromkeys(TINY, "lru")
        | dict.fromkeys(EACH_RULE["tree-plru"], "tree-plru"),
        "caches": FEW_LINES,
    },
    "tiny-tree-16": {
        "changed": TINY | {"DATA_4K": (16, 8), "L2": (32, 16)},
        "replacement": dict.fromkeys(TINY, "lru") | dict.fromkeys(["DATA_4K", "L2"], "tree-plru"),
        "caches": FEW_LINES | {"L2D": (0, 1)},
    },
    "tiny-thirds": {
        "changed": THIRDS,
        "replacement": dict.fromkeys(THIRDS, "lru")
        | dict.fromkeys(EACH_RULE["rotating-plru"], "rotating-plru"),
        "caches": FEW_LINES | {"L3D": (0, 1)},
    },
    "bare-lines": {
        "changed": BARE,
        "replacement": "none",
        "caches": {"L1D": (64, 1), "L2D": (0, 1), "L3D": (0, 1)},
    },
}

pytestmark = pytest.mark.skipif(
    shutil.which(ctwin.compiler()) is None, reason="there is no C compiler"
)


def trace(*accesses):
    """Addresses, or (address, kind)."""
    pairs = [each if isinstance(each, tuple) else (each, READ) for each in accesses]
    address, kind = np.array(pairs, np.int64).reshape(-1, 2).T
    return address.copy(), kind.astype(np.uint8)


def replay(*accesses, machine=None, shapes=None, **settings):
    program = ctwin.library(shapes, **LRU)
    return ctwin.run([trace(*accesses)], Settings(**settings), [machine or Machine()], program)


def mixed(seed, accesses, pages=600):
    """Return a busy trace: runs over clustered pages of both halves, every kind."""
    rng = random.Random(seed)
    bases = [0x40_0000, 0x5555_0000_0000, 0x7FFF_F7A0_0000, -(1 << 46)]
    hot = [
        rng.choice(bases) + rng.choice([0, MIB2, 7 * GIB]) + KIB4 * rng.randrange(40)
        for _ in range(rng.randrange(1, pages))
    ]
    pairs, page = [], hot[0]
    for _ in range(accesses):
        if rng.random() < 0.5:
            page = rng.choice(hot) if rng.random() < 0.5 else hot[int(rng.random() ** 4 * len(hot))]
        pairs.append((page + rng.randrange(KIB4), rng.choice([READ, READ, WRITE, FETCH, FETCH])))
    return trace(*pairs)


# ---- numbers by hand ----------------------------------------------------------------------------


def references(twin, row=1):
    return {n: int(twin.histogram[row, n]) for n in np.flatnonzero(twin.histogram[row])}


def walk_latencies(twin, row=1):
    row = twin.latencies[row]
    return {ctwin.lowest(int(n)): int(row[n]) for n in np.flatnonzero(row)}


def misses(twin, row=1):
    return {why: int(rows[row]) for why, rows in twin.misses.items() if rows[row]}


@pytest.mark.parametrize(
    ("guest", "nested", "expected"),
    [("4k", "4k", 24), ("4k", "2m", 19), ("2m", "4k", 19), ("2m", "2m", 15)],
)
def test_an_uncached_nested_walk_makes_g_plus_1_times_n_plus_1_minus_1_references(
    guest, nested, expected
):
    machine = Machine(guest_pages=guest, nested_pages=nested)
    assert references(replay(0, machine=machine, shapes=NO_CACHES)) == {expected: 1}


@pytest.mark.parametrize(("guest", "expected"), [("4k", 4), ("2m", 3)])
def test_an_uncached_native_walk_makes_one_reference_a_level(guest, expected):
    twin = replay(0, machine=Machine(guest_pages=guest), mode="native")
    assert references(twin) == {expected: 1}
    assert twin.counters["nested_lookup"].sum() == 0
    assert twin.counters["update"][1] == expected


def test_a_walk_cache_leaves_five_references_and_a_fault_drops_what_it_has_of_its_address():
    """Root, then the tables: the first walk faults and leaves the root's nested page cached.

    The others begin at the root again after their faults, four guest entries and the nested ones of
    what is new: a page, its table, ... The writes to clean pages find the page table.
    """
    pages = (0, KIB4, MIB2, GIB)
    twin = replay(*pages, machine=Machine(nested_pages="4k"))
    assert references(twin) == {20: 1, 8: 1, 12: 1, 16: 1}
    twin = replay(*pages, *((page, WRITE) for page in pages), machine=Machine(nested_pages="4k"))
    assert references(twin) == {20: 1, 8: 1, 12: 1, 16: 1, 5: 4}


def test_the_least_recently_used_of_a_set_of_four_leaves():
    """Pages 16 apart share a set of the data L1; page 0 is used again before the fifth comes."""
    pages = [16 * KIB4 * i for i in range(5)]
    twin = replay(*pages[:4], pages[0], pages[4], pages[0], pages[1])
    assert twin.counters["l1_miss_data"][1] == 6
    assert twin.counters["l2_hit"][1] == 1
    assert twin.counters["walk"][1] == 5


def test_a_write_through_a_clean_entry_is_a_hit_and_a_dirty_walk_and_asks_no_l2():
    twin = replay(0, (0, WRITE), (0, WRITE))
    counted = [twin.counters[name][1] for name in ("walk", "dirty_walk", "l2_lookup")]
    assert counted == [1, 1, 2]
    assert twin.counters["l1_miss_data"][1] == 1


def test_fetches_and_data_have_an_l1_each_and_share_the_l2():
    twin = replay(0, (0, FETCH), 0, (0, FETCH))
    counters = {name: int(values[1]) for name, values in twin.counters.items()}
    assert counters["l1_miss_data"] == counters["l1_miss_fetch"] == counters["l2_hit"] == 1
    assert (counters["walk"], counters["access_fetch"], counters["instruction"]) == (1, 2, 2)


def test_cycles_of_one_native_access_by_cause():
    twin = replay(0, mode="native")
    expected = {"base": 1, "l2": 18, "walk_cache": 2, "guest_table": 70, "update": 80}
    assert {cause: int(cycles[1]) for cause, cycles in twin.cycles.items() if cycles[1]} == {
        **expected,
        "guest_fault": 1000,
    }
    assert twin.clock == 1171


def test_first_touch_faults_once_for_the_root_each_table_and_the_page():
    twin = replay(0, machine=Machine(nested_pages="4k"), first_touch=True)
    assert twin.counters["nested_fault"][1] == twin.counters["exit"][1] == 5
    assert twin.counters["fault_walk"][1] == 3
    assert replay(0, first_touch=True).counters["nested_fault"][1] == 1  # all in one 2M page


def test_an_exit_touches_the_hypervisors_pages_in_its_own_row():
    twin = replay(0, first_touch=True)
    assert twin.counters["access_fetch"][3] == twin.counters["access_data"][3] == 8
    assert twin.counters["walk"][3] == 16
    assert twin.counters["dirty_walk"][3] == 0
    assert references(twin, 3) == {4: 2, 1: 14}
    assert twin.cycles["hypervisor"][1] == 16 * (9 + 1) + (2 * 4 + 14) * 14 + (16 + 7 - 1) * 20


def test_an_eviction_is_booked_on_who_filled_and_who_owned():
    settings = Settings(quantum=1, quantum_unit="accesses")
    program = ctwin.library({"L2": (1, 1)}, **LRU)
    twin = ctwin.run([trace(0, KIB4), trace(0, KIB4)], settings, None, program)
    assert twin.evictions.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert twin.counters["switch"].tolist() == [0, 1, 0, 0, 0, 0]


def test_timer_exits_come_at_block_ends_and_each_multiple_of_the_interval():
    """One block of one page: 4096 + 1171 - 1 cycles; the timer is due every 2,000."""
    twin = replay(*[0] * BLOCK, frequency_hz=2000, exits_per_second=1, nested_dirty=False)
    base = twin.clock - int(twin.cycles["exit"][1] + twin.cycles["hypervisor"][1])
    assert twin.counters["exit"][1] == base // 2000


def test_the_warm_up_is_not_counted_but_the_clock_goes_on():
    long = [KIB4 * (i % 100) for i in range(3 * BLOCK)]
    whole, part = replay(*long), replay(*long, warm_up=BLOCK)
    assert part.counters["access_data"][1] == 2 * BLOCK
    assert part.counters["walk"][1] == 0
    assert part.clock == whole.clock


def test_a_guest_out_of_memory_says_so():
    with pytest.raises(ctwin.TwinError, match="guest has no frame"):
        replay(*[MIB2 * i for i in range(9)], machine=Machine(16 << 20, guest_pages="2m"))


def test_without_exits_purge_and_flush_are_the_same():
    traces = [mixed(seed, 3 * BLOCK) for seed in (1, 2, 3)]
    purge, flush = (
        ctwin.run(traces, Settings(mode=mode, quantum=BLOCK, quantum_unit="accesses"))
        for mode in ("purge", "flush")
    )
    assert purge.clock == flush.clock
    assert np.array_equal(purge.histogram, flush.histogram)
    assert all(np.array_equal(purge.counters[k], flush.counters[k]) for k in purge.counters)


@pytest.mark.parametrize(("flush_nested", "expected"), [(False, 4), (True, 24)])
def test_a_flush_keeps_nested_translations_unless_the_processor_drops_them(flush_nested, expected):
    """The first walk finds the root cached by its own fault; that after two switches finds all."""
    traces = [trace(*[0] * 2 * BLOCK)] * 2
    settings = Settings(mode="flush", quantum=1, flush_nested=flush_nested)
    twin = ctwin.run(traces, settings, [Machine(nested_pages="4k")] * 2)
    assert references(twin) == {20: 1, expected: 1}


@pytest.mark.parametrize("mode", ctwin.MODES)
def test_the_causes_sum_to_the_clock(mode):
    traces = [mixed(seed, 3 * BLOCK) for seed in (4, 5)]
    settings = Settings(mode=mode, quantum=50_000, exits_per_second=20_000, first_touch=True)
    twin = ctwin.run(traces, settings)
    assert sum(int(cycles.sum()) for cycles in twin.cycles.values()) == twin.clock
    completed = twin.counters["walk"] + twin.counters["dirty_walk"]
    assert np.array_equal(twin.histogram.sum(axis=1), completed)


# ---- the naive model ----------------------------------------------------------------------------


def geometry(processor, fold, settings):
    """Return the naive model's geometry of the same processor."""
    asked = PROCESSORS[processor]
    shapes = ctwin.shapes() | asked.get("changed", {})
    given = asked.get("replacement", {})
    rules = dict.fromkeys(shapes, "lru") if given == "none" else ctwin.rules() | given
    given = asked.get("caches", {})
    lines = {"L1D": (0, 1)} if given == "none" else ctwin.data_caches() | given
    both = (naive.K4, naive.M2)

    def array(name, sizes, fold=0):
        entries, ways = shapes[name]
        return [naive.Array(entries, ways, sizes, fold, rules[name])] if entries else []

    def one(name, sizes=(naive.K4,)):
        return next(iter(array(name, sizes)), None)

    def cache(name, latency):
        return naive.Lines(*lines[name], latency) if lines[name][0] else None

    return naive.Geometry(
        l1=[
            array("DATA_4K", (naive.K4,)) + array("DATA_2M", (naive.M2,)),
            array("FETCH_4K", (naive.K4,)) + array("FETCH_2M", (naive.M2,)),
        ],
        l2=array("L2", both, fold),
        walk=[one("PDE"), one("PDPTE"), one("PML4E")],
        nested=one("NESTED", both),
        table_reads="walker" if lines["L1D"][0] else "fixed",
        data=naive.Data(
            l1d=cache("L1D", settings.l1d_read_latency),
            l1i=None,
            l2=cache("L2D", settings.l2_read_latency),
            l3=cache("L3D", settings.l3_read_latency),
            memory=settings.memory_read_latency,
        )
        if lines["L1D"][0]
        else None,
    )


def naive_counts(result, vms):
    """Return the naive model's counts by the names that the C program has for them."""
    names = ("instruction", "l2_lookup", "walk", "dirty_walk", "fault_walk", "nested_lookup")
    names += ("guest_reference", "nested_reference", "update", "guest_fault", "nested_fault")
    names += ("exit", "switch")
    cached = ("l2", "pde", "pdpte", "pml4e", "nested")
    rows = range(2 * vms)
    counts, hits, reads = result["counts"], result["hits"], result["reads"]
    served = [(kind, level) for kind in ("guest", "nested") for level in ctwin.LEVELS]

    def sum_hits(row, start):
        return sum(times for name, times in hits[row].items() if name.startswith(start))

    return {
        **{name: [counts[row].get(name.upper(), 0) for row in rows] for name in names},
        **{f"{name}_hit": [sum_hits(row, name) for row in rows] for name in cached},
        **{f"{kind}_{at}": [row.get(f"{kind}.{at}", 0) for row in reads] for kind, at in served},
        "l1_miss_data": [result["l1_misses"][row][0] for row in rows],
        "l1_miss_fetch": [result["l1_misses"][row][1] for row in rows],
        "access": [counts[row].get("ACCESS", 0) for row in rows],
        "l1_hit": [sum_hits(row, "l1") for row in rows],
    }


def twin_counts(twin):
    counters = {name: values.tolist() for name, values in twin.counters.items()}
    accesses = np.array(counters.pop("access_data")) + np.array(counters.pop("access_fetch"))
    misses = twin.counters["l1_miss_data"] + twin.counters["l1_miss_fetch"]
    return counters | {"access": accesses.tolist(), "l1_hit": (accesses - misses).tolist()}


def draw(seed):
    """Return a random case: fold, settings, machines, traces."""
    rng = random.Random(seed)
    settings = Settings(
        mode=rng.choice(ctwin.MODES),
        quantum=rng.choice([1, 1, 5000, 20_000, 300_000]),
        quantum_unit=rng.choice(ctwin.UNITS),
        frequency_hz=rng.choice([20_000, 100_000]),
        exits_per_second=rng.choice([0, 1]),
        exit_code_pages=rng.choice([0, 3, 8]),
        exit_data_pages=rng.choice([0, 5, 8]),
        warm_up=rng.choice([0, 0, 5000]),
        repeat=rng.choice([1, 1, 2]),
        nested_dirty=rng.random() < 0.8,
        first_touch=rng.random() < 0.5,
        flush_nested=rng.random() < 0.5,
        reserve=64 << 20,
        memory=1 << 30,
        l2_latency=rng.choice([7, 9]),
        reference_latency=rng.choice([14, 50]),
        l1d_read_latency=rng.choice([4, 5]),
        l2_read_latency=rng.choice([14, 15]),
        memory_read_latency=rng.choice([60, 61]),
    )
    machines, traces = [], []
    for vm in range(rng.choice([1, 2, 3, 4])):
        pages = [rng.choice(ctwin.PAGES) for _ in (1, 2)]
        machines.append(Machine(rng.choice([64, 256]) << 20, *pages))
        address, kind = mixed(seed * 8 + vm, rng.choice([100, 9000, 9000, 13_000]), pages=400)
        traces.append((address, kind if rng.random() < 0.8 else np.minimum(kind, WRITE)))
    return rng.choice([7, 2]), settings, machines, traces


COST_NAMES = {
    "base": "cycles_per_instruction",
    "l2": "l2_latency",
    "walk_cache": "walk_cache_latency",
    "nested_tlb": "nested_tlb_latency",
    "guest_table": "reference_latency",
    "nested_table": "reference_latency",
    "update": "update_latency",
    "guest_fault": "guest_fault_cost",
    "nested_fault": "nested_fault_cost",
    "exit": "exit_cost",
    "switch": "switch_cost",
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_count_equals_the_naive_models(processor, seed):
    fold, settings, machines, traces = draw(4 * list(PROCESSORS).index(processor) + seed)
    program = ctwin.library(fold=fold, **PROCESSORS[processor])
    twin = ctwin.run(traces, settings, machines, program)
    its = geometry(processor, fold, settings)
    costs = {cause: getattr(settings, name) for cause, name in COST_NAMES.items()}
    if its.nested is None:
        costs["nested_tlb"] = 0
    slow = naive.Replay(
        naive.Settings(
            geometry=its,
            vms=[
                naive.VmSettings(
                    trace=[
                        (0, 0, int(gva) & (1 << 64) - 1, int(one))
                        for gva, one in zip(*trace, strict=True)
                    ],
                    memory=machine.vm_memory,
                    guest_pages=machine.guest_pages,
                    nested_pages=machine.nested_pages,
                )
                for trace, machine in zip(traces, machines, strict=True)
            ],
            mode=settings.mode,
            quantum=(settings.quantum, settings.quantum_unit),
            exit_interval=settings.frequency_hz if settings.exits_per_second else 0,
            exit_code_pages=settings.exit_code_pages,
            exit_data_pages=settings.exit_data_pages,
            costs=costs,
            warm_up=settings.warm_up,
            repeat=settings.repeat,
            backing="first-touch" if settings.first_touch else "start",
            nested_dirty=settings.nested_dirty,
            flush_nested=settings.flush_nested,
            memory=settings.memory,
            reserve=settings.reserve,
        )
    ).run()
    vms = 1 + len(traces)
    assert twin_counts(twin) == naive_counts(slow, vms)
    assert [references(twin, row) for row in range(2 * vms)] == slow["histogram"]
    assert [walk_latencies(twin, row) for row in range(2 * vms)] == slow["walk_latency"]
    assert [misses(twin, row) for row in range(2 * vms)] == slow["misses"]
    assert twin.evictions.tolist() == slow["evictions"]
    assert [
        {cause: int(cycles[vm]) for cause, cycles in twin.cycles.items() if cycles[vm]}
        for vm in range(vms)
    ] == [{cause: cycles for cause, cycles in row.items() if cycles} for row in slow["cycles"]]
    assert twin.clock == slow["clock"]


# ---- the hostile trace --------------------------------------------------------------------------


def test_the_hostile_trace_is_what_its_docstring_says():
    address, kind = hostile.hostile(200_000, seed=3)
    again = hostile.hostile(200_000, seed=3)
    assert np.array_equal(address, again[0])
    assert np.array_equal(kind, again[1])
    assert (address.dtype, kind.dtype) == (np.int64, np.uint8)
    cold = address >= hostile.SPAN
    assert cold.mean() == pytest.approx(0.3, abs=0.01)
    assert (kind[~cold] == FETCH).mean() == pytest.approx(0.7, abs=0.01)
    assert (kind[~cold] == WRITE).mean() == pytest.approx(0.1, abs=0.01)
    assert (kind[cold] == WRITE).mean() == pytest.approx(1 / 3, abs=0.01)
    assert address.max() < hostile.SPAN + (256 << 20)
    hot = np.unique(address[~cold] >> 12)
    assert set(hot[hot < hostile.DATA >> 12] - (hostile.CODE >> 12)) <= set(range(32))
    assert set(hot[hot >= hostile.DATA >> 12] - (hostile.DATA >> 12)) <= set(range(64))
    fetches = address[kind == FETCH] >> 12
    assert (fetches[1:] == fetches[:-1]).mean() == pytest.approx(0.85 + 0.15 * 0.06, abs=0.01)


def test_the_hostile_trace_walks_at_nearly_every_cold_access():
    twin = ctwin.run([hostile.hostile(100_000)])
    assert twin.counters["walk"][1] > 0.29 * 100_000


def test_the_program_compiles_without_a_warning():
    assert ctwin.build(("-Werror",))


def test_a_missing_compiler_is_said_clearly(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    ctwin.build.cache_clear()
    with pytest.raises(ctwin.NoCompiler, match="no-such-compiler"):
        ctwin.library()
