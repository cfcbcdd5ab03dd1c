"""`make traces`: the recipes, the recorder, and what is left after it was stopped."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pyarrow.parquet as pq
import pytest
import record
import recorder
from click.testing import CliRunner
from recipes import BUNDLED_ACCESSES, LONG_ACCESSES, RECIPES

from mmu.errors import InputError
from mmu.trace import import_trace

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "traces"
LACKEY = "/usr/libexec/valgrind/lackey-amd64-linux"
can_record = pytest.mark.skipif(
    not (all(map(record.there, record.NEEDS)) and Path(LACKEY).exists()),
    reason="valgrind and gcc are not installed",
)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder of its own, so that a recording may go on elsewhere meanwhile."""
    folder = tmp_path / "work"
    monkeypatch.setattr(recorder, "WORK", folder)
    return folder


def short_job(folder, limit=1000, skip=0):
    recipe = RECIPES["xz"]._replace(prepare=(), command="/bin/echo")
    return recorder.Job("echo", recipe, skip, limit, folder / "echo.parquet", None)


def test_there_are_recipes_for_what_is_bundled_and_six_long_traces():
    bundled = {name for name, recipe in RECIPES.items() if recipe.skip is not None}
    assert bundled == {path.stem for path in FOLDER.glob("*.parquet")}
    assert len(RECIPES) >= 6
    assert BUNDLED_ACCESSES >= 10_000_000
    assert LONG_ACCESSES >= 50_000_000


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_well_formed(name):
    recipe = RECIPES[name]
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert recipe.what
    assert recipe.long_skip >= 0
    assert recipe.skip is None or recipe.skip >= 0
    readme = (FOLDER / "README.md").read_text()
    assert f"`{name}`" in readme
    installed = re.search(r"apt-get install (.*)", readme)[1].split()
    installed += ["coreutils", "util-linux"]
    for package in (*recipe.needs.values(), *record.NEEDS.values()):
        assert package in installed
    words = {"python": "python3", "cc1plus": "cc1plus"}
    for line in (*recipe.prepare, recipe.command):
        assert "{" not in line.format(**words)


def test_every_input_is_one_of_a_recipe():
    said = " ".join(" ".join((*recipe.prepare, recipe.command)) for recipe in RECIPES.values())
    for path in (FOLDER / "inputs").iterdir():
        assert re.search(rf"(?<![\w.-]){re.escape(path.name)}\b", said), path


def test_make_hands_the_names_on():
    make = ["make", "-n", "-C", str(ROOT), "traces", "NAMES=bfs sqlite"]
    said = subprocess.run(make, capture_output=True, text=True, check=True).stdout
    assert "traces/record.py bfs sqlite" in said


