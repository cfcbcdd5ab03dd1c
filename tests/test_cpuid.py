"""What CPUID tells: every dump, descriptor and word decoded, and garbage refused with its place."""

import re

import pytest
from cpuid_dumps import AMD, DUMPS, HYGON, INTEL, ROWS_18H, dump, line, parameters
from hypothesis import given
from hypothesis import strategies as st

from mmu.cpuid import amd, intel
from mmu.cpuid.dump import NOTHING, Registers, parse_dump, read_dump
from mmu.cpuid.told import decode, lines
from mmu.errors import InputError
from mmu.processors import names

FULL = "full"
# Level, side, sizes, entries, ways of all rows, typed from the vendors' tables.
TOLD = {
    "nehalem": [
        (1, "data", "2m 4m", 32, 4), (1, "data", "4k", 64, 4), (1, "fetch", "2m 4m", 7, FULL),
        (1, "fetch", "4k", 64, 4), (2, "all", "4k", 512, 4),
    ],
    "haswell": [
        (1, "data", "2m 4m", 32, 4), (1, "data", "1g", 4, FULL), (1, "data", "4k", 64, 4),
        (1, "fetch", "2m 4m", 8, FULL), (1, "fetch", "4k", 64, 8), (2, "all", "4k 2m", 1024, 8),
    ],
    "skylake-sp": [
        (1, "data", "2m 4m", 32, 4), (1, "data", "1g", 4, FULL), (1, "data", "4k", 64, 4),
        (1, "fetch", "2m 4m", 8, FULL), (1, "fetch", "4k", 64, 8), (2, "all", "4k 2m", 1536, 12),
        (2, "all", "1g", 16, 4),
    ],
    "icelake-sp": [
        (1, "fetch", "4k 2m 4m", 8, FULL), (1, "store", "4k 2m 4m 1g", 16, FULL),
        (1, "load", "4k", 64, 4), (1, "load", "2m 4m", 32, 4), (1, "load", "1g", 8, FULL),
        (2, "all", "4k 2m 4m", 1024, 8), (2, "all", "4k 1g", 1024, 8),
    ],
    "sapphire-rapids": [
        (1, "fetch", "4k", 256, 8), (1, "fetch", "2m 4m", 32, 8),
        (1, "store", "4k 2m 4m 1g", 16, FULL), (1, "load", "4k", 64, 4),
        (1, "load", "2m 4m", 32, 4), (1, "load", "1g", 8, FULL),
        (2, "all", "4k 2m 4m", 1024, 8), (2, "all", "4k 1g", 1024, 8),
    ],
    "barcelona": [
        (1, "data", "4k", 48, FULL), (1, "fetch", "4k", 32, FULL), (1, "data", "2m", 48, FULL),
        (1, "fetch", "2m", 16, FULL), (1, "data", "1g", 48, FULL), (2, "data", "4k", 512, 4),
        (2, "fetch", "4k", 512, 4), (2, "data", "2m", 128, 2),
    ],
    "zen2": [
        (2, "data", "4k", 2048, 8), (2, "fetch", "4k", 1024, 8),
        (2, "data", "2m", 2048, 4), (2, "fetch", "2m", 1024, 8),
    ],
    "zen3": [
        (1, "data", "4k", 64, FULL), (1, "fetch", "4k", 64, FULL), (1, "data", "2m", 64, FULL),
        (1, "fetch", "2m", 64, FULL), (1, "data", "1g", 64, FULL), (1, "fetch", "1g", 64, FULL),
        (2, "data", "4k", 2048, 8), (2, "fetch", "4k", 512, 4), (2, "data", "2m", 2048, 4),
        (2, "fetch", "2m", 512, 2), (2, "data", "1g", 64, FULL),
    ],
    "zen4": [
        (2, "data", "4k", 3072, 8), (2, "fetch", "4k", 512, 4),
        (2, "data", "2m", 3072, 6), (2, "fetch", "2m", 512, 2),
    ],
    "zen5": [
        (2, "data", "4k", 4096, 8), (2, "fetch", "4k", 2048, 4),
        (2, "data", "2m", 4096, 4), (2, "fetch", "2m", 2048, 2),
    ],
}  # fmt: skip
SIGNATURES = {
    "nehalem": (6, 0x1A, 5), "haswell": (6, 0x3F, 2), "skylake-sp": (6, 0x55, 4),
    "icelake-sp": (6, 0x6A, 6), "sapphire-rapids": (6, 0x8F, 8), "barcelona": (0x10, 2, 1),
    "zen2": (0x17, 0x31, 0), "zen3": (0x19, 1, 1), "zen4": (0x19, 0x11, 1), "zen5": (0x1A, 2, 1),
}  # fmt: skip


