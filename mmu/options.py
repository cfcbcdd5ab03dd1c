"""From options to a run: what the command line and `mmu.replay` ask for in the same words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmu import processors
from mmu.config import Costs, Processor, RunConfig
from mmu.errors import InputError
from mmu.schedule import described, read_schedule
from mmu.strict import ConfigError
from mmu.units import nearest, parse_starts, parse_weights, shown

# Options of each virtual machine, those that are a list with one for each, and of the run.
VM_OPTIONS = (
    "memory", "guest_pages", "nested_pages", "fragmentation", "aslr", "page_map", "pcid", "vcpus",
)  # fmt: skip
LIST_OPTIONS = {"weights": "weight", "starts": "start"}
RUN_OPTIONS = (
    "host_memory", "reserve", "host_fragmentation", "backing", "seed", "quantum",
    "exits_per_second", "exit_code_pages", "exit_data_pages", "warm_up", "repeat", "nested_dirty",
    "lps", "pinned", "migration_flush", "table_reads", "window", "conflicts",
    "shootdowns_per_second",
)  # fmt: skip


def configured(
    traces: Sequence[str | Path | Mapping[str, Any]],
    *,
    mode: Any = None,
    processor: str | Path | Processor | None = None,
    settings: Sequence[str] = (),
    root: str | Path | Mapping[str, Any] | None = None,
    schedule: str | Path | None = None,
    **options: Any,
) -> RunConfig:
    """Return the configuration that options ask for.

    Parameters
    ----------
    traces : sequence of str, Path or mapping
        A trace of each virtual machine; a mapping has the fields of `VmConfig`, and what it does not
        name is as the options say.
    mode : {"tagged", "purge", "flush", "native"}
        What a switch does to the TLBs; by default ``tagged``.
    processor : str, Path or Processor
        Name of a processor, a TOML file, or a model; by default ``skylake-sp``.
    settings : sequence of str
        ``FIELD=VALUE``: values of the processor, or of the costs, to be replaced.
    root : str, Path or mapping, optional
        Trace of the root partition.
    schedule : str or Path, optional
        A schedule's file (`mmu.schedule`), instead of traces. Options replace what it says, of the
        run and of every machine and process.
    **options
        Fields of `RunConfig`, and of `VmConfig` for every machine. None stands for the default; the
        host's memory is ``host_memory``. ``weights`` and ``starts`` are lists with one for each
        trace.

    Raises
    ------
    InputError
        A name or a value that is none, and what is accepted.
    """
    settings = [settings] if isinstance(settings, str) else list(settings or ())
    if not all(isinstance(text, str) for text in settings):
        raise InputError(f"settings: found {settings!r}; accepted: a list of 'FIELD=VALUE'")
    for name in options:
        if name not in (*VM_OPTIONS, *LIST_OPTIONS, *RUN_OPTIONS):
            known = ["mode", "processor", "settings", "root", "schedule"]
            known += [*VM_OPTIONS, *LIST_OPTIONS, *RUN_OPTIONS]
            accepted = f"{', '.join(known)}{nearest(name, known)}"
            raise InputError(f"no option {shown(name)}; accepted: {accepted}")
    given = {name: value for name, value in options.items() if value is not None}
    given |= {"mode": mode} if mode is not None else {}
    given |= {"processor": processor} if processor is not None else {}
    if schedule is None:
        vms = [_machine(trace) for trace in traces]
        _give_each(vms, given)
        return _run(vms, None if root is None else _machine(root), settings, {}, given)
    if traces:
        found = f"found {len(traces)} traces and schedule {str(schedule)!r}"
        raise InputError(f"{found}; accepted: one or the other")
    said = read_schedule(schedule)
    vms, of_file = said.pop("vms"), said.pop("root")
    for machine in vms if of_file is None else [*vms, of_file]:
        for table in (machine, *machine.get("processes", ())):
            for name in (*VM_OPTIONS, "repeat"):
                if name in given:
                    table.pop(name, None)
    _give_each(vms, given)
    settings = [*said.pop("settings"), *settings]
    try:
        _check_processor(said.get("processor"))
        return _run(vms, of_file if root is None else _machine(root), settings, said, given)
    except ConfigError as error:
        raise InputError(f"{_said(error.path, schedule, given)}: {error.text}") from None
    except InputError as error:
        raise InputError(f"{schedule}: {error}") from None


def _run(
    vms: list[dict[str, Any]],
    root: dict[str, Any] | None,
    settings: list[str],
    said: Mapping[str, Any],
    given: Mapping[str, Any],
) -> RunConfig:
    """Return the run of some machines, with what a file said of it and what was given instead."""
    options = {**said, **given}
    fields: dict[str, Any] = {"costs": Costs().model_dump()}
    of_costs = [text for text in settings if text.strip().startswith("costs.")]
    of_processor = [text for text in settings if text not in of_costs]
    for text in of_costs:
        processors.override(fields, text)
    processor = options.get("processor", "skylake-sp")
    if not isinstance(processor, Processor):
        processor = processors.load_processor(str(processor), of_processor)
    elif of_processor:
        raise InputError(
            f"found {shown(of_processor[0])} for a model; accepted: settings of a named processor"
        )
    own = {name: options[name] for name in VM_OPTIONS if name in options}
    fields |= {name: options[name] for name in RUN_OPTIONS if name in options}
    if "host_memory" in fields:
        fields["memory"] = fields.pop("host_memory")
    fields["vms"] = [{**own, **vm} for vm in vms]
    fields["root"] = None if root is None else {**own, **root}
    return RunConfig(processor=processor, mode=options.get("mode", "tagged"), **fields)


def _give_each(vms: list[dict[str, Any]], given: Mapping[str, Any]) -> None:
    """Give each machine its value of the options that are lists."""
    for option, name in LIST_OPTIONS.items():
        if option not in given:
            continue
        values = given[option]
        if isinstance(values, str):
            values = (parse_weights if option == "weights" else parse_starts)(values)
        if not isinstance(values, list | tuple) or len(values) != len(vms):
            accepted = f"{len(vms)} of them, one for each machine"
            listed = isinstance(values, list | tuple)
            found = ",".join(map(str, values)) if listed else values
            raise InputError(f"{option}: found {shown(found)}; accepted: {accepted}")
        for vm, value in zip(vms, values, strict=True):
            vm[name] = value


def _check_processor(name: Any) -> None:
    try:
        processors.load_processor("skylake-sp" if name is None else str(name))
    except InputError as error:
        raise InputError(f"processor: {error}") from None


def _said(path: tuple[str | int, ...], schedule: str | Path, given: Mapping[str, Any]) -> str:
    """Return who said what cannot be used: an option, or the schedule's file and where in it."""
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    name = {"weight": "weights", "start": "starts"}.get(name, name)
    option = "host_memory" if path == ("memory",) else name
    if option in given:
        return f"--{option.replace('_', '-')}"
    return f"{schedule}: {described(path)}"


def _machine(trace: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    return dict(trace) if isinstance(trace, Mapping) else {"trace": str(trace)}
