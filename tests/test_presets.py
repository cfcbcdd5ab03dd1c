"""Named processors: every number of them, typed here again, and where each comes from."""

import re
import tomllib

import pytest
from cpuid_dumps import DUMPS

from mmu import processors
from mmu.cpuid import intel
from mmu.cpuid.dump import parse_dump
from mmu.cpuid.told import decode
from mmu.processors import describe, load_processor, names

L, T, R = "lru", "tree-plru", "rotating-plru"
LINEAR = "linear"
ALL = ("4k", "2m", "1g")
KIB, MIB = 1 << 10, 1 << 20
# Arrays by level: entries, ways, replacement, sizes, and the index where it is not linear.
TLBS = {
    "nehalem": {
        "l1_data": [(64, 4, T, "4k"), (32, 4, T, "2m")],
        "l1_fetch": [(64, 4, T, "4k"), (7, 7, L, "2m")],
        "l2": [(512, 4, T, "4k")],
    },
    "haswell": {
        "l1_data": [(64, 4, T, "4k"), (32, 4, T, "2m"), (4, 4, T, "1g")],
        "l1_fetch": [(64, 8, T, "4k"), (8, 8, T, "2m")],
        "l2": [(1024, 8, T, "4k", "2m")],
    },
    "skylake-sp": {
        "l1_data": [(64, 4, T, "4k"), (32, 4, T, "2m"), (4, 4, T, "1g")],
        "l1_fetch": [(128, 8, T, "4k"), (8, 8, T, "2m")],
        "l2": [(1536, 12, R, "4k", "2m", "xor-7"), (16, 4, T, "1g")],
    },
    "icelake-sp": {
        "l1_data": [(64, 4, T, "4k"), (32, 4, T, "2m"), (8, 8, T, "1g")],
        "l1_store": [(16, 16, L, *ALL)],
        "l1_fetch": [(128, 8, T, "4k"), (16, 8, T, "2m")],
        "l2": [(1024, 8, T, "4k", "2m"), (1024, 8, T, "4k", "1g")],
    },
    "sapphire-rapids": {
        "l1_data": [(96, 6, L, "4k"), (32, 4, T, "2m"), (8, 8, T, "1g")],
        "l1_store": [(16, 16, L, *ALL)],
        "l1_fetch": [(256, 8, T, "4k"), (32, 8, T, "2m")],
        "l2": [(1024, 8, T, "4k", "2m"), (1024, 8, T, "4k", "1g")],
    },
    "barcelona": {
        "l1_data": [(48, 48, L, *ALL)],
        "l1_fetch": [(32, 32, L, "4k"), (16, 16, L, "2m")],
        "l2": [(512, 4, L, "4k"), (128, 2, L, "2m")],
        "l2_fetch": [(512, 4, L, "4k")],
    },
    "zen2": {
        "l1_data": [(64, 64, L, *ALL)],
        "l1_fetch": [(64, 64, L, *ALL)],
        "l2": [(2048, 16, L, "4k", "2m")],
        "l2_fetch": [(1024, 8, L, "4k", "2m")],
    },
    "zen3": {
        "l1_data": [(64, 64, L, *ALL)],
        "l1_fetch": [(64, 64, L, *ALL)],
        "l2": [(2048, 16, L, "4k", "2m"), (64, 64, L, "1g")],
        "l2_fetch": [(512, 4, L, "4k", "2m")],
    },
    "zen4": {
        "l1_data": [(72, 72, L, *ALL)],
        "l1_fetch": [(64, 64, L, *ALL)],
        "l2": [(3072, 24, L, "4k", "2m"), (64, 64, L, "1g")],
        "l2_fetch": [(512, 4, L, "4k", "2m")],
    },
    "zen5": {
        "l1_data": [(96, 96, L, *ALL)],
        "l1_fetch": [(64, 64, L, *ALL)],
        "l2": [(4096, 16, L, "4k", "2m"), (32, 4, L, "1g")],
        "l2_fetch": [(2048, 4, L, "4k", "2m")],
    },
}
# Bytes, ways and latency of L1D, L1I, L2, L3, and memory's latency.
DATA = {
    "nehalem": ((32 * KIB, 8, 4), (32 * KIB, 4, 4), (256 * KIB, 8, 10), (8 * MIB, 16, 39), 187),
    "haswell": ((32 * KIB, 8, 4), (32 * KIB, 8, 4), (256 * KIB, 8, 12), (30 * MIB, 20, 52), 250),
    "skylake-sp": ((32 * KIB, 8, 4), (32 * KIB, 8, 4), (MIB, 16, 14), (22 * MIB, 11, 78), 285),
    "icelake-sp": (
        (48 * KIB, 12, 5), (32 * KIB, 8, 5), (1280 * KIB, 20, 14), (24 * MIB, 12, 68), 275,
    ),
    "sapphire-rapids": (
        (48 * KIB, 12, 5), (32 * KIB, 8, 5), (2 * MIB, 16, 15), (30 * MIB, 15, 66), 285,
    ),
    "barcelona": ((64 * KIB, 2, 3), (64 * KIB, 2, 3), (512 * KIB, 16, 15), (2 * MIB, 32, 53), 230),
    "zen2": ((32 * KIB, 8, 4), (32 * KIB, 8, 4), (512 * KIB, 8, 12), (16 * MIB, 16, 47), 280),
    "zen3": ((32 * KIB, 8, 4), (32 * KIB, 8, 4), (512 * KIB, 8, 12), (32 * MIB, 16, 48), 275),
    "zen4": ((32 * KIB, 8, 4), (32 * KIB, 8, 4), (MIB, 8, 14), (32 * MIB, 16, 54), 300),
    "zen5": ((48 * KIB, 12, 4), (32 * KIB, 8, 4), (MIB, 16, 14), (32 * MIB, 16, 55), 300),
}  # fmt: skip
# Clock in MHz, walkers, latency of an L2 TLB's hit and of a read where there are no data caches.
REST = {
    "nehalem": (2670, 1, 7, 10),
    "haswell": (2500, 1, 8, 12),
    "skylake-sp": (2500, 2, 9, 14),
    "icelake-sp": (2500, 2, 7, 14),
    "sapphire-rapids": (2000, 4, 7, 15),
    "barcelona": (1900, 1, 4, 15),
    "zen2": (2250, 2, 6, 12),
    "zen3": (2450, 6, 5, 12),
    "zen4": (2400, 6, 5, 14),
    "zen5": (2400, 6, 7, 14),
}
INTEL = ("nehalem", "haswell", "skylake-sp", "icelake-sp", "sapphire-rapids")
PAGE_WALK_CACHES = {"barcelona": (24, 24, (2, 3, 4))} | dict.fromkeys(
    ("zen2", "zen3", "zen4", "zen5"), (64, 64, (3, 4))
)
PDE = {"zen2": (512, 8), "zen3": (512, 8), "zen4": (768, 12), "zen5": (1024, 8)}


