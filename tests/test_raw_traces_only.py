"""Runs that need each access refuse compact traces, before anything runs, and say what else to do."""

import pytest
from memory_trace import MemoryTrace

import mmu
from mmu import cli
from mmu.config import RunConfig
from mmu.errors import InputError
from mmu.processors import load_processor
from mmu.run import Replay

OTHER_MODES = "or another mode (--modes tagged,purge,native); or --window 0"
SKYLAKE = load_processor("skylake-sp")


@pytest.fixture
def traces(tmp_path, monkeypatch):
    """A folder with a raw trace and a compact one."""
    monkeypatch.chdir(tmp_path)
    made = ["trace", "synth", "zipf", "--accesses", "9000", "--quiet", "-o"]
    assert cli.main([*made, "raw.parquet"]) == 0
    assert cli.main([*made, "compact.parquet", "--compact"]) == 0


def replayed(compact, **fields):
    """Replay a trace in memory."""
    vm = {"trace": "web.parquet", "name": "web", "memory": "64MiB"}
    config = RunConfig(processor=SKYLAKE, vms=[vm], memory="512MiB", **fields)
    accesses = [(0, 0, 0x1000 * n, n % 3) for n in range(100)]
    return Replay(config, [MemoryTrace(accesses, compact=compact)]).run()


def error_of(capsys, *arguments):
    assert cli.main([*arguments, "--quiet"]) == 2
    return capsys.readouterr().err.removeprefix("mmu: error: ").strip()


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (
            {"mode": "flush", "window": 1},
            "--window 1 in mode flush: found 'web.parquet', a compact",
        ),
        ({"table_reads": "shared"}, "--table-reads shared: found 'web.parquet', a compact"),
    ],
)
def test_a_compact_trace_is_refused_where_each_access_counts(fields, error):
    with pytest.raises(InputError, match=error):
        replayed(compact=True, **fields)
    replayed(compact=False, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "tagged", "window": 9}, {"mode": "purge", "window": 9},
        {"mode": "native", "window": 9}, {"mode": "flush", "window": 0},
        {"mode": "flush", "table_reads": "walker"}, {"mode": "flush", "table_reads": "fixed"},
    ],
)  # fmt: skip
def test_a_compact_trace_will_do_otherwise(fields):
    compact, raw = replayed(compact=True, **fields), replayed(compact=False, **fields)
    assert compact.cycles == raw.cycles


def test_a_comparison_is_refused_before_its_first_mode_runs(traces, capsys):
    begun = []
    with pytest.raises(InputError, match="--window 9 in mode flush"):
        mmu.compare("raw.parquet", "compact.parquet", window=9, progress=lambda *_: begun.append(1))
    assert not begun
    error = error_of(capsys, "compare", "compact.parquet", "--window", "9")
    assert error.startswith("--window 9 in mode flush: found 'compact.parquet', a compact trace")
    assert error.endswith(OTHER_MODES)
    modes = ("--modes", "tagged,purge,native")
    assert cli.main(["compare", "compact.parquet", "--window", "9", *modes, "--quiet"]) == 0


def test_a_sweep_is_refused_before_its_first_value_runs(traces, capsys):
    begun = []
    with pytest.raises(InputError, match="window=9, mode flush: --window 9 in mode flush"):
        mmu.vary(
            "compact.parquet", name="window", values=[0, 9], progress=lambda *_: begun.append(1)
        )
    assert not begun


def test_lines_of_a_compact_trace_are_unknown(traces, capsys):
    error = error_of(capsys, "replay", "compact.parquet", "--table-reads", "shared")
    assert error.startswith("--table-reads shared: found 'compact.parquet', a compact trace")
    assert error.endswith("; or --table-reads walker")
    assert cli.main(["replay", "raw.parquet", "--table-reads", "shared", "--quiet"]) == 0
