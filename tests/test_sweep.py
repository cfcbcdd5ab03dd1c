"""Sweeps: figures over the values of one option, in files, reports and pictures."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
from handmade import comparison, config, two_processors

import mmu
import mmu.sweep as sweep_module
from mmu import plot_sweep, report_sweep
from mmu.errors import InputError, OutOfMemory
from mmu.result import Comparison
from mmu.sweep import sweep_configs
from mmu.swept import Sweep
from mmu.tabular import Tabular
from mmu.trace.format import Raw
from mmu.trace.writer import write_trace
from mmu.units import MODES
from mmu.values import Vary

pytestmark = pytest.mark.slow

MODES_HERE = ("tagged", "purge", "flush")
SLOWER = {"tagged": 0, "purge": 1, "flush": 3}  # times 1,100 cycles at a value of 1


def changed(run, mode, number):
    """The counts made by hand, with more cycles and fewer L2 hits in the modes that drop entries."""
    more = SLOWER.get(mode, 0) * round(1000 / number)
    cycles = run.cycles | {"switch": [200 + 11 * more // 10, 0]}
    hits = run.hits | {"l2.4k": [20 - SLOWER.get(mode, 0), 80, 3, 0]}
    counters = run.counters | {"walks": [25 + SLOWER.get(mode, 0), 20, 3, 0]}
    return dataclasses.replace(run, cycles=cycles, hits=hits, counters=counters)


def sweep(values=("1us", "10us", "100us"), modes=MODES_HERE, name="quantum"):
    made = []
    for value in values:
        results = comparison(modes).results
        number = float(value.rstrip("usm"))
        made.append(Comparison({m: changed(run, m, number) for m, run in results.items()}))
    return Sweep(name, list(values), made)


RUN = sweep()
TEXT = """\
skylake-sp, 2 VMs, 0 exits/s, guest pages 4k, nested pages auto, seed 0

quantum: cycles per instruction   tagged   purge   flush
--------------------------------------------------------
1us                                3.636   4.636   6.636
10us                               3.636   3.736   3.936
100us                              3.636   3.646   3.666

quantum: hit rate, L2    tagged     purge     flush
---------------------------------------------------
1us                     70.00 %   69.33 %   68.00 %
10us                    70.00 %   69.33 %   68.00 %
100us                   70.00 %   69.33 %   68.00 %

quantum: walks per 1,000 instructions   tagged    purge    flush
----------------------------------------------------------------
1us                                     40.909   41.818   43.636
10us                                    40.909   41.818   43.636
100us                                   40.909   41.818   43.636

quantum: more cycles than tagged      purge      flush
------------------------------------------------------
1us                                +27.50 %   +82.50 %
10us                                +2.75 %    +8.25 %
100us                               +0.28 %    +0.83 %

