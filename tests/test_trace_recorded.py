"""The traces that come with the project."""

import re
from pathlib import Path

import numba
import pytest
import table

import mmu
from mmu.trace import info, open_trace

FOLDER = Path(__file__).parents[1] / "traces"
TRACES = sorted(FOLDER.glob("*.parquet"))
COLUMNS = ("accesses", "fetches", "reads", "writes", "records", "pages", "large_pages")


def readme_table():
    """The README's numbers by trace: accesses, fetches, reads, writes, records, pages of 4K and 2M."""
    rows = {}
    for line in (FOLDER / "README.md").read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
        numbers = [
            int(cell.replace(",", "")) for cell in cells[1:] if re.fullmatch(r"[\d,]+", cell)
        ]
        if len(numbers) == len(COLUMNS):
            rows[cells[0]] = dict(zip(COLUMNS, numbers, strict=True))
    return rows


def test_there_are_traces_of_at_least_eight_programs_in_little_room():
    assert len(TRACES) >= 8
    assert sum(path.stat().st_size for path in TRACES) < 20_000_000


def test_the_readme_lists_every_trace():
    assert sorted(readme_table()) == [path.stem for path in TRACES]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_recorded_trace_is_what_the_readme_says(path):
    trace = open_trace(path)
    written = readme_table()[trace.name]
    assert trace.compact
    assert trace.has_fetches
    assert trace.accesses >= 10_000_000
    for count in ("accesses", "fetches", "reads", "writes", "records"):
        assert getattr(trace, count) == written[count]
    assert trace.metadata["command"]
    assert trace.metadata["tool_version"]


def test_no_trace_names_a_place_on_the_recording_machine():
    for path in TRACES:
        said = " ".join(str(value) for value in open_trace(path).metadata.values())
        assert not re.search(r"/(home|root|tmp|work)\b", said)


@pytest.mark.slow
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_every_record_of_a_recorded_trace_is_sound(path):
    found = info(path)
    assert {name: found[name] for name in COLUMNS} == readme_table()[path.stem]


@pytest.mark.slow
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="its traces are too long to interpret")
def test_several_traces_miss_the_tlb_all_the_time():
    """Misses of a warm TLB by many more pages than it holds, not first touches."""
    missing = []
    for path in TRACES:
        warm = mmu.replay(path, warm_up=5_000_000)
        if warm.hit_rate("l2") < 0.75 and warm.walks_per_thousand() > 1.4:
            assert info(path)["pages"] > 2 * 1536
            missing.append(path.stem)
    assert {"bfs", "duckdb-join", "minisat", "sort"} <= set(missing)


@pytest.mark.slow
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="its traces are too long to interpret")
def test_the_readme_has_the_table_that_table_py_prints():
    assert "\n".join(table.lines(FOLDER)) in (FOLDER / "README.md").read_text()
