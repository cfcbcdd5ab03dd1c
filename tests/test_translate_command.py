"""`mmu translate`: a line for each address, the whole map, files of both, and what is refused."""

import csv
import io
import json
import sys

import numba
import numpy as np
import pytest
from exact import PAGE, WB, XD, P, U
from handtables import HandTables
from linux_vectors import VECTORS, linux_state, unfolded
from test_cli import HEAVY, run

from mmu import cli
from mmu.cli import translate as command
from mmu.image import write_elf

GVA = 0x40_0000
SUMMARY = "3 ranges, 1 holes: 5 pages below 4 tables"


def written(tables, path):
    """The tables as an image; what the command is given for it."""
    pages = tables.words.reshape(-1, 512)
    used = np.flatnonzero(pages.any(axis=1))
    write_elf(path, used.astype(np.uint64) * PAGE, pages[used])
    return str(path)


def native(tmp_path):
    """An image with a few pages, and its options."""
    tables = HandTables(64)
    root = tables.take()
    for page, frame, leaf in ((0, 50, 7), (1, 51, 7), (3, 53, P | U | XD), (4, 54, 7 | 1 << 50)):
        tables.map_native(root, GVA + page * PAGE, frame * PAGE, leaf=leaf)
    tables.map_native(root, 0x4000_0000, 0x8000_0000, level=3, link=3, leaf=3 | 1 << 8)
    return ["--image", written(tables, tmp_path / "native"), "--cr3", f"{root:#x}"]


def nested(tmp_path, npt=False):
    """An image of a guest in nested tables, and its options."""
    tables = HandTables(256)
    host, root = tables.take(), tables.take()
    tables.map_native(root, GVA, 0x9000)
    tables.map_native(root, GVA + PAGE, 0x80_0000)
    tables.map_native(root, GVA + 2 * PAGE, 0xA000)
    link, leaf = (7, 7) if npt else (7, 7 | WB)
    for place in [root, *range(root + PAGE, tables.free, PAGE)]:
        tables.map_nested(host, place, place, link=link, leaf=leaf)
    tables.map_nested(host, 0x9000, 0xB_9000, link=link, leaf=leaf & ~2)
    bad = 1 << 51 | 7 if npt else 2 << 3 | 7
    tables.map_nested(host, 0xA000, 0xC000, link=link, leaf=bad)
    pointer = ["--ncr3", f"{host:#x}"] if npt else ["--eptp", f"{host | 0x5E:#x}"]
    return ["--image", written(tables, tmp_path / "nested"), "--cr3", f"{root:#x}", *pointer]


