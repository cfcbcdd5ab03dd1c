"""The naive model against numbers worked out by hand from the manuals' rules."""

import random
from dataclasses import replace

import naive
import pytest
from naive import K4, M2, READ, WRITE, Array, Cache, Geometry, Replay, Settings, VmSettings

KIB4, MIB2, GIB, GIB512 = 1 << 12, 1 << 21, 1 << 30, 1 << 39
ONE = Array(1, 1, (K4, M2))  # holds one page of any size
BIG = Array(1024, 1024, (K4, M2))
SINGLE = [[ONE], [ONE]]  # a level 1 that forgets every page but the last


def replay(trace, geometry=None, guest="4k", nested="4k", **settings):
    vm = VmSettings([(0, 0, gva, kind) for gva, kind in trace], 16 << 20, guest, nested)
    return Replay(Settings(geometry or Geometry(SINGLE), [vm], **settings))


def reads(*pages):
    return [(page, READ) for page in pages]


# ---- references of a walk -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "nested", "references"),
    [("4k", "4k", 24), ("4k", "2m", 19), ("2m", "4k", 19), ("2m", "2m", 15)],
)
def test_a_nested_walk_without_caches_makes_g_plus_1_times_n_plus_1_minus_1_references(
    guest, nested, references
):
    assert replay(reads(0), guest=guest, nested=nested).run()["histogram"][1] == {references: 1}


@pytest.mark.parametrize(("guest", "references"), [("4k", 4), ("2m", 3)])
def test_a_native_walk_makes_one_reference_a_level(guest, references):
    result = replay(reads(0), guest=guest, mode="native").run()
    assert result["histogram"][1] == {references: 1}
    assert "NESTED_LOOKUP" not in result["counts"][1]


@pytest.mark.parametrize(
    ("walk", "name", "distance", "references"),
    [
        ([BIG, None, None], "pde", KIB4, 5),
        ([None, BIG, None], "pdpte", MIB2, 10),
        ([None, None, BIG], "pml4e", GIB, 15),
        ([BIG, BIG, BIG], "pde", KIB4, 5),
        ([ONE, BIG, BIG], "pdpte", MIB2, 10),
        ([ONE, ONE, BIG], "pml4e", GIB, 15),
    ],
)
def test_a_walk_cache_hit_leaves_g_levels_of_five_references(walk, name, distance, references):
    result = replay(reads(0, distance, 0), Geometry(SINGLE, walk=walk)).run()
    assert result["histogram"][1] == {24: 2, references: 1}
    assert result["hits"][1] == {name: 2}  # the second page's walk that faulted, and the last one


def test_a_page_fault_drops_the_walk_caches_entries_of_its_address():
    """The walk after it begins at the root; the walk cache keeps what other addresses use."""
    walk = [BIG, BIG, BIG]
    result = replay(reads(0, MIB2, 0, MIB2), Geometry(SINGLE, walk=walk)).run()
    assert result["histogram"][1] == {24: 2, 5: 2}
    assert result["hits"][1] == {"pdpte": 1, "pde": 2}


def test_no_walk_cache_helps_in_another_512_gib():
    result = replay(reads(0, GIB512), Geometry(SINGLE, walk=[BIG] * 3)).run()
    assert result["histogram"][1] == {24: 2}


def test_a_pde_hit_and_a_nested_tlb_hit_leave_one_reference():
    """The root's nested page is cached by the walk that faults: 20 instead of 24 at first.

    The second page's fault drops the PDE, and leaves the nested pages of the tables: 4 and 4.
    """
    geometry = Geometry(SINGLE, walk=[BIG, None, None], nested=BIG)
    result = replay(reads(0, KIB4, 0), geometry).run()
    assert result["histogram"][1] == {20: 1, 8: 1, 1: 1}


def test_one_nested_2m_page_holds_tables_and_data():
    geometry = Geometry(SINGLE, walk=[BIG, None, None], nested=BIG)
    result = replay(reads(0, KIB4, 0), geometry, nested="2m").run()
    assert result["histogram"][1] == {4: 2, 1: 1}


