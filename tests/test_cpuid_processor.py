"""Processors made of what CPUID tells: what is told, what is known, and the rest of the nearest."""

import contextlib
import json
import re
import tomllib
from pathlib import Path

import pytest
from cpuid_dumps import AMD, DUMPS, INTEL, dump, line, parameters
from hypothesis import given
from hypothesis import strategies as st

from mmu import cli
from mmu.cpuid import host
from mmu.cpuid.dump import Registers, parse_dump
from mmu.cpuid.made import file_text, processor_of
from mmu.cpuid.told import decode
from mmu.processors import describe, load_processor


def made(text):
    return processor_of(decode(parse_dump(text)), "mine")


def shapes(arrays):
    return [(a.entries, a.ways, a.index, a.replacement, *a.sizes) for a in arrays]


@pytest.mark.parametrize("name", DUMPS)
def test_a_named_processor_is_made_again_of_its_own_dump(name):
    processor, base = made(DUMPS[name]), load_processor(name)
    for field in ("l1_data", "l1_store", "l1_fetch", "l2", "l2_fetch"):
        told, known = getattr(processor, field), getattr(base, field)
        assert (told and shapes(told)) == (known and shapes(known)), field
    assert processor.data_caches == base.data_caches
    same = {"name", "title", "source", "l1_data"}
    assert {f: getattr(processor, f) for f in type(base).model_fields if f not in same} == {
        f: getattr(base, f) for f in type(base).model_fields if f not in same
    }


@pytest.mark.parametrize("name", DUMPS)
def test_a_file_of_it_is_read_as_the_same_processor_with_a_source_for_each_value(name, tmp_path):
    processor = made(DUMPS[name])
    path = tmp_path / "mine.toml"
    path.write_text(file_text(processor))
    again = load_processor(str(path))
    assert again == processor
    shown = describe(again)[1:]
    assert {text.split(" ")[0] for text in shown} == set(again.source)
    assert all(again.source.values())


def test_sources_say_what_is_told_and_what_is_as_in_the_nearest():
    source = made(DUMPS["haswell"]).source
    assert source["l2.0"] == (
        "CPUID leaf 2 byte C1; assumption: index linear and replacement tree-plru, nearest to haswell"
    )
    assert source["latencies.l2"].startswith("as in haswell: assumption: 8;")
    assert source["l2_fetch"] == "none: CPUID tells of one L2 for data and fetches"
    assert "12 in 8 ways" not in source["l1_fetch.0"]
    corrected = made(DUMPS["sapphire-rapids"]).source["l1_data.0"]
    assert corrected.startswith("CPUID leaf 18h subleaf 4 tells 64 entries in 4 ways of the load")


def test_arrays_that_are_told_replace_those_of_the_nearest():
    rows = (
        (0x00080001, 0x10, 0x4022), (0x00040003, 8, 0x4024), (0x0008000F, 1, 0x4125),
        (0x00070007, 0x40, 0x4043), (0x0010000B, 0x40, 0x4043),
    )  # fmt: skip
    text = dump(INTEL, 0x000606A6, line(2, 0x00FEFF01), *parameters(*rows))
    processor = made(text)
    assert shapes(processor.l1_data) == [(32, 4, "linear", "tree-plru", "4k", "2m")]
    assert shapes(processor.l1_store) == [(8, 8, "linear", "lru", "4k", "2m", "1g")]
    assert shapes(processor.l1_fetch) == [(128, 8, "linear", "tree-plru", "4k")]
    assert shapes(processor.l2) == [
        (448, 7, "linear", "lru", "4k", "2m"),  # seven ways have no tree
        (1024, 16, "linear", "tree-plru", "4k", "2m", "1g"),
    ]
    assert processor.l2_fetch is None


def test_an_index_stays_only_where_as_many_sets_are():
    told = decode(parse_dump(DUMPS["skylake-sp"]))
    half = [t._replace(entries=768) if t.entries == 1536 else t for t in told.tlbs]
    assert processor_of(told._replace(tlbs=half), "x").l2[0].index == "linear"
    assert processor_of(told, "x").l2[0].index == "xor-7"


