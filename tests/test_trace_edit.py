"""Traces cut, merged and made compact: nothing of what is kept changes."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_samples import random_accesses, slow_blocks

import mmu
from mmu.cli import main
from mmu.errors import InputError
from mmu.trace import Raw, compact_trace, cut_trace, merge_traces, open_trace, write_raw

SEEDS = st.integers(0, 2**32)
COMPACT = ("page", "kind", "fetches", "reads", "writes", "order", "space", "thread")


def written(path, seed, count, streams=1, thread=None, columns=None):
    address, kind, size, space = random_accesses(seed, count, streams=streams)
    write_raw(path, [Raw(address, kind, size, space if streams > 1 else None, thread)], columns)
    return path


def table(path):
    """A trace's columns as lists; those that are not there are left out."""
    return pq.read_table(path).to_pydict()


def rows(path):
    return list(zip(*table(path).values(), strict=True))


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, skip=st.integers(0, 9_999), limit=st.integers(1, 12_000))
def test_a_window_of_a_raw_trace_is_its_records_sizes_included(tmp_path_factory, seed, skip, limit):
    folder = tmp_path_factory.mktemp("cut")
    source = written(folder / "t", seed, 10_000, streams=2)
    made = cut_trace(source, folder / "c", skip, limit)
    assert rows(folder / "c") == rows(source)[skip : skip + limit]
    assert made.accesses == len(rows(folder / "c"))
    assert table(folder / "c")["size"][0] > 0


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, streams=st.integers(1, 3), data=st.data())
def test_a_window_of_whole_blocks_is_the_same_cut_before_folding_or_after(
    tmp_path_factory, seed, streams, data
):
    folder = tmp_path_factory.mktemp("cut")
    source = written(folder / "t", seed, 20_000, streams)
    compact_trace(source, folder / "c")
    _, kind, _, space = random_accesses(seed, 20_000, streams=streams)
    ends = [0, *np.cumsum([len(block) for block in slow_blocks(kind, space)]).tolist()]
    first = data.draw(st.integers(0, len(ends) - 2))
    last = data.draw(st.integers(first + 1, len(ends) - 1))
    window = ends[first], ends[last] - ends[first]
    cut_trace(source, folder / "cut", *window)
    compact_trace(folder / "cut", folder / "folded")
    cut_trace(folder / "c", folder / "cut compact", *window)
    assert rows(folder / "cut compact") == rows(folder / "folded")


def test_a_compact_trace_is_cut_where_blocks_end_and_the_nearest_are_named(tmp_path):
    compact_trace(written(tmp_path / "t", 1, 10_000), tmp_path / "c")
    for window, message in (
        ((5_000, None), "--skip 5,000 is inside a block, .* nearest are 4,096 and 8,192"),
        ((9_000, None), "nearest are 8,192 and 10,000"),
        ((4_096, 5_000), "--limit 5,000 is inside a block, .* nearest are 4,096 and 5,904"),
        ((0, 100), "--limit 100 is inside a block, .* nearest are 4,096, or cut the raw"),
    ):
        with pytest.raises(InputError, match=message):
            cut_trace(tmp_path / "c", tmp_path / "x", *window)
    assert not (tmp_path / "x").exists()
    assert cut_trace(tmp_path / "c", tmp_path / "x", 4_096, 99_999).accesses == 5_904


@pytest.mark.parametrize("compact", [False, True])
def test_empty_windows_are_refused(tmp_path, compact):
    source = written(tmp_path / "t", 1, 9_000)
    if compact:
        compact_trace(source, tmp_path / "c")
        source = tmp_path / "c"
    for options, message in (
        ({"skip": 9_000}, "holds 9,000 accesses, and 9,000 are to be skipped; skip fewer"),
        ({"skip": 10**15}, "are to be skipped; skip fewer"),
        ({"skip": -1}, "skips -1 .* accepted: skip from 0"),
        ({"limit": 0}, "keeps 0 accesses; accepted: skip from 0, limit from 1"),
        ({"spaces": [7]}, "holds no accesses of space 7; accepted: space 0; thread 0"),
        ({"threads": [1]}, "holds no accesses of thread 1; accepted: space 0; thread 0"),
    ):
        with pytest.raises(InputError, match=message):
            cut_trace(source, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["space", "thread"])
def test_streams_of_a_raw_trace_are_its_records_and_the_window_counts_them(tmp_path, name):
    thread = np.repeat(np.array([4, 9, 4], np.uint32), [3_000, 3_000, 4_000])
    source = written(tmp_path / "t", 3, 10_000, streams=3, thread=thread)
    number = 9 if name == "thread" else table(source)["space"][0]
    cut_trace(source, tmp_path / "c", 10, 1_000, **{name + "s": [number]})
    place = list(table(source)).index(name)
    expected = [row for row in rows(source) if row[place] == number]
    assert rows(tmp_path / "c") == expected[10:1_010]


