"""Schedules: drawn."""

import sys
from collections.abc import Mapping
from shutil import get_terminal_size
from typing import Any

import click

from mmu.cli.arguments import FIGURE, MODE, POSITIVE, START, Nearest
from mmu.cli.progress import progress_bar
from mmu.cli.run import give_memory_back, machine_options, prepare
from mmu.files import csv_text, json_text, write_whole

SLICES, MOST_SLICES = 30, 1 << 20


@click.group(cls=Nearest, invoke_without_command=True)
@click.pass_context
def schedule(ctx: click.Context) -> None:
    """Look at who runs when."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@schedule.command()
@click.argument("files", nargs=-1, metavar="SCHEDULE|TRACES...")
@click.option(
    "--slices", type=POSITIVE, metavar="N", help=f"Stop after so many.  [default: {SLICES}]"
)
@click.option("--until", type=START, metavar="TIME", help="Stop at us, ms, s, cycles or accesses.")
@click.option("--mode", type=MODE, help="As in compare.  [default: tagged]")
@machine_options
@click.option("--json", "json", metavar="FILE", help="Write the slices.")
@click.option("--csv", "csv", metavar="FILE", help="Write a row for each slice.")
@click.option("--figure", type=FIGURE, metavar="FILE", help="Draw them: .png or .svg.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def show(
    files: tuple[str, ...], slices: int | None, until: str | None, mode: str | None, **given: Any
) -> None:
    """Draw who runs when, by running the first of SCHEDULE (a file in TOML), or of TRACES.

    Options are those of replay. A slice ends with the quantum of its machine, with the turn of its
    process, or with its trace. With several logical processors (--lps) there are rows for each.
    """
    if len(files) == 1 and files[0].lower().endswith(".toml") and not given["schedule"]:
        given["schedule"], files = files[0], ()
    config, outputs = prepare(files, mode, given)
    most = slices or (MOST_SLICES if until else SLICES)
    with progress_bar(given["quiet"]) as progress:
        from mmu.watch import record_slices  # noqa: PLC0415  compiles

        give_memory_back()
        seen = record_slices(config, most, until, progress)
    deliver(seen, outputs, given["quiet"])


def deliver(seen: Any, outputs: Mapping[str, str], quiet: bool) -> None:
    """Write the files that were asked for, and print the drawing."""
    from mmu import gantt  # noqa: PLC0415

    if "json" in outputs:
        write_whole(outputs["json"], json_text(seen.plain()))
    if "csv" in outputs:
        write_whole(outputs["csv"], csv_text(seen.table()))
    if "figure" in outputs:
        gantt.save_gantt(seen, outputs["figure"])
    if not quiet:
        width = get_terminal_size().columns if sys.stdout.isatty() else gantt.WIDTH
        click.echo("\n".join(gantt.lines(seen, width, _shows(gantt.SHADES))))


def _shows(text: str) -> bool:
    """Tell whether standard output has the characters of a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True
