"""The naive model of a named processor's parts, against sequences and cycles worked out by hand."""

from dataclasses import replace

import naive
import pytest
from naive import (
    FETCH,
    G1,
    K4,
    M2,
    READ,
    WRITE,
    Array,
    Cache,
    Data,
    DataCaches,
    Entry,
    Geometry,
    Lines,
    Machine,
    PageWalkCache,
    Tlb,
)
from test_naive_model import BIG, FREE, KIB4, ONE, SINGLE, made_by_hand, random_run, replay

# ---- replacement --------------------------------------------------------------------------------


def entry(page, tag=(1, 0), size=K4):
    return Entry(tag, size, page, page * KIB4, naive.ALL_RIGHTS)


def full(ways, rule):
    cache = Cache(Array(ways, ways, replacement=rule))
    for page in range(ways):
        assert cache.fill(entry(page)) is None
    return cache


def use(cache, page):
    assert cache.look_up((1, 0), page * KIB4)


@pytest.mark.parametrize(
    ("rule", "victims"),
    [
        ("lru", [0, 1, 2, 3]),
        ("tree-plru", [0, 1]),
        ("tree-plru", [0, 2, 1, 3]),
        ("tree-plru", [0, 4, 2, 6, 1, 5, 3, 7]),
        ("tree-plru", [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15]),
        ("rotating-plru", [0, 2, 4, 1, 3, 5]),
        ("rotating-plru", [0, 4, 8, 2, 6, 10, 1, 5, 9, 3, 7, 11]),
    ],
)
def test_a_set_filled_in_order_and_filled_again_loses_its_entries_in_this_order(rule, victims):
    """Each fill points the bits on its path away: the ways by their reversed bits, group by group."""
    cache = full(len(victims), rule)
    assert [cache.fill(entry(100 + i)).page for i in range(len(victims))] == victims


@pytest.mark.parametrize(
    ("ways", "rule", "used", "victims"),
    [
        (4, "tree-plru", [0], [2, 1, 3]),  # least recent is 1: a tree forgets that
        (4, "tree-plru", [0, 2], [1, 3]),
        (4, "tree-plru", [3, 0], [2, 1]),
        (8, "tree-plru", [0, 4], [2, 6, 1]),
        (8, "tree-plru", [7, 1], [4, 2, 6]),
        (12, "rotating-plru", [0], [4, 8, 2]),
        (12, "rotating-plru", [5], [8, 0, 6]),
        (12, "rotating-plru", [4, 0, 8, 1], [6, 10, 2]),
    ],
)
def test_a_hit_points_the_bits_away_from_its_way(ways, rule, used, victims):
    cache = full(ways, rule)
    for page in used:
        use(cache, page)
    assert [cache.fill(entry(100 + i)).page for i in range(len(victims))] == victims


def test_a_look_up_that_misses_changes_no_bit():
    cache = full(4, "tree-plru")
    assert cache.look_up((1, 0), 77 * KIB4) is None
    assert cache.fill(entry(100)).page == 0


def test_invalidation_empties_ways_and_leaves_the_bits():
    """Use of 0: root to 2 and 3, their side to 1. Fill of the free way 3: root to 0 and 1."""
    cache = full(4, "tree-plru")
    use(cache, 0)
    cache.drop(lambda entry: entry.page == 3)
    assert cache.fill(entry(100)) is None
    assert [e.page for e in cache.entries()] == [0, 1, 2, 100]
    assert cache.fill(entry(101)).page == 1


def test_the_lowest_free_way_is_filled_before_any_victim():
    cache = full(4, "tree-plru")
    cache.drop(lambda entry: entry.page in (1, 2))
    assert cache.fill(entry(100)) is None
    assert [e.page for e in cache.entries()] == [0, 100, 3]


def test_a_refill_of_a_page_keeps_its_way_and_is_a_use():
    cache = full(4, "tree-plru")
    assert cache.fill(entry(0)) is None
    assert cache.fill(entry(100)).page == 2


def test_other_numbers_of_ways_have_no_tree():
    for array in (Array(3, 3, replacement="tree-plru"), Array(8, 8, replacement="rotating-plru")):
        with pytest.raises(ValueError, match=r"no tree|no three groups"):
            Cache(array)


# ---- two arrays of a size, and the sides --------------------------------------------------------


