"""Recording under QEMU: what is written, beside what valgrind tells of the same program."""

import os
import shutil
import signal
import subprocess
import threading

import numpy as np
import pytest
from recorded import assert_nothing_runs, columns

from mmu import cli
from mmu.errors import InputError
from mmu.trace import fold, open_trace, record
from mmu.trace.qemu import build

qemu = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="QEMU is not installed")
valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
STACK = 1 << 32  # and above


def told(path):
    """Kind, size, and address unless it is on the stack, whose place differs, of each access."""
    address, kind, size = columns_with_size(path)
    return np.column_stack([kind, size, np.where(address < STACK, address, 0)]).astype(np.int64)


def columns_with_size(path):
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pq.read_table(path)
    return [table.column(name).to_numpy() for name in ("address", "kind", "size")]


@qemu
@valgrind
@pytest.mark.parametrize("turns", ["1", "700"])
def test_qemu_and_valgrind_tell_the_same_accesses_in_the_same_order(program, out, tmp_path, turns):
    record([program, "w", turns], out, qemu=True)
    record([program, "w", turns], tmp_path / "theirs")
    assert np.array_equal(told(out), told(tmp_path / "theirs"))


@qemu
@valgrind
def test_they_differ_where_it_is_written_that_they_do(program, out, tmp_path):
    record([program, "l", "9"], out, qemu=True)
    record([program, "l", "9"], tmp_path / "theirs")
    ours = told(out).tolist()
    theirs = []
    for kind, size, address in told(tmp_path / "theirs").tolist():
        if size == 16:  # a vector
            theirs += [[kind, 8, address], [kind, 8, address + 8]]
        elif theirs[-1:] != [[kind, size, address]] or kind != 0:  # loaded twice by a locked one
            theirs.append([kind, size, address])
    assert ours == theirs
    assert [1, 3, 0xFFD] in [[kind, size, address & 0xFFF] for kind, size, address in ours]


@qemu
def test_the_trace_says_what_was_recorded_and_keeps_what_was_asked_for(program, out, tmp_path):
    record([program, "w", "2000"], tmp_path / "whole", qemu=True, aslr=False)
    made = record([program, "w", "2000"], out, qemu=True, skip=70, limit=9000, compact=True)
    assert made.accesses == 9000
    assert made.metadata["tool"] == "qemu-x86_64"
    assert made.metadata["ended"] == "stopped at the limit"
    address, kind = columns(tmp_path / "whole", "address", "kind")
    window = slice(70, 9070)
    raw = next(iter(open_trace(tmp_path / "whole").parts()))._replace(
        address=address[window], kind=kind[window], thread=np.zeros(9000, np.uint32)
    )
    wanted = list(fold([raw]))
    kinds = np.concatenate([part.kind for part in wanted])
    kind, page, fetches = columns(out, "kind", "page", "fetches")
    assert np.array_equal(kind, kinds)
    assert np.array_equal(fetches, np.concatenate([part.fetches for part in wanted]))
    pages = np.concatenate([part.page for part in wanted])
    assert np.array_equal(page[kinds == 2], pages[kinds == 2])


@qemu
@pytest.mark.parametrize(
    ("mode", "ended"), [("s", "signal SIGSEGV"), ("x", "exit status 7"), ("c", "exit status 0")]
)
def test_however_the_program_ends_its_last_accesses_are_there(program, out, mode, ended):
    made = record([program, mode, {"x": "7", "c": "1500"}.get(mode, "0")], out, qemu=True)
    assert made.metadata["ended"] == ended
    last = columns(out, "kind")[0][-1]
    assert last == 2  # the system call, or what was at fault


@qemu
def test_a_forked_child_is_not_in_its_parents_trace(program, out, tmp_path):
    alone = record([program, "w", "5000"], tmp_path / "alone", qemu=True)
    both = record([program, "f", "5000"], out, qemu=True)
    assert abs(both.accesses - alone.accesses) < 100
    record([program, "d"], out, qemu=True)
    assert_nothing_runs(program)


