"""A recording while it runs: the program, its end, and what is said of both."""

import os
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmu.errors import InputError
from mmu.trace.notes import Notes
from mmu.trace.traced import Traced

PACKAGES = {  # Debian and Ubuntu, Fedora, Arch
    "valgrind": ("valgrind", "valgrind", "valgrind"),
    "qemu": ("qemu-user", "qemu-user", "qemu-user"),
    "cc": ("gcc", "gcc", "gcc"),
}
LONGEST_NAME = 60  # characters of a command in a message


class Session:
    """A recording.

    Attributes
    ----------
    where : str
        What messages call it: the command.
    notes : Notes
        What there is to say besides the accesses.
    interrupted : bool
        The user wants it to end here, and what has been recorded to be kept.
    finished : bool
        The program's accesses have been read to their end.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None, still: bool
    ) -> None:
        self.environment = dict(os.environ if environment is None else environment)
        self.command = checked(command, self.environment)
        self.still = still
        shown = shlex.join(self.command)
        self.where = shown if len(shown) <= LONGEST_NAME else shown[:LONGEST_NAME] + "..."
        self.notes = Notes()
        self.notes.said["command"] = shown
        self.interrupted = self.finished = False
        self.traced: Traced | None = None

    def start(self, command: Sequence[str], log: int, number: int, **how: Any) -> Traced:
        """Start the program under a tracer, see `Traced`."""
        self.traced = Traced(command, log, number, self.environment, still=self.still, **how)
        return self.traced

    def end(self) -> None:
        """Wait for the program's end if its accesses have been read, else end it."""
        traced = self.traced
        if traced is None:
            return
        while self.finished and not traced.over and not self.interrupted:
            traced.wait(0.25)
        traced.stop()
        if self.interrupted:
            self.notes.said["ended"] = "interrupted"
        elif not self.finished:
            self.notes.said["ended"] = "stopped at the limit"
        else:
            self.notes.said |= traced.ending()

    def close(self) -> None:
        """Leave no process behind, whatever has happened."""
        if self.traced is not None:
            self.traced.stop()

    def without_accesses(self) -> InputError:
        """Return the error for a program that has ended before its first access."""
        self.end()
        ended = self.notes.said.get("ended", "unknown")
        return InputError(
            f"{self.where}: ended ({ended}) before its first access was recorded; run it without "
            "mmu, and see what it says"
        )

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Take the first SIGINT as the wish to stop here; the second one interrupts as ever."""

        def interrupt(*_: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True

        before = signal.getsignal(signal.SIGINT)
        here = threading.current_thread() is threading.main_thread()
        if not here or before == signal.SIG_IGN:
            yield
            return
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def checked(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse a command that cannot be run, and return it.

    Raises
    ------
    InputError
        There is no such program, or it may not be run.
    """
    if isinstance(command, str | bytes) or not command:
        raise InputError(f"COMMAND: found {command!r}; accepted: a program and its arguments")
    words = tuple(map(os.fspath, command))
    program = words[0]
    accepted = "accepted: a program that can be run"
    if any("\0" in word for word in words):
        raise InputError(f"COMMAND: {program!r}: an argument holds a zero byte; {accepted}")
    if not program or program.startswith("-"):
        raise InputError(f"COMMAND: found {program!r}; {accepted}; options come before --")
    if "/" not in program:
        if shutil.which(program, path=environment.get("PATH", os.defpath)) is None:
            here = f"; in this folder it is ./{program}" if Path(program).is_file() else ""
            raise InputError(f"COMMAND: no program {program!r} in PATH; {accepted}{here}")
    elif not Path(program).exists():
        raise InputError(f"COMMAND: no file {program!r}; {accepted}")
    elif Path(program).is_dir():
        raise InputError(f"COMMAND: {program!r} is a folder; {accepted}")
    elif not os.access(program, os.X_OK):
        raise InputError(f"COMMAND: {program!r} is not executable; chmod +x, or name another")
    return words


def tool(name: str, file: str) -> str:
    """Return where a tool is.

    Raises
    ------
    InputError
        It is not installed; the message says which package has it.
    """
    found = shutil.which(file)
    if found is None:
        debian, fedora, arch = PACKAGES[name]
        raise InputError(
            f"recording needs {file}, which is not in PATH: apt-get install {debian} (Debian, "
            f"Ubuntu), dnf install {fedora} (Fedora) or pacman -S {arch} (Arch)"
        )
    return found
