"""Each latency, cost and size of a configuration is in a clock that is wrong if it is one off.

Everything but the field in question costs nothing, so that the clock is that field times how often it
is due, worked out by hand. For sizes one event costs a cycle, and as many pages as fit are asked for
twice: all are found the second time; one more is found never, as the least recently used one goes.

Programs run natively or in one 2M nested page, and all pages are mapped before the run. A walk then
reads four entries; under a hypervisor each of its five guest-physical addresses takes a look-up of the
nested TLB, or without one three nested entries.
"""

import pytest
from memory_trace import MemoryTrace
from processors_for_tests import array, cache, processor

from mmu.config import RunConfig
from mmu.run import Replay
from mmu.trace.pagemap.pages import page_map_of

READ, WRITE, FETCH = 0, 1, 2
MIB = 1 << 20
PAGE, LARGE, HUGE = 1 << 12, 1 << 21, 1 << 30
LATENCIES = ("l2", "walk_cache", "nested_tlb", "reference", "update")
COSTS = (
    "cycles_per_instruction", "guest_fault", "nested_fault", "exit", "switch", "cr3_load",
    "shootdown", "shootdown_target", "invalidation", "migration",
)  # fmt: skip
BIG = 1000  # a cost that is not mixed up with a count


def reads(*pages, step=PAGE, kind=READ, thread=0):
    return [(0, thread, page * step, kind) for page in pages]


def clock(traces, *, mapped=True, latencies=(), costs=(), vms=None, **fields):
    """Return the clocks of a run on which nothing takes any time but what is given."""
    made_of = fields.pop("processor", {})
    made_of["latencies"] = dict.fromkeys(LATENCIES, 0) | dict(latencies)
    each = {"memory": 64 * MIB, "guest_pages": "4k", "nested_pages": "2m"}
    vms = vms or [{}] * len(traces)
    defaults = {
        "mode": "native", "memory": 1024 * MIB, "quantum": "4096accesses", "nested_dirty": False,
        "exit_code_pages": 0, "exit_data_pages": 0,
    }  # fmt: skip
    config = RunConfig(**{
        **defaults, **fields, "processor": processor(**made_of),
        "costs": dict.fromkeys(COSTS, 0) | dict(costs),
        "vms": [each | {"trace": f"t{n}", "name": f"t{n}"} | vm for n, vm in enumerate(vms)],
    })  # fmt: skip
    maps = {}
    if mapped:
        for number, trace in enumerate(traces, start=1):
            pages = sorted({(space, gva & -PAGE) for space, _, gva, _ in trace})
            spaces, virtual = zip(*pages, strict=True)
            near = max(virtual) < 32 * MIB and len(set(spaces)) == 1
            frames = [8 * MIB + (gva if near else n * PAGE) for n, gva in enumerate(virtual)]
            maps[number] = page_map_of(virtual, frames, [PAGE] * len(pages), spaces)
    result = Replay(config, [MemoryTrace(trace) for trace in traces], page_maps=maps).run()
    for lp, reached in zip(result.processors, result.clocks, strict=True):
        assert sum(map(sum, lp.values())) == reached
    return sum(result.clocks)


TWO_WALKS = [reads(0, 1)]  # an L1 of one page has neither
NESTED = {"mode": "tagged"}
KEPT_ENTRIES = {"entries": 8, "ways": 8, "levels": [2, 3, 4], "nested": False}


