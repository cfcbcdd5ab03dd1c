"""Replays a run with one value after another of one option, in each of several modes."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmu.config import RunConfig
from mmu.errors import InputError, OutOfMemory
from mmu.options import RUN_OPTIONS, VM_OPTIONS, configured
from mmu.run import Progress, check_traces, compare_config
from mmu.swept import Sweep
from mmu.units import parse_modes
from mmu.values import Vary, given_value, of_value, parse_vary

MODES = ("tagged", "purge", "flush")  # by default; native has neither exits nor tags
# Options whose values are no numbers.
WORDS = (
    "guest_pages", "nested_pages", "page_map", "pcid", "backing", "nested_dirty", "table_reads",
    "pinned", "migration_flush", "conflicts",
)  # fmt: skip
STEPS = 1000  # of progress, for each value


def vary(
    *traces: str | Path | Mapping[str, Any],
    name: str,
    values: str | Iterable[Any],
    modes: Iterable[str] = MODES,
    progress: Progress | None = None,
    check: bool = False,
    **options: Any,
) -> Sweep:
    """Replay traces in each of several modes, with one value after another of one option.

    Parameters
    ----------
    *traces : str, Path or mapping
        As of `mmu.replay`, and so are errors and other options.
    name : str
        A numeric option such as ``"quantum"``, or a path as in `settings`, such as ``"l2.ways"``.
    values : str or iterable
        ``"20us,50us,1ms"``, a range such as ``"10us..10ms:9"`` (equal ratios), or a list.
    modes : iterable of str
        Modes to compare.
    progress : callable, optional
        Called with how much is done and how much there is to do, now and then.

    Examples
    --------
    >>> sweep = mmu.vary("web.parquet", "db.parquet", name="quantum", values="10us..10ms:9")
    >>> sweep.figures("cycles_per_instruction", "flush")
    """
    chosen = parse_modes(modes if isinstance(modes, str) else ",".join(map(str, modes)))
    for taken in ("mode", "vary"):
        if taken in options:
            raise InputError(f"no option {taken!r} here; accepted: modes, name and values")
    text = values if isinstance(values, str) else ",".join(map(str, values))
    numeric = [option for option in (*VM_OPTIONS, *RUN_OPTIONS) if option not in WORDS]
    known = {option.replace("_", "-"): given_value for option in numeric}
    varied = parse_vary(f"{name}={text}", known)
    field = varied.name.replace("-", "_")
    if options.get(field) is not None:
        raise InputError(f"{field}: found a value and values to vary; accepted: one or the other")
    settings = options.pop("settings", ())
    settings = [settings] if isinstance(settings, str) else list(settings or ())

    def configure(value: str) -> RunConfig:
        if varied.name in known:
            own: dict[str, Any] = {field: given_value(value)}
            return configured(traces, mode=chosen[0], settings=settings, **options, **own)
        more = [*settings, f"{varied.name}={value}"]
        return configured(traces, mode=chosen[0], settings=more, **options)

    configs = []
    for value in varied.values:
        try:
            configs.append(configure(value))
        except InputError as error:
            raise InputError(of_value(varied.name, value, error)) from None
    return sweep_configs(varied, configs, chosen, progress, check)


def sweep_configs(
    varied: Vary,
    configs: Sequence[RunConfig],
    modes: Sequence[str],
    progress: Progress | None = None,
    check: bool = False,
) -> Sweep:
    """Replay a run's configurations, one for each value, in each of several modes.

    `progress` is called with how much is done and how much there is to do.

    Raises
    ------
    InputError
        A configuration cannot be had in some mode, or with compact traces; before anything runs.
    """
    pairs = list(zip(varied.values, configs, strict=True))
    for value, config in pairs:
        given = {field: getattr(config, field) for field in RunConfig.model_fields}
        for mode in modes:
            try:
                check_traces([RunConfig(**given | {"mode": mode})], check)
            except InputError as error:
                raise InputError(f"{varied.name}={value}, mode {mode}: {error}") from None
    comparisons = []
    for n, (value, config) in enumerate(pairs):

        def part(done: int, total: int, n: int = n) -> None:
            if progress:
                progress(STEPS * n + STEPS * done // total, STEPS * len(pairs))

        try:
            comparisons.append(compare_config(config, modes, part, check))
        except InputError as error:
            raise InputError(of_value(varied.name, value, error)) from None
        except OutOfMemory as error:
            text = of_value(varied.name, value, error)
            raise OutOfMemory(error.vm, error.asked, error.left, text) from None
    return Sweep(varied.name, list(varied.values), comparisons)
