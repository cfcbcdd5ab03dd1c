"""The compiled replay against its slow twin, which shares no code with it, on random input."""

from typing import Any

import naive
import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from memory_trace import MemoryTrace

from mmu.config import RunConfig
from mmu.hardware.causes import CAUSES
from mmu.hardware.latency import lowest_of
from mmu.hardware.machine import EVENTS
from mmu.hardware.outcome import Outcome
from mmu.hardware.rows import EMPTY, NESTED
from mmu.run import Replay
from mmu.software.frames import FREE, TAKEN
from mmu.software.turns import REASONS, SLICE_FIELDS, SLICES, clocks
from mmu.software.world import FIRST_GUEST_POOL, HOST_POOL
from mmu.trace.pagemap.pages import page_map_of
from mmu.translation import translate

MIB = 1 << 20
EVENT = {  # naive's names
    "instructions": "INSTRUCTION", "l2_lookups": "L2_LOOKUP", "walks": "WALK",
    "dirty_walks": "DIRTY_WALK", "fault_walks": "FAULT_WALK",
    "guest_references": "GUEST_REFERENCE", "nested_references": "NESTED_REFERENCE",
    "nested_lookups": "NESTED_LOOKUP", "updates": "UPDATE", "guest_faults": "GUEST_FAULT",
    "nested_faults": "NESTED_FAULT", "exits": "EXIT", "switches": "SWITCH",
    "cr3_loads": "CR3_LOAD", "accesses": "ACCESS", "entry_hits": "ENTRY_HIT",
    "migrations": "MIGRATION", "shootdowns": "SHOOTDOWN",
    "shootdown_targets": "SHOOTDOWN_TARGET", "invalidations": "INVALIDATION",
}  # fmt: skip
SIZE = {"4k": 0, "2m": 1, "1g": 2}
SIZES = st.sampled_from([("4k",), ("4k", "2m")])


@st.composite
def arrays(draw, sizes):
    """A TLB array of any geometry, as both sides' configuration: few entries, so that sets fill."""
    rule = draw(st.sampled_from(["lru", "lru", "tree-plru", "rotating-plru"]))
    ways = {
        "lru": st.integers(1, 5),
        "tree-plru": st.sampled_from([2, 4, 8, 16]),
        "rotating-plru": st.sampled_from([6, 12]),
    }
    ways = draw(ways[rule])
    sets = draw(st.integers(1, 6 if ways < 6 else 2))
    fold = draw(st.integers(1, 5)) if sets & (sets - 1) == 0 and draw(st.booleans()) else None
    table = {"entries": ways * sets, "ways": ways, "sizes": list(sizes), "replacement": rule}
    if fold:
        table["index"] = f"xor-{fold}"
    return table


@st.composite
def l1s(draw):
    shapes = draw(st.sampled_from([[("4k",)], [("4k",), ("2m",)], [("4k", "2m")]]))
    return [draw(arrays(shape)) for shape in shapes]


L2_SHAPES = [
    [], [("4k",)], [("4k", "2m")], [("4k",), ("2m",)], [("4k",), ("4k",)],
    [("4k", "2m"), ("4k", "1g")], [("4k", "2m"), ("4k", "2m")], [("2m",), ("4k", "2m")], [("2m",)],
]  # fmt: skip


@st.composite
def l2s(draw):
    return [draw(arrays(shape)) for shape in draw(st.sampled_from(L2_SHAPES))]


@st.composite
def data_caches(draw):
    """Caches of a few lines: tables' lines compete."""

    def lines(least):
        if not least and draw(st.booleans()):
            return None
        ways = draw(st.integers(1, 4))
        sets = draw(st.integers(1, 8))
        return {"bytes": 64 * ways * sets, "ways": ways, "latency": draw(st.integers(0, 40))}

    levels = {name: lines(name == "l1d") for name in ("l1d", "l1i", "l2", "l3")}
    return {**levels, "memory": draw(st.integers(0, 250))}


