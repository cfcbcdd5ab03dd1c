"""`mmu walk`: what it prints, for every source of tables and every way a walk ends."""

import csv
import io
import json
from itertools import product

import pytest
from test_cli import imports_nothing_heavy, mmu, refused

import mmu as package
from mmu import cli
from mmu.example import FORMATS, GUEST_SIZES, NESTED_SIZES, example_tables
from mmu.nearby import nearest_mapped
from mmu.report_walk import lines
from mmu.walkthrough import COLUMNS

GVA = 0x7F00_1234_5678
LEVEL = {"4k": 1, "2m": 2, "1g": 3}
BYTES = {"4k": 4096, "2m": 2 << 20, "1g": 1 << 30}

DEFAULT = """\
user read of gva 0x7f0012345678
CR3 0x1000, 4 levels; EPTP 0x4010005e, 4 levels, A/D bits on
indices 254 0 145 325, offset 0x678

entry 254 of the guest's PML4, gpa 0x17f0
   1  N4  EPT PML4E      [0]  0x40100000  0x0000000040101007  R W X +A        -> PDPT at 0x40101000
   2  N3  EPT PDPTE      [0]  0x40101000  0x0000000040102007  R W X +A        -> PD at 0x40102000
   3  N2  EPT PDE        [0]  0x40102000  0x0000000040103007  R W X +A        -> PT at 0x40103000
   4  N1  EPT PTE        [1]  0x40103008  0x0000000040301037  R W X WB +A +D  -> 4 KiB page at 0x40301000
   5  G4  guest PML4E  [254]  0x403017f0  0x0000000000002007  P RW US +A      -> PDPT at gpa 0x2000
entry 0 of the guest's PDPT, gpa 0x2000
   6  N4  EPT PML4E      [0]  0x40100000  0x0000000040101107  R W X A         -> PDPT at 0x40101000
   7  N3  EPT PDPTE      [0]  0x40101000  0x0000000040102107  R W X A         -> PD at 0x40102000
   8  N2  EPT PDE        [0]  0x40102000  0x0000000040103107  R W X A         -> PT at 0x40103000
   9  N1  EPT PTE        [2]  0x40103010  0x0000000040302037  R W X WB +A +D  -> 4 KiB page at 0x40302000
  10  G3  guest PDPTE    [0]  0x40302000  0x0000000000003007  P RW US +A      -> PD at gpa 0x3000
entry 145 of the guest's PD, gpa 0x3488
  11  N4  EPT PML4E      [0]  0x40100000  0x0000000040101107  R W X A         -> PDPT at 0x40101000
  12  N3  EPT PDPTE      [0]  0x40101000  0x0000000040102107  R W X A         -> PD at 0x40102000
  13  N2  EPT PDE        [0]  0x40102000  0x0000000040103107  R W X A         -> PT at 0x40103000
  14  N1  EPT PTE        [3]  0x40103018  0x0000000040303037  R W X WB +A +D  -> 4 KiB page at 0x40303000
  15  G2  guest PDE    [145]  0x40303488  0x0000000000004007  P RW US +A      -> PT at gpa 0x4000
entry 325 of the guest's PT, gpa 0x4a28
  16  N4  EPT PML4E      [0]  0x40100000  0x0000000040101107  R W X A         -> PDPT at 0x40101000
  17  N3  EPT PDPTE      [0]  0x40101000  0x0000000040102107  R W X A         -> PD at 0x40102000
  18  N2  EPT PDE        [0]  0x40102000  0x0000000040103107  R W X A         -> PT at 0x40103000
  19  N1  EPT PTE        [4]  0x40103020  0x0000000040304037  R W X WB +A +D  -> 4 KiB page at 0x40304000
  20  G1  guest PTE    [325]  0x40304a28  0x0000000092345007  P RW US +A      -> 4 KiB page at gpa 0x92345000
the data, gpa 0x92345678
  21  N4  EPT PML4E      [0]  0x40100000  0x0000000040101107  R W X A         -> PDPT at 0x40101000
  22  N3  EPT PDPTE      [2]  0x40101010  0x0000000040104007  R W X +A        -> PD at 0x40104000
  23  N2  EPT PDE      [145]  0x40104488  0x0000000040105007  R W X +A        -> PT at 0x40105000
  24  N1  EPT PTE      [325]  0x40105a28  0x00000000d2345037  R W X WB +A     -> 4 KiB page at 0xd2345000

translated
  machine address         0xd2345678
  guest-physical address  0x92345678
  page                    4 KiB, the smaller of guest 4 KiB and nested 4 KiB
  rights                  user RWX, supervisor RWX
  tables read             24 references, 4 guest and 20 nested
  sets (+)                A in 1-5, 9-10, 14-15, 19-20, 22-24; D in 4, 9, 14, 19
"""  # noqa: E501

