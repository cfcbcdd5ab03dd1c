"""Page maps: of live processes, and of files."""

from contextlib import suppress

import click

from mmu.cli.progress import progress_bar
from mmu.errors import InputError
from mmu.files import check_outputs, check_trace, is_stream

MOST_SPACE = (1 << 16) - 1


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="[SPACE=]SOURCE...")
@click.option("-o", "--output", required=True, metavar="FILE", help="The page map to write.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def pagemap(sources: tuple[str, ...], output: str, quiet: bool) -> None:
    """Write which frame stands behind each page of each SOURCE: a process, by its number, or a file.

    A file is DynamoRIO's v2p.textproto, a list of the kernel's page-types -r -l -N -p PID, rows of
    virtual and physical addresses (and size, and space), or Parquet. Of several sources each is
    an address space: 0, 1, ... in their order, or SPACE. The frames of a process are shown to root only.
    """
    named = [_source(text) for text in sources]
    files = tuple(source for _, source in named if not source.isdecimal())
    for path in files:
        if path != "-" and not is_stream(path):
            check_trace(path, "SOURCE", "a page map that can be read, or the number of a process")
    check_outputs({"output": output}, files)
    with progress_bar(quiet) as progress:
        from mmu.trace.pagemap.linux import read_process  # noqa: PLC0415  imports numpy
        from mmu.trace.pagemap.pages import Entries, collected  # noqa: PLC0415
        from mmu.trace.pagemap.reader import merged, read_page_map  # noqa: PLC0415
        from mmu.trace.pagemap.stored import write_page_map  # noqa: PLC0415

        done = 0

        def count(part: Entries) -> Entries:
            nonlocal done
            done += len(part.virtual)
            if progress:
                progress(done, 0)
            return part

        maps, said = [], []
        for place, (space, source) in enumerate(named):
            number = space if space is not None or len(named) == 1 else place
            if source.isdecimal():
                entries, process = read_process(int(source))
                maps.append((number, collected(map(count, entries), f"PID {source}", "page")))
                said.append({"pid": int(source), "large_pages_by": process.method})
            else:
                maps.append((number, read_page_map(source)))
                said.append({"file": source})
        made = merged(maps, [source for _, source in named])
        write_page_map(output, made, {"sources": said})
    if quiet:
        return
    large = int(made.size.sum())
    click.echo(
        f"{output}: {len(made.vpn) - large:,} pages of 4 KiB, {large:,} of 2 MiB in "
        f"{len(made.spaces)} space{'s' if len(made.spaces) > 1 else ''}, frames up to "
        f"{(made.frames << 12) - 1:#x}; {made.swapped:,} in swap space left out"
    )


def _source(text: str) -> tuple[int | None, str]:
    """Return the number of the space, if there is one, and the source."""
    space, equals, source = text.partition("=")
    if not equals or not space.isdecimal():
        return None, text
    with suppress(ValueError):
        if int(space) <= MOST_SPACE:
            return int(space), source
    raise InputError(f"SOURCE: found space {space[:20]}; accepted: 0 to {MOST_SPACE}")