@st.composite
def processors(draw):
    def cache():
        if draw(st.integers(0, 4)) == 0:
            return None
        return {k: v for k, v in draw(arrays(("4k",))).items() if k != "sizes"}

    def page_walk_cache():
        if draw(st.integers(0, 2)):
            return None
        levels = draw(st.sets(st.sampled_from([2, 3, 4]), min_size=1))
        shape = {k: v for k, v in draw(arrays(("4k",))).items() if k != "sizes"}
        return {**shape, "levels": sorted(levels), "nested": draw(st.booleans())}

    return {
        "name": "random",
        "frequency_hz": 1_000_000,
        "l1_data": draw(l1s()),
        "l1_store": draw(st.one_of(st.just([]), l1s())),
        "l1_fetch": draw(l1s()),
        "l2": draw(l2s()),
        "l2_fetch": draw(st.one_of(st.none(), l2s())),
        "walk_caches": {"pde": cache(), "pdpte": cache(), "pml4e": cache()},
        "page_walk_cache": page_walk_cache(),
        "nested_tlb": draw(arrays(("4k", "2m"))) if draw(st.integers(0, 4)) else None,
        "data_caches": draw(st.one_of(st.none(), data_caches())),
        "walkers": draw(st.integers(1, 4)),
        "latencies": {
            name: draw(st.integers(0, 30))
            for name in ("l2", "walk_cache", "nested_tlb", "reference", "update")
        },
        "flush_nested": draw(st.booleans()),
    }


# Few pages, near and far: neighbours, other 2 MiB and 1 GiB regions, the top of the lower half, and
# the upper half of the address space.
BASES = (0, 0x20_0000, 0x4000_0000, 0x80_0000_0000, 0x7FFF_FFE0_0000, -0x8000_0000_0000, -0x20_0000)


class Accesses(list):
    """A trace that a failing example names by how to make it again, not access by access."""

    recipe = ""
    page_map = ()  # space, address, guest-physical address, size code; in order

    def __repr__(self):
        return f"<{self.recipe}>"


@st.composite
def traces(draw):
    """Accesses with runs of one page, as programs make them; sometimes more than one block."""
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.sampled_from([1, 30, 300, 4096, 5000]))
    spaces = draw(st.integers(1, 3))
    random = np.random.default_rng(seed)
    pages = [
        (int(random.choice(BASES)) + 4096 * int(random.integers(0, 12)))
        for _ in range(draw(st.integers(1, 40)))
    ]
    kinds = draw(st.sampled_from([(0.6, 0.2, 0.2), (0.2, 0.1, 0.7), (0.5, 0.5, 0.0)]))
    result, space, thread = Accesses(), 0, 0
    result.recipe = f"{count} accesses of {len(pages)} pages, {spaces} spaces, {kinds=}, {seed=}"
    current = [pages[0], pages[0]]
    for _ in range(count):
        if random.random() < 0.002:
            space = int(random.integers(0, spaces))
        if random.random() < 0.001:
            thread = int(random.integers(0, 2))
        kind = int(random.choice(3, p=kinds))
        side = int(kind == 2)
        if random.random() < 0.3:
            current[side] = pages[int(random.integers(0, len(pages)))]
        result.append((space, thread, current[side] + 8 * int(random.integers(0, 512)), kind))
    return result


