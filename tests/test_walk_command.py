"""`mmu walk`: what it prints, for every source of tables and every way a walk ends."""

import csv
import io
import json
from itertools import product

import pytest
from test_cli import HEAVY, mmu, refused, run
from test_walkthrough import judge

import mmu as package
from mmu import cli
from mmu.example import FORMATS, GUEST_SIZES, NESTED_SIZES, example_tables
from mmu.nearby import nearest_mapped
from mmu.report_walk import lines
from mmu.walkthrough import COLUMNS

GVA = 0x7F00_1234_5678
LEVEL = {"4k": 1, "2m": 2, "1g": 3}
BYTES = {"4k": 4096, "2m": 2 << 20, "1g": 1 << 30}
XD = 1 << 63

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


def put(made, address, entry):
    made.memory.words[(address - made.memory.base) // 8] = entry - (1 << 64) * (entry >> 63)


# What is made, which entry is changed to what, the question, title, reason, and a fact by its name.
# Where entries stand is in DEFAULT, above.
ENDINGS = {
    "not canonical": (
        {"gva": 1 << 47}, {}, {}, "#GP, general protection",
        "bits 63:47 of the address differ: it is not canonical, no table is read",
        ("error code", "0x0"),
    ),
    "guest entry not present": (
        {}, {0x40303488: 0}, {"access": "write"}, "#PF, page fault",
        "guest PDE (reference 15) is not present",
        ("error code", "0x6: P=0 W/R=1 U/S=1 RSVD=0 I/D=0"),
    ),
    "above MAXPHYADDR": (
        {}, {0x40303488: 0x0009_0000_0000_4007}, {}, "#PF, page fault",
        "guest PDE (reference 15): reserved bits 51,48: above MAXPHYADDR, 48 bits",
        ("error code", "0xd: P=1 W/R=0 U/S=1 RSVD=1 I/D=0"),
    ),
    "inside a large frame": (
        {"guest": "2m"}, {0x40303488: 0x9230_2087}, {}, "#PF, page fault",
        "guest PDE (reference 15): reserved bits 20,13: inside the frame of a 2 MiB page",
        ("CR2", "0x7f0012345678"),
    ),
    "no page of a PML4E": (
        {}, {0x403017F0: 0x2087}, {}, "#PF, page fault",
        "guest PML4E (reference 5): reserved bit 7: no PML4E maps a page",
        ("error code", "0xd: P=1 W/R=0 U/S=1 RSVD=1 I/D=0"),
    ),
    "XD without NXE": (
        {"nested": "native"}, {0x40003488: XD | 0x40004007}, {"control": package.Control(nxe=False)},
        "#PF, page fault", "PDE (reference 3): reserved bit 63: XD with EFER.NXE clear",
        ("error code", "0xd: P=1 W/R=0 U/S=1 RSVD=1 I/D=0"),
    ),
    "bit 8 of an AMD table": (
        {"nested": "native"}, {0x400017F0: 0x40002107}, {}, "translated", "", ("page", "4 KiB"),
    ),
    "the user on a supervisor page": (
        {}, {0x40303488: 0x4003}, {}, "#PF, page fault",
        "the user must not: US is clear in G2 (reference 15)",
        ("error code", "0x5: P=1 W/R=0 U/S=1 RSVD=0 I/D=0"),
    ),
    "the supervisor writes with WP": (
        {}, {0x40303488: 0x4005}, {"access": "write", "user": False}, "#PF, page fault",
        "RW is clear in G2 (reference 15), and CR0.WP is set",
        ("error code", "0x3: P=1 W/R=1 U/S=0 RSVD=0 I/D=0"),
    ),
    "the supervisor writes without WP": (
        {}, {0x40303488: 0x4005},
        {"access": "write", "user": False, "control": package.Control(wp=False)}, "translated", "",
        ("rights", "user RX, supervisor RWX"),
    ),
    "all that is wrong is said": (
        {"nested": "native"}, {0x40004A28: 0x92345001, 0x40003488: 0x40004003}, {"access": "write"},
        "#PF, page fault",
        "the user must not: US is clear in G2 (reference 3), G1 (reference 4); "
        "RW is clear in G1 (reference 4)", ("error code", "0x7: P=1 W/R=1 U/S=1 RSVD=0 I/D=0"),
    ),
    "fetch with XD": (
        {"nested": "native"}, {0x40003488: XD | 0x40004007}, {"access": "fetch"}, "#PF, page fault",
        "XD is set in G2 (reference 3)", ("error code", "0x15: P=1 W/R=0 U/S=1 RSVD=0 I/D=1"),
    ),
    "SMEP": (
        {"nested": "native"}, {},
        {"access": "fetch", "user": False, "control": package.Control(smep=True)}, "#PF, page fault",
        "SMEP: the supervisor must not fetch from a user page",
        ("error code", "0x11: P=1 W/R=0 U/S=0 RSVD=0 I/D=1"),
    ),
    "SMAP": (
        {"nested": "native"}, {}, {"user": False, "control": package.Control(smap=True)},
        "#PF, page fault", "SMAP: the supervisor must not read a user page",
        ("error code", "0x1: P=1 W/R=0 U/S=0 RSVD=0 I/D=0"),
    ),
    "SMAP with AC": (
        {"nested": "native"}, {}, {"user": False, "control": package.Control(smap=True, ac=True)},
        "translated", "", ("rights", "user RWX, supervisor RWX"),
    ),
    "EPT entry not present": (
        {}, {0x40105A28: 0xD2345038}, {"access": "fetch"}, "EPT violation, exit reason 48",
        "EPT PTE (reference 24) is not present",
        ("exit qualification",
         "0x184: 2 instruction fetch, 7 guest linear address valid, 8 final translation"),
    ),
    "EPT denies the data": (
        {}, {0x40105A28: 0xD2345035}, {"access": "write"}, "EPT violation, exit reason 48",
        "a write is not permitted: W is missing in N1 (reference 24)",
        ("guest-physical address", "0x92345678"),
    ),
    "EPT denies a table, which is written": (
        {}, {0x40103018: 0x40303035}, {}, "EPT violation, exit reason 48",
        "an access to a guest table counts as a write, which is not permitted: "
        "W is missing in N1 (reference 14)",
        ("exit qualification", "0xab: 0 data read, 1 data write, 3 R granted, 5 X granted, "
         "7 guest linear address valid; 8 clear: a guest table"),
    ),
    "EPT denies a table, which is read": (
        {"dirty": False}, {0x40103018: 0x40303034}, {}, "EPT violation, exit reason 48",
        "a read is not permitted: R is missing in N1 (reference 14)",
        ("guest-physical address", "0x3488"),
    ),
    "EPT denies an accessed bit": (
        {"dirty": False}, {0x40103018: 0x40303035}, {}, "EPT violation, exit reason 48",
        "an accessed or dirty bit is to be set in guest PDE (reference 15), but nested tables do not "
        "permit writes to its table: W is missing in N1 (reference 14)",
        ("guest-physical address", "0x3488"),
    ),
    "beyond nested tables": (
        {}, {0x40302000: 0x9_0000_0000_0007}, {"control": package.Control(maxphyaddr=52)},
        "EPT violation, exit reason 48",
        "0x9000000000488 has more than the 48 bits that 4 nested levels translate",
        ("guest-physical address", "0x9000000000488"),
    ),
    "EPT writable alone": (
        {}, {0x40102000: 0x40103002}, {}, "EPT misconfiguration, exit reason 49",
        "EPT PDE (reference 3): W without R", ("guest-physical address", "0x17f0"),
    ),
    "EPT executable alone": (
        {}, {0x40102000: 0x40103004}, {"execute_only": False}, "EPT misconfiguration, exit reason 49",
        "EPT PDE (reference 3): X alone, which this processor does not have",
        ("guest-physical address", "0x17f0"),
    ),
    "EPT memory type": (
        {}, {0x40103008: 0x4030101F}, {}, "EPT misconfiguration, exit reason 49",
        "EPT PTE (reference 4): memory type 3, which is reserved",
        ("guest-physical address", "0x17f0"),
    ),
    "EPT table with a memory type": (
        {}, {0x40102000: 0x40103037}, {}, "EPT misconfiguration, exit reason 49",
        "EPT PDE (reference 3): reserved bits 5:4: of an entry that points to a table",
        ("guest-physical address", "0x17f0"),
    ),
    "NPT denies a table": (
        {"format": "npt"}, {0x40103018: 0x40303005}, {}, "#NPF, nested page fault, exit code 0x400",
        "an access to a guest table counts as a write, which is not permitted: "
        "RW is clear in N1 (reference 14)",
        ("EXITINFO1", "0x200000007: P=1 W/R=1 U/S=1 RSVD=0 I/D=0, 33 guest table"),
    ),
    "NPT supervisor page": (
        {"format": "npt"}, {0x40105A28: 0xD2345003}, {}, "#NPF, nested page fault, exit code 0x400",
        "every nested access is a user's, and US is clear in N1 (reference 24)",
        ("EXITINFO1", "0x100000005: P=1 W/R=0 U/S=1 RSVD=0 I/D=0, 32 final translation"),
    ),
    "NPT fetch": (
        {"format": "npt"}, {0x40105A28: XD | 0xD2345007}, {"access": "fetch"},
        "#NPF, nested page fault, exit code 0x400",
        "a fetch is not permitted: XD is set in N1 (reference 24)", ("EXITINFO2", "0x92345678"),
    ),
    "NPT reserved": (
        {"format": "npt"}, {0x40100000: 0x40101187}, {}, "#NPF, nested page fault, exit code 0x400",
        "NPT PML4E (reference 1): reserved bit 7: no PML4E maps a page; reserved bit 8: of an entry "
        "that points to a table",
        ("EXITINFO1", "0x20000000f: P=1 W/R=1 U/S=1 RSVD=1 I/D=0, 33 guest table"),
    ),
    "a nested table outside memory": (
        {}, {0x40102000: 0x9_0000_0007}, {}, "a table outside memory",
        "N1 would be read at machine address 0x900000008, which is not in this memory", None,
    ),
    "a guest table outside memory": (
        {}, {0x40103018: 0x9_0000_0037}, {}, "a table outside memory",
        "G2 would be read at machine address 0x900000488, which is not in this memory", None,
    ),
    "the root outside memory": (
        {"nested": "native"}, {}, {"cr3": 0x5000_0000}, "a table outside memory",
        "G4 would be read at machine address 0x500007f0, which is not in this memory", None,
    ),
}  # fmt: skip


def made_and_walked(fields, entries, question):
    made = example_tables(**fields)
    for address, entry in entries.items():
        put(made, address, entry)
    nested = made.nested
    if "execute_only" in question:
        nested = package.Ept(nested.eptp, execute_only=question["execute_only"])
    rest = {name: value for name, value in question.items() if name != "execute_only"}
    asked = {"cr3": made.cr3, "nested": nested} | rest
    return made.memory, package.explain(made.memory, made.gva, **asked)


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_is_spelled_out(name):
    fields, entries, question, title, reason, fact = ENDINGS[name]
    memory, walk = made_and_walked(fields, entries, question)
    judge(memory, walk)
    assert (walk.ending.title, walk.ending.reason) == (title, reason)
    assert fact is None or fact in walk.ending.facts
    assert f"{title}: {reason}" if reason else title in lines(walk)


def test_the_endings_above_are_of_every_outcome():
    found = {made_and_walked(*ENDINGS[name][:3])[1].translation.outcome for name in ENDINGS}
    assert found == set(package.Outcome)


# --- entries bit by bit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "entry", "bits"),
    [
        (4, 0x40002007 | 0xF78, "P RW US PWT PCD A ign(11:8,6)"),
        (4, 0x40002001 | 0x7FF << 52 | XD, "P XD ign(62:52)"),
        (1, 0x92345FFF, "P RW US PWT PCD A D PAT G ign(11:9)"),
        (1, 0x92345001 | 5 << 59 | 1 << 58, "P pkey=5 ign(58)"),
        (1, 0x92345001 | 15 << 59 | XD, "P pkey=15 XD"),
        (1, 0x92345FFE, "not present"),
        (2, 0x92201187, "P RW US PS G PAT"),
        (2, 0x92203087, "P RW US PS PAT rsvd(13)"),
        (3, 0x8020_1087 | 1 << 50, "P RW US PS PAT rsvd(50,21)"),
        (4, 0x40002087 | 0xF << 48, "P RW US rsvd(51:48,7)"),
    ],
)
def test_bits_of_the_guests_entries_have_their_names(level, entry, bits):
    made = example_tables("4k", "native")
    put(made, {4: 0x400017F0, 3: 0x40002000, 2: 0x40003488, 1: 0x40004A28}[level], entry)
    walk = package.explain(made.memory, GVA, cr3=made.cr3)
    read = walk.reads[4 - level]
    assert (read.level, read.entry, " ".join(read.bits)) == (level, entry, bits)


