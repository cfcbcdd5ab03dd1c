"""What the README says is run: its commands, its Python, its numbers."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
COMMANDS = re.findall(r"^\$ (.*)$", README, re.MULTILINE)
OUTPUT = re.compile(r"[\w.]+\.(json|csv|png|parquet|xz)")  # no path: of this run
TRACES = [f"traces/{path.name}" for path in (ROOT / "traces").glob("*.parquet")]
# A process's peak, in KiB, begins at what the one that forked it had: a small one stands between.
PEAK = """
import os, subprocess, sys
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(usage.ru_maxrss)
sys.exit(status != 0)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(numba.config.DISABLE_JIT, reason="its traces are too long to interpret"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder from which the bundled traces are seen as from the checkout."""
    (tmp_path / "traces").symlink_to(ROOT / "traces")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_works(folder):
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        words = shlex.split(command)
        if words[:3] == ["mmu", "trace", "record"] and not shutil.which("valgrind"):
            shutil.copy(folder / "traces/xz.parquet", folder / words[words.index("-o") + 1])
            continue
        if words[0] == "mmu":
            words[0] = str(BIN / "mmu")
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    written = {word for command in COMMANDS for word in command.split() if OUTPUT.fullmatch(word)}
    assert len(written) >= 10
    for name in written:
        assert (folder / name).stat().st_size > 100, name


def test_a_replay_of_any_length_stays_within_500_megabytes(folder):
    """All bundled traces at once; one of them again and again is a hundred million accesses."""
    peaks = []
    for traces, repeat in ((["traces/sqlite.parquet"], 10), (sorted(TRACES), 1)):
        words = [str(BIN / "mmu"), "replay", *traces, "--repeat", str(repeat), "--quiet"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert max(peaks) < 500_000, peaks


def test_the_python_works(folder):
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(code, "README.md", "exec"), {})


def test_the_numbers_are_those_that_the_command_prints(tmp_path):
    sys.path.insert(0, str(ROOT / "bench"))
    import readme  # noqa: PLC0415

    table = re.search(r"<!-- generated: demo -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert readme.demo(str(tmp_path / "demo.png")) == table[1]


def test_every_file_that_it_names_is_there():
    for name in re.findall(r"`((?:mmu|tests|bench|traces)/[\w./]*)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([\w./]+)\)", README):
        assert (ROOT / name).exists(), name
