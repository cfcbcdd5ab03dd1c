"""Traces recorded from programs that run here."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from mmu.cli.arguments import COUNT, LEVEL, POSITIVE
from mmu.errors import InputError
from mmu.files import check_outputs

INTERRUPTED = 130
REFRESH = 0.2  # seconds


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-o", "--output", required=True, metavar="FILE", help="The trace to write.")
@click.option("--compact", is_flag=True, help="Fold repeated accesses to a page.")
@click.option("--level", type=LEVEL, metavar="N", help="Of zstd: 1, quick, to 22, small.")
@click.option("--skip", type=COUNT, metavar="N", default=0, help="Leave out the first accesses.")
@click.option("--limit", type=POSITIVE, metavar="N", help="End COMMAND after so many accesses.")
@click.option(
    "--children", is_flag=True, help="Record all processes, each address space under its number."
)
@click.option("--qemu", is_flag=True, help="Use QEMU, not valgrind: faster, tells threads apart.")
@click.option("--no-aslr", is_flag=True, help="Do not randomise addresses.")
@click.option("--clean-env", is_flag=True, help="Give COMMAND no variables but PATH and --env.")
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="Set a variable.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def record(
    command: tuple[str, ...],
    output: str,
    compact: bool,
    level: int | None,
    skip: int,
    limit: int | None,
    children: bool,
    qemu: bool,
    no_aslr: bool,
    clean_env: bool,
    variables: tuple[str, ...],
    quiet: bool,
) -> None:
    """Run COMMAND and record every fetch, read and write that it makes.

    Write -- before COMMAND. Needs valgrind, or QEMU (qemu-user) and a C compiler. COMMAND runs a
    hundred to a thousand times slower, with the
    terminal's input and output; --quiet leaves them to it. Ctrl-C ends it, and what has been recorded
    is kept (exit status 130). The exit status is 0 if there is a trace, however COMMAND has ended.
    """
    check_outputs({"output": output}, ())
    environment = environment_of(variables, clean_env)
    with counter(quiet) as progress:
        from mmu.trace.recorder import record as run  # noqa: PLC0415  imports pyarrow

        made = run(
            command,
            output,
            compact=compact,
            skip=skip,
            limit=limit,
            children=children,
            progress=progress,
            level=level,
            environment=environment,
            aslr=not no_aslr,
            qemu=qemu,
        )
    ended = made.metadata["ended"]
    if not quiet:
        kinds = f"{made.fetches:,} fetches, {made.reads:,} reads, {made.writes:,} writes"
        line = f"{output}: {made.accesses:,} accesses ({kinds}) in {made.records:,} records"
        click.echo(line, err=True)  # standard output is the program's
        if made.metadata.get("exit_status", 0) != 0 or ended == "interrupted":
            click.echo(f"mmu: note: {command[0]}: {ended}; the trace is kept", err=True)
    if ended == "interrupted":
        sys.exit(INTERRUPTED)


def environment_of(variables: tuple[str, ...], clean: bool) -> dict[str, str]:
    """Return the environment that the program gets."""
    environment = {"PATH": os.environ.get("PATH", os.defpath)} if clean else dict(os.environ)
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not name or not equals or "\0" in variable:
            raise InputError(f"--env: found {variable!r}; accepted: NAME=VALUE")
        environment[name] = value
    return environment


@contextmanager
def counter(quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Yield what shows how many accesses there are, and how fast they come, on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    begun = shown = time.monotonic()

    def show(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= REFRESH:
            shown = now
            rate = done / (now - begun) / 1e6
            click.echo(f"\r{done:,} accesses, {rate:.2f} M a second\x1b[K", err=True, nl=False)

    try:
        yield show
    finally:
        if shown > begun:
            click.echo("\r\x1b[K", err=True, nl=False)
