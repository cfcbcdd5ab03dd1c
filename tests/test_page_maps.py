"""Page maps: their readers, what they refuse, and what a run makes of them."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from memory_trace import MemoryTrace
from processors_for_tests import array, processor

import mmu
from mmu.cli import main
from mmu.config import RunConfig
from mmu.errors import InputError
from mmu.run import Replay
from mmu.strict import ConfigError
from mmu.trace.format import Raw
from mmu.trace.pagemap import linux, pages, textproto
from mmu.trace.pagemap.pages import PageMap, page_map_of
from mmu.trace.pagemap.reader import merged, read_page_map
from mmu.trace.pagemap.stored import write_page_map
from mmu.trace.writer import write_raw

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


def content(page_map):
    """(space, address, frame's address, bytes) of each page."""
    return [
        (space, vpn << 12, gfn << 12, 4096 << 9 * size)
        for space, vpn, gfn, size in zip(
            page_map.space.tolist(), page_map.vpn.tolist(), page_map.gfn.tolist(),
            page_map.size.tolist(), strict=True,
        )
    ]  # fmt: skip


def read(tmp_path, text, name="map"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_page_map(path)


def refused(tmp_path, text):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "map"))
    return message.removeprefix(f"{tmp_path / 'map'}: ")


# ---- readers ------------------------------------------------------------------------------------

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


# ---- live processes -----------------------------------------------------------------------------

SLEEPER = """
import ctypes, mmap, os, signal
memory = mmap.mmap(-1, 10 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
first = -(-begin // (2 << 20)) * (2 << 20)
ctypes.memset(first, 1, 6 << 20)
part = ctypes.c_void_p(first + (4 << 20) + 4096)
for rights in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
    ctypes.CDLL(None).mprotect(part, 4096, rights)
print(first, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def sees_frames():
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file, open("/proc/kpageflags", "rb"):
            address = id(file)
            word = int.from_bytes(os.pread(file.fileno(), 8, (address >> 12) * 8), "little")
            return bool(word & (1 << 55) - 1)
    except OSError:
        return False


@pytest.fixture
def stopped():
    """A process that does not change, and where three huge pages of it are, the last mapped in pieces."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as process:
        first = int(process.stdout.readline())
        os.waitpid(process.pid, os.WUNTRACED)
        yield process.pid, first
        process.send_signal(signal.SIGKILL)


