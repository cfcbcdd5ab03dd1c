"""`mmu compare --vary`: what it runs, writes and refuses."""

import os
import re
import sys
import types
from pathlib import Path

import pytest
from handmade import comparison
from test_cli import imports_nothing_heavy, mmu, refused

from mmu import cli, report_sweep
from mmu.cli import run as run_cli
from mmu.cli.arguments import COUNT, PAGES, QUANTUM
from mmu.errors import InputError
from mmu.options import RUN_OPTIONS, VM_OPTIONS
from mmu.swept import Sweep


class Engine(types.ModuleType):
    """Stands for `mmu.sweep`: remembers what it was asked for, returns numbers made by hand."""

    def __init__(self):
        super().__init__("mmu.sweep")
        self.configs = self.modes = self.varied = self.error = None

    def sweep_configs(self, varied, configs, modes, progress=None):
        self.varied, self.configs, self.modes = varied, configs, modes
        if progress:
            progress(1000, 2000)
        if self.error:
            raise self.error
        return Sweep(varied.name, list(varied.values), [comparison(modes) for _ in configs])


@pytest.fixture
def engine(monkeypatch):
    fake = Engine()
    monkeypatch.setitem(sys.modules, "mmu.sweep", fake)
    return fake


def test_each_value_is_a_run_of_its_own(capsys, folder, engine):
    out = mmu(capsys, "compare", "web.parquet", "--vary", "exits-per-second=0,1000,20000")
    assert (engine.varied.name, engine.modes) == ("exits-per-second", ("tagged", "purge", "flush"))
    assert [each.exits_per_second for each in engine.configs] == [0, 1000, 20_000]
    assert out == "\n".join(report_sweep.lines(engine.sweep_configs(*called(engine)))) + "\n"


def called(engine):
    return engine.varied, engine.configs, engine.modes


@pytest.mark.parametrize(
    ("vary", "read"),
    [
        ("quantum=20us,1ms", lambda c: (c.quantum.value, c.quantum.unit)),
        ("memory=2GiB,4GiB", lambda c: c.vms[0].memory),
        ("host-fragmentation=0,0.5", lambda c: c.host_fragmentation),
        ("lps=1,2", lambda c: c.lps),
        ("window=0,64", lambda c: c.window),
        ("l2.ways=6,12", lambda c: c.processor.l2[0].ways),
        ("walkers=1,2", lambda c: c.processor.walkers),
        ("costs.exit=900,1400", lambda c: c.costs.exit),
    ],
)
def test_options_settings_and_costs_can_be_varied(capsys, folder, engine, vary, read):
    mmu(capsys, "compare", "web.parquet", "--vary", vary, "--set", "l2.entries=768", "--quiet")
    first, second = engine.configs
    assert read(first) != read(second)
    plain = [each.expanded() for each in engine.configs]
    changed = [key for key in plain[0] if plain[0][key] != plain[1][key]]
    assert len(changed) == 1 or changed == ["quantum", "vms"]
    assert first.processor.l2[0].entries == second.processor.l2[0].entries == 768


def test_every_numeric_option_can_be_varied():
    for flag, kind, *_ in run_cli.MACHINE_OPTIONS:
        assert (flag[2:] in run_cli.VARIED) == (kind.name in ("N", "SIZE", "SHARE", "TIME")), flag
    assert run_cli.VARIED["quantum"] is QUANTUM
    assert run_cli.VARIED["seed"] is COUNT
    assert PAGES not in run_cli.VARIED.values()
    known = {option.replace("_", "-") for option in (*VM_OPTIONS, *RUN_OPTIONS)}
    assert set(run_cli.VARIED) <= known


def test_results_are_written_as_json_csv_and_figure(capsys, folder, engine):
    files = ("--json", "s.json", "--csv", "s.csv", "--figure", "s.svg")
    options = ("--vary", "quantum=20us,50us", "--modes", "native,flush", "--quiet")
    assert mmu(capsys, "compare", "web.parquet", *options, *files) == ""
    saved = Sweep.load("s.json")
    assert saved == engine.sweep_configs(*called(engine))
    assert saved.modes == ["native", "flush"]
    lines = Path("s.csv").read_text().splitlines()
    assert lines[0] == "quantum,mode,vm,metric,value"
    assert lines[1].startswith("20us,native,web,hit_rate.l1_data,")
    assert "<svg" in Path("s.svg").read_text()


