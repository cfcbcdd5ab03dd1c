"""How kernels are compiled: the only place that names Numba's options.

Compiled code is kept between runs, in a folder named by a digest of every source file that a kernel's
code may come from and of every switch that changes what is compiled. Numba's own index watches only
the file that holds a function, so without the digest an edit to an imported kernel would leave its
callers stale (numba issue 1833), and a bounds-checked run on a warm cache would check nothing.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

# `_nrt=False` compiles without reference counts: a kernel never allocates, yet each array taken out
# of a NamedTuple would cost a pair of atomic counts (64 against 297 ns per access where 30 % of the
# accesses walk). `nogil`: a progress bar can be drawn while a kernel runs.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}


# Folders that hold kernels, and the folders that these import kernels from; a test sees to both.
KERNEL_FOLDERS = {
    "hardware": ("hardware",),
    "software": ("hardware", "software"),
    "trace": ("trace",),
}


def sources_digest(folder: str) -> str:
    """Return a digest of all that changes the code compiled from a folder's kernels."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    sources = [path for part in KERNEL_FOLDERS[folder] for path in (root / part).rglob("*.py")]
    for path in sorted([Path(__file__), *sources]):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    switches = [
        f"{key}={value}" for key, value in sorted(os.environ.items()) if key[:6] == "NUMBA_"
    ]
    versions = [numba.__version__, np.__version__, sys.version, repr(OPTIONS)]
    digest.update("\n".join(switches + versions).encode())
    return digest.hexdigest()[:20]


@cache
def cache_folder(folder: str) -> Path:
    """Return where a folder's compiled code is: in ``$MMU_CACHE``, or ``mmu`` in the user's cache."""
    chosen = os.environ.get("MMU_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return (Path(chosen) if chosen else Path(home) / "mmu") / sources_digest(folder)


def folder_of(function: Callable[..., Any]) -> str:
    """Return the folder of this package that a function stands in; `jit` itself counts as trace."""
    name = function.__module__.split(".")[1]
    return name if name in KERNEL_FOLDERS else "trace"


def _compile(function: F, **options: Any) -> F:
    """Decorate with Numba, which asks for the cache folder at this moment and never again."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder(folder_of(function)))
    try:
        return cast(F, numba.njit(**OPTIONS, **options)(function))
    finally:
        config.CACHE_DIR = before


@cache
def can_keep(folder: str) -> bool:
    """Tell whether compiled code can be kept; a user without a place for it compiles each time."""
    place = cache_folder(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(place, os.W_OK)


def kernel(function: F) -> F:
    """Compile a function that Python, or another kernel out of line, calls."""
    return _compile(function, cache=can_keep(folder_of(function)))


def inlined(function: F) -> F:
    """Compile a function into its callers.

    An out-of-line call copies every array of the state, seven words each: 104 against 64 ns per
    access on the miss path. LLVM does it, so types are inferred once.
    """
    return _compile(function, forceinline=True)


def spliced(function: F) -> F:
    """Copy a function into its only caller before anything is compiled.

    Numba compiles every function by itself, with all that it calls, even if LLVM then merges it into
    its caller: a chain of ten is compiled ten times over.
    """
    return _compile(function, inline="always")


def constant(value: int) -> int:
    """Return a number that kernels may hand to one another.

    A plain one is a literal to Numba, which compiles the function that is given it once more for each.
    """
    return cast(int, np.int64(value))


@inlined
def at(slot: int) -> int:
    """Make an unsigned index, which saves Numba's wrap-around test (3.40 against 2.93 ns an access)."""
    return np.uint64(slot)  # type: ignore[return-value]