def said(capsys, *arguments):
    """The lines of a run that went well."""
    assert cli.main(["translate", *map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_a_line_says_where_an_address_leads_or_how_it_faults(tmp_path, capsys):
    image = native(tmp_path)
    lines = said(
        capsys, f"{GVA + 5:#x}", GVA + 2 * PAGE, f"{GVA + 4 * PAGE:#x}", "0x4000_1234",
        "0x8000000000000000", *image,
    )  # fmt: skip
    assert lines == [
        "0x400005: gpa 0x32005, page 4KiB",
        "0x402000: #PF 0x4: U/S",
        "0x404000: #PF 0xd: P, U/S, RSVD",
        "0x40001234: #PF 0x5: P, U/S",
        "0x8000000000000000: #GP: not canonical",
    ]
    assert said(capsys, "0x40001234", "--supervisor", *image) == [
        "0x40001234: gpa 0x80001234, page 1GiB"
    ]
    assert said(capsys, f"{GVA + 3 * PAGE}", "--fetch", *image) == [
        "0x403000: #PF 0x15: P, U/S, I/D"
    ]
    assert said(capsys, f"{GVA + 3 * PAGE}", "--no-nxe", *image) == [
        "0x403000: #PF 0xd: P, U/S, RSVD"
    ]
    image[-1] = "0x900000"
    assert said(capsys, GVA, *image) == ["0x400000: a table lies outside memory"]


def test_a_line_names_the_pages_of_both_dimensions(tmp_path, capsys):
    asked = [GVA, GVA + PAGE, GVA + 2 * PAGE]
    ept = said(capsys, *asked, *nested(tmp_path))
    assert ept == [
        "0x400000: gpa 0x9000, maddr 0xb9000, page 4KiB (guest 4KiB, nested 4KiB)",
        "0x401000: EPT violation at gpa 0x800000, qualification 0x181: read, address valid, final",
        "0x402000: EPT misconfiguration at gpa 0xa000",
    ]
    assert said(capsys, GVA, "--write", *nested(tmp_path)) == [
        "0x400000: EPT violation at gpa 0x9000, qualification 0x1aa: write, R granted, X granted, "
        "address valid, final"
    ]
    npt = said(capsys, *asked, *nested(tmp_path, npt=True))
    assert npt[0] == ept[0]
    assert npt[1:] == [
        "0x401000: #NPF at gpa 0x800000, EXITINFO1 0x100000004: U/S, final",
        "0x402000: #NPF at gpa 0xa000, EXITINFO1 0x10000000d: P, U/S, RSVD, final",
    ]


def test_addresses_come_from_standard_input_and_files_too(tmp_path, capsys, monkeypatch):
    image = native(tmp_path)
    listed = tmp_path / "addresses"
    listed.write_text("0x401000\n\n 4194304 \n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("0x402000\n0x403000"))
    lines = said(capsys, "0x400000", "-", "0x404000", "--from", listed, *image)
    assert [line.partition(":")[0] for line in lines] == [
        f"{address:#x}" for address in (0x400000, 0x402000, 0x403000, 0x404000, 0x401000, 0x400000)
    ]


def test_files_hold_what_is_printed_and_more(tmp_path, capsys):
    image = nested(tmp_path)
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv", "--quiet"]
    assert said(capsys, GVA, GVA + PAGE, GVA + 2 * PAGE, *files, *image) == []
    document = json.loads((tmp_path / "out.json").read_text())
    assert (document["addresses"], document["translated"]) == (3, 1)
    first, second, third = document["rows"]
    assert first == {
        "address": "0x400000", "outcome": "OK", "gpa": "0x9000", "maddr": "0xb9000", "page_size": PAGE,
        "guest_page_size": PAGE, "nested_page_size": PAGE, "error_code": None,
        "exit_qualification": None, "exit_info": None, "fault_gpa": None, "references": 24,
    }  # fmt: skip
    assert (second["outcome"], second["fault_gpa"]) == ("NESTED_VIOLATION", "0x800000")
    assert (second["exit_qualification"], second["exit_info"]) == ("0x181", None)
    assert third["outcome"] == "NESTED_MISCONFIGURATION"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in document["rows"]
    ] == rows
    said(capsys, GVA + PAGE, *files, *nested(tmp_path, npt=True))
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["exit_info"], row["exit_qualification"]) == ("0x100000004", None)
    said(capsys, GVA + 2 * PAGE, *files, *native(tmp_path))
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert (row["error_code"], row["nested_page_size"]) == ("0x4", None)


def test_the_whole_map_is_a_table_of_ranges_and_holes(tmp_path, capsys):
    image = native(tmp_path)
    hole = "0000000000404000-0000000000405000  reserved bits are set, entry at 0x4020"
    assert said(capsys, "--all", *image) == [
        "first-end                          rights      size  page  gpa",
        "0000000000400000-0000000000402000  urwx-       8KiB  4KiB  0x32000",
        "0000000000403000-0000000000404000  ur---       4KiB  4KiB  0x35000",
        "0000000040000000-0000000080000000  -rwxg       1GiB  1GiB  0x80000000",
        hole,
        SUMMARY,
    ]
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv", "--quiet"]
    assert said(capsys, "--all", *files, *image) == []
    document = json.loads((tmp_path / "out.json").read_text())
    assert {name: value for name, value in document.items() if name != "rows"} == {
        "ranges": 3, "holes": 1, "bytes": 3 * PAGE + (1 << 30), "pages": 5, "tables": 4,
    }  # fmt: skip
    first, *_, last = document["rows"]
    assert first == {
        "first": "0x400000", "end": "0x402000", "size": 2 * PAGE, "outcome": "OK", "user": True,
        "read": True, "write": True, "execute": True, "global": False, "page_size": PAGE,
        "guest_page_size": PAGE, "nested_page_size": None, "gpa": "0x32000", "maddr": "0x32000",
        "entry": None,
    }  # fmt: skip
    assert (last["first"], last["end"]) == ("0x404000", "0x405000")
    assert (last["outcome"], last["entry"], last["user"]) == ("PAGE_FAULT", "0x4020", None)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in document["rows"]
    ] == rows


def test_the_whole_map_of_a_guest_has_both_addresses_and_all_sizes(tmp_path, capsys):
    head, first, *holes, _ = said(capsys, "--all", *nested(tmp_path))
    span = "0000000000400000-0000000000401000"
    assert head.split() == [
        "first-end", "rights", "size", "page", "guest", "nested", "gpa", "maddr",
    ]  # fmt: skip
    assert first.split() == [span, "ur-x-", "4KiB", "4KiB", "4KiB", "4KiB", "0x9000", "0xb9000"]
    for name in ("rights", "gpa", "maddr"):  # columns begin where their names do
        assert first[head.index(name) - 1] == " " != first[head.index(name)]
    assert holes == [
        "0000000000401000-0000000000402000  nested violation, entry at 0x7020",
        "0000000000402000-0000000000403000  nested misconfiguration, entry at 0x8050",
    ]