@pytest.mark.parametrize(
    ("name", "traces", "fields", "times"),
    [
        ("l2", [reads(0, 1, 0)], {"processor": {"l2": [array(4, 4)]}}, 3),
        ("l2", TWO_WALKS, {}, 0),
        ("l2", [reads(0, 1, kind=FETCH)], {"processor": {"l2_fetch": [array(4, 4)]}}, 2),
        ("walk_cache", TWO_WALKS, {}, 2),
        ("walk_cache", TWO_WALKS, {"processor": {"walk_caches": {"pde": cache(1)}}}, 2),
        ("walk_cache", TWO_WALKS, {"processor": {"page_walk_cache": KEPT_ENTRIES}}, 2 + 3),
        ("nested_tlb", TWO_WALKS, NESTED | {"processor": {"nested_tlb": array(4, 4, "4k", "2m")}}, 10),
        ("nested_tlb", TWO_WALKS, NESTED, 0),
        ("reference", TWO_WALKS, {}, 2 * 4),
        ("reference", TWO_WALKS, NESTED, 2 * (4 + 5 * 3)),
        ("update", TWO_WALKS, {}, 4 + 1),
        ("update", [reads(0) + reads(0, kind=WRITE)], {}, 4 + 1),
        ("update", [reads(0)], NESTED | {"nested_dirty": True}, 4 + 3 + 1),  # 3 nested, 1 is dirty
    ],
)  # fmt: skip
@pytest.mark.parametrize("window", [0, 1])
def test_a_latency_is_in_the_clock_as_often_as_it_is_due(name, traces, fields, times, window):
    fields = {**fields, "processor": dict(fields.get("processor", {}))}
    assert clock(traces, latencies={name: BIG}, window=window, **fields) == BIG * times


BLOCK = reads(*[0] * 4096)
# The tables have been backed as the guest made them; the data's pages are not.
FIRST_TOUCH = {"mode": "tagged", "backing": "first-touch", "vms": [{"nested_pages": "4k"}]}


@pytest.mark.parametrize(
    ("name", "traces", "fields", "times"),
    [
        ("cycles_per_instruction", [reads(0, 0, 0)], {}, 3),
        ("cycles_per_instruction", [reads(0, 0) + reads(0, kind=FETCH)], {}, 1),
        ("guest_fault", [reads(0, 1, 0)], {"mapped": False}, 2),
        ("switch", [BLOCK * 2, BLOCK * 2], {}, 3),
        ("cr3_load", [[*reads(0), (1, 0, 0, READ), (0, 0, 0, READ)]], {}, 2),
        ("nested_fault", [reads(0, 1)], FIRST_TOUCH, 2),
        ("exit", [reads(0, 1)], FIRST_TOUCH, 2),
    ],
)  # fmt: skip
def test_a_cost_is_in_the_clock_as_often_as_it_is_due(name, traces, fields, times):
    assert clock(traces, costs={name: BIG}, **fields) == BIG * times


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("exit", 3), ("shootdown", 2), ("shootdown_target", 1), ("invalidation", 3), ("migration", 0),
        ("switch", 0),
    ],
)  # fmt: skip
def test_a_cost_of_a_shootdown_is_in_the_clocks_as_often_as_it_is_due(name, times):
    """Both processors run two blocks of one machine, and each has one shootdown due at its end.

    The first one's interrupts the other; the other's finds that the first one has run nothing since.
    """
    vm = {"trace": "", "processes": [{"trace": "a"}, {"trace": "b"}], "vcpus": 2}
    reached = clock(
        [BLOCK * 2] * 2, vms=[vm], lps=2, mode="tagged", mapped=False, quantum="99999accesses",
        processor={"frequency_hz": 8192}, shootdowns_per_second=1,
        costs={"cycles_per_instruction": 1, name: 7},
    )  # fmt: skip
    assert reached == 4 * 4096 + 7 * times


def test_a_migration_is_in_the_clock():
    """Machine 0 leaves processor 0 for machine 2 after a block, and goes on where machine 1 has ended.

    Machine 2 finds nobody else at its slice's end, nor does machine 0 then.
    """
    reached = clock(
        [BLOCK * 3, BLOCK, BLOCK * 2], lps=2, mode="tagged", mapped=False,
        costs={"cycles_per_instruction": 1, "migration": 7},
    )  # fmt: skip
    assert reached == 6 * 4096 + 7


