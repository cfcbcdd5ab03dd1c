"""Records under valgrind's lackey: one process through a pipe, or all of them through a socket.

Lackey writes every line by itself, and whole, into a descriptor that it has from us. A forked child
shares it. With one process alone, forked children are told to be silent. With all of them, the
descriptor is a socket whose reader asks the kernel for the number of the writing process
(SO_PASSCRED, unix(7)): lines arrive in the order in which they were written, none is lost when a
child runs another program, and a full socket holds all writers up. To outlive programs that close
all descriptors before they run others, as Python's subprocess does, its number is among those that
valgrind keeps for itself: the last below the hard limit (`VG_N_RESERVED_FDS`, 12).
"""

import fcntl
import os
import re
import resource
import select
import socket
import struct
import subprocess
import time
from collections.abc import Generator, Iterator

from mmu.trace.format import Raw
from mmu.trace.lackey import read_lackey
from mmu.trace.processes import SILENCE, Processes
from mmu.trace.session import Session, tool
from mmu.trace.source import Source

OPTIONS = ("--tool=lackey", "--trace-mem=yes", "--command-line-only=yes", "--vgdb=no")
TRACER = "lackey-"  # how the names of valgrind's own files begin
PIPE_BYTES = 1 << 20
PIECE = 1 << 20  # bytes; a pipe gives 64 KiB and less at a time
TURN = 0.25  # seconds that accesses wait for more, and an interrupt for us to notice
RESERVED = 12
# A socket wakes its reader for each line, which costs more than the line: the reader sleeps instead.
# A socket holds 8,000 lines.
NAP = 0.002  # seconds
SOCKET_BYTES = 4 << 20
CREDENTIALS = struct.Struct("iII")  # pid, uid, gid: struct ucred


def valgrind(session: Session, descriptor: int, *options: str) -> list[str]:
    """Return the command that runs a session's program under lackey."""
    file = tool("valgrind", "valgrind")
    said = subprocess.run(
        [file, "--version"], capture_output=True, text=True, errors="replace", check=False
    ).stdout
    version = re.search(r"valgrind-([\w.]+)", said)
    session.notes.said |= {
        "tool": " ".join(("valgrind", *OPTIONS[:2])),
        "tool_version": version[1] if version else "unknown",
    }
    return [file, *OPTIONS, *options, f"--log-fd={descriptor}", *session.command]


def one_process(session: Session) -> Iterator[Raw]:
    """Yield the accesses of a session's program, not of its children."""
    number = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024) - 1
    options = ("--trace-children=no", "--child-silent-after-fork=yes")
    command = valgrind(session, number, *options)
    log, theirs = os.pipe()
    try:
        fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(log, False)
        session.start(command, theirs, number, tracer=TRACER)
        yield from read_lackey(Source(session.where, b"", lines(session, log), notes=session.notes))
    finally:
        os.close(log)


def lines(session: Session, log: int) -> Generator[bytes]:
    """Yield whole lines, a megabyte or what has come within a quarter of a second.

    What a killed program leaves of its last line is no access: those are written at once.
    """
    traced = session.traced
    assert traced is not None
    control = traced.control.fileno()
    gathered: list[bytes] = []
    size, since, rest = 0, time.monotonic(), b""
    while True:
        last = traced.over or session.interrupted  # and what is in the pipe now is the rest
        ready, _, _ = select.select([log, control], [], [], 0 if last else TURN)
        if control in ready and not traced.over:
            traced.listen()
        piece = None
        if log in ready:
            piece = os.read(log, PIECE)
            gathered.append(piece)
            size += len(piece)
        ended = piece == b"" or (last and piece is None)
        late = time.monotonic() - since >= TURN
        if gathered and (ended or late or size >= PIECE or session.interrupted):
            text = rest + b"".join(gathered)
            end = text.rfind(b"\n") + 1 or (len(text) if len(text) >= PIECE else 0)
            rest = text[end:]
            if end:
                yield text[:end]
            gathered, size, since = [], 0, time.monotonic()
        if ended or (session.interrupted and last):
            break
    while not (traced.over or session.interrupted):
        traced.wait(TURN)
    by_itself = traced.status is not None and os.WIFEXITED(traced.status)
    if rest and by_itself and not session.interrupted:
        yield rest


def all_processes(session: Session) -> Iterator[Raw]:
    """Yield the accesses of a session's program and of all its children, each in a space."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = soft + RESERVED if hard == resource.RLIM_INFINITY else min(soft + RESERVED, hard)
    command = valgrind(session, limit - 1, "--trace-children=yes")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        processes = Processes(session.where, session.notes)
        session.start(
            command, theirs.detach(), limit - 1, tracer=TRACER, descriptors=limit, follow=True
        )
        yield from processes.merged(messages(session, ours))


def messages(session: Session, log: socket.socket) -> Generator[tuple[int, bytes]]:
    """Yield what processes write, in the order in which it comes, each time with its writer."""
    traced = session.traced
    assert traced is not None
    room = socket.CMSG_SPACE(CREDENTIALS.size)
    while True:
        last = traced.over or session.interrupted
        try:
            text, control, _, _ = log.recvmsg(PIECE, room)
        except BlockingIOError:
            if last:
                return
            traced.listen()
            if not select.select([log.fileno(), traced.control.fileno()], [], [], TURN)[0]:
                yield SILENCE
            time.sleep(NAP)
            continue
        if not text:
            return
        yield CREDENTIALS.unpack(control[0][2][: CREDENTIALS.size])[0], text
        if session.interrupted and last:
            return