def tell(*parts):
    return decode(parse_dump(dump(*parts)))


def rows(told):
    return [
        (t.level, t.side, " ".join(t.sizes), t.entries, FULL if t.ways == t.entries else t.ways)
        for t in told.tlbs
    ]


def test_a_dump_of_each_named_processor_is_here():
    assert set(DUMPS) == set(TOLD) == set(SIGNATURES) == set(names())


@pytest.mark.parametrize("name", DUMPS)
def test_every_dump_is_decoded_exactly(name):
    told = decode(parse_dump(DUMPS[name]))
    assert rows(told) == TOLD[name]
    assert (told.family, told.model, told.stepping) == SIGNATURES[name]
    assert (told.nearest, told.alike) == (name, True)


@pytest.mark.parametrize(
    ("byte", "expected"),
    [
        (0x01, (1, "fetch", "4k", 32, 4)), (0x02, (1, "fetch", "4m", 2, FULL)),
        (0x03, (1, "data", "4k", 64, 4)), (0x04, (1, "data", "4m", 8, 4)),
        (0x05, (1, "data", "4m", 32, 4)), (0x0B, (1, "fetch", "4m", 4, FULL)),
        (0x4F, (1, "fetch", "4k", 32, None)), (0x50, (1, "fetch", "4k 2m 4m", 64, None)),
        (0x51, (1, "fetch", "4k 2m 4m", 128, None)), (0x52, (1, "fetch", "4k 2m 4m", 256, None)),
        (0x55, (1, "fetch", "2m 4m", 7, FULL)), (0x56, (1, "data", "4m", 16, 4)),
        (0x57, (1, "data", "4k", 16, 4)), (0x59, (1, "data", "4k", 16, FULL)),
        (0x5A, (1, "data", "2m 4m", 32, 4)), (0x5B, (1, "data", "4k 4m", 64, None)),
        (0x5C, (1, "data", "4k 4m", 128, None)), (0x5D, (1, "data", "4k 4m", 256, None)),
        (0x61, (1, "fetch", "4k", 48, FULL)), (0x64, (1, "data", "4k", 512, 4)),
        (0x6A, (1, "data", "4k", 64, 8)), (0x6B, (2, "data", "4k", 256, 8)),
        (0x6C, (2, "data", "2m 4m", 128, 8)), (0x6D, (2, "data", "1g", 16, FULL)),
        (0x76, (1, "fetch", "2m 4m", 8, FULL)), (0xA0, (1, "data", "4k", 32, FULL)),
        (0xB0, (1, "fetch", "4k", 128, 4)), (0xB1, (1, "fetch", "2m", 8, 4)),
        (0xB2, (1, "fetch", "4k", 64, 4)), (0xB3, (1, "data", "4k", 128, 4)),
        (0xB4, (1, "data", "4k", 256, 4)), (0xB5, (1, "fetch", "4k", 64, 8)),
        (0xB6, (1, "fetch", "4k", 128, 8)), (0xBA, (1, "data", "4k", 64, 4)),
        (0xC0, (1, "data", "4k 4m", 8, 4)), (0xC1, (2, "all", "4k 2m", 1024, 8)),
        (0xC2, (1, "data", "2m 4m", 16, 4)), (0xC4, (1, "data", "2m 4m", 32, 4)),
        (0xCA, (2, "all", "4k", 512, 4)),
    ],
)  # fmt: skip
def test_every_descriptor_of_leaf_2_is_that_of_the_manual(byte, expected):
    told = tell(INTEL, 0x00050654, line(2, byte << 8 | 1))
    assert rows(told) == [expected]
    assert told.tlbs[0].origin == f"CPUID leaf 2 byte {byte:02X}"


def test_descriptors_that_stand_for_two_arrays_are_both():
    assert [byte for byte, arrays in intel.DESCRIPTORS.items() if len(arrays) > 1] == [0x63, 0xC3]
    assert len(intel.DESCRIPTORS) == 41


