"""The command line. Light until a run begins: help and wrong arguments import nothing heavy.

An error is one line on standard error and exit status 2; an interrupt is exit status 130. Files
are written whole, after the run, and whether they can be written is looked at before it.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmu import processors, units
from mmu.errors import InputError, MmuError
from mmu.files import check_figure, check_outputs, check_trace, csv_text, is_stream, write_whole

if TYPE_CHECKING:
    from mmu.config import RunConfig
    from mmu.result import Comparison, Result

Progress = Callable[[int, int], None]
Command = Callable[..., None]

DEMO = {"quantum": "50us", "exits_per_second": 20_000}
FAILED, USAGE, INTERRUPTED = 1, 2, 130
# Where a field of the configuration comes from on the command line, if not from its own name.
RUN_OPTIONS = {"memory": "--host-memory", "vms": "TRACES", "costs": "--set costs"}
VM_OPTIONS = {"trace": "TRACES"}


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
SHARE = Parsed("SHARE", units.parse_share)
PAGES = Parsed("4k|2m|auto", units.parse_pages)
QUANTUM = Parsed("TIME", units.parse_quantum, as_text=True)
MODE = _choice("MODE", units.MODES)
MODES = Parsed("MODES", units.parse_modes)
BACKING = _choice("start|first-touch", units.BACKINGS)
FIGURE = Parsed("FILE", check_figure, as_text=True)
PROCESSOR = Parsed("NAME", processors.find, as_text=True)

# (flag, type, default that the configuration has, help). A flag not given is not passed on.
_MACHINE: list[tuple[str, Parsed, str | None, str]] = [
    ("--host-memory", SIZE, "64GiB", "Memory of the host."),
    ("--reserve", SIZE, "1/64 of the host", "What the hypervisor keeps of it, tables included."),
    ("--host-fragmentation", SHARE, "0", "Part of the host's 2M regions that are broken up."),
    ("--memory", SIZE, "4GiB", "Memory of each virtual machine."),
    ("--fragmentation", SHARE, "0", "Part of each guest's 2M regions that are broken up."),
    ("--guest-pages", PAGES, "4k", "Pages that guests map."),
    ("--nested-pages", PAGES, "auto", "Pages that the hypervisor backs guests with."),
    ("--backing", BACKING, "start", "When guest memory is backed."),
    ("--aslr", COUNT, None, "Seed that moves each machine's layout, else all are as recorded."),
    ("--seed", COUNT, "0", "Seed of everything else that is random."),
    ("--quantum", QUANTUM, "50us", "A turn: us, ms, s, cycles, accesses or instructions."),
    ("--exits-per-second", COUNT, "0", "Exits to the hypervisor inside a turn."),
    ("--exit-code-pages", COUNT, "8", "Pages that the hypervisor fetches from at an exit."),
    ("--exit-data-pages", COUNT, "8", "Pages that it reads and writes, for each machine its own."),
    ("--warm-up", COUNT, "0", "Accesses, of all machines, that are not counted."),
    ("--repeat", POSITIVE, "1", "Times that each trace runs."),
]


def run_options(command: Command) -> Command:
    """Add what `compare` and `replay` have in common."""
    options = [
        click.option(
            "--processor", type=PROCESSOR, default="skylake-sp", show_default=True,
            help="A name that 'mmu processors' lists, or a TOML file.",
        ),
        click.option(
            "--set", "settings", multiple=True, metavar="FIELD=VALUE",
            help="Replace a value of the processor: l2.ways=6, nested_tlb=none; or costs.exit=900.",
        ),
        *(
            click.option(
                flag, type=kind, metavar=kind.name,
                help=f"{text}  [default: {default}]" if default else text,
            )
            for flag, kind, default, text in _MACHINE
        ),
        click.option(
            "--no-nested-dirty", is_flag=True,
            help="Nested tables have no accessed and dirty bits (EPTP bit 6 clear).",
        ),
        click.option("--root", metavar="TRACE", help="Trace of the root partition."),
    ]  # fmt: skip
    command = output_options(command)
    for option in reversed(options):
        command = option(command)
    return command


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


@click.group(
    cls=Nearest,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="mmu", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Emulate virtual address translation under a hypervisor, on real traces."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command()
@click.argument("traces", nargs=-1, required=True)
@click.option(
    "--modes", type=MODES, default=",".join(units.MODES), show_default=True,
    help="Modes to compare, in this order.",
)  # fmt: skip
@run_options
def compare(traces: tuple[str, ...], modes: tuple[str, ...], **given: Any) -> None:
    """Replay TRACES as virtual machines of one processor, and set modes side by side.

    tagged: entries are tagged by machine and stay; purge: a switch drops those of the machine that
    leaves; flush: no tags, each exit and switch drops all; native: no hypervisor.
    """
    _compare(traces, modes, given)


@cli.command()
@click.argument("traces", nargs=-1, required=True)
@click.option("--mode", type=MODE, default="tagged", show_default=True, help="As in compare.")
@run_options
def replay(traces: tuple[str, ...], mode: str, **given: Any) -> None:
    """Replay TRACES as virtual machines of one processor in one mode, with everything counted."""
    outputs = check_outputs(given, traces)
    config = configure(traces, mode, given)
    with progress_bar(given["quiet"]) as progress:
        from mmu.run import replay_config  # noqa: PLC0415  compiles

        give_memory_back()
        result = replay_config(config, progress)
    deliver(result, outputs, None if given["quiet"] else config)


@cli.command()
@click.argument("folder", required=False)
@output_options
def demo(folder: str | None, **given: Any) -> None:
    """Compare all modes on the traces of FOLDER, by default those that come with mmu."""
    paths = demo_traces(folder)
    _compare(tuple(map(str, paths)), units.MODES, given | DEMO)


@cli.group(cls=Nearest, invoke_without_command=True)
@click.pass_context
def trace(ctx: click.Context) -> None:
    """Import traces, and look at them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@trace.command("import")
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FILE", help="The trace to write.")
@click.option("--format", "form", metavar="NAME", help="Format of SOURCE, else by its content.")
@click.option("--compact", is_flag=True, help="Fold repeated accesses to a page.")
@click.option("--skip", type=COUNT, metavar="N", default=0, help="Leave out the first accesses.")
@click.option("--limit", type=POSITIVE, metavar="N", help="Stop after so many accesses.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def import_(source: str, output: str, form: str | None, quiet: bool, **given: Any) -> None:
    """Turn SOURCE, as another tool recorded it, into a trace.

    It may be packed by gzip, xz, zstd or bzip2; - is standard input.
    """
    if source != "-" and not is_stream(source):
        check_trace(source, "SOURCE")
    check_outputs({"output": output}, (source,))
    with progress_bar(quiet) as progress:
        from mmu.trace.importer import import_trace  # noqa: PLC0415  imports pyarrow

        def count(done: int) -> None:
            if progress:
                progress(done, 0)

        made = import_trace(source, output, format=form, progress=count, **given)
    if not quiet:
        kinds = f"{made.fetches:,} fetches, {made.reads:,} reads, {made.writes:,} writes"
        click.echo(f"{output}: {made.accesses:,} accesses ({kinds}) in {made.records:,} records")


@trace.command()
@click.argument("path", metavar="TRACE")
@click.option("--json", "json", metavar="FILE", help="Write it as JSON.")
def info(path: str, json: str | None) -> None:
    """Say what TRACE holds."""
    check_trace(path, "TRACE")
    outputs = check_outputs({"json": json}, (path,))
    from mmu.trace.summary import info as summary  # noqa: PLC0415  imports pyarrow

    found = summary(path)
    if "json" in outputs:
        from json import dumps  # noqa: PLC0415

        write_whole(outputs["json"], dumps(found, indent=1, default=str) + "\n")
    lines = list(_flat(found))
    width = max(len(key) for key, _ in lines)
    for key, value in lines:
        click.echo(f"{key:{width}}  {value}")


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys of nested tables, joined by dots, and their values as text."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif type(value) is int:
            yield prefix + key, f"{value:,}"
        elif isinstance(value, float):
            yield prefix + key, f"{value:.2f}"
        else:
            yield prefix + key, "-" if value is None else " ".join(str(value).split())


@cli.group("processors", cls=Nearest, invoke_without_command=True)
@click.pass_context
def processors_(ctx: click.Context) -> None:
    """List the processors, or show one."""
    if ctx.invoked_subcommand is None:
        for name in processors.names():
            click.echo(f"{name:16}{processors.title(name)}")


@processors_.command()
@click.argument("name", type=PROCESSOR)
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="As in compare.")
def show(name: str, settings: tuple[str, ...]) -> None:
    """Show every value of processor NAME beside its source."""
    for line in processors.describe(_processor(name, list(settings))):
        click.echo(line)