@qemu
@pytest.mark.parametrize("mode", ["e", "i"])
def test_the_limit_ends_a_program_that_would_not_end(program, out, mode):
    assert record([program, mode], out, qemu=True, limit=20_000).accesses == 20_000
    assert_nothing_runs(program, 0)


@qemu
@pytest.mark.slow
def test_an_interrupt_keeps_what_has_been_recorded(program, out):
    record([program, "a", ""], out, qemu=True)  # compiles
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    made = record([program, "e"], out, qemu=True, compact=True)
    assert made.metadata["ended"] == "interrupted"
    assert made.accesses > 1000
    assert_nothing_runs(program, 0)


@qemu
@pytest.mark.slow
def test_each_thread_has_a_number_and_a_locked_access_loads_and_stores(out, tmp_path):
    source = (
        "#include <pthread.h>\n"
        "static volatile long sum; static void *add(void *turns)\n"
        "{ for (long i = 0; i < (long)turns; i++) __sync_fetch_and_add(&sum, i); return 0; }\n"
        "int main(void) { pthread_t t[3]; for (long i = 0; i < 3; i++)\n"
        "  pthread_create(t + i, 0, add, (void *)(1000 * (i + 1)));\n"
        "  for (int i = 0; i < 3; i++) pthread_join(t[i], 0); return 0; }\n"
    )
    (tmp_path / "threads.c").write_text(source)
    binary = tmp_path / "threads"
    subprocess.run(["cc", "-O1", "-pthread", "-o", binary, tmp_path / "threads.c"], check=True)
    record([str(binary)], out, qemu=True)
    address, kind, thread = columns(out, "address", "kind", "thread")
    assert set(thread.tolist()) == {0, 1, 2, 3}
    # The sum is what is stored to most.
    places, stores = np.unique(address[kind == 1], return_counts=True)
    place = places[stores.argmax()]
    for number, turns in ((1, 1000), (2, 2000), (3, 3000)):
        own = (thread == number) & (address == place)
        assert np.count_nonzero(own & (kind == 0)) == turns
        assert np.count_nonzero(own & (kind == 1)) == turns


@qemu
def test_what_qemu_cannot_run_is_refused(out, tmp_path, capfd):
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(InputError, match="is a script: put its interpreter before it"):
        record([str(tmp_path / "script")], out, qemu=True)
    assert cli.main(["trace", "record", "-o", str(out), "--qemu", "--children", "true"]) == 2
    assert "--qemu: found with --children" in capfd.readouterr().err


def test_without_qemu_the_packages_to_install_are_named(out, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install qemu-user"):
        record(["/bin/true"], out, qemu=True)


def pretended(path, version, least):
    """A QEMU that wants plugins of `least` or newer, or none."""
    wants = (
        f"plugin requires API version 1, but this QEMU supports only a minimum version of {least}"
    )
    path.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo "qemu version {version}"; exit;; esac\n'
        f'file=${{2#file=}}; file=${{file%%,*}}\n'
        f'[ "$(od -An -td4 "$file.api" | tr -d " ")" = "{least}" ] && exit 0\n'
        f'echo "{wants}" >&2; exit 1\n'
    )  # fmt: skip
    path.chmod(0o755)
    return str(path)


def test_the_plugin_is_made_for_the_interface_that_qemu_asks_for(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cache_folder", lambda folder: tmp_path / "cache")
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\nfor a; do case "$a" in -DAPI_VERSION=*) v=${a#*=};; *.so) f=$a;; esac; done\n'
        'echo $v >> "$0.log"; : > "$f"; printf "\\\\$v\\0\\0\\0" > "$f.api"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    made = build.plugin(pretended(tmp_path / "qemu", "9.1", 4))
    assert made.exists()
    assert (tmp_path / "cc.log").read_text().split() == ["1", "4"]
    build.plugin(str(tmp_path / "qemu"))
    assert (tmp_path / "cc.log").read_text().split() == ["1", "4"]
    (tmp_path / "old").write_text("#!/bin/sh\necho 'unknown option plugin' >&2; exit 1\n")
    (tmp_path / "old").chmod(0o755)
    with pytest.raises(InputError, match=r"takes no plugin \(unknown option plugin\)"):
        build.plugin(str(tmp_path / "old"))
