"""Keeps a window of a raw trace: a recorder's log begins with the program's start-up."""

from collections.abc import Callable, Iterator

from mmu.errors import InputError
from mmu.trace.format import Raw, rows
from mmu.trace.notes import Notes


def window(
    parts: Iterator[Raw],
    where: str,
    skip: int = 0,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
    notes: Notes | None = None,
) -> Iterator[Raw]:
    """Yield a raw trace's accesses from `skip` on, at most `limit`; what follows is not read.

    Parameters
    ----------
    parts : iterator of Raw
    where : str
        What errors call the trace.
    skip, limit : int
        Accesses, after those that cross a 4 KiB boundary have been split.
    progress : callable, optional
        Called with the number of accesses read so far.
    notes : Notes, optional
        What has been passed over, for the error where nothing else was there.

    Raises
    ------
    InputError
        `skip` or `limit` make no sense, or nothing is left after `skip`.
    """
    if skip < 0 or (limit is not None and limit < 1):
        raise InputError(
            f"{where}: a window that skips {skip} and keeps {limit} accesses; "
            "accepted: skip from 0, limit from 1"
        )
    read = 0
    for part in parts:
        accesses = len(part.kind)
        first = max(skip - read, 0)
        last = accesses if limit is None else min(skip + limit - read, accesses)
        read += accesses
        if progress is not None:
            progress(read)
        if first < last:
            yield rows(part, first, last)
        if limit is not None and read >= skip + limit:
            return
    if read <= skip:
        asked = f", and {skip:,} are to be skipped; skip fewer" if skip else "; record it again"
        passed = notes.passed.most_common(3) if notes is not None and not read else []
        instead = ", ".join(f"{times:,} {what}" for what, times in passed)
        found = f" but {instead}" if instead else ""
        raise InputError(f"{where}: holds {read or 'no'} accesses{found}{asked}")
