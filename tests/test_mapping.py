"""The whole map of a space says of every page what `mmu.translate` says, and nothing else."""

import numba
import numpy as np
import pytest
from exact import PAGE, PS, WB, XD, A, D, P, Pages, U, W, package
from handtables import HandTables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mapping_oracle import HUGE, LARGE, NONE, agrees, grid
from test_exact_random import soups, worlds

import mmu

EXAMPLES = 20 if numba.config.DISABLE_JIT else 150
RELAXED = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@RELAXED
@given(st.data())
def test_every_page_of_random_tables_and_no_other_is_in_the_map(data):
    world, control, nested, gvas, entries = data.draw(worlds())
    words = world.pages.words
    # A word that is an entry of the guest's and of EPT's at once means two things: none is made so.
    bits = [*range(12), *range(22, 64)] if world.kind == "ept" else [*range(64)]
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.sampled_from(entries))
        words[place] = words.get(place, 0) ^ 1 << data.draw(st.sampled_from(bits))
    memory = world.pages.memory()
    question = {"cr3": world.root, "nested": package(nested), "control": package(control)}
    found = mmu.mapping(memory, **question)
    agrees((memory, question), found, grid(world.levels, gvas))


@RELAXED
@given(soups(), st.sampled_from([1, 50, 500] if numba.config.DISABLE_JIT else [1, 1000, 20_000]))
def test_tables_that_are_each_others_end_the_map_or_are_refused(soup, most):
    pages, gvas, question = soup
    memory = mmu.Memory.from_words(pages.array(), pages.base)
    question = {
        "cr3": question["cr3"],
        "nested": package(question["nested"]),
        "control": package(question["control"]),
    }
    try:
        found = mmu.mapping(memory, most=most, **question)
    except mmu.InputError as error:
        refused = str(error)
        assert "no end" in refused
        return
    assert found.pages <= most
    if not isinstance(question["nested"], mmu.Ept):
        asked = np.array([gva % (1 << 64) for gva in gvas], np.uint64)
        agrees((memory, question), found, asked)


def native(pages=64):
    tables = HandTables(pages)
    return tables, tables.take()


def described(found):
    """Ranges, short."""
    return [
        (first, size, "".join(n for n, has in zip("urwxg", row, strict=True) if has), gpa, page)
        for first, size, row, gpa, page in zip(
            found.first.tolist(), found.size.tolist(),
            zip(found.user, found.read, found.write, found.execute, found.is_global, strict=True),
            found.gpa.tolist(), found.page_size.tolist(), strict=True,
        )
    ]  # fmt: skip


def test_neighbours_are_one_range_where_rights_size_and_frames_agree():
    tables, root = native()
    for page, frame, leaf in (
        (0, 50, 7), (1, 51, 7), (2, 53, 7), (3, 54, 5), (4, 55, 5 | XD),
        (5, 56, 5 | XD | 1 << 8), (7, 58, 7),
    ):  # fmt: skip
        tables.map_native(root, 0x40_0000 + page * PAGE, frame * PAGE, leaf=leaf)
    tables.map_native(root, 0x60_0000, 0x80_0000, level=2)
    tables.map_native(root, HUGE, 3 * HUGE, level=3)
    memory = mmu.Memory.from_words(tables.words)
    assert described(mmu.mapping(memory, cr3=root)) == [
        (0x40_0000, 2 * PAGE, "urwx", 50 * PAGE, PAGE),
        (0x40_2000, PAGE, "urwx", 53 * PAGE, PAGE),
        (0x40_3000, PAGE, "urx", 54 * PAGE, PAGE),
        (0x40_4000, PAGE, "ur", 55 * PAGE, PAGE),
        (0x40_5000, PAGE, "urg", 56 * PAGE, PAGE),
        (0x40_7000, PAGE, "urwx", 58 * PAGE, PAGE),
        (0x60_0000, LARGE, "urwx", 0x80_0000, LARGE),
        (HUGE, HUGE, "urwx", 3 * HUGE, HUGE),
    ]


