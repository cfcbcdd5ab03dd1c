"""Page maps: their readers, and what they refuse."""

import re
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from page_map_contents import content, read

from mmu.errors import InputError
from mmu.trace.pagemap import pages, textproto
from mmu.trace.pagemap.pages import page_map_of
from mmu.trace.pagemap.reader import read_page_map
from mmu.trace.pagemap.stored import write_page_map

REAL = Path(__file__).parent / "page_maps"
MIB, GIB = 1 << 20, 1 << 30
COMPILED = not numba.config.DISABLE_JIT
SOME = settings(
    max_examples=100 if COMPILED else 10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = settings(SOME, max_examples=3000)
FULL = (
    "__RUDl______ab______________________f____d_____1"  # flags of an anonymous page, by page-types
)
HEAD = FULL[:15] + "H______t" + FULL[23:]
TAIL = FULL[:16] + "T_____t" + FULL[23:]


def refused(tmp_path, text):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "map"))
    return message.removeprefix(f"{tmp_path / 'map'}: ")


V2P = """# VirtualToPhysical
# Generated: 2024-08-13T23:17:25.138285133+00:00
address_mapping_group    {
  page_size: 0x200000
  address_mapping {
    virtual_address: 0x7f0000200000
    physical_address: 0x40200000
  }
  address_mapping {
    virtual_address: 4194304
  }
  address_mapping { virtual_address: 0x600000; physical_address: 010000000 }
  information {
    page_count: 0x1
    bytes_mapped: 0x18
  }
}
address_mapping_group: { page_size: 4096, address_mapping: { virtual_address: 0xffffffffff600000; }
address_mapping{virtual_address:8192,physical_address:8192} address_mapping { } }
information {
  page_count: 5
}"""


def test_a_v2p_textproto_has_groups_of_page_sizes_and_leaves_zeros_out(tmp_path):
    assert content(read(tmp_path, V2P)) == [
        (0, -0xA00000, 0, 4096),
        (0, 0, 0, 4096),
        (0, 8192, 8192, 4096),
        (0, 4 * MIB, 0, 2 * MIB),
        (0, 6 * MIB, 2 * MIB, 2 * MIB),
        (0, 0x7F0000200000, 0x40200000, 2 * MIB),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("page_size: 0x200000", "page_siz: 4096"), "line 4: 'page_siz: 4096': not a name of v2p"),
        (("  page_size: 0x200000\n", ""), "line 4: '{': the group's page_size is missing"),
        (("0x7f0000200000", "0x7f0000200000x"), "line 6: '0x7f0000200000x': not a number"),
        (("0x7f0000200000", "-5"), "line 6: '-5': not a number"),
        (("0x7f0000200000", "99999999999999999999"), "line 6: '9999"),
        (("0x40200000", "1 physical_address: 1"), "given before"),
        (("4194304", "0x7f0000200000"), "overlaps that of line 5"),
        (("4194304", "0x7f0000201000"), "line 9: page 0x7f0000201000 of 2 MiB at 0x0: the virtual"),
        (("4194304", "0xfffd12345000"), "not canonical"),
        (("0x40200000", "0x40201000"), "the physical address is no multiple of the page size"),
        (("0x40200000", "0xfffffffe00000"), None),
        (("0x40200000", "0x10000000000000"), "line 5: page 0x7f0000200000 of 2 MiB at 0x10000000000000"),
        (("0x200000\n", "0x2000\n"), "of 8192 bytes at 0x40200000: the page size is none of"),
        (("  page_count: 5\n}", "  page_count: 5\n"), "the file ends inside a message"),
        (("  page_count: 5\n}", "}}"), "line 21: '}': not what can stand here"),
        (("page_count: 5", "virtual_address: 5"), "line 21: 'virtual_address: 5': the name does not"),
    ],
)  # fmt: skip
def test_a_v2p_textproto_is_refused_with_line_and_content(tmp_path, change, said):
    text = V2P.replace(*change, 1)
    assert text != V2P
    if said is None:
        read(tmp_path, text)
    else:
        assert said in refused(tmp_path, text)


