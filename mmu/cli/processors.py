"""Processors: listed, shown, and made of what CPUID tells."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmu import processors
from mmu.cli.arguments import PROCESSOR, Command, Nearest
from mmu.errors import InputError
from mmu.files import check_outputs, csv_text, json_text, write_whole

if TYPE_CHECKING:
    from mmu.cpuid.dump import Leaves


@click.group("processors", cls=Nearest, invoke_without_command=True)
@click.pass_context
def group(ctx: click.Context) -> None:
    """List the processors, show one, or say what CPUID tells of another."""
    if ctx.invoked_subcommand is None:
        for name in processors.names():
            click.echo(f"{name:16}{processors.title(name)}")


@group.command()
@click.argument("name", type=PROCESSOR)
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="As in compare.")
def show(name: str, settings: tuple[str, ...]) -> None:
    """Show every value of processor NAME beside its source."""
    for line in processors.describe(processor_of(name, list(settings))):
        click.echo(line)


def _told_options(command: Command) -> Command:
    options = [
        click.option(
            "-o", "--output", metavar="FILE.toml",
            help="Write a processor of it, the rest as of the nearest named one, for --processor.",
        ),
        click.option("--json", "json", metavar="FILE", help="Write what is told."),
        click.option("--csv", "csv", metavar="FILE", help="Write a row for each array and cache."),
        click.option("--quiet", is_flag=True, help="Print nothing but errors."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@group.command("from-cpuid")
@click.argument("dump", metavar="DUMP")
@_told_options
def from_cpuid(dump: str, **given: Any) -> None:
    """Say what a DUMP of CPUID tells of TLBs and caches.

    DUMP is a text file as InstLatx64 publishes it, or - for standard input, with lines such as

    CPUID 00000004: 1C004121-01C0003F-0000003F-00000000 [SL 00]
    """

    def read() -> "Leaves":
        from mmu.cpuid.dump import parse_dump, read_dump  # noqa: PLC0415

        return parse_dump(read_dump(dump))

    _tell(read, given, () if dump == "-" else (dump,), f"DUMP: {dump!r}")


@group.command()
@_told_options
def host(**given: Any) -> None:
    """Say what CPUID tells of this machine's processor.

    It is asked by /dev/cpu/0/cpuid, or where that cannot be read by the instruction itself.
    """

    def read() -> "Leaves":
        from mmu.cpuid.host import host_leaves  # noqa: PLC0415

        return host_leaves()

    _tell(read, given, (), "host")


def _tell(
    read: "Callable[[], Leaves]", given: Mapping[str, Any], inputs: tuple[str, ...], where: str
) -> None:
    """Decode what is read, write the files that were asked for, and print it."""
    outputs = check_outputs(given, inputs)
    file = outputs.get("output", "x.toml")
    if Path(file).suffix != ".toml":
        raise InputError(f"--output: found {file!r}; accepted: a name that ends in .toml")
    from mmu.cpuid.told import decode, lines  # noqa: PLC0415

    try:
        told = decode(read())
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if "output" in outputs:
        from mmu.cpuid.made import file_text, processor_of  # noqa: PLC0415  imports pydantic

        write_whole(file, file_text(processor_of(told, Path(file).stem)))
    if "json" in outputs:
        write_whole(outputs["json"], json_text(told.plain()))
    if "csv" in outputs:
        write_whole(outputs["csv"], csv_text(told.table()))
    if not given["quiet"]:
        click.echo("\n".join(lines(told)))


def processor_of(name: str, settings: list[str]) -> Any:
    """Return a processor; an error names the option that it is about."""
    try:
        processors.load_processor(name)
    except InputError as error:
        raise InputError(f"--processor: {error}") from None
    try:
        return processors.load_processor(name, settings)
    except InputError as error:
        raise InputError(f"--set {error}") from None