def test_blocks_do_not_run_into_one_another_when_what_parted_them_is_left_out(tmp_path):
    thread = np.repeat(np.array([0, 1, 0], np.uint32), [5_000, 50, 5_000])
    source = written(tmp_path / "t", 5, 10_050, thread=thread)
    compact_trace(source, tmp_path / "c")
    message = "a block of 904 accesses of space 0, thread 0 would run into the next one"
    with pytest.raises(InputError, match=message):
        cut_trace(tmp_path / "c", tmp_path / "x", threads=[0])
    # where the first turn is of whole blocks nothing is lost
    thread = np.repeat(np.array([0, 1, 0], np.uint32), [8_192, 50, 1_808])
    source = written(tmp_path / "t", 5, 10_050, thread=thread)
    compact_trace(source, tmp_path / "c")
    cut_trace(tmp_path / "c", tmp_path / "x", threads=[0])
    cut_trace(source, tmp_path / "y", threads=[0])
    compact_trace(tmp_path / "y", tmp_path / "z")
    assert rows(tmp_path / "x") == rows(tmp_path / "z")


def test_what_was_cut_is_told(tmp_path):
    source = written(tmp_path / "t", 1, 9_000, columns={"command": "ls"})
    cut_trace(source, tmp_path / "c", 100, 8_000)
    cut_trace(tmp_path / "c", tmp_path / "d", 5)
    assert open_trace(tmp_path / "d").metadata == {
        "command": "ls", "cut": "accesses 5 to the end of c, which is accesses 100 to 8,100 of t",
    }  # fmt: skip


def slow_merge(sources, turn, name):
    """Records in turns of whole blocks, by lists: pairs of the trace's number and the record."""
    left = []
    for source in sources:
        columns = table(source)
        count = len(columns["kind"])
        streams = list(
            zip(*(columns.get(c, [0] * count) for c in ("space", "thread")), strict=True)
        )
        kinds = sorted(set(streams))
        space = [kinds.index(stream) for stream in streams]
        left.append([(block, streams) for block in slow_blocks(columns["kind"], space)])
    tables = [table(source) for source in sources]
    made, numbers = [], {}
    while any(left):
        for which, blocks in enumerate(left):
            taken = 0
            while blocks and taken < turn:
                block, streams = blocks.pop(0)
                taken += len(block)
                for index in block:
                    space, thread = streams[index]
                    old = space if name == "space" else thread
                    number = numbers.setdefault((which, old), len(numbers))
                    pair = (number, thread) if name == "space" else (space, number)
                    columns = tables[which]
                    made.append((columns["address"][index], columns["kind"][index],
                                 columns["size"][index], *pair))  # fmt: skip
    return made


@settings(max_examples=8, deadline=None)
@given(
    seed=SEEDS,
    counts=st.lists(st.sampled_from([1, 4_096, 5_000, 9_000]), min_size=2, max_size=4),
    streams=st.integers(1, 3),
    turn=st.sampled_from([1, 4_096, 4_097, 10_000]),
    name=st.sampled_from(["space", "thread"]),
)
def test_merging_takes_turns_of_whole_blocks(tmp_path_factory, seed, counts, streams, turn, name):
    folder = tmp_path_factory.mktemp("merge")
    sources = []
    for which, count in enumerate(counts):
        thread = np.resize(np.repeat([3, 8], 700), count).astype(np.uint32) if which == 0 else None
        path = folder / f"t{which}"
        sources.append(written(path, seed + which, count, 1 if which == 1 else streams, thread))
    merge_traces(sources, folder / "m", name + "s", turn)
    found = table(folder / "m")
    order = ("address", "kind", "size", "space", "thread")
    count = len(found["kind"])
    columns = [found.get(column, [0] * count) for column in order]
    assert list(zip(*columns, strict=True)) == slow_merge(sources, turn, name)
    # compact traces merged are the merged trace made compact
    packed = []
    for source in sources:
        packed.append(source.with_suffix(".c"))
        compact_trace(source, packed[-1])
    merge_traces(packed, folder / "p", name + "s", turn)
    compact_trace(folder / "m", folder / "q")
    assert table(folder / "p") == table(folder / "q")


def test_a_merged_trace_comes_apart_again(tmp_path):
    sources = [written(tmp_path / f"t{n}", n, 9_000) for n in range(3)]
    packed = []
    for source in sources:
        packed.append(tmp_path / f"{source.name}c")
        compact_trace(source, packed[-1])
    for group in (sources, packed):
        merge_traces(group, tmp_path / "m")
        for number, source in enumerate(group):
            cut_trace(tmp_path / "m", tmp_path / "c", spaces=[number])
            found = table(tmp_path / "c")
            assert set(found.pop("space")) == {number}
            assert found == table(source)