Of all virtual machines together; --json and --csv have each, and every other figure.
"""


def test_a_figure_is_told_for_each_value_in_one_mode():
    flush = RUN.figures("cycles_per_instruction", "flush")
    assert flush == [(4000 + 11 * more // 10) / 1100 for more in (3000, 300, 30)]
    assert RUN.figures("hit_rate.l2", "purge", "web") == [24 / 50] * 3
    assert RUN["10us"]["tagged"].count("walks") == 45
    assert RUN.numbers == [1e-6, 1e-5, 1e-4]
    assert (RUN.modes, RUN.vms) == (list(MODES_HERE), ["web", "db"])


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=r"no value '1ms' of quantum; accepted: 1us, 10us, 100us"):
        RUN["1ms"]
    with pytest.raises(InputError, match=r"no mode 'native'; accepted: tagged, purge, flush"):
        RUN.figures("cycles_per_instruction", "native")
    with pytest.raises(InputError, match=r"no metric 'hit_rate.l3'; .*did you mean 'hit_rate.l2'"):
        RUN.figures("hit_rate.l3", "flush")
    with pytest.raises(InputError, match=r"no row 'wep'"):
        RUN.figures("hit_rate.l2", "flush", "wep")


def test_the_report_has_a_block_for_each_figure_with_values_as_rows():
    assert "\n".join(report_sweep.lines(RUN)) + "\n" == TEXT


def test_of_several_processors_the_time_to_the_end_is_shown():
    both = {mode: dataclasses.replace(two_processors(), mode=mode) for mode in ("tagged", "flush")}
    first = comparison(("tagged", "flush"))
    lines = report_sweep.lines(Sweep("lps", ["1", "2"], [first, Comparison(both)]))
    at = lines.index("lps: cycles to the end   tagged   flush")
    assert lines[at + 2 : at + 4] == [
        "1                         4,000   4,000",
        "2                         3,400   3,400",
    ]
    assert not any("to the end" in line for line in report_sweep.lines(RUN))


def test_a_figure_of_several_processors_shows_how_long_the_longest_worked():
    first = dataclasses.replace(two_processors(), mode="tagged")
    second = dataclasses.replace(first, clocks=[500, 600], clock=600)
    last = plot_sweep.draw(
        Sweep("lps", ["1", "2"], [Comparison({"tagged": run}) for run in (first, second)])
    ).axes[-1]
    assert last.get_ylabel() == "million cycles to the end"
    assert last.get_lines()[0].get_ydata().tolist() == pytest.approx([0.0034, 0.0006])
    assert not any("to the end" in axes.get_ylabel() for axes in plot_sweep.draw(RUN).axes)


def test_one_mode_is_compared_with_nothing():
    lines = report_sweep.lines(sweep(modes=("purge",)))
    assert not any("more cycles" in line for line in lines)


def test_a_processor_without_an_l2_has_no_rate_of_it():
    bare = [
        Comparison({m: dataclasses.replace(r, hits={}) for m, r in each.results.items()})
        for each in RUN.comparisons
    ]
    run = dataclasses.replace(RUN, comparisons=bare)
    assert not any("L2" in line for line in report_sweep.lines(run))
    assert [axes.get_ylabel() for axes in plot_sweep.draw(run).axes] == [
        "cycles per instruction",
        "walks per 1,000 instr.",
    ]


def test_the_heading_leaves_out_what_varied():
    assert "exits/s" not in report_sweep.heading(sweep(("1", "10"), name="exits-per-second"))
    assert "quantum 125,000 cycles" in report_sweep.heading(sweep(("1", "10"), name="l2.ways"))


def test_tables_have_the_value_in_their_first_column():
    tables = RUN.tables()
    assert set(tables) == set(RUN.comparisons[0].tables())
    cycles = tables["cycles"]
    assert cycles.columns[:3] == ["quantum", "mode", "vm"]
    assert [row[:3] for row in cycles.rows[5:8]] == [
        ["1us", "flush", "db"], ["10us", "tagged", "web"], ["10us", "tagged", "db"],
    ]  # fmt: skip
    long = RUN.long_table()
    assert long.columns == ["quantum", "mode", "vm", "metric", "value"]
    assert ["100us", "flush", "web", "hit_rate.l2", 22 / 50] in long.rows
    assert isinstance(RUN, Tabular)


def test_columns_that_only_some_values_have_are_left_empty_elsewhere():
    bare = {m: dataclasses.replace(r, reads={}) for m, r in RUN.comparisons[0].results.items()}
    for order in (1, -1):
        comparisons = [Comparison(bare), RUN.comparisons[1]][::order]
        run = Sweep("quantum", ["1us", "10us"][::order], comparisons)
        rows = {row[0]: row for row in run.tables()["reads"].rows if row[2] == "web"}
        assert len(rows["1us"]) == len(rows["10us"]) == 11
        assert rows["1us"][3:] == [None] * 8
        assert rows["10us"][3:] == [60, 30, 20, 10, 100, 50, 30, 20]


def test_a_sweep_loads_as_it_was_saved(tmp_path):
    RUN.save(tmp_path / "s.json")
    assert Sweep.load(tmp_path / "s.json") == RUN
    document = json.loads((tmp_path / "s.json").read_text())
    assert (document["format"], document["version"]) == ("mmu-sweep", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="mmu-result"), "found format 'mmu-result'; accepted: mmu-sweep"),
        (lambda d: d.update(version=2), "found version 2; accepted: up to 1"),
        (lambda d: d.update(name=""), "name: found ''"),
        (lambda d: d.pop("name"), "name: found None"),
        (lambda d: d.update(values=[]), r"values: found \[\]"),
        (lambda d: d.update(values=["x", "1us", "2us"]), "values: found 'x'; accepted: a number"),
        (lambda d: d.update(values=[1, "1us", "2us"]), "values: found ''"),
        (lambda d: d["values"].pop(), "results: accepted: a list of 2"),
        (lambda d: d.update(results=5), "results: accepted: a list of 3"),
        (lambda d: d["results"][1].pop("flush"), "found other modes or machines with other values"),
        (lambda d: d["results"][2]["flush"].pop("clock"), "quantum=100us: flush: clock: missing"),
        (lambda d: d["results"].__setitem__(0, []), "quantum=1us: found no results"),
    ],
)
def test_a_damaged_sweep_is_refused_with_its_place(tmp_path, change, message):
    RUN.save(tmp_path / "s.json")
    document = json.loads((tmp_path / "s.json").read_text())
    change(document)
    (tmp_path / "s.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        Sweep.load(tmp_path / "s.json")


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def test_each_mode_is_a_line_over_the_values_in_their_order_as_numbers():
    figure = plot_sweep.draw(sweep(("100us", "1us", "10us")))
    cycles, rates, walks = figure.axes
    assert cycles.get_ylabel() == "cycles per instruction"
    assert walks.get_xlabel() == "quantum"
    lines = lines_of(cycles)
    assert set(lines) == set(MODES_HERE)
    assert lines["flush"].get_xdata().tolist() == [1e-6, 1e-5, 1e-4]
    assert lines["flush"].get_ydata().tolist() == RUN.figures("cycles_per_instruction", "flush")
    percent = [100 * rate for rate in RUN.figures("hit_rate.l2", "tagged")]
    assert lines_of(rates)["tagged"].get_ydata().tolist() == percent
    per_thousand = RUN.figures("walks_per_thousand", "purge")
    assert lines_of(walks)["purge"].get_ydata().tolist() == per_thousand
    assert [tick.get_text() for tick in walks.get_xticklabels()] == ["1us", "10us", "100us"]


def test_a_figure_can_be_of_one_machine():
    web = plot_sweep.draw(RUN, "web").axes[0]
    ours = lines_of(web)["flush"].get_ydata().tolist()
    assert ours == RUN.figures("cycles_per_instruction", "flush", "web")
    assert web.get_title(loc="left").startswith("web: skylake-sp, 2 VMs")


def test_lines_are_named_at_their_ends_in_their_colours_and_apart():
    figure = plot_sweep.draw(sweep(modes=(*MODES_HERE, "native")))
    for axes in figure.axes:
        names = {text.get_text(): text for text in axes.texts}
        assert set(names) == {*MODES_HERE, "native"}
        heights = sorted(text.xyann[1] for text in names.values())
        assert all(b - a >= plot_sweep.GAP - 1e-9 for a, b in pairwise(heights))
        assert 0 <= heights[0] <= heights[-1] <= 1 + 1e-9
        for mode, line in lines_of(axes).items():
            assert names[mode].get_color() == line.get_color() == plot_sweep.STYLES[mode].colour
            assert names[mode].xy == (line.get_xdata()[-1], line.get_ydata()[-1])
    assert set(plot_sweep.STYLES) == set(MODES)
    assert len({style.colour for style in plot_sweep.STYLES.values()}) == len(MODES)


def test_names_move_apart_only_where_they_would_touch():
    far = {"a": 0.1, "b": 0.5, "c": 0.9}
    assert plot_sweep.apart(far) == far
    near = plot_sweep.apart({"a": 0.5, "b": 0.5})
    assert near == pytest.approx({"a": 0.5 - plot_sweep.GAP / 2, "b": 0.5 + plot_sweep.GAP / 2})
    low = plot_sweep.apart({"a": 0.02, "b": 0.0, "c": 0.01})
    assert list(low) == ["b", "c", "a"]
    assert low == pytest.approx({"b": 0.0, "c": plot_sweep.GAP, "a": 2 * plot_sweep.GAP})


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (("4", "8", "12"), "linear"),
        (("1", "8"), "linear"),
        (("1", "9"), "log"),
        (("0", "1", "8"), "linear"),
        (("0", "1", "100"), "symlog"),
        (("0", "5"), "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_values_differ_much(values, scale):
    ones = [comparison(("tagged", "flush"))] * len(values)
    figure = plot_sweep.draw(Sweep("exits-per-second", list(values), ones))
    bottom = figure.axes[-1]
    assert bottom.get_xscale() == scale
    assert bottom.get_xlabel() == "exits per second"
    assert [tick.get_text() for tick in bottom.get_xticklabels()] == list(values)
    low, high = bottom.get_ylim()
    assert low < high  # though all values are the same


def test_texts_on_the_axis_do_not_touch():
    values = [str(n) for n in range(1000, 1060)]
    figure = plot_sweep.draw(Sweep("exits-per-second", values, [comparison(("tagged",))] * 60))
    figure.draw_without_rendering()
    labels = figure.axes[-1].get_xticklabels()
    assert labels[0].get_text() == "1000"
    assert labels[-1].get_text() == "1059"
    boxes = [label.get_window_extent() for label in labels]
    assert 5 < len(boxes) < 30
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_a_figure_is_written_by_its_ending(tmp_path):
    plot_sweep.save_figure(RUN, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    plot_sweep.save_figure(RUN, tmp_path / "a.svg")
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()[:1000]
    with pytest.raises(InputError, match=r"accepted: a name that ends in \.png"):
        plot_sweep.save_figure(RUN, tmp_path / "a.pdf")


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Two traces of 30,000 reads each, which go round 1,000 pages in an order of their own."""
    paths = []
    for seed in (1, 2):
        pages = np.random.default_rng(seed).integers(0, 1000, 30_000).astype(np.uint64)
        path = tmp_path_factory.mktemp("traces") / f"t{seed}.parquet"
        write_trace(path, [Raw(pages * 4096, np.zeros(30_000, np.uint8))], "raw")
        paths.append(str(path))
    return paths


