"""Schedules: a file in TOML that makes a run of several virtual machines out of traces.

What it says of the run is said in the words of the options, and so are the fields of a machine; a
`[[vm]]` table is a virtual machine, `[root]` the root partition, and a `[[vm.process]]` table after
a `[[vm]]` one a process in it. Paths are relative to the file's folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmu.errors import InputError
from mmu.files import check_trace, read_toml
from mmu.units import nearest, refusal, shown

if TYPE_CHECKING:  # it imports pydantic, which an argument that is wrong does not need
    from mmu.config import RunConfig

Fields = dict[str, Any]
MOST_BYTES = 1 << 22
MOST_PROCESSES = 1000  # of one machine; a run has no more traces
TABLES = ("vm", "root")
# Fields that name a file, and what can be one.
PATHS = {"trace": "a trace file that can be read", "page_map": "a page map that can be read"}
# What the run's fields are called in a file, if not as in the configuration.
WORDS = {"vms": "vm", "memory": "host_memory"}


def load_schedule(path: str | Path, **options: Any) -> "RunConfig":
    """Return the run that a schedule's file asks for.

    Parameters
    ----------
    path : str or Path
        The file.
    **options
        As `mmu.replay` takes them. One that is given replaces what the file says, of the run and of
        every machine and process; None leaves the file's.

    Raises
    ------
    InputError
        The file cannot be read, names what does not exist, or says what cannot be run.

    Examples
    --------
    >>> config = mmu.load_schedule("traces/schedule.toml", quantum="100us")
    >>> mmu.Replay(config).run()
    >>> mmu.replay(schedule="traces/schedule.toml", quantum="100us")  # the same
    """
    from mmu.options import configured  # noqa: PLC0415  imports pydantic

    return configured((), schedule=path, **options)


def read_schedule(path: str | Path) -> Fields:
    """Return what a schedule's file says, in the words of `mmu.options.configured`.

    Machines are in ``vms`` and ``root``, with paths made relative to where the program is.

    Raises
    ------
    InputError
        The file cannot be read, is not TOML, or has a field or a trace that does not exist.
    """
    from mmu.config import VmConfig  # noqa: PLC0415  imports pydantic
    from mmu.options import RUN_OPTIONS, VM_OPTIONS  # noqa: PLC0415
    from mmu.turns import ProcessConfig  # noqa: PLC0415

    where = os.fspath(path)
    known = ["mode", "processor", "set", *RUN_OPTIONS, *VM_OPTIONS, *TABLES]
    found = _known(read_toml(where, MOST_BYTES), known, where)
    of_vm = ["process" if name == "processes" else name for name in VmConfig.model_fields]
    of_process = list(ProcessConfig.model_fields)
    folder = os.path.dirname(where)

    def machine(value: object, place: str) -> Fields:
        table = _located(_known(value, of_vm, place), folder, place)
        if "process" not in table:
            return table
        processes = _tables(table.pop("process"), f"{place}: process")
        if len(processes) > MOST_PROCESSES:
            found = f"found {len(processes):,} [[vm.process]]; accepted: up to {MOST_PROCESSES:,}"
            raise InputError(f"{place}: {found}")
        names = [f"{place}: [[vm.process]] {n}" for n in range(1, len(processes) + 1)]
        table["processes"] = [
            _located(_known(process, of_process, name), folder, name)
            for process, name in zip(processes, names, strict=True)
        ]
        return table

    vms = _tables(found.pop("vm", []), f"{where}: vm")
    if not vms and "root" not in found:
        raise InputError(
            f"{where}: found no [[vm]]; accepted: a [[vm]] table with its trace, or more"
        )
    found = _located(found, folder, where)
    fields: Fields = {
        "vms": [machine(vm, f"{where}: [[vm]] {n}") for n, vm in enumerate(vms, start=1)],
        "root": machine(found.pop("root"), f"{where}: [root]") if "root" in found else None,
        "settings": _settings(found.pop("set", []), f"{where}: set"),
    }
    processor = found.get("processor")
    if isinstance(processor, str) and processor.endswith(".toml"):
        found["processor"] = os.path.join(folder, processor)
    return fields | found


def described(path: tuple[str | int, ...]) -> str:
    """Return where in a file a field of the configuration stands: ``[[vm]] 2: memory``."""
    words: list[str] = []
    for part in path:
        if isinstance(part, int) and words[-1] in ("vms", "processes"):
            words[-1] = f"[[vm]] {part + 1}" if words[-1] == "vms" else f"[[vm.process]] {part + 1}"
        else:
            words.append(str(part))
    if words[-1:] == ["processes"]:
        words[-1] = "process"
    if len(words) == 1:
        words[0] = WORDS.get(words[0], words[0])
    return ": ".join("[root]" if word == "root" else word for word in words)


def _known(value: object, known: list[str], where: str) -> Fields:
    """Return a table with its names in one spelling, or name the nearest to one that is wrong."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {refusal(value, 'a table')}")
    table: Fields = {}
    for given, field in value.items():
        name = given.replace("-", "_")
        if name not in known:
            accepted = f"{', '.join(known)}{nearest(name, known)}"
            raise InputError(f"{where}: no field {shown(given)}; accepted: {accepted}")
        if name in table:
            raise InputError(f"{where}: found {name} twice, with '-' and '_'; accepted: once")
        table[name] = field
    return table


def _located(table: Fields, folder: str, where: str) -> Fields:
    """Make the paths of a table relative to where the program is, and see that they can be read."""
    for name, accepted in PATHS.items():
        if isinstance(table.get(name), str) and table[name]:
            table[name] = os.path.join(folder, table[name])
            check_trace(table[name], f"{where}: {name}", accepted)
    return table


def _tables(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        accepted = f"tables, each under [[{'vm.process' if 'process' in where else 'vm'}]]"
        raise InputError(f"{where}: {refusal(value, accepted)}")
    return value


def _settings(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InputError(f"{where}: {refusal(value, 'a list of FIELD=VALUE, as of --set')}")
    return value