@pytest.mark.parametrize("name", ["exits_per_second", "shootdowns_per_second"])
@pytest.mark.parametrize(("frequency", "per_second"), [(5, 1), (4, 1), (6, 1), (11, 2)])
def test_a_timer_has_as_many_cycles_as_the_frequency_says(name, frequency, per_second):
    """Twelve blocks of five accesses, a cycle each; what is due costs nothing."""
    trace = [access for n in range(12) for access in reads(0, 0, 0, 0, 0, thread=n % 2)]
    event = name.split("_")[0]
    config = RunConfig(
        processor=processor(frequency_hz=frequency, latencies=dict.fromkeys(LATENCIES, 0)),
        costs=dict.fromkeys(COSTS, 0) | {"cycles_per_instruction": 1}, memory=1024 * MIB,
        vms=[{"trace": "t", "memory": 64 * MIB}], exit_code_pages=0, exit_data_pages=0,
        quantum="4096accesses", **{name: per_second},
    )  # fmt: skip
    result = Replay(config, [MemoryTrace(trace)]).run()
    assert result.counters[event][0] == 60 // (frequency // per_second)


# -- sizes of caches of translations


def twice(pages, step=PAGE, kind=READ):
    return [reads(*pages, *pages, step=step, kind=kind)]


def in_sets(sets, ways):
    """Yield numbers to ask for twice, and how many are not found the second time."""
    yield range(sets * ways), 0
    one_set = range(0, (ways + 1) * sets, sets)
    yield one_set[:-1], 0
    yield one_set, ways + 1
    yield range(sets * (ways + 1)), sets * (ways + 1)


SHAPES = [(1, 3), (4, 2), (3, 2)]  # sets and ways; a power of two, and not
FILLED_WAYS = {"tree-plru": 4, "rotating-plru": 6}


@pytest.mark.parametrize(("sets", "ways"), SHAPES)
@pytest.mark.parametrize(
    ("field", "kind"),
    [("l1_data", READ), ("l1_data", WRITE), ("l1_store", WRITE), ("l1_fetch", FETCH), ("l2", READ),
     ("l2", WRITE), ("l2", FETCH), ("l2_fetch", FETCH)],
)  # fmt: skip
def test_a_tlb_has_its_sets_and_ways(field, kind, sets, ways):
    for pages, again in in_sets(sets, ways):
        made_of = {field: [array(sets * ways, ways)]}
        walks = clock(twice(pages, kind=kind), processor=made_of, latencies={"walk_cache": 1})
        assert walks == len(pages) + again, pages


@pytest.mark.parametrize(("replacement", "ways"), FILLED_WAYS.items())
def test_ways_of_a_tree_are_all_filled_and_no_more(replacement, ways):
    made_of = {"l2": [array(ways, ways) | {"replacement": replacement}]}
    fits = clock(twice(range(ways)), processor=dict(made_of), latencies={"walk_cache": 1})
    more = clock(twice(range(ways + 1)), processor=dict(made_of), latencies={"walk_cache": 1})
    assert fits == ways
    assert more > ways + 1


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_an_index_is_folded_at_its_bit(fold):
    """Of four sets of one way: pages 0 and x share a set if the folded number of x is that of 0."""
    for page in range(1, 64):
        made_of = {"l2": [array(4, 1, index=f"xor-{fold}")]}
        walks = clock(twice([0, page]), processor=made_of, latencies={"walk_cache": 1})
        shares = (page ^ page >> fold) % 4 == 0
        assert walks == (4 if shares else 2), page


@pytest.mark.parametrize(("sets", "ways"), SHAPES)
@pytest.mark.parametrize(
    ("name", "step", "hit"), [("pde", LARGE, 1), ("pdpte", HUGE, 2), ("pml4e", 1 << 39, 3)]
)
def test_a_walk_cache_has_its_sets_and_ways_and_saves_the_levels_above_it(
    name, step, hit, sets, ways
):
    for keys, again in in_sets(sets, ways):
        made_of = {"walk_caches": {name: cache(sets * ways, ways)}}
        read = clock(twice(keys, step), processor=made_of, latencies={"reference": 1})
        assert read == 4 * len(keys) + (4 if again else hit) * len(keys), keys