def test_merged_by_rights_sizes_that_differ_are_a_dash(tmp_path, capsys):
    tables = HandTables(64)
    root = tables.take()
    tables.map_native(root, 0x1F_F000, 0x9000)
    tables.map_native(root, 0x20_0000, 0x40_0000, level=2)
    image = ["--image", written(tables, tmp_path / "image"), "--cr3", f"{root:#x}"]
    assert said(capsys, "--all", "--merge", "RIGHTS", *image)[1:] == [
        "00000000001ff000-0000000000400000  urwx-    2052KiB     -  0x9000",
        "1 ranges, 0 holes: 2 pages below 4 tables",
    ]
    assert len(said(capsys, "--all", "--merge", "frames", *image)) == 4


def test_an_empty_space_is_a_header_and_a_line(tmp_path, capsys):
    image = tmp_path / "image"
    image.write_bytes(bytes(2 * PAGE))
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv"]
    lines = said(capsys, "--all", "--image", image, "--cr3", "0x1000", *files)
    assert lines[1:] == ["0 ranges, 0 holes: 0 pages below 1 tables"]
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == []
    assert (tmp_path / "out.csv").read_text().count("\n") == 1


def test_rows_are_whole_however_many_pieces_they_come_in(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmu.report_map.PIECE", 2)
    test_the_whole_map_is_a_table_of_ranges_and_holes(tmp_path, capsys)
    test_files_hold_what_is_printed_and_more(tmp_path, capsys)


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="tens of thousands of pages, one by one")
def test_a_guest_of_linux_is_listed_as_qemu_lists_it(tmp_path, capsys):
    """By rights, where the kernel has them merged: 65,536 copies of a page and all the rest."""
    state = linux_state("four-user")
    image = VECTORS / "four-user.core"
    before = image.read_bytes()
    lines = said(
        capsys, "--all", "--merge", "rights", "--image", image, "--cr3", hex(state.registers["CR3"])
    )
    found = [(line[:33], line[35:38]) for line in lines[1:-1]]
    expected = [
        (f"{first % (1 << 64):016x}-{first % (1 << 64) + size:016x}", rights)
        for first, size, rights in unfolded(state.said["info_mem"])
    ]
    assert {pair for pair in found if "-" not in pair[1]} == {
        pair for pair in expected if "-" not in pair[1]
    }
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ADDRESS: found nothing"),
        (["5", "--all"], "--all: found '5' as well"),
        (["--all", "--from", "native"], "--all: found 'native' as well"),
        (["5", "--merge", "rights"], "--merge: accepted: only with --all"),
        (["5", "--most", "5"], "--most: accepted: only with --all"),
        (["--all", "--write"], "--write: accepted: only without --all"),
        (["--all", "--supervisor"], "--supervisor: accepted: only without --all"),
        (["--all", "--merge", "rihgts"], "did you mean 'rights'"),
        (["--all", "--most", "0"], "--most"),
        (["--all", "--most", "3"], "--most: found more than 3 pages below cr3 0x1000"),
        (["zz"], "ADDRESS: found 'zz'"),
        (["-", "-"], "found - twice"),
        (["5", "--from", "nothing"], "--from: no file 'nothing'"),
        (["5", "--from", "list"], "'list', line 2: found 'zz'"),
        (["5", "--csv", "native"], "--csv: 'native': also read as"),
        (["5", "--from", "long"], "'long', line 2: found 1,000 characters or more"),
        (["5", "--from", "empty"], "'empty' is empty; accepted: a file with an address a line"),
        (["5", "--json", "nowhere/file"], "--json"),
        (["5", "--csv", "list", "--from", "list"], "--csv: 'list': also read as"),
    ],
)
def test_what_cannot_be_asked_is_refused_on_one_line(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    image = native(tmp_path)
    (tmp_path / "list").write_text("0x1000\nzz\n")
    (tmp_path / "long").write_text("0x1000\n" + " " * 995 + "0x401000\n")
    (tmp_path / "empty").write_text("")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert cli.main(["translate", *arguments, *image]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tables_without_an_end_are_refused_and_no_file_is_begun(tmp_path, capsys):
    image = tmp_path / "image"
    words = np.zeros(512, np.uint64)
    words[:] = 7
    image.write_bytes(words.tobytes())
    files = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv"]
    arguments = ["--all", "--image", image, "--cr3", "0", "--most", "2000", *files]
    assert cli.main(["translate", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--most: found more than 2,000 pages" in err
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_too_many_addresses_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "MOST_ADDRESSES", 2)
    image = native(tmp_path)
    assert len(said(capsys, "1", "2", *image)) == 2
    assert cli.main(["translate", "1", "2", "3", *image]) == 2
    assert "found more than 2" in capsys.readouterr().err


def test_help_and_refusals_import_nothing_heavy(tmp_path):
    code = f"""
import sys
from mmu.cli import main
arguments = [["translate", "--help"], ["translate"], ["translate", "5"],
             ["translate", "5", "--image", "nothing", "--cr3", "0"]]
assert [main(each) for each in arguments] == [0, 2, 2, 2]
assert not {HEAVY!r} & set(sys.modules)
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
