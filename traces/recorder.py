"""Records one program's window of accesses by window.c, a tool for valgrind."""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from recipes import Recipe

from mmu.errors import InputError, MmuError
from mmu.trace import fold, open_trace
from mmu.trace.format import Raw
from mmu.trace.lackey import read_lackey
from mmu.trace.source import Source
from mmu.trace.window import window
from mmu.trace.writer import write_trace

HERE = Path(__file__).resolve().parent
# What is recorded runs here: Python's and SQLite's first accesses depend on the folder's name.
WORK = Path("/tmp/mmu-traces")
TOOL = "window"  # as long as "lackey": valgrind looks in the environment's strings for more of it
HEADERS = Path("/usr/include/valgrind")
CORE = "libcoregrind-amd64-linux.a"
LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")
# As Debian's valgrind, a shell script, passes it on, in its order: the loader reads every variable.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": "/usr/lib/debug", "PATH": "/usr/bin:/bin",
    "GLIBCPP_FORCE_NEW": "1", "LC_ALL": "C", "PWD": str(WORK), "GLIBCXX_FORCE_NEW": "1",
}  # fmt: skip
# Measured on two cores of an AMD EPYC, less a margin.
SKIPPED_A_SECOND, KEPT_A_SECOND, PREPARING = 80e6, 10e6, 8


class Job(NamedTuple):
    """A trace that is to be recorded."""

    name: str
    recipe: Recipe
    skip: int
    limit: int
    target: Path
    level: int | None  # of zstd, see `mmu.trace.writer`

    def done(self) -> bool:
        """Tell whether it is there, and the window is the one asked for."""
        try:
            found = open_trace(self.target)
        except MmuError:
            return False
        return found.accesses == self.limit and found.metadata.get("skipped") == self.skip

    def seconds(self) -> float:
        """Return about how long it takes."""
        return self.skip / SKIPPED_A_SECOND + self.limit / KEPT_A_SECOND + PREPARING


def library() -> Path | None:
    """Return the folder of valgrind's libraries."""
    for folder in LIBRARIES:
        if (Path(folder) / "valgrind" / CORE).exists():
            return Path(folder) / "valgrind"
    return None


@contextmanager
def work_folder() -> Iterator[None]:
    """Make the folder of the inputs anew, for one recording at a time, and remove it afterwards."""
    WORK.mkdir(mode=0o700, exist_ok=True)
    if WORK.is_symlink() or WORK.stat().st_uid != os.getuid():
        raise InputError(f"{WORK}: belongs to somebody else; remove it")
    folder = os.open(WORK, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{WORK}: another recording is running; wait for its end") from None
        try:
            yield
        finally:
            empty()
            WORK.rmdir()
    finally:
        os.close(folder)


def empty() -> None:
    """Remove what is in the work folder."""
    for path in WORK.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def run(command: list[str], what: str) -> str:
    """Run a command in the work folder and return what it prints.

    Raises
    ------
    InputError
        It failed; the message has its last line.
    """
    made = subprocess.run(
        command, cwd=WORK, env=os.environ | {"LC_ALL": "C"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        last = (made.stdout.strip() or "said nothing").splitlines()[-1]
        raise InputError(f"{what}: {shlex.join(command)}: exit status {made.returncode}: {last}")
    return made.stdout


def build_tool() -> Path:
    """Compile window.c, linked as valgrind's own tools are, and return the program."""
    tool = WORK / f"{TOOL}-amd64-linux"
    libraries = ["coregrind-amd64-linux", "vex-amd64-linux", "gcc-sup-amd64-linux", "gcc"]
    run(
        ["gcc", "-std=gnu11", "-O2", "-fno-stack-protector", "-fno-builtin", "-fno-pie", "-no-pie",
         "-static", "-nodefaultlibs", "-nostartfiles", "-Wl,-u,_start,--build-id=none",
         "-Wl,-Ttext-segment=0x58000000", f"-I{HEADERS}",
         "-DVGA_amd64=1", "-DVGO_linux=1", "-DVGP_amd64_linux=1", "-DVGPV_amd64_linux_vanilla=1",
         str(HERE / "window.c"), "-o", str(tool), f"-L{library()}",
         *(f"-l{name}" for name in libraries)],
        "window.c",
    )  # fmt: skip
    return tool


def prepare(job: Job) -> list[str]:
    """Make a program's inputs, and return its command."""
    empty()
    for path in (HERE / "inputs").iterdir():
        shutil.copy(path, WORK)
    words = {"python": shlex.quote(sys.executable), "cc1plus": ""}
    if "{cc1plus}" in job.recipe.command:
        words["cc1plus"] = run(["gcc", "-print-prog-name=cc1plus"], job.name).strip()
    for line in job.recipe.prepare:
        run(["sh", "-c", line.format(**words)], job.name)
    return shlex.split(job.recipe.command.format(**words))


def record(job: Job, progress: Callable[[int], None] | None) -> None:
    """Run a program under the tool, and write its trace.

    Raises
    ------
    InputError
        The program ended before the window was full.
    """
    command, tool = prepare(job), build_tool()
    output, log = os.pipe()
    fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, 1 << 20)
    records = os.dup(log)  # valgrind moves both to where the program does not find them
    started = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "setarch", "x86_64", "-R", str(tool), f"--tool={TOOL}",
         f"--log-fd={log}", f"--records-fd={records}", f"--skip={job.skip}",
         f"--limit={job.limit}", *command],
        cwd=WORK, env=ENVIRONMENT | {"VALGRIND_LAUNCHER": "/usr/bin/valgrind"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        pass_fds=(log, records),
    )  # fmt: skip
    os.close(log)
    os.close(records)
    try:
        with open(output, "rb") as pipe:
            pieces = iter(partial(pipe.read, 1 << 20), b"")
            head = next(pieces, b"")
            source = Source(job.name, head, chain([head], pieces))
            kept = window(read_lackey(source), job.name, 0, job.limit, progress)
            told = {
                "tool": "valgrind --tool=window, of mmu: what lackey sees",
                "source": f"record.py {job.name}",
                "skipped": job.skip,
            }
            write_whole(job, kept, lambda: source.notes.recording() | told)
    finally:
        started.kill()
        started.wait()


def write_whole(job: Job, parts: Iterator[Raw], recording: Callable[[], dict[str, object]]) -> None:
    """Write a trace that has as many accesses as it should; it appears when it is complete."""

    def counted() -> Iterator[Raw]:
        accesses = 0
        for part in parts:
            accesses += len(part.kind)
            yield part
        if accesses < job.limit:
            raise InputError(
                f"{job.name}: the program ended {accesses:,} accesses after the first {job.skip:,}; "
                f"accepted: {job.limit:,}; change its recipe"
            )

    unfinished = job.target.parent / ".recording"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        part = unfinished / job.target.name
        write_trace(part, fold(counted(), job.name), "compact", recording, job.level)
        part.replace(job.target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
