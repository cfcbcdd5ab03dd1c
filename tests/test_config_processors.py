"""Processors' models, and what a run says of several logical processors: defaults and refusals."""

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processors_for_tests import array, cache, processor

from mmu import units
from mmu.config import (
    Array,
    Cache,
    ConfigError,
    Costs,
    DataCache,
    DataCaches,
    PageWalkCache,
    Processor,
    RunConfig,
    TableReads,
    VmConfig,
)
from mmu.errors import InputError
from mmu.processors import load_processor, notes, unused

DATA = {
    "l1d": {"bytes": "32KiB", "ways": 8, "latency": 4},
    "l2": {"bytes": 1 << 20, "ways": 16, "latency": 14},
    "memory": 270,
}


def run(model=None, **fields):
    return RunConfig(processor=model or processor(), vms=[{"trace": "web.parquet"}], **fields)


def refused(make, *arguments, **fields):
    with pytest.raises(ConfigError) as caught:
        make(*arguments, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_said_of_a_processor_is_one_walker_lru_and_nothing_else():
    plain = processor(l2=[array(8, 4)])
    assert (plain.l1_store, plain.l2_fetch, plain.page_walk_cache) == ((), None, None)
    assert (plain.data_caches, plain.walkers) == (None, 1)
    assert plain.l2[0].replacement == "lru"


def test_what_is_not_said_of_a_run_is_one_processor_that_waits_for_each_walk():
    plain = run()
    assert (plain.lps, plain.pinned, plain.migration_flush) == (1, False, True)
    assert (plain.table_reads, plain.window, plain.conflicts) == ("fixed", 0, False)
    assert (plain.shootdowns_per_second, plain.vms[0].vcpus) == (0, 1)
    costs = Costs()
    assert (costs.cr3_load, costs.shootdown, costs.shootdown_target) == (200, 2000, 500)
    assert (costs.invalidation, costs.migration) == (200, 0)


def test_tables_are_read_through_the_data_caches_that_a_processor_has():
    with_caches = processor(data_caches=DATA)
    assert run(with_caches).table_reads == "walker"
    assert run(with_caches, table_reads="fixed").table_reads == "fixed"
    assert run(with_caches, table_reads="shared").table_reads == "shared"
    for reads in ("walker", "shared"):
        text = refused(run, table_reads=reads)
        assert text == (
            f"table_reads: found '{reads}' with test, which has no data_caches; "
            "accepted: fixed, or a processor that has"
        )
    assert get_args(TableReads) == units.TABLE_READS


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [
        ("lru", range(1, 65)),
        ("tree-plru", {2, 4, 8, 16}),
        ("rotating-plru", {6, 12, 24, 48}),
    ],
)
def test_a_rule_of_replacement_is_for_the_ways_that_its_trees_have(rule, accepted):
    for ways in range(1, 65):
        if ways in accepted:
            assert Cache(entries=4 * ways, ways=ways, replacement=rule).ways == ways
        else:
            text = refused(Cache, entries=4 * ways, ways=ways, replacement=rule)
            listed = " | ".join(map(str, sorted(accepted)))
            assert text == (
                f"replacement: found '{rule}' with {ways} ways; accepted: lru, or ways={listed}"
            )


def test_a_rule_of_replacement_that_there_is_none_of_names_the_nearest():
    text = refused(Cache, entries=8, ways=4, replacement="tree-plur")
    assert text == (
        "replacement: found 'tree-plur'; accepted: lru | tree-plru | rotating-plru; "
        "did you mean 'tree-plru'?"
    )


@pytest.mark.parametrize("level", ["l2", "l2_fetch"])
def test_a_page_size_stands_in_up_to_two_arrays_of_a_second_level(level):
    large, huge = array(8, 4, "4k", "2m"), array(8, 4, "4k", "1g")
    two = getattr(processor(**{level: [huge, large]}), level)
    assert [a.sizes for a in two] == [("4k", "1g"), ("4k", "2m")]  # equal ones as they were given
    text = refused(processor, **{level: [huge, large, array(4, 4)]})
    assert text == (
        f"{level}: found 4k pages in 3 arrays; accepted: each page size in one or two arrays of "
        "a second level"
    )


