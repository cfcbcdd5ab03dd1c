"""Compiles the plugin for the QEMU that is installed; the result is kept beside compiled kernels."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

from mmu.errors import InputError
from mmu.jit import cache_folder
from mmu.trace.session import tool

SOURCE = Path(__file__).with_name("accesses.c")
SLOTS, SLOT_WORDS = 512, 1 << 13  # 32 MiB; what is not needed is not used
FLAGS = ("-O2", "-shared", "-fPIC", "-pthread", f"-DSLOTS={SLOTS}", f"-DSLOT_WORDS={SLOT_WORDS}")
FIRST_VERSION, MOST_TRIALS = 1, 3


def version_of(qemu: str) -> str:
    """Return QEMU's version."""
    said = subprocess.run(
        [qemu, "--version"], capture_output=True, text=True, errors="replace", check=False
    ).stdout
    found = re.search(r"version ([\w.]+)", said)
    return found[1] if found else "unknown"


def plugin(qemu: str) -> Path:
    """Return the plugin for a QEMU, compiled if it has not been yet.

    QEMU refuses a plugin that was made for a version of the interface that it no longer has, and says
    which it has: the plugin, which uses nothing that has changed, is compiled again for that one.

    Raises
    ------
    InputError
        There is no C compiler, or this QEMU takes no plugins.
    """
    digest = hashlib.sha256()
    digest.update(SOURCE.read_bytes() + repr(FLAGS).encode() + version_of(qemu).encode())
    made = cache_folder("trace") / f"qemu-{digest.hexdigest()[:20]}.so"
    if made.exists():
        return made
    compiler = tool("cc", "cc")
    made.parent.mkdir(parents=True, exist_ok=True)
    trial = made.with_name(f".{made.name}.{os.getpid()}.so")
    api = FIRST_VERSION
    try:
        for _ in range(MOST_TRIALS):
            compiled = subprocess.run(
                [compiler, *FLAGS, f"-DAPI_VERSION={api}", "-o", str(trial), str(SOURCE)],
                capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
            if compiled.returncode:
                raise InputError(f"{compiler} cannot compile the plugin: {last(compiled.stderr)}")
            tried = subprocess.run(
                [qemu, "-plugin", option(trial), "/bin/true"],
                capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
            if tried.returncode == 0:
                trial.replace(made)
                return made
            wanted = re.search(r"minimum version of (\d+)", tried.stderr)
            if wanted is None:
                break
            api = int(wanted[1])
    finally:
        trial.unlink(missing_ok=True)
    raise InputError(
        f"{qemu} takes no plugin ({last(tried.stderr)}); install QEMU 6 or newer that was configured "
        "with --enable-plugins, or record under valgrind, without --qemu"
    )


def option(path: Path, **arguments: str) -> str:
    """Return a plugin and its arguments as QEMU reads them, where two commas stand for one."""
    given = [f"file={path}", *(f"{name}={value}" for name, value in arguments.items())]
    return ",".join(text.replace(",", ",,") for text in given)


def last(text: str) -> str:
    """Return the last line of what a program says."""
    return (text.strip().splitlines() or ["it does not say why"])[-1][:200]
