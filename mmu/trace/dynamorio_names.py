"""The numbers of DynamoRIO's entries and markers, and what messages call them.

From ``trace_type_t`` and ``trace_marker_type_t`` of ``clients/drcachesim/common/trace_entry.h``, and the
names in ``trace_entry.cpp`` beside it; numbers were only ever added at the end.
"""

from enum import IntEnum


class Type(IntEnum):
    """What an entry is; those that are read or that decide how others are."""

    READ = 0
    WRITE = 1
    PREFETCH = 2
    INSTR = 10
    INSTR_BUNDLE = 17
    INSTR_FLUSH = 18
    INSTR_FLUSH_END = 19
    DATA_FLUSH = 20
    DATA_FLUSH_END = 21
    THREAD = 22
    THREAD_EXIT = 23
    PID = 24
    HEADER = 25
    FOOTER = 26
    HARDWARE_PREFETCH = 27
    MARKER = 28
    INSTR_NO_FETCH = 29
    INSTR_MAYBE_FETCH = 30
    INSTR_SYSENTER = 31
    ENCODING = 47
    INSTR_TAKEN_JUMP = 48
    INSTR_UNTAKEN_JUMP = 49


class Marker(IntEnum):
    """What a marker tells; those that decide how entries are read, or are written."""

    TIMESTAMP = 2
    CPU_ID = 3
    FILETYPE = 9
    CACHE_LINE_SIZE = 10
    VERSION = 12
    PAGE_SIZE = 18
    CHUNK_INSTR_COUNT = 20
    CHUNK_FOOTER = 21


LAST_TYPE = int(Type.INSTR_UNTAKEN_JUMP)

MARKERS = (
    "kernel_event",
    "kernel_xfer",
    "timestamp",
    "cpu_id",
    "func_id",
    "func_retaddr",
    "func_arg",
    "func_retval",
    "split_value",
    "filetype",
    "cache_line_size",
    "instruction_count",
    "version",
    "rseq_abort",
    "window_id",
    "physical_address",
    "physical_address_not_available",
    "virtual_address",
    "page_size",
    "syscall_idx",
    "chunk_instr_count",
    "chunk_footer",
    "record_ordinal",
    "filter_endpoint",
    "rseq_entry",
    "syscall",
    "maybe_blocking_syscall",
    "syscall_trace_start",
    "syscall_trace_end",
    "branch_target",
    "syscall_failed",
    "direct_thread_switch",
    "core_wait",
    "core_idle",
    "context_switch_start",
    "context_switch_end",
    "vector_length",
)
LAST_MARKER = len(MARKERS)  # and all that are greater, which newer versions and users may add

FLUSHES = {18: "instruction", 19: "instruction", 20: "data", 21: "data"}


def type_words(what: int) -> str:
    """Return what a list calls entries of a type that are no accesses."""
    if what in FLUSHES:
        return f"flushes of the {FLUSHES[what]} cache"
    named = {
        Type.THREAD_EXIT: "ends of threads",
        Type.HARDWARE_PREFETCH: "prefetches by hardware",
        Type.INSTR_NO_FETCH: "instructions that were not fetched",
        Type.ENCODING: "encodings of instructions",
    }
    return named.get(Type(what), "prefetches") if what in set(Type) else "prefetches"


def marker_words(what: int) -> str:
    """Return what a list calls markers of a kind."""
    return f"markers: {MARKERS[what]}" if what < LAST_MARKER else "markers of other kinds"