@pytest.mark.parametrize("level", ["l1_data", "l1_store", "l1_fetch"])
def test_a_page_size_stands_in_one_array_of_a_first_level_which_holds_4k(level):
    text = refused(processor, **{level: [array(8, 4), array(4, 4, "4k", "2m")]})
    assert text.startswith(f"{level}: found 4k pages in 2 arrays; accepted: each page size in one")
    text = refused(processor, **{level: [array(8, 4, "2m")]})
    assert text == f"{level}: found arrays for 2m; accepted: an array that holds 4k, and any others"


def test_stores_without_arrays_of_their_own_use_those_of_loads():
    assert processor(l1_store=[]).l1_store == processor(l1_store=None).l1_store == ()


def test_fetches_may_have_no_second_level_or_share_it():
    assert processor(l2_fetch=[]).l2_fetch == ()
    assert processor(l2_fetch=None).l2_fetch is None


def test_a_page_walk_cache_holds_entries_of_some_levels():
    made = PageWalkCache(entries=24, ways=24, levels=[4, 2, 3], nested=True)
    assert (made.levels, made.nested) == ((2, 3, 4), True)
    for levels, found in (([], r"\[\]"), ([3, 3], r"\[3, 3\]")):
        text = refused(PageWalkCache, entries=24, ways=24, levels=levels, nested=True)
        assert re.search(f"levels: found {found}; accepted: one or more of 2, 3, 4, each", text)
    for level in (1, 5):
        text = refused(PageWalkCache, entries=24, ways=24, levels=[level], nested=True)
        assert text == f"levels.0: found {level}; accepted: a whole number from 2 to 4"
    assert refused(PageWalkCache, entries=24, ways=24, levels=[2], nested=1).startswith("nested: f")
    assert "nested: missing" in refused(PageWalkCache, entries=24, ways=24, levels=[2])


def test_a_data_cache_has_whole_sets_of_lines():
    assert DataCache(bytes="48KiB", ways=12, latency=5).sets == 64
    assert DataCache(bytes=1408 << 10, ways=11, latency=70).sets == 2048  # any number of them
    assert DataCache(bytes=64 * 3 * 5, ways=5, latency=1).sets == 3
    assert refused(DataCache, bytes="32KiB", ways=7, latency=4) == (
        "bytes: found 32KiB with 7 ways; accepted: a multiple of 448 bytes (7 ways of 64-byte "
        "lines); nearest: 32704 or 33152"
    )
    assert "nearest: 512" in refused(DataCache, bytes=64, ways=8, latency=4)
    for size in (63, 0, (512 << 20) + 64):
        assert refused(DataCache, bytes=size, ways=1, latency=4) == (
            f"bytes: found {size}; accepted: 64 bytes to 512MiB"
        )