def test_words_of_amd_are_made_arrays():
    words = (0xFF30FF10, 0xFF30FF20)
    second = line(0x80000006, 0x22002100, 0x42004100)
    huge = line(0x80000019, 0, 0xF0100000)
    processor = made(dump(AMD, 0x00A00F11, line(0x80000005, *words), second, huge))
    assert shapes(processor.l1_data) == [(48, 48, "linear", "lru", "4k", "2m")]
    assert shapes(processor.l1_fetch) == [
        (32, 32, "linear", "lru", "4k"), (16, 16, "linear", "lru", "2m"),
    ]  # fmt: skip
    assert shapes(processor.l2) == [
        (512, 4, "linear", "lru", "4k", "2m"), (16, 16, "linear", "lru", "1g"),
    ]  # fmt: skip
    assert shapes(processor.l2_fetch) == [(256, 4, "linear", "lru", "4k", "2m")]
    assert "assumption: one array" in processor.source["l2.0"]


def test_pages_of_1g_that_a_hypervisor_hides_are_as_in_the_nearest():
    first = line(0x80000005, 0xFF48FF40, 0xFF48FF40)
    processor = made(dump(AMD, 0x00A10F11, first, line(0x80000006, 0x5C002200, 0x6C004200)))
    assert processor.l1_data == load_processor("zen4").l1_data
    assert processor.l2 == load_processor("zen4").l2
    assert processor.l2_fetch == load_processor("zen4").l2_fetch
    assert processor.source["l1_data.0"].startswith(
        "CPUID 80000005 EBX[31:16], 80000005 EAX[31:16] (assumption: one array), pages of 1G as in"
    )
    assert processor.source["l2.1"] == "as in zen4: CPUID tells of no pages of 1G"


def test_a_second_level_of_data_only_leaves_fetches_without_one():
    processor = made(dump(AMD, 0x00A00F11, line(0x80000006, 0, 0x42000000)))
    assert (shapes(processor.l2)[0][:2], processor.l2_fetch) == ((512, 4), ())
    goldmont = made(dump(INTEL, 0x000506C9, line(2, 0x6B6A6101)))
    assert shapes(goldmont.l1_data) == [(64, 8, "linear", "lru", "4k")]
    assert shapes(goldmont.l2) == [(256, 8, "linear", "tree-plru", "4k")]
    assert goldmont.l2_fetch == ()
    assert shapes(goldmont.l1_fetch) == [(48, 48, "linear", "lru", "4k")]


def test_a_level_that_cannot_be_is_that_of_the_nearest():
    odd = made(dump(AMD, 0x00A00F11, line(0x80000006, 0, 0x62050000)))  # 517 entries, 8 ways
    assert odd.l2 == load_processor("zen3").l2
    assert odd.source["l2.0"].startswith("as in zen3: CPUID 80000006")
    no_4k = made(dump(INTEL, 0x000306F2, line(2, 0x00007601)))
    assert no_4k.l1_fetch == load_processor("haswell").l1_fetch
    twice = made(dump(INTEL, 0x000306F2, line(2, 0x00B5B001)))
    assert twice.l1_fetch == load_processor("haswell").l1_fetch


def test_ways_that_are_not_told_are_those_of_the_nearest():
    processor = made(dump(INTEL, 0x00050654, line(2, 0x00005101)))
    rule = load_processor("skylake-sp").l1_fetch[0].replacement
    assert shapes(processor.l1_fetch) == [(128, 8, "linear", rule, "4k", "2m")]
    assert processor.source["l1_fetch.0"].endswith("nearest to skylake-sp, and 8 ways")