LARGE_NPT = """\
supervisor write of gva 0x7f0012345678
CR3 0x1000, 4 levels; nCR3 0x40100000, 4 levels
indices 254 0 145 325, offset 0x678

entry 254 of the guest's PML4, gpa 0x17f0
   1  N4  NPT PML4E      [0]  0x40100000  0x0000000040101007  P RW US +A        -> PDPT at 0x40101000
   2  N3  NPT PDPTE      [0]  0x40101000  0x0000000040000087  P RW US PS +A +D  -> 1 GiB page at 0x40000000
   3  G4  guest PML4E  [254]  0x400017f0  0x0000000000002007  P RW US +A        -> PDPT at gpa 0x2000
entry 0 of the guest's PDPT, gpa 0x2000
   4  N4  NPT PML4E      [0]  0x40100000  0x0000000040101027  P RW US A         -> PDPT at 0x40101000
   5  N3  NPT PDPTE      [0]  0x40101000  0x00000000400000e7  P RW US A D PS    -> 1 GiB page at 0x40000000
   6  G3  guest PDPTE    [0]  0x40002000  0x0000000000003007  P RW US +A        -> PD at gpa 0x3000
entry 145 of the guest's PD, gpa 0x3488
   7  N4  NPT PML4E      [0]  0x40100000  0x0000000040101027  P RW US A         -> PDPT at 0x40101000
   8  N3  NPT PDPTE      [0]  0x40101000  0x00000000400000e7  P RW US A D PS    -> 1 GiB page at 0x40000000
   9  G2  guest PDE    [145]  0x40003488  0x0000000092200087  P RW US PS +A +D  -> 2 MiB page at gpa 0x92200000
the data, gpa 0x92345678
  10  N4  NPT PML4E      [0]  0x40100000  0x0000000040101027  P RW US A         -> PDPT at 0x40101000
  11  N3  NPT PDPTE      [2]  0x40101010  0x00000000c0000087  P RW US PS +A +D  -> 1 GiB page at 0xc0000000

translated
  machine address         0xd2345678
  guest-physical address  0x92345678
  page                    2 MiB, the smaller of guest 2 MiB and nested 1 GiB
  rights                  user RWX, supervisor RWX
  tables read             11 references, 3 guest and 8 nested
  sets (+)                A in 1-3, 6, 9, 11; D in 2, 9, 11
"""  # noqa: E501

