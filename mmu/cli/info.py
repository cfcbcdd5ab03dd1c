"""What is in a trace, as a table, JSON, CSV and a figure."""

import click

from mmu.cli.arguments import FIGURE, NUMBERS, POSITIVE
from mmu.cli.progress import progress_bar
from mmu.errors import InputError
from mmu.files import check_outputs, check_trace, csv_text, json_text, write_whole


@click.command()
@click.argument("path", metavar="TRACE")
@click.option(
    "--windows", type=POSITIVE, metavar="N", default=100, show_default=True,
    help="Parts that the working set is told of.",
)  # fmt: skip
@click.option(
    "--entries", type=NUMBERS, metavar="N,...", default="64,1536", show_default=True,
    help="TLBs that hit rates are told of, LRU with any entry in any place.",
)  # fmt: skip
@click.option("--json", "json", metavar="FILE", help="Write it as JSON.")
@click.option("--csv", "csv", metavar="FILE", help="Write what, of, at, value.")
@click.option("--figure", type=FIGURE, metavar="FILE", help="Draw it: .png or .svg.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def info(
    path: str,
    windows: int,
    entries: tuple[int, ...],
    json: str | None,
    csv: str | None,
    figure: str | None,
    quiet: bool,
) -> None:
    """Say what TRACE holds: kinds, pages, working set over time, reuse distances."""
    check_trace(path, "TRACE")
    outputs = check_outputs({"json": json, "csv": csv, "figure": figure}, (path,))
    with progress_bar(quiet, "reading") as progress:
        from mmu.trace.summary import info as summary  # noqa: PLC0415  imports pyarrow

        try:
            found = summary(path, windows, entries, progress)
        except InputError as error:
            option = str(error).partition(":")[0] in ("windows", "entries")
            raise InputError(f"--{error}") if option else error from None
    from mmu import report_trace  # noqa: PLC0415

    if "json" in outputs:
        write_whole(outputs["json"], json_text(found))
    if "csv" in outputs:
        write_whole(outputs["csv"], csv_text(report_trace.long_table(found)))
    if "figure" in outputs:
        from mmu.plot_trace import save_figure  # noqa: PLC0415  imports matplotlib

        save_figure(found, outputs["figure"], path)
    if not quiet:
        click.echo("\n".join(report_trace.lines(found)))
