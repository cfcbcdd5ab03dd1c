"""What perf prints: real lines of perf 6.1, and lines built from its source."""

import shutil
import subprocess

import pytest
from test_trace_formats import read

from mmu import cli
from mmu.trace import import_trace
from mmu.trace.importer import chosen

# perf record -d -e page-faults -c 1 ls; perf mem -D report. The first address is 561880ee55c0.
PERF_MEM = b"""\
# PID, TID, IP, ADDR, LOCAL WEIGHT, DSRC, SYMBOL
11853 11853 0xffffffff81752b6a 0x016561880ee55c0     0 0x1e05080022 [kernel.kallsyms]:elf_load
11853 11854 0xffffffff81752b6a 0x7f1de9697110 0 0x1e05080024 [kernel.kallsyms]:elf_load
11860    -1 0xffffffff81b73418 0x7fff7bef01d9 0 0x1e05080030 [kernel.kallsyms]:_copy_to_user
"""

# The same with perf script -F comm,tid,pid,time,event,addr,data_src,ip,sym,dso.
FROM_SCRIPT = b"""\
              ls 11853/11853   950.839029: page-faults:     561880ee55c0 __progname (/usr/bin/ls)      \
1e05080022 |OP LOAD|LVL N/A or N/A|SNP N/A|TLB N/A|LCK N/A|BLK  N/A ffffffff81752b6a elf_load ([k])
              ls 11853/11854   950.839059: page-faults:     7f1de9697110 dl_close_state.2 (/x/ld.so.2) \
     1e05080024 |OP STORE|LVL N/A or N/A|SNP N/A|TLB N/A|LCK N/A|BLK  N/A ffffffff81752b6a add ([k])
              ls 11860/-1   950.839076: page-faults:     7fff7bef01d9 [unknown] ([stack])      \
1e05080030 |OP EXEC|LVL N/A or N/A|SNP N/A|TLB N/A|LCK N/A|BLK  N/A ffffffff81b73418 copy_to ([k])
"""

SAMPLES = [
    (0x561880EE55C0, 0, 0, 11853, 11853),
    (0x7F1DE9697110, 1, 0, 11853, 11854),
    (0x7FFF7BEF01D9, 2, 0, 11860, (1 << 32) - 1),
]


def script(rest, start=b"ls 1/2 [003] 950.839059:", event=b"mem-loads:"):
    return start + b" " + event + b" " + rest + b"\n"


def test_the_mistaken_width_of_perf_mem_is_taken_off():
    assert read("perf-mem", PERF_MEM) == SAMPLES


@pytest.mark.parametrize(
    ("shown", "address"),
    [
        ("0x016", None),
        ("0x0160", None),
        ("0x01612345", 0x12345),
        ("0x016ffff9a044e96a308", 0xFFFF9A044E96A308),
        ("0x16561880ee55c", 0x16561880EE55C),
        ("0x0000561880ee55c0", 0x561880EE55C0),
        ("0x016561880ee55c", 0x561880EE55C),
    ],
)
def test_an_address_of_perf_mem_is_padded_or_not(shown, address):
    row = f"# PID, TID, IP, ADDR, LOCAL WEIGHT, DSRC, SYMBOL\n1 2 0x40 {shown} 0 0x2 a:b\n"
    found = read("perf-mem", row.encode())
    if address is None:
        assert found in (2, [])  # no digits, or no address
    elif address >> 47 in (0, (1 << 17) - 1):
        assert found == [(address, 0, 0, 1, 2)]
    else:
        assert found == 2