def test_data_caches_begin_with_that_of_loads_and_end_with_memory():
    caches = DataCaches(**DATA)
    assert (caches.l1i, caches.l3, caches.own_lines) == (None, None, 512 + 16384)
    assert "l1d: missing" in refused(DataCaches, memory=5)
    assert "memory: missing" in refused(DataCaches, l1d=DATA["l1d"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"walkers": 0}, "walkers: found 0; accepted: a whole number from 1 to 16"),
        ({"walkers": 17}, "walkers: found 17; accepted"),
        ({"data_caches": DATA | {"memory": -1}}, "data_caches.memory: found -1; accepted: a whole"),
        ({"data_caches": DATA | {"l4": 1}}, "data_caches.l4: no such field"),
        ({"l2_fetch": 5}, "l2_fetch: found 5; accepted: a list"),
        ({"page_walk_cache": cache(24)}, "page_walk_cache.levels: missing"),
    ],
)
def test_a_processor_that_cannot_be_is_refused(fields, message):
    assert message in refused(processor, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lps": 0}, "lps: found 0; accepted: a whole number from 1 to 256"),
        ({"lps": 257}, "lps: found 257; accepted"),
        ({"pinned": 1}, r"pinned: found 1; accepted: true | false"),
        ({"migration_flush": "no"}, "migration_flush: found 'no'; accepted: true | false"),
        ({"conflicts": 0}, "conflicts: found 0; accepted: true | false"),
        ({"table_reads": "walk"}, "table_reads: found 'walk'; accepted: fixed | walker | shared; d"),
        ({"table_reads": []}, "table_reads: found []; accepted: fixed | walker | shared"),
        ({"window": -1}, "window: found -1; accepted: a whole number from 0 to 65536"),
        ({"window": 65537}, "window: found 65537"),
        ({"shootdowns_per_second": -1}, "shootdowns_per_second: found -1; accepted: a whole"),
        ({"costs": {"migration": -1}}, "costs.migration: found -1"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_is_refused(fields, message):
    assert message in refused(run, **fields)


def test_largest_and_smallest_numbers_are_accepted():
    assert (run(lps=256, window=65536).lps, run(window=65536).window) == (256, 65536)
    assert (processor(walkers=16).walkers, VmConfig(trace="x", vcpus=256).vcpus) == (16, 256)
    assert "vcpus: found 257" in refused(VmConfig, trace="x", vcpus=257)
    assert "vcpus: found 0; accepted: a whole number from 1" in refused(
        VmConfig, trace="x", vcpus=0
    )


def test_more_processors_than_are_kept_in_memory_are_refused():
    large = processor(data_caches=DATA | {"l3": {"bytes": "512MiB", "ways": 16, "latency": 70}})
    own = 1 + 1 + 512 + 16384
    assert large.own_entries == own
    assert run(large, lps=256).lps == 256
    larger = processor(l2=[array(1 << 20, 4)])
    assert run(larger, lps=31).lps == 31
    assert refused(run, larger, lps=32) == (
        f"lps: found 32 with {(1 << 20) + 2} entries and cache lines each; accepted: up to 31 of "
        "such processors"
    )
    l3 = {"bytes": "512MiB", "ways": 16, "latency": 70}
    both = processor(l2=[array(1 << 20, 4)], data_caches=DATA | {"l3": l3})
    assert "accepted: up to 23 of" in refused(run, both, lps=24)


def test_all_that_a_processor_has_for_itself_is_counted():
    whole = processor(
        l1_data=[array(2, 1)], l1_store=[array(3, 1)], l1_fetch=[array(5, 1)], l2=[array(7, 1)],
        l2_fetch=[array(11, 1)], nested_tlb=array(13, 1, "4k", "2m"),
        walk_caches={"pde": cache(17), "pdpte": cache(19), "pml4e": cache(23)},
        page_walk_cache=cache(29) | {"levels": [4], "nested": False},
        data_caches={"l1d": {"bytes": 64 * 31, "ways": 31, "latency": 1},
                     "l1i": {"bytes": 64 * 37, "ways": 37, "latency": 1}, "memory": 9},
    )  # fmt: skip
    assert whole.own_entries == sum((2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37))


def test_shootdowns_that_take_all_time_are_refused_where_there_is_a_hypervisor():
    # One processor of 10^9 cycles a second: an exit, the shootdown, and its own invalidation.
    each = 1400 + 2000 + 200
    most = (10**9 - 1) // each
    assert run(shootdowns_per_second=most).shootdown_cycles == each
    assert refused(run, shootdowns_per_second=most + 1) == (
        f"shootdowns_per_second: found {most + 1}; accepted: 0 to {most}, as a shootdown costs "
        f"each up to {each} cycles and test has 1000000000 a second"
    )
    assert run(shootdowns_per_second=10**9, mode="native").shootdowns_per_second == 10**9
    # Of three, two targets each, and as a target of two others an exit and an invalidation each.
    each += 2 * 500 + 2 * (1400 + 200)
    assert run(lps=3).shootdown_cycles == each
    left = 10**9 - 1000 * 1400
    most = (left - 1) // each
    assert run(lps=3, shootdowns_per_second=most, exits_per_second=1000).lps == 3
    text = refused(run, lps=3, shootdowns_per_second=most + 1, exits_per_second=1000)
    assert text.endswith(
        f"accepted: 0 to {most}, as a shootdown among 3 processors costs each up to {each} cycles "
        f"and test has {left} a second left by exits"
    )


def test_a_run_says_the_same_again_from_its_expanded_form():
    model = processor(
        l1_store=[array(4, 4)], l2=[array(8, 4, "4k", "2m"), array(8, 4, "4k", "1g")],
        l2_fetch=[array(6, 6) | {"replacement": "rotating-plru"}], walkers=2, data_caches=DATA,
        page_walk_cache=cache(24) | {"levels": [2, 3], "nested": True},
    )  # fmt: skip
    made = run(model, lps=2, pinned=True, window=3, conflicts=True, shootdowns_per_second=4)
    expanded = made.expanded()
    assert expanded["table_reads"] == "walker"
    assert expanded["processor"]["data_caches"]["l1d"]["bytes"] == 32768
    assert RunConfig(**expanded) == made


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        (["walkers=4"], lambda p: p.walkers == 4),
        (["l2.replacement=rotating-plru"], lambda p: p.l2[0].replacement == "rotating-plru"),
        (["l1_data.1.replacement=tree-plru"], lambda p: p.l1_data[1].replacement == "tree-plru"),
        (["l1_store=[{entries=16,ways=16,sizes=['4k']}]"], lambda p: p.l1_store[0].entries == 16),
        (["l1_store=none"], lambda p: p.l1_store == ()),
        (["l2_fetch=[]"], lambda p: p.l2_fetch == ()),
        (["l2_fetch=none"], lambda p: p.l2_fetch is None),
        (["page_walk_cache=none"], lambda p: p.page_walk_cache is None),
        (
            ["page_walk_cache={entries=24, ways=24, levels=[2], nested=false}",
             "page_walk_cache.levels=[4, 3]"],
            lambda p: p.page_walk_cache.levels == (3, 4),
        ),
        (
            ["data_caches={l1d={bytes='32KiB', ways=8, latency=4}, memory=200}",
             "data_caches.l1d.latency=5", "data_caches.memory=201"],
            lambda p: (p.data_caches.l1d.latency, p.data_caches.memory) == (5, 201),
        ),
    ],
)  # fmt: skip
def test_a_setting_replaces_one_value_of_the_new_fields(settings, value):
    assert value(load_processor("skylake-sp", settings))