def test_the_count_in_leaf_2_and_registers_with_bit_31_are_no_descriptors():
    told = tell(INTEL, 0x00050654, line(2, 0x00000003, 0x80030303, 0x03000000, 0))
    assert rows(told) == [(1, "data", "4k", 64, 4)]


def test_a_first_level_of_two_makes_the_other_one_the_second():
    core2 = tell(INTEL, 0x000006F6, line(2, 0x05B0B101, 0x005657F0, 0, 0x2CB43049))
    assert [(t.level, t.sizes, t.entries) for t in core2.tlbs if t.side == "data"] == [
        (2, ("4m",), 32), (1, ("4k",), 16), (1, ("4m",), 16), (2, ("4k",), 256),
    ]  # fmt: skip


def test_a_descriptor_that_is_not_known_is_named_and_those_of_caches_are_not():
    told = tell(INTEL, 0x00050654, line(2, 0x00990301, 0x002C21F0))
    assert told.notes == ["leaf 2 byte 99: not known"]


def test_c3_has_twelve_ways_though_its_text_says_six():
    notes = decode(parse_dump(DUMPS["skylake-sp"])).notes
    assert any("C3" in note and "6 ways" in note and "12" in note for note in notes)
    assert not any("C3" in note for note in decode(parse_dump(DUMPS["haswell"])).notes)


@pytest.mark.parametrize(
    ("name", "found", "known"),
    [
        ("sapphire-rapids", (1, "load", ("4k",), 64, 4), [(1, "load", ("4k",), 96, 6)]),
        (
            "icelake-sp", (1, "fetch", ("4k", "2m", "4m"), 8, 8),
            [(1, "fetch", ("4k",), 128, 8), (1, "fetch", ("2m", "4m"), 16, 8)],
        ),
        ("skylake-sp", (1, "fetch", ("4k",), 64, 8), [(1, "fetch", ("4k",), 128, 8)]),
    ],
)  # fmt: skip
def test_what_is_told_wrongly_is_named_with_what_is_known(name, found, known):
    told = decode(parse_dump(DUMPS[name]))
    (correction,) = told.corrections
    assert correction.told[:-1] == found
    assert [row[:-1] for row in correction.known] == known
    assert f"Note: {correction.reason}" in lines(told)


@pytest.mark.parametrize(
    "name", sorted(set(DUMPS) - {"sapphire-rapids", "icelake-sp", "skylake-sp"})
)
def test_nothing_is_corrected_of_others(name):
    assert decode(parse_dump(DUMPS[name])).corrections == []


def test_a_later_golden_cove_that_tells_right_is_not_corrected():
    right = ((0x00060001, 0x10, 0x4024),)
    told = tell(INTEL, 0x000806F8, line(2, 0x00FEFF01), *parameters(*right))
    assert (rows(told), told.corrections) == ([(1, "load", "4k", 96, 6)], [])


def test_empty_subleaves_of_18h_may_stand_between_others_and_end_at_the_last():
    one, two = ROWS_18H["icelake-sp"][1:3]
    body = parameters(one, (0, 0, 0), two, two)
    body[0] = line(0x18, 3, sub=0)
    told = tell(INTEL, 0x000606A6, line(2, 0x00FEFF01), *body)
    assert [t.origin for t in told.tlbs] == ["CPUID leaf 18h subleaf 1", "CPUID leaf 18h subleaf 3"]


def test_leaf_18h_counts_only_where_leaf_2_points_to_it():
    body = parameters(*ROWS_18H["icelake-sp"])
    assert rows(tell(INTEL, 0x000606A6, line(2, 0x00000301), *body)) == [(1, "data", "4k", 64, 4)]
    nothing = tell(INTEL, 0x000606A6, line(2, 0x00FEFF01))
    assert nothing.notes[0] == "leaf 2 points to leaf 18h (byte FE), which tells of no TLB"


def test_a_row_of_18h_is_fully_associative_where_bit_8_says_so():
    body = parameters((0x00080001, 2, 0x124), (0x00080001, 2, 0x224))
    assert [row.ways for row in tell(INTEL, 0x000606A6, line(2, 0x00FEFF01), *body).tlbs] == [16, 8]


