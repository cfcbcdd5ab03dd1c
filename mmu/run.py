"""A run, from its configuration to its result."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmu.config import RunConfig
from mmu.errors import InputError, StaleTranslation
from mmu.feed import LARGEST_CHUNK, Stream, Trace, build_feed, records_each
from mmu.hardware.causes import with_room
from mmu.hardware.check import STALE_CONTEXT, STALE_INDEX
from mmu.hardware.geometry import plain_view
from mmu.hardware.machine import ACCESSES
from mmu.hardware.overlap import walks_overlap
from mmu.hardware.rows import Words
from mmu.memory import Memory
from mmu.options import configured
from mmu.paging import Ept
from mmu.result import Comparison, Result
from mmu.software.boot import HYPERVISOR_CONTEXT, Host
from mmu.software.dispatcher import (
    BLOCK_PAGES,
    FINISHED,
    GOING,
    NEEDS_BLOCKS,
    NEEDS_ROOM,
    WARMED,
    dispatch,
)
from mmu.software.placement import PageMapLike
from mmu.software.turns import (
    AT_ACCESSES,
    DONE_ACCESSES,
    DONE_BLOCKS,
    LEFT,
    LP,
    MODES,
    STREAM,
    WANTED,
    WARM,
)
from mmu.software.turns import BLOCK as BLOCK_NUMBER
from mmu.software.world import STALE
from mmu.stale import stale_translation
from mmu.tally import Samples, gather
from mmu.trace.kinds import BLOCK
from mmu.units import parse_modes

Progress = Callable[[int, int], None]

SAMPLES = 200  # of a run's time series
BLOCKS_PER_SAMPLE = 16  # at least
MOST_ACCESSES = 1 << 61


def page_maps_of(config: RunConfig) -> dict[int, PageMapLike]:
    """Read the page maps that a configuration names: by number of virtual machine, the root being 0."""
    named = {
        number: vm.page_map
        for number, vm in enumerate((config.root, *config.vms))
        if vm is not None and vm.page_map is not None
    }
    if not named:
        return {}
    from mmu.trace.pagemap.reader import read_page_map  # noqa: PLC0415  PyArrow: only if there are files

    read = {path: read_page_map(path) for path in dict.fromkeys(named.values())}
    return {number: read[path] for number, path in named.items()}


class NeedsRaw(NamedTuple):
    """Why a run needs raw traces: who asks for it, what compact ones lack, and what else is accepted."""

    asked: str
    lack: str
    otherwise: str = ""

    def refusal(self, path: str) -> InputError:
        """Return the error that says so of a compact trace."""
        return InputError(
            f"{self.asked}: found {path!r}, a compact trace, which {self.lack}; accepted: raw "
            f"traces, as 'mmu trace import' or 'record' writes without --compact{self.otherwise}"
        )


def needs_raw(config: RunConfig, check: bool = False) -> NeedsRaw | None:
    """Return why a run needs each access of its own; None if it does not."""
    if check:
        return NeedsRaw("--check", "has no address for each access")
    if config.table_reads == "shared":
        lack = "has no address for each access to take through the data caches"
        return NeedsRaw("--table-reads shared", lack, "; or --table-reads walker")
    if config.window and config.mode == "flush":
        lack = "does not tell which instruction makes a folded access, and a flush can make it walk"
        otherwise = "; or another mode (--modes tagged,purge,native); or --window 0"
        return NeedsRaw(f"--window {config.window} in mode flush", lack, otherwise)
    return None


def check_traces(configs: Iterable[RunConfig], check: bool = False) -> None:
    """Refuse what `Replay` would of the traces' layouts, of several runs before any is made.

    Raises
    ------
    InputError
        A run needs raw traces and names a compact one, or one that cannot be read.
    """
    compact: dict[str, bool] = {}
    for config in configs:
        if not (needs := needs_raw(config, check)):
            continue
        from mmu.trace.reader import is_compact  # noqa: PLC0415  PyArrow: only if there are files

        for path in [process.trace for vm in config.machines for process in vm.streams]:
            if path not in compact:
                compact[path] = is_compact(path)
            if compact[path]:
                raise needs.refusal(path)


class Replay:
    """A run in the making: a booted host and the traces that its virtual machines replay.

    Parameters
    ----------
    config : RunConfig
        The run.
    traces : sequence of Trace, optional
        Open traces, one for each of ``config.machines``, or for each of its processes where it has
        some; by default the files that the configuration names.
    chunk : int, optional
        Records of each trace that are kept in memory.
    page_maps : mapping, optional
        Page maps by number of virtual machine, the root being 0; by default the files that `config`
        names.

    Raises
    ------
    InputError
        A trace or a page map cannot be read, a frame of a page map cannot be where it says, a start
        never comes, or the warm-up leaves nothing to count.
    OutOfMemory
        The host cannot hold the virtual machines.
    """

    def __init__(
        self,
        config: RunConfig,
        traces: Iterable[Trace] | None = None,
        chunk: int | None = None,
        page_maps: Mapping[int, PageMapLike] | None = None,
        check: bool = False,
    ) -> None:
        if traces is None:
            from mmu.trace.reader import open_trace  # noqa: PLC0415  PyArrow: only if there are files

            named = [process.trace for vm in config.machines for process in vm.streams]
            traces = [open_trace(path) for path in named]
        self.config = config
        self.host = Host(config, page_maps_of(config) if page_maps is None else page_maps)
        records = chunk or records_each(len(self.host.streams))
        self.streams = {
            number: Stream(
                self.host, number, trace, min(records, LARGEST_CHUNK) if chunk is None else chunk
            )
            for number, trace in zip(range(len(self.host.streams)), traces, strict=True)
        }
        self.total = sum(stream.accesses for stream in self.streams.values())
        if self.total >= MOST_ACCESSES:
            found = max(stream.repeat for stream in self.streams.values())
            raise InputError(
                f"--repeat: found {found}, {self.total} accesses in all; accepted: up to "
                f"{MOST_ACCESSES * found // self.total}"
            )
        longest = max(stream.trace.accesses for stream in self.streams.values())
        self.plain = plain_view(self.host.machine) if check else None
        self._check_raw(check)
        overlap = walks_overlap(self.host.machine)
        self.feed = build_feed(self.streams, max(BLOCK, min(records, longest)), overlap)
        self._check_starts()
        if config.warm_up >= self.total:
            raise InputError(
                f"--warm-up: found {config.warm_up} accesses; accepted: less than the {self.total} "
                "of all traces together"
            )
        self.samples = Samples(self.host)

    def _check_raw(self, check: bool) -> None:
        """Refuse compact traces where the run needs each access of its own."""
        if needs := needs_raw(self.config, check):
            for number, stream in self.streams.items():
                if stream.trace.compact:
                    raise needs.refusal(self.host.streams[number][1].trace)

    def _stale(self) -> StaleTranslation:
        """Return the report of the access that met a stale translation."""
        host, feed, stale = self.host, self.feed, self.host.schedule.stale
        number = int(host.schedule.now[self.now[LP], STREAM])
        vm, process = host.streams[number]
        made = self.streams[number].accesses - int(feed.stream[number, LEFT])
        made += int(stale[STALE_INDEX] - feed.first[number, feed.stream[number, BLOCK_NUMBER]])
        where = f"{host.names[vm]}: access {made} of {process.trace!r}"
        if stale[STALE_CONTEXT] == HYPERVISOR_CONTEXT:
            where = f"hypervisor, at an exit of {host.names[vm]}"
        return stale_translation(stale, where)

    def _check_starts(self) -> None:
        """Refuse a start that never comes: too few accesses are made before it."""
        starts = self.host.schedule.start[:, AT_ACCESSES].tolist()
        for number, start in enumerate(starts):
            made = sum(self.streams[n].accesses for n, other in enumerate(starts) if other < start)
            if start > made:
                vm, process = self.host.streams[number]
                name = self.host.names[vm]
                if process.name != name:
                    name = f"{name}/{process.name}"
                raise InputError(
                    f"start: found {start} accesses for {name!r}, which never come; accepted: up to "
                    f"{made}, what is made by those that start before; or a time (--starts)"
                )

    @property
    def memory(self) -> Memory:
        """Machine memory, with every table of the run: for `mmu.translate`."""
        return Memory.from_words(self.host.machine.memory)

    def space(self, vm: str, space: int = 0) -> dict[str, Any]:
        """Return where the tables of an address space stand, as `mmu.translate` takes it.

        Parameters
        ----------
        vm : str
            Name of the virtual machine.
        space : int
            The address space, as its trace numbers it; that of a process is the process's own
            number, and ``number + 65536 s`` for space `s` of a trace that has several.

        Returns
        -------
        dict
            ``cr3`` and ``nested``; the latter None in native mode.

        Raises
        ------
        InputError
            There is no such virtual machine, or it has not run in that space yet.
        """
        host = self.host
        if vm not in host.names:
            raise InputError(f"vm: found {vm!r}; accepted: {', '.join(host.names)}")
        number = host.names.index(vm)
        context = host.contexts.get((number, space))
        if context is None or not host.machine.root[context]:
            ran = sorted(s for v, s in host.contexts if v == number)
            raise InputError(
                f"space: found {space}, in which {vm} has not run; accepted: {ran or 'none yet'}"
            )
        root = int(host.machine.nested[context])
        nested = None if root < 0 else Ept.at(root, self.config.nested_dirty)
        return {"cr3": int(host.machine.root[context]), "nested": nested}

    @property
    def now(self) -> Words:
        """The dispatcher's highest clock and its counts, of all processors, int64 [field]."""
        whole: Words = self.host.schedule.whole
        return whole

    def run(self, progress: Progress | None = None) -> Result:
        """Replay everything.

        Parameters
        ----------
        progress : callable, optional
            Called with the accesses made and their total, now and then.

        Returns
        -------
        Result
            Counts, cycles by cause, and the time series.

        Raises
        ------
        OutOfMemory
            A virtual machine touches more than its memory, or the host's, holds.
        InputError
            A trace turns out to be damaged.
        """
        host, feed = self.host, self.feed
        dispatch(host.machine, self.plain, host.world, host.schedule, feed, 0)  # compiles only
        began = time.perf_counter()
        for stream in self.streams.values():
            stream.load(feed)
        every = max(BLOCKS_PER_SAMPLE, self.total // BLOCK // SAMPLES)
        sample_at = every
        status = GOING
        while status != FINISHED:
            step = sample_at - int(self.now[DONE_BLOCKS])
            status = dispatch(host.machine, self.plain, host.world, host.schedule, feed, step)
            if status == STALE:
                raise self._stale()
            host.check(status)
            if status == NEEDS_ROOM:
                host.machine = with_room(host.machine, BLOCK_PAGES + host.footprint.size)
                continue
            if status == NEEDS_BLOCKS:
                self.streams[int(self.now[WANTED])].load(feed)
                continue
            if status == WARMED:
                self.samples.clear()
                continue
            if self.now[WARM]:
                self.samples.take()
            sample_at += every
            if progress:
                progress(int(self.now[DONE_ACCESSES]), self.total)
        if not host.machine.events[:, :, ACCESSES].any():
            raise InputError(
                f"--warm-up: found {self.config.warm_up} accesses, after which no block is left to "
                f"count; accepted: less, by {BLOCK} or more, than the {self.total} of all traces"
            )
        return gather(host, self.samples, time.perf_counter() - began)


def replay_config(
    config: RunConfig, progress: Progress | None = None, check: bool = False
) -> Result:
    """Replay a run in its mode; see `Replay`."""
    return Replay(config, check=check).run(progress)


def compare_config(
    config: RunConfig, modes: Iterable[str], progress: Progress | None = None, check: bool = False
) -> Comparison:
    """Replay a run in each of several modes; see `Replay`.

    `progress` is called with the accesses made and their total over all modes.
    """
    # Not `model_copy`, which would not judge the other mode.
    given = {name: getattr(config, name) for name in RunConfig.model_fields}
    configs = {mode: RunConfig(**given | {"mode": mode}) for mode in modes}
    check_traces(configs.values(), check)
    results: dict[str, Result] = {}
    for i, (mode, its) in enumerate(configs.items()):

        def part(done: int, total: int, i: int = i) -> None:
            if progress:
                progress(i * total + done, len(configs) * total)

        results[mode] = replay_config(its, part, check)
    return Comparison(results)


def replay(
    *traces: str | Path | Mapping[str, Any],
    progress: Progress | None = None,
    check: bool = False,
    **options: Any,
) -> Result:
    """Replay traces as virtual machines of one processor.

    Parameters
    ----------
    *traces : str, Path or mapping
        A trace file for each virtual machine; a mapping has the fields of `mmu.VmConfig`.
    progress : callable, optional
        Called with the accesses made and their total, now and then.
    check : bool
        Compare whatever the TLBs and walk caches answer with an uncached walk; traces must be raw.
    **options
        As on the command line: ``mode="tagged"``, ``processor="skylake-sp"``, ``quantum="50us"``,
        ``exits_per_second=20_000``, ``guest_pages="4k"``, ``settings=["l2.ways=6"]``, ...;
        ``schedule="schedule.toml"`` instead of traces. `mmu.options.configured` has them all.

    Returns
    -------
    Result
        Counts, cycles by cause, and the time series.

    Raises
    ------
    InputError
        An option or a trace cannot be used.
    OutOfMemory
        A virtual machine touches more than its memory, or the host's, holds.
    StaleTranslation
        With `check`: a cache answered what the tables do not say.

    Examples
    --------
    >>> result = mmu.replay("web.parquet", "db.parquet", exits_per_second=20_000)
    >>> result.hit_rate("l2", of="web")
    """
    return replay_config(configured(traces, **options), progress, check)


def compare(
    *traces: str | Path | Mapping[str, Any],
    modes: Iterable[str] = MODES,
    progress: Progress | None = None,
    check: bool = False,
    **options: Any,
) -> Comparison:
    """Replay traces in each of several modes; parameters and errors are those of `replay`.

    Examples
    --------
    >>> comparison = mmu.compare("web.parquet", "db.parquet", quantum="50us")
    >>> comparison["flush"].cycles_per_instruction() / comparison["tagged"].cycles_per_instruction()
    """
    chosen = parse_modes(modes if isinstance(modes, str) else ",".join(map(str, modes)))
    if "mode" in options:
        raise InputError(
            "no option 'mode' here; accepted: modes, such as modes=['tagged', 'flush']"
        )
    return compare_config(configured(traces, mode=chosen[0], **options), chosen, progress, check)
