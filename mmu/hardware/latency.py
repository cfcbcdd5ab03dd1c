"""How long walks take: a histogram that is exact below 512 cycles, and within 1.6 % above.

Above, each power of two has 64 buckets.
"""

from mmu.hardware.machine import TOLD_LATENCIES, Machine
from mmu.jit import at, inlined

EXACT = 512
EXACT_BITS = 9
PER_POWER_BITS = 6
PER_POWER = 1 << PER_POWER_BITS
POWERS = 32  # latencies up to 2^41 cycles
BUCKETS = EXACT + POWERS * PER_POWER


@inlined
def bucket_of(cycles: int) -> int:
    """Return the bucket of a latency."""
    if cycles < EXACT:
        return cycles
    power = EXACT_BITS
    while cycles >> power + 1:
        power += 1
    inside = cycles >> power - PER_POWER_BITS & PER_POWER - 1
    return min(EXACT + (power - EXACT_BITS) * PER_POWER + inside, BUCKETS - 1)


def lowest_of(bucket: int) -> int:
    """Return the lowest latency that a bucket counts, in cycles."""
    if bucket < EXACT:
        return bucket
    power, inside = divmod(bucket - EXACT, PER_POWER)
    return (PER_POWER + inside) << power + EXACT_BITS - PER_POWER_BITS


@inlined
def count_latency(machine: Machine, account: int, cycles: int) -> None:
    """Count a completed walk, where anybody wants to know."""
    if machine.told.shape[1] > TOLD_LATENCIES:
        machine.told[at(account), at(TOLD_LATENCIES + bucket_of(cycles))] += 1
