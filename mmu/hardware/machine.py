"""Everything that one memory access may touch, as a tree of arrays."""

from typing import NamedTuple

from mmu.hardware.rows import Rows, Words
from mmu.jit import inlined

# Kinds of access: of the user; + 3 for the supervisor.
READ_ACCESS, WRITE_ACCESS, FETCH = 0, 1, 2
SUPERVISOR = 3
KINDS = 6
DATA_SIDE, FETCH_SIDE, STORE_SIDE, SIDES = 0, 1, 2, 3  # stores have a side where their L1 is apart

# What is counted, per account.
EVENTS = (
    "accesses",
    "instructions",
    "data_accesses",
    "l1_data_misses",  # completed accesses whose L1 did not hold the page, by side
    "l1_fetch_misses",
    "l2_lookups",  # also those of attempts that ended in a fault
    "walks",  # completed, after a miss of every TLB
    "dirty_walks",  # completed, because the entry found denied the access: a write to a clean page
    "fault_walks",  # ended in a page fault or a nested fault
    "guest_references",  # guest entries read
    "nested_references",  # nested entries read
    "nested_lookups",  # guest-physical addresses translated
    "updates",  # entries whose accessed or dirty bit was set
    "guest_faults",
    "nested_faults",
    "exits",
    "switches",
    "cr3_loads",  # changes of a guest's address space
    "entry_hits",  # entries that a page-walk cache had, and that were not read
    # Guest entries, and nested ones, by where they were read from; none are told where one latency is
    # all that is known of a read.
    "guest_reads_l1d",
    "guest_reads_l2",
    "guest_reads_l3",
    "guest_reads_memory",
    "nested_reads_l1d",
    "nested_reads_l2",
    "nested_reads_l3",
    "nested_reads_memory",
    "migrations",  # of virtual processors that ran on another logical one before
    "shootdowns",  # invalidations that the hypervisor asked all logical processors for
    "shootdown_targets",  # logical processors, other than the one that asks, that hold translations
    "invalidations",  # executed for shootdowns
)
(
    ACCESSES, INSTRUCTIONS, DATA_ACCESSES, L1_DATA_MISSES, L1_FETCH_MISSES, L2_LOOKUPS, WALKS,
    DIRTY_WALKS, FAULT_WALKS, GUEST_REFERENCES, NESTED_REFERENCES, NESTED_LOOKUPS, UPDATES,
    GUEST_FAULTS, NESTED_FAULTS, EXITS, SWITCHES, CR3_LOADS,
    ENTRY_HITS, GUEST_READS,
) = range(20)  # fmt: skip
SERVED = 4  # places that a read is served from: L1D, L2, L3, memory
NESTED_READS = GUEST_READS + SERVED
MIGRATIONS, SHOOTDOWNS, SHOOTDOWN_TARGETS, INVALIDATIONS = range(NESTED_READS + SERVED, len(EVENTS))
GLOBAL = -1  # in `Machine.pcid`: a context for global translations
NO_CONTEXT = -1
MOST_REFERENCES = 64  # longest walk is 35 (5-level guest in 5-level nested tables)

# Fields of `Machine.fault`: how a walk ended, where, and why. GPA is the data's once the guest's leaf has
# been used, whose level is LEVEL; ERROR has the bits PRESENT (a right is missing, or reserved bits are
# set) and RESERVED of a page fault's error code; TABLE tells whether a nested fault met a guest table,
# KINDS which nested accesses that was (bit k: kind k), RIGHTS what all nested entries read for it grant.
# SIZE is the code of the nested page's size.
(
    FAULT_OUTCOME, FAULT_GVA, FAULT_GPA, FAULT_LEVEL, FAULT_ERROR, FAULT_TABLE, FAULT_KINDS,
    FAULT_RIGHTS, FAULT_SIZE, FAULT_FIELDS,
) = range(10)  # fmt: skip
ERROR_PRESENT, ERROR_RESERVED = 1 << 0, 1 << 3
# Fields of a step in `Machine.trail`.
STEP_NESTED, STEP_LEVEL, STEP_WORD, STEP_ENTRY, STEP_USED, STEP_FIELDS = 0, 1, 2, 3, 4, 5

# Fields of `Machine.model`: numbers of the processor that a walk needs. Latencies are cycles; those of
# reads are of an L1D, L2 and L3 hit, and of memory. ENTRY_LEVELS: bit k is set if a page-walk cache
# keeps entries of level k; SHARED: 1 if the programs' own accesses go through the data caches;
# L1_IS_LAST: 1 if no L2 holds some page size.
(
    WALK_CACHE_CYCLES, NESTED_TLB_CYCLES, UPDATE_CYCLES, READ_CYCLES, _L2, _L3, _MEMORY, ENTRY_LEVELS,
    INSTRUCTION_CYCLES, L2_CYCLES, WALKERS, WINDOW, SHARED, L1_IS_LAST, DATA_CACHES,
) = range(15)  # fmt: skip
# From DATA_CACHES on, four fields for each of L1D, L1I, L2, L3: see datacache.py.
CACHE_FIRST, CACHE_SETS, CACHE_MASK, CACHE_WAYS, CACHE_FIELDS = range(5)
MODEL_FIELDS = DATA_CACHES + 4 * CACHE_FIELDS

# Fields of `Machine.told`: walks by cause, cycles waited by what the walk did, then walks by latency.
TOLD_CAUSES, TOLD_EXPOSED, TOLD_LATENCIES = 0, 6, 11

