"""Whose tables translate, and how the processor is set: options that walk and translate share.

`space_options` adds where tables stand, `access_options` what the access does, `control_options` how
the processor is set. All are judged by `check_space` before anything heavy is imported; `space_of`
then opens what they name.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from mmu import units
from mmu.cli.arguments import ADDRESS, Command, Parsed
from mmu.errors import InputError
from mmu.files import check_trace

if TYPE_CHECKING:
    from mmu.memory import Memory
    from mmu.paging import Control, Ept, Npt

ACCESSES = ("read", "write", "fetch")
NESTED_LEVELS = ("4", "5")

ACCESS = Parsed("|".join(ACCESSES), lambda value: units.parse_choice(value, ACCESSES))
DEPTH = Parsed("|".join(NESTED_LEVELS), lambda value: units.parse_choice(value, NESTED_LEVELS))
WIDTH = Parsed("N", lambda value: units.parse_count(value, least=32, most=52))

SPACE = [
    click.option("--image", metavar="FILE", help="Memory: raw, ELF core or LiME dump."),
    click.option("--cr3", type=ADDRESS, metavar="ADDRESS", help="Root of the guest's tables."),
    click.option("--eptp", type=ADDRESS, metavar="ADDRESS", help="EPT pointer: nested, Intel."),
    click.option("--ncr3", type=ADDRESS, metavar="ADDRESS", help="nCR3: nested, AMD."),
    click.option(
        "--nested-levels", type=DEPTH, metavar="4|5", help="Levels of tables below nCR3.  [default: 4]"
    ),
]  # fmt: skip
ACCESS_OPTIONS = [
    click.option(
        "--access", type=ACCESS, metavar=ACCESS.name, help="What the access does.  [default: read]"
    ),
    click.option("--write", is_flag=True, help="The same as --access write."),
    click.option("--fetch", is_flag=True, help="The same as --access fetch."),
    click.option("--supervisor", is_flag=True, help="It is the supervisor's, not the user's."),
]
# (flag, help); in `given` by the name that click makes of the flag.
SWITCHES = [
    ("--no-wp", "CR0.WP is clear: the supervisor writes to read-only pages."),
    ("--no-nxe", "EFER.NXE is clear: bit 63 of an entry is reserved."),
    ("--smep", "CR4.SMEP: the supervisor must not fetch from user pages."),
    ("--smap", "CR4.SMAP: the supervisor must not read or write user pages."),
    ("--ac", "RFLAGS.AC: suspends SMAP."),
    ("--la57", "CR4.LA57: guest tables have five levels."),
    ("--no-gbpages", "The processor has no 1 GiB pages, in either dimension."),
    ("--no-host-nxe", "The host's EFER.NXE is clear; with --ncr3."),
    ("--no-execute-only", "An EPT entry that permits fetches alone is malformed; with --eptp."),
]


def space_options(command: Command) -> Command:
    """Add where tables stand: in an image of memory."""
    return _added(command, SPACE)


def access_options(command: Command) -> Command:
    """Add what the access does, and whose it is."""
    return _added(command, ACCESS_OPTIONS)


def control_options(command: Command) -> Command:
    """Add the guest's control bits, and what the processor has."""
    options = [click.option(flag, is_flag=True, help=text) for flag, text in SWITCHES]
    width = click.option(
        "--maxphyaddr", type=WIDTH, metavar="N", help="Bits of physical addresses.  [default: 48]"
    )
    return _added(command, [*options, width])


def _added(command: Command, options: list[Any]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


class Space(NamedTuple):
    """Arguments of `mmu.translate`: where the tables stand and how the processor is set."""

    memory: "Memory"
    cr3: int
    nested: "Ept | Npt | None"
    control: "Control"


def access_of(given: Mapping[str, Any]) -> str:
    """Return what the access does; its three options may say it once."""
    asked = [
        given.get("access"),
        *(name for name in ("write", "fetch") if given.get(name)),
    ]
    found = {name for name in asked if name}
    if len(found) > 1:
        raise InputError(f"--access: found {' and '.join(sorted(found))}; accepted: one of them")
    return found.pop() if found else "read"


def check_space(given: Mapping[str, Any]) -> None:
    """Refuse options that do not name one set of tables in an image, before anything is imported."""
    access_of(given)
    if not given.get("image"):
        raise InputError("--image: found nothing; accepted: a file with the memory of a machine")
    if given.get("cr3") is None:
        raise InputError(
            "--cr3: found nothing; accepted: the address of the root, as of info registers"
        )
    check_nested(given)
    check_trace(given["image"], "--image", "a raw image, an ELF core or a LiME dump")


def check_nested(given: Mapping[str, Any]) -> None:
    """Refuse options of nested tables that do not go together."""
    ept, npt = given.get("eptp") is not None, given.get("ncr3") is not None
    if ept and npt:
        raise InputError(
            "--eptp, --ncr3: found both; accepted: one of them, or none for no nesting"
        )
    for name, fits, of in (
        ("nested_levels", npt, "--ncr3; an EPT pointer says how many levels it has"),
        ("no_host_nxe", npt, "--ncr3"),
        ("no_execute_only", ept, "--eptp"),
    ):
        if given.get(name) and not fits:
            raise InputError(f"--{name.replace('_', '-')}: accepted: only together with {of}")


def control_of(given: Mapping[str, Any]) -> "Control":
    """Return how the processor is set."""
    from mmu.paging import Control  # noqa: PLC0415  imports NumPy

    width = given.get("maxphyaddr")
    return Control(
        wp=not given.get("no_wp"),
        nxe=not given.get("no_nxe"),
        smep=bool(given.get("smep")),
        smap=bool(given.get("smap")),
        ac=bool(given.get("ac")),
        la57=bool(given.get("la57")),
        gbpages=not given.get("no_gbpages"),
        maxphyaddr=48 if width is None else width,
    )


def nested_of(given: Mapping[str, Any]) -> "Ept | Npt | None":
    """Return the nested tables that options point to."""
    from mmu.paging import Ept, Npt  # noqa: PLC0415  imports NumPy

    large = not given.get("no_gbpages")
    try:
        if given.get("eptp") is not None:
            return Ept(given["eptp"], execute_only=not given.get("no_execute_only"), gbpages=large)
        if given.get("ncr3") is not None:
            return Npt(
                given["ncr3"],
                nxe=not given.get("no_host_nxe"),
                levels=int(given.get("nested_levels") or 4),
                gbpages=large,
            )
    except InputError as error:
        raise InputError(f"--{error}") from None
    return None


def space_of(given: Mapping[str, Any]) -> Space:
    """Open the image that options name; `check_space` comes first.

    Raises
    ------
    InputError
        The image is none that can be read, or a pointer none that a processor accepts.
    """
    import mmu  # noqa: PLC0415

    nested, control = nested_of(given), control_of(given)
    try:
        memory = mmu.Memory.open(given["image"])
    except InputError as error:
        raise InputError(f"--image: {error}") from None
    return Space(memory, given["cr3"], nested, control)