def test_merged_by_rights_a_range_has_frames_and_sizes_of_any_kind():
    tables, root = native()
    for page in range(512):
        frame = (600 + page * 2) * PAGE
        tables.map_native(root, 0x40_0000 + page * PAGE, frame, leaf=7 | 1 << 8)
    tables.map_native(root, 0x60_0000, 0x80_0000, level=2)
    tables.map_native(root, 0x80_0000, 0xA0_0000, level=2, leaf=P | U)
    found = mmu.mapping(mmu.Memory.from_words(tables.words), cr3=root, merge="rights")
    assert described(found) == [
        (0x40_0000, 2 * LARGE, "urwx", 600 * PAGE, 0),
        (0x80_0000, LARGE, "urx", 0xA0_0000, LARGE),
    ]
    assert found.guest_page_size.tolist() == [0, LARGE]
    assert found.nested_page_size.tolist() == [0, 0]


@pytest.mark.parametrize(("la57", "bits"), [(False, 48), (True, 57)])
def test_the_halves_of_a_space_are_apart_and_their_ends_are_the_canonical_ones(la57, bits):
    pages = Pages()
    root = pages.take()
    half = 1 << bits - 1
    first = half - HUGE, (1 << 64) - half
    for gva, frame in zip(first, (HUGE, 2 * HUGE), strict=True):
        pages.chain(gva, frame | 7, 5 if la57 else 4, level=3, root=root)
    pages.chain((1 << 64) - PAGE, 0x5000 | 7, 5 if la57 else 4, root=root)
    control = mmu.Control(la57=la57)
    for merge in ("frames", "rights"):
        found = mmu.mapping(pages.memory(), cr3=root, control=control, merge=merge)
        assert found.first.tolist() == [*first, (1 << 64) - PAGE]
        assert found.size.tolist() == [HUGE, HUGE, PAGE]


def test_entries_that_no_processor_accepts_and_tables_outside_memory_are_holes():
    tables, root = native()
    tables.map_native(root, 0x1000, 0x9000)
    table = tables.free - PAGE
    tables.put(table, 2, 0xA000 | 7 | 1 << 50)  # beyond maxphyaddr
    tables.put(table, 3, 0xB000 | 7 | 1 << 50)
    tables.put(root, 1, 1 << 40 | 7)
    found = mmu.mapping(mmu.Memory.from_words(tables.words), cr3=root)
    assert described(found) == [(0x1000, PAGE, "urwx", 0x9000, PAGE)]
    assert found.hole_first.tolist() == [0x2000, 1 << 39]
    assert found.hole_size.tolist() == [2 * PAGE, 1 << 39]
    outcomes = [mmu.Outcome.PAGE_FAULT, mmu.Outcome.NO_MEMORY]
    assert found.hole_outcome.tolist() == outcomes
    assert found.hole_entry.tolist() == [table + 16, 1 << 40]


def test_a_root_outside_memory_is_a_hole_in_either_half():
    memory = mmu.Memory.from_words(np.zeros(512, np.uint64))
    found = mmu.mapping(memory, cr3=0x10_0000)
    assert found.hole_first.tolist() == [0, NONE - (1 << 47) + 1]
    assert found.hole_size.tolist() == [1 << 47, 1 << 47]
    nested = mmu.mapping(memory, cr3=0x10_0000, nested=mmu.Npt(0))
    assert nested.hole_first.tolist() == found.hole_first.tolist()
    assert nested.hole_outcome.tolist() == 2 * [mmu.Outcome.NESTED_VIOLATION]
    beyond = mmu.mapping(memory, cr3=1 << 50, nested=mmu.Npt(0))
    assert beyond.hole_entry.tolist() == [NONE, NONE]


def test_guest_pages_are_told_by_the_pieces_that_nested_pages_cut_them_in():
    tables, nested_root = native(2048)
    root = tables.take()
    directory = tables.take()
    tables.put(root, 0, directory | 7)
    tables.put(directory, 4, 8 * HUGE | 7 | PS)
    for table in (root, directory):
        tables.map_nested(nested_root, table, table)
    tables.map_nested(nested_root, 8 * HUGE, 2 * HUGE + LARGE, level=2)
    tables.map_nested(nested_root, 8 * HUGE + LARGE, 0x5000)
    tables.map_nested(nested_root, 8 * HUGE + LARGE + PAGE, 0x7000, leaf=1 | WB)
    tables.map_nested(nested_root, 8 * HUGE + LARGE + 9 * PAGE, 0x9000, leaf=7 | 2 << 3)
    found = mmu.mapping(
        mmu.Memory.from_words(tables.words), cr3=root, nested=mmu.Ept.at(nested_root)
    )
    start = 4 * HUGE
    assert described(found) == [
        (start, LARGE, "urwx", 8 * HUGE, LARGE),
        (start + LARGE, PAGE, "urwx", 8 * HUGE + LARGE, PAGE),
        (start + LARGE + PAGE, PAGE, "ur", 8 * HUGE + LARGE + PAGE, PAGE),
    ]
    assert found.maddr.tolist() == [2 * HUGE + LARGE, 0x5000, 0x7000]
    assert found.guest_page_size.tolist() == 3 * [HUGE]
    rest = start + LARGE + 10 * PAGE
    assert found.hole_first.tolist() == [start + LARGE + 2 * PAGE, start + LARGE + 9 * PAGE, rest]
    assert found.hole_size.tolist()[:2] == [7 * PAGE, PAGE]
    assert sum(found.hole_size[2:].tolist()) == start + HUGE - rest