NO_GIGABYTES = """\
user fetch of gva 0x7f0012345678
CR3 0x40001000, 4 levels
indices 254 0 145 325, offset 0x678

  1  G4  PML4E  [254]  0x400017f0  0x0000000040002007  P RW US +A       -> PDPT at 0x40002000
  2  G3  PDPTE    [0]  0x40002000  0x0000000080000087  P RW US rsvd(7)  <- ends here

#PF, page fault: PDPTE (reference 2): reserved bit 7: this processor has no 1 GiB pages
  error code   0x1d: P=1 W/R=0 U/S=1 RSVD=1 I/D=1
  CR2          0x7f0012345678
  tables read  2 references
  sets (+)     A in 1
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], DEFAULT),
        (["--example", "2m/1g", "--nested", "npt", "--write", "--supervisor"], LARGE_NPT),
        (["--example", "1g/native", "--no-gbpages", "--access", "fetch"], NO_GIGABYTES),
    ],
    ids=["default", "large pages of NPT", "a fault without nesting"],
)
def test_a_walk_is_printed_to_the_letter(capsys, options, expected):
    assert mmu(capsys, "walk", "0x7f00_1234_5678", *options) == expected


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("nested_levels", [4, 5])
def test_references_of_every_combination_of_sizes_are_those_of_the_formula(
    form, levels, nested_levels
):
    """(g + 1)(n + 1) - 1 table reads of g guest and n nested levels; g of the guest's alone."""
    control = package.Control(la57=levels == 5)
    for guest, nested in product(GUEST_SIZES, NESTED_SIZES):
        made = example_tables(
            guest, nested, format=form, levels=levels, nested_levels=nested_levels
        )
        walk = package.explain(made.memory, GVA, cr3=made.cr3, nested=made.nested, control=control)
        g = levels - LEVEL[guest] + 1
        n = 0 if nested == "native" else nested_levels - LEVEL[nested] + 1
        assert len(walk.reads) == (g + 1) * (n + 1) - 1
        assert walk.ending.title == "translated"
        assert walk.translation.maddr % (1 << 30) == GVA % (1 << 30)
        effective = min(BYTES[guest], BYTES.get(nested, 1 << 30))
        assert walk.translation.page_size == effective
        text = lines(walk)
        assert f"{len(walk.reads)} references" in "\n".join(text)
        labels = [read.label for read in walk.reads]
        inner = [f"N{level}" for level in range(nested_levels, nested_levels - n, -1)]
        expected = []
        for level in range(levels, levels - g, -1):
            expected += [*inner, f"G{level}"]
        assert labels == [*expected, *inner]


@pytest.mark.parametrize("gva", [0, -1, (1 << 47) - 1, 0xFFFF_8000_0000_0000, 0x1FF << 39, 1 << 30])
def test_example_tables_translate_any_canonical_address(gva):
    for guest, nested in product(GUEST_SIZES, NESTED_SIZES):
        made = example_tables(guest, nested, gva=gva)
        found = package.translate(made.memory, gva, cr3=made.cr3, nested=made.nested)
        canonical = gva < 1 << 47 or gva >= (1 << 64) - (1 << 47)
        assert (found.outcome == package.Outcome.OK) == canonical


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"guest": "8k"}, "guest: found '8k'; accepted: 4k | 2m | 1g"),
        ({"guest": "native"}, "guest: found 'native'; accepted: 4k | 2m | 1g"),
        ({"nested": 4}, "nested: found 4; accepted: native | 4k | 2m | 1g"),
        ({"format": "intel"}, "format: found 'intel'; accepted: ept | npt"),
        ({"levels": 3}, "levels: found 3; accepted: 4 | 5"),
        ({"nested_levels": 6}, "nested_levels: found 6; accepted: 4 | 5"),
        ({"gva": "x"}, "gva: found 'x'; accepted: a whole number"),
    ],
)
def test_example_tables_refuse_what_there_is_not(fields, says):
    with pytest.raises(package.InputError, match="found") as error:
        example_tables(**fields)
    assert str(error.value).startswith(says)