def arrays(level):
    return [
        (a.entries, a.ways, a.replacement, *a.sizes, *([a.index] if a.index != LINEAR else []))
        for a in level
    ]


def shape(cache):
    assert cache is None or (cache.index, cache.replacement) == (LINEAR, L)
    return cache and (cache.entries, cache.ways)


def test_sizes_of_data_caches_are_shown_as_they_are_written():
    shown = "\n".join(describe(load_processor("zen5")))
    assert re.search(r'data_caches\.l1d += \{ bytes = "48KiB", ways = 12, latency = 4 \}', shown)


def test_all_processors_of_the_table_are_there_and_no_others():
    assert set(names()) == set(TLBS) == set(DATA) == set(REST)


@pytest.mark.parametrize("name", names())
def test_a_processor_has_the_tlbs_of_its_sources(name):
    processor = load_processor(name)
    for level in ("l1_data", "l1_store", "l1_fetch", "l2"):
        assert arrays(getattr(processor, level)) == TLBS[name].get(level, []), level
    if "l2_fetch" in TLBS[name]:
        assert arrays(processor.l2_fetch) == TLBS[name]["l2_fetch"]
    else:
        assert processor.l2_fetch is None
    assert arrays([processor.nested_tlb]) == [
        (16, 16, L, "4k", "2m") if name == "barcelona" else (64, 4, L, "4k", "2m")
    ]


@pytest.mark.parametrize("name", names())
def test_a_processor_has_the_walk_caches_of_its_maker(name):
    processor = load_processor(name)
    walk, held = processor.walk_caches, processor.page_walk_cache
    found = [shape(walk.pde), shape(walk.pdpte), shape(walk.pml4e)]
    assert found == ([(32, 4), (4, 4), (4, 4)] if name in INTEL else [PDE.get(name), None, None])
    if name in INTEL:
        assert held is None
    else:
        assert (*shape(held), held.levels) == PAGE_WALK_CACHES[name]
        assert held.nested
    assert processor.flush_nested == (name not in INTEL)


