"""The command line: what it runs, what it refuses on one line, and how light it is."""

import os
import re
import resource
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
from handmade import comparison, result

from mmu import cli, units
from mmu.cli import run as run_cli
from mmu.config import RunConfig, VmConfig
from mmu.errors import InputError, OutOfMemory
from mmu.processors import load_processor
from mmu.result import Comparison, Result

HEAVY = {"numpy", "numba", "pyarrow", "pydantic", "rich", "matplotlib", "pandas"}


class Engine(types.ModuleType):
    """Stands for `mmu.run`: remembers what it was asked for, returns numbers made by hand."""

    def __init__(self):
        super().__init__("mmu.run")
        self.config = self.modes = self.error = None

    def replay_config(self, config, progress=None, check=False):
        self.config = config
        for done in (1, 2):
            if progress:
                progress(done, 2)
        if self.error:
            raise self.error
        return result(config.mode)

    def compare_config(self, config, modes, progress=None):
        self.modes = modes
        self.replay_config(config, progress)
        return comparison(modes)


@pytest.fixture
def engine(monkeypatch):
    fake = Engine()
    monkeypatch.setitem(sys.modules, "mmu.run", fake)
    return fake


def mmu(capsys, *arguments):
    """Run a command that succeeds, and return what it prints."""
    status = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def refused(capsys, *arguments, status=2):
    """Run a command that fails, and return its one line."""
    assert cli.main([str(argument) for argument in arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("mmu: error: ")
    return err.removeprefix("mmu: error: ").strip()


def test_compare_prints_modes_side_by_side(capsys, folder, engine):
    out = mmu(capsys, "compare", "web.parquet", "db.parquet", "--processor", "skylake-sp")
    assert "tagged     purge     flush    native" in out
    assert engine.modes == ("tagged", "purge", "flush", "native")
    assert [vm.name for vm in engine.config.vms] == ["web", "db"]


def test_every_option_reaches_the_configuration(capsys, folder, engine):
    mmu(
        capsys, "replay", "web.parquet", "db.parquet", "--mode", "Flush", "--quantum", "2ms",
        "--exits-per-second", "20000", "--exit-code-pages", "3", "--exit-data-pages", "4",
        "--guest-pages", "2M", "--nested-pages", "4k", "--memory", "1GiB", "--host-memory",
        "16GiB", "--reserve", "512M", "--fragmentation", "0.5", "--host-fragmentation", "0.25",
        "--aslr", "7", "--seed", "9", "--backing", "first-touch", "--warm-up", "100",
        "--repeat", "3", "--no-nested-dirty", "--root", "web.parquet", "--set", "l2.ways=6",
        "--set", "costs.exit=900", "--lps", "3", "--vcpus", "2", "--pinned",
        "--no-migration-flush", "--shootdowns-per-second", "40", "--table-reads", "Fixed",
        "--window", "64", "--conflicts", "--quiet",
    )  # fmt: skip
    run = engine.config
    own = {
        "memory": 1 << 30, "guest_pages": "2m", "nested_pages": "4k", "fragmentation": 0.5,
        "aslr": 7, "repeat": 3, "vcpus": 2,
    }  # fmt: skip
    assert run.vms == (
        VmConfig(trace="web.parquet", name="web", **own),
        VmConfig(trace="db.parquet", name="db", **own),
    )
    assert run.root == VmConfig(trace="web.parquet", name="root", **own)
    assert run.mode == "flush"
    assert (run.quantum.value, run.quantum.unit) == (5_000_000, "cycles")
    assert (run.exits_per_second, run.exit_code_pages, run.exit_data_pages) == (20_000, 3, 4)
    assert (run.memory, run.reserve, run.host_fragmentation) == (16 << 30, 512 << 20, 0.25)
    assert (run.seed, run.backing, run.warm_up, run.repeat) == (9, "first-touch", 100, 3)
    assert not run.nested_dirty
    assert (run.lps, run.pinned, run.migration_flush, run.conflicts) == (3, True, False, True)
    assert (run.shootdowns_per_second, run.table_reads, run.window) == (40, "fixed", 64)
    assert (run.processor.l2[0].ways, run.costs.exit, run.costs.switch) == (6, 900, 2000)


def test_without_options_the_configuration_has_its_own_defaults(capsys, folder, engine):
    mmu(capsys, "replay", "web.parquet")
    processor = load_processor("skylake-sp")
    assert engine.config == RunConfig(processor=processor, vms=[{"trace": "web.parquet"}])


def test_the_defaults_in_the_help_are_those_of_the_configuration():
    run = RunConfig(processor=load_processor("skylake-sp"), vms=[{"trace": "x"}]).expanded()
    run |= run["vms"][0] | {"host_memory": run["memory"]}
    run["quantum"] = "50us"
    assert RunConfig.model_fields["quantum"].default == "50us"
    for flag, kind, default, _ in run_cli.MACHINE_OPTIONS:
        if default and flag != "--reserve":
            field = flag[2:].replace("-", "_")
            assert kind.parse(default) == kind.parse(run[field]), flag
    assert run["reserve"] == run["host_memory"] // 64


def test_results_are_written_as_json_csv_and_figure(capsys, folder, engine):
    mmu(capsys, "compare", "web.parquet", "--json", "c.json", "--csv", "c.csv", "--figure", "c.svg")
    assert Comparison.load("c.json") == comparison()
    assert Path("c.csv").read_text().startswith("mode,vm,metric,value\ntagged,web,hit_rate.l1_data")
    assert "<svg" in Path("c.svg").read_text()
    assert sorted(os.listdir()) == ["c.csv", "c.json", "c.svg", "db.parquet", "web.parquet"]


def test_one_mode_is_written_as_a_result(capsys, folder, engine):
    options = ("--mode", "purge", "--json", "r.json", "--csv", "r.csv", "--figure", "r.png")
    out = mmu(capsys, "replay", "web.parquet", *options)
    assert "figures, purge" in out
    assert Result.load("r.json") == result("purge")
    assert Path("r.png").stat().st_size > 1000


def test_quiet_prints_nothing(capsys, folder, engine):
    assert mmu(capsys, "compare", "web.parquet", "--quiet", "--json", "c.json") == ""
    assert Path("c.json").exists()
    assert mmu(capsys, "replay", "web.parquet", "--quiet", "--set", "l2.ways=8") == ""


def test_modes_are_compared_in_the_order_given(capsys, folder, engine):
    mmu(capsys, "compare", "web.parquet", "--modes", "native,tagged")
    assert engine.modes == ("native", "tagged")


def test_a_setting_that_changes_more_than_it_names_is_noted(capsys, folder, engine):
    assert cli.main(["replay", "web.parquet", "--set", "l2.ways=8"]) == 0
    assert capsys.readouterr().err == (
        "mmu: note: l2.0.index: linear instead of xor-7, as 192 sets are no power of two\n"
        "mmu: note: l2.0.replacement: lru instead of rotating-plru, which has 6, 12, 24 or 48 ways\n"
    )
    assert engine.config.processor.l2[0].index == "linear"


def test_a_setting_without_effect_is_noted(capsys, folder, engine):
    options = ["--processor", "zen3", "--set", "walkers=2"]
    assert cli.main(["replay", "web.parquet", *options]) == 0
    assert capsys.readouterr().err == (
        "mmu: note: walkers: no effect, as without a --window each walk is waited for\n"
    )


BAD = [
    (["compar"], "no command 'compar'; accepted: compare | demo | .*mean 'compare'"),
    (["trace", "imprt"], "no command 'imprt'; accepted: .*import | info.*; did you mean 'import'"),
    (["processors", "sow"], "no command 'sow'; accepted: from-cpuid | host | show; did you mean 'show'"),
    (["compare"], "TRACES: found nothing; accepted: TRACES..."),
    (["compare", "web.parquet", "--quantun", "5us"], "no option '--quantun'; .*mean '--quantum'"),
    (["--vers"], "no option '--vers'; did you mean '--version'"),
    (["replay", "web.parquet", "--json"], "Option '--json' requires an argument"),
    (["compare", "nothing.parquet"], "TRACES: no file 'nothing.parquet'; accepted: a trace file"),
    (["compare", "wep.parquet"], "no file 'wep.parquet'; .*did you mean 'web.parquet'"),
    (["compare", "."], "TRACES: '.': Is a directory; accepted: a trace file"),
    (["compare", "empty"], "TRACES: 'empty' is empty; accepted: a trace of at least one access"),
    (["compare", "pipe"], "TRACES: 'pipe' is no regular file"),
    (["compare", "a\nb"], r"TRACES: no file 'a\\nb'"),
    (["compare", "web.parquet", "--root", "no"], "--root: no file 'no'"),
    (["compare", "W", "--modes", "tagged,flash"], "--modes: found 'flash'; .*did you mean 'flush'"),
    (["compare", "W", "--modes", ""], "--modes: found ''; accepted: tagged | purge | flush"),
    (["replay", "W", "--mode", "taged"], "--mode: found 'taged'; .*did you mean 'tagged'"),
    (["compare", "W", "--processor", "skylake"], "--processor: found 'skylake'; .*'skylake-sp'"),
    (["compare", "W", "--processor", "bad.toml"], "--processor: 'bad.toml' is not TOML"),
    (["compare", "W", "--processor", "few.toml"], "--processor: few.toml: frequency_hz: missing"),
    (["compare", "W", "--set", "l2.wayz=8"], "--set l2.wayz=8: no field 'wayz' .*mean 'ways'"),
    (["compare", "W", "--set", "l2.ways=0"], "--set l2.ways=0: l2.0.ways: found 0; accepted: a wh"),
    (["compare", "W", "--set", "l2.ways=-1"], "found -1; accepted: a whole number from 1"),
    (["compare", "W", "--set", "l2.ways=7"], "found 7 ways, .*nearest: ways=6 or 8, or entries="),
    (["compare", "W", "--set", "ways"], "--set ways: found 'ways'; accepted: FIELD=VALUE"),
    (["compare", "W", "--set", "costs.exits=1"], "no field 'exits' in 'costs'; .*mean 'exit'"),
    (["compare", "W", "--set", "costs.exit=-1"], "--set costs.exit: found -1; accepted: a whole"),
    (["compare", "W", "--quantum", "-5us"], "--quantum: found '-5us'; accepted: a number above 0"),
    (["compare", "W", "--quantum", "0us"], "--quantum: found '0us'"),
    (["compare", "W", "--quantum", "50"], "--quantum: found '50'; accepted: .* such as 50us"),
    (["compare", "W", "--quantum", "0.0001us"], "--quantum: found '0.0001us'; accepted: 1 to 2^62"),
    (["compare", "W", "--exits-per-second", "-1"], "--exits-per-second: found '-1'; accepted: a "),
    (["compare", "W", "--exits-per-second", "2000000"], "found 2000000; accepted: 0 to 1785714"),
    (["compare", "W", "--exit-code-pages", "5000"], "--exit-code-pages: found 5000; .* to 4096"),
    (["compare", "W", "--guest-pages", "1g"], "--guest-pages: found '1g'; accepted: 4k | 2m"),
    (["compare", "W", "--nested-pages", "8k"], "--nested-pages: found '8k'"),
    (["compare", "W", "--memory", "4GB"], "--memory: found '4GB'; .*did you mean 'GiB'"),
    (["compare", "W", "--memory", "3MiB"], "--memory: found '3MiB'; .*nearest: 2MiB or 4MiB"),
    (["compare", "W", "--memory", "90GiB"], "--memory: found 90GiB for 'web'; accepted: up to 63"),
    (["compare", *["W"] * 20], "--host-memory: found 64GiB, of which 63GiB are left .* for 80GiB"),
    (["compare", "W", "--host-memory", "65TiB"], "--host-memory: found '65TiB'; .* to 16TiB"),
    (["compare", "W", "--reserve", "64GiB"], "--reserve: found 64GiB of 64GiB host memory"),
    (["compare", "W", "--fragmentation", "1.5"], "--fragmentation: found '1.5'; accepted: a numb"),
    (["compare", "W", "--host-fragmentation", "x"], "--host-fragmentation: found 'x'"),
    (["compare", "W", "--backing", "frist-touch"], "--backing: .*did you mean 'first-touch'"),
    (["compare", "W", "--aslr", "x"], "--aslr: found 'x'; accepted: a whole number of at least 0"),
    (["compare", "W", "--repeat", "0"], "--repeat: found 0; accepted: a whole number of at"),
    (["compare", "W", "--lps", "257"], "--lps: found 257; accepted: a whole number of at .* 256"),
    (["compare", "W", "--lps", "0"], "--lps: found 0; accepted: a whole number of at least 1"),
    (["compare", "W", "--vcpus", "0"], "--vcpus: found 0; accepted: a whole number of at least 1"),
    (["compare", "W", "--window", "70000"], "--window: found 70000; accepted: .* at most 65536"),
    (["compare", "W", "--table-reads", "share"], "--table-reads: found 'share'; .* 'shared'"),
    (["compare", "W", "--table-reads", "shared", "--set", "data_caches=none"], "--table-reads: f"),
    (["compare", "W", "--shootdowns-per-second", "9999999"], "--shootdowns-per-second: found"),
    (["compare", "W", "--warm-up", "1.5"], "--warm-up: found '1.5'"),
    (["compare", "W", "--json", "."], "--json: '.': is a folder; accepted: a file of its own"),
    (["compare", "W", "--json", "no/x"], "--json: 'no/x': folder '.*no' does not exist"),
    (["compare", "W", "--csv", "web.parquet"], "--csv: 'web.parquet': also read as 'web.parquet'"),
    (["compare", "W", "--json", "x", "--csv", "x"], "--csv: 'x': also written by --json"),
    (["compare", "W", "--figure", "x.gif"], "--figure: found 'x.gif'; accepted: .* .png | .svg"),
    (["demo", "none"], "FOLDER: found no trace in 'none'; accepted: a folder with Parquet traces"),
    (["trace", "info", "nothing"], "TRACE: no file 'nothing'"),
    (["trace", "info", "W", "--json", "web.parquet"], "--json: 'web.parquet': also read as"),
    (["trace", "import", "nothing", "-o", "x"], "SOURCE: no file 'nothing'"),
    (["trace", "import", "web.parquet"], "--output: found nothing; accepted: FILE"),
    (["trace", "import", "W", "-o", "web.parquet"], "--output: 'web.parquet': also read as"),
    (["processors", "show", "none"], "NAME: found 'none'; accepted: barcelona | "),
    (["processors", "show", "skylake-sp", "--set", "l3=5"], "--set l3=5: no field 'l3'"),
]  # fmt: skip


@pytest.fixture
def bad_files(folder):
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    (folder / "bad.toml").write_text("l2 = [")
    (folder / "few.toml").write_text("name = 'few'")
    return sorted(os.listdir())


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a[-2:]) for a, _ in BAD])
def test_bad_input_is_refused_on_one_line_before_the_run(
    capsys, bad_files, engine, arguments, message
):
    given = ["web.parquet" if argument == "W" else argument for argument in arguments]
    line = refused(capsys, *given)
    parts = message.replace(" | ", " [|] ").replace("2^62", "2.62").replace("...", "[.]{3}")
    assert re.search(parts, line), line
    assert engine.config is None
    assert sorted(os.listdir()) == bad_files