def two_arrays():
    """Two arrays of two sets with one way each: even pages compete, and odd ones."""
    return Tlb(["a", "b"], [Array(2, 1, (K4, M2)), Array(2, 1, (K4, G1))], has_twin=False)


def place(tlb, page, size=K4):
    found = tlb.look_up((1, 0), page << 12 + 9 * size)
    return found and found[0]


def test_a_page_goes_into_the_first_array_with_a_free_way_and_then_in_turns():
    tlb = two_arrays()
    assert [tlb.fill(entry(page)) for page in (0, 2)] == [None, None]
    assert [place(tlb, page) for page in (0, 2)] == ["a", "b"]
    assert [tlb.fill(entry(page)).page for page in (4, 6, 8)] == [0, 2, 4]
    assert [tlb.fill(entry(page)) for page in (1, 3)] == [None, None]  # free: nobody's turn
    assert tlb.fill(entry(5)).page == 3  # after 8 in the first array it is the second's turn
    assert [place(tlb, page) for page in (8, 6, 1, 5)] == ["a", "b", "a", "b"]


def test_a_refill_goes_where_the_pages_copy_is_and_takes_no_turn():
    tlb = two_arrays()
    for page in (0, 2):
        tlb.fill(entry(page))
    assert tlb.fill(entry(2)) is None
    assert place(tlb, 2) == "b"
    assert tlb.fill(entry(4)).page == 0


def test_a_size_that_one_array_holds_goes_there_and_takes_no_turn():
    tlb = two_arrays()
    assert tlb.fill(entry(0, size=M2)) is None
    assert tlb.fill(entry(2, size=M2)).page == 0
    assert tlb.fill(entry(0, size=G1)) is None
    assert [place(tlb, 2, M2), place(tlb, 0, G1)] == ["a", "b"]
    assert tlb.fill(entry(4)).page == 2  # the 2M page: the first array's turn


def test_fetches_use_their_own_level_2_and_none_if_it_has_no_array():
    trace = [(0, READ), (KIB4, READ), (0, FETCH)]
    shared = replay(trace, Geometry(SINGLE, l2=[BIG])).run()
    assert shared["hits"][1] == {"l2.0.4k": 1}
    own = replay(
        [*trace, (KIB4, FETCH), (0, FETCH)], Geometry(SINGLE, l2=[BIG], l2_fetch=[BIG])
    ).run()
    assert own["hits"][1] == {"l2_fetch.0.4k": 1}
    assert own["counts"][1]["WALK"] == 4
    none = replay(trace, Geometry(SINGLE, l2=[BIG], l2_fetch=[])).run()
    assert none["hits"][1] == {}
    assert none["counts"][1]["L2_LOOKUP"] == 4  # each read's page faults first


def test_stores_have_their_own_level_1_if_there_is_one_and_count_as_data():
    trace = [(0, WRITE), (0, READ), (0, WRITE), (0, READ)]
    result = replay(trace, Geometry([*SINGLE, [ONE]])).run()
    assert result["hits"][1] == {"l1.store.0.4k": 1, "l1.data.0.4k": 1}
    assert result["l1_misses"][1] == [2, 0]
    assert result["counts"][1]["WALK"] == 2


# ---- tables made by hand ------------------------------------------------------------------------


def flat(pages=64, geometry=None, costs=None, **settings):
    """Native tables of pages from address 0 for vms 0 and 1, all accessed and dirty.

    Page n is at machine address 1M + n pages. A walk reads four entries and writes none.
    """
    memory = {0x1000: 0x2067, 0x2000: 0x3067, 0x3000: 0x4067}
    memory |= {0x4000 + 8 * n: 0x100067 + n * KIB4 for n in range(pages)}
    roots = {(0, 0): 0x1000, (1, 0): 0x1000}
    counters = naive.Counters(2, costs)
    return Machine(geometry or Geometry(SINGLE), memory, roots, counters=counters, **settings)


def read(machine, page, vm=1):
    return machine.access((vm, 0), page * KIB4, READ)


# ---- table entries by where they stand ----------------------------------------------------------

ENTRIES = PageWalkCache(Array(24, 24), (2, 3, 4), nested=False)