def _compare(traces: tuple[str, ...], modes: tuple[str, ...], given: dict[str, Any]) -> None:
    outputs = check_outputs(given, traces)
    config = configure(traces, modes[0], given)
    with progress_bar(given["quiet"]) as progress:
        from mmu.run import compare_config  # noqa: PLC0415  compiles

        give_memory_back()
        comparison = compare_config(config, modes, progress)
    deliver(comparison, outputs, None if given["quiet"] else config)


def give_memory_back() -> None:
    """Let Arrow use the system's allocator: its own keeps 80 MB of a six-trace replay for later."""
    import pyarrow  # noqa: PLC0415

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())


def demo_traces(folder: str | None) -> list[Path]:
    """Return the traces of a demonstration: those of a folder, by name."""
    places = [Path(folder)] if folder else [Path(__file__).parents[1] / "traces", Path("traces")]
    for place in places:
        if found := sorted(place.glob("*.parquet")):
            return found
    accepted = "a folder with Parquet traces, such as 'traces' of a checkout"
    raise InputError(f"FOLDER: found no trace in {str(places[0])!r}; accepted: {accepted}")


def configure(traces: tuple[str, ...], mode: str, given: Mapping[str, Any]) -> "RunConfig":
    """Return the run that the command line asks for; an error names the option to change."""
    root = given.get("root")
    for path in traces:
        check_trace(path, "TRACES")
    if root:
        check_trace(root, "--root")
    settings = given.get("settings", ())
    of_costs = [text for text in settings if text.strip().startswith("costs.")]
    of_processor = [text for text in settings if text not in of_costs]
    processor = _processor(given.get("processor", "skylake-sp"), of_processor)
    from mmu import options  # noqa: PLC0415  imports pydantic
    from mmu.config import ConfigError  # noqa: PLC0415

    asked = {name: given.get(name) for name in (*options.VM_OPTIONS, *options.RUN_OPTIONS)}
    asked["nested_dirty"] = not given.get("no_nested_dirty")
    try:
        return options.configured(
            traces, mode=mode, processor=processor, settings=of_costs, root=root or None, **asked
        )
    except ConfigError as error:
        raise InputError(f"{option_of(error.path)}: {error.text}") from None
    except InputError as error:
        raise InputError(f"--set costs: {error}") from None