def test_a_write_through_a_clean_nested_tlb_entry_walks_the_nested_table_again():
    geometry = Geometry(SINGLE, walk=[BIG, None, None], nested=BIG)
    result = replay([(0, READ), (0, WRITE), (0, WRITE)], geometry).run()
    assert result["histogram"][1] == {20: 1, 5: 1}
    assert result["counts"][1]["DIRTY_WALK"] == 1
    assert result["hits"][1]["l1.data.0.4k"] == 2


# ---- tables made by hand ------------------------------------------------------------------------

# Nested: 0x1000 -> 0x2000 -> 0x3000; its entry 0 -> 0x4000, which maps the guest's table pages
# 0x1000..0x4000 to 0x11000..0x14000; its entry 1 maps the gpas 2M..4M to the machine's 4M..6M.
# Guest: tables 0x1000, 0x2000, 0x3000, 0x4000; the gva 0 is the gpa 0x205000.


def made_by_hand(guest_leaf=0x7, data_rights=0x7, geometry=None, **settings):
    memory = {
        0x1000: 0x2007,
        0x2000: 0x3007,
        0x3000: 0x4007,
        0x3008: 0x400000 | 0x80 | 0x30 | data_rights,
        0x4008: 0x11037,
        0x4010: 0x12037,
        0x4018: 0x13037,
        0x4020: 0x14037,
        0x11000: 0x2007,
        0x12000: 0x3007,
        0x13000: 0x4007,
        0x14000: 0x205000 | guest_leaf,
    }
    return naive.Machine(
        geometry or Geometry(SINGLE),
        memory,
        roots={(1, 0): 0x1000},
        nested_roots={1: 0x1000},
        **settings,
    )


def test_guest_tables_on_4k_pages_and_data_on_2m_make_23_references():
    machine = made_by_hand()
    machine.access((1, 0), 0x123, READ)
    assert machine.counters.histogram[1] == {23: 1}
    assert machine.counters.counts[1]["GUEST_REFERENCE"] == 4
    assert machine.counters.counts[1]["NESTED_REFERENCE"] == 19


def test_a_nested_2m_page_takes_offset_bits_from_the_guest_physical_address():
    machine = made_by_hand()
    assert machine.access((1, 0), 0x123, READ) == 0x405123
    (entry,) = machine.l1[0][0].entries()
    assert (entry.size, entry.page, entry.frame) == (K4, 0, 0x405000)
    assert machine.access((1, 0), 0x456, READ) == 0x405456
    assert machine.counters.hits[1] == {"l1.data.0.4k": 1}


def test_a_read_sets_accessed_everywhere_and_dirty_where_guest_tables_lie():
    machine = made_by_hand()
    machine.access((1, 0), 0, READ)
    memory = machine.memory
    assert [memory[at] for at in (0x11000, 0x12000, 0x13000)] == [0x2027, 0x3027, 0x4027]
    assert memory[0x14000] == 0x205027
    assert [memory[at] for at in (0x1000, 0x2000, 0x3000)] == [0x2107, 0x3107, 0x4107]
    assert memory[0x4008] == 0x11337
    assert memory[0x3008] == 0x4001B7
    assert machine.counters.counts[1]["UPDATE"] == 4 + 3 + 4 + 1


def test_a_write_sets_dirty_in_both_leaves_with_one_store_each():
    machine = made_by_hand()
    machine.access((1, 0), 0, WRITE)
    assert machine.memory[0x14000] == 0x205067
    assert machine.memory[0x3008] == 0x4003B7
    assert machine.counters.counts[1]["UPDATE"] == 12


def test_without_nested_dirty_bits_no_nested_entry_changes():
    machine = made_by_hand(nested_dirty=False)
    machine.access((1, 0), 0, WRITE)
    assert machine.memory[0x4008] == 0x11037
    assert machine.memory[0x3008] == 0x4000B7
    assert machine.counters.counts[1]["UPDATE"] == 4