def test_a_cached_entry_is_not_read_and_leaves_are_not_cached():
    machine = flat(geometry=Geometry(SINGLE, page_walk=ENTRIES))
    for page in (0, 1, 0):
        assert read(machine, page) == 0x100000 + page * KIB4
    assert machine.counters.histogram[1] == {4: 1, 1: 2}
    assert machine.counters.hits[1] == {"page_walk_cache.guest": 6}
    assert machine.counters.counts[1]["ENTRY_HIT"] == 6
    assert machine.counters.walk_latency[1] == {1 + 4 * 14: 1, 1 + 3 + 14: 2}
    assert machine.counters.cycles[1] == {"walk_cache": 3 + 6, "guest_table": 6 * 14}


def test_only_entries_of_its_levels_are_cached():
    machine = flat(geometry=Geometry(SINGLE, page_walk=replace(ENTRIES, levels=(3,))))
    for page in (0, 1):
        read(machine, page)
    assert machine.counters.histogram[1] == {4: 1, 3: 1}


def test_an_entry_is_another_vms_even_at_the_same_place():
    machine = flat(geometry=Geometry(SINGLE, page_walk=ENTRIES))
    read(machine, 0)
    read(machine, 0, vm=0)
    assert machine.counters.histogram[0] == {4: 1}