def test_rows_have_columns_in_order_or_by_name(tmp_path):
    assert content(read(tmp_path, "0x1000 8192\n4096000\t0x2000\n\n# end\n")) == [
        (0, 0x1000, 8192, 4096),
        (0, 4096000, 0x2000, 4096),
    ]
    assert content(read(tmp_path, "0x200000, 0x400000, 2M, 3\r\n0x1000 , 0 ; 4KiB , 1 # x")) == [
        (1, 0x1000, 0, 4096),
        (3, 0x200000, 0x400000, 2 * MIB),
    ]
    by_name = "# made by hand\n\nspace,pfn,vpn\n2,0x10,0xffffffffff600\n2,17,1\n"
    assert content(read(tmp_path, by_name)) == [
        (2, -0xA00000, 0x10000, 4096),
        (2, 4096, 17 << 12, 4096),
    ]
    assert content(read(tmp_path, "pa va\n4096 8192"))[0] == (0, 8192, 4096, 4096)


def test_a_page_of_1_gib_is_broken_into_512_of_2_mib(tmp_path):
    found = content(read(tmp_path, "0x40000000 0x80000000 1G\n0 0 4096"))
    assert found[0] == (0, 0, 0, 4096)
    assert found[1:] == [(0, GIB + i * 2 * MIB, 2 * GIB + i * 2 * MIB, 2 * MIB) for i in range(512)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("hello world", "begins with 'hello world', no page map"),
        ("1,2,3,4,5", "begins with '1,2,3,4,5', no page map"),
        ("virtual,size\n1,2", "begins with 'virtual,size', no page map"),
        ("virtual,va\n1,2", "no page map"),
        ("virtual,physical\n", "found no page"),
        ("0x1000 0x1000\n0x2000", "line 2: '0x2000': the row has fewer"),
        ("0x1000 0x1000\n0x2000 1 4096", "line 2: '0x2000 1 4096': the row has more"),
        ("0x1000 0x1000\n0x2000 0xg", "line 2: '0x2000 0xg': not a row"),
        ("0x1000 0x1000\n0x2000 1x", "not a row"),
        ("0x1000 0x1000\n8192,,1", "not a row"),
        ("0x1000 0x1000 4T", "not a row"),
        ("0x1000 0x1000 99999999999G", "line 1: page 0x1000 of 0 bytes at 0x1000: the page size"),
        ("0x1000 0x1000 8192", "the page size is none of 4096, 2097152, 1073741824"),
        ("0x1000 4096\n0x3000 0x1000\n4096 8192\n", "line 3: page 0x1000 of 4 KiB overlaps"),
        ("0x200000 0 2M\n0x3ff000 0x5000 4K", "page 0x3ff000 of 4 KiB overlaps that of line 1, 0x200000"),
        ("0x201000 0 4K\n0x200000 0 2M", "page 0x200000 of 2 MiB overlaps that of line 1, 0x201000"),
        ("0x1001 0x1000", "line 1: page 0x1001 of 4 KiB at 0x1000: the virtual address is no multiple"),
        ("0x1000 0x1001", "the physical address is no multiple"),
        ("0x800000000000 0x1000", "the virtual address is not canonical"),
        ("0xffff7ffffffff000 0x1000", "the virtual address is not canonical"),
        ("0x1000 0xffffffffffff0000", "the physical address has more than 52 bits"),
        ("0x1000 0 4096 65536", "the space is no number from 0 to 65535"),
        ("vpn pfn\n0x10000000000000 1", "line 2: page number 0x10000000000000 has more than 52 bits"),
        ("0x1000 0x2000\n\n#\n0x1000 0x2000", "line 4: "),
    ],
)  # fmt: skip
def test_rows_are_refused_with_line_and_content(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_the_edges_of_what_is_accepted_are(tmp_path):
    rows = [(0x7FFFFFFFF000, 0xFFFFFFFFFF000, 4096), (0xFFFF800000000000, 0, 2 * MIB)]
    rows += [(0xFFFFFFFFFFFFF000, 4096, 4096), (0, 0xFFFFFFFE00000, 2 * MIB)]
    text = "".join(f"{v:#x} {p:#x} {s} 65535\n" for v, p, s in rows)
    signed = [(65535, v - (v >> 63 << 64), p, s) for v, p, s in rows]
    assert content(read(tmp_path, text)) == sorted(signed)


def test_a_list_of_page_types_joins_the_frames_of_a_compound_page(tmp_path):
    swap = FULL[:23].replace("a", "_") + "_" * 20 + "w"
    lines = ["voffset\toffset\tlen\tflags", f"10\t1400\t2\t{FULL}", f"200\t400\t1\t{HEAD}"]
    lines += [f"201\t401\t1ff\t{TAIL}", f"400\t600\t1\t{HEAD}", f"401\t601\t1fe\t{TAIL}"]
    lines += [
        f"7f0000000\t7fffffffffff\t3\t{swap}",
        f"800\t801\t1\t{HEAD}",
        f"801\t802\t1ff\t{TAIL}",
    ]
    lines += [f"a00\ta00\t1\t{HEAD}", f"a01\ta01\tff\t{TAIL}", f"b00\tb00\t1\t{HEAD}"]
    lines += [f"b01\tb01\tff\t{TAIL}"]
    expected = [(0, 0x10000, 0x1400000, 4096), (0, 0x11000, 0x1401000, 4096)]
    expected += [(0, 0x200000, 0x400000, 2 * MIB)]
    expected += [(0, (0x400 + i) << 12, (0x600 + i) << 12, 4096) for i in range(511)]  # one lacks
    expected += [(0, (0x800 + i) << 12, (0x801 + i) << 12, 4096) for i in range(512)]  # not aligned
    expected += [
        (0, (0xA00 + i) << 12, (0xA00 + i) << 12, 4096) for i in range(512)
    ]  # two of 1 MiB
    summary = "\n\n             flags\tpage-count       MB  symbolic-flags\n0x1\t 1 \n"
    for end in ("\n", "\n" + summary):
        found = read(tmp_path, "\n".join(lines) + end)
        assert content(found) == expected
        assert found.swapped == 3
    each = [lines[0].replace("len\t", "")]
    for line in lines[1:]:
        v, p, n, flags = line.split("\t")
        each += [f"{int(v, 16) + i:x}\t{int(p, 16) + i:x}\t{flags}" for i in range(int(n, 16))]
    assert content(read(tmp_path, "\n".join(each))) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("offset\tlen\tflags\n", "line 1: b'offset\\tlen\\tflags': not the columns"),
        ("voffset\tmap-cnt\toffset\tflags\n", "not the columns"),
        (f"voffset\toffset\tflags\n10\t1400\t2\t{FULL}\n", "line 2: '10"),
        (f"voffset\toffset\tflags\n10 1400 {FULL}\n", "not a line of page-types"),
        ("voffset\toffset\tflags\n10\t1400\t___\n", "the flags are not letters"),
        (f"voffset\toffset\tflags\n10\t1400\t{'_' * 43}\n", "run page-types with -r"),
        (f"voffset\toffset\tflags\n10\t1400\t{'_' * 22}t{'_' * 20}\n", "run page-types with -r"),
        (f"voffset\toffset\tlen\tflags\n10\t1400\tffffffff\t{FULL}\n", "more than 33,554,432 pages"),
        (f"voffset\toffset\tlen\tflags\n10\t1400\tffffffffffffffff\t{FULL}\n", "has such a number"),
        (f"voffset\toffset\tlen\tflags\n10\t10000000000\t1\t{FULL}\n", "line 2: offset 0x10000000000"),
        (f"voffset\toffset\tlen\tflags\n10\tfffffffffe\t3\t{FULL}\n", "physical address has more"),
        (f"voffset\toffset\tlen\tflags\n10\t1\t3\t{FULL}\n12\t9\t1\t{FULL}\n", "overlaps that of line 2"),
        ("voffset\toffset\tflags\n", "found no page"),
    ],
)  # fmt: skip
def test_a_list_of_page_types_is_refused_with_line_and_content(tmp_path, text, said):
    assert said in refused(tmp_path, text)