@st.composite
def page_maps(draw, lowest, memory, most):
    """Pages where traces have theirs, at frames from `lowest` to `most`; some beyond `memory`."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames = [random.integers(lowest, memory // 4096), 0x200, 0x201, 0x3FF]
    frames = [int(frame) for frame in frames if frame >= lowest]
    found = []
    for space in range(draw(st.integers(1, 2))):
        for base in BASES:
            if random.random() < 0.3:
                continue
            highest = most if random.random() < 0.3 else memory
            if random.random() < 0.3:
                region = int(random.integers(-(-lowest // 512), highest >> 21))
                found.append((space, base, region << 21, 1))
                continue
            for page in np.flatnonzero(random.random(13) < 0.5).tolist():
                frame = int(random.integers(lowest, highest >> 12))
                if random.random() < 0.3:
                    frame = frames[int(random.integers(0, len(frames)))]  # shared
                found.append((space, base + 4096 * page, frame << 12, 0))
    return sorted(found)


@st.composite
def starts(draw):
    unit = draw(st.sampled_from(["cycles", "cycles", "accesses"]))
    return {"value": draw(st.sampled_from([0, 0, 0, 0, 1, 5000, 200_000])), "unit": unit}


@st.composite
def scheduled(draw, policies):
    """What a schedule says of a machine: weights, starts, repeats, processes of several spaces."""
    turns = {"weight": draw(st.integers(1, 3)), "start": draw(starts())}
    turns["repeat"] = draw(st.sampled_from([None, 1, 2]))
    if draw(st.booleans()):
        return turns
    pages = [draw(st.sampled_from(policies)) for _ in range(3)]
    turns["turn"] = {
        "value": draw(st.sampled_from([1, 4097, 9000, 10**5])),
        "unit": draw(st.sampled_from(["accesses", "instructions", "cycles"])),
    }
    turns["processes"] = []
    for n in range(draw(st.integers(1, 3))):
        space = draw(st.integers(0, 2))
        turns["processes"].append(
            {
                "trace": f"process{n}", "space": space, "guest_pages": pages[space],
                "weight": draw(st.integers(1, 3)), "start": draw(starts()),
                "repeat": draw(st.sampled_from([None, None, 2])),
            }
        )  # fmt: skip
    return turns


def streams_of(config):
    """Return the machine and the process of each trace, in their order."""
    return [(vm, process) for vm in config.machines for process in vm.streams]


def first_accesses(vm, process):
    """Return how many accesses have to be made before a process may run."""
    return max(s.value if s.unit == "accesses" else 0 for s in (vm.start, process.start))


def come_all(config, accesses):
    """Tell whether enough accesses are made before each start that waits for them."""
    streams = streams_of(config)
    waits = [first_accesses(vm, process) for vm, process in streams]
    made = [
        len(trace) * (process.repeat or vm.repeat)
        for (vm, process), trace in zip(streams, accesses, strict=True)
    ]
    return all(
        wait <= sum(n for n, other in zip(made, waits, strict=True) if other < wait)
        for wait in waits
        if wait
    )


@st.composite
def runs(draw, with_schedule=None, may_be_compact=False):
    """A whole run: the configuration, and the accesses of each process.

    may_be_compact: nothing is asked for that a compact trace cannot tell.
    """
    with_schedule = draw(st.booleans()) if with_schedule is None else with_schedule
    vms = draw(st.integers(1, 2 if with_schedule else 3))
    with_root = draw(st.integers(0, 3)) == 0
    fragmentation = draw(st.sampled_from([0.0, 0.5, 1.0]))

    def vm(name):
        # 2m refuses to go on without whole regions, so it comes without fragmentation.
        policies = ["4k", "auto"] if fragmentation else ["4k", "2m", "auto"]
        machine = {
            "name": name,
            "memory": 256 * MIB,
            "guest_pages": draw(st.sampled_from(policies)),
            "nested_pages": draw(st.sampled_from(policies)),
            "fragmentation": fragmentation,
            "pcid": draw(st.booleans()),
        }
        machine |= draw(scheduled(policies)) if with_schedule else {}
        return machine if "processes" in machine else machine | {"trace": name}

    unit = draw(st.sampled_from(["accesses", "instructions", "cycles"]))
    config = {
        "processor": draw(processors()),
        "mode": draw(st.sampled_from(["tagged", "purge", "flush", "native"])),
        "vms": [vm(f"vm{i}") for i in range(vms)],
        "root": vm("root") if with_root else None,
        "memory": 2048 * MIB,
        "reserve": 64 * MIB,
        "quantum": {
            "value": draw(st.sampled_from([1, 3000, 4096, 8192, 9000, 10**6])),
            "unit": unit,
        },
        "exits_per_second": draw(st.sampled_from([0, 0, 20, 100])),
        "exit_code_pages": draw(st.integers(0, 3)),
        "exit_data_pages": draw(st.integers(0, 3)),
        "costs": {
            "exit": draw(st.sampled_from([0, 1400])),
            "switch": 77,
            "guest_fault": 123,
        },
        "warm_up": draw(st.sampled_from([0, 0, 1, 4097])),
        "repeat": draw(st.sampled_from([1, 1, 2])),
        "host_fragmentation": fragmentation,
        "nested_dirty": draw(st.booleans()),
        "backing": draw(st.sampled_from(["start", "first-touch"])),
        "window": draw(st.sampled_from([0, 0, 1, 7, 224])),
        "conflicts": draw(st.booleans()),
    }
    if config["processor"]["data_caches"]:
        config["table_reads"] = draw(
            st.sampled_from(["fixed", "walker"] + ["shared"] * (not may_be_compact))
        )
    if may_be_compact and config["mode"] == "flush":
        config["window"] = 0
    streams = streams_of(RunConfig(**config))
    accesses = [draw(traces()) for _ in streams]
    begin = 0
    for number, machine in enumerate(RunConfig(**config).machines):
        if draw(st.integers(0, 2)) == 0:
            limits = (0, 256 * MIB, 1 << 44)
            if with_root and number == 0 and config["mode"] != "native":
                limits = (64 * MIB >> 12, 2048 * MIB, 2048 * MIB)
            accesses[begin].page_map = draw(page_maps(*limits))
        begin += len(machine.streams)
    # Counting begins at the end of a block, and something has to be left to count.
    made = sum(
        len(trace) * (process.repeat or vm.repeat)
        for (vm, process), trace in zip(streams, accesses, strict=True)
    )
    if config["warm_up"] + 4096 >= made:
        config["warm_up"] = 0
    if not come_all(RunConfig(**config), accesses):
        for machine in [*config["vms"], config["root"] or {}]:
            for table in (machine, *machine.get("processes", ())):
                if "start" in table:
                    table["start"]["unit"] = "cycles"
    return RunConfig(**config), accesses


def geometry(config, replay):
    # an array of sizes that no page of the run can have counts as absent
    rows = [name for name in replay.host.row_names if name.startswith(("l1", "l2"))]
    possible = {name.rsplit(".", 1)[-1] for name in rows}

    def array(a, possible=("4k", "2m")):
        if a is None:
            return None
        sizes = tuple(SIZE[s] for s in getattr(a, "sizes", ("4k",)) if s in possible)
        fold = 0 if a.fold == 63 else a.fold
        return naive.Array(a.entries, a.ways, sizes, fold, a.replacement)

    def lines(cache):
        return cache and naive.Lines(cache.bytes, cache.ways, cache.latency)

    processor = config.processor
    walk, page_walk, data = processor.walk_caches, processor.page_walk_cache, processor.data_caches
    sides = [processor.l1_data, processor.l1_fetch]
    sides += [processor.l1_store] if processor.l1_store else []
    l2_fetch = processor.l2_fetch
    return naive.Geometry(
        l1=[[array(a, possible) for a in side] for side in sides],
        l2=[array(a, possible) for a in processor.l2],
        l2_fetch=None if l2_fetch is None else [array(a, possible) for a in l2_fetch],
        nested=array(processor.nested_tlb),
        walk=[array(walk.pde), array(walk.pdpte), array(walk.pml4e)],
        page_walk=page_walk
        and naive.PageWalkCache(array(page_walk), page_walk.levels, page_walk.nested),
        data=data
        and naive.Data(
            lines(data.l1d), lines(data.l1i), lines(data.l2), lines(data.l3), data.memory
        ),
        table_reads=config.table_reads,
        walkers=processor.walkers,
        window=config.window,
        conflicts=config.conflicts,
    )


def taken(replay, pool):
    """The frames that fragmentation took from a pool: (region, frame in it)."""
    frames = replay.host.world.frames
    begin, end = frames.begin[pool] * 512, frames.begin[pool + 1] * 512
    places = np.flatnonzero(frames.owner[begin:end] == TAKEN)
    return [(int(place) // 512, int(place) % 512) for place in places]


def both(start):
    """Return a start as cycles and accesses that have to have come."""
    return (start.value, 0) if start.unit == "cycles" else (0, start.value)


def pages_of(config, accesses):
    """The pages of each machine's map, by its number: the first of its traces carries them."""
    found, begin = {}, 0
    for number, machine in enumerate(config.machines, start=0 if config.root else 1):
        found[number] = getattr(accesses[begin], "page_map", ())
        begin += len(machine.streams)
    return found