def test_the_word_number_of_an_entry_says_its_set():
    """The entries' words are 512, 1024 and 1536, all even; two sets of one way keep the last."""
    shape = replace(ENTRIES, array=Array(2, 1))
    machine = flat(geometry=Geometry(SINGLE, page_walk=shape))
    for page in (0, 1):
        read(machine, page)
    assert [each.page for each in machine.page_walk.entries()] == [0x3000 // 8]
    assert machine.counters.hits[1] == {}  # the root's entry dropped it before it was asked for


def test_nested_entries_are_cached_beside_the_guests():
    """Each of the four tables' nested walks reads its leaf, the first the three tables, too."""
    shape = replace(ENTRIES, nested=True)
    machine = made_by_hand(geometry=Geometry(SINGLE, page_walk=shape))
    machine.access((1, 0), 0, READ)
    counts = machine.counters.counts[1]
    assert (counts["GUEST_REFERENCE"], counts["NESTED_REFERENCE"]) == (4, 4 + 3 + 1)
    assert machine.counters.hits[1] == {"page_walk_cache.nested": 3 * 3 + 2}
    machine.l1[0][0].drop(lambda entry: True, "flush")
    machine.access((1, 0), 0, READ)
    assert (counts["GUEST_REFERENCE"], counts["NESTED_REFERENCE"]) == (4 + 1, 8 + 4 + 1)
    assert counts["ENTRY_HIT"] == 11 + 3 + 4 * 3 + 2
    assert machine.counters.histogram[1] == {12: 1, 6: 1}


def dimensions(machine):
    return {each.tag[0] for each in machine.page_walk.entries()}


def test_what_drops_the_entries_of_table_entries():
    shape = replace(ENTRIES, nested=True)

    def walked():
        machine = made_by_hand(geometry=Geometry(SINGLE, page_walk=shape, nested=BIG))
        machine.access((1, 0), 0, READ)
        return machine

    (machine := walked()).flush()
    assert dimensions(machine) == {"nested"}
    (machine := walked()).flush(flush_nested=True)
    assert dimensions(machine) == set()
    (machine := walked()).purge(1)
    assert dimensions(machine) == {"nested"}
    (machine := walked()).purge(2)
    assert dimensions(machine) == {"guest", "nested"}
    (machine := walked()).invalidate(1)
    assert dimensions(machine) == set()
    machine = walked()
    with pytest.raises(naive.PageFault):
        machine.access((1, 0), 5 * KIB4, READ)  # another page: all of the context's go
    assert dimensions(machine) == {"nested"}
    machine = walked()
    machine.memory[0x14008] = 0x900007  # no nested entry maps it
    with pytest.raises(naive.NestedFault):
        machine.access((1, 0), KIB4, READ)
    assert dimensions(machine) == set()


def test_an_absent_entry_is_not_cached():
    machine = flat(geometry=Geometry(SINGLE, page_walk=ENTRIES))
    with pytest.raises(naive.PageFault):
        machine.access((1, 0), 1 << 30, READ)
    assert dimensions(machine) == set()


# ---- data caches --------------------------------------------------------------------------------


def served(caches, *lines):
    return [caches.read(64 * line)[0] for line in lines]


def test_a_line_is_found_where_it_was_left_and_fills_the_levels_above():
    """L1 has two sets of one way, L2 two sets of two; all these lines are in their first sets."""
    caches = DataCaches(Data(Lines(128, 1, 4), None, Lines(256, 2, 14), None, memory=200))
    assert served(caches, 0, 0, 2, 0) == ["memory", "l1d", "memory", "l2"]
    assert served(caches, 0) == ["l1d"]  # the level 2's hit filled level 1
    assert served(caches, 4, 0, 2) == ["memory", "l2", "memory"]  # 2 was the oldest of L2's set
    assert served(caches, 1, 0) == ["memory", "l2"]  # not 2's: L1 holds one of the two
    assert caches.read(0) == ("l1d", 4)
    assert caches.read(64 * 99) == ("memory", 200)


def test_the_third_level_is_asked_last_and_shared():
    shape = Data(Lines(64, 1, 4), Lines(64, 1, 5), None, Lines(256, 4, 40), memory=200)
    one = DataCaches(shape)
    other = DataCaches(shape, l3=one.l3)
    assert one.read(0) == ("memory", 200)
    assert other.read(0) == ("l3", 40)
    assert other.read(0, is_fetch=True) == ("l3", 40)
    assert other.read(0, is_fetch=True) == ("l1i", 5)


WALKER = Geometry(
    SINGLE,
    data=Data(Lines(64 * 64, 16, 5), None, Lines(64 * 256, 4, 14), None, memory=200),
    table_reads="walker",
)


def test_table_reads_go_through_the_data_caches_by_line():
    """Pages 0 and 1 have their entries in one line, page 8 the next one."""
    machine = flat(geometry=WALKER)
    for page in (0, 1, 8):
        read(machine, page)
    assert machine.counters.reads[1] == {"guest.memory": 5, "guest.l1d": 7}
    assert machine.counters.walk_latency[1] == {
        naive.bucket(1 + 4 * 200): 1,
        1 + 4 * 5: 1,
        1 + 3 * 5 + 200: 1,
    }
    assert machine.counters.clock == 3 + 5 * 200 + 7 * 5


def test_both_dimensions_reads_are_told_apart():
    machine = made_by_hand(geometry=WALKER)
    machine.access((1, 0), 0, READ)
    reads = machine.counters.reads[1]
    # each table's leaf is new, but entries 1 to 4 of the nested table 0x4000 share a line
    assert reads == {"guest.memory": 4, "nested.memory": 4, "nested.l1d": 15}
    assert sum(reads.values()) == 23


def test_only_shared_caches_see_the_programs_own_lines():
    for table_reads, found in (("fixed", "memory"), ("walker", "memory"), ("shared", "l1d")):
        machine = flat(geometry=replace(WALKER, table_reads=table_reads))
        read(machine, 3)
        assert machine.data.read(0x100000 + 3 * KIB4)[0] == found
    machine = flat(geometry=replace(WALKER, table_reads="shared"))
    machine.access((1, 0), 3 * KIB4, FETCH)
    assert machine.data.read(0x100000 + 3 * KIB4)[0] == "l2"  # fetches fill no L1 of data
    assert flat(geometry=replace(WALKER, table_reads="fixed")).counters.reads[1] == {}


# ---- latency of walks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latency", "lowest"),
    [
        *[(0, 0), (511, 511), (512, 512), (519, 512), (520, 520), (1023, 1016), (1024, 1024)],
        *[(1039, 1024), (1040, 1040), (2047, 2032), (2048, 2048), (2080, 2080)],
    ],
)
def test_latencies_are_exact_below_512_and_64_to_each_power_of_two_above(latency, lowest):
    assert naive.bucket(latency) == lowest


def test_the_latency_of_a_walk_is_all_that_happens_in_it():
    """24 reads, 5 nested look-ups, 1 cycle of walk caches; updates: 1 in each of 4 guest entries.

    Its tables' nested entries were set by the walk that faulted, but for those of the last level.
    """
    run = replay([(0, READ)])
    result = run.run()
    (latency,) = result["walk_latency"][1]
    assert latency == 1 + 24 * 14 + 5 + 20 * (4 + 3 + 1)


