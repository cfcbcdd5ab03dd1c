"""Reports against text, and figures that are drawn at all."""

import dataclasses
import io

import pytest
from handmade import comparison, config, result, two_processors
from rich.console import Console

from mmu import blocks, plot, report
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
walk latency, mean                                   68.7      68.7      68.7      68.7
walk latency, 50 %                                     20        20        20        20
walk latency, 90 %                                     60        60        60        60
walk latency, 99 %                                    640       640       640       640
table reads served by L1D                         50.00 %   50.00 %   50.00 %   50.00 %
table reads served by L2                          25.00 %   25.00 %   25.00 %   25.00 %
table reads served by L3                          15.62 %   15.62 %   15.62 %   15.62 %
table reads served by memory                       9.38 %    9.38 %    9.38 %    9.38 %
misses, first touch                               40.00 %   40.00 %   40.00 %   40.00 %
misses, capacity                                  20.00 %   20.00 %   20.00 %   20.00 %
misses, conflict                                   8.00 %    8.00 %    8.00 %    8.00 %
misses, evicted by another VM                     16.00 %   16.00 %   16.00 %   16.00 %
misses, lost to a flush or purge                  12.00 %   12.00 %   12.00 %   12.00 %
misses, lost to an invalidation                    4.00 %    4.00 %    4.00 %    4.00 %

db                                                 tagged     purge     flush    native
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
CAUSES = """\
misses by cause            web   db   total   hypervisor
--------------------------------------------------------
first touch                 10    8      18            1
capacity                     5    7      12            0
conflict                     2    0       2            0
evicted by another VM        4    5       9            2
lost to a flush or purge     3    0       3            0
lost to an invalidation      1    0       1            0

table reads by where served   web   db   total   hypervisor
-----------------------------------------------------------
guest, l1d                     60   10      70           20
guest, l2                      30    5      35            0
guest, l3                      20    5      25            0
guest, memory                  10    0      10            0
nested, l1d                   100    0     100            0
nested, l2                     50    0      50            0
nested, l3                     30    0      30            0
nested, memory                 20    0      20            0
"""
PROCESSORS = """\
cycles by processor     all   base   translation   faults   exits   idle
------------------------------------------------------------------------
0                     3,400    600         1,900      300     600      0
1                       800    500           100        0       0    200
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


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"window": 64}, "window 64 instructions"),
        ({"shootdowns_per_second": 3000}, "3,000 shootdowns/s"),
        ({"table_reads": "shared"}, "table reads shared"),
        ({"table_reads": "fixed"}, "table reads fixed"),
        ({"pinned": True, "migration_flush": False}, "pinned, no migration flush"),
    ],
)
def test_the_heading_says_what_is_seldom_asked_for(fields, said):
    expected = f", 0 exits/s, {said}, guest pages 4k, nested pages auto, seed 0"
    assert report.heading(result(**fields)).endswith(expected)
    assert said not in report.heading(result())


def test_the_heading_says_how_many_virtual_processors_machines_have():
    run = result()
    run.config["vms"][0]["vcpus"] = 4
    assert "vcpus 1/4, " in report.heading(run)
    assert "vcpus" not in report.heading(result())


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
    assert "Counts of nothing are left out." in lines


def test_one_run_shows_why_it_missed_and_where_its_tables_were_read():
    assert CAUSES in text(result())


def test_causes_that_were_not_told_are_not_shown():
    plain = dataclasses.replace(result(), misses={}, reads={}, walk_latency=[{}] * 4)
    for words in ("misses by", "misses, first", "by where served", "served by", "walk latency"):
        assert words in text(result())
        assert words not in text(plain)
    assert "Misses are those of every TLB" in text(result())
    assert "Misses are those of every TLB" not in text(plain)


def test_parts_of_nothing_and_counts_of_nothing_are_left_out():
    misses = result().misses | {"conflict": [0, 0, 0, 5]}
    lines = text(dataclasses.replace(result(), misses=misses)).splitlines()
    assert not any(line.startswith("misses, conflict") for line in lines)
    assert sum(line.split() == ["conflict", "0", "0", "0", "5"] for line in lines) == 1
    assert not any(line.startswith(("exits ", "migration", "conflict ")) for line in text(result()))


def test_evictions_are_shown_if_there_are_any():
    assert "evictions, by row of column" in text(result())
    assert "evictions" not in text(dataclasses.replace(result(), evictions=[[0] * 3] * 3))


def test_several_processors_have_a_table_and_are_in_the_heading():
    run = two_processors()
    assert PROCESSORS in text(run)
    assert report.heading(run).startswith("skylake-sp, 2 logical processors, 2 VMs, ")
    assert "cycles by processor" not in text(result())
    assert "processors" not in report.heading(result())


CLOCKS = """
cycles to the end    tagged   native
------------------------------------
longest processor     3,400    4,000
shortest processor      800    4,000