def test_each_value_is_run_as_a_comparison_of_its_own(traces):
    done = []
    run = mmu.vary(
        *traces, name="quantum", values=["5us", "50us"], modes="tagged,flush", seed=3,
        progress=lambda part, whole: done.append((part, whole)),
    )  # fmt: skip
    assert (run.name, run.values, run.modes) == ("quantum", ["5us", "50us"], ["tagged", "flush"])
    for value in run.values:
        assert run[value] == mmu.compare(*traces, quantum=value, modes="tagged,flush", seed=3)
    parts = [part for part, _ in done]
    assert parts == sorted(parts)
    assert {whole for _, whole in done} == {2000}
    assert parts[-1] <= 2000
    short, long = run.figures("hit_rate.l2", "flush")
    assert short < long  # as fewer flushes leave more
    assert run.figures("hit_rate.l2", "tagged")[0] > short


def test_an_option_of_machines_and_a_value_of_the_processor_can_be_varied(traces):
    run = mmu.vary(
        *traces, name="l2.entries", values="96,1536", modes=["tagged"], settings="l2.ways=6"
    )
    assert [each["tagged"].config["processor"]["l2"][0]["entries"] for each in run.comparisons] == [
        96,
        1536,
    ]
    assert {each["tagged"].config["processor"]["l2"][0]["ways"] for each in run.comparisons} == {6}
    few, many = run.figures("walks_per_thousand", "tagged")
    assert few > many
    run = mmu.vary(traces[0], name="exits_per_second", values=[0, 50_000], modes=["flush"])
    assert run.name == "exits-per-second"
    assert [each["flush"].config["exits_per_second"] for each in run.comparisons] == [0, 50_000]