def test_json_and_csv_tell_the_same_steps(capsys, tmp_path):
    mmu(
        capsys, "walk", GVA, "--example", "2m/2m", "--quiet", "--json", tmp_path / "w.json",
        "--csv", tmp_path / "w.csv",
    )  # fmt: skip
    document = json.loads((tmp_path / "w.json").read_text())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "w.csv").read_text())))
    assert list(rows[0]) == COLUMNS == list(document["steps"][0])
    assert len(rows) == len(document["steps"]) == document["references"] == 15
    for row, step in zip(rows, document["steps"], strict=True):
        assert row["bits"].split() == step["bits"]
        assert row["sets"].split() == step["sets"]
        for name in ("reference", "label", "name", "maddr", "entry", "leads_to", "gpa"):
            assert row[name] == str(step[name])
    assert rows[3] == {
        "reference": "4", "row": "0", "label": "G4", "dimension": "guest", "level": "4",
        "name": "guest PML4E", "gpa": "0x17f0", "table_gpa": "0x1000", "table_maddr": "0x40201000",
        "index": "254", "maddr": "0x402017f0", "entry": "0x0000000000002007", "bits": "P RW US",
        "sets": "A", "leads_to": "PDPT at gpa 0x2000", "ended": "0",
    }  # fmt: skip
    del document["steps"], document["control"]
    assert document == {
        "kind": "walk", "gva": "0x7f0012345678", "access": "read", "user": True, "cr3": "0x1000",
        "nested": "EPT", "eptp": "0x4010005e", "levels": 4, "nested_levels": 4, "outcome": "OK",
        "title": "translated", "reason": "", "gpa": "0x92345678", "maddr": "0xd2345678",
        "page_size": 2 << 20, "guest_page_size": 2 << 20, "nested_page_size": 2 << 20,
        "rights": {"user": "RWX", "supervisor": "RWX"}, "error_code": None,
        "exit_qualification": None, "exit_info": None, "fault_gpa": None, "references": 15,
        "updates": {
            "0x40100000": "0x40101107", "0x40101000": "0x40102107", "0x40102000": "0x402003b7",
            "0x402017f0": "0x2027", "0x40202000": "0x3027", "0x40203488": "0x922000a7",
            "0x40101010": "0x40103107", "0x40103488": "0xd22001b7",
        },
        "mapped_below": None, "mapped_above": None,
    }  # fmt: skip


@pytest.fixture
def image(monkeypatch, tmp_path):
    """A file that passes for an image with the tables of an example."""

    def make(*sizes, **fields):
        made = example_tables(*sizes, **fields)
        opened = staticmethod(lambda path: made.memory)
        monkeypatch.setattr(package.Memory, "open", opened, raising=False)
        (tmp_path / "image").write_bytes(b"x")
        return tmp_path / "image"

    return make


def test_an_image_is_walked_from_the_pointers_given(capsys, image):
    out = mmu(capsys, "walk", GVA, "--image", image(), "--cr3", "0x1000", "--eptp", "0x4010_005e")
    assert out == DEFAULT
    path = image("2m", "1g", format="npt")
    out = mmu(
        capsys, "walk", GVA, "--image", path, "--cr3", "4096", "--ncr3", "0x40100000", "--write",
        "--supervisor",
    )  # fmt: skip
    assert out == LARGE_NPT
    path = image("1g", "native")
    out = mmu(
        capsys, "walk", GVA, "--image", path, "--cr3", "0x40001000", "--no-gbpages", "--fetch"
    )
    assert out == NO_GIGABYTES


