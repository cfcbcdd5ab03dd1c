"""The figure of a walk: drawn for every ending, without overlaps."""

import pytest
from test_cli import mmu
from test_walk_endings import ENDINGS, made_and_walked, put

import mmu as package
from mmu.example import example_tables

GVA = 0x7F00_1234_5678
XD = 1 << 63


@pytest.mark.parametrize("name", ENDINGS)
def test_a_figure_is_drawn_of_every_ending(name, tmp_path):
    from mmu.plot_walk import draw  # noqa: PLC0415

    _, walk = made_and_walked(*ENDINGS[name][:3])
    texts = [text.get_text() for text in draw(walk).axes[0].texts]
    assert texts[0].endswith(f"of gva {walk.gva:#x}")
    for read in walk.reads:
        assert str(read.number) in texts
        assert f"{read.address:#x}" in texts
    assert ("data" in texts) == (walk.ending.title == "translated" or bool(walk.nested))


@pytest.mark.parametrize("levels", [4, 5])
def test_nothing_in_a_figure_overlaps_or_leaves_it(levels):
    """Texts, as they are drawn, of the shapes with the most and the fewest cells."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    from mmu.plot_walk import draw  # noqa: PLC0415

    control = package.Control(la57=levels == 5)
    for guest, nested in (("4k", "4k"), ("2m", "2m"), ("1g", "1g"), ("1g", "native")):
        made = example_tables(guest, nested, levels=levels, nested_levels=levels)
        walk = package.explain(made.memory, GVA, cr3=made.cr3, nested=made.nested, control=control)
        figure = draw(walk)
        renderer = FigureCanvasAgg(figure).get_renderer()
        width, height = figure.get_size_inches() * figure.dpi
        boxes = [
            text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text()
        ]
        for n, box in enumerate(boxes):
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height
            assert not any(box.overlaps(other) for other in boxes[n + 1 :])


def test_what_stands_in_a_cell_is_no_wider_than_it(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    from mmu.plot_walk import WIDTH, draw  # noqa: PLC0415

    made = example_tables("4k", "native", gva=-1)
    top = (1 << 52) - (4 << 20)
    memory = package.Memory.from_words(made.memory.words, top)
    entries = [0x7FF0_0000_0000_0F7F | XD] * 3 + [0x7FF0_0000_0000_0FFF | XD]
    for n, entry in enumerate(entries, 1):
        put(made, 0x4000_0FF8 + 4096 * n, entry | top + 4096 * (n + 1))
    walk = package.explain(
        memory, -1, cr3=top + 4096, control=package.Control(maxphyaddr=52), user=True
    )
    assert walk.translation.outcome == package.Outcome.OK
    figure = draw(walk)
    renderer = FigureCanvasAgg(figure).get_renderer()
    cells = [text for text in figure.axes[0].texts if text.get_ha() == "center"]
    widths = [text.get_window_extent(renderer).width / figure.dpi for text in cells]
    assert len(widths) == 1 + 2 * 5
    assert 0.8 * WIDTH < max(widths) <= WIDTH - 0.04


def test_figures_are_written(capsys, tmp_path):
    for name, head in (("w.png", b"\x89PNG"), ("w.svg", b"<?xml")):
        mmu(capsys, "walk", GVA, "--quiet", "--figure", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(head)


# --- other sources ---------------------------------------------------------------------------------
