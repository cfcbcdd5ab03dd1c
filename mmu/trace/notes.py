"""What an importer has to say besides the accesses: for the trace's metadata, and for the user."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.trace.blocks import Words

MOST_SPACES = 1 << 16
MOST_NAMED = 1 << 10  # processes whose numbers are kept in the metadata


class Notes:
    """What is known of a recording, gathered while it is read.

    Attributes
    ----------
    said : dict
        What the input says of itself: tool, command, version and the like; plain values.
    passed : Counter
        What was read and is no access, and how often: nothing is dropped in silence.
    remarks : list of str
        What the user should know of the accesses, a line each.
    """

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self.passed: Counter[str] = Counter()
        self.remarks: list[str] = []
        self.spaces: dict[int, int] = {}  # by the recorder's number of a process

    def pass_over(self, what: str, count: int = 1) -> None:
        """Count what is no access, in the words of a list: ``pass_over("markers", 3)``."""
        if count:
            self.passed[what] += count

    def remark(self, what: str) -> None:
        """Tell the user something of the accesses, once."""
        if what not in self.remarks:
            self.remarks.append(what)

    def spaces_of(self, processes: Words, where: str) -> NDArray[np.uint16] | None:
        """Return the address space of each access's process, numbered in order of appearance.

        Parameters
        ----------
        processes : int64 [record]
            As the recorder numbers them; of no elements where it does not tell.
        where : str
            What messages call the input.

        Raises
        ------
        InputError
            There are more than 65,536 processes.
        """
        if not len(processes):
            return None
        heads = np.append(True, processes[1:] != processes[:-1])
        for process in processes[heads].tolist():
            if process not in self.spaces:
                if len(self.spaces) == MOST_SPACES:
                    raise InputError(
                        f"{where}: process {process} is number {MOST_SPACES + 1:,} of this trace; "
                        f"accepted: up to {MOST_SPACES:,}; import a part of it"
                    )
                self.spaces[process] = len(self.spaces)
        spaces = np.array([self.spaces[p] for p in processes[heads].tolist()], np.uint16)
        return spaces[np.cumsum(heads) - 1]

    def recording(self) -> dict[str, Any]:
        """Return all of it for the trace's metadata."""
        recording = dict(self.said)
        if self.remarks:
            recording["remarks"] = list(self.remarks)
        if self.passed:
            recording["passed_over"] = dict(self.passed)
        if self.spaces and len(self.spaces) <= MOST_NAMED:
            recording["processes"] = {str(space): p for p, space in self.spaces.items()}
        return recording
