"""Records the programs of recipes.py: ``make traces``, ``make traces NAMES="bfs sqlite"``.

Into a cache outside the checkout, a hundred million accesses each; with ``--bundled`` those of this
folder, ten million each. What is there already is not recorded again, and a trace is there whole or
not at all, so that what was interrupted goes on where it stopped.
"""

import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from time import monotonic
from typing import NoReturn

import click
from recipes import BUNDLED_ACCESSES, LONG_ACCESSES, RECIPES
from recorder import CORE, ENVIRONMENT, HEADERS, HERE, WORK, Job, library, record, work_folder

from mmu.cli.progress import progress_bar
from mmu.errors import InputError, MmuError

NEEDS = {
    "valgrind": "valgrind", str(HEADERS / "pub_tool_basics.h"): "valgrind", CORE: "valgrind",
    "gcc": "gcc", "setarch": "util-linux", "setpriv": "util-linux",
}  # fmt: skip
BYTES_AN_ACCESS = 0.12
BUNDLED_LEVEL = 15  # of zstd: a third smaller than by default, and ten times slower


def cache_folder() -> Path:
    """Return where long traces go: ``$MMU_TRACES``, or ``mmu/traces`` in the user's cache."""
    if named := os.environ.get("MMU_TRACES"):
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mmu" / "traces"


def jobs(names: tuple[str, ...], bundled: bool) -> list[Job]:
    """Return what the names ask for, by default every recipe."""
    accepted = [name for name, recipe in RECIPES.items() if not bundled or recipe.skip is not None]
    for name in names:
        if name not in accepted:
            raise InputError(f"no recipe {name!r}; accepted: {' '.join(accepted)}")
    found = []
    for name in dict.fromkeys(names or accepted):
        recipe = RECIPES[name]
        skip, limit, level, folder = recipe.long_skip, LONG_ACCESSES, None, cache_folder()
        if bundled and recipe.skip is not None:
            skip, limit, level, folder = recipe.skip, BUNDLED_ACCESSES, BUNDLED_LEVEL, HERE
        found.append(Job(name, recipe, skip, limit, folder / f"{name}.parquet", level))
    return found


def there(need: str) -> bool:
    """Tell whether a program or a file is there."""
    if need == CORE:
        return library() is not None
    if need.startswith("/"):
        return Path(need).exists()
    return shutil.which(need, path=ENVIRONMENT["PATH"]) is not None


def check_needs(wanted: list[Job]) -> None:
    """Refuse to begin what could not be ended.

    Raises
    ------
    InputError
        A program or a library is missing; the message names its Debian package.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise InputError(f"{sys.platform} on {platform.machine()}; recorded is on Linux, x86-64")
    needs = NEEDS.copy()
    for job in wanted:
        needs |= job.recipe.needs
    missing = [need for need in needs if not there(need)]
    if missing:
        packages = " ".join(dict.fromkeys(needs[need] for need in missing))
        raise InputError(
            f"there is no {', '.join(missing)}; on Debian: apt-get install {packages}; "
            "or name the traces to be recorded"
        )


def record_all(wanted: list[Job], again: bool) -> None:
    """Record what is not there yet, and say how it goes."""
    left = [job for job in wanted if again or not job.done()]
    folder = wanted[0].target.parent
    click.echo(f"{folder}: {len(wanted) - len(left)} of {len(wanted)} traces are there")
    if not left:
        return
    check_needs(left)
    minutes = max(sum(job.seconds() for job in left) / 60, 1)
    megabytes = sum(job.limit for job in left) * BYTES_AN_ACCESS / 1e6
    click.echo(
        f"recording {' '.join(job.name for job in left)}: about {minutes:.0f} min of two idle cores, "
        f"{megabytes:,.0f} MB there, and 0.5 GB in {WORK} meanwhile"
    )
    failed = []
    with work_folder():
        for job in left:
            try:
                click.echo(recorded(job))
            except MmuError as error:  # without a network DuckDB cannot be had, but the others can
                click.echo(f"record.py: {error}", err=True)
                failed.append(job.name)
    if failed:
        raise InputError(f"not recorded: {' '.join(failed)}")


def recorded(job: Job) -> str:
    """Record a trace, and return what there is to say of it."""
    begun = monotonic()
    with progress_bar(quiet=False) as bar:
        record(job, (lambda done: bar(done, 0)) if bar else None)
    size, seconds = job.target.stat().st_size / 1e6, monotonic() - begun
    return f"{job.name}: {job.limit:,} accesses, {size:.1f} MB, {seconds:.0f} s"


def stop(*_: object) -> NoReturn:
    """Leave as an interrupt does: by way of everything that cleans up."""
    raise KeyboardInterrupt


@click.command()
@click.argument("names", nargs=-1)
@click.option("--bundled", is_flag=True, help="The traces of this folder, instead of long ones.")
@click.option("--again", is_flag=True, help="Also those that are there.")
def main(names: tuple[str, ...], bundled: bool, again: bool) -> None:
    """Record the programs that NAMES say, by default all of recipes.py."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        record_all(jobs(names, bundled), again)
    except MmuError as error:
        click.echo(f"record.py: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