# ---- a window of instructions beside walks ------------------------------------------------------

LATENCY = 1 + 4 * 14  # of a walk in flat tables


def windowed(window, walkers=4, l2=(), l1=None, **settings):
    geometry = Geometry(l1 or SINGLE, l2=l2, window=window, walkers=walkers, overlap=True)
    return flat(geometry=geometry, **settings)


def go(machine, *accesses):
    """Run a block without fetches, or (with) one; return the clock after each access."""
    clocks = []
    has_fetches = any(kind == FETCH for _, kind in accesses)
    machine.window.begin_block()
    for page, kind in accesses:
        if kind == FETCH or not has_fetches:
            machine.window.begin_instruction(1)
        machine.access((1, 0), page * KIB4, kind)
        clocks.append(machine.counters.clock)
    machine.window.wait_for_all()
    return [*clocks, machine.counters.clock]


def test_two_walkers_serve_three_walks():
    """0: 1 to 58. 1: 2 to 59. 2 waits for 0: 58 to 115. 3 begins at 59, when 1's walker is free."""
    machine = windowed(100, walkers=2)
    clocks = go(machine, (0, READ), (1, READ), (2, READ), (3, READ))
    assert clocks == [1, 2, 58, 59, 116]
    # waits: 3 to 58 for the reads of 0; 59 to 115 for 2, which has looked in its caches; 1 of 3
    assert machine.counters.cycles[1] == {"base": 4, "guest_table": 55 + 56 + 1}
    assert machine.counters.walk_latency[1] == {LATENCY: 4}


def test_one_walker_walks_one_after_the_other():
    machine = windowed(100, walkers=1)
    assert go(machine, (0, READ), (1, READ), (2, READ)) == [1, 58, 115, 172]
    # 0's and 1's walks begin just before the next instruction; 2's is waited for from its start
    assert machine.counters.cycles[1] == {"base": 3, "guest_table": 3 * 56, "walk_cache": 1}


@pytest.mark.parametrize(
    ("window", "clocks"),
    [
        (0, [58, 59, 60, 61, 61]),  # without a window the access itself waits
        (1, [1, 2, 59, 60, 60]),
        (2, [1, 2, 3, 59, 59]),
        (3, [1, 2, 3, 4, 58]),
    ],
)
def test_the_processor_goes_on_by_the_window_and_not_by_one_more(window, clocks):
    """The walk is from 1 to 58; instruction n waits for it if n is more than the window."""
    machine = windowed(window)
    assert go(machine, (0, READ), (0, READ), (0, READ), (0, READ)) == clocks


def test_waiting_for_the_window_ends_at_the_walk_that_is_too_old():
    """0: 1 to 58. 1: 2 to 59. Instruction 2 waits for 0 alone, then one cycle: 1 has ended."""
    machine = windowed(1)
    assert go(machine, (0, READ), (1, READ), (1, READ), (1, READ)) == [1, 2, 59, 60, 60]


def test_a_walk_that_ends_sooner_is_waited_for_first():
    """With entries cached, 1's walk is 18 long: it is over when 0's is waited for."""
    geometry = Geometry(SINGLE, window=1, walkers=4, page_walk=ENTRIES)
    machine = flat(geometry=geometry)
    # 0: 1 to 58, reads from 2. 1: 2 to 20: cache 2, entries 3 to 5, a read 6 to 19.
    # 1 hit; instruction 2 at 2 waits: first for 1 (cache 1, entries 3, read 14), then for 0.
    assert go(machine, (0, READ), (1, READ), (1, READ)) == [1, 2, 59, 59]
    cycles = machine.counters.cycles[1]
    assert cycles == {"base": 3, "walk_cache": 1 + 3, "guest_table": 14 + 38}
    assert sum(cycles.values()) == 59


def test_accesses_before_a_blocks_first_fetch_belong_to_the_instruction_before_it():
    """Instruction -1 begins no cycle, and its walk is waited for by instruction 1 at a window of 1."""
    machine = windowed(1, l1=[[BIG], [BIG]])
    read(machine, 60)
    machine.access((1, 0), 61 * KIB4, FETCH)
    machine.window.wait_for_all()
    before = machine.counters.clock
    clocks = go(machine, (0, READ), (61, FETCH), (60, READ), (61, FETCH), (60, READ))
    assert [clock - before for clock in clocks] == [0, 1, 1, 58, 58, 58]


