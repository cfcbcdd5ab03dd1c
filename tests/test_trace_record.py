"""Recording under valgrind: what is written, how it ends, and that no process outlives it."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from recorded import assert_nothing_runs, columns, processes

from mmu import cli
from mmu.errors import InputError
from mmu.trace import fold, import_lackey, open_trace, record, write_compact
from mmu.trace.notes import Notes
from mmu.trace.processes import Processes
from mmu.trace.session import Session

ROOT = Path(__file__).parents[1]

valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


def log_of(path, *command):
    subprocess.run(
        ["setarch", "-R", "valgrind", "--tool=lackey", "--trace-mem=yes", f"--log-file={path}",
         *command], check=True, capture_output=True, env=dict(os.environ),
    )  # fmt: skip
    return path


@valgrind
def test_a_recording_equals_the_import_of_the_same_commands_log(program, out, tmp_path):
    import_lackey(log_of(tmp_path / "log", program, "w", "700"), tmp_path / "imported")
    made = record([program, "w", "700"], out, aslr=False)
    names = ("address", "kind")
    for ours, theirs in zip(
        columns(out, *names), columns(tmp_path / "imported", *names), strict=True
    ):
        assert np.array_equal(ours, theirs)
    assert made.accesses > 700 * 4
    import pyarrow.parquet as pq  # noqa: PLC0415

    assert pq.read_table(out).equals(pq.read_table(tmp_path / "imported"))


@valgrind
def test_a_compact_recording_of_a_window_equals_the_folded_window(program, out, tmp_path):
    import_lackey(
        log_of(tmp_path / "log", program, "w", "2000"), tmp_path / "raw", skip=33, limit=5000
    )
    write_compact(tmp_path / "folded", fold(open_trace(tmp_path / "raw").parts()))
    made = record([program, "w", "2000"], out, compact=True, skip=33, limit=5000, aslr=False)
    assert made.compact
    assert made.accesses == 5000
    for ours, theirs in zip(
        open_trace(out).parts(), open_trace(tmp_path / "folded").parts(), strict=True
    ):
        for mine, other in zip(ours, theirs, strict=True):
            assert mine is other is None or np.array_equal(mine, other)


@valgrind
def test_the_file_says_what_was_recorded_and_how(program, out):
    made = record([program, "a", "two words\tä\udcff"], out, skip=1)
    said = made.metadata
    assert said["command"] == shlex.join([program, "a", "two words\tä\udcff"])
    assert said["tool"] == "valgrind --tool=lackey --trace-mem=yes"
    assert re.fullmatch(r"\d+\.\d+.*", said["tool_version"])
    assert said["skipped"] == 1
    assert said["ended"] == "exit status 0"
    assert said["exit_status"] == 0


@valgrind
def test_the_program_keeps_its_input_output_and_error(program, out):
    script = f"from mmu.trace import record; record([{program!r}, 'p'], {str(out)!r})"
    run = subprocess.run(
        [sys.executable, "-c", script], input=b"in\0put", capture_output=True, cwd=ROOT, check=True
    )
    assert run.stdout == b"in\0put"
    assert run.stderr == b"done"


@valgrind
def test_arguments_reach_the_program_as_they_are(program, out, capfd):
    record([program, "a", " ü  '\"$HOME*\n"], out)
    assert capfd.readouterr().out == " ü  '\"$HOME*\n"


@valgrind
def test_the_environment_can_be_chosen(program, out, capfd, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    assert (
        cli.main(["trace", "record", "-o", str(out), "--clean-env", "--env", "A=b=c", program, "v"])
        == 0
    )
    said = capfd.readouterr().out.splitlines()
    assert "A=b=c" in said
    assert not any(line.startswith(("SECRET=", "LC_")) for line in said)
    assert cli.main(["trace", "record", "-o", str(out), "--env", "=1", program, "v"]) == 2
    assert "--env: found '=1'; accepted: NAME=VALUE" in capfd.readouterr().err


@valgrind
@pytest.mark.parametrize("mode", ["e", "i"])
def test_the_limit_ends_a_program_that_would_not_end(program, out, mode):
    begun = time.monotonic()
    made = record([program, mode], out, limit=6000)
    assert time.monotonic() - begun < 20
    assert made.accesses == 6000
    assert made.metadata["ended"] == "stopped at the limit"
    assert "exit_status" not in made.metadata
    assert_nothing_runs(program, 0)


@valgrind
def test_a_window_beyond_the_programs_end_is_refused(program, out):
    with pytest.raises(InputError, match=r"holds [\d,]+ accesses, and 1,000,000 are to be skipped"):
        record([program, "w", "5"], out, skip=1_000_000)
    assert list(out.parent.iterdir()) == []


@valgrind
def test_the_trace_of_a_program_that_fails_is_kept(program, out, capfd):
    assert cli.main(["trace", "record", "-o", str(out), "--", program, "x", "3"]) == 0
    said = capfd.readouterr().err
    assert re.search(r"trace.parquet: [\d,]+ accesses \([\d,]+ fetches", said)
    assert f"mmu: note: {program}: exit status 3; the trace is kept" in said
    assert open_trace(out).metadata["exit_status"] == 3


@valgrind
def test_the_trace_of_a_program_that_a_signal_ends_is_kept(program, out):
    made = record([program, "s"], out)
    assert made.metadata["ended"] == "signal SIGSEGV"
    assert made.metadata["exit_status"] == 128 + signal.SIGSEGV
    assert made.accesses > 40


@valgrind
@pytest.mark.parametrize("children", [False, True])
def test_a_program_that_closes_every_descriptor_is_recorded_to_its_end(program, out, children):
    made = record([program, "c", "1500"], out, children=children)
    assert made.metadata["exit_status"] == 0
    assert made.writes >= 1000


@valgrind
def test_a_daemon_ends_with_the_recording_of_its_parent(program, out):
    made = record([program, "d"], out)
    assert made.metadata["ended"] == "exit status 0"
    assert_nothing_runs(program)


@valgrind
def test_a_daemon_is_recorded_up_to_the_limit_where_children_are(program, out):
    made = record([program, "d"], out, children=True, limit=50_000)
    assert made.accesses == 50_000
    assert len(made.metadata["processes"]) == 3
    assert_nothing_runs(program)


@valgrind
def test_a_child_that_was_forked_is_not_in_its_parents_trace(program, out, tmp_path):
    alone = record([program, "w", "500"], tmp_path / "alone")
    both = record([program, "f", "500"], out)
    assert abs(both.accesses - alone.accesses) < 100


@valgrind
def test_each_process_gets_a_space_of_its_own(program, out):
    alone = record([program, "f", "3000"], out)
    made = record([program, "f", "3000"], out, children=True)
    address, kind, space = columns(out, "address", "kind", "space")
    assert set(space.tolist()) == {0, 1}
    assert np.count_nonzero(space == 0) == alone.accesses
    said = made.metadata["processes"]
    assert [row["accesses"] for row in said] == np.bincount(space).tolist()
    assert said[1]["command"] == "(forked)"
    assert made.metadata["order"].startswith("of arrival")
    for number, turns in ((0, 3000), (1, 6000)):
        stores = address[(space == number) & (kind == 1) & (address < 1 << 32)]  # not the stack
        assert turns <= len(stores) < turns + 20
    changes = np.flatnonzero(np.diff(space)) + 1
    assert len(changes) < 2 * made.accesses / 4096 + 2


@valgrind
def test_another_program_begins_another_space_even_if_all_descriptors_were_closed(program, out):
    made = record([program, "r", "400"], out, children=True)
    said = made.metadata["processes"]
    assert [row["command"] for row in said] == [f"{program} r 400", "(forked)", f"{program} w 400"]
    assert said[1]["process"] == said[2]["process"] != said[0]["process"]
    assert said[2]["accesses"] >= 400 * 2
    assert made.accesses == sum(row["accesses"] for row in said)


@valgrind
@pytest.mark.slow
def test_all_of_a_shell_pipeline_is_recorded(out, capfd):
    made = record(["sh", "-c", "echo a | cat"], out, children=True)
    assert capfd.readouterr().out == "a\n"
    said = made.metadata["processes"]
    assert said[0]["command"].startswith("sh -c echo")
    assert sum(row["command"].endswith("/cat") for row in said) == 1
    assert len({row["process"] for row in said}) == 3
    assert made.metadata["exit_status"] == 0


@valgrind
@pytest.mark.slow
def test_an_interrupt_keeps_what_has_been_recorded(program, out):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    made = record([program, "e"], out)
    assert made.metadata["ended"] == "interrupted"
    assert made.accesses > 1000
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_nothing_runs(program, 0)


@valgrind
@pytest.mark.slow
def test_an_interrupt_before_the_window_leaves_nothing(program, out):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        record([program, "e"], out, skip=10**12)
    assert list(out.parent.iterdir()) == []
    assert_nothing_runs(program, 0)


def running(program, out, *options, mode="e"):
    """Start a recording of an endless program, and return it once the program runs."""
    command = [
        sys.executable,
        "-m",
        "mmu",
        "trace",
        "record",
        "-o",
        str(out),
        *options,
        "--",
        program,
        mode,
    ]
    recorder = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(_runs_lackey(pid) for pid in processes(program)):
        assert time.monotonic() < deadline
        assert recorder.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    return recorder


def _runs_lackey(pid):
    try:
        return "lackey" in os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False


@valgrind
@pytest.mark.parametrize(("mode", "options"), [("e", ()), ("d", ("--children",))])
def test_a_killed_recorder_leaves_no_process_and_no_trace(program, out, mode, options):
    recorder = running(program, out, *options, mode=mode)
    recorder.kill()
    recorder.communicate()
    assert_nothing_runs(program)
    assert not out.exists()
    assert all(path.name.startswith(".") for path in out.parent.iterdir())


@valgrind
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_recording_and_all_that_it_runs(program, out, number, status):
    recorder = running(program, out)
    recorder.send_signal(number)
    _, said = recorder.communicate(timeout=60)
    assert recorder.returncode == status
    assert_nothing_runs(program)
    if number == signal.SIGINT:
        assert "interrupted; the trace is kept" in said
        assert open_trace(out).accesses > 0
    else:
        assert list(out.parent.iterdir()) == []


@valgrind
@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_and_nowhere_else(program, out):
    ours, theirs = os.openpty()
    options = ["-o", str(out), "--limit", "700000"]
    run = subprocess.run(
        [sys.executable, "-m", "mmu", "trace", "record", *options, program, "e"],
        cwd=ROOT,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert run.returncode == 0
    assert re.search(r"\r[\d,]+ accesses, [\d.]+ M a second", said)


@valgrind
def test_a_file_that_cannot_be_written_is_refused_before_the_program_runs(program, tmp_path, capfd):
    with pytest.raises(InputError, match="no folder"):
        record([program, "a", "ran"], tmp_path / "no" / "x")
    assert cli.main(["trace", "record", "-o", str(tmp_path), program, "a", "ran"]) == 2
    said = capfd.readouterr()
    assert "is a folder" in said.err
    assert said.out == ""


@valgrind
@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_process(program, out):
    record([program, "w", "10"], out)  # compiles
    out.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot be written: .*File too large"):
            record([program, "e"], out, limit=30_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(out.parent.iterdir()) == []
    assert_nothing_runs(program)


@pytest.fixture
def pretended(tmp_path, monkeypatch):
    """Put a valgrind of a few lines of Python into PATH; `log` is what the recorder reads."""

    def pretend(*body):
        (tmp_path / "bin").mkdir()
        lines = (
            f"#!{sys.executable} -S", "import os, sys, time",
            "if '--version' in sys.argv: print('valgrind-9.9'); sys.exit()",
            "log = int([a for a in sys.argv if a.startswith('--log-fd=')][0][9:])",
            "os.write(log, b'==1== Lackey, or so\\n')", *body,
        )  # fmt: skip
        (tmp_path / "bin" / "valgrind").write_text("\n".join(lines))
        (tmp_path / "bin" / "valgrind").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return str(tmp_path / "bin")

    return pretend


def test_without_valgrind_the_packages_to_install_are_named(out, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError) as refused:
        record(["/bin/true"], out)
    for name in ("apt-get install valgrind", "dnf install valgrind", "pacman -S valgrind"):
        assert name in str(refused.value)


@pytest.mark.parametrize("children", [False, True])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (("sys.exit(7)",), r"/bin/true: ended \(exit status 7\) before its first access"),
        (("os.kill(os.getpid(), 9)",), r"ended \(signal SIGKILL\) before its first access"),
        (("os.write(log, b'garbage\\n')", "time.sleep(60)"), "'garbage': not a lackey record"),
        (("while True: os.write(log, b'nonsense' * 99 + b'\\n')",), "not a lackey record"),
        (("while True: os.write(log, b'no newline' * 99)",), "a line of more than|not a lackey"),
    ],
)  # fmt: skip
def test_what_a_broken_tracer_does_is_one_line_and_leaves_nothing(
    out, pretended, children, body, message
):
    name = pretended(*body)
    with pytest.raises(InputError, match=message):
        record(["/bin/true"], out, children=children)
    assert list(out.parent.iterdir()) == []
    assert_nothing_runs(name, 0)


def test_the_children_of_a_killed_recorders_program_are_ended_too(out, pretended):
    name = pretended("os.fork()", "time.sleep(100)")
    script = f"from mmu.trace import record; record(['/bin/true'], {str(out)!r})"
    recorder = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    deadline = time.monotonic() + 60
    # A path in its arguments: the guard's too, from the moment that it is started.
    while len(processes(name)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes(name)) >= 3
    recorder.kill()
    recorder.wait()
    assert_nothing_runs(name)


def test_addresses_are_left_alone_if_that_is_asked_for(out, pretended, capfd):
    pretended("os.write(log, b' L 1000,8\\n')", "print(open('/proc/self/personality').read())")
    for aslr in (True, False):
        record(["/bin/true"], out, aslr=aslr)
        flags = int(capfd.readouterr().out, 16)
        assert bool(flags & 0x40000) is not aslr


def test_a_log_that_breaks_off_is_refused(out, pretended):
    pretended("os.write(log, b' L 1000,8\\nI  10')")
    with pytest.raises(InputError, match="cut off"):
        record(["/bin/true"], out)


def test_what_a_killed_tracer_had_not_finished_is_no_access(out, pretended):
    pretended("os.write(log, b' L 1000,8\\n==1== Coun')", "os.kill(os.getpid(), 9)")
    assert record(["/bin/true"], out).accesses == 1


@pytest.mark.slow
def test_a_tracer_that_goes_on_without_a_reader_is_ended(out, pretended):
    body = "while True:\n try: os.write(log, b' L 1000,8\\n' * 999)\n except OSError: pass"
    name = pretended("import signal", "signal.signal(15, signal.SIG_IGN)", body)
    assert record(["/bin/true"], out, limit=5000).accesses == 5000
    assert_nothing_runs(name, 0)


def test_a_silent_tracer_can_be_interrupted(out, pretended):
    name = pretended("os.write(log, b' L 1000,8\\n')", "time.sleep(100)")
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert record(["/bin/true"], out).accesses == 1
    assert_nothing_runs(name, 0)


def test_writers_that_take_turns_come_in_whole_blocks(out, pretended):
    pretended(
        "child = os.fork()", "for _ in range(3000):",
        " os.write(log, b' L %x000,8\\n' % (2 + (child == 0)) * 5)",
        " time.sleep(0)", "if child: os.wait()", "else: os._exit(0)",
    )  # fmt: skip
    made = record(["/bin/true"], out, children=True)
    address, space = columns(out, "address", "space")
    assert made.accesses == 30_000
    assert (address >> 12).tolist() == (2 + space).tolist() or (3 - space).tolist()
    for number in (0, 1):
        own = address[space == number]
        assert len(own) == 15_000
        assert len(set(own.tolist())) == 1
    ends = np.append(np.flatnonzero(np.diff(space)), made.accesses - 1)
    assert all(length % 4096 == 0 for length in np.diff(ends)[:-2])


def merged(*messages):
    """The accesses of processes that write these lines, as (space, page), and what is said of them."""
    notes = Notes()
    parts = list(Processes("here", notes).merged(messages))
    pages = np.concatenate([part.address for part in parts]) >> 12
    spaces = np.concatenate([part.space for part in parts])
    return list(zip(spaces.tolist(), pages.tolist(), strict=True)), notes


def test_what_a_process_wrote_before_another_began_comes_first():
    found, _ = merged(
        (7, b" L 1000,8\n" * 10), (9, b" L 2000,8\n" * 30_000), (7, b" L 3000,8\n"),
        (9, b" L 4000,8\n"), (0, b""), (9, b" L 5000,8\n"), (7, b" L 6000,8\n"),
    )  # fmt: skip
    assert found[:10] == [(0, 1)] * 10
    turns = [found[0], *(new for old, new in pairwise(found) if old != new)]
    assert turns == [(0, 1), (1, 2), (0, 3), (1, 2), (1, 4), (1, 5), (0, 6)]
    assert found.count((1, 2)) == 30_000


def test_a_process_that_runs_another_program_begins_a_space_wherever_its_lines_are_split():
    banner = b"==7== Lackey, an example Valgrind tool\n==7== Command: ls -l\n"
    text = b" L 1000,8\n S 2000,8\n" + banner + b" L 3000,8\n"
    for cut in (0, 4, 10, 13, 21, len(text) - 3):
        found, notes = merged((7, text[:cut] or b"\n"), (7, text[cut:]))
        assert found == [(0, 1), (0, 2), (1, 3)], cut
        said = [
            (row["process"], row["command"], row["accesses"]) for row in notes.said["processes"]
        ]
        assert said == [(7, "(forked)", 2), (7, "ls -l", 1)]
    assert merged((7, text + banner + b" L 4000,8\n"))[0] == [(0, 1), (0, 2), (1, 3), (2, 4)]
    assert merged((7, banner + b" L 4000,8\n"))[0] == [(0, 4)]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-program"], "no program 'no-such-program' in PATH"),
        (["here"], r"in this folder it is \./here"),
        (["./no"], "no file './no'"),
        (["./here"], "'./here' is not executable"),
        (["/"], "'/' is a folder"),
        (["-x"], "found '-x'"),
        ([""], "found ''"),
        (["true", "a\0b"], "zero byte"),
        ([], "accepted: a program and its arguments"),
        ("ls -l", "accepted: a program and its arguments"),
    ],
)
def test_a_command_that_cannot_run_is_refused(tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_text("")
    with pytest.raises(InputError, match=message):
        Session(command, None, still=False)


def test_help_names_every_option_and_imports_nothing_heavy():
    script = (
        "import sys, json; from mmu import cli; cli.main(['trace', 'record', '--help']); "
        "print(json.dumps([m for m in ('numpy', 'numba', 'pyarrow') if m in sys.modules]))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout
    assert json.loads(said.splitlines()[-1]) == []
    for option in ("--skip", "--limit", "--compact", "--children", "--no-aslr", "--quiet"):
        assert option in said
