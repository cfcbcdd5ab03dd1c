"""Results in files: what is saved loads again, that of older versions too; the rest is refused."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from handmade import comparison, result
from hypothesis import given
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.files import write_whole
from mmu.result import Comparison, Result, load

RUN = result()


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
    assert document["version"] == 2


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    counters = RUN.counters | {"walks": np.array([25, 20, 3, 0])}
    dataclasses.replace(RUN, counters=counters).save(tmp_path / "r.json")
    assert Result.load(tmp_path / "r.json") == RUN


OLD = Path(__file__).parent / "results"


def test_a_result_of_version_1_loads_with_what_it_did_not_tell_left_empty():
    run = load(OLD / "version-1.json")
    assert (run.version, run.mode, run.vms) == (2, "purge", ["web", "db"])
    assert run.count("walks", "web") == 7029
    assert run.clocks == [run.clock] == [sum(map(sum, run.cycles.values()))]
    assert run.processors == [run.cycles]
    assert run.reads == run.misses == {}
    assert run.walk_latency == [{}, {}, {}, {}]
    new = ["entry_hits", "migrations", "shootdowns", "shootdown_targets", "invalidations"]
    assert [run.count(event) for event in new] == [0] * 5
    assert run.cycle_count(("cr3_load", "shootdown", "invalidation", "migration")) == 0
    assert run.metrics()["walk_latency.p50"] is run.miss_share("capacity") is None


def test_figures_of_version_1_are_those_it_was_saved_with():
    saved = json.loads((OLD / "version-1.json").read_text())["metrics"]
    run = load(OLD / "version-1.json")
    for name in ("web", "db", "total"):
        assert run.metrics(name) | saved[name] == run.metrics(name)


def test_a_comparison_of_version_1_loads_and_is_saved_as_version_2(tmp_path):
    run = load(OLD / "version-1-comparison.json")
    assert list(run.results) == ["tagged", "flush"]
    run.save(tmp_path / "c.json")
    assert load(tmp_path / "c.json") == run
    document = json.loads((tmp_path / "c.json").read_text())
    assert [each["version"] for each in (document, *document["results"].values())] == [2] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("vms"), "vms: missing"),
        (lambda d: d.pop("clock"), "clock: missing"),
        (lambda d: d.pop("cycles"), "cycles: missing"),
        (lambda d: d.update(vms=5), "vms: found 5"),
        (lambda d: d.update(clock="x"), "clock: found 'x'"),
        (lambda d: d.update(cycles=[]), r"cycles: found \[\]"),
        (lambda d: d["cycles"].pop("base"), "cycles: found"),
        (lambda d: d.update(counters=None), "counters: found None"),
        (lambda d: d["counters"].pop("walks"), "counters: found"),
    ],
)
def test_a_damaged_file_of_version_1_is_refused_as_one_of_version_2(tmp_path, change, message):
    document = json.loads((OLD / "version-1.json").read_text())
    change(document)
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        load(tmp_path / "r.json")


def damage(path, change):
    RUN.save(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(version=3), "found version 3; accepted: up to 2; a newer mmu reads"),
        (lambda d: d.update(version="1"), "found version '1'"),
        (lambda d: d.update(version=0), "found version 0"),
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
        (lambda d: d["counters"].pop("migrations"), "counters: found"),
        (lambda d: d["cycles"].pop("shootdown"), "cycles: found"),
        (lambda d: d.update(clocks=[]), r"clocks: found \[\]"),
        (lambda d: d.update(clocks=[-1]), r"clocks: found \[-1\]"),
        (lambda d: d.update(clocks=4000), "clocks: found 4000"),
        (lambda d: d["clocks"].append(1), "processors: found"),
        (lambda d: d["processors"][0].pop("base"), "processors: found"),
        (lambda d: d["processors"][0].update(idle=[0, 0]), "processors: found"),
        (lambda d: d.update(reads={"guest.l1d": [1, 2, 3]}), "reads: found"),
        (lambda d: d["misses"].update(capacity=[1, 2, 3]), "misses: found"),
        (lambda d: d["misses"].update(bad_luck=[1, 2, 3, 4]), "misses: found"),
        (lambda d: d["walk_latency"].pop(), "walk_latency: found"),
        (lambda d: d["walk_latency"][0].update(x=1), "walk_latency: found"),
        (lambda d: d.pop("reads"), "reads: missing; the file is not a whole result"),
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
