"""What perf's samples have in common: what they did, and that they are samples.

A sample's data source is a word whose lowest five bits say what was done (``mem_op`` of ``union
perf_mem_data_src`` in ``include/uapi/linux/perf_event.h``): not known 1, load 2, store 4, prefetch 8,
execution 16. Load and store together are a read, then a write.
"""

import re
from collections.abc import Sequence

import numpy as np

from mmu.jit import at, inlined
from mmu.trace.accesses import Accesses, add
from mmu.trace.blocks import Bytes, Integer, Words
from mmu.trace.kinds import FETCH, READ, WRITE
from mmu.trace.lines import PASSED, SPACE, decimal, ends_field
from mmu.trace.notes import Notes

OPERATIONS = 0x1F
LOAD, STORE, PREFETCH, EXECUTION = 2, 4, 8, 16
LINE_RECORDS = 4  # a load and store that crosses a boundary, if perf told sizes

MOST_THREAD = (1 << 32) - 1
LEAST_ADDRESS = 1 << 16  # vm.mmap_min_addr of Linux: what lies below is mapped for nobody

# What is passed over; those of one reader follow at PASSED + OWN.
NO_ADDRESS, LOW, NEITHER, PREFETCHES, OWN = range(5)
WHAT_IS_PASSED = (
    "samples without an address",
    f"samples of addresses below {LEAST_ADDRESS >> 10} KiB, where Linux maps nothing",
    "samples that tell neither load nor store",
    "prefetches",
)

KIBIBYTES, MEBIBYTES, GIBIBYTES = ord("K"), ord("M"), ord("G")
PAGE_SIZES = 40  # [logarithm of bytes]


@inlined
def sample(
    out: Accesses,
    record: int,
    place: Words,
    address: Integer,
    operations: Integer,
    process: Integer,
    thread: Integer,
) -> int:
    """Store what a sample did at an address, or count why not; return the number of records then."""
    if address == 0:
        place[PASSED + NO_ADDRESS] += 1
        return record
    if 0 < address < LEAST_ADDRESS:
        place[PASSED + LOW] += 1
        return record
    if operations & PREFETCH:
        place[PASSED + PREFETCHES] += 1
        return record
    if operations & (LOAD | STORE | EXECUTION) == 0:
        place[PASSED + NEITHER] += 1
        return record
    first = record
    size = np.int64(0)  # perf does not tell
    if operations & EXECUTION:
        record = add(out, record, address, size, FETCH)
    if operations & LOAD:
        record = add(out, record, address, size, READ)
    if operations & STORE:
        record = add(out, record, address, size, WRITE)
    for i in range(first, record):
        out.thread[at(i)] = thread
        if len(out.process):
            out.process[at(i)] = process
    return record


@inlined
def page_size(text: Bytes, here: int, stop: int) -> int:
    """Return the logarithm of the page size from `here` to `stop`, such as ``4K`` or ``2M``, or -1."""
    value, end = decimal(text, here, 4)
    unit = text[at(end)]
    if end + 1 != stop or value == 0 or value & (value - 1):
        return -1
    shift = 10 if unit == KIBIBYTES else 20 if unit == MEBIBYTES else 30
    if shift == 30 and unit != GIBIBYTES:
        return -1
    while value > 1:
        value >>= 1
        shift += 1
    return shift if shift < PAGE_SIZES else -1


@inlined
def last_page_size(text: Bytes, begin: int, end: int) -> int:
    """Return the logarithm of the data's page size that ends a line (newline at `end`), or -1.

    Where the code's page size is shown as well, it comes after it.
    """
    found, stop = -1, end
    for _ in range(2):
        while stop > begin and text[at(stop - 1)] == SPACE:
            stop -= 1
        start = stop
        while start > begin and not ends_field(text[at(start - 1)]):
            start -= 1
        size = page_size(text, start, stop)
        if size < 0:
            break
        found, stop = size, start
    return found


def note_samples(notes: Notes, tool: str, processes: bool) -> None:
    """Say in the metadata that these are samples, and whose."""
    notes.said["tool"] = tool
    notes.said["sampled"] = True
    notes.remark(
        "samples of accesses, not all of them: hit rates and walks per instruction do not follow from "
        "them"
    )
    if not processes:
        notes.remark(
            "processes are not told, so all of them share one address space (perf script -F +pid)"
        )


def note_page_sizes(notes: Notes, tally: Sequence[int]) -> None:
    """Put into the metadata how many samples lay in pages of each size."""
    found = {
        f"{1 << bits % 10}{' KMG'[bits // 10]}": count for bits, count in enumerate(tally) if count
    }
    if found:
        notes.said["samples_by_page_size"] = found


def command_in(head: bytes) -> str | None:
    """Return the command that was recorded, if perf's header is there."""
    found = re.search(rb"^# cmdline : (.*)$", head, re.MULTILINE)
    return found[1].decode(errors="replace").strip() if found else None