def test_data_caches_are_those_that_are_told_with_latencies_of_the_nearest():
    text = dump(
        INTEL, 0x000306F2, line(4, 0x121, 0x02C0003F, 63, sub=0), line(4, 0x122, 0x01C0003F, 63, sub=1),
        line(4, 0x143, 0x04C0003F, 1023, sub=2),
    )  # fmt: skip
    caches = made(text).data_caches
    levels = (caches.l1d, caches.l1i, caches.l2, caches.l3)
    assert [(c and (c.bytes, c.ways, c.latency)) for c in levels] == [
        (48 << 10, 12, 4), (32 << 10, 8, 4), (1280 << 10, 20, 12), None,
    ]  # fmt: skip
    source = made(text).source
    assert source["data_caches.l1d"].startswith("CPUID leaf 4 subleaf 0; latency as in haswell: ")
    assert source["data_caches.l3"] == "none: CPUID does not tell of it"
    other_lines = dump(INTEL, 0x000306F2, line(4, 0x121, 0x02C0007F, 63, sub=0))
    assert made(other_lines).data_caches.l1d == load_processor("haswell").data_caches.l1d


def test_a_frequency_that_is_told_is_taken():
    processor = made(dump(INTEL, 0x00050654, line(0x16, 2700)))
    assert processor.frequency_hz == 2_700_000_000
    assert processor.source["frequency_hz"] == "CPUID leaf 16h EAX, the base frequency"


WORDS = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0x00FEFF01, 0x76036301, 0x00040001]))
ROWS = st.tuples(st.integers(0, 0x20000F), st.integers(0, 300), st.integers(0, 0x1FF))


@given(
    st.sampled_from([INTEL, AMD]), st.sampled_from([0x00050654, 0x000806F8, 0x00B00F21, 0x00100F21]),
    st.lists(
        st.tuples(st.sampled_from([2, 4, 0x80000005, 0x80000006, 0x80000019, 0x8000001D]),
                  WORDS, WORDS, WORDS, WORDS),
        max_size=6,
    ),
    st.lists(ROWS, max_size=5),
)  # fmt: skip
def test_anything_told_makes_a_processor_whose_file_is_read(vendor, signature, found, rows):
    lines = [line(leaf, *words) for leaf, *words in found]
    processor = made(dump(vendor, signature, *lines, *parameters(*rows)))
    fields = tomllib.loads(file_text(processor))
    assert type(processor)(**fields) == processor


@given(st.text(max_size=30))
def test_any_name_is_written_as_it_is_read(text):
    processor = load_processor("zen3").model_copy(update={"title": text, "name": text})
    assert tomllib.loads(file_text(processor).partition("\n")[2])["title"] == text


# ---------------------------------------------------------------------------- the command line