# Fields of `Machine.flight`: pages in `seen`; for each group, which of two arrays gives way next; then
# those of overlap.py.
KNOWN, TURNS, OVERLAP = 0, 1, 10


class Rules(NamedTuple):
    """How entries of both dimensions are read and judged; all fields are plain ints."""

    levels: int  # of guest tables: 4, or 5 with LA57
    largest: int  # level of the largest guest page: 3 with 1 GiB pages, else 2
    reserved: int  # mask: bits that no present guest entry may have set
    read_only: int  # kinds that a missing write right denies: without CR0.WP not the supervisor's
    user_page: int  # kinds that a user page denies: SMEP and SMAP
    nested_code: int  # format of nested entries: entry.X86_CODE or entry.EPT_CODE
    nested_levels: int
    nested_largest: int
    nested_reserved: int
    table_reserved: (
        int  # mask: bits that an x86-64 entry for a table of level 2 or more must not have
    )
    execute_only: int  # 0: an EPT entry that permits nothing but fetches is a misconfiguration
    present: int  # mask of nested entries: present if any of these bits is set
    accessed: int  # mask; 0: the processor sets no accessed bit in nested entries
    dirty: int  # mask; 0: as above
    table_kind: int  # kind of nested access that reading a guest entry is
    update: int  # 0: accessed and dirty bits are worked out, but not written


class Machine(NamedTuple):
    """The state of all logical processors, machine memory, and the counters.

    An *account* is who a count is booked to: account `v` is virtual machine `v` itself, account
    `vms + v` the hypervisor working for it. An *owner* is a virtual machine, or the hypervisor (last).
    """

    tag: Words  # [lp, slot] tag word; EMPTY where free
    frame: Words  # [lp, slot] frame word
    order: Words  # [lp, set] state of its replacement, unless that is LRU
    rows: Rows
    shape: Words  # [number] of the L1s' rows that most hits come from: see access.make_hits
    side: Words  # [kind]
    level2: Words  # [side] group of the L2 that backs a side
    rules: Rules
    model: Words  # [lp, field] of the processor: latencies, data caches and the like
    memory: Words  # [index] machine memory, 8 bytes a word
    extents: Words | None  # [extent, field] where that memory stands: see memory.py; None: at 0
    lines: Words  # [slot] of all processors' data caches: number of a 64-byte line, or EMPTY
    root: Words  # [context] address of the guest's root table: guest-physical; machine if native
    nested: Words  # [context] machine address of the nested root table; -1: native
    vm: Words  # [context] owner, whose number is the VPID or ASID; VPID 0 is the hypervisor's
    pcid: Words  # [context] GLOBAL where it holds the global translations of its VM
    nested_tag: Words  # [context] tag of guest-physical entries, below CONTEXTS; -1: native
    # [context] where its global translations are kept, or NO_CONTEXT; None: nothing is global (CR4.PGE)
    global_context: Words | None
    events: Words  # [lp, account, event]
    hits: Words  # [lp, account, row] look-ups answered; not kept for L1 rows
    references: Words  # [lp, account, count] completed walks by table reads made
    told: Words  # [lp, account, field] what is told of walks: see below
    evictions: Words  # [lp, owner, owner] live L2 entries that the first dropped of the second
    seen: Words  # [lp, bucket] pages that were ever in the last TLB: see causes.py
    twin: Words  # [lp, word] fully associative twins of the L2s: see associative.py
    fault: Words  # [lp, field] how the last walk that did not complete ended
    flight: Words  # [lp, field] the walk that is made, those under way, and other small state
    trail: Words  # [step, field] what the last walk read, where anybody wants to know
    steps: Words  # [2] table reads noted in `trail`; entries noted in `marked`
    marked: (
        Words  # [n, 2] entries whose new bits are not written: memory index, entry as it would be
    )

    @property
    def causes(self) -> Words:
        """[lp, account, cause] completed walks by why they were needed: see causes.py."""
        return self.told[..., TOLD_CAUSES:TOLD_EXPOSED]

    @property
    def exposed(self) -> Words:
        """[lp, account, piece's cause] cycles that the processor waited for walks: see overlap.py."""
        return self.told[..., TOLD_EXPOSED:TOLD_LATENCIES]

    @property
    def latencies(self) -> Words:
        """[lp, account, bucket] completed walks by cycles: see latency.py."""
        return self.told[..., TOLD_LATENCIES:]


# Fields of the machine that each logical processor has of its own.
OWNED = (
    "tag", "frame", "order", "model", "events", "hits", "references", "told", "evictions", "seen",
    "twin", "fault", "flight",
)  # fmt: skip


@inlined
def processor(machine: Machine, lp: int) -> Machine:
    """Return the machine as one logical processor sees it: arrays lose their `lp` axis."""
    return Machine(
        machine.tag[lp], machine.frame[lp], machine.order[lp], machine.rows, machine.shape,
        machine.side, machine.level2, machine.rules, machine.model[lp], machine.memory,
        machine.extents, machine.lines, machine.root, machine.nested, machine.vm, machine.pcid,
        machine.nested_tag, machine.global_context, machine.events[lp], machine.hits[lp],
        machine.references[lp], machine.told[lp], machine.evictions[lp], machine.seen[lp],
        machine.twin[lp], machine.fault[lp], machine.flight[lp], machine.trail, machine.steps,
        machine.marked,
    )  # fmt: skip