def test_a_guest_protection_fault_leaves_the_leaf_untouched_but_not_the_tables():
    machine = made_by_hand(guest_leaf=0x5)
    with pytest.raises(naive.PageFault) as caught:
        machine.access((1, 0), 0, WRITE)
    assert caught.value.protection
    assert machine.memory[0x13000] == 0x4027
    assert machine.memory[0x14000] == 0x205005
    assert machine.counters.counts[1]["FAULT_WALK"] == 1
    assert machine.counters.histogram[1] == {}


def test_a_nested_violation_of_the_data_page_comes_after_the_guests_dirty_bit():
    machine = made_by_hand(data_rights=0x5)
    with pytest.raises(naive.NestedFault) as caught:
        machine.access((1, 0), 0x18, WRITE)
    assert (caught.value.gpa, caught.value.protection) == (0x205018, True)
    assert machine.memory[0x14000] == 0x205067
    assert machine.memory[0x3008] == 0x4000B5


def test_a_user_may_not_read_a_supervisor_page_but_the_supervisor_may():
    machine = made_by_hand(guest_leaf=0x3)
    with pytest.raises(naive.PageFault):
        machine.access((1, 0), 0, READ)
    assert machine.access((1, 0), 0, naive.SUPERVISOR + READ) == 0x405000


def test_an_execute_disabled_page_may_be_read_and_not_fetched():
    machine = made_by_hand(guest_leaf=0x7 | 1 << 63)
    assert machine.access((1, 0), 0, READ) == 0x405000
    with pytest.raises(naive.PageFault):
        machine.access((1, 0), 0, naive.FETCH)


@pytest.mark.parametrize("table", [0x11000, 0x12000, 0x13000])
def test_one_read_only_guest_entry_makes_the_page_read_only(table):
    machine = made_by_hand(geometry=Geometry(SINGLE, walk=[BIG, None, None]))
    machine.memory[table] ^= naive.WRITABLE
    machine.access((1, 0), 0, READ)
    for _ in range(
        2
    ):  # the first walk takes the rights from the PDE cache, and its fault drops them
        with pytest.raises(naive.PageFault):
            machine.access((1, 0), 0, WRITE)
        assert machine.counters.hits[1] == {"pde": 1}


@pytest.mark.parametrize("table", [0x1000, 0x2000])
def test_one_read_only_nested_entry_makes_the_guests_tables_unreachable(table):
    """With dirty bits every use of a guest table is a write; without them it is a read."""
    machine = made_by_hand()
    machine.memory[table] ^= naive.NESTED_WRITE
    with pytest.raises(naive.NestedFault) as caught:
        machine.access((1, 0), 0, READ)
    assert (caught.value.gpa, caught.value.protection) == (0x1000, True)
    machine.nested_dirty = False
    assert machine.access((1, 0), 0, READ) == 0x405000


def test_an_entrys_rights_and_dirty_state_are_the_and_of_both_dimensions():
    machine = made_by_hand(guest_leaf=0x47, data_rights=0x5)
    machine.access((1, 0), 0, READ)
    (found,) = machine.l1[0][0].entries()
    assert found.rights == naive.MAY_READ | naive.MAY_EXECUTE | naive.MAY_USER
    assert not found.dirty
    machine = made_by_hand(guest_leaf=0x47, data_rights=0x7 | naive.NESTED_DIRTY)
    machine.access((1, 0), 0, READ)
    assert machine.l1[0][0].entries()[0].dirty


# ---- caches -------------------------------------------------------------------------------------


def entry(page, tag=1, size=K4):
    return naive.Entry(tag, size, page, page * KIB4, naive.ALL_RIGHTS)


def test_the_least_recently_used_entry_leaves_and_a_look_up_is_a_use():
    cache = Cache(Array(2, 2))
    assert cache.fill(entry(0)) is None
    assert cache.fill(entry(1)) is None
    assert cache.look_up(1, 0) == entry(0)
    assert cache.fill(entry(2)) == entry(1)
    assert [e.page for e in cache.entries()] == [2, 0]


def test_a_fill_of_a_page_that_is_there_replaces_its_own_copy_and_drops_nothing():
    cache = Cache(Array(2, 2))
    cache.fill(entry(0))
    cache.fill(entry(1))
    assert cache.fill(entry(0)) is None
    assert [e.page for e in cache.entries()] == [0, 1]