def mmu(capsys, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("mmu: error: ").strip()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in DUMPS.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return tmp_path


def test_a_dump_is_told_as_a_table_with_what_is_odd(capsys, folder):
    assert mmu(capsys, "processors", "from-cpuid", "barcelona.txt").splitlines() == [
        "Quad-Core AMD Opteron(tm) Processor 2347 HE: AuthenticAMD family 10h model 2h stepping 1",
        "Nearest named processor: barcelona",
        "Tags of address spaces (ASIDs): 64",
        "",
        "TLB    level  pages   entries  ways  told by",
        "data       1  4k           48   all  CPUID 80000005 EBX[31:16]",
        "fetch      1  4k           32   all  CPUID 80000005 EBX[15:0]",
        "data       1  2m           48   all  CPUID 80000005 EAX[31:16]",
        "fetch      1  2m           16   all  CPUID 80000005 EAX[15:0]",
        "data       1  1g           48   all  CPUID 80000019 EAX[31:16]",
        "data       2  4k          512     4  CPUID 80000006 EBX[31:16]",
        "fetch      2  4k          512     4  CPUID 80000006 EBX[15:0]",
        "data       2  2m          128     2  CPUID 80000006 EAX[31:16]",
        "",
        "cache  level  size       sets  ways  told by",
        "data       1  64KiB       512     2  CPUID 80000005 ECX",
        "fetch      1  64KiB       512     2  CPUID 80000005 EDX",
        "all        2  512KiB      512    16  CPUID 80000006 ECX",
        "all        3  2MiB       1024    32  CPUID 80000006 EDX",
    ]
    out = mmu(capsys, "processors", "from-cpuid", "skylake-sp.txt").splitlines()
    assert out[0] == "GenuineIntel family 6h model 55h stepping 4"
    assert [text[:17] for text in out if text.startswith("Note: ")] == [
        "Note: leaf 2 byte", "Note: CPUID leaf ",
    ]  # fmt: skip


def test_a_dump_is_written_as_json_csv_and_a_processor(capsys, folder):
    options = ("--json", "x.json", "--csv", "x.csv", "-o", "my-cpu.toml", "--quiet")
    assert mmu(capsys, "processors", "from-cpuid", "zen5.txt", *options) == ""
    told = json.loads((folder / "x.json").read_text())
    assert (told["nearest"], told["family"], told["asids"]) == ("zen5", 0x1A, None)
    assert told["tlbs"][0] == {
        "level": 2, "side": "data", "sizes": ["4k"], "entries": 4096, "ways": 8,
        "origin": "CPUID 80000006 EBX[31:16], times 32 (80000021 EAX[14])",
    }  # fmt: skip
    assert (folder / "x.csv").read_text().splitlines()[:2] == [
        "what,level,side,pages,entries,ways,bytes,line,told_by",
        'tlb,2,data,4k,4096,8,,,"CPUID 80000006 EBX[31:16], times 32 (80000021 EAX[14])"',
    ]
    shown = mmu(capsys, "processors", "show", "my-cpu.toml", "--set", "l2.ways=8")
    assert "# AuthenticAMD, as CPUID tells it" in shown
    assert "set by hand: l2.ways=8" in shown
    assert load_processor("my-cpu.toml").name == "my-cpu"


def test_a_cache_is_a_row_of_the_csv(capsys, folder):
    mmu(capsys, "processors", "from-cpuid", "barcelona.txt", "--csv", "x.csv", "--quiet")
    last = (folder / "x.csv").read_text().splitlines()[-1]
    assert last == "cache,3,all,,,32,2097152,64,CPUID 80000006 EDX"


def test_standard_input_is_a_dump(capsys, folder, monkeypatch):
    with open(folder / "zen2.txt") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert "Nearest named processor: zen2" in mmu(capsys, "processors", "from-cpuid", "-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["bad.txt"],
            "DUMP: 'bad.txt': line 2: found 'CPUID 00000002: 1'; accepted: CPUID LLLLLLLL",
        ),
        (["none.txt"], "DUMP: 'none.txt': cannot read 'none.txt': No such file"),
        (["."], "DUMP: '.': cannot read '.': Is a directory"),
        (["zen2.txt", "-o", "x"], "--output: found 'x'; accepted: a name that ends in .toml"),
        (["zen2.txt", "--json", "zen2.txt"], "--json: 'zen2.txt': also read as 'zen2.txt'"),
        (["zen2.txt", "-o", "no/x.toml"], "--output: 'no/x.toml': folder"),
    ],
)
def test_what_cannot_be_told_is_refused_on_one_line(capsys, folder, arguments, message):
    (folder / "bad.txt").write_text("hello\nCPUID 00000002: 1\n")
    assert refused(capsys, "processors", "from-cpuid", *arguments).startswith(message)
    assert not (folder / "x").exists()


# -------------------------------------------------------------------------------- this machine


def answers(text):
    """An `ask` that answers from a dump, and 0 for all else; and what it was asked."""
    leaves, asked = parse_dump(text), []

    def ask(leaf, sub):
        asked.append((leaf, sub))
        return leaves.get((leaf, sub), Registers(0, 0, 0, 0))

    return ask, asked


def test_each_leaf_that_a_processor_has_is_asked_for():
    text = dump(
        INTEL, 0x000606A6, line(2, 0x00FEFF01), *parameters((0x00080007, 1, 0x4122), (0, 0, 0)),
        line(4, 0x121, 5, sub=0), line(4, 0x122, 6, sub=1),
    )  # fmt: skip
    ask, asked = answers(text)
    assert host.gather(ask).items() >= parse_dump(text).items()
    assert {leaf for leaf, _ in asked} == {0, 1, 2, 4, 0x16, 0x18, 0x80000000}
    assert max(sub for leaf, sub in asked if leaf == 0x18) == 2


