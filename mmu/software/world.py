"""What the software keeps beside the tables it writes."""

from typing import NamedTuple

from mmu.hardware.rows import Words
from mmu.jit import constant
from mmu.software.frames import Frames

ROOT = 0  # the root partition's number; guests count from 1
RESERVE_POOL, HOST_POOL, FIRST_GUEST_POOL = constant(0), constant(1), 2

# Policies of pagers and of the hypervisor's backing.
SMALL_PAGES, LARGE_PAGES, AUTOMATIC = 0, 1, 2
POLICIES = {"4k": SMALL_PAGES, "2m": LARGE_PAGES, "auto": AUTOMATIC}

# What is mapped, per owner.
MAPPED = (
    "guest_4k", "guest_2m", "guest_tables", "nested_4k", "nested_2m", "nested_tables",
    "page_map_4k", "page_map_2m",
)  # fmt: skip
(
    GUEST_4K, GUEST_2M, GUEST_TABLES, NESTED_4K, NESTED_2M, NESTED_TABLES,
    PAGE_MAP_4K, PAGE_MAP_2M,  # of guest_4k and guest_2m, those that the page map gave
) = range(8)  # fmt: skip

# Fields of `World.shortage`.
SHORT_OWNER, SHORT_POOL, SHORT_SIZE = 0, 1, 2

# Statuses below the hardware's outcomes: why the software could not go on.
OUT_OF_MEMORY = -100
OFF_LIMITS = -101  # the root partition touched what the hypervisor reserves
BROKEN = -102  # a fault that no pager can mend
STALE = -104  # checked mode met a translation that the tables do not give
RUNAWAY = -103  # timer exits fall due faster than the processor can take them
RUNAWAY_SHOOTDOWNS = -105  # the same of shootdowns


class World(NamedTuple):
    """Policies, allocators and bookkeeping; an *owner* is a virtual machine or the hypervisor (last)."""

    frames: Frames
    pool: Words  # [owner] where its guest-physical frames come from
    guest_policy: Words  # [context]
    nested_policy: Words  # [owner]
    nested_root: Words  # [owner] machine address of its nested root table; -1: native
    identity: (
        Words  # [owner] 1: guest-physical addresses are machine addresses (the root partition)
    )
    leaf: Words  # [owner] bits of a new guest leaf
    first_touch: Words  # [1] 1: guest memory is backed at its first touch, else from the start
    mapped: Words  # [owner, what]
    shortage: Words  # [field] who could not get how much from which pool