"""


def test_a_comparison_on_several_processors_says_when_each_mode_ended():
    both = {"tagged": two_processors(), "native": result("native")}
    both["native"] = dataclasses.replace(both["native"], clocks=[4000, 4000])
    assert CLOCKS in text(report.Comparison(both))
    assert "to the end" not in text(comparison())


def test_a_heading_too_long_for_a_line_goes_on_in_the_next():
    run = two_processors()
    lines = report.lines(run)
    assert " ".join(lines[:2]) == report.heading(run)
    assert max(map(len, lines)) <= blocks.WIDTH
    assert lines[2] == ""


def test_footnotes_do_not_say_that_purge_and_flush_agree_on_several_processors():
    both = {mode: dataclasses.replace(two_processors(), mode=mode) for mode in ("purge", "flush")}
    assert "equal rates" not in "\n".join(report.notes(report.Comparison(both)))


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
        assert max(map(len, lines)) <= blocks.WIDTH
    assert any("aaaaaaaaaaaa.." in line for line in lines)


def test_many_machines_are_shown_in_parts():
    wide = blocks.Block("counts", [f"vm{n}" for n in range(30)], [("walks", ["1,000"] * 30)])
    parts = list(blocks._split(wide))
    assert [part.title for part in parts][:2] == ["counts", "counts, continued"]
    assert [name for part in parts for name in part.columns] == wide.columns
    assert all(len(line) <= blocks.WIDTH for p in parts for line in blocks._block_lines(p))


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
        assert max(map(len, report.lines(run))) <= blocks.WIDTH


def test_a_terminal_shows_the_same_numbers():
    for run in (comparison(), result()):
        file = io.StringIO()
        report.show(run, Console(file=file, width=blocks.WIDTH))
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


def heights(axes):
    """Height of each bar of a panel by what it stands for: those that are drawn at all."""
    return {
        bars.get_label(): [round(bar.get_height(), 9) for bar in bars] for bars in axes.containers
    }


def per_thousand(*values):
    return [round(1000 * value, 9) for value in values]


def test_a_stack_holds_every_cause_once():
    causes = [cause for _, group, _ in plot.STACK for cause in group]
    assert sorted(causes) == sorted(result().cycles)
    assert set(plot.MISS_COLOURS) == set(result().misses)
    for stack in (plot.STACK, [(0, 0, c) for c in plot.MISS_COLOURS.values()] + plot.OTHER_WALKS):
        assert len({colour for *_, colour in stack}) == len(stack)


def test_one_result_is_a_panel_with_a_bar_for_each_machine_and_the_total():
    cycles = result().cycles | {"shootdown": [300, 0], "cr3_load": [0, 50], "migration": [60, 0]}
    figure = plot.draw(dataclasses.replace(result("purge"), cycles=cycles))
    upper, lower = figure.axes
    assert upper.get_title() == "mode purge"
    assert [name.get_text() for name in upper.get_xticklabels()] == ["web", "db", "total"]
    drawn = heights(upper)
    assert list(drawn) == [label for label, _, _ in plot.STACK]
    assert drawn["instructions"] == [1, 1, 1]
    assert drawn["nested tables"] == [round(500 / 600, 9), 0, round(500 / 1100, 9)]
    assert drawn["switches and migrations"] == [round(260 / 600, 9), 0, round(260 / 1100, 9)]
    assert drawn["invalidations and CR3 loads"] == [0.5, 0.1, round(350 / 1100, 9)]
    assert [note.get_text() for note in upper.texts] == ["5.60", "2.10", "4.01"]
    assert heights(lower)["first touch"] == per_thousand(10 / 600, 8 / 500, 18 / 1100)


def test_walks_are_drawn_by_the_cause_of_the_miss_where_all_modes_told_it():
    runs = comparison(("tagged", "flush")).results
    lower = plot.draw(report.Comparison(runs)).axes[3]
    assert heights(lower) == {
        "first touch": per_thousand(10 / 600, 10 / 600),
        "capacity": per_thousand(5 / 600, 5 / 600),
        "conflict": per_thousand(2 / 600, 2 / 600),
        "evicted by another VM": per_thousand(4 / 600, 4 / 600),
        "lost to a flush or purge": per_thousand(3 / 600, 3 / 600),
        "lost to an invalidation": per_thousand(1 / 600, 1 / 600),
        "dirty walks": per_thousand(5 / 600, 5 / 600),
        "hypervisor's walks": per_thousand(4 / 600, 4 / 600),
    }
    runs["flush"] = dataclasses.replace(runs["flush"], misses={})
    lower = plot.draw(report.Comparison(runs)).axes[3]
    assert list(heights(lower)) == ["walks", "dirty walks", "hypervisor's walks"]
    assert heights(lower)["walks"] == per_thousand(25 / 600, 25 / 600)


def test_the_legend_holds_what_some_panel_shows_and_nothing_else():
    figure = plot.draw(comparison())
    above, below = ([text.get_text() for text in legend.get_texts()] for legend in figure.legends)
    assert above == [label for label, _, _ in plot.STACK if "CR3" not in label]
    assert below[0] == "first touch"
    assert len(below) == 8


def many(names):
    """The first machine's counts for each name."""
    run = result()
    count = len(names)

    def rows(table):
        return {key: column[:1] * count + column[2:3] * count for key, column in table.items()}

    return dataclasses.replace(
        run,
        vms=names,
        counters=rows(run.counters),
        hits=rows(run.hits),
        reads=rows(run.reads),
        misses=rows(run.misses),
        cycles={k: column[:1] * count for k, column in run.cycles.items()},
        references=[{4: 1}] * (2 * count),
        walk_latency=[{4: 1}] * (2 * count),
    )


def test_a_figure_of_many_machines_has_several_bands():
    names = [f"vm{n}" for n in range(6)]
    figure = plot.draw(report.Comparison({mode: many(names) for mode in ("purge", "flush")}))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == [*names, "total"]
    names = [f"vm{n}" for n in range(20)]
    upper = plot.draw(many(names)).axes[::2]
    ticks = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in upper]
    assert ticks == [names[:11], [*names[11:], "total"]]


def test_a_single_machine_has_no_total_of_its_own_in_the_figure():
    alone = {name: [column[0], 0, column[2], 0] for name, column in result().counters.items()}
    run = dataclasses.replace(result(), counters=alone)
    figure = plot.draw(report.Comparison({"tagged": run, "purge": run}))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["web"]


def test_the_configuration_in_a_report_is_that_of_a_run():
    assert config().expanded()["vms"][0]["name"] == "web"
