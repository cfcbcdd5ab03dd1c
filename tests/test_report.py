"""Reports against text, and figures that are drawn at all."""

import dataclasses
import io

import pytest
from handmade import comparison, config, result
from rich.console import Console

from mmu import plot, report
from mmu.errors import InputError

WEB = """\
web                                                tagged     purge     flush    native
---------------------------------------------------------------------------------------
hit rate, L1 data                                 90.00 %   90.00 %   90.00 %   90.00 %
hit rate, L1 fetch                                98.33 %   98.33 %   98.33 %   98.33 %
hit rate, L2                                      50.00 %   50.00 %   50.00 %   50.00 %
hit rate, PDE cache                               50.00 %   50.00 %   50.00 %   50.00 %
hit rate, PDPTE cache                             50.00 %   50.00 %   50.00 %   50.00 %
hit rate, PML4E cache                             25.00 %   25.00 %   25.00 %   25.00 %
hit rate, nested TLB                              75.00 %   75.00 %   75.00 %         -
misses per 1,000 instructions, L1 data             66.667    66.667    66.667    66.667
misses per 1,000 instructions, L1 fetch            16.667    16.667    16.667    16.667
misses per 1,000 instructions, L2                  41.667    41.667    41.667    41.667
misses per 1,000 instructions, nested TLB          16.667    16.667    16.667         -
walks per 1,000 instructions                       41.667    41.667    41.667    41.667
dirty walks per 1,000 instructions                  8.333     8.333     8.333     8.333
hypervisor's walks per 1,000 instr.                 6.667     6.667     6.667     6.667
references per walk                                 10.67     10.67     10.67     10.67
cycles per instruction                              5.000     5.000     5.000     5.000
share of cycles, running instructions             20.00 %   20.00 %   20.00 %   20.00 %
share of cycles, translation                      50.00 %   50.00 %   50.00 %   50.00 %
share of cycles, faults                           10.00 %   10.00 %   10.00 %   10.00 %
share of cycles, exits, switches and hypervisor   20.00 %   20.00 %   20.00 %   20.00 %
"""
CYCLES = """\
cycles           web      db   total
------------------------------------
base             600     500   1,100
l2               400       0     400
walk_cache       100       0     100
nested_tlb       100       0     100
guest_table      300     500     800
nested_table     500       0     500
update           100       0     100
guest_fault      200       0     200
nested_fault     100       0     100
exit             300       0     300
switch           200       0     200
hypervisor       100       0     100
all            3,000   1,000   4,000
"""
SMALL = """\
walks by references   web   db   total   hypervisor
---------------------------------------------------
1                       0   20      20            0
4                      20    0      20            0
5                       0    0       0            4
24                     10    0      10            0

evictions, by row of column   web   db   hypervisor
---------------------------------------------------
web                             1    2            3
db                              4    5            6
hypervisor                      7    8            9

memory     web   db   hypervisor
--------------------------------
guest_4k    10    5            0
guest_2m     0    1            0
tables       4    4            3
"""


def text(run):
    return "\n".join(report.lines(run)) + "\n"


def named(run, names):
    """The same counts under other names."""
    series = run.series | {
        key: dict(zip(names, run.series[key].values(), strict=True))
        for key in ("accesses", "walks", "cycles")
    }
    return dataclasses.replace(run, vms=list(names), series=series)


def test_a_comparison_has_metrics_as_rows_and_modes_as_columns():
    lines = text(comparison())
    assert WEB in lines
    titles = [line.split()[0] for line in lines.splitlines() if line.endswith("native")]
    assert titles == ["web", "db", "total"]
    assert "\nhit rate, L1 data                                 84.44 %" in lines  # in total


def test_the_heading_says_what_was_run():
    assert report.lines(comparison(exits_per_second=20_000))[0] == (
        "skylake-sp, 2 VMs, quantum 125,000 cycles, 20,000 exits/s, "
        "guest pages 4k, nested pages auto, seed 0"
    )
    assert report.heading(dataclasses.replace(result(), config={})) == "0 VMs, 0 exits/s, seed 0"


def test_figures_that_no_mode_has_are_left_out():
    assert "nested TLB" not in text(comparison(("native",)))
    assert "nested TLB" in text(comparison(("native", "tagged")))


def test_one_run_shows_everything_counted():
    lines = text(result(exits_per_second=20_000))
    assert SMALL in lines
    assert CYCLES in lines
    assert "\nl1_data_misses         40   100     140            4\n" in lines
    assert "\nhits.l2.4k             20    80     100            3\n" in lines
    assert "\nexits                   7     0       7            0\n" in lines


def test_cycles_add_up_in_the_report():
    block = next(b for b in report.result_blocks(result()) if b.title == "cycles")
    rows = dict(block.rows)
    assert rows["base"] == ["600", "500", "1,100"]
    assert rows["all"] == ["3,000", "1,000", "4,000"]