def test_without_dirty_bits_of_ept_a_table_that_is_read_only_gives_no_right_to_write():
    """To set the accessed or dirty bit of a guest entry there is an access that EPT denies."""
    tables, nested_root = native(2048)
    root = tables.take()
    places = [root]
    for _ in range(3):
        places.append(tables.take())
        tables.put(places[-2], 0, places[-1] | 7 | A)
    tables.put(places[-1], 0, 0x1000 | 7 | A | D)
    tables.put(places[-1], 1, 0x2000 | 7 | A)
    tables.put(places[-1], 2, 0x3000 | 7)
    for table in places:
        tables.map_nested(nested_root, table, table, leaf=1 | WB)
    for frame in (0x1000, 0x2000, 0x3000):
        tables.map_nested(nested_root, frame, frame)
    nested = mmu.Ept.at(nested_root, dirty=False)
    memory = mmu.Memory.from_words(tables.words)
    found = mmu.mapping(memory, cr3=root, nested=nested)
    assert [row[:3] for row in described(found)] == [(0, PAGE, "urwx"), (PAGE, PAGE, "urx")]
    assert found.hole_first.tolist() == [2 * PAGE]
    question = {"cr3": root, "nested": nested, "control": mmu.Control()}
    agrees((memory, question), found, grid(4, []))


def test_a_million_pages_are_found_in_a_moment_and_more_than_asked_for_are_refused():
    count = 16 if numba.config.DISABLE_JIT else 2048
    words = np.zeros((count + 8) * 512, np.uint64)
    words[0] = 0x1007
    words[512 : 512 + 4] = (np.arange(4, dtype=np.uint64) + np.uint64(2)) * PAGE + 7
    words[1024 : 1024 + count] = (np.arange(count, dtype=np.uint64) + np.uint64(8)) * PAGE + 7
    frames = np.random.default_rng(0).permutation(count * 512).astype(np.uint64)
    words[8 * 512 :] = frames * PAGE + 7
    memory = mmu.Memory.from_words(words)
    told = []
    found = mmu.mapping(memory, cr3=0, progress=lambda done, whole: told.append((done, whole)))
    assert found.pages == count * 512
    assert found.tables == count + 2 + -(-count // 512) + (4 - -(-count // 512))
    assert np.all(np.diff(np.array(told)[:, 0]) >= 0) if told else count < 2048
    assert mmu.mapping(memory, cr3=0, most=count * 512).pages == found.pages
    with pytest.raises(mmu.InputError, match=f"more than {count * 512 - 1:,} pages"):
        mmu.mapping(memory, cr3=0, most=count * 512 - 1)


def test_tables_that_point_to_themselves_are_refused_in_one_line(monkeypatch):
    words = np.zeros(1024, np.uint64)
    words[:512] = 7
    memory = mmu.Memory.from_words(words)
    with pytest.raises(mmu.InputError, match="no end") as caught:
        mmu.mapping(memory, cr3=0, most=1000 if numba.config.DISABLE_JIT else 1_000_000)
    assert "\n" not in str(caught.value)
    words = np.repeat(np.array([0x1007, 0x2007, 0x3007, 0], np.uint64), 512)
    memory = mmu.Memory.from_words(words)  # every path leads to one empty table
    if numba.config.DISABLE_JIT:
        monkeypatch.setattr("mmu.spacemap.LEAST_TABLES", 10)
    with pytest.raises(mmu.InputError, match="tables and only 0 pages"):
        mmu.mapping(memory, cr3=0, most=1000)


def test_a_self_map_is_listed_as_any_other_pages():
    tables, root = native()
    tables.map_native(root, 0x1000, 0x9000)
    tables.put(root, 256 + 99, root | P | W)
    found = mmu.mapping(mmu.Memory.from_words(tables.words), cr3=root)
    memory = mmu.Memory.from_words(tables.words)
    assert found.pages == 1 + 4  # the page, and a table of each level
    agrees((memory, {"cr3": root, "nested": None, "control": mmu.Control()}), found, grid(4, []))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"merge": "all"}, "merge: found 'all'"),
        ({"most": 0}, "most: found 0"),
        ({"most": 1.5}, "most: found 1.5"),
        ({"cr3": -1}, "cr3"),
        ({"nested": 5}, "nested"),
        ({"control": 5}, "control"),
    ],
)
def test_a_wrong_argument_is_refused(wrong, says):
    memory = mmu.Memory.from_words(np.zeros(512, np.uint64))
    with pytest.raises(mmu.InputError, match=says):
        mmu.mapping(memory, **{"cr3": 0} | wrong)