@pytest.mark.parametrize(("sets", "ways"), SHAPES)
@pytest.mark.parametrize(("level", "step"), [(2, LARGE), (3, HUGE), (4, 1 << 39)])
def test_a_page_walk_cache_has_its_sets_and_ways_and_saves_one_read(level, step, sets, ways):
    for keys, again in in_sets(sets, ways):
        entries = cache(sets * ways, ways) | {"levels": [level], "nested": False}
        read = clock(
            twice(keys, step), processor={"page_walk_cache": entries}, latencies={"reference": 1}
        )
        assert read == 4 * len(keys) + (4 if again else 3) * len(keys), keys


@pytest.mark.parametrize("levels", [[2], [3], [4], [2, 3], [3, 4], [2, 3, 4]])
def test_a_page_walk_cache_has_nested_entries_of_its_levels_if_it_is_said_to(levels):
    """Two walks have ten nested ones, each of levels 4 and 3 and a leaf of 2M, which is never kept."""
    guest = len(levels)
    for nested in (False, True):
        entries = cache(16) | {"levels": levels, "nested": nested}
        made_of = {"page_walk_cache": entries}
        read = clock(TWO_WALKS, mode="tagged", processor=made_of, latencies={"reference": 1})
        upper = len({3, 4} & set(levels))
        saved = guest + (9 * upper if nested else 0)  # all but the first of ten nested walks
        assert read == 2 * (4 + 5 * 3) - saved


@pytest.mark.parametrize(("sets", "ways"), SHAPES)
def test_a_nested_tlb_has_its_sets_and_ways(sets, ways):
    """With a PDE cache all walks but the first look up the data's guest-physical page only."""
    for pages, again in in_sets(sets, ways):
        made_of = {
            "nested_tlb": array(sets * ways, ways, "4k", "2m"), "walk_caches": {"pde": cache(1)},
        }  # fmt: skip
        read = clock(
            twice(pages), mode="tagged", vms=[{"nested_pages": "4k"}], processor=made_of,
            latencies={"reference": 1},
        )  # fmt: skip
        first = 4 * 4 + 4 + 4  # the tables' nested entries, the entries, the data's nested ones
        rest = (len(pages) - 1) * (1 + 4) + len(pages) * (1 + (4 if again else 0))
        assert read == first + rest, pages


# -- data caches


def lines(numbers):
    """Return reads whose last entries stand in these lines of a table: eight pages have a line."""
    return twice([8 * number for number in numbers])


def data_caches(**fields):
    return {"l1d": {"bytes": 64, "ways": 1, "latency": 0}, "memory": 0} | fields


def cached(traces, caches, **fields):
    made_of = {"data_caches": caches} | fields.pop("processor", {})
    return clock(traces, processor=made_of, **fields)


@pytest.mark.parametrize(("sets", "ways"), SHAPES)
@pytest.mark.parametrize("level", ["l1d", "l2", "l3"])
def test_a_data_cache_has_its_sets_and_ways(level, sets, ways):
    """The PDE cache leaves one read to each walk but the first. Memory costs a cycle."""
    for numbers, again in in_sets(sets, ways):
        size = {"bytes": 64 * sets * ways, "ways": ways, "latency": 0}
        read = cached(
            lines(numbers), data_caches(memory=1, **{level: size}),
            processor={"walk_caches": {"pde": cache(1)}},
        )  # fmt: skip
        assert read == 3 + len(numbers) + again, numbers


