"""Arguments that are read and judged before anything heavy is imported."""

from collections.abc import Callable
from typing import Any

import click

from mmu import processors, units
from mmu.errors import InputError
from mmu.files import check_figure

Command = Callable[..., None]


class Parsed(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """A value that a function of `units` reads; its error is the message."""

    def __init__(self, name: str, parse: Callable[[Any], object], as_text: bool = False) -> None:
        self.name = name
        self.parse = parse
        self.as_text = as_text

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Return what the text stands for, or the text itself where it is read again later."""
        try:
            parsed = self.parse(value)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return value if self.as_text else parsed


class Nearest(click.Group):
    """A group of commands that names the nearest one to a wrong one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names."""
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            accepted = f"{' | '.join(known)}{units.nearest(args[0], known)}"
            ctx.fail(f"no command {units.shown(args[0])}; accepted: {accepted}")
        return super().resolve_command(ctx, args)


def _choice(name: str, choices: tuple[str, ...]) -> Parsed:
    return Parsed(name, lambda value: units.parse_choice(value, choices))


SIZE = Parsed("SIZE", units.parse_size, as_text=True)
COUNT = Parsed("N", units.parse_count)
POSITIVE = Parsed("N", lambda value: units.parse_count(value, least=1))
CODE_ADDRESS = Parsed("ADDRESS", units.parse_code_address)
LEVEL = Parsed("N", lambda value: units.parse_count(value, least=1, most=22))
COLUMNS = Parsed("OURS=THEIRS,...", units.parse_columns)
NUMBER = Parsed("X", units.parse_number)
NUMBERS = Parsed("N,...", units.parse_numbers)
ADDRESS = Parsed("ADDRESS", units.parse_address)
MERGED_AS = _choice("spaces|threads", ("spaces", "threads"))
SHARE = Parsed("SHARE", units.parse_share)
PAGES = Parsed("4k|2m|auto", units.parse_pages)
QUANTUM = Parsed("TIME", units.parse_quantum, as_text=True)
WEIGHTS = Parsed("N,N,...", units.parse_weights)
STARTS = Parsed("TIME,...", units.parse_starts)
START = Parsed("TIME", units.parse_start, as_text=True)
MODE = _choice("MODE", units.MODES)
MODES = Parsed("MODES", units.parse_modes)
EXPORT = _choice("NAME", units.EXPORTS)
BACKING = _choice("start|first-touch", units.BACKINGS)
TABLE_READS = _choice("fixed|walker|shared", units.TABLE_READS)
PROCESSORS = Parsed("N", lambda value: units.parse_count(value, least=1, most=256))
WINDOW = Parsed("N", lambda value: units.parse_count(value, most=1 << 16))
FIGURE = Parsed("FILE", check_figure, as_text=True)
PROCESSOR = Parsed("NAME", processors.find, as_text=True)


def output_options(command: Command) -> Command:
    """Add where results go."""
    options = [
        click.option("--json", "json", metavar="FILE", help="Write the whole result."),
        click.option("--csv", "csv", metavar="FILE", help="Write mode, vm, metric, value."),
        click.option(
            "--figure", type=FIGURE, metavar="FILE", help="Draw the result: .png or .svg."
        ),
        click.option("--quiet", is_flag=True, help="Print nothing but errors."),
    ]
    for option in reversed(options):
        command = option(command)
    return command