def test_a_full_set_does_not_use_the_ways_of_another():
    cache = Cache(Array(4, 2))
    assert cache.fill(entry(0)) is None
    assert cache.fill(entry(2)) is None
    assert cache.fill(entry(4)) == entry(0)
    assert cache.fill(entry(1)) is None


def test_the_xor_index_folds_the_high_bits_of_the_page_number_in():
    cache = Cache(Array(1536, 12, fold=7))
    assert cache.set_of(0x80) is cache.sets[1]
    assert cache.set_of(0x81) is cache.sets[0]


def test_two_sizes_share_the_ways_but_each_uses_its_own_page_number():
    cache = Cache(Array(2, 1, (K4, M2)))
    cache.fill(entry(1, size=M2))
    assert cache.look_up(1, 0x2FF000).size == M2
    assert cache.fill(entry(1)) == entry(1, size=M2)


def test_a_tag_keeps_the_same_page_of_two_owners_apart():
    cache = Cache(Array(2, 2))
    cache.fill(entry(0, tag=1))
    assert cache.look_up(2, 0) is None


@pytest.mark.parametrize(
    ("guest", "nested", "size"),
    [("4k", "4k", "4k"), ("4k", "2m", "4k"), ("2m", "4k", "4k"), ("2m", "2m", "2m")],
)
def test_the_tlb_holds_the_smaller_of_the_two_page_sizes(guest, nested, size):
    result = replay(reads(0, 0), guest=guest, nested=nested).run()
    assert result["hits"][1] == {f"l1.data.0.{size}": 1}


def test_a_page_that_level_1_forgot_is_found_in_level_2():
    result = replay(reads(0, KIB4, 0), Geometry(SINGLE, l2=[BIG])).run()
    assert result["l1_misses"][1] == [3, 0]
    assert result["hits"][1] == {"l2.0.4k": 1}
    assert result["counts"][1]["L2_LOOKUP"] == 2 + 2 + 1  # faults look twice
    assert result["counts"][1]["WALK"] == 2


def test_a_write_through_a_clean_level_2_entry_is_a_hit_and_a_dirty_walk():
    result = replay([*reads(0, KIB4), (0, WRITE)], Geometry(SINGLE, l2=[BIG])).run()
    assert result["l1_misses"][1] == [3, 0]
    assert result["hits"][1] == {"l2.0.4k": 1}
    assert result["counts"][1]["DIRTY_WALK"] == 1


def test_a_write_through_a_clean_level_1_entry_does_not_ask_level_2():
    result = replay([(0, READ), (0, WRITE), (0, WRITE)], Geometry(SINGLE, l2=[BIG])).run()
    assert result["l1_misses"][1] == [1, 0]
    assert result["hits"][1] == {"l1.data.0.4k": 2}
    assert result["counts"][1]["L2_LOOKUP"] == 2
    assert result["counts"][1]["DIRTY_WALK"] == 1


def test_a_large_page_is_broken_up_for_a_level_1_that_holds_small_ones_only():
    geometry = Geometry([[Array(4, 4)], [Array(4, 4)]], l2=[BIG])
    result = replay(reads(0, KIB4, KIB4), geometry, guest="2m", nested="2m").run()
    assert result["counts"][1]["WALK"] == 1
    assert result["hits"][1] == {"l2.0.2m": 1, "l1.data.0.4k": 1}


def test_each_piece_of_a_large_page_keeps_its_own_address():
    run = replay(reads(0), Geometry([[Array(4, 4)], [Array(4, 4)]]), guest="2m", nested="2m")
    first = run.access(1, 0, 0, READ)
    for _ in ("walked", "found"):
        assert run.access(1, 0, 3 * KIB4 + 8, READ) == first + 3 * KIB4 + 8