def test_options_reach_the_processor(capsys, image):
    path = image("4k", "4k", format="npt", levels=5, nested_levels=5)
    out = mmu(
        capsys, "walk", GVA, "--image", path, "--cr3", "0x1000", "--ncr3", "0x40100000", "--la57",
        "--nested-levels", "5",
    )  # fmt: skip
    assert "35 references, 5 guest and 30 nested" in out
    document = path.with_name("w.json")
    mmu(
        capsys, "walk", GVA, "--no-wp", "--no-nxe", "--smep", "--smap", "--ac", "--la57",
        "--no-gbpages", "--maxphyaddr", "40", "--quiet", "--json", document,
    )  # fmt: skip
    assert json.loads(document.read_text())["control"] == {
        "wp": False, "nxe": False, "smep": True, "smap": True, "ac": True, "la57": True,
        "gbpages": False, "maxphyaddr": 40,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A small trace of data from 0x100000000000 on, 64 pages of it."""
    path = tmp_path_factory.mktemp("walk") / "stride.parquet"
    assert cli.main(
        ["trace", "synth", "stride", "-o", str(path), "--accesses", "20000", "--footprint", "256KiB",
         "--quiet"]
    ) == 0  # fmt: skip
    return path


@pytest.mark.slow
def test_a_replay_is_walked_after_it(capsys, trace):
    out = mmu(capsys, "walk", "0x100000001000", trace, "--nested-pages", "2m")
    assert "translated" in out
    assert "19 references, 4 guest and 15 nested" in out
    out = mmu(capsys, "walk", "0x100000001000", trace, "--mode", "native", "--vm", "stride")
    assert "4 references" in out
    out = mmu(capsys, "walk", "0x100000040000", trace, "--space", "0")
    assert "guest PTE (reference " in out
    assert "is not present" in out
    assert "mapped nearby: 0x10000003f000 below" in out
    out = mmu(capsys, "walk", "0x10000001", trace)
    assert "mapped nearby: 0x400000 below, 0x100000000000 above" in out
    said = refused(capsys, "walk", "0x100000001000", trace, "--space", "7")
    assert said.startswith("--space: found 7, in which stride has not run; accepted: [0]")


# --- what lies near ------------------------------------------------------------------------------------


def nearest_of(pages, gva):
    below = [page for page in pages if page < gva]
    return max(below, default=None), min((page for page in pages if page > gva), default=None)


@pytest.mark.parametrize("nested", [False, True])
def test_the_nearest_mapped_pages_are_the_nearest_of_all(nested):
    from handtables import HandGuest, HandTables, P  # noqa: PLC0415

    pages = [0x1000, 0x3FFFFF000, 0x7F0000000000, 0x7F0000003000, 0xFFFF800000000000]
    if nested:
        guest = HandGuest(pages=600)
        for n, page in enumerate(pages):
            guest.map(page, 0x9000_0000 + 4096 * n, leaf=P)
        memory = package.Memory.from_words(guest.memory.words)
        question = {"cr3": guest.root, "nested": package.Ept.at(guest.nested_root)}
    else:
        tables = HandTables()
        root = tables.take()
        for n, page in enumerate(pages):
            tables.map_native(root, page, 0x9000_0000 + 4096 * n)
        tables.put(root, 3, tables.take() | 7)  # a table that holds nothing
        memory = package.Memory.from_words(tables.words)
        question = {"cr3": root}
    for gva in (
        0, 0x2000, 0x3_FFFF_E000, 0x4_0000_0000, 0x1_8000_0000_000, 0x7F00_0000_1000,
        0x7F00_0000_4000, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_1000, (1 << 64) - 4096,
    ):  # fmt: skip
        walk = package.explain(memory, gva, **question)
        assert nearest_mapped(memory, walk) == nearest_of(pages, gva), hex(gva)
    walk = package.explain(memory, 0x1000, **question)
    assert nearest_mapped(memory, walk) == (None, None)


def test_a_search_among_tables_without_end_is_given_up():
    """Every entry points to a table of tables that hold nothing."""
    import numpy as np  # noqa: PLC0415

    words = np.zeros(512 * 5, np.uint64)
    for level in range(3):
        words[512 * level : 512 * (level + 1)] = 4096 * (level + 1) | 7
    memory = package.Memory.from_words(words)
    walk = package.explain(memory, 1 << 40, cr3=0)
    assert nearest_mapped(memory, walk) == (None, None)


# --- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "ADDRESS: found nothing; accepted: ADDRESS"),
        (["web"], "ADDRESS: found 'web'; accepted: an address below 2^64"),
        (["7f00"], "ADDRESS: found '7f00'; accepted: an address below 2^64"),
        (["0x1__0"], "ADDRESS: found '0x1__0'; accepted: an address below 2^64"),
        (["0x10000000000000000"], "ADDRESS: found 18446744073709551616; accepted: an address below"),
        (["1" * 500], "ADDRESS: found '1111"),
        (["0", "--example", "4k"], "--example: found '4k'; accepted: GUEST/NESTED"),
        (["0", "--example", "native/4k"], "--example: found 'native/4k'; accepted: GUEST/NESTED"),
        (["0", "--nested", "xpt"], "--nested: found 'xpt'; accepted: ept | npt"),
        (["0", "--example", "native", "--nested", "npt"], "--nested: accepted: not with native"),
        (["0", "--write", "--fetch"], "--access: found fetch and write; accepted: one of them"),
        (["0", "--access", "exec"], "--access: found 'exec'; accepted: read | write | fetch"),
        (["0", "--maxphyaddr", "31"], "--maxphyaddr: found 31; accepted: a whole number of at least 32"),
        (["0", "--nested-levels", "3"], "--nested-levels: found '3'; accepted: 4 | 5"),
        (["0", "--cr3", "0x1000"], "--cr3: accepted: only together with --image"),
        *(
            (["0", *option], f"{option[0]}: accepted: only together with TRACES or --schedule")
            for option in (
                ["--no-pcid"], ["--pinned"], ["--no-migration-flush"], ["--conflicts"],
                ["--lps", "2"], ["--table-reads", "fixed"],
            )
        ),
        (["0", "--quantum", "5us"], "--quantum: accepted: only together with TRACES or --schedule"),
        (["0", "--set", "l2.ways=6"], "--set: accepted: only together with TRACES or --schedule"),
        (["0", "--vm", "web"], "--vm: accepted: only together with TRACES or --schedule"),
        (["0", "web.parquet", "--nested", "npt"], "--nested: accepted: only together with --example"),
        (["0", "web.parquet", "--la57"], "--la57: accepted: not of a replay, whose tables have 4"),
        (["0", "none.parquet"], "TRACES: no file 'none.parquet'"),
        (["0", "web.parquet", "--image", "i"], "found --image and TRACES or --schedule; accepted: one"),
        (["0", "--example", "4k/4k", "--image", "i"], "found --example and --image; accepted: one"),
        (["0", "--image", "none"], "--cr3: found nothing; accepted: the address of the root"),
        (["0", "--image", "none", "--cr3", "0"], "--image: no file 'none'; accepted: a raw image"),
        (["0", "--image", "i", "--cr3", "0", "--eptp", "0", "--ncr3", "0"], "--eptp, --ncr3: found both"),
        (["0", "--image", "i", "--cr3", "0", "--nested-levels", "5"], "--nested-levels: accepted: only"),
        (["0", "--image", "i", "--cr3", "0", "--no-host-nxe"], "--no-host-nxe: accepted: only"),
        (["0", "--json", "none/x"], "--json: 'none/x': folder"),
        (["0", "--figure", "x.pdf"], "--figure: found 'x.pdf'; accepted: a name that ends in"),
    ],
)  # fmt: skip
def test_what_cannot_be_walked_is_refused_on_one_line(
    capsys, tmp_path, monkeypatch, arguments, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web.parquet").write_bytes(b"PAR1")
    assert refused(capsys, "walk", *arguments).startswith(says)


def test_pointers_that_no_processor_accepts_are_refused(capsys, image):
    path = image()
    said = refused(capsys, "walk", "0", "--image", path, "--cr3", "0", "--eptp", "0x1000")
    assert said.startswith("--eptp: found 0x1000, memory type 0, 1 levels; accepted:")
    said = refused(capsys, "walk", "0", "--image", path, "--cr3", "0x1000", "--json", path)
    assert "also read as" in said


def test_an_image_that_cannot_be_read_is_refused(capsys, image, monkeypatch):
    path = image()

    def broken(path):
        raise package.InputError("no image")

    monkeypatch.setattr(package.Memory, "open", staticmethod(broken), raising=False)
    assert refused(capsys, "walk", "0", "--image", path, "--cr3", "0") == "--image: no image"


def test_a_machine_that_there_is_not_is_named(capsys, trace):
    said = refused(capsys, "walk", "0", trace, "--vm", "strode")
    assert said == "--vm: found 'strode'; accepted: stride; did you mean 'stride'?"


def test_help_and_wrong_arguments_of_walk_import_nothing_heavy(tmp_path):
    light = [
        ["walk", "--help"], ["walk"], ["walk", "x"], ["walk", "0", "--example", "5k/4k"],
        ["walk", "0", "--image", "none", "--cr3", "0"], ["walk", "0", "--cr3", "0"],
        ["walk", "0", "--write", "--fetch"], ["walk", "0", "none.parquet"],
    ]  # fmt: skip
    imports_nothing_heavy(light, [0] + [2] * 7)