@pytest.mark.parametrize(
    ("level", "entry", "dirty", "bits"),
    [
        (4, 0x40101007, True, "R W X"),
        (4, 0x40101307 | 1 << 10, True, "R W X A ign(10:9)"),
        (4, 0x40101307, False, "R W X ign(9:8)"),
        (4, 0x40101007 | 1 << 63 | 1 << 52, True, "R W X SVE ign(52)"),
        (4, 0x401010FF, True, "R W X rsvd(7:3)"),
        (1, 0x40301003, True, "R W UC"),
        (1, 0x4030100B, True, "R W WC"),
        (1, 0x40301023, True, "R W WT"),
        (1, 0x4030106F | 1 << 7, True, "R W X WP IPAT ign(7)"),
        (1, 0x40301377, True, "R W X WB IPAT A D"),
        (1, 0x4030103F, True, "R W X type 7"),
        (1, 0x40301030, True, "not present"),
        (2, 0x402000B7, True, "R W X WB PS"),
        (2, 0x402010B7, True, "R W X WB PS rsvd(12)"),
    ],
)
def test_bits_of_ept_entries_have_their_names(level, entry, dirty, bits):
    made = example_tables(dirty=dirty)
    put(made, {4: 0x40100000, 3: 0x40101000, 2: 0x40102000, 1: 0x40103008}[level], entry)
    walk = package.explain(made.memory, GVA, cr3=made.cr3, nested=made.nested)
    read = walk.reads[4 - level]
    assert (read.level, read.entry, " ".join(read.bits)) == (level, entry, bits)


