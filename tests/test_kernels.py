"""How kernels are compiled: where they may stand, and what must not creep in."""

import ast
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import mmu
from mmu import jit

ROOT = Path(mmu.__file__).parent
COMPILED = not numba.config.DISABLE_JIT


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            yield from ((alias.name, set()) for alias in node.names)


def test_kernels_stand_only_where_the_digest_looks():
    """An edit elsewhere must not leave compiled code stale."""
    for path in ROOT.rglob("*.py"):
        folder = path.relative_to(ROOT).parts[0]
        modules = dict(imports_of(path))
        if modules.get("mmu.jit", set()) & {"kernel", "inlined", "spliced"}:
            assert folder in jit.KERNEL_FOLDERS, path
            for module in modules:
                room = module.split(".")[1] if module.startswith("mmu.") else ""
                assert room not in jit.KERNEL_FOLDERS or room in jit.KERNEL_FOLDERS[folder], path


def test_an_edit_to_a_trace_format_leaves_the_compiled_hardware_alone():
    digests = [jit.sources_digest(folder) for folder in jit.KERNEL_FOLDERS]
    assert len(set(digests)) == len(digests)
    assert "trace" not in jit.KERNEL_FOLDERS["software"]


def test_numba_is_named_in_one_file_only():
    users = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for module, _ in imports_of(path)
        if module.split(".")[0] == "numba"
    }
    assert users <= {"jit.py", "tally.py"}  # the latter writes its version into results


def test_the_digest_changes_with_a_switch_that_changes_code(monkeypatch):
    before = jit.sources_digest("trace")
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1" if before else "0")
    monkeypatch.setenv("NUMBA_SOMETHING_NEW", "1")
    assert jit.sources_digest("trace") != before


def test_compiled_code_is_kept_where_the_user_says(monkeypatch, tmp_path):
    place = jit.cache_folder.__wrapped__  # the answer is kept for the process
    monkeypatch.setenv("MMU_CACHE", str(tmp_path))
    assert place("trace").parent == tmp_path
    monkeypatch.delenv("MMU_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert place("trace").parent == tmp_path / "xdg" / "mmu"


COUNTING = """
import inspect, sys
sys.path.insert(0, {tests!r})
from memory_trace import MemoryTrace
from processors_for_tests import processor
from mmu.config import RunConfig
from mmu.run import Replay
from mmu.hardware.access import make_accesses
from mmu.software.dispatcher import dispatch
vm = {{"trace": "t", "memory": 256 << 20}}
config = RunConfig(processor=processor(), vms=[vm], memory=1 << 30)
for compact in (False, True):
    Replay(config, [MemoryTrace([(0, 0, 0, 0), (0, 0, 4096, 2)], compact)]).run()
for kernel in (make_accesses, dispatch):
    assert len(kernel.signatures) == 1, kernel.signatures
    assembly = "".join(kernel.inspect_asm().values())
    assert "NRT_incref" not in assembly
    assert assembly.count("make_accesses") > 0
print("checked")
"""


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="interpreted: there is no machine code to look at")
def test_kernels_count_no_references_and_have_one_signature(tmp_path):
    """Reference counts made a walk five times slower; raw and compact traces share compiled code."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTING.format(tests=str(Path(__file__).parent))],
        env={"MMU_CACHE": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "checked", done.stderr
