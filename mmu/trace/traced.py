"""A program that runs under a tracer, below a guard (`mmu.trace.guard`) that ends it with us."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mmu.errors import InputError

GUARD = Path(__file__).with_name("guard.py")
PATIENCE = 10.0  # seconds until a guard that has been asked to end is killed


class Traced:
    """A program under a tracer.

    Parameters
    ----------
    command : sequence of str
        The tracer's file and arguments, the program's among them.
    log : int
        Descriptor that the tracer writes to, or -1; closed here once the program has it.
    number : int
        Number of that descriptor in the program.
    environment : mapping of str to str
    descriptors : int
        Limit of the program's open files, soft and hard; 0 leaves both alone.
    still : bool
        Do not randomise addresses.
    tracer : str
        Beginning of the name of the file that the tracer's processes run.
    follow : bool
        The recording lasts as long as any process runs under the tracer, else as long as the first.

    Raises
    ------
    InputError
        The tracer cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: int,
        number: int,
        environment: Mapping[str, str],
        tracer: str,
        descriptors: int = 0,
        still: bool = False,
        follow: bool = False,
    ) -> None:
        self.control, theirs = socket.socketpair()
        self.said = b""
        self.over = False  # nobody writes records any more
        self.status: int | None = None  # what waitpid says of the program
        numbers = (theirs.fileno(), log, number, descriptors, int(still), int(follow))
        arguments = [*map(str, numbers), tracer, command[0], *command]
        passed = tuple(descriptor for descriptor in (theirs.fileno(), log) if descriptor >= 0)
        try:
            self.guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), *arguments],
                env=dict(environment),
                pass_fds=passed,
            )
        except OSError as error:
            self.control.close()
            raise InputError(f"COMMAND: {command[0]!r}: {error.strerror}; run another") from None
        finally:
            theirs.close()
            if log >= 0:
                os.close(log)

    def listen(self) -> None:
        """Take in what the guard has said, without waiting."""
        with suppress(BlockingIOError):
            while True:
                said = self.control.recv(4096, socket.MSG_DONTWAIT)
                if not said:
                    self.over = True
                    return
                *lines, self.said = (self.said + said).split(b"\n")
                for line in lines:
                    self.hear(json.loads(line))

    def hear(self, said: Mapping[str, int]) -> None:
        """Take in one message of the guard."""
        if "failed" in said:
            reason = os.strerror(said["failed"])
            raise InputError(f"the tracer cannot be started: {reason}; install it again")
        self.status = said.get("exit", self.status)
        self.over = self.over or "over" in said

    def wait(self, seconds: float) -> None:
        """Wait until the guard says something, but not for long."""
        select.select([self.control], [], [], seconds)
        self.listen()

    def stop(self) -> None:
        """End the guard, and before it, unless it is over, the program and all that it started."""
        if self.guard.returncode is not None:
            return
        with suppress(OSError):
            self.control.sendall(b"q" if self.over else b"s")
        try:
            self.guard.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.guard.kill()
            self.guard.wait()
        self.control.close()

    def ending(self) -> dict[str, str | int]:
        """Return how the program ended by itself, as a trace's metadata say it."""
        if self.status is None:
            return {"ended": "unknown"}
        code = os.waitstatus_to_exitcode(self.status)
        if code >= 0:
            return {"ended": f"exit status {code}", "exit_status": code}
        named = -code in {int(known) for known in signal.Signals}
        name = signal.Signals(-code).name if named else str(-code)
        return {"ended": f"signal {name}", "exit_status": 128 - code}
