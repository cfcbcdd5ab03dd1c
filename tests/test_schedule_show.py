"""Who ran when, drawn: as text, as a table, as a figure, and by the command."""

import csv
import json
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mmu
import mmu.options
from mmu import cli, gantt
from mmu.errors import InputError
from mmu.slices import Slice, Slices
from mmu.trace.format import Raw
from mmu.trace.writer import write_trace

KHZ = 1000
ROWS = [("web", ""), ("db", "server"), ("db", "job"), ("late", "")]
SEEN = Slices(
    rows=ROWS,
    slices=[
        Slice("web", "", 0, 0, 40, 4096, "quantum"),
        Slice("db", "server", 1, 42, 52, 1000, "turn"),
        Slice("db", "job", 2, 52, 60, 800, "end"),
        Slice("", "", 0, 60, 80, 0, "idle"),
        Slice("web", "", 0, 80, 100, 4096, "going on"),
    ],
    frequency_hz=KHZ,
    whole=False,
)
DRAWN = """\
5 slices, from 0 to 100 ms

web        ████████        ████
db/server          ▒█▒
db/job               ▒█
(idle)                 ████
           +---------+--------+
           0         50 ms

A column is 5 ms: █ ran all of it, ▓ ▒ ░ less and less.

           slices   time   share  accesses  ended by
web             2  60 ms  60.0 %     8,192  quantum 1, going on 1
db/server       1  10 ms  10.0 %     1,000  turn 1
db/job          1   8 ms   8.0 %       800  end 1
(idle)          1  20 ms  20.0 %         0

Not yet run: late

The run goes on: --slices N and --until TIME show more of it.
"""


def test_slices_are_drawn_as_rows_of_shades_above_an_axis_and_a_table():
    table = "           slices   time   share  .."
    cut = DRAWN.splitlines()
    assert gantt.lines(SEEN, width=31)[:9] == cut[:9]
    wide = gantt.lines(SEEN, width=100)
    assert wide[10:] == cut[10:]
    assert gantt.lines(SEEN, width=36)[11] == table


def test_without_block_elements_shades_are_ascii():
    text = "\n".join(gantt.lines(SEEN, width=31, unicode=False))
    assert text.isascii()
    assert "web        ########        ####\n" in text
    assert "db/server          :#:\n" in text
    assert "A column is 5 ms: # ran all of it, = : . less and less." in text


def test_a_run_that_was_seen_whole_says_no_more():
    whole = Slices([("web", "")], SEEN.slices[:1], KHZ, True)
    assert gantt.lines(whole)[-1] == "web       1  40 ms  100.0 %     4,096  quantum 1"
    assert gantt.lines(whole)[0] == "1 slice, from 0 to 40 ms"


def test_long_names_and_many_who_wait_are_cut():
    rows = [("n" * 40, "p" * 40), *((f"vm{n}", "") for n in range(9))]
    text = gantt.lines(Slices(rows, [Slice(*rows[0], 0, 0, 9, 1, "end")], KHZ, True), 60)
    assert all(len(line) <= 60 for line in text)
    assert text[2].startswith("nnnn..pppppppppp  █")
    text = gantt.lines(Slices(rows, [Slice(*rows[0], 0, 0, 9, 1, "end")], KHZ, True))
    assert text[2].startswith("n" * 8 + ".." + "p" * 18 + "  █")
    assert text[-1] == "Not yet run: vm0, vm1, vm2, vm3, vm4, ..."


slices = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 10**9), st.integers(0, 5)), max_size=9
)


@settings(deadline=None)
@given(slices, st.integers(1, 200), st.booleans(), st.sampled_from([1, KHZ, 2_500_000_000]))
def test_any_slices_fit_the_width_and_none_that_ran_is_left_blank(raw, width, unicode, hertz):
    seen, clock = [], 0
    for row, length, gap in raw:
        seen.append(Slice(*[*ROWS[:3], ("", "")][row], 0, clock, clock + length, 1, "quantum"))
        clock += length + gap
    drawn = Slices(ROWS, seen, hertz, True)
    text = gantt.lines(drawn, width, unicode)
    assert max(map(len, text[2 : 4 + len(gantt.seen(drawn))])) <= max(width, 20 + 11)
    for row in gantt.seen(drawn):
        ran = sum(each.end - each.begin for each in gantt.of(drawn, row))
        name = gantt.label(row)
        line = next(line for line in text[2:] if line.startswith(name))
        assert bool(line.removeprefix(gantt.label(row)).strip()) == bool(ran)
        cells = gantt.shares_of(gantt.of(drawn, row), *gantt.span(drawn), 50)
        size = (gantt.span(drawn)[1] - gantt.span(drawn)[0]) / 50
        assert sum(cells) * size == pytest.approx(ran)
        assert max(cells) <= 1.000001


