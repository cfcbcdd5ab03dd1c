"""Replays: from options to a configuration, and from a result to files and a report."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmu import processors, units
from mmu.cli.arguments import (
    BACKING,
    COUNT,
    MODE,
    MODES,
    PAGES,
    POSITIVE,
    PROCESSOR,
    PROCESSORS,
    QUANTUM,
    SHARE,
    SIZE,
    STARTS,
    TABLE_READS,
    WEIGHTS,
    WINDOW,
    Command,
    Parsed,
    output_options,
)
from mmu.cli.processors import processor_of
from mmu.cli.progress import progress_bar
from mmu.errors import InputError
from mmu.files import check_outputs, check_trace, csv_text, read_toml, write_whole
from mmu.schedule import MOST_BYTES
from mmu.values import Vary, parse_vary

if TYPE_CHECKING:
    from mmu.config import RunConfig
    from mmu.result import Comparison, Result

DEMO = {"quantum": "50us", "exits_per_second": 20_000}
# Where a field of the configuration comes from on the command line, if not from its own name.
RUN_OPTIONS = {"memory": "--host-memory", "vms": "TRACES", "costs": "--set costs"}
VM_OPTIONS = {"trace": "TRACES", "weight": "--weights", "start": "--starts"}
NOTHING_TO_RUN = "TRACES: found nothing; accepted: TRACES..., or --schedule FILE"

# (flag, type, default that the configuration has, help). A flag not given is not passed on.
MACHINE_OPTIONS: list[tuple[str, Parsed, str | None, str]] = [
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
    ("--weights", WEIGHTS, None, "Quanta that a turn of each machine lasts, in order."),
    ("--starts", STARTS, None, "When each may run first: 0, us, ms, s, cycles or accesses."),
    ("--exits-per-second", COUNT, "0", "Exits to the hypervisor inside a turn."),
    ("--exit-code-pages", COUNT, "8", "Pages that the hypervisor fetches from at an exit."),
    ("--exit-data-pages", COUNT, "8", "Pages that it reads and writes, for each machine its own."),
    ("--warm-up", COUNT, "0", "Accesses, of all machines, that are not counted."),
    ("--repeat", POSITIVE, "1", "Times that each trace runs."),
    ("--lps", PROCESSORS, "1", "Logical processors, each with its own TLBs and clock."),
    ("--vcpus", PROCESSORS, "1", "Virtual processors of each machine, for its processes."),
    ("--shootdowns-per-second", COUNT, "0", "Invalidations of a machine on all processors."),
    (
        "--table-reads", TABLE_READS, None,
        "What reading a table costs: one latency, or what data caches say, of the walker alone or "
        "shared with the accesses of raw traces.  [default: walker if the processor has them]",
    ),
    ("--window", WINDOW, "0", "Instructions that may follow an unfinished walk; 0: none."),
]  # fmt: skip
NUMERIC = {kind.name for kind in (SIZE, SHARE, COUNT, QUANTUM)}
VARIED = {flag[2:]: kind for flag, kind, *_ in MACHINE_OPTIONS if kind.name in NUMERIC}
_JUDGES = {name: kind.parse for name, kind in VARIED.items()}
VARY = Parsed("NAME=VALUES", lambda value: parse_vary(value, _JUDGES))
SWEPT = ("tagged", "purge", "flush")  # modes in which a value is varied, if none are named


def run_options(command: Command) -> Command:
    """Add what `compare` and `replay` have in common."""
    return machine_options(output_options(command))


def machine_options(command: Command) -> Command:
    """Add what says what is to be run."""
    options = [
        click.option(
            "--schedule", metavar="FILE",
            help="What to run, in TOML, instead of TRACES; options replace what it says.",
        ),
        click.option(
            "--processor", type=PROCESSOR, metavar="NAME",
            help="A name that 'mmu processors' lists, or a TOML file.  [default: skylake-sp]",
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
            for flag, kind, default, text in MACHINE_OPTIONS
        ),
        click.option(
            "--no-nested-dirty", is_flag=True,
            help="Nested tables have no accessed and dirty bits (EPTP bit 6 clear).",
        ),
        click.option(
            "--no-pcid", is_flag=True,
            help="A guest's change of address space drops its entries, for want of PCIDs.",
        ),
        click.option(
            "--pinned", is_flag=True,
            help="Virtual processor n stays on logical processor n, modulo their number.",
        ),
        click.option(
            "--no-migration-flush", is_flag=True,
            help="A virtual processor that arrives from another logical one drops nothing.",
        ),
        click.option(
            "--conflicts", is_flag=True, help="Tell misses of conflict from those of capacity."
        ),
        click.option("--root", metavar="TRACE", help="Trace of the root partition."),
        click.option(
            "--page-map", "page_maps", multiple=True, metavar="[VM=]FILE",
            help="Where a machine's pages were when it was recorded: of VM, or of all without their own.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("traces", nargs=-1, metavar="TRACES...")
@click.option(
    "--modes", type=MODES,
    help=f"Modes to compare, in this order.  [default: {','.join(units.MODES)}; "
    f"with --vary {','.join(SWEPT)}]",
)  # fmt: skip
@click.option(
    "--vary", "varied", type=VARY, multiple=True, metavar="NAME=VALUES",
    help="Run with each of several values of an option, or of a value as in --set: "
    "quantum=20us,50us,1ms, exits-per-second=1000..64000:7 (so many, in equal ratios).",
)  # fmt: skip
@run_options
def compare(
    traces: tuple[str, ...], modes: tuple[str, ...] | None, varied: tuple[Vary, ...], **given: Any
) -> None:
    """Replay TRACES as virtual machines of one processor, and set modes side by side.

    tagged: entries are tagged by machine and stay; purge: a switch drops those of the machine that
    leaves; flush: no tags, each exit and switch drops all; native: no hypervisor.
    """
    if len(varied) > 1:
        raise InputError(f"--vary: found {len(varied)} of them; accepted: one")
    if varied:
        from mmu.cli.sweep import sweep  # noqa: PLC0415  which builds on this file

        sweep(traces, modes or SWEPT, varied[0], given)
    else:
        _compare(traces, modes or units.MODES, given)


@click.command()
@click.argument("traces", nargs=-1, metavar="TRACES...")
@click.option("--mode", type=MODE, help="As in compare.  [default: tagged]")
@click.option(
    "--check", is_flag=True,
    help="Compare what TLBs and walk caches answer with an uncached walk; TRACES must be raw.",
)  # fmt: skip
@run_options
def replay(traces: tuple[str, ...], mode: str | None, check: bool, **given: Any) -> None:
    """Replay TRACES as virtual machines of one processor in one mode, with everything counted."""
    config, outputs = prepare(traces, mode, given)
    with progress_bar(given["quiet"]) as progress:
        from mmu.run import replay_config  # noqa: PLC0415  compiles

        give_memory_back()
        result = replay_config(config, progress, check)
    deliver(result, outputs, None if given["quiet"] else config)
    if check and not given["quiet"]:
        click.echo("\nChecked: at each access, the caches answered what the tables say.")


@click.command()
@click.argument("folder", required=False)
@output_options
def demo(folder: str | None, **given: Any) -> None:
    """Compare all modes on the traces of FOLDER, by default those that come with mmu."""
    paths = demo_traces(folder)
    _compare(tuple(map(str, paths)), units.MODES, given | DEMO)


def _compare(traces: tuple[str, ...], modes: tuple[str, ...], given: dict[str, Any]) -> None:
    config, outputs = prepare(traces, modes[0], given)
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
    places = [Path(folder)] if folder else [Path(__file__).parents[2] / "traces", Path("traces")]
    for place in places:
        if found := sorted(place.glob("*.parquet")):
            return found
    accepted = "a folder with Parquet traces, such as 'traces' of a checkout"
    raise InputError(f"FOLDER: found no trace in {str(places[0])!r}; accepted: {accepted}")


def prepare(
    traces: tuple[str, ...], mode: str | None, given: Mapping[str, Any]
) -> tuple["RunConfig", dict[str, str]]:
    """Return the run that is asked for, and the files to write, none of which the run reads."""
    schedule = given.get("schedule")
    if not traces and not schedule:
        raise InputError(NOTHING_TO_RUN)
    maps = tuple(page_map_files(given.get("page_maps", ())))
    outputs = check_outputs(given, (*traces, schedule, *maps) if schedule else (*traces, *maps))
    if schedule:
        read_toml(schedule, MOST_BYTES)  # before anything heavy is imported to make sense of it
    config = configure(traces, mode, given)
    if schedule:
        named = [process.trace for vm in config.machines for process in vm.streams]
        named += [vm.page_map for vm in config.machines if vm.page_map]
        check_outputs(given, (schedule, *named, *maps))
    return config, outputs


def configure(traces: tuple[str, ...], mode: str | None, given: Mapping[str, Any]) -> "RunConfig":
    """Return the run that the command line asks for; an error names the option to change."""
    return with_page_maps(_without_maps(traces, mode, given), given.get("page_maps", ()))


def _without_maps(
    traces: tuple[str, ...], mode: str | None, given: Mapping[str, Any]
) -> "RunConfig":
    root = given.get("root")
    for path in traces:
        check_trace(path, "TRACES")
    if root:
        check_trace(root, "--root")
    from mmu import options  # noqa: PLC0415  imports pydantic
    from mmu.strict import ConfigError  # noqa: PLC0415

    names = (*options.VM_OPTIONS, *options.LIST_OPTIONS, *options.RUN_OPTIONS)
    asked: dict[str, Any] = {name: given.get(name) for name in names}
    for name in ("nested_dirty", "pcid", "migration_flush"):
        asked[name] = False if given.get(f"no_{name}") else None
    for name in ("pinned", "conflicts"):
        asked[name] = True if given.get(name) else None
    asked |= {"mode": mode, "root": root or None}
    settings, processor = given.get("settings", ()), given.get("processor")
    if given.get("schedule"):
        asked |= {"schedule": given["schedule"], "processor": processor, "settings": settings}
        return _configured(options.configured, traces, asked, "")
    of_costs = [text for text in settings if text.strip().startswith("costs.")]
    of_processor = [text for text in settings if text not in of_costs]
    asked["processor"] = processor_of(processor or "skylake-sp", of_processor)
    asked["settings"] = of_costs
    try:
        return _configured(options.configured, traces, asked, "--set costs: ")
    except ConfigError as error:
        raise InputError(f"{option_of(error.path)}: {error.text}") from None


def _configured(
    configured: Callable[..., "RunConfig"],
    traces: tuple[str, ...],
    asked: Mapping[str, Any],
    otherwise: str,
) -> "RunConfig":
    """Return the run; an error that is no field's is of an option that is a list, or `otherwise`."""
    from mmu.strict import ConfigError  # noqa: PLC0415  imports pydantic

    try:
        return configured(traces, **asked)
    except ConfigError:
        raise
    except InputError as error:
        option = str(error).startswith(("weights:", "starts:"))
        raise InputError(f"{'--' if option else otherwise}{error}") from None


