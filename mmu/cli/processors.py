"""Processors: listed, and shown."""

from typing import Any

import click

from mmu import processors
from mmu.cli.arguments import PROCESSOR, Nearest
from mmu.errors import InputError


@click.group("processors", cls=Nearest, invoke_without_command=True)
@click.pass_context
def group(ctx: click.Context) -> None:
    """List the processors, or show one."""
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