def test_npt_entries_have_no_keys_and_a_reserved_bit_8():
    made = example_tables(format="npt")
    put(made, 0x40103008, 0x40301107 | 5 << 59)
    walk = package.explain(made.memory, GVA, cr3=made.cr3, nested=made.nested)
    assert " ".join(walk.reads[3].bits) == "P RW US G ign(61,59)"
    put(made, 0x40102000, 0x40103107)
    walk = package.explain(made.memory, GVA, cr3=made.cr3, nested=made.nested)
    assert " ".join(walk.reads[2].bits) == "P RW US ign(8)"
    put(made, 0x40101000, 0x40102107)
    walk = package.explain(made.memory, GVA, cr3=made.cr3, nested=made.nested)
    assert " ".join(walk.reads[1].bits) == "P RW US rsvd(8)"


def test_a_recursive_table_is_read_with_the_bits_that_this_walk_has_set():
    """The root's last entry points to the root: it is PML4E, PDPTE, PDE and PTE in turn."""
    made = example_tables("4k", "native")
    put(made, 0x40001FF8, 0x40001003)
    walk = package.explain(made.memory, (1 << 64) - 8, cr3=made.cr3, access="write", user=False)
    assert [read.address for read in walk.reads] == [0x40001FF8] * 4
    assert [" ".join(read.bits) for read in walk.reads] == ["P RW", "P RW A", "P RW A", "P RW A"]
    assert [read.sets for read in walk.reads] == [("A",), (), (), ("D",)]
    assert walk.translation.maddr == 0x40001FF8
    assert walk.translation.updates == {0x40001FF8: 0x40001063}


# --- files ---------------------------------------------------------------------------------------------


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
    code = f"""
import sys
from mmu.cli import main
statuses = [main(arguments) for arguments in {light!r}]
heavy = {HEAVY!r} & set(sys.modules)
assert not heavy, heavy
assert statuses == [0] + [2] * 7, statuses
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