def test_a_wide_block_is_split_and_long_names_are_cut():
    long = named(result(), ["a" * 40, "b" * 40])
    for count in (1, 10**9):
        big = dataclasses.replace(
            long, counters={k: [n * count for n in column] for k, column in long.counters.items()}
        )
        lines = report.lines(big)
        assert max(map(len, lines)) <= report.WIDTH
    assert any("aaaaaaaaaaaa.." in line for line in lines)


def test_many_machines_are_shown_in_parts():
    wide = report.Block("counts", [f"vm{n}" for n in range(30)], [("walks", ["1,000"] * 30)])
    parts = list(report._split(wide))
    assert [part.title for part in parts][:2] == ["counts", "counts, continued"]
    assert [name for part in parts for name in part.columns] == wide.columns
    assert all(len(line) <= report.WIDTH for p in parts for line in report._block_lines(p))


def test_a_machine_that_made_no_access_is_left_out():
    idle = {name: [0, *column[1:]] for name, column in result().counters.items()}
    lines = text(dataclasses.replace(result(), counters=idle))
    assert "web" not in lines.replace("hypervisor for web", "")


@pytest.mark.parametrize("exits", [0, 20_000])
def test_footnotes_say_when_purge_and_flush_must_agree(exits):
    notes = "\n".join(report.notes(comparison(exits_per_second=exits)))
    assert ("on one processor, purge and flush give equal rates" in notes) == (exits == 0)
    assert ("drops all entries at each of 7 exits" in notes) == (exits > 0)
    assert "Hit rates are local" in notes
    assert "Native: the same programs without a hypervisor" in notes


def test_footnotes_are_only_those_that_apply():
    notes = "\n".join(report.notes(comparison(("tagged", "purge"))))
    assert "purge and flush" not in notes
    assert "Native" not in notes
    flushing = comparison(("purge", "flush"))
    processor = flushing["flush"].config["processor"] | {"flush_nested": True}
    flushing["flush"].config["processor"] = processor
    assert "equal rates" not in "\n".join(report.notes(flushing))


def test_no_line_is_wider_than_a_terminal():
    for run in (comparison(), comparison(exits_per_second=5), result()):
        assert max(map(len, report.lines(run))) <= report.WIDTH


def test_a_terminal_shows_the_same_numbers():
    for run in (comparison(), result()):
        file = io.StringIO()
        report.show(run, Console(file=file, width=report.WIDTH))
        shown = file.getvalue().split()
        plain = [word for word in text(run).split() if set(word) != {"-"} or word == "-"]
        assert shown == plain


def test_a_figure_is_png_or_svg_by_its_ending(tmp_path):
    plot.save_figure(comparison(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    plot.save_figure(comparison(("tagged",)), tmp_path / "a.SVG")
    assert b"<svg" in (tmp_path / "a.SVG").read_bytes()[:1000]
    for name in ("a.gif", "a"):
        with pytest.raises(InputError, match=r"found '.*'; accepted: a name that ends in \.png"):
            plot.save_figure(comparison(), tmp_path / name)


def test_a_figure_has_a_panel_of_cycles_and_one_of_walks_for_each_machine_and_the_total():
    figure = plot.draw(comparison())
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["web", "db", "total"]
    upper, lower = figure.axes[0], figure.axes[3]
    assert [note.get_text() for note in upper.texts] == ["5.00"] * 4
    assert [note.get_text() for note in lower.texts] == ["56.67"] * 4
    assert len({axes.get_ylim() for axes in figure.axes[:3]}) == 1


def test_a_stack_holds_every_cause_once():
    causes = [cause for _, group, _ in plot.STACK for cause in group]
    assert sorted(causes) == sorted(result().cycles)


def test_a_figure_of_many_machines_has_several_bands():
    seven = [f"vm{n}" for n in range(6)]
    run = result()
    many = dataclasses.replace(
        run,
        vms=seven,
        counters={k: column[:1] * 6 + column[2:3] * 6 for k, column in run.counters.items()},
        hits={k: column[:1] * 6 + column[2:3] * 6 for k, column in run.hits.items()},
        cycles={k: column[:1] * 6 for k, column in run.cycles.items()},
        references=[{4: 1}] * 12,
    )
    figure = plot.draw(report.Comparison({"tagged": many}))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == [*seven, "total"]


def test_a_single_machine_has_no_total_of_its_own_in_the_figure():
    alone = {name: [column[0], 0, column[2], 0] for name, column in result().counters.items()}
    figure = plot.draw(report.Comparison({"tagged": dataclasses.replace(result(), counters=alone)}))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["web"]


def test_the_configuration_in_a_report_is_that_of_a_run():
    assert config().expanded()["vms"][0]["name"] == "web"