def test_a_row_of_18h_that_cannot_be_is_named():
    told = tell(INTEL, 0x000606A6, line(2, 0x00FEFF01), *parameters((0x00040001, 0, 0x24)))
    assert told.notes[0] == "leaf 18h subleaf 1: not known, type 4, 0 entries"


@pytest.mark.parametrize(
    ("code", "ways"),
    [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (6, 8), (7, None), (8, 16), (9, None), (0xA, 32),
     (0xB, 48), (0xC, 64), (0xD, 96), (0xE, 128), (0xF, FULL)],
)  # fmt: skip
def test_every_code_of_ways_is_that_of_amds_manual(code, ways):
    word = code << 28 | 0x180 << 16
    assert rows(tell(AMD, 0x00A00F11, line(0x80000006, 0, word))) == [
        (2, "data", "4k", 0x180, ways)
    ]


def test_arrays_that_are_off_are_not_there():
    assert tell(AMD, 0x00A00F11, line(0x80000006, 0x01000100, 0xF000F000)).tlbs == []
    assert tell(AMD, 0x00A00F11, line(0x80000005, 0x00400040, 0xFF00FF00)).tlbs == []


def test_ways_of_the_first_level_are_told_as_they_are():
    told = tell(AMD, 0x00A00F11, line(0x80000005, 0x04200310, 0x01080207))
    assert rows(told) == [
        (1, "data", "4k", 8, 1), (1, "fetch", "4k", 7, 2),
        (1, "data", "2m", 0x20, 4), (1, "fetch", "2m", 0x10, 3),
    ]  # fmt: skip


def test_only_bit_14_of_80000021_multiplies_the_second_level_by_32():
    words = (line(0x80000006, 0x40802040, 0x60804040), line(0x80000019, 0xF040F040, 0x4020F000))
    for eax, factor in ((1 << 14, 32), (0xFFFFBFFF, 1), (0, 1)):
        told = tell(AMD, 0x00B00F21, *words, line(0x80000021, eax))
        assert [t.entries for t in told.tlbs if t.level == 2 and t.sizes != ("1g",)] == [
            0x80 * factor, 0x40 * factor, 0x80 * factor, 0x40 * factor,
        ]  # fmt: skip
        assert [t.entries for t in told.tlbs if t.sizes == ("1g",)] == [0x40, 0x40, 0x20]
        assert (amd.NO_FACTOR in told.notes) == (factor == 32)


def test_caches_of_leaf_4_are_decoded_to_the_byte():
    told = tell(
        INTEL, 0x00050654,
        line(4, 0x7C004121, 0x01C0003F, 0x3F, sub=0), line(4, 0x7C004122, 0x01C0003F, 0x3F, sub=1),
        line(4, 0x7C004143, 0x03C0003F, 0x3FF, sub=2), line(4, 0x7C0FC163, 0x0280003F, 0x6FFF, 4, sub=3),
        line(4, 0, sub=4),
    )  # fmt: skip
    assert [cache[:5] for cache in told.caches] == [
        (1, "data", 32768, 8, 64), (1, "fetch", 32768, 8, 64), (2, "all", 1 << 20, 16, 64),
        (3, "all", 28672 * 11 * 64, 11, 64),
    ]  # fmt: skip
    assert told.caches[3].origin == "CPUID leaf 4 subleaf 3"


def test_a_partition_of_lines_counts():
    told = tell(AMD, 0x00A00F11, line(0x8000001D, 0x21, 0x00C0103F, 0x7F, sub=0))
    assert told.caches == [(1, "data", 64 * 2 * 4 * 128, 4, 64, "CPUID 8000001D subleaf 0")]


def test_a_processor_without_8000001d_tells_its_caches_in_words():
    told = decode(parse_dump(DUMPS["barcelona"]))
    assert told.caches == [
        (1, "data", 64 << 10, 2, 64, "CPUID 80000005 ECX"),
        (1, "fetch", 64 << 10, 2, 64, "CPUID 80000005 EDX"),
        (2, "all", 512 << 10, 16, 64, "CPUID 80000006 ECX"),
        (3, "all", 2 << 20, 32, 64, "CPUID 80000006 EDX"),
    ]
    assert told.asids == 64
    assert told.name == "Quad-Core AMD Opteron(tm) Processor 2347 HE"


