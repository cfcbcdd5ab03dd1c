"""Results: figures worked out by hand, and tables."""

import csv
import dataclasses
import sys

import pytest
from handmade import comparison, config, result, two_processors
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mmu.errors import InputError
from mmu.figures import CAUSES, HYPERVISOR, LEVELS, METRICS, MISSES, SERVED, SHARES, TOTAL
from mmu.files import csv_text, write_whole
from mmu.result import load, long_table

RUN = result()


@pytest.mark.parametrize(
    ("level", "web", "db", "total"),
    [
        ("l1_data", 360 / 400, 400 / 500, 760 / 900),
        ("l1_fetch", 590 / 600, None, 590 / 600),
        ("l2", 25 / 50, 80 / 100, 105 / 150),
        ("pde", 16 / 32, 10 / 20, 26 / 52),  # of walks begun: 25 + 5 + 2, and 20
        ("pdpte", 8 / 16, 0 / 10, 8 / 26),  # of those that the PDE cache missed
        ("pml4e", 2 / 8, 5 / 10, 7 / 18),
        ("nested_tlb", 30 / 40, None, 30 / 40),
    ],
)
def test_a_hit_rate_is_local_to_its_level(level, web, db, total):
    assert RUN.hit_rate(level, "web") == web
    assert RUN.hit_rate(level, "db") == db
    assert RUN.hit_rate(level) == RUN.hit_rate(level, TOTAL) == total


def test_misses_are_per_thousand_instructions():
    assert RUN.misses_per_thousand("l1_data", "web") == 1000 * 40 / 600
    assert RUN.misses_per_thousand("l1_data") == 1000 * 140 / 1100
    assert RUN.misses_per_thousand("l2", "db") == 1000 * 20 / 500
    assert RUN.misses_per_thousand("nested_tlb", "web") == 1000 * 10 / 600
    assert RUN.misses_per_thousand("pml4e", "web") == 1000 * 6 / 600


def test_what_misses_the_l2_walks():
    for vm in ("web", "db", TOTAL):
        assert RUN.misses_per_thousand("l2", vm) == RUN.walks_per_thousand(vm)


def test_walks_of_machines_and_of_the_hypervisor_are_apart():
    assert RUN.walks_per_thousand("web") == 1000 * 25 / 600
    assert RUN.dirty_walks_per_thousand("web") == 1000 * 5 / 600
    assert RUN.hypervisor_walks_per_thousand("web") == 1000 * 4 / 600
    assert RUN.hypervisor_walks_per_thousand() == 1000 * 4 / 1100
    assert RUN.hypervisor_walks_per_thousand("db") == 0


def test_references_per_walk_are_the_histograms_mean():
    assert RUN.references_per_walk("web") == (20 * 4 + 10 * 24) / 30
    assert RUN.references_per_walk() == (20 * 4 + 10 * 24 + 20) / 50
    assert RUN.references_per_walk(HYPERVISOR) == 5
    assert RUN.references_per_walk("hypervisor for db") is None


def test_every_cycle_is_in_one_share():
    assert RUN.cycle_count(of="web") == 3000
    assert RUN.cycle_count() == RUN.clock == 4000
    assert RUN.cycles_per_instruction("web") == 5
    assert RUN.cycles_per_instruction("db") == 2
    assert RUN.cycles_per_instruction("web", ("exit", "hypervisor")) == 400 / 600
    shares = [RUN.share(kind, "web") for kind in ("base", "translation", "faults", "exits")]
    assert shares == [0.2, 0.5, 0.1, 0.2]
    assert sum(RUN.share(kind) for kind in SHARES) == 1
    assert sorted(CAUSES) == sorted(RUN.cycles)


def test_cycles_of_invalidations_and_migrations_are_exits_and_cr3_loads_translation():
    more = {"shootdown": 10, "invalidation": 20, "migration": 40, "cr3_load": 80}
    cycles = RUN.cycles | {cause: [count, 0] for cause, count in more.items()}
    run = dataclasses.replace(RUN, cycles=cycles)
    assert run.share("exits", "web") == (600 + 70) / 3150
    assert run.share("translation", "web") == (1500 + 80) / 3150
    assert sum(run.share(kind, "web") for kind in SHARES) == pytest.approx(1)