def every(per_second, config):
    """Return the cycles from one timer event to the next; 0: there are none."""
    return max(config.processor.frequency_hz // per_second, 1) if per_second else 0


def naive_run(config, accesses, replay) -> dict[str, Any]:
    latency, costs = config.processor.latencies, config.costs
    vm_settings = []
    machines = [(0, config.root)] * bool(config.root) + list(enumerate(config.vms, start=1))
    left, pages_of_maps = iter(accesses), pages_of(config, accesses)
    for number, vm in machines:
        broken = taken(replay, FIRST_GUEST_POOL + number)
        processes = [
            naive.ProcessSettings(
                trace=next(left), space=process.space, weight=process.weight,
                repeat=process.repeat, start=both(process.start), guest_pages=process.guest_pages,
            )
            for process in vm.processes
        ]  # fmt: skip
        vm_settings.append(
            naive.VmSettings(
                trace=() if processes else next(left),
                memory=vm.memory,
                guest_pages=vm.guest_pages,
                nested_pages=vm.nested_pages,
                broken=broken,
                page_map=pages_of_maps[number],
                weight=vm.weight,
                repeat=vm.repeat,
                start=both(vm.start),
                processes=processes,
                turn=(vm.turn.value, vm.turn.unit) if vm.turn else (1, "accesses"),
                pcid=vm.pcid,
                vcpus=vm.vcpus,
            )
        )
    return naive.Replay(
        naive.Settings(
            geometry=geometry(config, replay),
            vms=vm_settings[bool(config.root) :],
            root=vm_settings[0] if config.root else None,
            mode=config.mode,
            quantum=(config.quantum.value, config.quantum.unit),
            exit_interval=every(config.exits_per_second, config),
            exit_code_pages=config.exit_code_pages,
            exit_data_pages=config.exit_data_pages,
            costs={
                "l2": latency.l2,
                "walk_cache": latency.walk_cache,
                "nested_tlb": latency.nested_tlb if config.processor.nested_tlb else 0,
                "guest_table": latency.reference,
                "nested_table": latency.reference,
                "update": latency.update,
                "base": costs.cycles_per_instruction,
                "guest_fault": costs.guest_fault,
                "nested_fault": costs.nested_fault,
                "exit": costs.exit,
                "switch": costs.switch,
                "cr3_load": costs.cr3_load,
                "migration": costs.migration,
                "shootdown": costs.shootdown,
                "shootdown_target": costs.shootdown_target,
                "invalidation": costs.invalidation,
            },
            lps=config.lps,
            pinned=config.pinned,
            migration_flush=config.migration_flush,
            shootdown_interval=every(config.shootdowns_per_second, config),
            warm_up=config.warm_up,
            repeat=config.repeat,
            backing=config.backing,
            nested_dirty=config.nested_dirty,
            flush_nested=config.processor.flush_nested,
            memory=config.memory,
            reserve=config.reserve,
            host_broken=taken(replay, HOST_POOL),
        )
    ).run()


def hits_by_row(counter, processor):
    """Name hits as results do: arrays by size, and by number if one before holds it as well."""
    result: dict[str, int] = {}
    for name, count in counter.items():
        level = name.split(".")[0]
        if level in ("l2", "l2_fetch"):
            _, number, size = name.split(".")
            before = getattr(processor, level)[: int(number)]
            shared = any(size in array.sizes for array in before)
            result[f"{level}.{number}.{size}" if shared else f"{level}.{size}"] = count
        elif level != "l1":
            result[name] = count
    return result


def maps_of(config, accesses):
    """Page maps by number of machine, as `Replay` takes them."""
    found = {}
    for number, pages in pages_of(config, accesses).items():
        if pages:
            space, virtual, physical, size = zip(*pages, strict=True)
            found[number] = page_map_of(virtual, physical, [4096 << 9 * s for s in size], space)
    return found


def replayed(config, accesses, compact, chunk=1 << 16, slices=0):
    maps = maps_of(config, accesses)
    traces_ = [MemoryTrace(a, compact) for a in accesses]
    replay = Replay(config, traces_, chunk=chunk, page_maps=maps)
    room = np.zeros((slices, SLICE_FIELDS), np.int64)
    replay.host.schedule = replay.host.schedule._replace(slices=room)
    return replay, replay.run()


def recorded(replay):
    """What was recorded of who ran when on each processor, as the naive twin says it."""
    host = replay.host
    rows = [[] for _ in range(replay.config.lps)]
    for vm, stream, begin, end, made, why, lp, _ in host.schedule.slices[
        : replay.now[SLICES]
    ].tolist():
        place = stream - [owner for owner, _ in host.streams].index(vm) if vm >= 0 else -1
        rows[lp].append((vm, place, begin, end, made, REASONS[why]))
    return rows


def without_time(result):
    return {k: v for k, v in vars(result).items() if k != "wall_seconds"}


def compare_with_naive(config, accesses):
    maps = maps_of(config, accesses)
    fresh = Replay(config, [MemoryTrace(a) for a in accesses], page_maps=maps)
    expected = naive_run(config, accesses, fresh)
    replay, result = replayed(config, accesses, compact=False, slices=10_000)
    vms = len(config.machines)
    numbers = ([0] if config.root else []) + list(range(1, len(config.vms) + 1))
    rows = numbers + [len(config.vms) + 1 + n for n in numbers]
    for i, row in enumerate(rows):
        for ours, theirs in EVENT.items():
            assert result.counters[ours][i] == expected["counts"][row].get(theirs, 0), (ours, i)
        for side, name in enumerate(("l1_data_misses", "l1_fetch_misses")):
            assert result.counters[name][i] == expected["l1_misses"][row][side], (name, i)
        hits = hits_by_row(expected["hits"][row], config.processor)
        ours = {name: values[i] for name, values in result.hits.items() if values[i]}
        assert ours == {name: count for name, count in hits.items() if count}, i
        assert result.references[i] == expected["histogram"][row], i
        what_walks_took_and_why(replay, i, expected, row)
        if i < vms:
            booked = {cause: values[i] for cause, values in result.cycles.items() if values[i]}
            assert booked == {k: v for k, v in expected["cycles"][row].items() if v}
    owners = [*numbers, len(config.vms) + 1]
    assert result.evictions == [[expected["evictions"][a][b] for b in owners] for a in owners]
    assert recorded(replay) == expected["slices_of"]
    of_each = clocks(replay.host.schedule).tolist()
    assert of_each == expected["clocks"]
    assert sum(of_each) == sum(map(sum, result.cycles.values()))
    all_of_memory(replay, expected)
    words_of_guests(replay, expected)
    page_maps_hold(replay, maps)
    entries_lead_where_tables_do(replay)


def all_of_memory(replay, expected):
    """Compare where all tables stand and what they point to: data caches go by machine address."""
    memory = np.asarray(replay.host.machine.memory)
    places = np.flatnonzero(memory)
    frames = memory[places] & 0x000F_FFFF_FFFF_F000
    ours = dict(zip((8 * places).tolist(), frames.tolist(), strict=True))
    theirs = {at: word & naive.FRAME for at, word in expected["memory"].items() if word}
    assert ours == theirs


def what_walks_took_and_why(replay, i, expected, row):
    """Compare latencies, causes of misses and who served reads, summed over processors."""
    host, machine = replay.host, replay.host.machine
    vms = [vm for vm, setting in enumerate(host.vms) if setting]
    account = [*vms, *(len(host.vms) + vm for vm in vms)][i]
    latencies = machine.latencies.sum(axis=0)[account]
    walks = {lowest_of(int(n)): int(latencies[n]) for n in np.flatnonzero(latencies)}
    assert walks == expected["walk_latency"][row], i
    causes = dict(zip(CAUSES, machine.causes.sum(axis=0)[account].tolist(), strict=True))
    assert {k: v for k, v in causes.items() if v} == expected["misses"][row], i
    events = dict(zip(EVENTS, machine.events.sum(axis=0)[account].tolist(), strict=True))
    for dimension in ("guest", "nested"):
        for level in ("l1d", "l2", "l3", "memory"):
            found = expected["reads"][row].get(f"{dimension}.{level}", 0)
            assert events[f"{dimension}_reads_{level}"] == found, (dimension, level, i)


def words_of_guests(replay, expected):
    """Every guest entry, accessed and dirty bits included, in naive's memory and in ours."""
    host = replay.host
    memory = host.machine.memory
    for (vm, space), words in expected["guest_words"].items():
        context = host.contexts[vm, space]
        nested = int(host.world.nested_root[vm])
        for (level, address), word in words.items():
            table = int(host.machine.root[context])
            for above in range(4, level - 1, -1):
                maddr = table if nested < 0 else walk_nested(memory, nested, table)
                found = int(memory[(maddr >> 3) + (address >> (3 + 9 * above) & 511)])
                table = found & 0x000F_FFFF_FFFF_F000
            mapped = host.native  # naive's machine addresses differ, its guest's do not
            mask = 0xFFF if mapped else (1 << 64) - 1
            assert found & mask == word & mask, (hex(address), level)


def page_maps_hold(replay, maps):
    """Translate each page of each map: it must lead to its frame, in a page of its size."""
    host = replay.host
    for vm, page_map in maps.items():
        base, beyond, end = 0, 0, host.vms[vm].memory >> 12
        if host.native:
            base = int(host.world.frames.base[FIRST_GUEST_POOL + vm])
            beyond = [(m.frames + 511) // 512 * 512 for n, m in sorted(maps.items()) if n < vm]
            beyond = (replay.config.memory >> 12) + sum(beyond)
        for space, vpn, gfn, size in zip(
            page_map.space.tolist(), page_map.vpn.tolist(), page_map.gfn.tolist(),
            page_map.size.tolist(), strict=True,
        ):  # fmt: skip
            found = translate(replay.memory, vpn << 12, **replay.space(host.names[vm], space))
            frame = gfn + (base if gfn < end else beyond)
            if found.outcome == Outcome.NESTED_VIOLATION:
                assert replay.config.backing == "first-touch"  # not touched by the trace
                assert found.gpa is None or found.gpa >> 12 == frame
                continue
            assert found.outcome == Outcome.OK
            assert (found.gpa >> 12, found.guest_page_size) == (frame, 4096 << 9 * size)


def entries_lead_where_tables_do(replay):
    """Every live TLB entry against a slow walk of the tables as they stand at the end."""
    host, machine = replay.host, replay.host.machine
    rows = machine.rows
    for row in range(int(rows.begin[NESTED])):
        if row and rows.first[row] == rows.first[row - 1]:
            continue
        first, slots = int(rows.first[row]), int(rows.sets[row] * rows.ways[row])
        for tag, frame in zip(
            machine.tag[0, first : first + slots].tolist(),
            machine.frame[0, first : first + slots].tolist(),
            strict=True,
        ):
            if tag == EMPTY:
                continue
            context, size = tag >> 53, tag >> 6 & 3
            gva = (tag >> 8 & (1 << 45) - 1) << 12 + 9 * size & (1 << 48) - 1
            table, nested = int(machine.root[context]), int(machine.nested[context])
            maddr = slow_walk(machine.memory, table, nested, gva)
            inside = (1 << 12 + 9 * (frame >> 4 & 3)) - 1  # a piece keeps its page's frame word
            assert frame & 0x000F_FFFF_FFFF_F000 == maddr & ~inside, (hex(tag), hex(frame))
    assert host.machine is machine


def slow_walk(memory, table, nested, gva):
    for level in range(4, 0, -1):
        maddr = table if nested < 0 else walk_nested(memory, nested, table)
        entry = int(memory[(maddr >> 3) + (gva >> (3 + 9 * level) & 511)])
        table = entry & 0x000F_FFFF_FFFF_F000
        if level == 1 or entry & 128:
            inside = (1 << (3 + 9 * level)) - 1
            gpa = table & ~inside | gva & inside & ~0xFFF
            return gpa if nested < 0 else walk_nested(memory, nested, gpa)
    raise AssertionError


def walk_nested(memory, root, gpa):
    table = root
    for level in range(4, 0, -1):
        entry = int(memory[(table >> 3) + (gpa >> (3 + 9 * level) & 511)])
        if level == 1 or entry & 128:
            inside = (1 << (3 + 9 * level)) - 1
            return entry & 0x000F_FFFF_FFFF_F000 & ~inside | gpa & inside & ~0xFFF
        table = entry & 0x000F_FFFF_FFFF_F000
    raise AssertionError


RANDOM = settings(
    max_examples=8 if numba.config.DISABLE_JIT else 60,  # interpreted, an access takes 30 us
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[
        Phase.explicit,
        Phase.reuse,
        Phase.generate,
    ],  # a failing run prints how to make it again: that is enough
)


@RANDOM
@given(runs())
def test_every_count_of_a_random_run_equals_that_of_the_naive_twin(run):
    compare_with_naive(*run)


@RANDOM
@given(runs(may_be_compact=True))
def test_a_compact_trace_gives_what_the_raw_one_gives(run):
    config, accesses = run
    raw, expected = replayed(config, accesses, compact=False)
    compact, result = replayed(config, accesses, compact=True)
    assert without_time(result) == without_time(expected)
    assert np.array_equal(raw.host.machine.tag, compact.host.machine.tag)
    assert np.array_equal(raw.host.machine.frame, compact.host.machine.frame)


@RANDOM
@given(runs(), st.sampled_from([4096, 8192, 10000]))
def test_results_do_not_depend_on_how_much_of_a_trace_is_in_memory(run, chunk):
    config, accesses = run
    _, whole = replayed(config, accesses, compact=False)
    _, parts = replayed(config, accesses, compact=False, chunk=chunk)
    assert without_time(whole) == without_time(parts)


@pytest.mark.fuzz
@settings(RANDOM, max_examples=400)
@given(runs(), runs(may_be_compact=True))
def test_a_long_search_finds_no_difference_from_the_naive_twin(run, other):
    compare_with_naive(*run)
    config, accesses = other
    expected = without_time(replayed(config, accesses, compact=False)[1])
    assert without_time(replayed(config, accesses, compact=True)[1]) == expected


def test_the_book_of_frames_starts_free_but_for_what_is_taken():
    config = RunConfig(
        processor={
            "name": "least", "frequency_hz": 10**9,
            "l1_data": [{"entries": 4, "ways": 4, "sizes": ["4k"]}],
            "l1_fetch": [{"entries": 4, "ways": 4, "sizes": ["4k"]}],
            "latencies": dict.fromkeys(("l2", "walk_cache", "nested_tlb", "reference", "update"), 1),
        },
        vms=[{"trace": "a", "memory": 64 * MIB, "fragmentation": 0.5}],
        memory=512 * MIB, host_fragmentation=0.25,
    )  # fmt: skip
    replay = Replay(config, [MemoryTrace([(0, 0, 0, 0)])])
    assert len(taken(replay, HOST_POOL)) == (512 - 64) // 2 // 4
    assert len({region for region, _ in taken(replay, FIRST_GUEST_POOL + 1)} - {0}) in (15, 16)
    owner = replay.host.world.frames.owner
    assert np.count_nonzero(owner != FREE) > 0