def test_the_eviction_matrix_says_who_dropped_whose_entry():
    vms = [VmSettings([(0, 0, 0, READ), (0, 0, KIB4, READ)], 4 << 20) for _ in (1, 2)]
    run = Replay(Settings(Geometry(SINGLE, l2=[ONE]), vms, exit_code_pages=1, exit_data_pages=1))
    result = run.run()
    assert result["evictions"] == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    run.exit(1)
    assert run.result()["evictions"][3] == [0, 0, 1, 1]


# ---- frames and tables --------------------------------------------------------------------------


def test_small_frames_fill_broken_regions_first_and_whole_ones_in_ascending_order():
    pool = naive.FramePool(0, 4 * MIB2, taken=[(2, 1), (0, 0)])
    assert pool.small() == KIB4
    assert pool.large() == MIB2
    assert [pool.small() for _ in range(510)] == [KIB4 * i for i in range(2, 512)]
    assert [pool.small(), pool.small()] == [2 * MIB2, 2 * MIB2 + 2 * KIB4]
    for _ in range(509):
        pool.small()
    assert pool.small() == 3 * MIB2
    with pytest.raises(naive.OutOfMemory):
        pool.large()


def test_the_pager_takes_a_frame_for_each_table_and_then_one_for_the_page():
    words = replay(reads(0)).run()["guest_words"][1, 0]
    assert words == {(4, 0): 0x2027, (3, 0): 0x3027, (2, 0): 0x4027, (1, 0): 0x5027}


def test_an_auto_region_with_a_small_page_stays_small():
    run = replay(reads(0, MIB2), guest="auto")
    run.pools[1].whole.clear()
    run.access(1, 0, 0, READ)
    run.pools[1].whole.append(1)
    run.access(1, 0, KIB4, READ)
    run.access(1, 0, MIB2, READ)
    words = run.guest[1, 0].words()
    assert words[1, KIB4] & naive.FRAME == 0x6000
    assert words[2, MIB2] & (naive.FRAME | naive.LARGE) == MIB2 | naive.LARGE


def test_a_2m_policy_without_a_whole_frame_is_out_of_memory():
    run = replay(reads(0), guest="2m")
    run.pools[1].whole.clear()
    with pytest.raises(naive.OutOfMemory):
        run.run()


def test_the_roots_memory_is_mapped_one_to_one_outside_the_reserve():
    root = VmSettings([(0, 0, 0x7000, WRITE)], nested_pages="4k")
    result = Replay(Settings(Geometry(SINGLE), [], root=root, reserve=4 << 20)).run()
    words = result["nested_words"][0].items()
    leaves = {gpa: word & naive.FRAME for (level, gpa), word in words if level == 1}
    assert leaves == {gpa: gpa for gpa in range(4 << 20, (4 << 20) + 5 * KIB4, KIB4)}


# ---- faults and exits ---------------------------------------------------------------------------


def test_first_touch_takes_a_nested_fault_for_each_table_page_and_the_data_page():
    """The root; three tables that the pager writes; the data."""
    result = replay(reads(0), backing="first-touch").run()
    counts = result["counts"]
    assert counts[1]["GUEST_FAULT"] == 1
    assert counts[1]["NESTED_FAULT"] == counts[1]["EXIT"] == 5
    assert counts[1]["FAULT_WALK"] == 3
    assert counts[3]["ACCESS"] == 5 * 16


def test_first_touch_of_a_2m_nested_page_is_one_fault():
    counts = replay(reads(0), nested="2m", backing="first-touch").run()["counts"]
    assert counts[1]["NESTED_FAULT"] == counts[1]["EXIT"] == 1
    assert counts[1]["FAULT_WALK"] == 2


def test_memory_backed_from_the_start_never_exits():
    counts = replay(reads(0)).run()["counts"]
    assert "EXIT" not in counts[1]
    assert counts[3] == {}


def test_the_hypervisor_walks_its_own_tables_and_dirties_every_other_data_page():
    run = replay(reads(0), exit_code_pages=1, exit_data_pages=2)
    run.run()
    run.exit(1)
    assert run.counters.histogram[3] == {4: 3}
    words = run.hypervisor.words()
    first = (naive.HYPERVISOR_DATA + 2 * KIB4) % (1 << 48)  # after the root's two, if it had any
    assert words[1, first] & 0xFFF == 0x23
    assert words[1, first + KIB4] & 0xFFF == 0x63


