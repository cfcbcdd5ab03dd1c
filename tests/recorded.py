"""What tests of recordings share: what a trace holds, and who still runs."""

import os
import time
from pathlib import Path

import numpy as np

from mmu.trace import open_trace


def processes(name):
    """The processes with this in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if os.fsencode(name) in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def assert_nothing_runs(name, seconds=5.0):
    deadline = time.monotonic() + seconds
    while processes(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(name) == []


def columns(path, *names):
    parts = list(open_trace(path).parts())
    return [np.concatenate([getattr(part, name) for part in parts]) for name in names]