def test_a_rule_that_no_longer_fits_becomes_lru_and_says_so():
    rotating = ["l2.replacement=rotating-plru"]
    assert load_processor("skylake-sp", [*rotating, "l2.ways=6"]).l2[0].replacement == (
        "rotating-plru"
    )
    with pytest.raises(
        ConfigError.__base__, match="found 'rotating-plru' with 8 ways; accepted: l"
    ):
        load_processor("skylake-sp", [*rotating, "l2.ways=8"])


@given(
    st.dictionaries(
        st.sampled_from(["entries", "ways", "index", "replacement", "sizes"]),
        st.one_of(
            st.integers(-1, 9), st.text("lru-plx47", max_size=4), st.none(), st.lists(st.just("4k"))
        ),
    )
)
def test_any_array_is_made_or_refused(fields):
    try:
        made = Array(**fields)
    except ConfigError:
        return
    assert made.sets * made.ways == made.entries


def test_notes_are_what_settings_changed_beside_what_they_name(tmp_path):
    text = "name = 'x'\nfrequency_hz = 1000\nl1_data = [{entries=8, ways=4, sizes=['4k']}]\n"
    text += "l1_fetch = [{entries=12, ways=12, replacement='rotating-plru', sizes=['4k']}]\n"
    text += "[latencies]\nl2=1\nwalk_cache=1\nnested_tlb=1\nreference=1\nupdate=1\n"
    (tmp_path / "x.toml").write_text(text)
    made = load_processor(str(tmp_path / "x.toml"), ["l1_fetch.ways=4"])
    assert isinstance(made, Processor)
    assert made.l1_fetch[0].replacement == "lru"
    assert notes(made) == [
        "l1_fetch.0.replacement: lru instead of rotating-plru, which has 6, 12, 24 or 48 ways"
    ]