def test_a_fetch_waits_for_its_walk_and_for_those_that_end_before():
    """0: 1 to 58, with no fetch before it; the fetch's walk is from 1 to 58 as well."""
    machine = windowed(100)
    assert go(machine, (0, READ), (1, FETCH), (1, READ)) == [0, 58, 58, 115]


def test_a_fetch_that_level_2_answers_waits_for_the_walk_that_filled_it():
    """Data ask L2 until 9 and walk until 66; the fetch asks from 10 to 19 and waits until 66."""
    machine = windowed(100, l2=[BIG])
    assert go(machine, (0, READ), (0, FETCH)) == [9, 66, 66]


def test_data_do_not_wait_for_the_walk_of_their_page():
    machine = windowed(100, l2=[BIG], l1=[[ONE], [ONE], [ONE]])
    assert go(machine, (0, READ), (0, READ), (0, WRITE)) == [1 + 9, 11, 11 + 1 + 9, 67]


def test_a_fetch_that_its_level_1_answers_does_not_wait():
    machine = windowed(100, l2=[BIG])
    machine.memory[0x4000] &= ~naive.DIRTY
    machine.access((1, 0), 0, FETCH)
    machine.access((1, 0), 0, READ)
    machine.window.wait_for_all()
    before = machine.counters.clock
    clocks = go(machine, (0, WRITE), (0, FETCH))
    assert machine.counters.counts[1]["DIRTY_WALK"] == 1
    # the write waits for nobody; its walk sets the dirty bit, which takes 20
    assert [clock - before for clock in clocks] == [0, 1, LATENCY + 20]


def test_a_walk_that_faults_begins_after_all_others_and_is_waited_for():
    """0: 1 to 58. The fault's walk: 1 and 4 reads, from 58 to 115."""
    machine = windowed(100)
    machine.memory[0x4000 + 8] = 0
    with pytest.raises(naive.PageFault):
        go(machine, (0, READ), (1, READ))
    assert machine.counters.clock == 115
    assert machine.counters.cycles[1] == {"base": 2, "guest_table": 56 + 56, "walk_cache": 1}


def test_the_hypervisor_does_not_run_beside_its_walks():
    machine = windowed(100)
    machine.access((0, 0), 0, READ, row=2)
    assert machine.counters.clock == LATENCY
    assert machine.window.walks == []


@pytest.mark.parametrize("mode", ["tagged", "flush", "native"])
@pytest.mark.parametrize("backing", ["start", "first-touch"])
def test_one_walker_and_no_window_is_what_blocking_is(mode, backing):
    settings = {"backing": backing, "exit_interval": 50_000, "exit_code_pages": 2}
    blocking = random_run(mode, **settings)
    beside = random_run(mode, **settings, hardware={"overlap": True})
    assert beside.machine.overlaps
    assert not blocking.machine.overlaps
    assert beside.run() == blocking.run()


def test_a_window_changes_time_and_nothing_else():
    blocking, beside = (
        random_run("tagged").run(),
        random_run("tagged", hardware={"window": 50, "walkers": 3}).run(),
    )
    for what in ("counts", "hits", "histogram", "walk_latency", "misses", "memory"):
        assert beside[what] == blocking[what]
    assert beside["clock"] < blocking["clock"]
    assert sum(sum(vm.values()) for vm in beside["cycles"]) == beside["clock"]


# ---- causes of misses ---------------------------------------------------------------------------