def test_leaves_beyond_the_last_are_not_asked_for():
    ask, asked = answers(INTEL.replace("00000020", "00000003") + "\n" + line(1, 0x000006F6))
    host.gather(ask)
    assert {leaf for leaf, _ in asked} == {0, 1, 2, 0x80000000}


def test_subleaves_without_end_are_not_asked_for():
    def ask(leaf, sub):
        return Registers(0x80000021 if leaf >> 31 else 0xFFFFFFF1, 0, 0, 0)

    assert max(sub for _, sub in host.gather(ask)) == host.MOST_SUBLEAVES - 1


def on_x86(monkeypatch, machine="x86_64"):
    monkeypatch.setattr("platform.machine", lambda: machine)


def test_another_kind_of_processor_is_not_asked(monkeypatch, capsys):
    on_x86(monkeypatch, "aarch64")
    text = refused(capsys, "processors", "host")
    assert text.startswith("host: found a processor 'aarch64'; accepted: x86-64, or a dump")


def test_a_machine_that_allows_neither_way_says_which_were_tried(monkeypatch, capsys):
    on_x86(monkeypatch)
    monkeypatch.setattr(host, "DEVICE", "/nowhere/cpuid")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(host.mmap, "mmap", forbidden)
    assert refused(capsys, "processors", "host") == (
        "host: cannot ask this processor: /nowhere/cpuid: No such file or directory, and "
        "executable memory: Permission denied; accepted: one of them, or a dump, with 'from-cpuid'"
    )


def test_a_device_is_asked_by_leaf_and_subleaf(monkeypatch, tmp_path):
    on_x86(monkeypatch)
    monkeypatch.setattr(host, "DEVICE", str(tmp_path / "cpuid"))
    (tmp_path / "cpuid").touch()
    ask, asked = answers(DUMPS["icelake-sp"])

    def pread(device, size, at):
        return b"".join(word.to_bytes(4, "little") for word in ask(at & 0xFFFFFFFF, at >> 32))

    monkeypatch.setattr(host.os, "pread", pread)
    assert decode(host.host_leaves()).nearest == "icelake-sp"
    assert (0x18, 7) in asked


def test_a_device_that_ends_early_is_passed_over(monkeypatch, tmp_path):
    on_x86(monkeypatch)
    monkeypatch.setattr(host, "DEVICE", str(tmp_path / "cpuid"))
    (tmp_path / "cpuid").touch()
    monkeypatch.setattr(host, "_with_code", lambda: "asked by code")
    assert host.host_leaves() == "asked by code"


@pytest.mark.skipif(host.platform.machine() not in ("x86_64", "AMD64"), reason="asks an x86-64")
def test_machine_code_tells_what_the_device_tells():
    try:
        by_code = host._with_code()
    except OSError:
        pytest.skip("no executable memory here")
    words = by_code[0, 0]
    text = b"".join(word.to_bytes(4, "little") for word in (words.ebx, words.edx, words.ecx))
    with contextlib.suppress(OSError):
        known = Path("/proc/cpuinfo").read_text()
        assert re.search(r"vendor_id\s*: (.*)", known)[1] == text.decode("latin-1")
    with contextlib.suppress(OSError):
        by_device = host._with_device()
        # Leaf 1 and the tables of caches tell which logical processor answers.
        same = [leaf for leaf in by_code if leaf[0] not in (1, 4, 0x8000001D)]
        assert {leaf: by_code[leaf] for leaf in same} == {leaf: by_device[leaf] for leaf in same}


@pytest.mark.skipif(host.platform.machine() not in ("x86_64", "AMD64"), reason="asks an x86-64")
def test_this_machine_is_told(capsys, tmp_path):
    status = cli.main(["processors", "host", "-o", str(tmp_path / "here.toml")])
    out, err = capsys.readouterr()
    if status:
        assert "accepted" in err
        return
    assert "Nearest named processor: " in out
    assert load_processor(str(tmp_path / "here.toml")).name == "here"
