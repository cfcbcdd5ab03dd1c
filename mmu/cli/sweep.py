"""Sweeps: the runs of a comparison with one value after another, and what is written of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from mmu import processors
from mmu.cli.progress import progress_bar
from mmu.cli.run import VARIED, configure, give_memory_back, prepare, print_report
from mmu.errors import InputError
from mmu.files import csv_text, write_whole
from mmu.values import Vary, is_about, of_value

if TYPE_CHECKING:
    from mmu.config import RunConfig
    from mmu.swept import Sweep


def sweep(
    traces: tuple[str, ...], modes: tuple[str, ...], varied: Vary, given: Mapping[str, Any]
) -> None:
    """Replay traces in each of several modes with each value of what is varied."""
    configs, outputs = prepare_all(traces, modes, varied, given)
    with progress_bar(given["quiet"]) as progress:
        from mmu.sweep import sweep_configs  # noqa: PLC0415  compiles

        give_memory_back()
        try:
            swept = sweep_configs(varied, configs, modes, progress)
        except InputError as error:
            raise InputError(f"--vary {error}") from None
    deliver(swept, outputs)
    if not given["quiet"]:
        said = [(*processors.notes(each.processor), *processors.unused(each)) for each in configs]
        for note in dict.fromkeys(note for notes in said for note in notes):
            click.echo(f"mmu: note: {note}", err=True)
        from mmu import report_sweep  # noqa: PLC0415

        print_report(report_sweep, swept)


def prepare_all(
    traces: tuple[str, ...], modes: tuple[str, ...], varied: Vary, given: Mapping[str, Any]
) -> tuple[list["RunConfig"], dict[str, str]]:
    """Return the run with each value, and the files to write, before anything runs."""
    option = varied.name.replace("-", "_")
    if given.get(option) is not None:
        raise InputError(
            f"--vary: found --{varied.name} as well; accepted: one of them, as --vary gives its values"
        )
    first, *others = varied.values
    try:
        config, outputs = prepare(traces, modes[0], _with_value(given, varied.name, first))
    except InputError as error:
        if is_about(varied.name, first, error):
            raise InputError(f"--vary {of_value(varied.name, first, error)}") from None
        raise
    configs = [config]
    for value in others:
        try:
            configs.append(configure(traces, modes[0], _with_value(given, varied.name, value)))
        except InputError as error:
            raise InputError(f"--vary {of_value(varied.name, value, error)}") from None
    return configs, outputs


def _with_value(given: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """Return the options with one of the values."""
    if name not in VARIED:
        return {**given, "settings": (*given.get("settings", ()), f"{name}={value}")}
    kind = VARIED[name]
    return {**given, name.replace("-", "_"): value if kind.as_text else kind.parse(value)}


def deliver(swept: "Sweep", outputs: Mapping[str, str]) -> None:
    """Write the files that were asked for."""
    if "json" in outputs:
        swept.save(outputs["json"])
    if "csv" in outputs:
        write_whole(outputs["csv"], csv_text(swept.long_table()))
    if "figure" in outputs:
        from mmu.plot_sweep import save_figure  # noqa: PLC0415  imports matplotlib

        save_figure(swept, outputs["figure"])