def test_a_base_frequency_is_told_by_leaf_16h_of_intel():
    assert (
        tell(INTEL, 0x00050654, line(0x16, 0xABCD09C4)).frequency_hz == 0xABCD09C4 % 65536 * 10**6
    )
    assert tell(AMD, 0x00A00F11, line(0x16, 2500)).frequency_hz == 0


NEAREST = [
    (INTEL, "nehalem", 0x000106E5, 0x000206C2, 0x000206A7, 0x000306E4),
    (INTEL, "haswell", 0x000306C3, 0x000406F1),
    (INTEL, "skylake-sp", 0x00050657, 0x000506E3, 0x000906EA, 0x000A0655),
    (INTEL, "icelake-sp", 0x000706E5, 0x000806C1, 0x000A0671),
    (INTEL, "sapphire-rapids", 0x000C06F2, 0x00090672, 0x000B0671, 0x000A06D1),
    (AMD, "barcelona", 0x00100F42, 0x00100FA0), (AMD, "zen2", 0x00870F10),
    (AMD, "zen3", 0x00A20F10, 0x00A40F41), (AMD, "zen4", 0x00A60F12, 0x00AA0F01),
    (AMD, "zen5", 0x00B40F40),
]  # fmt: skip


@pytest.mark.parametrize(("vendor", "name", "signatures"), [(v, n, s) for v, n, *s in NEAREST])
def test_relatives_are_like_the_named_processor(vendor, name, signatures):
    for signature in signatures:
        told = tell(vendor, signature)
        assert (told.nearest, told.alike) == (name, True), hex(signature)


@pytest.mark.parametrize(
    ("vendor", "signature", "name"),
    [
        (INTEL, 0x000006F6, "nehalem"), (INTEL, 0x00000F43, "sapphire-rapids"),
        (INTEL, 0x000F06F0, "sapphire-rapids"), (AMD, 0x00020F10, "barcelona"),
        (AMD, 0x00600F12, "barcelona"), (AMD, 0x00800F11, "zen2"), (HYGON, 0x00900F01, "zen2"),
        (AMD, 0x00C00F10, "zen5"),
    ],
)  # fmt: skip
def test_strangers_have_a_nearest_one_with_a_note(vendor, signature, name):
    told = tell(vendor, signature)
    assert (told.nearest, told.alike) == (name, False)
    assert told.notes[-1].endswith(f"; {name} is taken as the nearest")


def test_every_named_nearest_is_a_named_processor():
    assert set(names()) >= {name for _, name, *_ in NEAREST}


def test_another_vendor_is_refused():
    other = INTEL.replace("756E6547-6C65746E-49656E69", "746E6543-736C7561-48727561")
    with pytest.raises(
        InputError, match="found vendor 'CentaurHauls'; accepted: CPUID 00000000 of"
    ):
        tell(other, 0x000006F2)


# ------------------------------------------------------------------------------------- the text


def test_only_the_first_logical_processor_is_taken():
    two = DUMPS["zen3"] + DUMPS["zen4"]
    assert parse_dump(two) == parse_dump(DUMPS["zen3"])


def test_all_else_in_a_dump_is_passed_over():
    more = [
        "CPUID Manufacturer : AuthenticAMD", "CPUID CPU Name     : EPYC-7763", "CPUID Features",
        "CPUID Revision     : 00A00F11h", "  CPUID    00A00F11h (25.1.1)", "MSR 0000001B: 0000-0000",
        "------[ CPUID ]------", "CPUID", "",
    ]  # fmt: skip
    assert parse_dump("\n".join(more) + DUMPS["zen3"]) == parse_dump(DUMPS["zen3"])


def test_lines_may_have_no_colon_end_in_remarks_and_be_indented():
    text = DUMPS["barcelona"]
    other = re.sub(r"(CPUID \w{8}): (\S+)", r"   \1          \2 [xy] [z]", text).lower()
    assert parse_dump(other) == parse_dump(text)
    assert parse_dump(text.replace("\n", "\r\n")) == parse_dump(text)


