"""Synthetic traces: patterns, and models of real traces."""

from collections.abc import Callable
from typing import Any

import click

from mmu.cli.arguments import ADDRESS, COUNT, NUMBER, POSITIVE, SHARE, SIZE, Nearest, Parsed
from mmu.cli.progress import progress_bar
from mmu.cli.written import say
from mmu.errors import InputError
from mmu.files import check_outputs, check_trace
from mmu.units import parse_size

Command = Callable[..., None]
# (flag, type, default, help). A flag not given is not passed on.
_COMMON: list[tuple[str, Parsed, str, str]] = [
    ("--accesses", POSITIVE, "10000000", "Accesses to make, fetches included."),
    ("--seed", COUNT, "0", "The same seed makes the same trace, everywhere."),
    ("--footprint", SIZE, "64MiB", "Bytes of data, a multiple of 4KiB."),
    ("--base", ADDRESS, "0x100000000000", "First address of the data."),
    ("--fetches", COUNT, "1", "Instruction fetches before each data access, or pair of gups."),
    ("--code", SIZE, "4KiB", "Bytes of the loop that they go round, from 0x400000."),
]
_OWN: dict[str, tuple[Parsed, str, str]] = {
    "--write-share": (SHARE, "0", "Part of the data accesses that write."),
    "--exponent": (NUMBER, "0.99", "Zipf's exponent, 0 to 10."),
    "--stride": (SIZE, "64", "Bytes from one access to the next, a multiple of 8."),
    "--grain": (SIZE, "", "Bytes, a power of two, that {}."),
}


def pattern_options(*own: str, grain: tuple[str, str] = ("", "")) -> Callable[[Command], Command]:
    """Add the options of every pattern, and some of its own."""

    def decorate(command: Command) -> Command:
        rows = [*_COMMON, *((flag, *_OWN[flag]) for flag in own)]
        command = click.option("--quiet", is_flag=True, help="Print nothing but errors.")(command)
        command = click.option("--compact", is_flag=True, help="Fold repeated accesses to a page.")(
            command
        )
        for flag, kind, default, text in reversed(rows):
            shown = default or grain[0]
            command = click.option(
                flag, type=kind, metavar=kind.name,
                help=f"{text.format(grain[1])}  [default: {shown}]",
            )(command)  # fmt: skip
        return click.option(
            "-o", "--output", required=True, metavar="FILE", help="The trace to write."
        )(command)

    return decorate


@click.group(cls=Nearest, invoke_without_command=True)
@click.pass_context
def synth(ctx: click.Context) -> None:
    """Make traces whose behaviour is known, or that are like a real one."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@synth.command()
@pattern_options("--write-share")
def uniform(**given: Any) -> None:
    """Draw words evenly from the footprint."""
    _make("uniform", given)


@synth.command()
@pattern_options("--write-share", "--exponent", "--grain", grain=("4KiB", "have a popularity"))
def zipf(**given: Any) -> None:
    """Draw pages by Zipf's law, popular ones scattered, and in them words evenly."""
    _make("zipf", given)


@synth.command()
@pattern_options("--write-share", "--stride")
def stride(**given: Any) -> None:
    """Go through the footprint in equal steps, again and again."""
    _make("stride", given)


@synth.command()
@pattern_options("--grain", grain=("64", "hold a pointer to another"))
def chase(**given: Any) -> None:
    """Follow pointers round a random cycle that visits every grain once."""
    _make("chase", given)


@synth.command()
@pattern_options()
def gups(**given: Any) -> None:
    """Read and write random words, as the HPC Challenge's RandomAccess does."""
    _make("gups", given)


@synth.command()
@click.argument("path", metavar="TRACE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The trace to write.")
@click.option("--accesses", type=POSITIVE, metavar="N", help="  [default: as many as TRACE has]")
@click.option(
    "--seed", type=COUNT, metavar="N", default=0, show_default=True, help="As in uniform."
)
@click.option(
    "--phases", type=POSITIVE, metavar="N", default=100, show_default=True,
    help="Parts of TRACE that are fitted one by one.",
)  # fmt: skip
@click.option("--compact", is_flag=True, help="Fold repeated accesses to a page.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def like(path: str, output: str, quiet: bool, **given: Any) -> None:
    """Draw a trace from a working-set model of TRACE.

    It has the same kinds, pages and reuse distances of each side, phase by phase, in another order.
    """
    check_trace(path, "TRACE")
    check_outputs({"output": output}, (path,))
    with progress_bar(quiet, "fitting and drawing") as progress:
        from mmu.trace.synth import synthesize_like  # noqa: PLC0415  imports pyarrow

        try:
            made = synthesize_like(path, output, progress=progress, **given)
        except InputError as error:
            raise of_option(error, given) from None
    say(output, made, quiet)


def _make(kind: str, given: dict[str, Any]) -> None:
    output, quiet = given.pop("output"), given.pop("quiet")
    options = {name: value for name, value in given.items() if value is not None}
    for name in ("footprint", "code", "stride", "grain"):
        if name in options:
            options[name] = parse_size(options[name])
    check_outputs({"output": output}, ())
    with progress_bar(quiet, "drawing") as progress:
        from mmu.trace.synth import synthesize  # noqa: PLC0415  imports pyarrow

        try:
            made = synthesize(kind, output, progress=progress, **options)
        except InputError as error:
            raise of_option(error, given) from None
    say(output, made, quiet)


def of_option(error: InputError, given: dict[str, Any]) -> InputError:
    """Return an error that names the option of the command line which it is about."""
    name, _, rest = str(error).partition(":")
    return InputError(f"--{name.replace('_', '-')}:{rest}") if name in given else error