def page_map_files(texts: tuple[str, ...]) -> Iterator[str]:
    """Yield what may be a file in ``FILE`` or ``VM=FILE``."""
    for text in texts:
        yield from filter(None, (text, text.partition("=")[2]))


def with_page_maps(config: "RunConfig", texts: tuple[str, ...]) -> "RunConfig":
    """Return the run with page maps: ``VM=FILE`` of one virtual machine, ``FILE`` of all others."""
    from mmu.config import RunConfig, VmConfig  # noqa: PLC0415  imports pydantic
    from mmu.strict import ConfigError  # noqa: PLC0415

    if not texts:
        return config
    names = [vm.name for vm in config.machines]
    own: dict[str | None, str] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        of = name if equals and (name in names or not Path(text).exists()) else None
        if of is not None and of not in names:
            accepted = f"{', '.join(names)}{units.nearest(of, names)}"
            raise InputError(
                f"--page-map: no virtual machine {units.shown(of)}; accepted: {accepted}"
            )
        if of in own:
            whose = "all machines" if of is None else f"{of}"
            raise InputError(
                f"--page-map: found two for {whose}: {own[of]!r} and {text!r}; accepted: one for each, "
                f"such as {names[0]}=FILE; 'mmu trace pagemap' joins the maps of several spaces"
            )
        own[of] = text if of is None else file
        check_trace(own[of], "--page-map", "a page map that can be read")
    given = {name: getattr(config, name) for name in RunConfig.model_fields}

    def mapped(vm: VmConfig) -> VmConfig:
        fields = {name: getattr(vm, name) for name in VmConfig.model_fields}
        return VmConfig(**fields | {"page_map": own.get(vm.name, own.get(None, vm.page_map))})

    try:
        given["vms"] = [mapped(vm) for vm in config.vms]
        given["root"] = config.root and mapped(config.root)
        return RunConfig(**given)
    except ConfigError as error:
        raise InputError(f"{option_of(error.path)}: {error.text}") from None


