"""Build the C program of the same model (`twin.c`) and call it in process, over NumPy arrays.

The library is compiled anew by each process into a temporary folder: a second's work, and never
stale, whatever happened to the source, the compiler or the processor meanwhile.

Virtual machines are numbered as in the package: 0 is the root partition, which runs nothing here,
and the first trace is that of number 1.
"""

import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SOURCE = Path(__file__).with_name("twin.c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC", "-Wall", "-Wextra")
MODES = ("tagged", "purge", "flush", "native")
UNITS = ("accesses", "instructions", "cycles")
PAGES = ("4k", "2m", "auto")
RULES = ("lru", "tree-plru", "rotating-plru")
LEVELS = ("l1d", "l2", "l3", "memory")  # where a read of a table is served
EXACT, PARTS = 512, 64  # buckets of walk latencies: of one cycle, then so many to a power of two
MOST_KIND = 2
ERRORS = {
    -2: "a guest has no frame left for its next page; give it more memory",
    -3: "the hypervisor has no frame left for its next page; give the host more memory",
    -4: "these settings cannot be run: too many virtual machines, or too little memory to begin",
    -5: "an access was refused by rights, which this model never does",
    -6: "there is no memory for the table of known pages",
}


class NoCompiler(RuntimeError):
    """There is no C compiler to build the program with."""


class TwinError(RuntimeError):
    """The program stopped before the end of the traces."""


@dataclass(frozen=True)
class Machine:
    """What one virtual machine has: memory in bytes, and how guest and hypervisor map it."""

    vm_memory: int = 4 << 30
    guest_pages: Literal["4k", "2m", "auto"] = "4k"
    nested_pages: Literal["4k", "2m", "auto"] = "auto"


@dataclass(frozen=True)
class Settings:
    """One run. Bytes, cycles and counts; the names are those of `SETTING_LIST` in the source."""

    mode: Literal["tagged", "purge", "flush", "native"] = "tagged"
    quantum: int = 125_000
    quantum_unit: Literal["accesses", "instructions", "cycles"] = "cycles"
    frequency_hz: int = 2_500_000_000
    exits_per_second: int = 0
    exit_code_pages: int = 8
    exit_data_pages: int = 8
    warm_up: int = 0
    repeat: int = 1
    nested_dirty: bool = True
    first_touch: bool = False
    flush_nested: bool = False
    memory: int = 64 << 30
    reserve: int = 1 << 30
    cycles_per_instruction: int = 1
    l2_latency: int = 9
    walk_cache_latency: int = 1
    nested_tlb_latency: int = 1
    reference_latency: int = 14
    l1d_read_latency: int = 4
    l2_read_latency: int = 14
    l3_read_latency: int = 78
    memory_read_latency: int = 285
    update_latency: int = 20
    guest_fault_cost: int = 1000
    nested_fault_cost: int = 5000
    exit_cost: int = 1400
    switch_cost: int = 2000


@dataclass(frozen=True)
class Twin:
    """Counts of one run: every table is int64.

    Attributes
    ----------
    counters
        By name, ``[2 * vms]``: what each virtual machine does itself, then what the hypervisor's
        pages cost on exits of each.
    histogram
        ``[2 * vms, 25]``: completed walks by their references.
    latencies
        ``[2 * vms, buckets]``: completed walks by their latency in cycles; `lowest` gives the
        lowest latency of each bucket.
    misses
        By cause, ``[2 * vms]``: why the page of each completed walk was in no TLB.
    evictions
        ``[vms + 1, vms + 1]``: live L2 entries dropped, by who filled and who owned; last, the
        hypervisor.
    cycles
        By cause, ``[vms]``.
    clock
        Cycles of the whole run, warm-up included.
    nanoseconds
        Processor time of the loop alone, by the thread's own clock.
    """

    counters: dict[str, NDArray[np.int64]]
    histogram: NDArray[np.int64]
    latencies: NDArray[np.int64]
    misses: dict[str, NDArray[np.int64]]
    evictions: NDArray[np.int64]
    cycles: dict[str, NDArray[np.int64]]
    clock: int
    nanoseconds: int = field(compare=False)