def test_subleaves_without_their_number_are_counted():
    rows_of_4 = [line(4, 0x121, n) for n in range(3)]
    leaves = parse_dump(dump(INTEL, 0x00050654, *rows_of_4))
    assert [leaves[4, n].ebx for n in range(3)] == [0, 1, 2]
    named = parse_dump(dump(INTEL, 0x00050654, line(4, 1, sub=0x1F), line(4, 2, sub=0x1F)))
    assert {leaf: words for leaf, words in named.items() if leaf[0] == 4} == {
        (4, 0x1F): Registers(1, 0, 0, 0)
    }


@pytest.mark.parametrize(
    "bad",
    [
        "CPUID 00000002: 00FEFF01-000000F0-00000000",
        "CPUID 00000002: 00FEFF01-000000F0-00000000-0000000",
        "CPUID 00000002: 00FEFF01-000000F0-00000000-0000000G",
        "CPUID 0000002: 00FEFF01-000000F0-00000000-00000000",
        "CPUID 00000002: 00FEFF01-000000F0-00000000-00000000 [SL XX]",
        "CPUID 00000002: 00FEFF01-000000F0-00000000-00000000-00000000",
        "CPUID 00000002:",
        "CPUID 0000",
        "CPUID 0000000Z: 00FEFF01",
    ],
)
def test_a_line_of_registers_that_is_broken_is_refused_with_its_number(bad):
    text = DUMPS["zen3"] + bad + "\n"
    number = text.splitlines().index(bad) + 1
    with pytest.raises(InputError) as caught:
        parse_dump(text)
    assert str(caught.value).startswith(f"line {number}: found {bad[:40]!r}"[:-1])
    assert "accepted: CPUID LLLLLLLL: EAX-EBX-ECX-EDX" in str(caught.value)


def test_a_text_without_registers_is_refused():
    with pytest.raises(
        InputError, match=r"found no line 'CPUID 00000000: ...'; accepted: CPUID LL"
    ):
        parse_dump("hello\n")
    with pytest.raises(InputError, match=r"found no line 'CPUID 00000001: ...'"):
        parse_dump(INTEL)


def test_a_file_too_large_or_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.cpuid.dump.MOST_BYTES", 4)
    (tmp_path / "x").write_bytes(b"12345")
    with pytest.raises(InputError, match="is larger than 4 bytes; accepted: a dump of CPUID"):
        read_dump(str(tmp_path / "x"))
    (tmp_path / "x").write_bytes(b"\xff234")
    assert read_dump(str(tmp_path / "x")) == "\ufffd234"
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        read_dump(str(tmp_path / "y"))
    with pytest.raises(InputError, match=r"cannot read .*null"):
        read_dump("\0")


WORDS = st.integers(0, 2**32 - 1)
LEAVES = st.sampled_from(
    [2, 4, 0x16, 0x18, *range(0x80000002, 0x8000000B), 0x80000019, 0x8000001D, 0x80000021]
)


@given(
    st.sampled_from([INTEL, AMD, HYGON]), WORDS,
    st.lists(st.tuples(LEAVES, WORDS, WORDS, WORDS, WORDS, st.integers(0, 5)), max_size=12),
)  # fmt: skip
def test_any_registers_are_decoded_to_whole_arrays(vendor, signature, found):
    text = dump(vendor, signature, *(line(leaf, *words, sub=sub) for leaf, *words, sub in found))
    told = decode(parse_dump(text))
    assert all(
        row.entries > 0 and row.sizes and (row.ways is None or row.ways > 0) for row in told.tlbs
    )
    assert all(cache.bytes > 0 and cache.ways > 0 for cache in told.caches)
    assert told.nearest in names()
    assert all("\n" not in text for text in lines(told))


@given(st.text("CPUID0123456789ABCDEFL:-[]S \n", max_size=300))
def test_any_text_is_read_or_refused(text):
    try:
        leaves = parse_dump(text)
    except InputError:
        return
    assert leaves.get((0, 0), NOTHING) != ()


@given(st.data())
def test_a_dump_with_any_character_changed_is_read_or_refused_on_one_line(data):
    text = DUMPS[data.draw(st.sampled_from(sorted(DUMPS)))]
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.text("CPUID09AFZ:-[ \n\0", max_size=2)) + text[at + 1 :]
    try:
        told = decode(parse_dump(changed))
    except InputError as error:
        said = [str(error)]
    else:
        said = lines(told)
    assert not any("\n" in text for text in said)