def test_misses_have_a_cause_each():
    for row in RUN.rows:
        assert sum(RUN.misses_by(cause, row) for cause in MISSES) == RUN.count("walks", row)
    assert RUN.misses_by("flush") == 3
    assert RUN.miss_share("first_touch", "web") == 10 / 25
    assert RUN.miss_share("other_vm") == 9 / 45
    assert RUN.miss_share("other_vm", HYPERVISOR) == 2 / 3
    assert RUN.miss_share("flush", "hypervisor for db") is None
    assert RUN.misses_by_per_thousand("invalidation", "web") == 1000 / 600


def test_a_cause_that_was_not_told_has_no_share():
    told = {cause: column for cause, column in RUN.misses.items() if cause != "conflict"}
    run = dataclasses.replace(RUN, misses=told)
    assert run.misses_by("conflict") is run.miss_share("conflict") is None
    assert run.misses_by_per_thousand("conflict") is None
    assert run.miss_share("capacity", "web") == 5 / 23
    with pytest.raises(InputError, match=r"no cause of misses 'conflicts'; .*mean 'conflict'"):
        RUN.miss_share("conflicts")


def test_reads_are_served_by_the_first_level_that_holds_the_line():
    assert RUN.reads_served("l1d", "web") == 160 / 320
    assert RUN.reads_served("l2", "db") == 5 / 20
    assert RUN.reads_served("memory") == 30 / 340
    assert RUN.reads_served("l3", HYPERVISOR) == 0
    assert RUN.reads_served("l3", "hypervisor for db") is None
    assert sum(RUN.reads_served(level) for level in SERVED) == 1
    assert RUN.count("guest.l2", "web") == 30
    without = {where: column for where, column in RUN.reads.items() if "l3" not in where}
    assert dataclasses.replace(RUN, reads=without).reads_served("l3") is None
    assert dataclasses.replace(RUN, reads={}).reads_served("memory") is None
    with pytest.raises(InputError, match="no level that serves reads 'l4'; accepted: l1d, l2, l3"):
        RUN.reads_served("l4")


def test_percentiles_of_walk_latency_are_latencies_of_walks():
    at = {
        p: RUN.walk_latency_percentile(p, "web") for p in (1, 50, 50.1, 90, 90.1, 96.6, 96.7, 100)
    }
    assert at == {1: 20, 50: 20, 50.1: 60, 90: 60, 90.1: 200, 96.6: 200, 96.7: 640, 100: 640}
    assert RUN.walk_latency_percentile(50) == 20  # of 50 walks: 20 of 10 cycles, 15 of 20
    assert RUN.walk_latency_percentile(40) == 10
    assert RUN.walk_latency_percentile(50, "hypervisor for db") is None
    assert RUN.walk_latency_mean("web") == (15 * 20 + 12 * 60 + 2 * 200 + 640) / 30
    assert RUN.metrics("web")["walk_latency.p90"] == 60
    for percent in (0, -1, 100.1, "50", True, None, float("nan")):
        with pytest.raises(InputError, match=r"accepted: a number above 0 and up to 100"):
            RUN.walk_latency_percentile(percent)


