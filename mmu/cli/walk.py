"""Walks: one address through its tables, step by step."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from mmu import units
from mmu.cli.arguments import ADDRESS, COUNT, FIGURE, MODE, Parsed
from mmu.cli.progress import progress_bar
from mmu.cli.run import MACHINE_OPTIONS, give_memory_back, machine_options, prepare
from mmu.cli.space import (
    Space,
    access_of,
    access_options,
    check_nested,
    check_space,
    control_of,
    control_options,
    space_of,
    space_options,
)
from mmu.errors import InputError
from mmu.files import check_outputs, csv_text, json_text, write_whole

if TYPE_CHECKING:
    from mmu.nearby import Nearest
    from mmu.walkthrough import Walkthrough

SIZES, NATIVE = ("4k", "2m", "1g"), "native"
FORMATS = ("ept", "npt")
EXAMPLE_ACCEPTED = "GUEST/NESTED, each 4k | 2m | 1g, NESTED also native, such as 4k/2m"


def parse_example(value: object) -> tuple[str, str]:
    """Return the sizes that ``"4k/2m"``, ``"2m/native"`` or ``"native"`` name."""
    if isinstance(value, tuple):
        return value
    text = str(value).strip().lower()
    guest, slash, nested = text.partition("/")
    if text == NATIVE:
        guest, slash, nested = "4k", "/", NATIVE
    if not slash or guest not in SIZES or nested not in (*SIZES, NATIVE):
        raise units.refusal(value, EXAMPLE_ACCEPTED)
    return guest, nested


EXAMPLE = Parsed("GUEST/NESTED", parse_example)
FORMAT = Parsed("ept|npt", lambda value: units.parse_choice(value, FORMATS))
# Options that say something about one source of tables alone, by what they are given for.
OF_IMAGE = ("cr3", "eptp", "ncr3", "no_host_nxe", "no_execute_only")
OF_EXAMPLE = ("nested",)
OF_REPLAY = (
    "vm", "space", "mode", "processor", "settings", "root", "page_maps",
    "no_nested_dirty", "no_pcid", "pinned", "no_migration_flush", "conflicts",
    *(flag[2:].replace("-", "_") for flag, *_ in MACHINE_OPTIONS),
)  # fmt: skip
REPLAY = "TRACES or --schedule"


@click.command()
@click.argument("address", type=ADDRESS, metavar="ADDRESS")
@click.argument("traces", nargs=-1, metavar="[TRACES...]")
@click.option(
    "--example",
    type=EXAMPLE,
    metavar=EXAMPLE.name,
    help="Tables made on the spot: 4k, 2m or 1g each, or native.  [default: 4k/4k]",
)
@click.option(
    "--nested", type=FORMAT, metavar=FORMAT.name, help="Nested format of it.  [default: ept]"
)
@space_options
@click.option("--vm", metavar="NAME", help="Which machine of a replay.  [default: the first]")
@click.option("--space", type=COUNT, metavar="N", help="Which space of it.  [default: the first]")
@access_options
@control_options
@click.option("--mode", type=MODE, help="Of a replay, as in compare.  [default: tagged]")
@machine_options
@click.option("--json", "json", metavar="FILE", help="Write the walk.")
@click.option("--csv", "csv", metavar="FILE", help="Write a row for each table read.")
@click.option("--figure", type=FIGURE, metavar="FILE", help="Draw its grid: .png or .svg.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def walk(address: int, traces: tuple[str, ...], **given: Any) -> None:  # fmt: skip
    """Walk ADDRESS through its tables, and show every table read, bit by bit.

    The tables are an example's; those at the end of a replay of TRACES, with the options of replay;
    or those in an image, with --image and --cr3.
    """
    access = access_of(given)
    source = source_of(traces, given)
    if source == "image":
        check_space(given)
        outputs = check_outputs(given, (given["image"],))
        space = space_of(given)
    elif source == "replay":
        space, outputs = replayed(traces, given)
    else:
        outputs = check_outputs(given, ())
        space = made(address, given)
    from mmu.walkthrough import explain  # noqa: PLC0415  imports Numba

    if given["no_gbpages"] and space.nested:
        space = space._replace(nested=replace(space.nested, gbpages=False))
    told = explain(
        space.memory, address, cr3=space.cr3, nested=space.nested, control=space.control,
        access=access, user=not given["supervisor"],
    )  # fmt: skip
    deliver(space, told, outputs, given["quiet"])


def source_of(traces: tuple[str, ...], given: Mapping[str, Any]) -> str:
    """Return where tables come from: ``example``, ``image`` or ``replay``; refuse what is of another."""
    sources = {
        "--example": given.get("example") is not None,
        "--image": bool(given.get("image")),
        REPLAY: bool(traces or given.get("schedule")),
    }
    asked = [name for name, there in sources.items() if there]
    if len(asked) > 1:
        raise InputError(f"found {' and '.join(asked)}; accepted: one of them")
    found = asked[0] if asked else "--example"
    fits = {"--image": OF_IMAGE, "--example": OF_EXAMPLE, REPLAY: OF_REPLAY}
    for source, names in fits.items():
        wrong = [name for name in names if given_at_all(given.get(name))]
        if wrong and source != found:
            option = {"settings": "set", "page_maps": "page-map"}.get(wrong[0], wrong[0])
            option = option.replace("_", "-")
            raise InputError(f"--{option}: accepted: only together with {source}")
    if found == REPLAY:
        for name in ("la57", "nested_levels"):
            if given.get(name):
                option = name.replace("_", "-")
                raise InputError(
                    f"--{option}: accepted: not of a replay, whose tables have 4 levels"
                )
        return "replay"
    return found.removeprefix("--")


def given_at_all(value: object) -> bool:
    """Tell whether an option was given; the address 0 is."""
    return value is not None and value is not False and value != ()


def made(address: int, given: Mapping[str, Any]) -> Space:
    """Return tables made for the address."""
    guest, nested = given.get("example") or ("4k", "4k")
    if nested == NATIVE and (given.get("nested") or given.get("nested_levels")):
        raise InputError("--nested: accepted: not with native, which has no nested tables")
    from mmu.example import example_tables  # noqa: PLC0415  imports NumPy

    example = example_tables(
        guest, nested, gva=address, format=given.get("nested") or "ept",
        levels=5 if given["la57"] else 4, nested_levels=int(given.get("nested_levels") or 4),
    )  # fmt: skip
    return Space(example.memory, example.cr3, example.nested, control_of(given))


def replayed(traces: tuple[str, ...], given: Mapping[str, Any]) -> tuple[Space, dict[str, str]]:
    """Replay, and return the tables of a space of one machine; and the files to write."""
    check_nested(given)
    config, outputs = prepare(traces, given.get("mode"), given)
    names = [vm.name for vm in (config.root, *config.vms) if vm]
    name = given.get("vm") or config.vms[0].name
    if name not in names:
        hint = units.nearest(name, names)
        raise InputError(f"--vm: found {units.shown(name)}; accepted: {', '.join(names)}{hint}")
    with progress_bar(given["quiet"]) as progress:
        from mmu.run import Replay  # noqa: PLC0415  compiles

        give_memory_back()
        replay = Replay(config)
        replay.run(progress)
    number = given.get("space")
    if number is None:
        ran = [space for vm, space in replay.host.contexts if replay.host.names[vm] == name]
        number = min(ran, default=0)
    try:
        place = replay.space(name, number)
    except InputError as error:
        raise InputError(f"--{error}") from None
    return Space(replay.memory, control=control_of(given), **place), outputs


def deliver(space: Space, told: "Walkthrough", outputs: Mapping[str, str], quiet: bool) -> None:
    """Write the files that were asked for, and print the walk."""
    from mmu.nearby import nearest_mapped  # noqa: PLC0415
    from mmu.report_walk import lines  # noqa: PLC0415

    near = nearest_mapped(space.memory, told)
    if "json" in outputs:
        write_whole(outputs["json"], json_text(told.plain() | near_plain(near)))
    if "csv" in outputs:
        write_whole(outputs["csv"], csv_text(told.table()))
    if "figure" in outputs:
        from mmu.plot_walk import save_figure  # noqa: PLC0415  imports matplotlib

        save_figure(told, outputs["figure"])
    if not quiet:
        click.echo("\n".join([*lines(told), *near_lines(near)]))


def near_plain(near: "Nearest") -> dict[str, str | None]:
    """Return the nearest mapped addresses as plain values."""
    return {
        f"mapped_{side}": None if address is None else f"{address:#x}"
        for side, address in near._asdict().items()
    }


def near_lines(near: "Nearest") -> list[str]:
    """Return the nearest mapped addresses as a line, if there are any."""
    found = [
        f"{address:#x} {side}" for side, address in near._asdict().items() if address is not None
    ]
    return [f"  mapped nearby: {', '.join(found)}"] if found else []