def slow_pagemap(pid):
    """{page: frame} by the kernel's description, word by word."""
    found = {}
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if end > 1 << 47:
                continue
            file.seek(start // 4096 * 8)
            for page in range(start // 4096, end // 4096):
                word = int.from_bytes(file.read(8), "little")
                if word >> 63:
                    found[page] = word & (1 << 55) - 1
    return found


@pytest.mark.skipif(not sees_frames(), reason="frame numbers are shown to root only")
def test_the_map_of_a_live_process_is_what_the_kernel_says(stopped, tmp_path, monkeypatch):
    pid, first = stopped
    expected = slow_pagemap(pid)
    whole = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    for method in (linux.EXACT, linux.CONCLUDED):
        entries, process = linux.read_process(pid)
        found = pages.collected(entries, "process", "page")
        assert process.method == method
        flat = {
            vpn + i: gfn + i
            for _, virtual, physical, size in content(found)
            for vpn, gfn in [(virtual >> 12, physical >> 12)]
            for i in range(size >> 12)
        }
        assert flat == expected
        if "[never]" not in whole:
            large = [virtual for _, virtual, _, size in content(found) if size == 2 * MIB]
            assert set(large) >= {first, first + 2 * MIB}
            # Only the page tables know.
            assert (first + 4 * MIB in large) == (method == linux.CONCLUDED)
        # A kernel before 6.7 has no such ioctl.
        monkeypatch.setattr(linux, "PAGEMAP_SCAN", linux.PAGEMAP_SCAN + 1)
    assert main(["trace", "pagemap", f"5={pid}", "-o", str(tmp_path / "m"), "--quiet"]) == 0
    assert read_page_map(tmp_path / "m").spaces == [5]


def test_hidden_frame_numbers_are_refused_with_the_reason(stopped, monkeypatch):
    words = linux.words_of
    monkeypatch.setattr(
        linux,
        "words_of",
        lambda *a: ((page, w & ~np.int64((1 << 55) - 1)) for page, w in words(*a)),
    )
    entries, _ = linux.read_process(stopped[0])
    with pytest.raises(
        InputError, match=r"PID \d+: the kernel hides its frame numbers.*CAP_SYS_ADMIN"
    ):
        pages.collected(entries, "process", "page")


def test_a_process_that_is_not_there_is_refused(capsys, tmp_path):
    assert main(["trace", "pagemap", "4194305", "-o", str(tmp_path / "m")]) == 2
    assert "PID 4194305: no process has it" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_words_say_present_swapped_and_neither(monkeypatch):
    present = -(1 << 63)
    words = np.array([1 << 62 | 7 << 5, 0, present | 5, present | 1 << 62 | 1 << 61 | 6], np.int64)
    process = linux.ProcessMap(1)
    monkeypatch.setattr(linux, "words_of", lambda *_: [(0x1000, words)])
    (vpn, pfn), swapped = process._pages(0, 0, 0)
    assert (vpn.tolist(), pfn.tolist(), swapped) == ([0x1002, 0x1003], [5, 6], 1)


# ---- runs ---------------------------------------------------------------------------------------


def plain(**changes):
    """A processor without walk caches, whose uncached walks read every table."""
    return processor(**{"walk_caches": {}, "nested_tlb": None, **changes})


def ran(accesses, page_map=None, mode="tagged", page_maps=None, **fields):
    run = {name: fields.pop(name) for name in ("backing", "reserve", "root") if name in fields}
    vm = {"trace": "t", "name": "vm", "memory": 64 * MIB, "nested_pages": "4k", **fields}
    config = RunConfig(processor=plain(), mode=mode, vms=[vm], memory=GIB, **run)
    maps = {1: page_map} if page_map is not None else {}
    replay = Replay(config, [MemoryTrace(accesses)], page_maps=page_maps or maps)
    return replay, replay.run()


def small_map(addresses, frames, size=4096, space=0):
    return page_map_of(
        addresses, [frame << 12 for frame in frames], [size] * len(frames), [space] * len(frames)
    )


SCATTERED = [0x7F00_0000_0000 + 4096 * page for page in (0, 1, 5, 511, 512, 700, 701)]


@pytest.mark.parametrize("mode", ["tagged", "purge", "flush", "native"])
@pytest.mark.parametrize("backing", ["start", "first-touch"])
def test_each_page_of_a_map_leads_to_its_frame_and_none_faults(mode, backing):
    frames = [
        0x123,
        0x3000,
        0x123,
        0,
        0x100_0000,
        0x3FFF,
        0x4000,
    ]  # shared, 64 GiB up, last, beyond
    page_map = small_map(SCATTERED, frames)
    trace = [(0, 0, address, kind) for address in SCATTERED for kind in (0, 1, 2)]
    replay, result = ran(trace, page_map, mode, backing=backing)
    assert result.count("guest_faults") == 0
    assert result.memory["page_map_4k"][0] == result.memory["guest_4k"][0] == 7
    base = int(replay.host.world.frames.base[3])
    for address, frame in zip(SCATTERED, frames, strict=True):
        found = mmu.translate(replay.memory, address + 0x123, **replay.space("vm"))
        if mode == "native":
            frame += base if frame < 64 * MIB >> 12 else GIB >> 12  # noqa: PLW2901
        assert (found.outcome, found.gpa) == (mmu.Outcome.OK, (frame << 12) + 0x123)
        assert found.guest_page_size == 4096


def test_pages_that_a_map_lacks_are_first_touched_at_frames_that_it_does_not_name():
    page_map = small_map([0x1000, 0x2000, 0x3000, 0x4000], [1, 2, 4, 6])
    replay, result = ran([(0, 0, 4096 * page, 0) for page in range(12)], page_map)
    assert result.count("guest_faults") == 12 - 4
    assert result.memory["guest_4k"][0] - result.memory["page_map_4k"][0] == 8
    host = replay.host
    frames = [
        mmu.translate(replay.memory, 4096 * n, **replay.space("vm")).gpa >> 12 for n in range(12)
    ]
    assert frames[1:5] == [1, 2, 4, 6]
    tables = [3, 5, 7, 8]  # frame 0 is nobody's; the four tables came first
    assert int(host.machine.root[host.contexts[1, 0]]) >> 12 == tables[0]
    assert frames[:1] + frames[5:] == list(range(9, 17))


def test_a_region_of_a_large_page_is_not_given_out_in_parts_nor_as_a_whole():
    page_map = page_map_of([0], [2 * MIB], [2 * MIB], [0])
    replay, _ = ran([(0, 0, GIB + 2 * MIB * n, 0) for n in range(3)], page_map, guest_pages="2m")
    found = [
        mmu.translate(replay.memory, GIB + 2 * MIB * n, **replay.space("vm")) for n in range(3)
    ]
    assert [one.gpa for one in found] == [4 * MIB, 6 * MIB, 8 * MIB]
    replay, result = ran([(0, 0, GIB + 4096 * n, 0) for n in range(600)], page_map)
    assert result.count("guest_faults") == 600
    gpas = [
        mmu.translate(replay.memory, GIB + 4096 * n, **replay.space("vm")).gpa for n in range(600)
    ]
    assert not {gpa >> 21 for gpa in gpas} & {1}
    assert max(gpas) > 4 * MIB


@pytest.mark.parametrize(
    ("size", "nested", "mode", "references"),
    [
        (4096, "4k", "tagged", 24), (4096, "2m", "tagged", 19), (2 * MIB, "4k", "tagged", 19),
        (2 * MIB, "2m", "tagged", 15), (4096, "4k", "native", 4), (2 * MIB, "4k", "native", 3),
    ],
)  # fmt: skip
def test_a_walk_reads_as_many_entries_as_the_page_sizes_of_the_map_demand(
    size, nested, mode, references
):
    if size == 4096:  # scattered over the frames, or one after the other in two large pages
        page_map = small_map([4096 * n for n in range(1024)], [2 * n + 1 for n in range(1024)])
    else:
        page_map = page_map_of([0, size], [2 * MIB, 4 * MIB], [size] * 2, [0] * 2)
    trace = [(0, 0, 4096 * n, 0) for n in range(0, 1024, 8)]
    _, result = ran(trace, page_map, mode, nested_pages=nested)
    assert list(result.references[0]) == [references]
    assert result.references[0][references] == result.count("walks") == 128


def first_touch_map(replay):
    """The map of what a run's pager did."""
    pages_ = []
    for page in sorted({(space, address >> 12) for space, _, address, _ in TOUCHED}):
        found = mmu.translate(replay.memory, page[1] << 12, **replay.space("vm", page[0]))
        pages_.append((page[1] << 12, found.gpa, found.guest_page_size, page[0]))
    whole = {
        (space, address // size * size, gpa // size * size, size)
        for address, gpa, size, space in pages_
    }
    space, virtual, physical, size = zip(*sorted(whole), strict=True)
    return page_map_of(virtual, physical, size, space)


L2 = [array(64, 4, "4k", "2m")]
RANDOM = np.random.default_rng(5)
TOUCHED = [
    (
        int(n >= 1500),
        0,
        int(RANDOM.integers(0, 300)) * 4096 + (int(RANDOM.integers(0, 4)) << 30),
        int(RANDOM.integers(0, 3)),
    )
    for n in range(3000)
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["tagged", "flush", "native"])
@pytest.mark.parametrize("guest_pages", ["4k", "2m"])
def test_a_map_of_what_first_touch_does_changes_nothing_but_the_faults(
    mode, guest_pages, monkeypatch
):
    monkeypatch.setattr(sys.modules[__name__], "plain", lambda: processor(l2=L2))
    before, faulted = ran(TOUCHED, mode=mode, guest_pages=guest_pages)
    page_map = first_touch_map(before)
    if mode == "native":
        base = int(before.host.world.frames.base[3])
        page_map = PageMap(page_map.vpn, page_map.gfn - base, page_map.size, page_map.space)
    after, mapped = ran(TOUCHED, page_map, mode)
    assert content(first_touch_map(after)) == content(first_touch_map(before))
    assert faulted.count("guest_faults") == faulted.count("fault_walks") == len(page_map.vpn)
    assert mapped.count("guest_faults") == mapped.count("fault_walks") == 0
    assert mapped.references == faulted.references
    assert mapped.hits == faulted.hits
    assert mapped.evictions == faulted.evictions
    same = {
        "accesses",
        "data_accesses",
        "fetches",
        "instructions",
        "walks",
        "dirty_walks",
        "updates",
    }
    same |= {"l1_data_misses", "l1_fetch_misses", "exits", "switches", "nested_faults"}
    assert same <= set(mapped.counters)
    for event in same:
        assert mapped.counters[event] == faulted.counters[event], event
    looked_up = faulted.count("l2_lookups") - mapped.count("l2_lookups")
    assert looked_up == len(page_map.vpn)  # a faulting access is made twice
    completed = sum(n * walks for n, walks in mapped.references[0].items())
    assert mapped.count("guest_references") + mapped.count("nested_references") == completed


def test_each_space_has_its_own_pages_and_a_map_without_spaces_is_of_space_0(tmp_path):
    text = "0x1000 0x5000 4K 0\n0x1000 0x6000 4K 7\n"
    page_map = read(tmp_path, text)
    trace = [(0, 0, 0x1000, 0), (7, 0, 0x1000, 0), (3, 0, 0x1000, 0)]
    replay, result = ran(trace, page_map)
    gpas = [mmu.translate(replay.memory, 0x1000, **replay.space("vm", n)).gpa for n in (0, 7)]
    assert gpas == [0x5000, 0x6000]
    assert result.count("guest_faults") == 1
    replay, result = ran(trace, read(tmp_path, "0x1000 0x5000\n"))
    assert result.count("guest_faults") == 2


def test_the_frames_of_the_root_partition_are_the_hosts():
    accesses = [(0, 0, 4096 * n, 1) for n in range(3)]
    fields = {"processor": plain(), "memory": GIB, "reserve": 64 * MIB, "root": {"trace": "r"}}
    config = RunConfig(**fields)
    frames = [64 * MIB >> 12, (GIB >> 12) - 1, 0x10000]
    page_map = small_map([0, 4096, 8192], frames)
    replay = Replay(config, [MemoryTrace(accesses)], page_maps={0: page_map})
    assert replay.run().count("guest_faults") == 0
    found = [mmu.translate(replay.memory, 4096 * n, **replay.space("root")) for n in range(3)]
    assert [one.maddr >> 12 for one in found] == [one.gpa >> 12 for one in found] == frames
    for frame, said in (((64 * MIB >> 12) - 1, "0x3fff000"), (GIB >> 12, "0x40000fff")):
        with pytest.raises(InputError, match=f"root: its page map has a frame at {said}"):
            Replay(config, [MemoryTrace(accesses)], page_maps={0: small_map([0], [frame])})


def test_frames_far_beyond_the_memory_need_room_for_their_regions_only():
    scattered = small_map(
        [4096 * n for n in range(400)], [(n << 9) + (400 << 18) for n in range(400)]
    )
    trace = [(0, 0, 4096 * n, 0) for n in range(400)]
    replay, result = ran(trace, scattered)  # 400 GiB up, on a host of 1 GiB
    assert result.count("guest_faults") == 0
    assert replay.host.world.mapped[1, 3] == 400 + result.memory["guest_tables"][0]
    with pytest.raises(InputError, match=r"--host-memory: found 1GiB, .* beyond its memory"):
        ran(
            trace,
            small_map([4096 * n for n in range(600)], [n << 9 for n in range(100, 700)]),
            nested_pages="2m",
        )
    replay, result = ran(trace, scattered, nested_pages="2m")
    assert result.memory["nested_2m"][0] == 401


def test_frames_that_no_nested_table_reaches_are_refused():
    with pytest.raises(
        InputError, match="vm: its page map has a frame at 0x1000000000fff; accepted"
    ):
        ran([(0, 0, 0, 0)], small_map([0], [1 << 36]))
    with pytest.raises(InputError, match="natively"):
        ran([(0, 0, 0, 0)], small_map([0], [(1 << 40) - 1]), "native")


def test_a_map_that_takes_all_memory_leaves_none_for_tables():
    page_map = page_map_of([0], [0], [2 * MIB], [0])
    with pytest.raises(mmu.OutOfMemory, match=r"give it more with --memory"):
        ran([(0, 0, 0, 0)], page_map, memory=2 * MIB)


def test_a_map_and_a_moved_layout_exclude_each_other():
    with pytest.raises(ConfigError, match=r"page_map: found 'm' and aslr 3"):
        RunConfig(processor=plain(), vms=[{"trace": "t", "page_map": "m", "aslr": 3}])


def test_memory_is_claimed_from_regions_that_are_broken_already():
    """Fragmentation gives frames to somebody who is nobody: a map's owner takes them."""
    page_map = small_map([4096 * n for n in range(1, 4096)], range(1, 4096))
    replay, result = ran(
        [(0, 0, 4096 * n, 0) for n in range(1, 4096, 7)], page_map, fragmentation=1.0
    )
    assert result.count("guest_faults") == 0
    frames = replay.host.world.frames
    owner = frames.owner[frames.begin[3] * 512 : frames.begin[4] * 512].reshape(-1, 512)
    assert (owner[:8].ravel()[1:] == 4).all()
    assert (frames.free[frames.begin[3] : frames.begin[4]] == (owner == 0).sum(axis=1)).all()
    assert frames.left[3] == (owner == 0).sum()


# ---- the command line ---------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    """Two traces, and a map of one page each."""
    paths = []
    for name in ("web", "db"):
        write_raw(tmp_path / f"{name}.parquet", raw(5000))
        (tmp_path / f"{name}.map").write_text("0x1000 0x5000\n")
        paths.append(str(tmp_path / f"{name}.parquet"))
    return tmp_path, paths


def raw(count):
    address = np.tile(np.array([4096, 8192], np.int64), count)
    return [Raw(address, np.zeros(2 * count, np.uint8), np.full(2 * count, 8, np.uint16))]


def counts(path):
    result = mmu.Result.load(path)
    return [result.count("guest_faults", vm) for vm in result.vms], result


def test_a_map_is_of_the_machine_that_is_named_or_of_all_others(recorded, capsys):
    folder, paths = recorded
    out = str(folder / "out.json")
    base = ["replay", *paths, "--host-memory", "16GiB", "--json", out]
    assert main([*base, "--page-map", str(folder / "web.map")]) == 0
    assert counts(out)[0] == [1, 1]
    assert (
        "web: 1 pages by its page map; 1 that it lacks, at first touch." in capsys.readouterr().out
    )
    assert main([*base, "--page-map", f"db={folder / 'web.map'}"]) == 0
    faults, result = counts(out)
    assert faults == [2, 1]
    assert [vm["page_map"] for vm in result.config["vms"]] == [None, str(folder / "web.map")]
    assert result.memory["page_map_4k"] == [0, 1, 0]
    (folder / "both.map").write_text("0x1000 0x5000\n0x2000 0x6000")
    both = ["--page-map", f"db={folder / 'web.map'}", "--page-map", str(folder / "both.map")]
    assert main([*base, *both]) == 0
    assert counts(out)[0] == [0, 1]
    got = mmu.replay(
        {"trace": paths[0], "page_map": str(folder / "both.map")}, paths[1], host_memory="16GiB"
    )
    assert [got.count("guest_faults", vm) for vm in got.vms] == [0, 2]


def test_wrong_maps_are_refused_in_one_line_that_names_the_option(recorded, capsys):
    folder, paths = recorded
    (folder / "bad").write_text("0x1000 0x1001\n")
    good = str(folder / "web.map")
    for given_, said in (
        (
            [f"wbe={good}"],
            "--page-map: no virtual machine 'wbe'; accepted: web, db; did you mean 'web'?",
        ),
        ([good, good], "--page-map: found two for all machines"),
        ([f"db={good}", f"db={good}"], "--page-map: found two for db"),
        ([f"db={folder}/none"], "--page-map: no file"),
        (
            [str(folder / "bad")],
            "bad: line 1: page 0x1000 of 4 KiB at 0x1001: the physical address",
        ),
        ([good, "--aslr=3"], "--page-map: found"),
        ([good, f"--json={good}"], "--json: "),
    ):
        options = [text if text.startswith("--") else f"--page-map={text}" for text in given_]
        assert main(["replay", *paths, *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("mmu: error: ")
        assert said in error
        assert error.count("\n") == 1


def test_maps_of_several_sources_become_spaces(recorded, capsys):
    folder, _ = recorded
    out, web, db = str(folder / "m"), str(folder / "web.map"), str(folder / "db.map")
    assert main(["trace", "pagemap", web, db, f"9={db}", "-o", out]) == 0
    assert (
        "3 pages of 4 KiB, 0 of 2 MiB in 3 spaces, frames up to 0x5fff; 0 in swap"
        in capsys.readouterr().out
    )
    assert content(read_page_map(out)) == [(space, 0x1000, 0x5000, 4096) for space in (0, 1, 9)]
    said = json.loads(pq.read_schema(out).metadata[b"mmu_page_map"])
    assert said["source"] == {"sources": [{"file": web}, {"file": db}, {"file": db}]}
    for arguments, text in (
        ([f"1={web}", db], "found pages of space 1"),
        ([out, web], "found 3 spaces; accepted: one"),
        (["65536=" + web], "found space 65536; accepted: 0 to 65535"),
        (["nothing"], "SOURCE: no file 'nothing'"),
    ):
        assert main(["trace", "pagemap", *arguments, "-o", str(folder / "x")]) == 2
        assert text in capsys.readouterr().err
        assert not (folder / "x").exists()
    assert main(["trace", "pagemap", out, "-o", str(folder / "again"), "--quiet"]) == 0
    assert content(read_page_map(folder / "again")) == content(read_page_map(out))


def test_maps_are_merged_up_to_what_one_may_have(monkeypatch):
    one = small_map([0], [1])
    monkeypatch.setattr("mmu.trace.pagemap.reader.MOST_PAGES", 1)
    with pytest.raises(InputError, match="found 2 pages together"):
        merged([(0, one), (1, one)], ["a", "b"])


def test_a_schedule_names_maps_and_its_processes_have_their_spaces_of_it(recorded, capsys):
    folder, _ = recorded
    (folder / "maps").mkdir()
    (folder / "maps" / "two").write_text(
        "0x1000 0x5000 4K 0\n0x1000 0x6000 4K 4\n0x2000 0x7000 4K 4\n"
    )
    schedule = folder / "run.toml"
    schedule.write_text(
        "host-memory = '16GiB'\n"
        "[[vm]]\nname = 'both'\npage-map = 'maps/two'\n"
        "[[vm.process]]\ntrace = 'web.parquet'\n"
        "[[vm.process]]\ntrace = 'db.parquet'\nspace = 4\nguest_pages = '2m'\n"
        "[[vm]]\ntrace = 'db.parquet'\n"
    )
    replay = Replay(mmu.load_schedule(schedule))
    result = replay.run()
    assert [result.count("guest_faults", vm) for vm in result.vms] == [1, 2]
    for space, address, gpa in ((0, 0x1000, 0x5000), (4, 0x1000, 0x6000), (4, 0x2000, 0x7000)):
        assert mmu.translate(replay.memory, address, **replay.space("both", space)).gpa == gpa
    out = str(folder / "out.json")
    web = str(folder / "web.map")
    assert (
        main(["replay", "--schedule", str(schedule), "--json", out, "--page-map", f"both={web}"])
        == 0
    )
    assert counts(out)[0] == [2, 2]  # the option replaces what the file says
    capsys.readouterr()
    assert (
        main(["replay", "--schedule", str(schedule), "--json", str(folder / "maps" / "two")]) == 2
    )
    assert "--json: " in capsys.readouterr().err
    schedule.write_text("[[vm]]\ntrace = 'db.parquet'\npage_map = 'nothing'\n")
    assert main(["replay", "--schedule", str(schedule)]) == 2
    error = capsys.readouterr().err
    assert "[[vm]] 1: page_map: no file" in error
    assert "a page map that can be read" in error


def test_a_space_with_a_map_goes_by_its_own_policy_where_the_map_lacks_a_page():
    page_map = small_map([0x1000], [5], space=1)
    vm = {"name": "vm", "memory": 64 * MIB, "processes": [
        {"trace": "a"}, {"trace": "b", "guest_pages": "2m"},
    ]}  # fmt: skip
    config = RunConfig(processor=plain(), vms=[vm], memory=GIB)
    traces = [MemoryTrace([(0, 0, address, 0) for address in (0x1000, GIB)]) for _ in range(2)]
    replay = Replay(config, traces, page_maps={1: page_map})
    replay.run()
    sizes = [
        mmu.translate(replay.memory, GIB, **replay.space("vm", n)).guest_page_size for n in (0, 1)
    ]
    assert sizes == [4096, 2 * MIB]
