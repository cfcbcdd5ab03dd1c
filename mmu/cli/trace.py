"""Traces: the group of commands, and importing them."""

import os
from typing import Any

import click

from mmu.cli import edit, export, record, synth
from mmu.cli.arguments import COLUMNS, COUNT, LEVEL, POSITIVE, Nearest
from mmu.cli.info import info
from mmu.cli.pagemap import pagemap
from mmu.cli.progress import progress_bar
from mmu.files import check_outputs, check_trace, is_stream


@click.group(cls=Nearest, invoke_without_command=True)
@click.pass_context
def trace(ctx: click.Context) -> None:
    """Record, import, make, change, export and look at traces."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@trace.command("import")
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FILE", help="The trace to write.")
@click.option("--format", "form", metavar="NAME", help="Format of SOURCE, else by its content.")
@click.option(
    "--columns",
    type=COLUMNS,
    metavar="OURS=THEIRS,...",
    help="Of a table: what it calls address, kind, size, space, thread.",
)
@click.option("--compact", is_flag=True, help="Fold repeated accesses to a page.")
@click.option("--level", type=LEVEL, metavar="N", help="Of zstd: 1, quick, to 22, small.")
@click.option("--skip", type=COUNT, metavar="N", default=0, help="Leave out the first accesses.")
@click.option("--limit", type=POSITIVE, metavar="N", help="Stop after so many accesses.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def import_(source: str, output: str, form: str | None, quiet: bool, **given: Any) -> None:
    """Turn SOURCE, as another tool recorded it, into a trace.

    It may be packed by gzip, xz, zstd, bzip2, lz4 or zip; - is standard input. A folder is
    DynamoRIO's, with a file for each thread.
    """
    if source != "-" and not is_stream(source) and not os.path.isdir(source):
        check_trace(source, "SOURCE")
    check_outputs({"output": output}, (source,))
    with progress_bar(quiet) as progress:
        from mmu.trace.importer import import_trace  # noqa: PLC0415  imports pyarrow

        def count(done: int) -> None:
            if progress:
                progress(done, 0)

        made = import_trace(source, output, format=form, progress=count, **given)
    if not quiet:
        kinds = f"{made.fetches:,} fetches, {made.reads:,} reads, {made.writes:,} writes"
        click.echo(f"{output}: {made.accesses:,} accesses ({kinds}) in {made.records:,} records")
        for what, times in made.metadata.get("passed_over", {}).items():
            click.echo(f"passed over: {times:,} {what}")
        for remark in made.metadata.get("remarks", []):
            click.echo(f"note: {remark}")


for command in (
    record.record,
    info,
    edit.compact,
    edit.cut,
    edit.merge,
    synth.synth,
    export.export,
    pagemap,
):
    trace.add_command(command)