def test_a_real_map_reads_the_same_from_both_tools_but_for_what_page_types_cannot_tell():
    """One of its two huge pages is mapped in pieces: only the page tables know."""
    exact = content(read_page_map(REAL / "process.v2p.textproto"))
    concluded = content(read_page_map(REAL / "process.page-types"))
    large = [page for page in concluded if page[3] == 2 * MIB]
    assert len(large) == 2
    assert [page for page in exact if page[3] == 2 * MIB] == large[:1]
    pieces = [(0, large[1][1] + i * 4096, large[1][2] + i * 4096, 4096) for i in range(512)]
    assert exact == sorted([page for page in concluded if page != large[1]] + pieces)


def test_a_map_survives_being_stored(tmp_path):
    page_map = page_map_of(
        [0x200000, 0xFFFFFFFFFFFFF000, 0x1000, 0], [0, 4096, 4096, 1 << 51], [2 * MIB, 4096, 4096, 4096],
        [1, 1, 0, 65535],
    )  # fmt: skip
    write_page_map(tmp_path / "m", page_map)
    assert content(read_page_map(tmp_path / "m")) == content(page_map)
    assert pq.read_table(tmp_path / "m").to_pydict() == {
        "vpn": [1, (1 << 52) - 1, 0x200, 0],
        "gfn": [1, 1, 0, 1 << 39],
        "size": [4096, 4096, 2 * MIB, 4096],
        "space": [0, 1, 1, 65535],
    }