def test_each_walk_has_a_cause():
    """L2 has two sets of one way: pages 0 and 2 want the same one; two entries in all."""
    machine = flat(geometry=Geometry(SINGLE, l2=[Array(2, 1)], conflicts=True))

    def cause(page):
        before = machine.counters.misses[1].copy()
        read(machine, page)
        return list(machine.counters.misses[1] - before)

    assert cause(0) == ["first_touch"]
    assert cause(2) == ["first_touch"]  # drops 0, which would fit: 1's place is free
    assert cause(0) == ["conflict"]
    assert cause(1) == ["first_touch"]  # the list of two is now 1, 0
    assert cause(2) == ["capacity"]
    assert cause(2) == []  # a hit
    read(machine, 4, vm=0)
    assert cause(2) == ["other_vm"]
    machine.purge(1)
    assert cause(2) == ["flush"]
    machine.flush()
    assert cause(2) == ["flush"]
    machine.invalidate(1)
    assert cause(2) == ["invalidation"]
    word, machine.memory[0x4010] = machine.memory[0x4010], 0
    machine.l1[0][0].drop(lambda entry: True, "flush")
    machine.l2.drop(lambda entry: True, "flush")
    with pytest.raises(naive.PageFault):
        read(machine, 2)
    machine.memory[0x4010] = word
    assert cause(2) == ["flush"]  # lost before the fault
    assert sum(machine.counters.misses[1].values()) == machine.counters.counts[1]["WALK"]


def test_without_the_twin_there_are_no_conflicts():
    machine = flat(geometry=Geometry(SINGLE, l2=[Array(2, 1)]))
    for page in (0, 2, 0):
        read(machine, page)
    assert machine.counters.misses[1] == {"first_touch": 2, "capacity": 1}


def test_a_hit_keeps_a_page_in_the_twin():
    """Fully associative 0, 1, 0, 3 keeps 0 and 3; L2's sets keep 0, and 3 after 1."""
    machine = flat(geometry=Geometry(SINGLE, l2=[Array(2, 1)], conflicts=True))
    for page in (0, 1, 0, 3, 2, 0):
        read(machine, page)
    # 2 drops 0, and the twin's oldest is 0 as well after 3
    assert machine.counters.misses[1] == {"first_touch": 4, "capacity": 1}
    machine = flat(geometry=Geometry(SINGLE, l2=[Array(4, 1)], conflicts=True))
    for page in (0, 1, 2, 0, 3, 5, 0, 4, 0):
        read(machine, page)
    # the twin keeps 0 through 3, 5, 0, 4
    assert machine.counters.misses[1] == {"first_touch": 6, "conflict": 1}


def test_a_page_that_only_the_sets_kept_is_back_in_the_twin_with_its_next_hit():
    """Two sets of one way. A fully associative level of two would have loaded 0 again as well."""
    machine = flat(geometry=Geometry(SINGLE, l2=[Array(2, 1)], conflicts=True))
    for page in (0, 1, 3):  # the list of two is 3, 1; the sets have 0 and 3
        read(machine, page)
    read(machine, 0)  # a hit of L2, and the list is 0, 3
    read(machine, 2)  # in the place of 0: 2, 0
    read(machine, 0)
    assert machine.counters.misses[1] == {"first_touch": 4, "conflict": 1}


def test_level_1_is_the_last_for_what_level_2_does_not_hold():
    machine = flat(geometry=Geometry([[ONE], [ONE]]))
    for page in (0, 1, 0):
        read(machine, page)
    machine.access((1, 0), 0, FETCH)  # the other side never had it
    assert machine.counters.misses[1] == {"first_touch": 3, "capacity": 1}


def test_pieces_of_a_large_page_are_touched_first_one_by_one():
    geometry = Geometry([[Array(4, 4)], [Array(4, 4)]])
    trace = [(page * KIB4, READ) for page in (0, 1, 0)]
    result = replay(trace, geometry, guest="2m", nested="2m").run()
    assert result["misses"][1] == {"first_touch": 2}


# ---- loads of CR3 -------------------------------------------------------------------------------


def test_a_load_of_cr3_has_its_cost():
    vm = naive.VmSettings([(0, 0, 0, READ), (1, 0, 0, READ), (0, 0, 0, READ)])
    costs = FREE | {"cr3_load": 200}
    result = naive.Replay(naive.Settings(Geometry(SINGLE), [vm], costs=costs)).run()
    assert result["counts"][1]["CR3_LOAD"] == 2
    assert result["cycles"][1] == {"base": 3, "cr3_load": 400}


def test_a_space_change_without_pcid_is_a_flush():
    trace = [(0, 0, 0, READ), (1, 0, 0, READ), (0, 0, 0, READ)]
    run = naive.Settings(Geometry([[BIG], [BIG]]), [naive.VmSettings(trace, pcid=False)])
    assert naive.Replay(run).run()["misses"][1] == {"first_touch": 2, "flush": 1}