def test_times_and_ticks_are_round():
    assert [gantt.nice(n) for n in (1e-9, 0.0011, 0.002, 3, 51)] == pytest.approx(
        [1e-9, 0.002, 0.002, 5, 100]
    )
    texts = [gantt.time_text(n, 10**6) for n in (0, 1, 50, 1234, 1_500_000, 10**9)]
    assert texts == ["0", "1 us", "50 us", "1.234 ms", "1.5 s", "1000 s"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = Raw(np.arange(40_000, dtype=np.uint64) % 9 * 4096, np.full(40_000, 2, np.uint8))
    for name in ("web", "db"):
        write_trace(f"{name}.parquet", [part], "raw")
    (tmp_path / "s.toml").write_text(
        "quantum = '8192accesses'\nmemory = '64MiB'\n[[vm]]\ntrace = 'web.parquet'\nweight = 2\n"
        "[[vm]]\nname = 'guest'\nstart = '10000accesses'\nturn = '4096accesses'\n"
        "[[vm.process]]\ntrace = 'db.parquet'\n[[vm.process]]\ntrace = 'web.parquet'\n"
    )
    return tmp_path


def show(*arguments):
    return cli.main(["schedule", "show", *arguments])


def test_the_command_draws_a_schedule_and_writes_it_as_json_csv_and_figure(folder, capsys):
    outputs = ["--json", "s.json", "--csv", "s.csv", "--figure", "s.svg"]
    assert show("s.toml", "--slices", "6", *outputs) == 0
    out = capsys.readouterr().out
    assert out.startswith("6 slices, from 0 to ")
    assert re.search(r"^guest/db +2 .* turn 2$", out, re.MULTILINE)
    document = json.loads((folder / "s.json").read_text())
    assert document["rows"] == [["web", ""], ["guest", "db"], ["guest", "web"]]
    made = [(s["vm"], s["process"], s["space"], s["accesses"]) for s in document["slices"]]
    assert made == [
        ("web", "", 0, 16384), ("guest", "db", 0, 4096), ("guest", "web", 1, 4096),
        ("web", "", 0, 16384), ("guest", "db", 0, 4096), ("guest", "web", 1, 4096),
    ]  # fmt: skip
    assert [s["why"] for s in document["slices"]] == ["quantum", "turn", "quantum"] * 2
    assert not document["whole"]
    with open("s.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["vm", "process", "space", "begin", "end", "accesses", "why", "lp", "vcpu"]
    assert [row[:2] for row in rows[1:3]] == [["web", ""], ["guest", "db"]]
    assert "<svg" in (folder / "s.svg").read_text()
    assert sorted(os.listdir()) == [
        "db.parquet", "s.csv", "s.json", "s.svg", "s.toml", "web.parquet",
    ]  # fmt: skip


def test_the_command_draws_traces_with_the_options_of_replay(folder, capsys):
    options = ["--quantum", "4096accesses", "--weights", "3,1", "--starts", "0,4096accesses"]
    assert show("web.parquet", "db.parquet", *options, "--slices", "4", "--csv", "s.csv") == 0
    rows = (folder / "s.csv").read_text().splitlines()[1:]
    assert [(row.split(",")[0], row.split(",")[5]) for row in rows] == [
        ("web", "12288"), ("db", "4096"), ("web", "12288"), ("db", "4096"),
    ]  # fmt: skip
    assert show("--schedule", "s.toml", "--quiet") == 0
    assert show("web.parquet", "--quiet", "--figure", "s.png") == 0
    assert (folder / "s.png").stat().st_size > 1000


def test_a_time_or_a_number_of_accesses_ends_the_drawing_at_a_block_end(folder):
    config = mmu.load_schedule("s.toml")
    seen = mmu.record_slices(config, until="20000accesses")
    assert [s.accesses for s in seen.slices] == [16384, 4096]
    assert seen.slices[-1].why == "turn"
    seen = mmu.record_slices(config, until="8193accesses")
    assert [(s.accesses, s.why) for s in seen.slices] == [(12288, "going on")]
    cycles = seen.slices[0].end
    assert mmu.record_slices(config, until=f"{cycles}cycles") == seen
    later = mmu.record_slices(config, until=f"{cycles + 1}cycles")
    assert later.slices[0].accesses == 16384


def test_a_run_is_whole_only_if_all_of_its_slices_were_seen(folder):
    config = mmu.options.configured(["web.parquet"], quantum="16384accesses", memory="64MiB")
    for most, found in ((2, 2), (3, 3), (4, 3)):
        seen = mmu.record_slices(config, most)
        assert (len(seen.slices), seen.whole) == (found, most >= 3)
    late = mmu.options.configured(["web.parquet"] * 2, memory="64MiB", starts=["0", "9s"])
    seen = mmu.record_slices(late, 1, until="40000accesses")
    assert (len(seen.slices), seen.whole) == (1, False)


def test_a_time_alone_stops_at_no_number_of_slices(folder):
    options = ["--quantum", "1accesses", "--repeat", "4", "--until", "9s", "--csv", "s.csv"]
    assert show("web.parquet", *options, "--quiet") == 0
    assert len((folder / "s.csv").read_text().splitlines()) == 1 + 40


@pytest.mark.slow
def test_a_whole_run_is_seen_whole_and_as_the_replay_counts_it(folder):
    config = mmu.load_schedule("s.toml", starts=["5ms", "0"])
    seen = mmu.record_slices(config, 10_000)
    result = mmu.Replay(config).run()
    assert seen.whole
    assert sum(s.accesses for s in seen.slices) == 120_000
    switched = result.cycle_count(("switch",))
    assert sum(s.end - s.begin for s in seen.slices) == result.clock - switched
    assert sum(s.end - s.begin for s in seen.slices if s.why == "idle") == result.cycles["idle"][0]
    assert len(mmu.record_slices(config, len(seen.slices)).slices) == len(seen.slices)
    assert mmu.record_slices(config, len(seen.slices)).whole
    assert not mmu.record_slices(config, len(seen.slices) - 1).whole
    for first, second in zip(seen.slices, seen.slices[1:], strict=False):
        assert first.end <= second.begin


@pytest.mark.parametrize("most", [0, -1, True, 1.5, 1 << 30])
def test_a_number_of_slices_that_is_none_is_refused(folder, most):
    with pytest.raises(InputError, match=r"slices: found .*; accepted: a whole number from 1 to"):
        mmu.record_slices(mmu.load_schedule("s.toml"), most)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"TRACES: found nothing; accepted: TRACES..., or --schedule FILE"),
        (["no.toml"], "cannot read 'no.toml': No such file"),
        (
            ["s.toml", "--slices", "0"],
            "--slices: found 0; accepted: a whole number of at least 1",
        ),
        (["s.toml", "--until", "5"], "--until: found '5'; accepted: 0, or a number with us, ms"),
        (["s.toml", "--until", "0ms"], "until: found '0ms'; accepted: a time above 0"),
        (["s.toml", "--weights", "1"], r"--weights: found '1'; accepted: 2 of them, one for"),
        (["s.toml", "--weights", "0,1"], "--weights: found 0; accepted: a whole number"),
        (["s.toml", "--starts", "0,5h"], "--starts: found '5h'; accepted: 0, or a number"),
        (["web.parquet", "--starts", "9accesses"], "start: found 9 accesses for 'web', .*up to 0,"),
        (["web.parquet", "--schedule", "s.toml"], "found 1 traces and schedule 's.toml'; accepted"),
        (["s.toml", "--json", "s.toml"], "--json: 's.toml': also read as 's.toml'"),
        (["s.toml", "--csv", "web.parquet"], "--csv: 'web.parquet': also read as 'web.parquet'"),
        (["s.toml", "--figure", "x.gif"], r"--figure: found 'x.gif'; accepted: .* .png | .svg"),
    ],
)
def test_what_cannot_be_drawn_is_refused_on_one_line(folder, capsys, arguments, message):
    assert show(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.search(message, err), err


def test_the_group_explains_itself(capsys):
    assert cli.main(["schedule"]) == 0
    assert "show" in capsys.readouterr().out
    assert cli.main(["schedule", "shw"]) == 2
    assert "did you mean 'show'" in capsys.readouterr().err