def test_parquet_of_other_tools_is_read_by_its_columns(tmp_path):
    table = pa.table(
        {"physical": pa.array([8192, 0], pa.int32()), "virtual": [4096, 0], "x": ["", ""]}
    )
    pq.write_table(table, tmp_path / "map")
    assert content(read_page_map(tmp_path / "map")) == [(0, 0, 0, 4096), (0, 4096, 8192, 4096)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"vpn": [1]}, "no column gfn; found vpn"),
        ({"vpn": [1.5], "gfn": [1]}, "column vpn has type double; accepted: an integer"),
        ({"vpn": [1, None], "gfn": [1, 2]}, "row 1: vpn is missing (null)"),
        ({"vpn": [1, 1 << 53], "gfn": [1, 2]}, "row 1: vpn 0x20000000000000 has more than 52 bits"),
        ({"vpn": [1, 2, 1], "gfn": [1, 2, 3]}, "row 2: page 0x1000 of 4 KiB overlaps that of row 0"),
        ({"vpn": [1], "gfn": [1 << 40]}, "row 0: page 0x1000 of 4 KiB at 0x10000000000000: the physical"),
        ({"vpn": pa.array([], pa.int64()), "gfn": pa.array([], pa.int64())}, "found no page"),
    ],
)  # fmt: skip
def test_parquet_is_refused_with_row_and_content(tmp_path, columns, said):
    pq.write_table(pa.table(columns), tmp_path / "map")
    with pytest.raises(InputError, match=re.escape(said)):
        read_page_map(tmp_path / "map")


def test_metadata_that_are_damaged_or_newer_are_refused(tmp_path):
    for said, text in (
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"version": 2, "swapped": 0}', "version 2"),
    ):
        table = pa.table({"vpn": [1], "gfn": [1]}).replace_schema_metadata({b"mmu_page_map": said})
        pq.write_table(table, tmp_path / "map")
        with pytest.raises(InputError, match=text):
            read_page_map(tmp_path / "map")


def test_more_pages_than_fit_are_refused_while_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MOST_PAGES", 600)
    assert "more than 600 pages" in refused(tmp_path, "0 0 1G\n0x40000000 0 1G")
    assert len(read(tmp_path, "0 0 1G").vpn) == 512


SIZES = {4096: "4k", 2 * MIB: "2M", GIB: "1GiB"}


