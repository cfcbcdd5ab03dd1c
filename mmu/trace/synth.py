"""Makes synthetic traces: patterns with known behaviour, and models of real traces."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mmu.errors import InputError
from mmu.trace.compact import fold
from mmu.trace.format import Header, Raw
from mmu.trace.kinds import PAGE_BYTES, VIRTUAL_BITS
from mmu.trace.like import accesses_like
from mmu.trace.model import fitted
from mmu.trace.patterns import (
    INSTRUCTION_BYTES,
    KINDS_OF_PATTERN,
    WORD_BYTES,
    Pattern,
    accesses_of,
)
from mmu.trace.reader import open_trace
from mmu.trace.writer import write_compact, write_raw

MOST_FOOTPRINT = 32 << 40
MOST_FETCHES = 1000
MOST_EXPONENT = 10
MOST_ACCESSES = 10**12
PHASES, MOST_PHASES = 100, 1000
MOST_PHASE = 1 << 31  # accesses: more, and products of a chance would overflow
LEVEL = (
    1  # zstd's: what is random does not shrink, and 15 writes a compact one at 1.4 million a second
)
HALF = 1 << VIRTUAL_BITS - 1
CODE_BASE = 0x40_0000  # where linkers put programs
DEFAULTS: dict[str, Any] = {
    "footprint": 64 << 20,
    "base": 0x1000_0000_0000,
    "fetches": 1,
    "code": PAGE_BYTES,
    "write_share": 0.0,
    "exponent": 0.99,
    "stride": 64,
}
GRAINS = {"zipf": PAGE_BYTES, "chase": 64}

Progress = Callable[[int, int], None]


def synthesize(
    kind: str,
    out: str | os.PathLike[str],
    accesses: int = 10_000_000,
    seed: int = 0,
    compact: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Header:
    """Write a synthetic trace, the same for the same arguments on every machine.

    Parameters
    ----------
    kind : {"uniform", "zipf", "stride", "chase", "gups"}
        Words drawn evenly; grains drawn by Zipf's law, whose ranks lie scattered, and in them words
        evenly; words at equal steps, from the start again where the footprint ends; pointers
        followed round one random cycle through all grains; words drawn evenly, each read and then
        written, as the HPC Challenge's RandomAccess does (P. Luszczek et al., 2006).
    out : path
        The trace to write.
    accesses : int
        Fetches included.
    seed : int
        From 0.
    compact : bool
        Fold accesses, see `mmu.trace.compact`.
    progress : callable, optional
        Called now and then with the numbers of accesses made and to be made.
    **options
        ``footprint`` (bytes of data, by default 64 MiB), ``base`` (their first address, by default
        0x1000_0000_0000), ``fetches`` (before each data access, or pair of gups: 1; 0: none),
        ``code`` (bytes of the loop they go round, from 0x40_0000: 4 KiB); of uniform, zipf and
        stride ``write_share`` (of the data accesses: 0), of zipf ``exponent`` (0.99), of stride
        ``stride`` (bytes: 64), of zipf and chase ``grain`` (bytes: 4096 and 64). Data accesses have
        8 bytes, fetches 4.

    Raises
    ------
    InputError
        An option cannot be, or the file cannot be written.
    """
    pattern = checked(kind, accesses, seed, options)
    recording = {"tool": "mmu trace synth", "pattern": kind} | {
        name: getattr(pattern, name)
        for name in ("seed", *common_options(), *KINDS_OF_PATTERN[kind].own)
    }
    return write_made(out, accesses_of(pattern), accesses, recording, compact, progress)


def synthesize_like(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    accesses: int | None = None,
    seed: int = 0,
    phases: int = PHASES,
    compact: bool = False,
    progress: Progress | None = None,
) -> Header:
    """Write a trace that is drawn from a model of another one (`mmu.trace.model`).

    Of the same length it has the same kinds of accesses, pages, and depths of the LRU stack of each
    side, phase by phase, in another order. Of another length its phases are in proportion: a shorter
    one touches fewer pages, a longer one no more.

    Parameters
    ----------
    path : path
        The trace to be like, of one address space.
    out : path
        The trace to write; it is raw, with invented places within pages, or compact.
    accesses : int, optional
        By default as many as the trace has.
    seed, compact, progress
        As in `synthesize`; the progress counts the accesses read as well.
    phases : int
        Parts of the trace that are fitted one by one: 1 to 1000.

    Raises
    ------
    InputError
        The trace cannot be read or fitted, an option cannot be, or the file cannot be written.
    """
    if not 1 <= phases <= MOST_PHASES:
        raise InputError(f"phases: found {phases}; accepted: 1 to {MOST_PHASES:,}")
    trace = open_trace(path)
    wanted = trace.accesses if accesses is None else accesses
    most = MOST_PHASE // 2 * phases
    for name, value, low, high in (("accesses", wanted, 1, most), ("seed", seed, 0, 1 << 64)):
        if not low <= value <= high:
            raise InputError(f"{name}: found {value}; accepted: {low:,} to {high:,}")
    whole = trace.accesses + wanted

    def reading(done: int, _: int) -> None:
        if progress is not None:
            progress(done, whole)

    def making(done: int, _: int) -> None:
        if progress is not None:
            progress(trace.accesses + done, whole)

    model = fitted(trace, phases, reading)
    recording = {"tool": "mmu trace synth", "pattern": "like", "source": Path(path).name}
    options = {"seed": seed, "phases": phases}
    parts = accesses_like(model, wanted, seed)
    return write_made(out, parts, wanted, recording | options, compact, making)


def write_made(
    out: str | os.PathLike[str],
    parts: Iterable[Raw],
    accesses: int,
    recording: dict[str, Any],
    compact: bool,
    progress: Progress | None,
) -> Header:
    """Write made accesses in either layout."""

    def counted() -> Iterator[Raw]:
        done = 0
        for part in parts:
            yield part
            done += len(part.kind)
            if progress is not None:
                progress(done, accesses)

    if compact:
        return write_compact(out, fold(counted()), recording, LEVEL)
    return write_raw(out, counted(), recording, LEVEL)


def common_options() -> tuple[str, ...]:
    """Return the options that every pattern has."""
    return ("footprint", "base", "fetches", "code")


def checked(kind: str, accesses: int, seed: int, options: dict[str, Any]) -> Pattern:
    """Return the pattern that is asked for.

    Raises
    ------
    InputError
        Something of it cannot be.
    """
    if kind not in KINDS_OF_PATTERN:
        raise InputError(f"pattern {kind!r}; accepted: {', '.join(KINDS_OF_PATTERN)}")
    known = (*common_options(), *KINDS_OF_PATTERN[kind].own)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in known:
            raise InputError(f"{name}: {kind} has no such option; accepted: {', '.join(known)}")
    values = DEFAULTS | {"grain": GRAINS.get(kind, WORD_BYTES)} | given
    pattern = Pattern(kind=kind, accesses=accesses, seed=seed, code_base=CODE_BASE, **values)
    least = {"zipf": pattern.grain, "chase": pattern.grain}.get(kind, PAGE_BYTES)
    for name, low, high in (
        ("accesses", 1, MOST_ACCESSES),
        ("seed", 0, 1 << 64),
        ("footprint", max(PAGE_BYTES, least), MOST_FOOTPRINT),
        ("fetches", 0, MOST_FETCHES),
        ("code", INSTRUCTION_BYTES, CODE_BASE),
        ("write_share", 0, 1),
        ("exponent", 0, MOST_EXPONENT),
        ("stride", WORD_BYTES, pattern.footprint),
        ("grain", WORD_BYTES, pattern.footprint),
    ):
        value = getattr(pattern, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{name}: found {value}; accepted: {low:,} to {high:,}")
    for name, grain in (
        ("footprint", PAGE_BYTES),
        ("base", PAGE_BYTES),
        ("code", INSTRUCTION_BYTES),
        ("stride", WORD_BYTES),
        ("grain", WORD_BYTES),
    ):
        value = getattr(pattern, name)
        if value % grain:
            found = hex(value) if name == "base" else value
            raise InputError(f"{name}: found {found}; accepted: a multiple of {grain:,}")
    check_grain(pattern)
    check_place(pattern)
    return pattern


def check_grain(pattern: Pattern) -> None:
    """Refuse grains that would lie across pages, or that the footprint is not made of."""
    if pattern.grain & pattern.grain - 1:
        raise InputError(f"grain: found {pattern.grain}; accepted: a power of two")
    if pattern.footprint % pattern.grain:
        raise InputError(
            f"footprint: found {pattern.footprint}; accepted: a multiple of the grain of "
            f"{pattern.grain:,} bytes"
        )


def check_place(pattern: Pattern) -> None:
    """Refuse data that are not canonical, or lie over the code."""
    first, end = pattern.base, pattern.base + pattern.footprint
    lower = first >= 0 and end <= HALF
    upper = first >= (1 << 64) - HALF and end <= 1 << 64
    if not lower and not upper:
        raise InputError(
            f"base: data from {first:#x} to {end:#x} are not canonical; accepted: below {HALF:#x}, or "
            f"from {(1 << 64) - HALF:#x} to {1 << 64:#x}"
        )
    if pattern.fetches and first < pattern.code_base + pattern.code and end > pattern.code_base:
        raise InputError(
            f"base: data from {first:#x} to {end:#x} lie over the code at {pattern.code_base:#x}; "
            f"accepted: a base from {pattern.code_base + -(-pattern.code // PAGE_BYTES) * PAGE_BYTES:#x}"
        )
