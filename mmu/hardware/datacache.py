"""Data caches, as far as table reads need them: which of them a line is in.

Tables are read through L1D, L2, L3 and memory, 64-byte lines of eight entries. A read is served by the
first that holds its line; those above it get the line. Each is least recently used. Nothing is written
back, and no level drops what another dropped. With `shared` table reads the program's own accesses go
through them as well, fetches through the L1I.

`Machine.model` has first slot, sets, mask (as in `rows`) and ways of each; a level that is absent has no
ways. Sources of geometry and latencies are those of the processor.
"""

from mmu.hardware.bits import WORD_SHIFT
from mmu.hardware.machine import (
    CACHE_FIELDS,
    CACHE_FIRST,
    CACHE_MASK,
    CACHE_SETS,
    CACHE_WAYS,
    DATA_CACHES,
    READ_CYCLES,
    Machine,
)
from mmu.jit import at, inlined

LINE_SHIFT = 6
LINE_BYTES = 1 << LINE_SHIFT
WORD_TO_LINE = LINE_SHIFT - WORD_SHIFT
L1D, L1I, L2, L3 = range(4)
FROM_L1, FROM_L2, FROM_L3, FROM_MEMORY = range(4)


@inlined
def serve(machine: Machine, line: int, level1: int) -> int:
    """Return where a line is read from, entering by L1D or L1I: FROM_L1 and so on.

    One loop for all levels: a copy for each takes three times as long to compile, and is no faster.
    """
    lines, model = machine.lines, machine.model
    for served in range(FROM_MEMORY):
        level = DATA_CACHES + CACHE_FIELDS * (L1I + served if served else level1)
        ways = model[at(level + CACHE_WAYS)]
        if not ways:
            continue
        mask = model[at(level + CACHE_MASK)]
        chosen = line & mask if mask else line % model[at(level + CACHE_SETS)]
        start = model[at(level + CACHE_FIRST)] + chosen * ways
        way = 0
        while way < ways and lines[at(start + way)] != line:
            way += 1
        for slot in range(start + min(way, ways - 1), start, -1):
            lines[at(slot)] = lines[at(slot - 1)]
        lines[at(start)] = line
        if way < ways:
            return served
    return FROM_MEMORY


@inlined
def read_cycles(machine: Machine, account: int, slot: int, reads: int) -> int:
    """Return how long it takes to read the entry at an index of memory; counts where it was.

    reads: GUEST_READS or NESTED_READS.
    """
    if not machine.lines.shape[0]:
        return machine.model[READ_CYCLES]
    served = serve(machine, slot >> WORD_TO_LINE, L1D)
    machine.events[at(account), at(reads + served)] += 1
    return machine.model[at(READ_CYCLES + served)]