def test_columns_on_request_are_passed_over_and_pages_counted(tmp_path):
    text = b"# PID, TID, IP, ADDR, PHYS ADDR, DATA PAGE SIZE, LOCAL WEIGHT, DSRC, SYMBOL\n"
    for page in (b"4K", b"2M", b"2M", b"1G", b"N/A"):
        text += b"7,8,0x401000,0x7f0000000008,0x000000044e96a308," + page + b",3,0x42,ls:main\n"
    (tmp_path / "list").write_bytes(text)
    made = import_trace(tmp_path / "list", tmp_path / "t")
    assert made.reads == 5
    assert made.metadata["samples_by_page_size"] == {"4K": 1, "2M": 2, "1G": 1}
    assert made.metadata["sampled"] is True
    assert read("perf-mem", text.replace(b"2M", b"3M")) == 3
    names, rows = text.split(b"\n", 1)
    assert read("perf-mem", names + b"\n" + rows.replace(b",", b"\t")) == read("perf-mem", text)
    assert "accepted: one letter" in read("perf-mem", names + b"\n" + rows.replace(b",", b"::"))


@pytest.mark.parametrize(
    "row",
    [
        b"x 2 0x40 0x7f0000000000 0 0x2 a",
        b"1 x 0x40 0x7f0000000000 0 0x2 a",
        b"1 4294967296 0x40 0x7f0000000000 0 0x2 a",
        b"1 2 40 0x7f0000000000 0 0x2 a",
        b"1 2 0x40 7f0000000000 0 0x2 a",
        b"1 2 0x40 0x7f0000000000 y 0x2 a",
        b"1 2 0x40 0x7f0000000000 0 2 a",
        b"1 2 0x40 0x7f0000000000 0 0x2",
        b"1 2 0x40 0x900000000000 0 0x2 a",
    ],
)
def test_a_row_that_is_no_sample_is_refused(row):
    assert read("perf-mem", PERF_MEM + row + b"\n") == 5


def test_perf_mem_without_its_first_line_is_refused():
    assert "no line names the columns" in read("perf-mem", PERF_MEM.split(b"\n", 1)[1])


def test_samples_of_perf_script_are_read_by_their_data_source():
    assert read("perf-script", FROM_SCRIPT) == SAMPLES


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (b"mem-loads:", 0),
        (b"mem-stores:", 1),
        (b"cpu/mem-loads,ldlat=30/P:", 0),
        (b"MEM_UOPS_RETIRED.ALL_STORES:pp:", 1),
        (b"mem_inst_retired.all_loads:", 0),
        (b"dTLB-load-misses:", 0),
        (b"iTLB-load-misses:", None),
        (b"L1-icache-load-misses:", None),
        (b"load_store:", None),
        (b"page-faults:", None),
        (b"ibs_op//:", None),
    ],
)
def test_an_event_says_what_was_done(event, kind):
    text = script(b"    561880ee55c0 ffffffff81752b6a elf_load", event=event)
    expected = [] if kind is None else [(0x561880EE55C0, kind, 0, 1, 2)]
    assert read("perf-script", text) == expected


@pytest.mark.parametrize(
    ("operations", "kinds"),
    [(1, []), (2, [0]), (4, [1]), (6, [0, 1]), (8, []), (0xA, []), (0x10, [2])],
)
def test_a_data_source_says_what_was_done(operations, kinds):
    word = f"{0x1E05080020 | operations:16x}".encode()
    text = script(b"    561880ee55c0" + word + b" |OP ...|LVL L1 hit|LCK No 7 401000 main")
    assert [access[1] for access in read("perf-script", text)] == kinds


@pytest.mark.parametrize(
    ("start", "who"),
    [
        (b"ls 1/2 [003] 950.839059:", (1, 2)),
        (b"     1/2    950.839059123:      1", (1, 2)),
        (b"1/2", (1, 2)),
        (b"Web Content 12 1/2 [003] 950.8:", (1, 2)),
        (b"Web Content 12 2 950.8:", (None, 2)),
        (b":-1 -1 [003] 950.8:", (None, (1 << 32) - 1)),
        (b"kworker/0:1 2 [003]", (None, 2)),
        (b"kworker/0:1-eve 2 [003] 950.8:   1234", (None, 2)),
    ],
)
def test_a_thread_is_found_after_any_command(start, who):
    text = script(b"    561880ee55c0 ffffffff81752b6a elf_load", start)
    assert read("perf-script", text) == [(0x561880EE55C0, 0, 0, *who)]
    assert chosen(None, text, "x") == "perf-script"


