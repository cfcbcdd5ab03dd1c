"""Results: figures worked out by hand, files that load again, files that are refused."""

import csv
import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from handmade import comparison, config, result
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from mmu.errors import InputError
from mmu.files import csv_text, write_whole
from mmu.result import (
    CAUSES,
    HYPERVISOR,
    LEVELS,
    METRICS,
    SHARES,
    TOTAL,
    Comparison,
    Result,
    load,
    long_table,
)

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


def test_a_result_loads_as_it_was_saved(tmp_path):
    RUN.save(tmp_path / "r.json")
    loaded = Result.load(tmp_path / "r.json")
    assert loaded == RUN
    assert loaded.wall_seconds == RUN.wall_seconds
    assert loaded.references[0] == {4: 20, 24: 10}
    assert load(tmp_path / "r.json") == RUN
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_comparison_loads_as_it_was_saved_in_its_order(tmp_path):
    saved = comparison(("flush", "native", "tagged"))
    saved.save(tmp_path / "c.json")
    loaded = load(tmp_path / "c.json")
    assert loaded == Comparison.load(tmp_path / "c.json") == saved
    assert list(loaded.results) == ["flush", "native", "tagged"]
    assert loaded["flush"].vms == loaded.vms == ["web", "db"]


def test_files_hold_the_figures_for_other_readers(tmp_path):
    RUN.save(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["metrics"]["web"]["hit_rate.l2"] == 0.5
    assert document["metrics"]["total"]["hit_rate.nested_tlb"] == 0.75
    assert document["version"] == 1


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    counters = RUN.counters | {"walks": np.array([25, 20, 3, 0])}
    dataclasses.replace(RUN, counters=counters).save(tmp_path / "r.json")
    assert Result.load(tmp_path / "r.json") == RUN


def damage(path, change):
    RUN.save(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=2), "found version 2; accepted: up to 1; a newer mmu reads"),
        (lambda d: d.update(version="1"), "found version '1'"),
        (lambda d: d.update(format="perf"), "found format 'perf'; accepted: mmu-result"),
        (lambda d: d.pop("format"), "found format None; accepted: mmu-result"),
        (lambda d: d.pop("cycles"), "cycles: missing; the file is not a whole result"),
        (lambda d: d.update(cycle={}), "cycle: no such field; did you mean 'cycles'"),
        (lambda d: d.update(vms=[]), r"vms: found \[\]; accepted: a list of names"),
        (lambda d: d.update(vms="web"), "vms: found 'web'"),
        (lambda d: d["counters"]["walks"].pop(), "counters: found .*2 virtual machines"),
        (lambda d: d["counters"].pop("walks"), "counters: found"),
        (lambda d: d["counters"].update(walks=[1, 2, 3, -1]), "counters: found"),
        (lambda d: d["counters"].update(walks=[1, 2, 3, 0.5]), "counters: found"),
        (lambda d: d["cycles"].pop("base"), "cycles: found"),
        (lambda d: d.update(hits=[]), "hits: found"),
        (lambda d: d.update(clock=-1), "clock: found -1"),
        (lambda d: d["references"].pop(), "references: found"),
        (lambda d: d["references"][0].update(x=1), "references: found"),
        (lambda d: d.update(references=[1, 2, 3, 4]), "references: found"),
        (lambda d: d["evictions"][1].pop(), "evictions: found"),
        (lambda d: d["series"]["walks"]["web"].pop(), "series: found"),
        (lambda d: d["series"].pop("walks"), "series: found"),
        (lambda d: d["series"].update(walks=5), "series: found"),
        (lambda d: d.update(series=5), "series: found 5"),
        (lambda d: d.update(memory={"tables": [1, 2]}), "memory: found"),
        (lambda d: d.update(mode=5), "mode: found 5"),
        (lambda d: d.update(wall_seconds="1"), "wall_seconds: found '1'"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_with_its_place(tmp_path, change, message):
    path = tmp_path / "r.json"
    damage(path, change)
    with pytest.raises(InputError, match=message) as caught:
        Result.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_result_without_samples_loads(tmp_path):
    damage(tmp_path / "r.json", lambda d: d.update(series={}))
    assert Result.load(tmp_path / "r.json").tables()["series"].rows == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1, 2]", "found format None"),
        (b"PAR1\xff\xfe", "not text"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "r.json")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        load(tmp_path / "r.json")
    with pytest.raises(InputError, match=r"cannot read .*directory"):
        load(tmp_path)


def test_a_comparison_is_no_result_and_its_parts_are_looked_at(tmp_path):
    path = tmp_path / "c.json"
    comparison().save(path)
    with pytest.raises(InputError, match="found format 'mmu-comparison'; accepted: mmu-result"):
        Result.load(path)
    document = json.loads(path.read_text())
    for results, message in [
        ({}, "found no results"),
        ({"tagged": 5}, "results.tagged: found 5; accepted: a table"),
        ({"tagged": {"version": 1}}, "tagged: mode: missing"),
    ]:
        path.write_text(json.dumps(document | {"results": results}))
        with pytest.raises(InputError, match=message):
            Comparison.load(path)
    document["results"]["flush"]["vms"] = ["web", "other"]
    series = document["results"]["flush"]["series"]
    for name in ("accesses", "walks", "cycles"):
        series[name]["other"] = series[name].pop("db")
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="other virtual machines in other modes"):
        Comparison.load(path)


def test_tables_have_a_row_for_each_machine_or_row():
    tables = RUN.tables()
    assert tables["cycles"].columns == ["vm", *CAUSES]
    assert [row[0] for row in tables["counters"].rows] == RUN.rows
    assert [row[0] for row in tables["metrics"].rows] == ["web", "db", "total"]
    assert tables["references"].rows[:3] == [["web", 4, 20], ["web", 24, 10], ["db", 1, 20]]
    assert tables["evictions"].columns == ["by", "web", "db", "hypervisor"]
    assert tables["evictions"].rows[2] == ["hypervisor", 7, 8, 9]
    assert tables["series"].rows[1] == [0, 2000, "db", 250, 10, 500]
    assert tables["memory"].rows[2] == ["hypervisor", 0, 0, 3]


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


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_text("before")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"cannot write .*out.json': No space left on device"):
        RUN.save(path)
    assert os.listdir(tmp_path) == ["out.json"]
    assert path.read_text() == "before"


def test_a_link_is_followed_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "there" / "out.json")
    write_whole(tmp_path / "link.json", "text")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "there" / "out.json").read_text() == "text"
    reader, writer = os.pipe()
    write_whole(f"/dev/fd/{writer}", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)


def test_a_file_in_no_folder_or_over_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        RUN.save(tmp_path / "none" / "out.json")
    with pytest.raises(InputError, match="cannot write"):
        RUN.save(tmp_path)


@given(st.dictionaries(st.sampled_from(["web", "db"]), st.integers(0, 10**15)), st.data())
def test_counts_of_any_size_survive_a_file(tmp_path_factory, sizes, data):
    path = tmp_path_factory.mktemp("r") / "r.json"
    walks = data.draw(st.lists(st.integers(0, 2**62), min_size=4, max_size=4))
    big = dataclasses.replace(RUN, counters=RUN.counters | {"walks": walks}, seeds=sizes)
    big.save(path)
    assert Result.load(path) == big


def test_levels_and_configurations_are_complete():
    assert set(LEVELS) == {name.split(".")[1] for name in METRICS if name.startswith("hit_rate")}
    assert RUN.config == config().expanded()