LARGE_CACHE = {"bytes": 64 * 64, "ways": 64, "latency": 0}
SMALL_CACHE = {"bytes": 64, "ways": 1, "latency": 0}


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize(
    ("level", "caches", "times"),
    [
        # Of the 19 reads of a walk seven are of new lines: three nested entries are read five times.
        ("l1d", {"l1d": LARGE_CACHE}, 12),
        ("l2", {"l1d": SMALL_CACHE, "l2": LARGE_CACHE}, 12),
        ("l3", {"l1d": SMALL_CACHE, "l2": SMALL_CACHE, "l3": LARGE_CACHE}, 12),
        ("l3", {"l1d": SMALL_CACHE, "l3": LARGE_CACHE}, 12),
        ("memory", {"l1d": LARGE_CACHE}, 7),
        ("memory", {"l1d": SMALL_CACHE}, 19),
    ],
)
def test_the_latency_of_who_serves_a_read_is_in_the_clock(level, caches, times, window):
    caches = {name: dict(cache) for name, cache in caches.items()} | {"memory": 0}
    if level == "memory":
        caches["memory"] = BIG
    else:
        caches[level]["latency"] = BIG
    small = {"l1_data": [array(1, 1)]}
    vms = [{"memory": 64 * MIB}]
    read = cached([reads(0)], caches, mode="tagged", vms=vms, window=window, processor=small)
    assert read == BIG * times


@pytest.mark.parametrize(("sets", "ways"), [(1, 2), (1, 3), (2, 2), (4, 3)])
def test_the_cache_of_fetches_has_its_sets_and_ways(sets, ways):
    """Lines that it answers are not used in the L2, where a table's line stays for that.

    The L2 has room for the lines fetched, for the last table's line of page 8, and for its data's. When
    page 16 brings two more, the table's is next to go if all lines fetched were asked for once more.
    """
    one_set = range(0, (ways + 1) * sets, sets)
    for numbers, found in ((range(sets * ways), 1), (one_set[:-1], 1), (one_set, 0)):
        fetched = [(0, 0, 64 * number, FETCH) for number in numbers]
        caches = {
            "l1d": SMALL_CACHE, "l1i": {"bytes": 64 * sets * ways, "ways": ways, "latency": 0},
            "l2": {"bytes": 64 * (len(fetched) + 2), "ways": len(fetched) + 2, "latency": 0},
            "memory": 1,
        }  # fmt: skip
        read = cached(
            [fetched + reads(8) + fetched + reads(16, 8)], caches, table_reads="shared",
            processor={"walk_caches": {"pde": cache(1)}},
        )  # fmt: skip
        assert read == 4 + 3 - found, numbers


# -- walks that overlap


@pytest.mark.parametrize("walkers", [1, 2, 3, 16])
def test_as_many_walks_as_walkers_are_under_way(walkers):
    """A walk takes 40 cycles, and all are asked for at once."""
    for walks, rounds in ((walkers, 1), (walkers + 1, 2), (2 * walkers + 1, 3)):
        made_of = {"walkers": walkers}
        reached = clock(
            [reads(*range(walks))], processor=made_of, window=64, latencies={"reference": 10}
        )
        assert reached == 40 * rounds


@pytest.mark.parametrize("window", [1, 2, 5, 63])
def test_the_processor_goes_on_for_as_many_instructions_as_the_window_has(window):
    """The first instruction's walk is from 1 to 41; the last one begins after it, or does not wait."""
    for after, reached in ((window, 1 + 40), (window + 1, 1 + 40 + 1), (window + 2, 1 + 40 + 2)):
        fast = {"costs": {"cycles_per_instruction": 1}, "latencies": {"reference": 10}}
        length = clock([reads(*[0] * (1 + after))], window=window, **fast)
        assert length == max(reached, 1 + after)


def test_looking_in_the_l2_goes_on_beside_walks():
    """Walks from 5 to 45 and from 10 to 50; the L2 then answers twice, to 20."""
    reached = clock(
        [reads(0, 1, 0, 1)], processor={"l2": [array(4, 4)], "walkers": 2}, window=64,
        latencies={"l2": 5, "reference": 10},
    )  # fmt: skip
    assert reached == 4 * 5 + (50 - 20)