def option_of(path: tuple[str | int, ...]) -> str:
    """Return the option that gives a field of the configuration its value."""
    names = [part for part in path if isinstance(part, str)]
    if names[0] in ("vms", "root") and len(names) > 1:
        return VM_OPTIONS.get(names[1], f"--{names[1].replace('_', '-')}")
    option = RUN_OPTIONS.get(names[0], f"--{names[0].replace('_', '-')}")
    return ".".join([option, *names[1:]])


def _processor(name: str, settings: list[str]) -> Any:
    """Return a processor; an error names the option that it is about."""
    try:
        processors.load_processor(name)
    except InputError as error:
        raise InputError(f"--processor: {error}") from None
    try:
        return processors.load_processor(name, settings)
    except InputError as error:
        raise InputError(f"--set {error}") from None


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress | None]:
    """Yield what takes the progress of a run, and draw it where standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415  slow to import
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TimeRemainingColumn,
    )

    columns = (SpinnerColumn(), "{task.description}", BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("starting, the first run compiles", total=None)

        def advance(done: int, total: int) -> None:
            what = "replaying" if total else f"{done:,} accesses"
            bar.update(task, completed=done, total=total or None, description=what)

        yield advance


def deliver(
    run: "Result | Comparison", outputs: Mapping[str, str], loud: "RunConfig | None"
) -> None:
    """Write the files that were asked for, and print the report if the run is to be `loud`."""
    from mmu import report  # noqa: PLC0415
    from mmu.result import Comparison, long_table  # noqa: PLC0415

    if "json" in outputs:
        run.save(outputs["json"])
    if "csv" in outputs:
        write_whole(outputs["csv"], csv_text(long_table(run)))
    if "figure" in outputs:
        from mmu.plot import save_figure  # noqa: PLC0415  imports matplotlib

        comparison = run if isinstance(run, Comparison) else Comparison({run.mode: run})
        save_figure(comparison, outputs["figure"])
    if loud is None:
        return
    for note in processors.notes(loud.processor):
        click.echo(f"mmu: note: {note}", err=True)
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415  slow to import

        report.show(run, Console(highlight=False))
    else:
        click.echo("\n".join(report.lines(run)))


def message(error: click.ClickException) -> str:
    """Return what is wrong with the arguments, without the usage that click puts before it."""
    if isinstance(error, click.NoSuchOption):
        known = [] if error.ctx is None else error.ctx.command.params
        options = [name for param in known for name in param.opts if name.startswith("--")]
        hint = units.nearest(error.option_name, [*options, "--help"])
        return f"no option {units.shown(error.option_name)}{hint}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        accepted = error.param.make_metavar(error.ctx) if error.ctx else "a value"
        return f"{_name_of(error.param)}: found nothing; accepted: {accepted}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_name_of(error.param)}: {error.message}"
    return error.format_message()


def _name_of(parameter: click.Parameter) -> str:
    long = [name for name in parameter.opts if name.startswith("--")]
    return long[0] if long else parameter.human_readable_name.upper()


def fail(text: str, status: int) -> int:
    """Say on one line what is wrong, and return the exit status."""
    click.echo(f"mmu: error: {' '.join(text.split())}", err=True)
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    with suppress(ValueError):  # not in the main thread, which signals come to
        for terminating in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(terminating, stop)  # else what is half written would stay
    try:
        status = cli.main(arguments, prog_name="mmu", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return fail(message(error), USAGE)
    except MmuError as error:
        return fail(str(error), USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mmu: interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has seen enough, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno == errno.ENOSPC:
            with suppress(
                OSError, ValueError
            ):  # what is buffered cannot be written at the end either
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return fail(f"cannot write: {error.strerror}; make room, or write elsewhere", FAILED)
        return unexpected(error)
    except MemoryError:
        return fail("this system has no memory left for the run; choose fewer traces", FAILED)
    except Exception as error:
        return unexpected(error)
    return status if isinstance(status, int) else 0


def unexpected(error: Exception) -> int:
    """Say in one line that mmu itself is at fault, or show where if the user asks for it."""
    if os.environ.get("MMU_TRACEBACK"):
        raise error
    hint = "a fault of mmu itself; MMU_TRACEBACK=1 shows where"
    return fail(f"{type(error).__name__}: {error} ({hint})", FAILED)


def stop(number: int, _: object) -> None:
    """End as a signal asks, but by way of every clean-up."""
    sys.exit(128 + number)
