"""From options to a run: what the command line and `mmu.replay` ask for in the same words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmu import processors
from mmu.config import Costs, Processor, RunConfig
from mmu.errors import InputError
from mmu.units import nearest, shown

# Options of each virtual machine, and of the run.
VM_OPTIONS = ("memory", "guest_pages", "nested_pages", "fragmentation", "aslr")
RUN_OPTIONS = (
    "host_memory", "reserve", "host_fragmentation", "backing", "seed", "quantum",
    "exits_per_second", "exit_code_pages", "exit_data_pages", "warm_up", "repeat", "nested_dirty",
)  # fmt: skip


def configured(
    traces: Sequence[str | Path | Mapping[str, Any]],
    *,
    mode: Any = "tagged",
    processor: str | Path | Processor = "skylake-sp",
    settings: Sequence[str] = (),
    root: str | Path | Mapping[str, Any] | None = None,
    **options: Any,
) -> RunConfig:
    """Return the configuration that options ask for.

    Parameters
    ----------
    traces : sequence of str, Path or mapping
        A trace of each virtual machine; a mapping has the fields of `VmConfig`, and what it does not
        name is as the options say.
    mode : {"tagged", "purge", "flush", "native"}
        What a switch does to the TLBs.
    processor : str, Path or Processor
        Name of a processor, a TOML file, or a model.
    settings : sequence of str
        ``FIELD=VALUE``: values of the processor, or of the costs, to be replaced.
    root : str, Path or mapping, optional
        Trace of the root partition.
    **options
        Fields of `RunConfig`, and of `VmConfig` for every machine. None stands for the default; the
        host's memory is ``host_memory``.

    Raises
    ------
    InputError
        A name or a value that is none, and what is accepted.
    """
    settings = [settings] if isinstance(settings, str) else list(settings or ())
    if not all(isinstance(text, str) for text in settings):
        raise InputError(f"settings: found {settings!r}; accepted: a list of 'FIELD=VALUE'")
    for name in options:
        if name not in (*VM_OPTIONS, *RUN_OPTIONS):
            known = ["mode", "processor", "settings", "root", *VM_OPTIONS, *RUN_OPTIONS]
            accepted = f"{', '.join(known)}{nearest(name, known)}"
            raise InputError(f"no option {shown(name)}; accepted: {accepted}")
    given = {name: value for name, value in options.items() if value is not None}
    fields: dict[str, Any] = {"costs": Costs().model_dump()}
    of_costs = [text for text in settings if text.strip().startswith("costs.")]
    of_processor = [text for text in settings if text not in of_costs]
    for text in of_costs:
        processors.override(fields, text)
    if not isinstance(processor, Processor):
        processor = processors.load_processor(str(processor), of_processor)
    elif of_processor:
        raise InputError(
            f"found {shown(of_processor[0])} for a model; accepted: settings of a named processor"
        )
    own = {name: given[name] for name in VM_OPTIONS if name in given}
    fields |= {name: given[name] for name in RUN_OPTIONS if name in given}
    if "host_memory" in fields:
        fields["memory"] = fields.pop("host_memory")
    fields["vms"] = [_machine(trace, own) for trace in traces]
    fields["root"] = None if root is None else _machine(root, own)
    return RunConfig(processor=processor, mode=mode, **fields)


def _machine(trace: str | Path | Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    named = dict(trace) if isinstance(trace, Mapping) else {"trace": str(trace)}
    return {**own, **named}