@pytest.mark.parametrize("name", names())
def test_a_processor_has_the_data_caches_and_latencies_of_its_sources(name):
    processor = load_processor(name)
    caches = processor.data_caches
    found = [(c.bytes, c.ways, c.latency) for c in (caches.l1d, caches.l1i, caches.l2, caches.l3)]
    assert (*found, caches.memory) == DATA[name]
    megahertz, walkers, l2, reference = REST[name]
    assert (processor.frequency_hz, processor.walkers) == (megahertz * 10**6, walkers)
    assert processor.latencies.model_dump() == {
        "l2": l2, "walk_cache": 1, "nested_tlb": 1, "reference": reference, "update": 20,
    }  # fmt: skip
    assert processor.name == name
    assert processor.title.startswith("Intel " if name in INTEL else "AMD ")


@pytest.mark.parametrize("name", names())
def test_every_value_of_a_processor_has_a_source_and_every_source_a_value(name):
    lines = describe(load_processor(name))[1:]
    assert all("  # " in line for line in lines)
    assert {line.split(" ")[0] for line in lines} == set(load_processor(name).source)
    absent = {line.split(" ")[0] for line in lines if re.search(r"= none +#", line)}
    said = {path for path, text in load_processor(name).source.items() if text[:6] == "none: "}
    assert absent == said


def remarks(table):
    """Yield the path of each number in a preset's text, and the remark beside it."""
    section, level, count = "", "", 0
    for line in table.splitlines():
        code, _, remark = (part.strip() for part in line.partition("#"))
        if code.startswith("["):
            section = code.strip("[]") + "."
        elif code.endswith("["):
            level, count = code.split()[0], 0
        elif code.startswith("{"):
            yield f"{level}.{count}", remark
            count += 1
        elif "=" in code:
            path = section + code.split()[0]
            if path not in ("name", "title"):
                yield path, remark


@pytest.mark.parametrize("name", names())
def test_the_remark_beside_each_number_says_assumption_where_its_source_does(name):
    text = (processors.PRESETS / f"{name}.toml").read_text()
    table, source = text.split("\n[source]\n")
    short = dict(remarks(table))
    long = tomllib.loads("[source]\n" + source)["source"]
    assert set(short) == {path for path, text in long.items() if not text.startswith("none: ")}
    for path, remark in short.items():
        assert remark, path
        if remark == "assumption":
            assert long[path].startswith("assumption"), path
        elif long[path].startswith("assumption"):
            assert "assumption" in remark, path
        if "CPUID" in remark:
            assert long[path].startswith("CPUID "), path
        if "measured" in remark:
            assert re.search("measured|AIDA64", long[path]), path


# Arrays whose sources are CPUID: level, side, sizes, entries, and ways if they are told as such.
@pytest.mark.parametrize("name", names())
def test_what_is_said_to_be_from_cpuid_is_what_its_dump_tells(name):
    processor = load_processor(name)
    told = decode(parse_dump(DUMPS[name]))
    assert (told.nearest, told.alike) == (name, True)
    of_cpuid = 0
    for path, text in processor.source.items():
        level, _, number = path.partition(".")
        if not text.startswith("CPUID ") or level not in TLBS[name]:
            continue
        of_cpuid += 1
        array = getattr(processor, level)[int(number)]
        second = 2 if level.startswith("l2") else 1
        sides = {"l1_data": {"data", "load"}, "l1_store": {"store"}, "l2": {"data", "all"}}
        rows = [
            row for row in told.tlbs
            if row.level == second and row.side in sides.get(level, {"fetch"})
        ]  # fmt: skip
        for size in array.sizes:
            fits = [row for row in rows if size in row.sizes and row.entries == array.entries]
            assert fits, (path, size)
            if "assumption (" not in text and "ways: assumption" not in text:
                assert any(row.ways == array.ways for row in fits), (path, size)
    assert of_cpuid >= (1 if name == "zen4" else 2)


@pytest.mark.parametrize("name", names())
def test_the_bytes_that_a_source_quotes_are_those_of_the_dump(name):
    text = " ".join(load_processor(name).source.values())
    lines = DUMPS[name]
    words = set(re.findall(r"\b[0-9A-F]{8}-[0-9A-F]{8}\b", text))
    assert all(word in lines for word in words)
    for quoted in re.findall(r"(?:\b[0-9A-F]{2} ){6,}[0-9A-F]{2}", text):
        assert intel.descriptors(parse_dump(lines)) == list(bytes.fromhex(quoted))
    for ebx, ecx, edx in re.findall(r"row ([0-9A-F]{8}), ([0-9A-F]+), ([0-9A-F]{4})", text):
        assert f"{ebx}-{int(ecx, 16):08X}-{int(edx, 16):08X}" in lines
    if name not in ("icelake-sp", "sapphire-rapids"):
        assert words or "dump" in text
