"""Traces made of traces: compact, cut, merged."""

import click

from mmu.cli.arguments import COUNT, MERGED_AS, NUMBERS, POSITIVE
from mmu.cli.progress import progress_bar
from mmu.cli.written import say
from mmu.files import check_outputs, check_trace


@click.command()
@click.argument("path", metavar="TRACE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The trace to write.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def compact(path: str, output: str, quiet: bool) -> None:
    """Fold the repeated accesses of TRACE, which is raw: a fifth of the records, the same replay."""
    check_trace(path, "TRACE")
    check_outputs({"output": output}, (path,))
    with progress_bar(quiet, "folding") as progress:
        from mmu.trace.compact import compact_trace  # noqa: PLC0415  imports pyarrow

        made = compact_trace(path, output, progress)
    say(output, made, quiet)


@click.command()
@click.argument("path", metavar="TRACE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The trace to write.")
@click.option("--skip", type=COUNT, metavar="N", default=0, help="Leave out the first accesses.")
@click.option("--limit", type=POSITIVE, metavar="N", help="Keep so many accesses at most.")
@click.option("--space", "spaces", type=NUMBERS, metavar="N,...", help="Keep these spaces only.")
@click.option("--thread", "threads", type=NUMBERS, metavar="N,...", help="Keep these threads only.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def cut(
    path: str,
    output: str,
    skip: int,
    limit: int | None,
    spaces: tuple[int, ...] | None,
    threads: tuple[int, ...] | None,
    quiet: bool,
) -> None:
    """Keep a window of TRACE, or some of its spaces and threads, in its layout.

    The window counts the accesses of the streams that are kept. A compact trace can be cut where
    blocks end only: at multiples of 4,096 accesses, if it is one stream.
    """
    check_trace(path, "TRACE")
    check_outputs({"output": output}, (path,))
    with progress_bar(quiet, "cutting") as progress:
        from mmu.trace.cut import cut_trace  # noqa: PLC0415  imports pyarrow

        made = cut_trace(path, output, skip, limit, spaces, threads, progress)
    say(output, made, quiet)


@click.command()
@click.argument("paths", metavar="TRACES", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="FILE", help="The trace to write.")
@click.option(
    "--as", "streams", type=MERGED_AS, metavar="spaces|threads", default="spaces",
    show_default=True, help="What each trace becomes: an address space, or a thread of one.",
)  # fmt: skip
@click.option(
    "--turn", type=POSITIVE, metavar="N", default=4096, show_default=True,
    help="Accesses of a turn, which goes on to the end of a block.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def merge(paths: tuple[str, ...], output: str, streams: str, turn: int, quiet: bool) -> None:
    """Make one trace of TRACES, which take turns until all have ended.

    Replayed, it is one virtual machine with several address spaces, or several threads.
    """
    for path in paths:
        check_trace(path, "TRACES")
    check_outputs({"output": output}, paths)
    with progress_bar(quiet, "merging") as progress:
        from mmu.trace.merge import merge_traces  # noqa: PLC0415  imports pyarrow

        made = merge_traces(paths, output, streams, turn, progress)
    say(output, made, quiet)