def test_a_place_without_rights_is_refused(capsys, folder, engine, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "'x': cannot be written" in refused(capsys, "compare", "db.parquet", "--json", "x")
    assert "'/dev/null': cannot" in refused(capsys, "compare", "db.parquet", "--csv", "/dev/null")


def test_a_note_does_not_come_with_an_error(capsys, folder, engine):
    refused(capsys, "compare", "web.parquet", "--set", "l2.ways=8", "--memory", "90GiB")


@pytest.mark.parametrize(
    "case",
    [
        (InputError("web.parquet: truncated"), 2, "web.parquet: truncated"),
        (OutOfMemory("web", 4096, 0, "web: asked for 4096 bytes\n0 left"), 2, "bytes 0 left"),
        (MemoryError(), 1, "no memory left"),
        (ValueError("x"), 1, "ValueError: x (a fault of mmu itself; MMU_TRACEBACK=1 shows where)"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
    ],
)
def test_what_goes_wrong_in_a_run_is_one_line_and_leaves_no_file(capsys, folder, engine, case):
    engine.error, status, line = case
    assert line in refused(capsys, "compare", "web.parquet", "--json", "c.json", status=status)
    assert sorted(os.listdir()) == ["db.parquet", "web.parquet"]


def test_a_fault_of_the_program_can_be_traced(capsys, folder, engine, monkeypatch):
    monkeypatch.setenv("MMU_TRACEBACK", "1")
    engine.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        cli.main(["replay", "web.parquet"])


def test_an_interrupt_ends_with_130_and_no_file(capsys, folder, engine):
    engine.error = KeyboardInterrupt()
    assert cli.main(["compare", "web.parquet", "--json", "c.json"]) == 130
    assert capsys.readouterr().err.strip() == "mmu: interrupted"
    assert not Path("c.json").exists()


def test_progress_is_drawn_on_a_terminal_only(capsys, folder, engine, monkeypatch):
    assert cli.main(["replay", "web.parquet"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["replay", "web.parquet"]) == 0
    assert "replaying" in capsys.readouterr().err
    assert cli.main(["replay", "web.parquet", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_table(capsys, folder, engine, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = mmu(capsys, "compare", "web.parquet")
    assert "hit rate, L1 data" in out
    assert "-----" not in out


def test_the_demonstration_compares_all_modes_with_exits(capsys, folder, engine):
    for name in ("a", "b", "c", "d", "e"):
        Path(f"{name}.parquet").write_bytes(b"PAR1")
    mmu(capsys, "demo", ".", "--json", "demo.json")
    assert [vm.name for vm in engine.config.vms] == ["a", "b", "c", "d", "db", "e", "web"]
    assert engine.config.exits_per_second == 20_000
    assert engine.config.quantum.value == 125_000
    assert engine.modes == units.MODES
    assert Path("demo.json").exists()


def test_the_demonstration_finds_the_traces_of_a_checkout_or_of_the_folder(folder, monkeypatch):
    (folder / "traces").mkdir()
    (folder / "traces" / "x.parquet").touch()
    monkeypatch.setattr(run_cli, "__file__", str(folder / "elsewhere" / "mmu" / "cli" / "run.py"))
    assert run_cli.demo_traces(None) == [Path("traces/x.parquet")]


IMPORTED = types.SimpleNamespace(
    accesses=1234, fetches=1000, reads=200, writes=34, records=99,
    metadata={"passed_over": {"markers": 12}},
)  # fmt: skip


def test_traces_are_imported(capsys, folder, monkeypatch):
    importer = types.ModuleType("importer")
    asked = []

    def import_trace(*given, **named):
        named.pop("progress")(10)
        asked.append((given, named))
        return IMPORTED

    importer.import_trace = import_trace
    monkeypatch.setitem(sys.modules, "mmu.trace.importer", importer)
    out = mmu(capsys, "trace", "import", "web.parquet", "-o", "x.parquet", "--compact")
    rest = {"skip": 0, "limit": None, "columns": None, "level": None}
    assert asked == [(("web.parquet", "x.parquet"), {"format": None, "compact": True} | rest)]
    assert out == (
        "x.parquet: 1,234 accesses (1,000 fetches, 200 reads, 34 writes) in 99 records\n"
        "passed over: 12 markers\n"
    )
    options = ("--format", "lackey", "--skip", "5", "--limit", "7", "--quiet")
    options += ("--columns", "address=va,kind = op", "--level", "15")
    assert mmu(capsys, "trace", "import", "-", "-o", "x.parquet", *options) == ""
    rest = {"skip": 5, "limit": 7, "columns": {"address": "va", "kind": "op"}, "level": 15}
    assert asked[1] == (("-", "x.parquet"), {"format": "lackey", "compact": False} | rest)
    os.mkfifo("pipe")
    mmu(capsys, "trace", "import", "pipe", "-o", "x.parquet")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["trace", "import", "web.parquet", "-o", "x.parquet"]) == 0
    assert "10 accesses" in capsys.readouterr().err


def test_processors_are_listed_and_shown(capsys):
    out = mmu(capsys, "processors")
    assert out.startswith("barcelona       AMD Opteron")
    assert "\nskylake-sp      Intel Xeon Scalable" in out
    out = mmu(capsys, "processors", "show", "skylake-sp", "--set", "latencies.l2=7")
    assert "latencies.l2         =" in out
    assert "set by hand: latencies.l2=7" in out


def test_groups_without_a_command_print_their_help(capsys):
    assert "compare" in mmu(capsys)
    assert "import" in mmu(capsys, "trace")
    assert "mmu 0." in mmu(capsys, "--version")


def test_output_goes_into_a_pipe_as_it_is(capsys, folder, engine):
    reader, writer = os.pipe()
    mmu(capsys, "replay", "web.parquet", "--quiet", "--csv", f"/dev/fd/{writer}")
    assert os.read(reader, 100_000).startswith(b"mode,vm,metric,value")
    os.close(reader)
    os.close(writer)


def test_an_error_of_click_without_a_parameter_is_shown_as_it_is():
    assert cli.message(click.BadParameter("odd")) == "Invalid value: odd"


def run(*arguments):
    """Run Python on the command line's module in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def imports_nothing_heavy(commands, statuses):
    """Run commands in one process that ends with what they return, and see what they import."""
    code = f"""
import sys
from mmu.cli import main
statuses = [main(arguments) for arguments in {commands!r}]
heavy = {HEAVY!r} & set(sys.modules)
assert not heavy, heavy
assert statuses == {statuses!r}, statuses
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_help_and_wrong_arguments_import_nothing_heavy(folder):
    light = [
        ["--help"], ["compare", "--help"], ["replay", "-h"], ["trace", "--help"], ["processors"],
        ["schedule"], ["schedule", "show", "--help"], ["processors", "from-cpuid", "--help"],
        ["processors", "from-cpuid", "none"],
        ["compar"], ["compare"], ["compare", "web.parquet", "--quantum", "-5us"],
        ["compare", "web.parquet", "--memory", "4GB"], ["compare", "none.parquet"],
        ["compare", "web.parquet", "--processor", "none"], ["replay", "x", "--mode", "y"],
        ["compare", "web.parquet", "--json", "none/x"], ["demo", "none"],
        ["schedule", "show"], ["schedule", "show", "none.toml"], ["replay", "--schedule", "."],
        ["schedule", "show", "web.parquet", "--slices", "0"],
    ]  # fmt: skip
    imports_nothing_heavy(light, [0] * 8 + [2] * 14)


def test_help_takes_less_than_a_quarter_of_a_second():
    """Of the processor's time, so that other work on the machine does not count."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("-m", "mmu", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.25


def test_a_reader_that_stops_early_causes_no_traceback(folder):
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from test_cli import Engine
sys.modules["mmu.run"] = Engine()
from mmu.cli import main
sys.exit(main(["compare", "web.parquet"]))
"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


def test_python_runs_the_package_as_a_command():
    done = run("-m", "mmu", "processors")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("barcelona")