def test_the_cache_is_the_users_or_the_one_that_is_named(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert record.cache_folder() == Path("/cache/mmu/traces")
    monkeypatch.setenv("MMU_TRACES", "/elsewhere")
    assert record.cache_folder() == Path("/elsewhere")
    jobs = {job.name: job for job in record.jobs(("sort", "sort"), bundled=False)}
    assert jobs["sort"].target == Path("/elsewhere/sort.parquet")
    assert (jobs["sort"].skip, jobs["sort"].limit) == (RECIPES["sort"].long_skip, LONG_ACCESSES)


def test_a_trace_is_there_if_its_window_is_the_one_asked_for():
    (job,) = record.jobs(("sqlite",), bundled=True)
    assert job.done()
    assert not job._replace(skip=job.skip + 1).done()
    assert not job._replace(limit=job.limit + 1).done()
    assert not job._replace(target=FOLDER / "none.parquet").done()
    assert not job._replace(target=FOLDER / "README.md").done()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["squlite"], "no recipe 'squlite'; accepted: bfs bwa"),
        (["--bundled", "cc1plus-eigen"], "no recipe 'cc1plus-eigen'; accepted: bfs"),
        (["sqlite"], r"there is no valgrind, .*sqlite3; on Debian: apt-get install valgrind gcc"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_begins(
    tmp_path, monkeypatch, work, words, message
):
    monkeypatch.setenv("MMU_TRACES", str(tmp_path / "cache"))
    monkeypatch.setitem(recorder.ENVIRONMENT, "PATH", str(tmp_path))
    done = CliRunner().invoke(record.main, words)
    assert done.exit_code == 2
    assert re.search(message, done.output)
    assert not (tmp_path / "cache").exists()
    assert not work.exists()


def test_two_recordings_do_not_share_a_folder(work):
    with recorder.work_folder():
        (work / "input").touch()
        with (
            pytest.raises(InputError, match="another recording is running"),
            recorder.work_folder(),
        ):
            pass
        assert (work / "input").exists()
    assert not work.exists()


def test_what_a_killed_recording_left_is_taken_over(work):
    (work / "pypi").mkdir(parents=True)
    (work / "edges.bin").touch()
    with recorder.work_folder():
        recorder.empty()
        assert list(work.iterdir()) == []


def accesses(tool, *options):
    """Return pages, kinds and sizes of /bin/echo as a tool of valgrind sees them."""
    log = recorder.WORK / "log"
    with open(log, "wb") as file:
        options = [option.format(file=file.fileno()) for option in options]
        subprocess.run(
            ["setarch", "x86_64", "-R", str(tool), f"--log-fd={file.fileno()}", *options, "/bin/echo"],
            cwd=recorder.WORK, env=recorder.ENVIRONMENT | {"VALGRIND_LAUNCHER": "/usr/bin/valgrind"},
            pass_fds=[file.fileno()], stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    import_trace(log, recorder.WORK / "raw.parquet")
    table = pq.read_table(recorder.WORK / "raw.parquet")
    address, kind, size = (table[name].to_numpy() for name in ("address", "kind", "size"))
    return address, kind, size


@can_record
@pytest.mark.slow
def test_the_recorder_sees_what_lackey_sees_and_skips_what_an_importer_would(work):
    work.mkdir()
    tool = recorder.build_tool()
    address, kind, size = accesses(LACKEY, "--tool=lackey", "--trace-mem=yes")
    whole = accesses(tool, f"--tool={recorder.TOOL}", "--records-fd={file}")
    np.testing.assert_array_equal(whole[1], kind)
    np.testing.assert_array_equal(whole[2], size)
    # A handful of look-ups in a table on the stack depends on chance, in lackey too.
    assert np.count_nonzero(whole[0] != address) <= 16
    repeated = (address[1:] == address[:-1]) & (kind[1:] == 1) & (kind[:-1] == 0)
    crossing = (address[1:] == address[:-1] + size[:-1]) & (kind[1:] == kind[:-1])
    crossing &= (address[1:] % 4096 == 0) & (kind[1:] == 2)
    within_one = [int(np.flatnonzero(found)[0]) + 1 for found in (repeated, crossing)]
    for skip in (1, *within_one, within_one[1] + 1000):
        for limit in (1, 5000):
            window = f"--skip={skip}", f"--limit={limit}"
            part = accesses(tool, f"--tool={recorder.TOOL}", "--records-fd={file}", *window)
            for mine, expected in zip(part[1:], (kind, size), strict=True):
                np.testing.assert_array_equal(mine, expected[skip : skip + limit])


@can_record
@pytest.mark.slow
def test_a_program_that_ends_too_early_leaves_no_trace(tmp_path, work):
    work.mkdir()
    with pytest.raises(
        InputError, match=r"echo: the program ended [\d,]+ accesses after the first 7"
    ):
        recorder.record(short_job(tmp_path, limit=10**9, skip=7), None)
    assert not list(tmp_path.rglob("*.parquet"))
    assert not (tmp_path / ".recording").exists()
    recorder.record(short_job(tmp_path), None)
    assert short_job(tmp_path).done()


@can_record
@pytest.mark.slow
def test_one_recipe_that_fails_does_not_stop_the_others(tmp_path, work, monkeypatch):
    monkeypatch.setattr(record, "LONG_ACCESSES", 1000)
    monkeypatch.setenv("MMU_TRACES", str(tmp_path))
    echo = short_job(tmp_path).recipe._replace(needs={}, long_skip=0)
    lost = echo._replace(prepare=("echo no network >&2; exit 7",))
    monkeypatch.setattr(record, "RECIPES", {"lost": lost, "echo": echo})
    done = CliRunner().invoke(record.main, [])
    assert done.exit_code == 2
    assert "exit status 7: no network" in done.output
    assert "not recorded: lost" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["echo.parquet"]


@can_record
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_recording_that_is_killed_leaves_no_trace_and_no_process(tmp_path, number):
    cache, work = tmp_path / "cache", tmp_path / "work"
    code = f"import record, recorder; recorder.WORK = record.Path({str(work)!r}); record.main()"
    environment = os.environ | {"MMU_TRACES": str(cache), "PYTHONPATH": f"{ROOT}:{FOLDER}"}
    started = subprocess.Popen(
        [sys.executable, "-c", code, "python-json"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: running(work))  # it skips
    started.send_signal(number)
    assert started.wait() not in (0, 2)
    wait_for(lambda: not running(work), seconds=3)
    assert not list(cache.rglob("*.parquet"))
    if number != signal.SIGKILL:
        assert not work.exists()


def wait_for(happened, seconds=60):
    end = monotonic() + seconds
    while not happened():
        assert monotonic() < end
        sleep(0.05)


def running(work):
    """Tell whether a program is being recorded in that folder."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "exe").readlink().parent == work:
                return True
        except OSError:
            pass
    return False