def test_samples_without_process_share_a_space_and_that_is_said(tmp_path):
    text = script(b"    561880ee55c0 ffffffff81752b6a f", b"ls 2 950.8:")
    (tmp_path / "list").write_bytes(text)
    made = import_trace(tmp_path / "list", tmp_path / "t")
    assert "+pid" in made.metadata["remarks"][1]
    assert made.metadata["sampled"] is True


def test_one_address_alone_may_be_the_instructions():
    assert read("perf-script", script(b"    561880ee55c0 elf_load+0x28a ([k])")) == 1
    assert read("perf-script", script(b"    561880ee55c0 add ([k])")) == 1  # a symbol, no number


def test_one_address_alone_is_the_datas_where_call_chains_tell_the_instructions():
    text = script(b"    561880ee55c0 ") + b"\tffffffff81752b6a elf_load+0x28a ([k])\n\n"
    assert read("perf-script", text) == [(0x561880EE55C0, 0, 0, 1, 2)]


def test_what_is_no_access_is_counted(tmp_path):
    rest = b" ffffffff81752b6a elf_load"
    text = b"# ========\n# cmdline : /usr/bin/perf mem record ls -l\n\n"
    text += b"ls 1/2 [003] 0.5: PERF_RECORD_MMAP2 1/2: [0x56 ...]: r-xp /usr/bin/ls\n"
    text += script(b"               0" + rest) + script(b"            1234" + rest)
    text += script(b"    561880ee55c0" + rest, event=b"page-faults:")
    text += script(b"    561880ee55c0" + rest) + b"\tffffffff81752b6a elf_load ([k])\n"
    text += script(b"    561880ee55c0              68 |OP PFETCH|LVL" + rest)
    (tmp_path / "list").write_bytes(text)
    made = import_trace(tmp_path / "list", tmp_path / "t")
    assert made.accesses == 1
    assert made.metadata["command"] == "/usr/bin/perf mem record ls -l"
    assert made.metadata["passed_over"] == {
        "samples without an address": 1,
        "samples of addresses below 64 KiB, where Linux maps nothing": 1,
        "samples that tell neither load nor store": 1,
        "prefetches": 1,
        "empty lines and lines of perf's header": 3,
        "lines of call chains": 1,
        "records of mappings and tasks": 1,
    }


def test_page_sizes_are_counted_though_code_has_some_as_well(tmp_path):
    rest = b"    561880ee55c0 ffffffff81752b6a elf_load ([k])        44e96a308"
    text = script(rest + b" 2M 4K") + script(rest + b" 2M") + script(rest) + script(rest + b" N/A")
    (tmp_path / "list").write_bytes(text)
    made = import_trace(tmp_path / "list", tmp_path / "t")
    assert made.metadata["samples_by_page_size"] == {"2M": 2}


@pytest.mark.skipif(not shutil.which("perf"), reason="there is no perf on the PATH")
def test_what_the_installed_perf_prints_is_read(tmp_path):
    record = ["perf", "record", "-q", "-d", "-e", "page-faults", "-c", "1", "-o", "data", "true"]
    if subprocess.run(record, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("perf may not record here")

    def printed(*command):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout

    # A fault is neither load nor store: let it be one, or nothing of the list would be imported.
    listed = printed("perf", "mem", "-i", "data", "report", "-D").replace(b"0021 ", b"0022 ")
    fields = "comm,pid,tid,time,event,addr,ip,sym"
    samples = printed("perf", "script", "-i", "data", "-F", fields).replace(b"page-faults", b"load")
    assert chosen(None, listed, "x") == "perf-mem"
    assert chosen(None, samples, "x") == "perf-script"
    assert len(read("perf-mem", listed)) > 10
    assert read("perf-mem", listed) == read("perf-script", samples)


def test_the_command_line_says_that_samples_are_samples(tmp_path, capsys):
    (tmp_path / "list").write_bytes(PERF_MEM)
    assert cli.main(["trace", "import", str(tmp_path / "list"), "-o", str(tmp_path / "t")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("note: samples of accesses, not all of them")