def test_the_memory_is_left_as_it_was():
    tables, root = native()
    tables.map_native(root, 0x1000, 0x9000)
    before = tables.words.copy()
    mmu.mapping(mmu.Memory.from_words(tables.words), cr3=root)
    assert np.array_equal(tables.words, before)


def nested_guest(frames, table_leaf=7, leaf=7):
    """A guest in NPT whose pages 0, 1, ... lie at guest-physical frames, each backed by a machine's."""
    tables, host = native(2048)
    root = tables.take()
    for page, (gpa, _) in enumerate(frames):
        tables.map_native(root, page * PAGE, gpa * PAGE)
    guest = range(root, tables.free, PAGE)
    for place in guest:
        rights = table_leaf if place == guest[-1] else 7
        tables.map_nested(host, place, place, link=7, leaf=rights)
    for gpa, maddr in frames:
        tables.map_nested(host, gpa * PAGE, maddr * PAGE, link=7, leaf=leaf)
    return mmu.mapping(mmu.Memory.from_words(tables.words), cr3=root, nested=mmu.Npt(host))


def test_a_range_goes_on_only_where_both_addresses_do():
    apart = nested_guest([(0x700, 0x900), (0x703, 0x901), (0x704, 0x906), (0x705, 0x907)])
    assert apart.size.tolist() == [PAGE, PAGE, 2 * PAGE]
    assert apart.gpa.tolist() == [0x70_0000, 0x70_3000, 0x70_4000]
    assert apart.maddr.tolist() == [0x90_0000, 0x90_1000, 0x90_6000]


@pytest.mark.parametrize("wrong", [{"leaf": P | W}, {"table_leaf": P | W}, {"table_leaf": P | U}])
def test_what_npt_denies_every_access_to_is_a_hole(wrong):
    """A page that is the host supervisor's; a guest's table that is, or that is not to be written."""
    found = nested_guest([(0x700, 0x900)], **wrong)
    assert len(found.first) == 0
    assert found.hole_outcome.tolist() == [mmu.Outcome.NESTED_VIOLATION]
    assert found.hole_size.tolist() == [LARGE if "table_leaf" in wrong else PAGE]
    readable = nested_guest([(0x700, 0x900)], leaf=P | U)
    assert described(readable)[0][2] == "urx"


def test_the_answer_is_the_same_however_small_its_pieces(monkeypatch):
    tables, root = native()
    frames = [50, 51, 53, 54, 58, 59, 60, 62, 64, 66, 67]
    for page, frame in enumerate(frames):
        tables.map_native(root, page * PAGE, frame * PAGE)
    memory = mmu.Memory.from_words(tables.words)
    whole = described(mmu.mapping(memory, cr3=root))
    assert sum(row[1] for row in whole) == len(frames) * PAGE
    monkeypatch.setattr("mmu.spacemap.ENTRIES_AT_ONCE", 3)
    for rows in (2, 3, 4):
        monkeypatch.setattr("mmu.spacemap.ROWS", rows)
        assert described(mmu.mapping(memory, cr3=root)) == whole


def test_more_ranges_than_memory_would_hold_are_refused_whatever_was_asked_for(monkeypatch):
    words = np.full(512, P | W | U, np.uint64)
    monkeypatch.setattr("mmu.spacemap.ROWS", 64)
    monkeypatch.setattr("mmu.spacemap.MOST_RANGES", 1000)
    with pytest.raises(mmu.InputError, match="most: found more than 1,000 ranges below cr3 0x0"):
        mmu.mapping(mmu.Memory.from_words(words), cr3=0, most=1 << 40)