def test_a_terminal_gets_a_table(capsys, folder, engine, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    out = mmu(capsys, "compare", "web.parquet", "--vary", "quantum=20us,50us")
    assert "quantum: cycles per instruction" in out
    assert "-----" not in out


def test_progress_is_drawn_on_a_terminal(capsys, folder, engine, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert cli.main(["compare", "web.parquet", "--vary", "quantum=20us,50us"]) == 0
    assert "replaying" in capsys.readouterr().err


def test_a_setting_that_changes_more_than_it_names_is_noted_once(capsys, folder, engine):
    given = ["compare", "web.parquet", "--vary", "seed=1,2", "--set", "l2.ways=8"]
    assert cli.main(given) == 0
    assert capsys.readouterr().err == (
        "mmu: note: l2.0.index: linear instead of xor-7, as 192 sets are no power of two\n"
        "mmu: note: l2.0.replacement: lru instead of rotating-plru, which has 6, 12, 24 or 48 ways\n"
    )


def test_a_varied_value_that_changes_nothing_is_noted(capsys, folder, engine):
    assert cli.main(["compare", "web.parquet", "--vary", "walkers=1,2,4"]) == 0
    noted = "mmu: note: walkers: no effect, as without a --window each walk is waited for\n"
    assert capsys.readouterr().err == noted
    assert mmu(capsys, "compare", "web.parquet", "--vary", "walkers=1,2", "--window", "9")


def test_sizes_of_data_caches_are_varied_with_their_units(capsys, folder, engine):
    mmu(capsys, "compare", "web.parquet", "--vary", "data_caches.l2.bytes=256KiB,1MiB,2m")
    sizes = [each.processor.data_caches.l2.bytes >> 10 for each in engine.configs]
    assert sizes == [256, 1024, 2048]


BAD = [
    (["--vary", "quantun=1us,2us"], "--vary: found nothing to vary of name 'quantun'; .*mean 'quantum'"),
    (["--vary", "quantum=1us"], "--vary: found 1 value; accepted: 2 to 64 values"),
    (["--vary", "quantum=1,2"], "--vary: quantum: found '1'; accepted: a number above 0 with us"),
    (["--vary", "seed=1..5000:5000"], "--vary: found 5000 values in .*; accepted: 2 to 64 values"),
    (["--vary", "seed"], "--vary: found 'seed'; accepted: NAME=VALUES"),
    (["--vary", "guest-pages=4k,2m"], "nothing to vary of name 'guest-pages'"),
    (["--vary", "lps=1,999"], "--vary: lps: found '?999'?; accepted: .*256"),
    (["--vary", "l2.wayz=4,8"], "--vary l2.wayz=4: no field 'wayz' in 'l2.0'; .*mean 'ways'"),
    (["--vary", "l2.ways=4,7"], "--vary l2.ways=7: l2.0.ways: found 7 ways"),
    (["--vary", "costs.exits=1,2"], "--vary costs.exits=1: no field 'exits' in 'costs'"),
    (["--vary", "memory=3MiB,4MiB"], "--vary memory=3MiB: found '3MiB'; .*nearest: 2MiB or 4MiB"),
    (["--vary", "memory=4MiB,90GiB"], "--vary memory=90GiB: found 90GiB for 'web'"),
    (["--vary", "exits-per-second=1,2000000"], "--vary exits-per-second=2000000: found 2000000"),
    (["--vary", "seed=1,2", "--vary", "lps=1,2"], "--vary: found 2 of them; accepted: one"),
    (["--vary", "quantum=1us,2us", "--quantum", "5us"], "--vary: found --quantum as well"),
    (["--vary", "seed=1,2", "--seed", "0"], "--vary: found --seed as well"),
    (["--vary", "seed=1,2", "--json", "no/x"], "--json: 'no/x': folder .* does not exist"),
    (["--vary", "seed=1,2", "--csv", "web.parquet"], "--csv: 'web.parquet': also read as"),
    (["--vary", "seed=1,2", "--figure", "x.gif"], "--figure: found 'x.gif'"),
    (["--vary", "seed=1,2", "--exits-per-second", "2000000"], "^--exits-per-second: found 2000000"),
    (["--vary", "seed=1,2", "no.parquet"], "TRACES: no file 'no.parquet'"),
    (["--vary", "seed=1,2", "--modes", "taged"], "--modes: found 'taged'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_what_cannot_be_varied_is_refused_before_anything_runs(
    capsys, folder, engine, arguments, message
):
    line = refused(capsys, "compare", "web.parquet", *arguments)
    assert re.search(message, line), line
    assert engine.configs is None
    assert sorted(os.listdir()) == ["db.parquet", "web.parquet"]


def test_what_goes_wrong_in_a_run_leaves_no_file(capsys, folder, engine):
    engine.error = InputError("warm-up=5: too many")
    options = ("--vary", "warm-up=0,5", "--json", "s.json")
    assert refused(capsys, "compare", "web.parquet", *options) == "--vary warm-up=5: too many"
    assert sorted(os.listdir()) == ["db.parquet", "web.parquet"]


def test_a_schedule_can_be_varied(capsys, folder, engine):
    Path("s.toml").write_text('quantum = "1ms"\n[[vm]]\ntrace = "web.parquet"\n')
    mmu(capsys, "compare", "--schedule", "s.toml", "--vary", "quantum=20us,50us")
    assert [each.quantum.value for each in engine.configs] == [50_000, 125_000]


def test_help_and_wrong_values_import_nothing_heavy(folder):
    light = [
        ["compare", "--help"],
        ["compare", "web.parquet", "--vary", "quantun=1us,2us"],
        ["compare", "web.parquet", "--vary", "quantum=1,2"],
        ["compare", "web.parquet", "--vary", "quantum=1us"],
        ["compare", "web.parquet", "--vary", "seed=1,2", "--vary", "lps=1,2"],
        ["compare", "web.parquet", "--vary", "seed=1,2", "--json", "none/x"],
        ["compare", "none.parquet", "--vary", "seed=1,2"],
        ["compare", "web.parquet", "--vary", "seed=1,2", "--seed", "5"],
    ]
    imports_nothing_heavy(light, [0] + [2] * 7)
