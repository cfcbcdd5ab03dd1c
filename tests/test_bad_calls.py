"""Wrong arguments from Python, and command lines that once went wrong: one line, what is accepted."""

import os
import subprocess
import sys

import numpy as np
import pytest
from memory_trace import MemoryTrace
from processors_for_tests import processor

import mmu
from mmu import Ept, InputError, Memory, translate
from mmu.config import RunConfig
from mmu.run import Replay

MEMORY = Memory.from_words(np.zeros(512, np.uint64))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mmu.compare("x", modes=[]), "tagged"),
        (lambda: mmu.compare("x", modes=["tagged", "tagged"]), "at most once"),
        (lambda: mmu.compare("x", modes="tagd"), "tagged"),
        (lambda: mmu.compare("x", mode="flush"), "modes"),
        (lambda: mmu.replay("x", settings=[5]), "FIELD=VALUE"),
        (lambda: mmu.replay("x", settings="l2.wais=4"), "ways"),
        (lambda: mmu.replay("x", quantom="50us"), "quantum"),
        (lambda: mmu.replay("x", settings=["l2.ways=" + "9" * 5000]), "TOML"),
        (lambda: mmu.replay("x", settings=["l2.ways=" + "[" * 5000]), "TOML"),
        (lambda: Memory.from_words([[1], [1, 2]]), "one dimension"),
        (lambda: Memory.from_words(np.zeros(512, np.int64), None), "base"),
        (lambda: Memory.from_words(np.zeros(512, np.int64), 1.5), "base"),
        (lambda: Memory(np.zeros(512), 0, True), "words: found float64"),
        (lambda: Memory(np.zeros(512, np.uint64), 0, True), "words: found uint64"),
        (lambda: Memory(np.zeros((2, 512), np.int64), 0, True), "words: found int64"),
        (lambda: Memory([0] * 512, 0, True), "words: found <class 'list'>"),
        (lambda: Memory(np.zeros(1024, np.int64)[::2], 0, True), "strided or read-only"),
        (lambda: Memory(np.frombuffer(bytes(4096), np.int64), 0, True), "strided or read-only"),
        (lambda: Memory(np.zeros(512, np.int64), "x", True), "base: found 'x'"),
        (lambda: Memory(np.zeros(512, np.int64), 0, 1), "writable: found 1"),
        (lambda: Memory(np.zeros(512, np.int64), 0, True, [[0, 512, 0]]), "extents: found list"),
        (lambda: mmu.translate_many(MEMORY, [[1], [1, 2]], cr3=0), "gvas"),
        (
            lambda: mmu.translate_many(
                MEMORY, np.zeros(2, np.int64), cr3=0, access=np.array([0, 3], np.uint8)
            ),
            "access: found 3",
        ),
        (lambda: translate(MEMORY, None, cr3=0), "gva"),
        (lambda: translate(MEMORY, 1.5, cr3=0), "gva"),
        (lambda: translate(MEMORY, 0, cr3="x"), "cr3"),
        (lambda: translate(MEMORY, 0, cr3=-1), "cr3"),
        (lambda: translate(MEMORY, 0, cr3=0, nested=5), "Ept"),
        (lambda: translate(np.zeros(512, np.int64), 0, cr3=0), "from_words"),
        (lambda: translate(MEMORY, 0, cr3=0, access=["read"]), "read"),
        (lambda: translate(MEMORY, 0, cr3=0, user="no"), "True"),
        (lambda: Ept(None), "eptp"),
        (lambda: Ept.at(None), "root"),
        (lambda: Ept.at(0x1001), "root: found 0x1001"),
        (lambda: Ept.at(-4096), "root: found -0x1000"),
        (lambda: Ept.at(1 << 52), "root"),
        (lambda: Ept.at(0, levels=6), "levels: found 6"),
        (lambda: Ept.at(0, dirty=3), "dirty: found 3"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_is_accepted(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def config(**fields):
    machines = [{"trace": "t", "memory": 256 << 20}]
    return RunConfig(processor=processor(), vms=machines, memory=1 << 30, **fields)


def test_a_warm_up_that_leaves_no_block_to_count_is_refused():
    trace = MemoryTrace([(0, 0, 0, 0)] * 5000)
    assert Replay(config(warm_up=4096), [trace]).run().count("accesses") == 5000 - 4096
    with pytest.raises(InputError, match="--warm-up: found 4097"):
        Replay(config(warm_up=4097), [trace]).run()


def test_more_accesses_than_can_be_counted_are_refused():
    with pytest.raises(InputError, match="--repeat"):
        Replay(config(repeat=1 << 61), [MemoryTrace([(0, 0, 0, 0)])])


def run(*arguments, **options):
    command = [sys.executable, "-m", "mmu", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, **options
    )


def test_a_processor_file_without_end_is_refused(tmp_path):
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name in ("pipe.toml", "zero.toml"):
        done = run("processors", "show", str(tmp_path / name))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "no regular file" in done.stderr


def test_a_full_disk_behind_standard_output_is_said():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "mmu", "processors"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "No space left on device; make room" in done.stderr


@pytest.mark.slow
def test_an_import_that_is_terminated_leaves_nothing(tmp_path):
    os.mkfifo(tmp_path / "log")
    command = [sys.executable, "-m", "mmu", "trace", "import", "log", "-o", "out.parquet"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    with open(tmp_path / "log", "w") as log:
        log.write("I  04001000,3\n" * 3_000_000)
        log.flush()
        process.terminate()
        process.wait(20)
    assert os.listdir(tmp_path) == ["log"]


def test_names_need_not_be_utf_8(tmp_path):
    """Of what is read, of what is written, and of the folder."""
    folder = tmp_path / os.fsdecode(b"f\xff")
    folder.mkdir()
    log, made = folder / os.fsdecode(b"log\xfe"), folder / os.fsdecode(b"t\xfd.parquet")
    log.write_text("I  1000,4\n L 2000,8\n")
    done = run("trace", "import", str(log), "-o", str(made))
    assert (done.returncode, done.stderr) == (0, "")
    assert "t\\udcfd.parquet: 2 accesses" in done.stdout
    told = run("trace", "info", str(made))
    assert (told.returncode, told.stderr) == (0, "")
    assert (
        "2 accesses" in run("trace", "cut", str(made), "-o", str(made) + "2", "--skip", "0").stdout
    )


@pytest.mark.parametrize("option", ["-o", "--json", "--figure"])
def test_a_name_that_is_too_long_is_refused(tmp_path, option):
    name = str(tmp_path / ("y" * 300 + ".png"))
    words = ["trace", "import", name, "-o", "x"] if option == "-o" else ["demo", option, name]
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("mmu: error: ")
    assert "File name too long" in done.stderr
    assert "fault" not in done.stderr


@pytest.mark.parametrize(
    ("streams", "arguments", "status"),
    [
        (">&-", "--help", 0),
        ("<&- >&- 2>&-", "trace --help", 0),
        ("2>&-", "trace info nothing.parquet", 2),
        ("<&-", "trace import - -o made.parquet", 2),
    ],
)
def test_closed_standard_streams_are_as_good_as_empty_ones(tmp_path, streams, arguments, status):
    command = f"exec {sys.executable} -m mmu {arguments} {streams}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "fault" in done.stderr) == (status, False)
    assert os.listdir(tmp_path) == []


def test_a_user_without_a_place_for_compiled_code_compiles_each_time(tmp_path):
    (tmp_path / "file").write_text("no folder")
    code = "from mmu import jit; print(jit.can_keep('trace'), jit.cache_folder('trace').exists())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"MMU_CACHE": str(tmp_path / "file")},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "False False\n"
