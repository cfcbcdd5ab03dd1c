"""Accesses per second of each importer: of its reader alone, and of an import, raw and compact.

One row for each sample in `tests/trace_formats.py`: a file of a million records and more, in the
page cache; the cache of compiled code is warm. What is timed is CPU time, of all threads together, so
that a busy machine counts less; an import uses two threads, so that an idle machine is faster still.
"""

import os
import sys
import time
from pathlib import Path

import pytest

from mmu.trace.decompress import decompressed
from mmu.trace.importer import FORMATS, beginning, import_trace
from mmu.trace.source import Source

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from trace_formats import SAMPLES, format_of

SMOKE = bool(os.environ.get("MMU_BENCH_SMOKE"))
RECORDS = 5_000 if SMOKE else 200_000  # that a builder makes
COPIES = 1 if SMOKE else 5  # of what follows its first lines
REPEATED = ("lackey", "din", "xdin", "drview", "perf-script", "perf-mem", "csv")  # lines
ROUNDS = 1 if SMOKE else 3


def read_alone(name, path):
    """Seconds and accesses of a format's reader, fed from memory."""
    pieces = list(decompressed(path))
    head = beginning(iter(pieces))
    began = time.process_time()
    accesses = sum(
        len(part.kind)
        for part in FORMATS[name].read(Source("bench", head, iter(pieces), os.fspath(path)))
    )
    return time.process_time() - began, accesses


def imported(name, path, out, compact):
    """Seconds and accesses of an import."""
    began = time.process_time()
    trace = import_trace(path, out, name, compact)
    return time.process_time() - began, trace.accesses


@pytest.mark.parametrize("sample", SAMPLES)
def test_an_import(benchmark, sample, tmp_path):
    name, path = format_of(sample), tmp_path / "trace"
    data = SAMPLES[sample](RECORDS)
    if name in REPEATED:
        first, rest = data[: data.find(b"\n") + 1], data[data.find(b"\n") + 1 :]
        data = first + COPIES * rest
    path.write_bytes(data)
    size = len(data)
    del data
    print(f"\n{sample:20}", end="")
    found = set()
    for what, run in {
        "reader": lambda: read_alone(name, path),
        "raw": lambda: imported(name, path, tmp_path / "out", False),
        "compact": lambda: imported(name, path, tmp_path / "out", True),
    }.items():
        run()
        times, counts = zip(*(run() for _ in range(ROUNDS)), strict=True)
        rate = counts[0] / min(times) / 1e6
        benchmark.extra_info[f"{what} M accesses/s"] = round(rate, 1)
        print(f" {what} {rate:6.1f} M accesses/s,", end="")
        found.update(counts)
    assert len(found) == 1
    print(f" {size / counts[0]:4.0f} bytes an access, {size / 1e6:.0f} MB", end="")
    benchmark.pedantic(run, rounds=1, iterations=1)
