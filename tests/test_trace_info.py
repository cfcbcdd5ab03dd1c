"""What is told of a trace, against a slow twin of lists, and against walks whose distances are known."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trace_samples import random_accesses, slow_blocks, slow_fold

from mmu import plot_trace, report_trace
from mmu.cli import main
from mmu.errors import InputError
from mmu.trace import Raw, compact_trace, info, write_raw
from mmu.trace.histogram import EDGES, bucket_of
from mmu.trace.stack import Stack, has_room, height, new_stack, recall, renumber, visit

SIDES = ("fetch", "data", "both")
OF_THE_FILE = ("layout", "records", "fold", "file_bytes")


def octave(distance):
    """The least distance of a bucket of powers of two, by its bits."""
    return 0 if distance == 0 else 1 << distance.bit_length() - 1


def slow_info(address, kind, space, windows, entries):
    """Distances by lists that are searched from the most recent page on."""
    address, space = [int(a) for a in address], [int(s) for s in space]
    stacks = {side: [] for side in SIDES}
    found = {side: [] for side in SIDES}
    series = []
    fresh, done, level, ever = set(), 0, 0, set()

    def depth(side, page):
        stack = stacks[side]
        place = stack.index(page) if page in stack else None
        if place is not None:
            del stack[place]
        stack.insert(0, page)
        return place

    for block in slow_blocks(kind, space):
        at = {}
        for index in block:
            side = "fetch" if kind[index] == 2 else "data"
            page = (address[index] >> 12, space[index])
            found[side].append(depth(side, page))
            found["both"].append(0 if at.get(side) == page else depth("both", page))
            at[side] = page
            fresh.add(page)
            ever.add(page)
        done += len(block)
        if done * windows // len(kind) > level:
            level = done * windows // len(kind)
            large = [{(page >> 9, where) for page, where in pages} for pages in (fresh, ever)]
            series.append((done, len(fresh), len(large[0]), len(ever), len(large[1])))
            fresh = set()
    told = {}
    for side in SIDES:
        distances = [d for d in found[side] if d is not None]
        histogram = Counter(octave(d) for d in distances)
        total = len(found[side])
        told[side] = {
            "accesses": total,
            "cold": total - len(distances),
            "distance": histogram,
            "hit_rate": {
                str(size): sum(d < size for d in distances) / total if total else None
                for size in entries
            },
        }
    folded = 1 - len(slow_fold(address, kind, space)) / len(kind)
    footprint = {
        name: len({(a >> shift, s) for a, s in zip(address, space, strict=True)})
        for name, shift in (("4k", 12), ("2m", 21), ("1g", 30))
    }
    return told, series, folded, footprint


def told(path, **options):
    found = info(path, **options)
    return {name: value for name, value in found.items() if name not in OF_THE_FILE}


def both_layouts(folder, address, kind, space=None, thread=None):
    write_raw(folder / "raw", [Raw(address, kind, None, space, thread)])
    compact_trace(folder / "raw", folder / "compact")
    return folder / "raw", folder / "compact"


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.sampled_from([1, 300, 4096, 4500]),
    pages=st.sampled_from([1, 3, 17, 60]),
    streams=st.integers(1, 3),
    fetches=st.booleans(),
    windows=st.sampled_from([1, 2, 7]),
)
@example(seed=1, count=9000, pages=40, streams=1, fetches=True, windows=7)
def test_both_layouts_are_told_as_the_slow_way_tells(
    tmp_path_factory, seed, count, pages, streams, fetches, windows
):
    folder = tmp_path_factory.mktemp("info")
    address, kind, _, space = random_accesses(seed, count, pages, streams, fetches)
    entries = (1, 2, 16, 17, 64)
    reuse, series, folded, footprint = slow_info(address, kind, space, windows, entries)
    raw, compact = both_layouts(folder, address, kind, space)
    found = told(raw, windows=windows, entries=entries)
    assert found == told(compact, windows=windows, entries=entries)
    for side in SIDES:
        ours = found["reuse"][side]
        ours["distance"] = Counter({least: n for least, n in ours["distance"] if n})
        ours.pop("percentiles")
        assert ours == reuse[side], side
    assert list(zip(*found["working_set"].values(), strict=True)) == series
    assert found["folded"] == pytest.approx(folded, abs=1e-12)
    sizes = {"4k": 4 << 10, "2m": 2 << 20, "1g": 1 << 30}
    assert found["footprint"] == {
        name: {"pages": pages, "bytes": pages * sizes[name]} for name, pages in footprint.items()
    }
    assert found["accesses_by"] == {
        "space": dict(Counter(space.tolist())), "thread": {0: count}
    }  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), pages=st.sampled_from([3, 16, 17, 40, 300]))
def test_a_stack_is_a_list_that_pages_are_moved_to_the_front_of(seed, pages):
    random = np.random.default_rng(seed)
    stack, slow = new_stack(512), []
    for page in random.integers(0, pages, 600):
        if slow and random.random() < 0.3:
            depth = int(random.integers(0, len(slow)))
            assert recall(stack, depth) == slow[depth]
            slow.insert(0, slow.pop(depth))
        else:
            expected = slow.index(page) if page in slow else -1
            assert visit(stack, page) == expected
            if expected >= 0:
                del slow[expected]
            slow.insert(0, int(page))
        assert height(stack) == len(slow)
        if random.random() < 0.05:
            renumber(stack)
        check(stack, slow)


def check(stack: Stack, slow):
    """Array and tree hold every page once, in order of recency."""
    top = [int(page) for page in stack.top if page >= 0]
    taken = int(stack.state[0])
    rest = [int(stack.page[s]) for s in range(taken, 0, -1) if stack.slot[stack.page[s]] == s]
    assert top + rest == slow
    assert has_room(stack)


@pytest.mark.parametrize("pages", [1, 2, 16, 17, 18, 64, 65, 700])
def test_a_walk_round_n_pages_has_the_distance_n_less_1_always(tmp_path, pages):
    walked = np.arange(15_000) % pages
    write_raw(tmp_path / "t", [Raw(walked << 12, np.zeros(15_000, np.uint8))])
    reuse = info(tmp_path / "t", entries=(1, pages, pages + 1, 4096))["reuse"]
    assert reuse["fetch"]["accesses"] == 0
    assert reuse["fetch"]["distance"] == []
    assert reuse["fetch"]["percentiles"]["50"] is None
    for side in ("data", "both"):
        assert reuse[side]["cold"] == pages
        expected = [(octave(pages - 1), 15_000 - pages)]
        assert [pair for pair in reuse[side]["distance"] if pair[1]] == expected
        assert reuse[side]["hit_rate"][str(pages)] == (15_000 - pages) / 15_000
        assert reuse[side]["percentiles"]["90"] == pages - 1
        if pages > 1:
            assert reuse[side]["hit_rate"]["1"] == 0


def test_pages_drawn_evenly_have_even_distances(tmp_path):
    pages, accesses = 128, 12_000
    drawn = np.random.default_rng(5).integers(0, pages, accesses)
    write_raw(tmp_path / "t", [Raw(drawn << 12, np.full(accesses, 2, np.uint8))])
    found = info(tmp_path / "t", entries=(1, 16, 32, 64, 127))["reuse"]["fetch"]
    for size, rate in found["hit_rate"].items():
        assert rate == pytest.approx(int(size) / pages, abs=0.02)


def test_a_walk_that_never_returns_is_cold_and_needs_room(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.summary.FIRST_ROOM", 8192)
    pages = 36_000 if not_interpreted() else 9_000
    walked = np.arange(pages, dtype=np.int64) << 12
    again = walked[:2_000]  # each at the distance of all pages less one
    accesses = np.concatenate([walked, again])
    write_raw(tmp_path / "t", [Raw(accesses, np.zeros(len(accesses), np.uint8))])
    found = info(tmp_path / "t", windows=4)
    assert found["reuse"]["data"]["cold"] == found["pages"] == pages
    assert found["reuse"]["data"]["distance"][-1] == (octave(pages - 1), 2_000)
    assert found["large_pages"] == -(-pages // 512)
    assert found["working_set"]["all_pages"][-1] == pages


def not_interpreted():
    return hasattr(visit, "signatures")


def test_the_sides_share_pages_but_not_distances(tmp_path):
    # fetches: a a a; data: b, a; together a b a a: what a side is at when it returns is at distance 0
    address = np.array([0xA000, 0xB000, 0xA000, 0xA000, 0xA000])
    kind = np.array([2, 0, 2, 1, 2], np.uint8)
    for path in both_layouts(tmp_path, address, kind):
        reuse = info(path)["reuse"]
        assert (reuse["fetch"]["cold"], reuse["fetch"]["distance"]) == (1, [(0, 2)])
        assert (reuse["data"]["cold"], reuse["data"]["distance"]) == (2, [])
        # b lies above a when the data side comes to a
        assert (reuse["both"]["cold"], reuse["both"]["distance"]) == (2, [(0, 2), (1, 1)])


def test_page_0_is_a_page_like_any_other(tmp_path):
    for path in both_layouts(tmp_path, np.zeros(4, np.int64), np.array([2, 0, 2, 1], np.uint8)):
        reuse = info(path)["reuse"]
        assert [reuse[side]["cold"] for side in SIDES] == [1, 1, 1]
        assert reuse["both"]["distance"] == [(0, 3)]


def test_spaces_and_threads_are_counted(tmp_path):
    space = np.repeat(np.array([3, 9, 3], np.uint16), [100, 50, 1])
    thread = np.repeat(np.array([1, 1 << 31, 1], np.uint32), [20, 130, 1])
    address = np.full(151, 0x5000)
    for path in both_layouts(tmp_path, address, np.zeros(151, np.uint8), space, thread):
        found = info(path)
        assert (found["spaces"], found["threads"], found["pages"]) == (2, 2, 2)
        assert found["accesses_by"] == {"space": {3: 101, 9: 50}, "thread": {1: 21, 1 << 31: 130}}
        assert found["working_set"]["accesses"][-1] == 151


def test_windows_end_where_blocks_do_and_none_is_empty(tmp_path):
    address = np.arange(4096 * 10) >> 7 << 12
    write_raw(tmp_path / "t", [Raw(address, np.zeros(4096 * 10, np.uint8))])
    for windows, ends in ((1, [10]), (3, [4, 7, 10]), (10, range(1, 11)), (100, range(1, 11))):
        found = info(tmp_path / "t", windows=windows)["working_set"]
        assert found["accesses"] == [4096 * end for end in ends]
        assert sum(found["pages"]) == 320


def test_buckets_follow_one_another_and_hold_their_edges():
    for place in [0, 1, 4095, 4096, 4097, 5000, len(EDGES) - 2]:
        least, above = int(EDGES[place]), int(EDGES[place + 1])
        assert bucket_of(least) == bucket_of(above - 1) == place
        assert above - least <= max(1, least // 512)
    assert {1 << bit for bit in range(26)} <= set(EDGES.tolist())


def test_what_cannot_be_told_is_refused(tmp_path):
    write_raw(tmp_path / "t", [Raw(np.zeros(9, np.int64), np.zeros(9, np.uint8))])
    with pytest.raises(InputError, match="windows: found 0; accepted: 1 to"):
        info(tmp_path / "t", windows=0)
    with pytest.raises(InputError, match="entries: found 0; accepted"):
        info(tmp_path / "t", entries=(0,))
    with pytest.raises(
        InputError, match=r"entries: found 5001; .* 5,000 and 5,008 are the nearest"
    ):
        info(tmp_path / "t", entries=(5001,))


def test_too_many_pages_are_not_measured_and_the_rest_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.summary.MOST_PAGES", 9000)
    address = np.arange(10_000) << 12
    write_raw(tmp_path / "t", [Raw(address, np.zeros(10_000, np.uint8))])
    found = info(tmp_path / "t", entries=(64,))
    names = ("pages", "large_pages", "folded", "footprint", "working_set", "reuse")
    assert [found[name] for name in names] == [None] * 6
    assert (found["accesses"], found["blocks"]) == (10_000, 3)


def test_it_is_plain_json_and_tells_how_far_it_is(tmp_path):
    write_raw(tmp_path / "t", [Raw(np.zeros(9, np.int64), np.zeros(9, np.uint8))])
    steps = []
    found = info(tmp_path / "t", progress=lambda *step: steps.append(step))
    assert steps[-1] == (9, 9)
    assert json.loads(json.dumps(found))["reuse"]["data"]["cold"] == 1


@pytest.fixture
def trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address, kind, _, space = random_accesses(1, 9_000, streams=2)
    write_raw("t", [Raw(address, kind, None, space)], {"command": "ls\n-l", "pages": {"4k": 3}})
    return info("t", 5, (64, 1536))


def test_a_trace_is_told_as_text_json_and_csv(trace, capsys):
    options = ["--windows", "5", "--json", "i.json", "--csv", "i.csv", "--figure", "i.svg"]
    assert main(["trace", "info", "t", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == report_trace.lines(trace)
    assert json.loads(Path("i.json").read_text()) == json.loads(json.dumps(trace))
    rows = [tuple(row) for row in csv.reader(Path("i.csv").read_text().splitlines())]
    assert rows[0] == ("what", "of", "at", "value")
    reuse = trace["reuse"]["data"]
    for row in (
        ("accesses", "", "", "9000"),
        ("footprint.bytes", "2m", "", str(trace["large_pages"] << 21)),
        ("accesses_by.space", "1", "", str(trace["accesses_by"]["space"][1])),
        ("working_set.pages", "", "9000", str(trace["working_set"]["pages"][-1])),
        ("reuse.cold", "data", "", str(reuse["cold"])),
        ("reuse.distance", "data", "0", str(reuse["distance"][0][1])),
        ("reuse.hit_rate", "data", "1536", str(reuse["hit_rate"]["1536"])),
        ("reuse.percentiles", "data", "50", str(reuse["percentiles"]["50"])),
    ):
        assert row in rows
    assert "pages of 4 KiB" in Path("i.svg").read_text() or "<svg" in Path("i.svg").read_text()
    assert main(["trace", "info", "t", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_text_says_what_the_numbers_say(trace):
    lines = {line.split("  ")[0]: line.split("  ")[-1] for line in report_trace.lines(trace)}
    assert lines["accesses"].strip() == "9,000"
    assert lines["recording.command"].strip() == "ls -l"
    assert lines["recording.pages.4k"].strip() == "3"
    assert lines["touched, 4k pages"].strip().startswith(f"{trace['pages']:,} pages, ")
    assert lines["folded"].strip() == f"{100 * trace['folded']:.2f} % of accesses are, or could be"
    both = trace["reuse"]["both"]
    assert lines["first access to the page"].strip() == f"{both['cold']:,}"
    rate = f"{100 * both['hit_rate']['64']:.3f} %"
    assert lines["hit rate, LRU of 64 entries"].strip() == rate


def test_a_trace_without_fetches_and_one_of_too_many_pages_are_told_too(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_raw("t", [Raw(np.arange(10_000) << 12, np.zeros(10_000, np.uint8))])
    assert main(["trace", "info", "t", "--figure", "t.png"]) == 0
    assert Path("t.png").read_bytes().startswith(b"\x89PNG")
    assert "hit rate, LRU of 64 entries" in capsys.readouterr().out
    monkeypatch.setattr("mmu.trace.summary.MOST_PAGES", 9000)
    assert main(["trace", "info", "t", "--csv", "t.csv"]) == 0
    assert "Too many pages" in capsys.readouterr().out
    assert main(["trace", "info", "t", "--figure", "x.png"]) == 2
    assert "t: has too many pages to be measured" in capsys.readouterr().err
    assert not Path("x.png").exists()


def test_the_figure_shows_what_was_measured(trace):
    over_time, footprint, misses = plot_trace.draw(trace, "t").axes
    (small, large) = (patch.get_data() for patch in over_time.patches)
    assert small.values.tolist() == trace["working_set"]["pages"]
    assert large.values.tolist() == trace["working_set"]["large_pages"]
    assert small.edges.tolist() == [0, *(end / 1e6 for end in trace["working_set"]["accesses"])]
    mib = [pages / 256 for pages in trace["working_set"]["all_pages"]]
    assert footprint.patches[0].get_data().values.tolist() == mib
    drawn = {line.get_label(): dict(line.get_xydata().tolist()) for line in misses.lines}
    for side in SIDES:
        reuse = trace["reuse"][side]
        below = dict(reuse["distance"])[0]
        assert drawn[side][1] == pytest.approx(1 - below / reuse["accesses"])
        assert drawn[side][max(drawn[side])] == pytest.approx(reuse["cold"] / reuse["accesses"])
    marks = [line.get_xdata()[0] for line in misses.lines if line.get_linestyle() == "--"]
    assert marks == [64, 1536]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--entries", "0"], "--entries: found 0; accepted: 1 to"),
        (["--entries", "x"], "--entries: found 'x'; accepted: whole numbers with commas"),
        (["--windows", "70000"], "--windows: found 70000; accepted: 1 to 65,536"),
        (["--csv", "t"], "--csv: 't': also read as 't'"),
        (["--figure", "t.gif"], "--figure: found 't.gif'; accepted"),
    ],
)
def test_wrong_options_are_refused_on_one_line(trace, capsys, arguments, line):
    assert main(["trace", "info", "t", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith(f"mmu: error: {line}"), error
    assert error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["t"]