def test_without_tags_the_hypervisor_and_the_guest_start_cold_after_an_exit():
    big = Geometry([[BIG], [BIG]], walk=[BIG] * 3)
    for mode, walks in (("tagged", 4), ("purge", 4), ("flush", 8)):
        run = replay(reads(0), big, mode=mode, exit_code_pages=2, exit_data_pages=2)
        run.run()
        run.exit(1)
        run.exit(1)
        # data page 1 is written at once, so nothing is walked twice but after a flush
        assert run.counters.counts[3]["WALK"] == walks
        run.access(1, 0, 0, READ)
        assert run.counters.counts[1]["WALK"] == (2 if mode == "flush" else 1)


# ---- time ---------------------------------------------------------------------------------------


def test_the_cycles_of_one_native_access_are_exact():
    """A fault at the root entry, then 4 references and 4 accessed bits."""
    result = replay(reads(0), Geometry(SINGLE, l2=[BIG]), mode="native").run()
    assert result["cycles"][1] == {
        "base": 1,
        "l2": 2 * 9,
        "walk_cache": 2,
        "guest_table": 5 * 14,
        "update": 4 * 20,
        "guest_fault": 1000,
    }
    assert result["clock"] == 1171


def test_a_block_ends_after_4096_accesses_and_where_space_or_thread_changes():
    trace = [(0, 0, 0, READ)] * 5000 + [(0, 1, 0, READ)] + [(1, 1, 0, READ)] * 2
    assert [len(block) for block in naive.blocks(trace)] == [4096, 904, 1, 2]


FREE = dict.fromkeys(naive.COSTS, 0) | {"base": 1}


def test_timer_exits_are_taken_at_block_ends_and_push_the_clock():
    """Due at 4096: 1000..4000. At 8592: 5000..8000. At 13088: 9000..13000."""
    run = replay(
        reads(0) * 3 * 4096,
        exit_interval=1000,
        exit_code_pages=0,
        exit_data_pages=0,
        costs=FREE | {"exit": 100},
    )
    result = run.run()
    assert result["counts"][1]["EXIT"] == 4 + 4 + 5
    assert result["clock"] == 3 * 4096 + 1300
    assert run.next_exit == 14000


def test_instructions_are_the_fetches_or_without_any_the_accesses():
    assert replay(reads(0, 0, 0)).run()["counts"][1]["INSTRUCTION"] == 3
    with_a_fetch = [*reads(0, 0, 0), (0, naive.FETCH)]
    assert replay(with_a_fetch).run()["counts"][1]["INSTRUCTION"] == 1


def test_warm_up_ends_at_a_block_end_and_the_clock_goes_on():
    result = replay(reads(0) * 2 * 4096, warm_up=4000, costs=FREE).run()
    assert result["counts"][1] == {"ACCESS": 4096, "INSTRUCTION": 4096}
    assert result["clock"] == 8192


def test_a_repeated_trace_starts_again_with_what_it_left_behind():
    counts = replay(reads(0, 0), repeat=3).run()["counts"][1]
    assert counts["ACCESS"] == 6
    assert counts["WALK"] == 1


@pytest.mark.parametrize(
    ("quantum", "switches"),
    [
        ((1, "accesses"), [2, 1]),  # 1 2 1 2
        ((4097, "accesses"), [1, 0]),  # 1 1 2 2
        ((4096, "instructions"), [2, 1]),
        ((4097, "cycles"), [1, 0]),
    ],
)
def test_a_quantum_ends_at_the_first_block_end_that_reaches_it(quantum, switches):
    vms = [VmSettings([(0, 0, 0, READ)] * 8192, 4 << 20) for _ in (1, 2)]
    result = Replay(Settings(Geometry(SINGLE), vms, quantum=quantum, costs=FREE)).run()
    assert [result["counts"][vm].get("SWITCH", 0) for vm in (1, 2)] == switches