def compiler() -> str:
    """Return the compiler's name: ``CC``, or ``cc``."""
    return os.environ.get("CC", "cc")


@functools.cache
def build(defines: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile the program with these options and load it."""
    if shutil.which(compiler()) is None:
        raise NoCompiler(f"no C compiler: {compiler()!r} is not on the PATH; install one or set CC")
    with tempfile.TemporaryDirectory(prefix="ctwin-") as folder:
        target = Path(folder) / "twin.so"
        command = [compiler(), *FLAGS, *defines, str(SOURCE), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoCompiler(f"{compiler()} cannot build {SOURCE.name}:\n{done.stderr}")
        return ctypes.CDLL(str(target))  # stays mapped when its file is gone


def lowest(bucket: int) -> int:
    """Return the lowest walk latency, in cycles, that a bucket stands for."""
    power, part = divmod(bucket - EXACT, PARTS)
    return bucket if bucket < EXACT else (PARTS + part) * (EXACT // PARTS << power)


def shapes() -> dict[str, tuple[int, int]]:
    """Return the caches of the source as it stands: entries and ways by name."""
    listed = re.findall(r"X\((\w+), (\d+), (\d+), \w+\)", SOURCE.read_text())
    return {name: (int(entries), int(ways)) for name, entries, ways in listed}


def rules() -> dict[str, str]:
    """Return their rules of replacement: a name of `RULES` by the cache's."""
    listed = re.findall(r"X\((\w+), \d+, \d+, (\w+)\)", SOURCE.read_text())
    return {name: rule.replace("_", "-").lower() for name, rule in listed}


def data_caches() -> dict[str, tuple[int, int]]:
    """Return the data caches of the source as it stands: bytes and ways by name."""
    listed = re.findall(r"X\((\w+), (\d+), (\d+)\)", SOURCE.read_text())
    return {name: (int(size), int(ways)) for name, size, ways in listed}


def _check_names(given: Mapping[str, object], known: Mapping[str, object], what: str) -> None:
    if set(given) - set(known):
        raise ValueError(f"{what}: found {sorted(given)}; accepted: {', '.join(known)}")


def _as_macro(name: str, rows: Sequence[tuple[object, ...]]) -> str:
    """Return the compiler's option that defines one of the lists of the source anew."""
    return f"-D{name}(X)=" + " ".join(f"X({', '.join(map(str, row))})" for row in rows)


def library(
    changed: Mapping[str, tuple[int, int]] | None = None,
    fold: int | None = None,
    *,
    replacement: Mapping[str, str] | Literal["none"] | None = None,
    caches: Mapping[str, tuple[int, int]] | Literal["none"] | None = None,
) -> ctypes.CDLL:
    """Build and load the program, by default as Skylake-SP.

    Parameters
    ----------
    changed : mapping
        Entries and ways of the caches that differ, by their names in the source, as in
        ``{"NESTED": (0, 1)}`` for no nested TLB.
    fold : int
        The L2's set is ``(page ^ page >> fold) % sets``; 63 for ``page % sets``.
    replacement : mapping or "none"
        Rules (`RULES`) of the caches that differ, by their names; "none": all of them are LRU.
    caches : mapping or "none"
        Bytes and ways of the data caches that differ, by their names; 0 bytes for no such cache.
        "none": there are none, and each read of a table takes `Settings.reference_latency`.

    Raises
    ------
    NoCompiler
        There is none, or it cannot build the program.
    """
    defines = []
    if changed or replacement:
        wanted = shapes() | dict(changed or {})
        none = dict.fromkeys(shapes(), "lru")
        rule = none if replacement == "none" else rules() | dict(replacement or {})
        _check_names(wanted, shapes(), "caches")
        _check_names(rule, shapes(), "replacement")
        listed = [(name, *wanted[name], rule[name].replace("-", "_").upper()) for name in shapes()]
        defines.append(_as_macro("SHAPES", listed))
    if caches:
        none = dict.fromkeys(data_caches(), (0, 1))
        sizes = none if caches == "none" else data_caches() | dict(caches)
        _check_names(sizes, data_caches(), "data caches")
        defines.append(_as_macro("DATA_CACHES", [(name, *sizes[name]) for name in data_caches()]))
    if fold is not None:
        defines.append(f"-DL2_FOLD={fold}")
    return build(tuple(defines))


def _names(program: ctypes.CDLL) -> list[list[str]]:
    """Read what the program calls its settings, VM settings, counters and causes, in its order."""
    lists = (ctypes.c_char_p * 5).in_dll(program, "names")
    return [(each or b"").decode().split() for each in lists]


def _numbers(record: Settings | Machine, names: list[str]) -> list[int]:
    """Lay a record out in the program's order, alternatives as their codes."""
    assert sorted(names) == sorted(each.name for each in fields(record)), names
    codes = {"mode": MODES, "quantum_unit": UNITS, "guest_pages": PAGES, "nested_pages": PAGES}
    return [
        codes[name].index(getattr(record, name)) if name in codes else int(getattr(record, name))
        for name in names
    ]


def run(
    traces: Sequence[tuple[NDArray[np.int64], NDArray[np.uint8]]],
    settings: Settings | None = None,
    machines: Sequence[Machine] | None = None,
    program: ctypes.CDLL | None = None,
) -> Twin:
    """Replay one trace, (address, kind) with kinds 0 to 2, for each virtual machine.

    What is not given has its default, `program` that of `library()`.

    Raises
    ------
    TwinError
        The run could not be finished: somebody is out of memory.
    """
    settings = settings or Settings()
    machines = machines or [Machine()] * len(traces)
    program = program or library()
    setting_names, machine_names, counter_names, cause_names, miss_names = _names(program)
    addresses = [np.ascontiguousarray(address, dtype=np.int64) for address, _ in traces]
    kinds = [np.ascontiguousarray(kind, dtype=np.uint8) for _, kind in traces]
    if len(machines) != len(traces):
        raise ValueError(f"{len(traces)} traces for {len(machines)} machines")
    for address, kind in zip(addresses, kinds, strict=True):
        if address.shape != kind.shape or (kind.size and kind.max() > MOST_KIND):
            raise ValueError("a trace is two arrays of one length, kinds 0 to 2")
    given = _numbers(settings, setting_names)
    for machine in [Machine(vm_memory=0), *machines]:  # the root partition takes no memory
        given += _numbers(machine, machine_names)
    vms = 1 + len(traces)
    widths = [
        len(counter_names),
        ctypes.c_int.in_dll(program, "histogram_width").value,
        ctypes.c_int.in_dll(program, "latency_width").value,
        len(miss_names),
    ]
    tables = [(2 * vms, width) for width in widths]
    tables += [(vms + 1, vms + 1), (vms, len(cause_names)), (2, 1)]
    lengths = [rows * columns for rows, columns in tables]
    out = np.zeros(sum(lengths), np.int64)
    status = program.run(
        ctypes.c_int64(vms),
        (ctypes.c_void_p * vms)(None, *(each.ctypes.data for each in addresses)),
        (ctypes.c_void_p * vms)(None, *(each.ctypes.data for each in kinds)),
        (ctypes.c_int64 * vms)(0, *(each.size for each in addresses)),
        (ctypes.c_int64 * len(given))(*given),
        out.ctypes.data_as(ctypes.c_void_p),
    )
    if status:
        raise TwinError(ERRORS[status])
    counts, histogram, latencies, misses, evictions, cycles, ends = (
        part.reshape(shape)
        for part, shape in zip(np.split(out, np.cumsum(lengths)[:-1]), tables, strict=True)
    )
    return Twin(
        counters=dict(zip(counter_names, counts.T, strict=True)),
        histogram=histogram,
        latencies=latencies,
        misses=dict(zip(miss_names, misses.T, strict=True)),
        evictions=evictions,
        cycles=dict(zip(cause_names, cycles.T, strict=True)),
        clock=int(ends[0, 0]),
        nanoseconds=int(ends[1, 0]),
    )
