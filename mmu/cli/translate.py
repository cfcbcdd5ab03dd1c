"""Translations: addresses through the tables of an image, or all that these map."""

import sys
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

import click

from mmu import units
from mmu.cli.arguments import POSITIVE, Parsed
from mmu.cli.progress import progress_bar
from mmu.cli.space import (
    access_of,
    access_options,
    check_space,
    control_options,
    space_of,
    space_options,
)
from mmu.errors import InputError
from mmu.files import check_outputs, check_trace, write_whole

if TYPE_CHECKING:
    from mmu.report_map import Report

MERGED = ("frames", "rights")
STANDARD_INPUT = "-"
MOST_ADDRESSES = 1_000_000  # 0.8 GB while they are told in JSON
LONGEST_LINE = 1000
MERGE = Parsed("|".join(MERGED), lambda value: units.parse_choice(value, MERGED))
OF_ALL = ("merge", "most")
OF_ADDRESSES = ("addresses_from", "access", "write", "fetch", "supervisor")


@click.command()
@click.argument("addresses", nargs=-1, metavar="[ADDRESS...]")
@click.option("--from", "addresses_from", metavar="FILE", help="More addresses, one a line.")
@click.option("--all", "whole", is_flag=True, help="List all pages that the tables map.")
@click.option(
    "--merge",
    type=MERGE,
    metavar=MERGE.name,
    help="Of --all: one range where frames follow one another, or rights agree.  [default: frames]",
)
@click.option(
    "--most", type=POSITIVE, metavar="N", help="Of --all: so many pages.  [default: 10,000,000]"
)
@space_options
@access_options
@control_options
@click.option("--json", "json", metavar="FILE", help="Write what is printed, and more.")
@click.option("--csv", "csv", metavar="FILE", help="Write a row for each line.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def translate(addresses: tuple[str, ...], **given: Any) -> None:  # fmt: skip
    """Translate each ADDRESS through the tables in an image, or list all that they map.

    An address that faults has an answer, too. - stands for addresses from standard input, one a line.
    The image is a raw one, an ELF core (such as QEMU's dump-guest-memory) or a LiME dump; --cr3 is
    the root of its tables.
    """
    check_question(addresses, given)
    check_space(given)
    source = given["addresses_from"]
    if source:
        check_trace(source, "--from", "a file with an address a line")
    outputs = check_outputs(given, tuple(path for path in (given["image"], source) if path))
    asked = [] if given["whole"] else list(asked_for(addresses, source))
    report = mapped(given) if given["whole"] else translated(asked, given)
    for kind, path in outputs.items():
        write_whole(path, report.json() if kind == "json" else report.csv())
    if not given["quiet"]:
        for line in report.lines():
            click.echo(line)


def check_question(addresses: tuple[str, ...], given: Mapping[str, Any]) -> None:
    """Refuse options that do not ask one thing."""
    asked = [*addresses, *([given["addresses_from"]] if given["addresses_from"] else [])]
    if given["whole"] and asked:
        raise InputError(
            f"--all: found {units.shown(asked[0])} as well; accepted: addresses, or --all for every page"
        )
    if not given["whole"] and not asked:
        raise InputError(
            "ADDRESS: found nothing; accepted: addresses, - for standard input, --from FILE, or --all"
        )
    for name in OF_ADDRESSES if given["whole"] else OF_ALL:
        if given[name]:
            other = "without --all, which tells what every access may do"
            raise InputError(
                f"--{name}: accepted: only {other if given['whole'] else 'with --all'}"
            )


def asked_for(addresses: tuple[str, ...], source: str | None) -> Iterator[int]:
    """Read addresses: those given, those of standard input in the place of ``-``, those of a file."""
    if addresses.count(STANDARD_INPUT) > 1:
        raise InputError("ADDRESS: found - twice; accepted: standard input once")
    left = MOST_ADDRESSES
    for text in addresses:
        read = listed(sys.stdin, "standard input") if text == STANDARD_INPUT else one(text)
        for address in read:
            left -= 1
            yield checked(address, left)
    if source:
        with open(source, encoding="utf-8", errors="backslashreplace") as file:
            for address in listed(file, source):
                left -= 1
                yield checked(address, left)


def checked(address: int, left: int) -> int:
    """Return the address, unless there are too many."""
    if left < 0:
        raise InputError(
            f"ADDRESS: found more than {MOST_ADDRESSES:,}; accepted: so many at once; give the rest to "
            "another run"
        )
    return address


def one(text: str) -> Iterator[int]:
    """Read an argument."""
    try:
        yield units.parse_address(text)
    except InputError as error:
        raise InputError(f"ADDRESS: {error}") from None


def listed(file: IO[str], name: str) -> Iterator[int]:
    """Read an address a line; empty lines say nothing."""
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), 1):
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            # Its rest would be read as a line of its own, and an address cut in two as two.
            raise InputError(
                f"{units.shown(name)}, line {number}: found {LONGEST_LINE:,} characters or more; "
                "accepted: an address a line"
            )
        text = line.strip()
        if not text:
            continue
        try:
            yield units.parse_address(text)
        except InputError as error:
            raise InputError(f"{units.shown(name)}, line {number}: {error}") from None


def translated(asked: list[int], given: Mapping[str, Any]) -> "Report":
    """Translate addresses."""
    import numpy as np  # noqa: PLC0415

    import mmu  # noqa: PLC0415
    from mmu.report_map import TranslationReport  # noqa: PLC0415

    space, access = space_of(given), access_of(given)
    addresses = np.array(asked, np.uint64)
    with progress_bar(given["quiet"], "translating"):
        found = mmu.translate_many(
            space.memory, addresses, cr3=space.cr3, nested=space.nested, control=space.control,
            access=access, user=not given["supervisor"],
        )  # fmt: skip
    return TranslationReport(addresses, found, space.nested)


def mapped(given: Mapping[str, Any]) -> "Report":
    """List all pages."""
    import mmu  # noqa: PLC0415
    from mmu.report_map import MapReport  # noqa: PLC0415

    space = space_of(given)
    limit = {} if given["most"] is None else {"most": given["most"]}
    with progress_bar(given["quiet"], "reading tables") as progress:
        try:
            found = mmu.mapping(
                space.memory, cr3=space.cr3, nested=space.nested, control=space.control,
                merge=given["merge"] or "frames", progress=progress, **limit,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"--{error}") from None
    return MapReport(found, space.nested)