@st.composite
def layouts(draw):
    """Pages that do not overlap, in any order: (space, address, physical, size)."""
    found, end = [], {}
    for _ in range(draw(st.integers(1, 12))):
        space, size = (
            draw(st.integers(0, 2)),
            draw(st.sampled_from([4096, 4096, 4096, 2 * MIB, GIB])),
        )
        begin = -(-end.get(space, draw(st.sampled_from([0, 1 << 46]))) // size) * size
        begin += size * draw(st.integers(0, 3))
        end[space] = begin + size
        found.append((space, begin, size * draw(st.integers(0, (1 << 52) // size - 1)), size))
    return draw(st.permutations(found))


def small(layout):
    """The same with pages of 1 GiB in pieces, in order."""
    step = {GIB: 2 * MIB}
    return sorted(
        (space, virtual + i, physical + i, min(size, 2 * MIB))
        for space, virtual, physical, size in layout
        for i in range(0, size, step.get(size, size))
    )


@SOME
@given(layouts(), st.sampled_from([",", " ", "\t", " ; "]), st.booleans(), st.integers(1, 5000))
def test_any_layout_reads_as_it_is_in_every_format(tmp_path, layout, separator, names, piece):
    order = (
        ["physical", "space", "size", "virtual"]
        if names
        else ["virtual", "physical", "size", "space"]
    )
    text = separator.join(order) + "\n" if names else ""
    groups = ""
    for space, virtual, physical, size in layout:
        row = {
            "virtual": f"{virtual:#x}",
            "physical": str(physical),
            "size": SIZES[size],
            "space": space,
        }
        text += separator.join(str(row[name]) for name in order) + "\n"
        if space == 0:
            groups += f"address_mapping_group {{ page_size: {size} address_mapping {{ "
            groups += f"virtual_address: {virtual} physical_address: {physical:#X} }} }}\n"
    assert content(read(tmp_path, text)) == small(layout)
    write_page_map(tmp_path / "stored", read_page_map(tmp_path / "map"))
    assert content(read_page_map(tmp_path / "stored")) == small(layout)
    if groups:
        data = groups.encode()
        pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
        found = pages.collected(textproto.read_textproto(pieces, "v2p"), "v2p")
        assert content(found) == [page for page in small(layout) if page[0] == 0]


TYPES = f"voffset\toffset\tlen\tflags\n10\t1400\t2\t{FULL}\n200\t400\t1\t{HEAD}\n201\t401\t1ff\t{TAIL}\n"
ROWS = "virtual,physical,size,space\n0x1000,0x2000,4K,1\n0x200000,0,2M,1\n"


def harmless(tmp_path, data):
    """A page map or one line: nothing else may come of any bytes."""
    path = tmp_path / "map"
    path.write_bytes(data)
    try:
        found = read_page_map(path)
    except InputError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert "\n" not in message
        assert message.startswith(str(path))
        return
    assert len(found.vpn)
    for space in found.spaces:
        part = found.of(space)
        assert (np.diff(part.vpn) >= pages.span(part.size[:-1])).all()


@st.composite
def damaged(draw):
    """One of the formats with some bytes changed, taken out, put in, or cut off."""
    text = bytearray(draw(st.sampled_from([V2P, TYPES, ROWS])).encode())
    for _ in range(draw(st.integers(0, 4))):
        here = draw(st.integers(0, max(len(text) - 1, 0)))
        bytes_ = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"{", b"}", b"9" * 25, b"\n", b"0x"]))
        )
        text[here : here + draw(st.integers(0, 3))] = bytes_
    return bytes(text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text)


@SOME
@given(st.one_of(damaged(), st.binary(max_size=200)))
@example(b"\x1f\x8b\x08\x00")
@example(b"PAR1")
@example(b"PAR1" + bytes(40) + b"PAR1")
def test_any_bytes_are_a_map_or_an_error_of_one_line(tmp_path, data):
    harmless(tmp_path, data)


@pytest.mark.fuzz
@LONG
@given(st.one_of(damaged(), st.binary(max_size=2000)))
def test_a_long_search_finds_no_bytes_that_do_harm(tmp_path, data):
    harmless(tmp_path, data)


@SOME
@given(st.data())
def test_a_truncated_or_flipped_parquet_file_is_a_map_or_an_error_of_one_line(tmp_path, data):
    write_page_map(
        tmp_path / "whole",
        page_map_of(range(0, 4096 * 50, 4096), range(0, 4096 * 50, 4096), [4096] * 50, [0] * 50),
    )
    whole = bytearray((tmp_path / "whole").read_bytes())
    cut = data.draw(st.integers(0, len(whole)))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    harmless(tmp_path, bytes(whole[:cut] if data.draw(st.booleans()) else whole))


@pytest.mark.slow
def test_every_truncation_of_a_v2p_textproto_is_refused_until_its_groups_are_closed(tmp_path):
    closed = V2P.rindex("information") - 1
    for length in range(len("# VirtualToPhysical"), closed - 1):
        group = V2P[:length].count("{") - V2P[:length].count("}")
        if group:
            assert refused(tmp_path, V2P[:length])


@pytest.mark.slow
def test_endless_lines_are_refused_without_being_held(tmp_path):
    for text in ("0x1000 0x1000\n" + "1" * (5 << 20), "address_mapping_group {" + "a" * (5 << 20)):
        assert "no end within 1,048,576 bytes" in refused(tmp_path, text)
