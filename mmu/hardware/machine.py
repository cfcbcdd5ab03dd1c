"""Everything that one memory access may touch, as a tree of arrays."""

from typing import NamedTuple

from mmu.hardware.rows import Rows, Words
from mmu.jit import inlined

# Kinds of access: of the user; + 3 for the supervisor.
READ_ACCESS, WRITE_ACCESS, FETCH = 0, 1, 2
SUPERVISOR = 3
KINDS = 6
DATA_SIDE, FETCH_SIDE = 0, 1

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
)
(
    ACCESSES, INSTRUCTIONS, DATA_ACCESSES, L1_DATA_MISSES, L1_FETCH_MISSES, L2_LOOKUPS, WALKS,
    DIRTY_WALKS, FAULT_WALKS, GUEST_REFERENCES, NESTED_REFERENCES, NESTED_LOOKUPS, UPDATES,
    GUEST_FAULTS, NESTED_FAULTS, EXITS, SWITCHES, CR3_LOADS,
) = range(18)  # fmt: skip
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
    rows: Rows
    shape: Words  # [number] of the L1s' rows that most hits come from: see access.make_hits
    side: Words  # [kind]
    level2: Words  # [side] group of the L2 that backs a side
    rules: Rules
    memory: Words  # [index] machine memory, 8 bytes a word
    extents: Words | None  # [extent, field] where that memory stands: see memory.py; None: at 0
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
    evictions: Words  # [lp, owner, owner] live L2 entries that the first dropped of the second
    fault: Words  # [lp, field] how the last walk that did not complete ended
    trail: Words  # [step, field] what the last walk read, where anybody wants to know
    steps: Words  # [2] table reads noted in `trail`; entries noted in `marked`
    marked: (
        Words  # [n, 2] entries whose new bits are not written: memory index, entry as it would be
    )


@inlined
def processor(machine: Machine, lp: int) -> Machine:
    """Return the machine as one logical processor sees it: arrays lose their `lp` axis."""
    return Machine(
        machine.tag[lp], machine.frame[lp], machine.rows, machine.shape, machine.side,
        machine.level2, machine.rules, machine.memory, machine.extents, machine.root,
        machine.nested, machine.vm, machine.pcid, machine.nested_tag, machine.global_context,
        machine.events[lp], machine.hits[lp], machine.references[lp], machine.evictions[lp],
        machine.fault[lp], machine.trail, machine.steps, machine.marked,
    )  # fmt: skip
