"""How a walk ends, spelled out, and the names of entries' bits."""

import pytest
from test_walkthrough import judge

import mmu as package
from mmu.example import example_tables
from mmu.report_walk import lines

GVA = 0x7F00_1234_5678
XD = 1 << 63


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