def test_three_modes_are_varied_if_none_are_named(traces):
    run = mmu.vary(traces[0], name="exit-data-pages", values="1,2")
    assert run.modes == list(MODES_HERE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "quantun", "values": "1us,2us"}, "did you mean 'quantum'"),
        ({"name": "guest_pages", "values": "4k,2m"}, "nothing to vary of name 'guest-pages'"),
        ({"name": "quantum", "values": ["1us"]}, "found 1 value"),
        ({"name": "quantum", "values": []}, "found 0 values"),
        ({"name": "quantum", "values": "1us,2us", "quantum": "3us"}, "a value and values to vary"),
        ({"name": "quantum", "values": "1,2"}, "^quantum=1: found 1; accepted: a number"),
        ({"name": "lps", "values": "1,257"}, "lps=257: .*256"),
        ({"name": "l2.ways", "values": "4,7"}, r"^l2.ways=7: l2.0.ways: found 7 ways"),
        (
            {"name": "exits_per_second", "values": "1,2000000"},
            r"^exits-per-second=2000000: .*1785714",
        ),
        ({"name": "quantum", "values": "1us,2us", "modes": "tagd"}, "did you mean 'tagged'"),
        ({"name": "quantum", "values": "1us,2us", "mode": "flush"}, "no option 'mode' here"),
        ({"name": "quantum", "values": "1us,2us", "qantum": 1}, "no option 'qantum'"),
        (
            {"name": "warm_up", "values": "0,99999"},
            "^warm-up=99999: found 99999 accesses; accepted: less than the 30000",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(traces, given, message):
    with pytest.raises(InputError, match=message):
        mmu.vary(traces[0], **given)


def test_nothing_runs_unless_every_value_can_in_every_mode(monkeypatch):
    def compare_config(*_):
        raise AssertionError("ran")

    monkeypatch.setattr(sweep_module, "compare_config", compare_config)
    good = config("native", exits_per_second=2_000_000)  # which native mode does not look at
    with pytest.raises(InputError, match=r"seed=2, mode flush: .*exits_per_second"):
        sweep_configs(Vary("seed", ("1", "2")), [config(), good], ["native", "flush"])


def test_running_out_of_memory_says_with_which_value(monkeypatch):
    def compare_config(*_):
        raise OutOfMemory("web", 4096, 0, "web: out of memory")

    monkeypatch.setattr(sweep_module, "compare_config", compare_config)
    with pytest.raises(OutOfMemory, match=r"^seed=1: web: out of memory") as caught:
        sweep_configs(Vary("seed", ("1", "2")), [config(), config()], ["flush"])
    assert (caught.value.vm, caught.value.asked, caught.value.left) == ("web", 4096, 0)