READS = "tables are read through data caches; --table-reads fixed uses it"
OWN_LINES = "what programs wait for their own lines is not counted"


@pytest.mark.parametrize(
    ("settings", "fields", "expected"),
    [
        (["latencies.reference=200"], {}, [f"latencies.reference: no effect, as {READS}"]),
        (["latencies.reference=200"], {"table_reads": "fixed"}, []),
        (["latencies.reference=200"], {"table_reads": "shared"},
         [f"latencies.reference: no effect, as {READS}"]),
        (["latencies.reference=200", "data_caches=none"], {}, []),
        (["walkers=4"], {}, ["walkers: no effect, as without a --window each walk is waited for"]),
        (["walkers=4"], {"window": 1}, []),
        (["data_caches.l2.latency=9"], {}, []),
        (["data_caches.l2.latency=9"], {"table_reads": "fixed"},
         ["data_caches.l2.latency: no effect, as with --table-reads fixed none is looked up"]),
        (["data_caches.l1i.latency=9"], {"table_reads": "fixed"},
         ["data_caches.l1i.latency: no effect, as with --table-reads fixed none is looked up"]),
        (["data_caches.l1i.ways=4"], {},
         ["data_caches.l1i.ways: no effect, as only --table-reads shared uses it"]),
        (["data_caches.l1i.latency=9", "data_caches.l1i.ways=4"], {"table_reads": "shared"},
         [f"data_caches.l1i.latency: no effect, as {OWN_LINES}"]),
        (["latencies.l2=9"], {}, []),
        ([], {"table_reads": "fixed"}, []),
    ],
)  # fmt: skip
def test_a_setting_without_effect_on_the_run_is_named(settings, fields, expected):
    assert unused(run(load_processor("zen3", settings), **fields)) == expected


@pytest.mark.parametrize("field", ["name", "title"])
@pytest.mark.parametrize("text", ["two\nlines", "red \x1b[31m"])
def test_names_stand_on_a_line_of_a_report(field, text):
    fields = load_processor("skylake-sp").model_dump(mode="json")
    with pytest.raises(InputError, match=f"{field}: found .*; accepted: printable characters"):
        Processor(**fields | {field: text})


@pytest.mark.parametrize(
    ("lps", "vcpus", "expected"),
    [
        (1, (1, 1), []),
        (3, (2, 1), []),
        (4, (2, 1), ["lps: at most 3 of 4 run at a time, as 3 virtual processors can"]),
        (2, (1, 2), ["vcpus: at most 1 of 2 of db run at a time, as it has 1 trace"]),
        (4, (5, 3), ["vcpus: at most 2 of 5 of web run at a time, as it has 2 traces; and so of 1 more",
                     "lps: at most 3 of 4 run at a time, as 3 virtual processors can"]),
    ],
)  # fmt: skip
def test_more_processors_than_can_run_are_named(lps, vcpus, expected):
    web = {"name": "web", "vcpus": vcpus[0], "processes": [{"trace": "a"}, {"trace": "b"}]}
    db = {"name": "db", "vcpus": vcpus[1], "trace": "c"}
    config = RunConfig(processor=load_processor("zen3"), lps=lps, vms=[web, db])
    assert unused(config) == expected
