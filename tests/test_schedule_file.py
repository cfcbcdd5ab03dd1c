"""Schedules in TOML: what they may say, what options replace, and what is refused on one line."""

import os
import re
import time
from pathlib import Path

import numba
import numpy as np
import pytest

import mmu
from mmu import cli
from mmu.config import RunConfig, VmConfig
from mmu.errors import InputError
from mmu.processors import load_processor
from mmu.schedule import described
from mmu.trace.format import Raw
from mmu.trace.writer import write_trace
from mmu.turns import Quantum, Start

ROOT = Path(__file__).parents[1]
WHOLE = """
mode = "flush"
quantum = "2ms"
exits-per-second = 100
warm_up = 4_097
host-memory = "16GiB"
memory = "1GiB"
seed = 3
repeat = 2
nested-dirty = false
lps = 2
pinned = true
migration-flush = false
table_reads = "fixed"
window = 32
conflicts = true
shootdowns-per-second = 7
vcpus = 3
set = ["l2.ways=6", "costs.exit=900"]

[root]
trace = "web.parquet"
memory = "2GiB"

[[vm]]
trace = "web.parquet"
name = "first"
weight = 3
start = "5ms"
guest-pages = "auto"
repeat = 4
vcpus = 1

[[vm]]
turn = "1ms"

[[vm.process]]
trace = "sub/db.parquet"
space = 4
weight = 2
guest_pages = "2m"

[[vm.process]]
trace = "web.parquet"
start = "8192 accesses"
repeat = 7
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two short traces, seen from another one."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    part = Raw(np.arange(9000, dtype=np.uint64) * 512, np.full(9000, 2, np.uint8))
    write_trace(tmp_path / "in/web.parquet", [part], "raw")
    write_trace(tmp_path / "in/sub/db.parquet", [part], "raw")
    monkeypatch.chdir(tmp_path / "out")
    return tmp_path / "in"


def written(folder, text):
    path = folder / "s.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return os.path.relpath(path)


def test_a_file_says_of_the_run_and_of_each_machine_what_options_say(folder):
    config = mmu.load_schedule(written(folder, WHOLE))
    web = os.path.join("../in", "web.parquet")
    assert config == RunConfig(
        processor=load_processor("skylake-sp", ["l2.ways=6"]),
        mode="flush", quantum="2ms", exits_per_second=100, warm_up=4097, memory="16GiB", seed=3,
        repeat=2, nested_dirty=False, lps=2, pinned=True, migration_flush=False,
        table_reads="fixed", window=32, conflicts=True, shootdowns_per_second=7,
        costs={"exit": 900},
        root={"trace": web, "memory": "2GiB", "vcpus": 3},
        vms=[
            VmConfig(
                trace=web, name="first", memory="1GiB", weight=3, start="5ms",
                guest_pages="auto", repeat=4, vcpus=1,
            ),
            VmConfig(
                memory="1GiB", turn="1ms", vcpus=3,
                processes=[
                    {
                        "trace": "../in/sub/db.parquet", "space": 4, "weight": 2,
                        "guest_pages": "2m",
                    },
                    {"trace": web, "start": "8192accesses", "repeat": 7},
                ],
            ),
        ],
    )  # fmt: skip
    assert config.vms[0].start == Start(value=12_500_000, unit="cycles")
    assert config.vms[1].turn == Quantum(value=2_500_000, unit="cycles")
    assert config.vms[1].name == "db"
    assert [(p.name, p.space, p.repeat) for p in config.vms[1].processes] == [
        ("db", 4, 2), ("web", 0, 7),
    ]  # fmt: skip


def test_options_replace_what_the_file_says_of_the_run_and_of_every_machine(folder):
    config = mmu.load_schedule(
        written(folder, WHOLE), mode="tagged", quantum="1ms", repeat=1, memory="512MiB",
        guest_pages="4k", weights=[1, 5], starts=["0", "7cycles"], settings=["costs.exit=1"],
        root=folder / "sub/db.parquet", warm_up=None, lps=4, vcpus=2, window=0, pinned=False,
    )  # fmt: skip
    assert (config.mode, config.quantum.value, config.warm_up) == ("tagged", 2_500_000, 4097)
    assert (config.costs.exit, config.processor.l2[0].ways) == (1, 6)
    assert [vm.memory for vm in config.machines] == [512 << 20] * 3
    assert [vm.vcpus for vm in config.machines] == [2] * 3
    assert (config.lps, config.window, config.pinned, config.conflicts) == (4, 0, False, True)
    assert [vm.repeat for vm in config.machines] == [1] * 3
    assert [vm.weight for vm in config.vms] == [1, 5]
    assert [vm.start.value for vm in config.vms] == [0, 7]
    assert [vm.guest_pages for vm in config.machines] == ["4k"] * 3
    assert [(p.guest_pages, p.repeat) for p in config.vms[1].processes] == [("4k", 1)] * 2
    assert config.root.trace.endswith("sub/db.parquet")


def test_a_processor_is_a_name_or_a_file_beside_the_schedule(folder):
    (folder / "mine.toml").write_text(
        (ROOT / "mmu/presets/skylake-sp.toml").read_text().replace('"skylake-sp"', '"mine"')
    )
    config = mmu.load_schedule(
        written(folder, 'processor = "mine.toml"\n[[vm]]\ntrace = "web.parquet"')
    )
    assert config.processor.name == "mine"
    assert config.mode == "tagged"


@pytest.mark.slow
def test_results_are_those_of_the_same_run_by_options(folder):
    text = 'quantum = "5000accesses"\n' + '[[vm]]\ntrace = "web.parquet"\nmemory = "64MiB"\n' * 2
    path = written(folder, text + "weight = 2\nstart = '9ms'\n")
    web = "../in/web.parquet"
    options = {"memory": "64MiB", "weights": [1, 2], "starts": ["0", "9ms"]}
    by_options = mmu.replay(web, web, quantum="5000accesses", **options)
    assert mmu.replay(schedule=path) == by_options
    comparison = mmu.compare(schedule=path, modes=["native", "tagged"])
    assert comparison["tagged"] == by_options
    assert by_options.config["vms"][1]["weight"] == 2
    assert by_options.cycles["idle"][1] > 0


def test_the_command_line_compares_and_replays_a_file_with_options_instead(folder, capsys):
    path = written(folder, WHOLE.replace("[root]", "[[vm]]"))
    options = ["--schedule", path, "--host-memory", "8GiB", "--warm-up", "0", "--weights", "1,2,3"]
    assert cli.main(["compare", *options, "--modes", "native,purge", "--json", "c.json"]) == 0
    comparison = mmu.result.load("c.json")
    assert [*comparison.results] == ["native", "purge"]
    assert comparison["purge"].config["mode"] == "purge"
    assert cli.main(["replay", *options, "--no-nested-dirty", "--json", "r.json"]) == 0
    result = mmu.result.load("r.json")
    assert result.mode == "flush"
    assert (result.config["memory"], result.config["warm_up"]) == (8 << 30, 0)
    assert [vm["weight"] for vm in result.config["vms"]] == [1, 2, 3]
    assert not result.config["nested_dirty"]
    capsys.readouterr()
    for options, message in [
        (["--memory", "3TiB"], "--memory: found 3TiB for 'web'"),
        (["--quantum", "5"], "--quantum: found '5'"),
        (["--weights", "1,2"], "--weights: found '1,2'; accepted: 3 of them"),
        (["--set", "l3=5"], f"{path}: l3=5: no field 'l3'"),
        (["--processor", "none"], "--processor: found 'none'"),
        (["--json", path], "--json: "),
    ]:
        assert cli.main(["replay", "--schedule", path, *options]) == 2
        assert capsys.readouterr().err.startswith(f"mmu: error: {message}")


def test_the_bundled_example_is_read_whole():
    config = mmu.load_schedule(ROOT / "traces/schedule.toml")
    assert [vm.name for vm in config.vms] == ["cc1plus", "database", "packer"]
    assert [p.name for p in config.vms[1].processes] == ["sqlite", "python-join", "sort"]
    assert [p.space for p in config.vms[1].processes] == [1, 1, 0]


@pytest.mark.slow
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="its traces are too long to interpret")
def test_the_bundled_example_runs(capsys, tmp_path):
    path, out = ROOT / "traces/schedule.toml", tmp_path / "out.json"
    assert cli.main(["replay", "--schedule", str(path), "--json", str(out)]) == 0
    result = mmu.Result.load(out)
    assert result.vms == ["cc1plus", "database", "packer"]
    config = mmu.load_schedule(path)
    streams = [process for vm in config.vms for process in vm.streams]
    made = sum(mmu.open_trace(each.trace).accesses * each.repeat for each in streams)
    counted = sum(result.counters["accesses"][:3])
    # The warm-up ends at a block end.
    assert made - config.warm_up - 4096 < counted <= made - config.warm_up
    assert result.clock == result.cycle_count((*result.cycles,))
    assert "Idle cycles" not in capsys.readouterr().out  # there are none
    assert result.cycles["idle"] == [0, 0, 0]


BAD = [
    ("", r"s.toml: found no \[\[vm\]\]; accepted: a \[\[vm\]\] table with its trace, or more"),
    ("quantum = ", r"'\S*s.toml' is not TOML: Invalid value \(at end of document\)"),
    ('a = 1\nb = "5', r"is not TOML: Unterminated string \(at end of document\)"),
    ("a = 1\n\nb = = 3\n", r"is not TOML: Invalid value \(at line 3, column 5\)"),
    ("a=" + "[" * 5000, "is not TOML: "),
    (b"a = '\xff'", "is not TOML: 'utf-8' codec"),
    ("x = 1\n" * 2, r"is not TOML: Cannot overwrite a value \(at line 2"),
    ("quantun = 3", "s.toml: no field 'quantun'; accepted: mode, .*did you mean 'quantum'"),
    ("vms = []", "s.toml: no field 'vms'; .*did you mean 'vm'"),
    ("vm = 3", r"s.toml: vm: found 3; accepted: tables, each under \[\[vm\]\]"),
    ("vm = [3]", r"s.toml: \[\[vm\]\] 1: found 3; accepted: a table"),
    ("[vm]\ntrace='web.parquet'", r"vm: found \{.*; accepted: tables, each under \[\[vm\]\]"),
    ("root = 3", r"s.toml: \[root\]: found 3; accepted: a table"),
    ("[root]", r"s.toml: \[root\]: trace: missing; a value must be given"),
    ("[[vm]]", r"s.toml: \[\[vm\]\] 1: trace: missing; a value must be given, or processes"),
    ("VM\n[[vm]]\ntrace = ''", r"s.toml: \[\[vm\]\] 2: trace: missing"),
    ("[[vm]]\ntrace='wep.parquet'", r"1: trace: no file '\S+wep.parquet'.*mean 'web.parquet'"),
    ("[[vm]]\ntrace='sub'", r"1: trace: '\S+sub' is no regular file|Is a directory"),
    ("[[vm]]\ntrace=5", r"s.toml: \[\[vm\]\] 1: trace: found 5; accepted: text"),
    ("VM\nVM\ntrace=5", "is not TOML"),
    ("[[vm]]\ntrace='web.parquet'\nweigth=2", r"\[\[vm\]\] 1: no field 'weigth'.*mean 'weight'"),
    ("[[vm]]\ntrace='web.parquet'\nprocesses=[]", r"no field 'processes'.*mean 'process'"),
    ("[[vm]]\ntrace='web.parquet'\nweight=0", r"s.toml: \[\[vm\]\] 1: weight: found 0; accepted"),
    ("[[vm]]\ntrace='web.parquet'\nstart='5h'", r"s.toml: \[\[vm\]\] 1: start: found '5h'"),
    ("[[vm]]\ntrace='web.parquet'\naslr=2020-01-01", r"1: aslr: found datetime.date\(2020, 1, 1"),
    ("VM\n[[vm.process]]\ntrace='web.parquet'", r"\[\[vm\]\] 1: process: found a trace and 1 pro"),
    ("[[vm]]\nprocess=4", r"\[\[vm\]\] 1: process: found 4; accepted: .*under \[\[vm.process\]\]"),
    ("[[vm]]\n[[vm.process]]\nspac=4", r"1: \[\[vm.process\]\] 1: no field 'spac'.*mean 'space'"),
    (
        "[[vm]]\n[[vm.process]]\ntrace='web.parquet'\nspace=1\n[[vm.process]]\n"
        "trace='web.parquet'\nspace=1\nguest-pages='auto'",
        r"\[\[vm\]\] 1: \[\[vm.process\]\] 2: guest_pages: found 'auto' in space 1, which has '4k'",
    ),
    ("[[vm]]\n[[vm.process]]\ntrace='web.parquet'\nspace=-1", r"\] 1: space: found -1; .* 65535"),
    ("warm-up=1\nwarm_up=1\nVM", "s.toml: found warm_up twice, with '-' and '_'; accepted: once"),
    ("warm-up=1.5\nVM", r"s.toml: warm_up: found 1.5; accepted: a whole number"),
    ("quantum=50\nVM", "s.toml: quantum: found 50; accepted: a number above 0 with us"),
    ("mode='fast'\nVM", r"s.toml: mode: found 'fast'; accepted: tagged \|"),
    ("set='l2.ways=6'\nVM", "s.toml: set: found 'l2.ways=6'; accepted: a list of FIELD=VALUE"),
    ("set=['l2.wais=6']\nVM", "s.toml: l2.wais=6: no field 'wais'.*did you mean 'ways'"),
    ("set=['costs.exot=6']\nVM", "s.toml: no field 'exot' in 'costs'"),
    ("processor='skylake'\nVM", "s.toml: processor: found 'skylake'.*did you mean 'skylake-sp'"),
    ("processor='no.toml'\nVM", "s.toml: processor: cannot read '../in/no.toml'"),
    ("host-memory='1GiB'\nVM", r"s.toml: \[\[vm\]\] 1: memory: found 4GiB for 'web'"),
    ("host-memory='1MiB'\nVM", r"s.toml: host_memory: found '1MiB'; accepted: 2MiB to 16TiB"),
    ("VM\n" * 1001, "s.toml: vm: found 1001 virtual machines; accepted: 1 to 1000"),
    ("VM\nname='a'\nVM\nname='a'", r"s.toml: \[\[vm\]\] 1: name: found 'a'; accepted: a name of"),
    ("#" * (1 << 22) + "\n", "larger than 4194304 bytes; accepted: a TOML file"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_what_a_file_cannot_say_is_refused_on_one_line_that_says_where(folder, text, message):
    if isinstance(text, str):
        text = text.replace("VM", "[[vm]]\ntrace='web.parquet'")
    with pytest.raises(InputError) as caught:
        mmu.load_schedule(written(folder, text))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_and_processes_without_end_are_refused_before_they_take_memory(folder):
    began = time.process_time()
    with pytest.raises(InputError, match="found 20,000 dots in line 2"):
        mmu.load_schedule(written(folder, "# a key\na" + ".a" * 20_000 + " = 1\n"))
    many = "[[vm]]\n" + "[[vm.process]]\ntrace='web.parquet'\n" * 2000
    with pytest.raises(InputError, match=r"found 2,000 \[\[vm.process\]\]; accepted: up to 1,000"):
        mmu.load_schedule(written(folder, many))
    assert time.process_time() - began < 5


def test_a_page_map_of_the_whole_run_is_looked_for_beside_the_file(folder, monkeypatch):
    (folder / "inner").mkdir()
    (folder / "inner" / "map.csv").write_text("0x1000,0x2000\n")
    text = "page-map = 'map.csv'\n[[vm]]\ntrace = '../web.parquet'\n"
    (folder / "inner" / "s.toml").write_text(text)
    config = mmu.load_schedule(folder / "inner" / "s.toml")
    assert config.vms[0].page_map == str(folder / "inner" / "map.csv")


def test_a_file_that_is_none_is_refused(folder):
    os.mkfifo("pipe.toml")
    for path, message in (("no.toml", "No such"), (".", "Is a dir"), ("pipe.toml", "no regular")):
        with pytest.raises(InputError, match=message):
            mmu.load_schedule(path)


def test_an_option_that_cannot_be_used_is_named_instead_of_the_file(folder):
    path = written(folder, WHOLE)
    for options, message in [
        ({"memory": "3TiB"}, "^--memory: found 3TiB"),
        ({"weights": [1]}, r"^weights: found '1'; accepted: 2 of them, one for each machine"),
        ({"weights": [1, 0]}, "^--weights: found 0; accepted: a whole number from 1"),
        ({"weights": "1,x"}, "^found 'x'; accepted: a whole number"),
        ({"starts": ["0", "x"]}, "^--starts: found 'x'; accepted: 0, or"),
        ({"quantum": "0us"}, "^--quantum: found '0us'"),
        ({"host_memory": "5MiB"}, "^--host-memory: found '5MiB'"),
        ({"start": "5ms"}, "^no option 'start'; .*did you mean 'starts'"),
    ]:
        with pytest.raises(InputError, match=message):
            mmu.load_schedule(path, **options)
    with pytest.raises(InputError, match=r"found 1 traces and schedule .*; accepted: one"):
        mmu.replay("web.parquet", schedule=path)


def test_places_are_named_as_they_are_in_the_file():
    assert described(("vms", 0, "memory")) == "[[vm]] 1: memory"
    assert described(("vms", 1, "processes", 2, "start", "value")) == (
        "[[vm]] 2: [[vm.process]] 3: start: value"
    )
    assert described(("root", "processes")) == "[root]: process"
    assert described(("memory",)) == "host_memory"
    assert described(("vms",)) == "vm"
