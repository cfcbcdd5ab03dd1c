"""Named processors, files of the user's, and single values replaced."""

import re

import pytest
from handmade import config
from hypothesis import given
from hypothesis import strategies as st

from mmu import processors
from mmu.config import Processor
from mmu.errors import InputError
from mmu.processors import describe, load_processor, names, notes, override

PRESET = (processors.PRESETS / "skylake-sp.toml").read_text()


def shape(cache):
    return cache.entries, cache.ways, cache.index


def test_names_and_titles_are_listed_without_reading_values():
    assert "skylake-sp" in names()
    assert processors.title("skylake-sp").startswith("Intel Xeon Scalable")


def test_an_unknown_name_names_the_nearest():
    message = r"found 'skylake-ps'; accepted: barcelona \| .* \| zen5, or the path .*"
    with pytest.raises(InputError, match=message + "did you mean 'skylake-sp'"):
        load_processor("skylake-ps")


def test_a_file_is_named_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(PRESET.replace('name         = "skylake-sp"', "").replace("1536", "768"))
    processor = load_processor(str(path))
    assert (processor.name, processor.l2[0].entries) == ("mine", 768)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = \nx = 1", r"mine.toml' is not TOML: .*line 1"),
        (b"\xff\xfe", r"mine.toml' is not TOML"),
        (b"", r"mine.toml: frequency_hz: missing"),
        (b"frequncy_hz = 5", r"mine.toml: frequency_hz: missing"),
    ],
)
def test_a_file_that_is_no_processor_is_refused_with_its_place(tmp_path, content, message):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_processor(str(path))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        load_processor(str(tmp_path / "mine.toml"))
    with pytest.raises(InputError, match="accepted: barcelona"):
        load_processor(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        (["l2.ways=6"], lambda p: p.l2[0].ways == 6),
        (["l2.0.ways=6"], lambda p: p.l2[0].ways == 6),
        (["l2.1.ways=16"], lambda p: (p.l2[0].ways, p.l2[1].ways) == (12, 16)),
        ([" l2.ways = 6 "], lambda p: p.l2[0].ways == 6),
        (["l1_data.2.entries=8", "l1_data.2.ways=8"], lambda p: p.l1_data[2].ways == 8),
        (["l2.entries=1000", "l2.ways=10", "l2.index=linear"], lambda p: p.l2[0].sets == 100),
        (["l2.index='linear'"], lambda p: p.l2[0].index == "linear"),
        (['l2.sizes=["4k"]'], lambda p: p.l2[0].sizes == ("4k",)),
        (["nested_tlb=none"], lambda p: p.nested_tlb is None),
        (["walk_caches=none"], lambda p: p.walk_caches.pde is None),
        (["walk_caches.pml4e=none"], lambda p: p.walk_caches.pml4e is None),
        (["l2=none"], lambda p: p.l2 == ()),
        (["flush_nested=true"], lambda p: p.flush_nested),
        (["latencies.reference=4"], lambda p: p.latencies.reference == 4),
        (["frequency_hz=1e9"], lambda p: p.frequency_hz == 10**9),
        (["name=mine"], lambda p: p.name == "mine"),
        (['nested_tlb={entries=16,ways=16,sizes=["2m","4k"]}'], lambda p: p.nested_tlb.sets == 1),
        (["l2.ways=5", "l2.ways=6"], lambda p: p.l2[0].ways == 6),
        (['l1_data=[{entries=64,ways=64,sizes=["4k","2m"]}]'], lambda p: len(p.l1_data) == 1),
    ],
)
def test_a_setting_replaces_one_value(settings, value):
    assert value(load_processor("skylake-sp", settings))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("l2.wayz=8", r"l2.wayz=8: no field 'wayz' in 'l2.0'; accepted: entries, .*mean 'ways'"),
        ("l3.ways=8", r"no field 'l3'; accepted: name, .*mean 'l2'"),
        ("source.l2=x", r"no field 'source'"),
        ("l2.2.ways=8", r"no number 2 in 'l2'; accepted: 0 to 1"),
        ("l2.-1.ways=8", r"no field '-1' in 'l2.0'"),
        (
            "l2.ways.x=8",
            r"no field 'x' in 'l2.0.ways', which is a value; accepted: l2.0.ways=VALUE",
        ),
        ("l2.ways=0", r"l2.ways=0: l2.0.ways: found 0; accepted: a whole number from 1 to 1048576"),
        ("l2.ways=-4", r"found -4; accepted: a whole number from 1"),
        ("l2.entries=0", r"l2.0.entries: found 0"),
        ("l2.ways=1.5", r"found 1.5"),
        ("l2.ways=many", r"found 'many'"),
        ("l2.ways=10", r"found 10 ways, which do not divide 1536 entries; .*nearest: ways=8 or 12"),
        ("l2.ways=5000", r"found 5000 ways, .*nearest: ways=1536, or entries=5000"),
        ("l2.index=xor-99", r"found 'xor-99'; accepted: linear, or xor-1"),
        ("l2.sizes=[]", r"found \[\]; accepted: one or more of 4k"),
        ('l1_data.0.sizes=["1g"]', r"l1_data: found 1g pages in 2 arrays; .* in one array"),
        (
            "l1_fetch=[]",
            r"l1_fetch: found arrays for no page size; accepted: an array that holds 4k",
        ),
        ('nested_tlb.sizes=["4k"]', r'nested_tlb.sizes: found .*; accepted: \["4k", "2m"\]'),
        ("latencies.l2=-1", r"latencies.l2: found -1; accepted: a whole number from 0"),
        ("flush_nested=yes", r"flush_nested: found 'yes'; accepted: true \| false"),
        ("frequency_hz=0", r"frequency_hz: found 0"),
        ("l2", r"found 'l2'; accepted: FIELD=VALUE"),
        ("=8", r"found '=8'; accepted: FIELD=VALUE"),
        ("l2.ways=", r"found 'l2.ways='; accepted: FIELD=VALUE"),
        ("l2.ways=8\nx=1", r"accepted: a TOML value or a word"),
        ("l2.ways=[1", r"found '\[1'; accepted: a TOML value or a word"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        load_processor("skylake-sp", [setting])
    assert str(caught.value).startswith(setting)


def test_a_part_of_an_absent_cache_cannot_be_set():
    with pytest.raises(InputError, match=r"'nested_tlb' is none; accepted: all of it at once"):
        load_processor("skylake-sp", ["nested_tlb=none", "nested_tlb.ways=2"])
    with pytest.raises(InputError, match=r"no number 0 in 'l2'; accepted: none, as it is empty"):
        load_processor("skylake-sp", ["l2=[]", "l2.ways=2"])


def test_an_index_that_no_longer_fits_becomes_linear_and_says_so():
    processor = load_processor("skylake-sp", ["l2.ways=8"])
    assert shape(processor.l2[0]) == (1536, 8, "linear")
    assert processor.l2[0].replacement == "lru"
    assert notes(processor) == [
        "l2.0.index: linear instead of xor-7, as 192 sets are no power of two",
        "l2.0.replacement: lru instead of rotating-plru, which has 6, 12, 24 or 48 ways",
    ]
    assert notes(load_processor("skylake-sp", ["l2.ways=6"])) == []


def test_an_index_that_was_asked_for_is_not_changed():
    with pytest.raises(InputError, match="found 'xor-7' with 192 sets"):
        load_processor("skylake-sp", ["l2.ways=8", "l2.index=xor-7"])


def test_a_replaced_value_is_shown_beside_the_setting():
    shown = "\n".join(describe(load_processor("skylake-sp", ["l2.ways=6", "latencies.l2=8"])))
    assert re.search(r"l2\.0 .*ways = 6.*  # set by hand: l2\.ways=6; CPUID", shown)
    assert re.search(r"latencies\.l2 += 8 .*# set by hand", shown)
    assert re.search(
        r"nested_tlb += none",
        "\n".join(describe(load_processor("skylake-sp", ["nested_tlb=none"]))),
    )


def test_arrays_stand_in_order_of_the_page_sizes_they_hold():
    two = [
        {"entries": 4, "ways": 4, "sizes": ["2m"]},
        {"entries": 8, "ways": 4, "sizes": ["4k"]},
    ]
    fields = load_processor("skylake-sp").model_dump(mode="json") | {"l1_data": two}
    assert [array.sizes for array in Processor(**fields).l1_data] == [("4k",), ("2m",)]


def test_the_expanded_processor_is_exported_without_its_sources():
    exported = config().expanded()["processor"]
    assert "source" not in exported
    assert exported["l2"][0] == {
        "entries": 1536, "ways": 12, "index": "xor-7", "replacement": "rotating-plru",
        "sizes": ["4k", "2m"],
    }  # fmt: skip


@pytest.mark.parametrize("text", ["2MiB", "2m", '"2MiB"', "2097152", "2048kib", "0.5M", "1.5MiB"])
def test_sizes_of_data_caches_are_set_with_their_units(text):
    caches = load_processor("skylake-sp", [f"data_caches.l2.bytes={text}"]).data_caches
    assert caches.l2.bytes == {"0.5M": 1 << 19, "1.5MiB": 3 << 19}.get(text, 2 << 20)


@given(st.text(max_size=20))
def test_any_setting_is_applied_or_refused(setting):
    fields = load_processor("skylake-sp").model_dump(mode="json")
    try:
        override(fields, setting)
    except InputError:
        assert fields == load_processor("skylake-sp").model_dump(mode="json")