@given(st.dictionaries(st.integers(0, 2000), st.integers(1, 9), min_size=1), st.integers(1, 100))
def test_a_percentile_is_that_of_the_sorted_walks(histogram, percent):
    walks = sorted(value for value, n in histogram.items() for _ in range(n))
    run = dataclasses.replace(RUN, walk_latency=[histogram, {}, {}, {}])
    assert run.walk_latency_percentile(percent) == walks[-(-len(walks) * percent // 100) - 1]


def split_l2(arrays):
    """The same counts of a processor whose fetches ask other arrays than loads, or none."""
    processor = RUN.config["processor"] | {"l2_fetch": arrays}
    own = {"l2_fetch.4k": [4, 0, 1, 0]} if arrays else {}
    return dataclasses.replace(
        RUN, config=RUN.config | {"processor": processor}, hits=RUN.hits | own
    )


def test_fetches_ask_an_l2_of_their_own_if_there_is_one():
    run = split_l2([{"entries": 512}])
    assert run.lookups("l2", "web") == 40
    assert run.hit_rate("l2", "web") == 25 / 40  # of 2m and 4k pages, and none of fetches
    assert run.lookups("l2_fetch", "web") == 10
    assert run.hit_rate("l2_fetch", "web") == 4 / 10
    assert run.misses_per_thousand("l2_fetch", "web") == 1000 * 6 / 600


def test_fetches_may_have_no_l2_at_all():
    run = split_l2([])
    assert run.lookups("l2", "web") == 40
    assert run.lookups("l2_fetch", "web") == 0
    assert run.hit_rate("l2_fetch") is run.misses_per_thousand("l2_fetch") is None
    assert RUN.hit_rate("l2_fetch") is None
    assert RUN.lookups("l2", "web") == 50


def test_hits_of_every_array_of_a_level_count():
    run = dataclasses.replace(RUN, hits=RUN.hits | {"l2.1.4k": [5, 0, 0, 0]})
    assert run.level_hits("l2", "web") == 30


def test_the_hypervisors_rows_are_in_no_machines_figure():
    assert RUN.count("accesses") == 1500
    assert RUN.count("accesses", HYPERVISOR) == RUN.count("accesses", "hypervisor for web") == 10
    assert RUN.count("fetches", "hypervisor for web") == 6
    assert RUN.cycles_per_instruction(HYPERVISOR) is None
    assert RUN.rows == ["web", "db", "hypervisor for web", "hypervisor for db"]


def test_a_cache_that_is_not_there_has_no_rate_and_no_misses():
    native = result("native")
    assert native.hit_rate("nested_tlb") is None
    assert native.misses_per_thousand("nested_tlb") is None
    assert native.lookups("nested_tlb") == 0
    unused = dataclasses.replace(native, hits=native.hits | {"nested.4k": [0, 0, 0, 0]})
    assert unused.misses_per_thousand("nested_tlb") is None


def test_without_instructions_nothing_is_divided():
    idle = dataclasses.replace(
        RUN,
        counters={name: [0, 0, 0, 0] for name in RUN.counters},
        hits={name: [0, 0, 0, 0] for name in RUN.hits},
        cycles={cause: [0, 0] for cause in RUN.cycles},
        references=[{}, {}, {}, {}],
        reads={where: [0, 0, 0, 0] for where in RUN.reads},
        misses={cause: [0, 0, 0, 0] for cause in RUN.misses},
        walk_latency=[{}, {}, {}, {}],
    )
    assert set(idle.metrics().values()) == {None}


def test_metrics_have_one_name_each():
    figures = RUN.metrics("web")
    assert list(figures) == list(METRICS)
    assert figures["hit_rate.l2"] == 0.5
    assert figures["cycles_per_instruction"] == 5
    assert figures["share.translation"] == 0.5


def test_unknown_names_name_the_nearest():
    with pytest.raises(InputError, match=r"no event 'walk'; accepted: fetches, .*mean 'walks'"):
        RUN.count("walk")
    with pytest.raises(InputError, match=r"no row 'wep'; accepted: web, db, .*mean 'web'"):
        RUN.count("walks", "wep")
    with pytest.raises(InputError, match=r"no level 'l3'; accepted: l1_data, .*mean 'l2'"):
        RUN.hit_rate("l3")


def test_tables_have_a_row_for_each_machine_or_row():
    tables = RUN.tables()
    assert tables["cycles"].columns == ["vm", *CAUSES]
    assert [row[0] for row in tables["counters"].rows] == RUN.rows
    assert [row[0] for row in tables["metrics"].rows] == ["web", "db", "total"]
    assert tables["references"].rows[:3] == [["web", 4, 20], ["web", 24, 10], ["db", 1, 20]]
    assert tables["misses"].columns == ["row", *RUN.misses]
    assert tables["misses"].rows[0] == ["web", 10, 4, 5, 2, 3, 1]
    assert tables["reads"].columns == ["row", *RUN.reads]
    assert tables["reads"].rows[1] == ["db", 10, 5, 5, 0, 0, 0, 0, 0]
    assert tables["walk_latency"].columns == ["row", "latency", "walks"]
    assert tables["walk_latency"].rows[:2] == [["web", 20, 15], ["web", 60, 12]]
    assert tables["walk_latency"].rows[4:] == [["db", 10, 20], ["hypervisor for web", 30, 4]]
    assert tables["clocks"].rows == [[0, 4000]]
    assert tables["evictions"].columns == ["by", "web", "db", "hypervisor"]
    assert tables["evictions"].rows[2] == ["hypervisor", 7, 8, 9]
    assert tables["series"].rows[1] == [0, 2000, "db", 250, 10, 500]
    assert tables["memory"].rows[2] == ["hypervisor", 0, 0, 3]


def test_cycles_are_told_by_processor_cause_and_machine(tmp_path):
    run = two_processors()
    tables = run.tables()
    assert tables["clocks"].rows == [[0, 3400], [1, 800]]
    table = tables["processors"]
    assert table.columns == ["lp", "vm", *run.cycles]
    assert [row[:2] for row in table.rows] == [[0, "web"], [0, "db"], [1, "web"], [1, "db"]]
    assert [sum(row[2:]) for row in table.rows] == [3000, 400, 0, 800]
    run.save(tmp_path / "r.json")
    assert load(tmp_path / "r.json") == run


def test_a_comparisons_tables_say_the_mode_and_leave_absent_caches_empty():
    table = comparison().tables()["hits"]
    assert table.columns[:2] == ["mode", "row"]
    assert [row[0] for row in table.rows] == [m for m in comparison().results for _ in range(4)]
    nested = table.columns.index("nested.4k")
    assert [row[nested] for row in table.rows][:4] == [20, 0, 3, 0]
    assert [row[nested] for row in table.rows][-4:] == [None] * 4


def test_columns_that_only_a_later_mode_has_are_filled_up():
    table = comparison(("native", "tagged")).tables()["hits"]
    nested = table.columns.index("nested.2m")
    assert [row[nested] for row in table.rows] == [None] * 4 + [10, 0, 0, 0]


def test_the_long_table_has_mode_machine_metric_value(tmp_path):
    write_whole(tmp_path / "c.csv", csv_text(long_table(comparison())))
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["mode", "vm", "metric", "value"]
    values = {tuple(row[:3]): row[3] for row in rows[1:]}
    assert values["purge", "web", "hit_rate.l2"] == "0.5"
    assert values["native", "total", "hit_rate.nested_tlb"] == ""
    assert values["flush", "db", "walks"] == "20"
    assert values["flush", "db", "hits.l2.4k"] == "80"
    assert values["flush", "total", "cycles.guest_table"] == "800"
    assert values["flush", "web", "misses.other_vm"] == "4"
    assert values["flush", "web", "miss_share.other_vm"] == "0.16"
    assert values["flush", "total", "reads.guest.memory"] == "10"
    assert values["flush", "db", "walk_latency.p99"] == "10"


def test_frames_of_pandas_hold_the_tables():
    frames = comparison().to_frames()
    assert set(frames) == set(RUN.tables())
    cycles = frames["cycles"].set_index(["mode", "vm"])
    assert cycles.loc[("tagged", "web"), "nested_table"] == 500
    assert RUN.to_frames()["counters"].set_index("row").loc["web", "walks"] == 25


def test_without_pandas_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"pip install 'mmu\[pandas\]'"):
        RUN.to_frames()


def test_tables_are_written_as_csv_or_parquet(tmp_path):
    written = RUN.write_tables(tmp_path / "csv")
    assert sorted(path.name for path in written) == sorted(f"{n}.csv" for n in RUN.tables())
    comparison().write_tables(tmp_path / "parquet", "parquet")
    table = parquet.read_table(tmp_path / "parquet" / "cycles.parquet")
    assert table["base"].to_pylist()[:2] == [600, 500]
    with pytest.raises(InputError, match=r"found 'xml'; accepted: csv \| parquet"):
        RUN.write_tables(tmp_path, "xml")
    with pytest.raises(InputError, match="cannot make folder"):
        RUN.write_tables(tmp_path / "csv" / "cycles.csv")


def test_an_empty_table_is_written_as_parquet(tmp_path):
    dataclasses.replace(RUN, series={}).write_tables(tmp_path, "parquet")
    assert parquet.read_table(tmp_path / "series.parquet").num_rows == 0


def test_levels_and_configurations_are_complete():
    assert set(LEVELS) == {name.split(".")[1] for name in METRICS if name.startswith("hit_rate")}
    assert RUN.config == config().expanded()