def test_the_new_numbers_are_told(tmp_path):
    thread = np.repeat(np.array([5, 2], np.uint32), [10, 20])
    one = written(tmp_path / "one", 1, 30, thread=thread, columns={"command": "ls"})
    two = written(tmp_path / "two", 2, 40)
    merge_traces([one, two, two], tmp_path / "m", "threads")
    told = open_trace(tmp_path / "m").metadata
    assert told["merged"] == [
        {"trace": "one", "recording": {"command": "ls"}, "thread": {"5": 0, "2": 1}},
        {"trace": "two", "recording": {}, "thread": {"0": 2}},
        {"trace": "two", "recording": {}, "thread": {"0": 3}},
    ]
    assert "space" not in table(tmp_path / "m")


def test_a_merged_trace_replays_the_same_raw_and_compact(tmp_path):
    results = []
    for compact in (False, True):
        sources = []
        for n in range(2):
            sources.append(written(tmp_path / f"t{n}", n, 30_000))
            if compact:
                compact_trace(sources[-1], tmp_path / f"c{n}")
                sources[-1] = tmp_path / f"c{n}"
        merge_traces(sources, tmp_path / "m")
        results.append(mmu.replay(str(tmp_path / "m"), quantum="20us", exits_per_second=50_000))
    assert results[0].counters == results[1].counters
    assert results[0].cycles == results[1].cycles


def test_what_cannot_be_merged_is_refused(tmp_path):
    one = written(tmp_path / "one", 1, 30)
    compact_trace(one, tmp_path / "c")
    for sources, options, message in (
        ([one], {}, "found 1 traces to merge; accepted: at least 2"),
        ([one, tmp_path / "c"], {}, "is raw; accepted: all of one layout; 'mmu trace compact'"),
        ([one, one], {"streams": "vms"}, re.escape("accepted: spaces | threads")),
        ([one, one], {"turn": 0}, "turn: found 0; accepted: from 1"),
        ([one, tmp_path / "none"], {}, "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            merge_traces(sources, tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_more_spaces_than_have_numbers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.merge.MOST_NUMBERS", 2)
    one = written(tmp_path / "one", 1, 30)
    merge_traces([one, one], tmp_path / "m")
    with pytest.raises(InputError, match="more than 2 spaces; merge fewer traces"):
        merge_traces([one, one, one], tmp_path / "m")


def test_the_commands_do_what_the_functions_do(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thread = np.repeat(np.array([0, 1], np.uint32), [8_192, 1_000])
    source = written("a", 1, 9_192, thread=thread)
    for arguments, made in (
        (["compact", "a", "-o", "x"], lambda: compact_trace(source, "y")),
        (
            [
                "cut",
                "a",
                "-o",
                "x",
                "--skip",
                "9",
                "--limit",
                "70",
                "--thread",
                "0,1",
                "--space",
                "0",
            ],
            lambda: cut_trace(source, "y", 9, 70, [0], [0, 1]),
        ),
        (
            ["merge", "a", "a", "-o", "x", "--as", "threads", "--turn", "5000"],
            lambda: merge_traces([source, source], "y", "threads", 5_000),
        ),
    ):
        assert main(["trace", *arguments]) == 0
        header = made()
        assert capsys.readouterr().out.startswith(f"x: {header.accesses:,} accesses (")
        assert pq.read_table("x").equals(pq.read_table("y"))
        assert open_trace("x").metadata == open_trace("y").metadata
        assert main(["trace", *arguments, "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")


def test_progress_is_told_to_the_end(tmp_path):
    source = written(tmp_path / "a", 1, 200_000)
    for change, total in (
        (lambda tell: compact_trace(source, tmp_path / "c", tell), 200_000),
        (lambda tell: cut_trace(source, tmp_path / "x", progress=tell), 200_000),
        (lambda tell: merge_traces([source] * 3, tmp_path / "x", progress=tell), 600_000),
    ):
        steps = []
        change(lambda *step, steps=steps: steps.append(step))
        assert steps == sorted(steps)
        assert {whole for _, whole in steps} == {total}
        assert steps[-1][0] > total // 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["cut", "a", "-o", "x", "--limit", "0"], "--limit: found 0; accepted"),
        (["cut", "a", "-o", "a"], "--output: 'a': also read as 'a'"),
        (["cut", "a", "-o", "x", "--skip", "30"], "a: holds 30 accesses, and 30 are to be skipped"),
        (["cut", "a", "-o", "x", "--space", "1"], "a: holds no accesses of space 1; accepted: sp"),
        (["cut", "a", "-o", "x", "--thread", "x"], "--thread: found 'x'; accepted: whole numbers"),
        (["compact", "c", "-o", "x"], "c: is compact already; accepted: a raw trace"),
        (["merge", "a", "c", "-o", "x"], "c is compact and a is raw; accepted: all of one"),
        (["merge", "a", "-o", "x"], "found 1 traces to merge; accepted: at least 2"),
        (["merge", "a", "a", "-o", "x", "--as", "y"], "--as: found 'y'; accepted: spaces | thr"),
    ],
)
def test_wrong_options_are_refused_on_one_line(tmp_path, capsys, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    compact_trace(written("a", 1, 30), "c")
    assert main(["trace", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"mmu: error: {line}"), error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
