"""How many table reads are left when walk caches and the nested TLB know a part of the way."""

import pytest
from memory_trace import MemoryTrace
from processors_for_tests import array, cache, processor

from mmu.config import RunConfig
from mmu.run import Replay

MIB, PAGE = 1 << 20, 4096
READ, WRITE, FETCH = 0, 1, 2
ALL = {"pde": cache(32, 4), "pdpte": cache(4), "pml4e": cache(4)}


def run(addresses, made_of, kind=READ, **options):
    """The references of each walk that completes, last one first: addresses are read in turn."""
    vm = {"trace": "t", "memory": 256 * MIB, "guest_pages": "4k", "nested_pages": "4k"}
    for name in ("guest_pages", "nested_pages"):
        vm[name] = options.pop(name, vm[name])
    config = RunConfig(processor=made_of, vms=[vm], memory=1024 * MIB, **options)
    trace = [(0, 0, address, kind) for address in addresses]
    return Replay(config, [MemoryTrace(trace)]).run()


def walks(addresses, made_of, **options):
    return run(addresses, made_of, **options).references[0]


FAR = (
    1 << 40
)  # another entry of the root table: the L1 forgets the first page, walk caches keep theirs


@pytest.mark.parametrize(
    ("caches", "references"),
    [({}, 24), ({"pml4e": cache(8)}, 15), ({"pdpte": cache(8)}, 10), ({"pde": cache(8)}, 5)],
)
def test_a_walk_cache_skips_the_levels_above_its_table(caches, references):
    made_of = processor(walk_caches=caches)
    first = walks([0, FAR], made_of)
    again = walks([0, FAR, 0], made_of)
    assert {n: again.get(n, 0) - first.get(n, 0) for n in again if again[n] != first.get(n)} == {
        references: 1
    }


@pytest.mark.parametrize(
    ("caches", "references"),
    [({}, 4), ({"pml4e": cache(8)}, 3), ({"pdpte": cache(8)}, 2), ({"pde": cache(8)}, 1)],
)
def test_native_walks_skip_as_many_levels(caches, references):
    made_of = processor(walk_caches=caches)
    options = {"mode": "native"}
    first = walks([0, FAR], made_of, **options)
    again = walks([0, FAR, 0], made_of, **options)
    assert sum(again.values()) == sum(first.values()) + 1
    assert again[references] == first.get(references, 0) + 1


def test_walk_cache_and_nested_tlb_leave_one_read():
    made_of = processor(walk_caches=ALL, nested_tlb=array(64, 4, "4k", "2m"))
    first, again = (walks([0, FAR, *more], made_of) for more in ([], [0]))
    assert again == first | {1: first.get(1, 0) + 1}


def test_the_longest_match_wins():
    made_of = processor(walk_caches={"pde": cache(1), "pdpte": cache(1), "pml4e": cache(8)})
    result = run([0, FAR, 0], made_of)
    # Each first touch faults once, and its retry finds what the aborted walk left in the caches.
    assert result.hits["pde"][0] + result.hits["pdpte"][0] + result.hits["pml4e"][0] >= 1
    assert result.references[0] == {24: 2, 15: 1}


@pytest.mark.parametrize(
    ("guest", "nested", "references"),
    [("4k", "4k", 24), ("4k", "2m", 19), ("2m", "4k", 19), ("2m", "2m", 15)],
)
def test_a_replay_without_caches_counts_what_each_page_size_costs(guest, nested, references):
    made_of = processor()
    spread = [n << 40 for n in range(8)]
    found = walks(spread, made_of, guest_pages=guest, nested_pages=nested)
    assert found == {references: 8}


@pytest.mark.parametrize(
    ("guest", "nested", "kept"),
    [("4k", "4k", 512), ("4k", "2m", 512), ("2m", "4k", 512), ("2m", "2m", 1)],
)
def test_the_tlb_keeps_the_smaller_of_both_page_sizes(guest, nested, kept):
    """A pass over 2 MiB fills as many entries as the smaller size has pages in it."""
    made_of = processor(
        l1_data=[array(1, 1, "4k"), array(4, 4, "2m")], l2=[array(2048, 8, "4k", "2m")]
    )
    result = run(range(0, 2 * MIB, PAGE), made_of, guest_pages=guest, nested_pages=nested)
    assert result.counters["walks"][0] == kept
    assert sum(result.hits.get("l2.2m", [])) == 0


def test_a_large_page_is_broken_up_in_an_l1_that_holds_none():
    made_of = processor(l1_data=[array(1024, 4)], l2=[array(16, 4, "4k", "2m")])
    result = run(range(0, 2 * MIB, PAGE), made_of, guest_pages="2m", nested_pages="2m")
    assert result.counters["walks"][0] == 1
    assert result.counters["l1_data_misses"][0] == 512
    assert result.hits["l2.2m"][0] == 511


def test_an_l2_without_large_pages_keeps_none():
    made_of = processor(l1_data=[array(1, 1, "4k"), array(1, 1, "2m")], l2=[array(16, 4, "4k")])
    result = run([0, 1 << 30, 0, 1 << 30], made_of, guest_pages="2m", nested_pages="2m")
    assert result.counters["walks"][0] == 4
    assert result.hits["l2.4k"][0] == 0


def test_the_first_write_to_a_clean_page_walks_again_and_counts_as_a_hit():
    made_of = processor(l1_data=[array(4, 4)])
    trace = [(0, 0, 0, READ), (0, 0, 8, WRITE), (0, 0, 16, WRITE), (0, 0, 0, READ)]
    vm = {"trace": "t", "memory": 256 * MIB, "nested_pages": "4k"}
    config = RunConfig(processor=made_of, vms=[vm], memory=1024 * MIB)
    result = Replay(config, [MemoryTrace(trace)]).run()
    assert result.counters["dirty_walks"][0] == 1
    assert result.counters["walks"][0] == 1
    assert result.hit_rate("l1_data") == 3 / 4


def test_a_page_written_first_is_dirty_at_once_and_stays_so():
    made_of = processor(l1_data=[array(1, 1)])
    trace = [(0, 0, 0, WRITE), (0, 0, FAR, READ), (0, 0, 0, READ), (0, 0, 0, WRITE)]
    vm = {"trace": "t", "memory": 256 * MIB, "nested_pages": "4k"}
    config = RunConfig(processor=made_of, vms=[vm], memory=1024 * MIB)
    result = Replay(config, [MemoryTrace(trace)]).run()
    assert result.counters["dirty_walks"][0] == 0
    assert result.counters["walks"][0] == 3
