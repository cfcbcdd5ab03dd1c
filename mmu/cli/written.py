"""What is said of a trace that has been written."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mmu.trace.format import Header


def say(output: str, made: "Header", quiet: bool) -> None:
    """Print what a trace holds that has been written."""
    if not quiet:
        kinds = f"{made.fetches:,} fetches, {made.reads:,} reads, {made.writes:,} writes"
        click.echo(f"{output}: {made.accesses:,} accesses ({kinds}) in {made.records:,} records")
