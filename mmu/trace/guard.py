"""Runs a program for `mmu.trace.recorder`, and leaves no process behind.

A script of its own, which imports nothing of the package: it has to outlive a recorder that is
killed. It is the reaper of all that the program starts, so that children whose parents are gone,
daemons among them, are found again. The recorder holds the other end of a socket. What is sent:

    {"failed": errno}    the program could not be started
    {"exit": status}     the program has ended; what `os.waitpid` returned
    {"over": true}       and nobody writes records any more

What comes in: `q` asks the guard to end, any other byte to end all processes before; the end of the
socket, as the recorder has been killed, means the same without delay.

Arguments: socket, descriptor that records are written to, its number in the program, limit of
descriptors (0: as it is), 1 to leave addresses as they are, 1 if the tracer's children are traced,
the beginning of the tracer's file names, file, arguments.
"""

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
GRACE = 1.0  # seconds between SIGTERM and SIGKILL
LOOKS = 10
TURN = 0.02  # seconds between looks at processes whose end nobody tells
PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)

libc = ctypes.CDLL(None, use_errno=True)


def descendants() -> list[int]:
    """Return the processes that descend from this one and have not ended.

    One whose parent has ended while we looked belongs to nobody that we saw: we look again.
    """
    for _ in range(LOOKS):
        parents: dict[int, int] = {}
        ended: set[int] = set()
        for name in os.listdir("/proc"):
            if name.isdecimal():
                with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                    parents[int(name)] = int(parent)
                    if state in (b"Z", b"X"):
                        ended.add(int(name))
        if set(parents.values()) - ended <= parents.keys() | {0}:
            break
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - ended - {os.getpid()})


def runs(pid: int, tracer: str) -> bool:
    """Tell whether a process is run by a tracer whose file name begins like this."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith(tracer)
    except OSError:
        return False


def send(pids: list[int], number: int) -> None:
    """Send a signal to processes, those that are gone by now left out."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def reap(ended: dict[int, int]) -> bool:
    """Add the statuses of children that have ended; tell whether there are others."""
    try:
        while (child := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended[child[0]] = child[1]
    except ChildProcessError:
        return False
    return True


def end_all(grace: float) -> None:
    """End all descendants: politely, and after `grace` seconds by force."""
    deadline = time.monotonic() + grace
    if grace:
        send(descendants(), signal.SIGTERM)
        send(descendants(), signal.SIGCONT)
    while reap({}):  # in the end every one of them is our child
        if time.monotonic() >= deadline:
            send(descendants(), signal.SIGKILL)
        time.sleep(0.005)


def become(command: list[str], log: int, number: int, limit: int, still: bool) -> None:
    """Turn this process, a fresh child, into the program."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python's own doing
        signal.signal(ignored, signal.SIG_DFL)
    if still:
        libc.personality(ADDR_NO_RANDOMIZE)
    if limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if log >= 0:
        os.dup2(log, number)
        os.set_inheritable(number, True)
    # What the recorder gave, not what Python has added to it (LC_CTYPE, PEP 538).
    with open("/proc/self/environ", "rb") as file:
        pairs = [pair.partition(b"=") for pair in file.read().split(b"\0") if b"=" in pair]
    os.execve(command[0], command[1:], {name: value for name, _, value in pairs})


def start(control: socket.socket, log: int, *how: object) -> int:
    """Start the program and return its number."""
    child = os.fork()
    if child == 0:
        try:
            become(*how)  # type: ignore[arg-type]
        except BaseException as error:
            report(control, failed=getattr(error, "errno", 0))
        os._exit(127)
    if log >= 0:
        os.close(log)
    return child


def report(control: socket.socket, **said: int) -> None:
    """Tell the recorder something; if it is gone, that will show."""
    with suppress(OSError):
        control.sendall(json.dumps(said).encode() + b"\n")


def main() -> None:
    """Run the program, and stay until the recorder has asked for the end."""
    control_number, log, number, limit, still, follow = map(int, sys.argv[1:7])
    tracer, command = sys.argv[7], sys.argv[8:]
    control = socket.socket(fileno=control_number)
    control.set_inheritable(False)
    if log >= 0:
        os.set_inheritable(log, False)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for caught in (*PASSED_ON, signal.SIGCHLD):
        if signal.getsignal(caught) != signal.SIG_IGN or caught == signal.SIGCHLD:
            signal.signal(caught, lambda *_: None)
    program = start(control, log, command, log, number, limit, bool(still))
    running, over, quiet = True, False, 0
    ended: dict[int, int] = {}
    while True:
        ready, _, _ = select.select(
            [control_number, wake_read], [], [], None if running or over else TURN
        )
        if control_number in ready:
            asked = control.recv(1)
            if asked != b"q":
                end_all(GRACE if asked else 0)
            return
        if wake_read in ready:
            os.read(wake_read, 4096)
        children = reap(ended)
        if running and program in ended:
            running = False
            report(control, exit=ended[program])
        ended.clear()
        if not running and not over:
            left = [pid for pid in descendants() if runs(pid, tracer)]
            if left and not follow:  # silent, and slow for nothing
                send(left, signal.SIGKILL)
            quiet = 0 if left else quiet + 1
            over = not children or quiet == LOOKS
            if over:
                report(control, over=1)


if __name__ == "__main__":
    main()
