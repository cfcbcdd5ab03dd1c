"""The progress bar: on a terminal, and nowhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]


@contextmanager
def progress_bar(quiet: bool, doing: str = "replaying") -> Iterator[Progress | None]:
    """Yield what takes the progress of a run, and draw it where standard error is a terminal.

    `doing` is what the bar says while it is known how much there is to do.
    """
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
            what = doing if total else f"{done:,} accesses"
            bar.update(task, completed=done, total=total or None, description=what)

        yield advance