def option_of(path: tuple[str | int, ...]) -> str:
    """Return the option that gives a field of the configuration its value."""
    names = [part for part in path if isinstance(part, str)]
    if names[0] in ("vms", "root") and len(names) > 1:
        return VM_OPTIONS.get(names[1], f"--{names[1].replace('_', '-')}")
    option = RUN_OPTIONS.get(names[0], f"--{names[0].replace('_', '-')}")
    return ".".join([option, *names[1:]])


def deliver(
    run: "Result | Comparison", outputs: Mapping[str, str], loud: "RunConfig | None"
) -> None:
    """Write the files that were asked for, and print the report if the run is to be `loud`."""
    from mmu import report  # noqa: PLC0415
    from mmu.result import long_table  # noqa: PLC0415

    if "json" in outputs:
        run.save(outputs["json"])
    if "csv" in outputs:
        write_whole(outputs["csv"], csv_text(long_table(run)))
    if "figure" in outputs:
        from mmu.plot import save_figure  # noqa: PLC0415  imports matplotlib

        save_figure(run, outputs["figure"])
    if loud is not None:
        say_notes(loud)
        print_report(report, run)


def say_notes(config: "RunConfig") -> None:
    """Say on standard error what a setting changed besides what it names, or did not change."""
    for note in (*processors.notes(config.processor), *processors.unused(config)):
        click.echo(f"mmu: note: {note}", err=True)


def print_report(report: Any, run: Any) -> None:
    """Print what a module of reports makes of a run: on a terminal with its colours, else as text."""
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415  slow to import

        report.show(run, Console(highlight=False))
    else:
        click.echo("\n".join(report.lines(run)))