def test_a_vm_alone_goes_on_without_a_switch():
    result = replay(reads(0) * 3 * 4096, quantum=(1, "accesses")).run()
    assert "SWITCH" not in result["counts"][1]


def test_blocks_run_in_the_order_of_the_trace():
    vm = VmSettings([(0, thread, thread * KIB4, READ) for thread in (0, 1, 2)])
    words = Replay(Settings(Geometry(SINGLE), [vm])).run()["guest_words"][1, 0]
    assert [words[1, page * KIB4] & naive.FRAME for page in (0, 1, 2)] == [0x5000, 0x6000, 0x7000]


# ---- whole runs ---------------------------------------------------------------------------------


def random_trace(seed, length=2000):
    draw = random.Random(seed)
    bases = [0x40_0000, 0x7FFF_0000_0000, 0x8000_0000]
    return [
        (
            draw.randrange(2) if i % 100 == 0 else i // 700 % 2,
            0,
            draw.choice(bases) + draw.randrange(8) * KIB4 * draw.choice([1, 300]),
            draw.choice([0, 0, 1, 2]),
        )
        for i in range(length)
    ]


SMALL = Geometry(
    l1=[[Array(8, 4), Array(4, 4, (M2,))], [Array(8, 8), Array(2, 2, (M2,))]],
    l2=[Array(48, 12, (K4, M2), fold=2)],
    walk=[Array(8, 4), Array(2, 2), Array(1, 1)],
    nested=Array(16, 4, (K4, M2)),
)


def random_run(mode, hardware=(), **settings):
    vms = [
        VmSettings(random_trace(1), 64 << 20, "4k", "4k"),
        VmSettings(random_trace(2), 64 << 20, "auto", "auto", broken=[(1, 7), (3, 0)]),
        VmSettings(random_trace(3), 512 << 20, "2m", "auto"),
    ]
    settings = {"quantum": (50, "accesses")} | settings
    geometry = replace(SMALL, **dict(hardware))
    return Replay(Settings(geometry, vms, mode=mode, host_broken=[(0, 3)], **settings))


def test_purge_and_flush_are_equal_without_exits_and_tags_save_walks():
    tagged, purge, flush = (random_run(mode).run() for mode in ("tagged", "purge", "flush"))
    for what in ("counts", "hits", "l1_misses", "histogram", "evictions", "clock", "memory"):
        assert purge[what] == flush[what]
    assert sum(row["WALK"] for row in tagged["counts"][1:4]) < sum(
        row["WALK"] for row in purge["counts"][1:4]
    )


@pytest.mark.parametrize("backing", ["start", "first-touch"])
@pytest.mark.parametrize("mode", ["tagged", "purge", "flush", "native"])
def test_cycles_by_cause_sum_to_the_clock_and_hits_and_misses_to_the_accesses(mode, backing):
    result = random_run(mode, backing=backing, exit_interval=50_000).run()
    assert sum(sum(vm.values()) for vm in result["cycles"]) == result["clock"]
    for row, counts in enumerate(result["counts"]):
        l1_hits = sum(n for name, n in result["hits"][row].items() if name.startswith("l1"))
        assert l1_hits + sum(result["l1_misses"][row]) == counts.get("ACCESS", 0)
        l2_hits = sum(n for name, n in result["hits"][row].items() if name.startswith("l2"))
        assert l2_hits + counts.get("WALK", 0) == sum(result["l1_misses"][row])
        walks = counts.get("WALK", 0) + counts.get("DIRTY_WALK", 0)
        assert sum(result["histogram"][row].values()) == walks


@pytest.mark.parametrize("backing", ["start", "first-touch"])
@pytest.mark.parametrize("mode", ["tagged", "native"])
def test_every_access_reaches_the_machine_address_that_the_tables_say(mode, backing):
    run = random_run(mode, backing=backing)
    for i in range(1500):
        for vm in (1, 2, 3):
            space, _, gva, kind = run.vm[vm].trace[i]
            maddr = run.access(vm, space, gva, kind)
            gpa = run.guest[vm, space].find(gva)
            assert maddr == (gpa if run.native else run.nested[vm].find(gpa))
