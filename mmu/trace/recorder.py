"""Records a program's accesses while it runs."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing

from mmu.errors import InputError
from mmu.trace.compact import fold
from mmu.trace.format import Part, Raw
from mmu.trace.qemu.recorder import under_qemu
from mmu.trace.reader import Trace, open_trace
from mmu.trace.session import Session
from mmu.trace.valgrind import all_processes, one_process
from mmu.trace.window import window
from mmu.trace.writer import write_trace


def record(
    command: Sequence[str],
    out: str | os.PathLike[str],
    compact: bool = False,
    skip: int = 0,
    limit: int | None = None,
    children: bool = False,
    progress: Callable[[int], None] | None = None,
    level: int | None = None,
    environment: Mapping[str, str] | None = None,
    aslr: bool = True,
    qemu: bool = False,
) -> Trace:
    """Run a program under valgrind's lackey, or QEMU, and write the accesses that it makes.

    The program has our standard input, output and error. It runs about a thousand times slower than
    by itself, under QEMU a hundred times. Nothing but the trace is written: records go through a pipe.

    Parameters
    ----------
    command : sequence of str
        The program, searched in ``PATH``, and its arguments.
    out : path
        The trace to write. It appears when the program has ended, or has been ended at the limit.
    compact : bool
        Fold accesses, see `mmu.trace.compact`.
    skip, limit : int, optional
        Keep at most `limit` accesses after the first `skip`, and end the program then: by SIGTERM,
        and a second later by SIGKILL, with all processes that it has started.
    children : bool
        Record the program's children too. Each address space gets a number in the column ``space``,
        in order of appearance: a new process has one, and a process that runs another program gets
        another one. The order between them is that of arrival, in whole blocks of 4,096 accesses.
    progress : callable, optional
        Called now and then with the number of accesses so far.
    level : int, optional
        Of the compression, see `mmu.trace.writer`.
    environment : mapping of str to str, optional
        The program's environment, by default ours.
    aslr : bool
        False: ask the kernel not to randomise addresses, so that another recording can be equal.
    qemu : bool
        Record under QEMU's user-mode emulation, with a plugin that is compiled when it is first used.
        Faster, and with the column ``thread``; the threads' order is that of full buffers, 8,184
        accesses each. Not with `children`: QEMU does not follow a process that runs another program.

    Returns
    -------
    Trace
        What has been written. Its metadata tell ``command``, ``tool``, ``tool_version``, ``ended``
        (``"exit status 1"``, ``"signal SIGSEGV"``, ``"stopped at the limit"``, ``"interrupted"``) and
        if the program has ended by itself ``exit_status``, 128 and the signal's number if by one.
        With `children`, ``processes``: number, command and accesses of each address space.

    Raises
    ------
    InputError
        Valgrind, or QEMU, is not installed, there is no such program, it has ended before the first
        access to be kept, or the trace cannot be written.
    KeyboardInterrupt
        Interrupted before the first access to be kept, or for the second time.

    Notes
    -----
    The first SIGINT ends the recording, and what has been recorded is kept; only in the main thread.
    After any other end there is no trace, and no process is left, even if the recorder was killed.
    """
    if qemu and children:
        raise InputError(
            "--qemu: found with --children; QEMU does not follow a process that runs another "
            "program; leave one of the two out"
        )
    session = Session(command, environment, still=not aslr)
    read = under_qemu if qemu else all_processes if children else one_process
    with closing(session), session.interruptible():
        parts = accesses(session, read, skip, limit, progress)
        session.notes.said |= {"skipped": skip, "aslr": "on" if aslr else "off"}
        with closing(parts):
            folded: Iterator[Part] = fold(parts, session.where) if compact else parts
            layout = "compact" if compact else "raw"
            write_trace(out, folded, layout, session.notes.recording, level)
    return open_trace(out)


def accesses(
    session: Session,
    read: Callable[[Session], Iterator[Raw]],
    skip: int,
    limit: int | None,
    progress: Callable[[int], None] | None,
) -> Generator[Raw]:
    """Start the program, yield the accesses to be kept, and end it."""

    def watched() -> Generator[Raw]:
        seen = 0
        for part in read(session):
            seen += len(part.kind)
            yield part
        session.finished = not session.interrupted
        if session.interrupted and seen <= skip:
            raise KeyboardInterrupt
        if not seen:
            raise session.without_accesses()

    parts = watched()
    with closing(parts):
        yield from window(parts, session.where, skip, limit, progress)
    session.end()
