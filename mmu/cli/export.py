"""Traces: written for other tools."""

from typing import Any

import click

from mmu import units
from mmu.cli.arguments import ADDRESS, COUNT, EXPORT, POSITIVE
from mmu.cli.progress import progress_bar
from mmu.files import check_outputs, check_trace


@click.command("export")
@click.argument("path", metavar="TRACE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write.")
@click.option(
    "--to", type=EXPORT, required=True, metavar="NAME", help=f"{' | '.join(units.EXPORTS)}."
)
@click.option("--space", type=COUNT, metavar="N", help="Accesses of one address space.")
@click.option("--thread", type=COUNT, metavar="N", help="Accesses of one thread.")
@click.option("--unfold", is_flag=True, help="Make accesses of a compact trace's pages.")
@click.option("--ip", type=ADDRESS, metavar="ADDRESS", help="ChampSim: where no fetch tells it.")
@click.option("--skip", type=COUNT, metavar="N", default=0, help="Leave out the first accesses.")
@click.option("--limit", type=POSITIVE, metavar="N", help="Stop after so many accesses.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def export(path: str, output: str, quiet: bool, **given: Any) -> None:
    """Write TRACE in another tool's format, packed if FILE ends in .gz, .xz, .zst or .bz2."""
    check_trace(path, "TRACE")
    check_outputs({"output": output}, (path,))
    with progress_bar(quiet) as progress:
        from mmu.trace.export import export_trace  # noqa: PLC0415  imports pyarrow

        def count(done: int) -> None:
            if progress:
                progress(done, 0)

        made = export_trace(path, output, progress=count, **given)
    if not quiet:
        click.echo(f"{output}: {made.accesses:,} accesses in {made.records:,} records")
        for remark in made.remarks:
            click.echo(f"note: {remark}")
