"""What events cost, and which cause their cycles are booked to."""

from typing import NamedTuple

import numpy as np

from mmu.config import RunConfig
from mmu.hardware.machine import (
    CR3_LOADS,
    DIRTY_WALKS,
    ENTRY_HITS,
    EVENTS,
    EXITS,
    FAULT_WALKS,
    GUEST_FAULTS,
    GUEST_READS,
    GUEST_REFERENCES,
    INSTRUCTIONS,
    INVALIDATIONS,
    L2_LOOKUPS,
    MIGRATIONS,
    NESTED_FAULTS,
    NESTED_LOOKUPS,
    NESTED_READS,
    NESTED_REFERENCES,
    NESTED_TLB_CYCLES,
    READ_CYCLES,
    SERVED,
    SHOOTDOWN_TARGETS,
    SHOOTDOWNS,
    SWITCHES,
    UPDATES,
    WALKS,
)
from mmu.hardware.overlap import PIECES
from mmu.hardware.rows import Words


class Cost(NamedTuple):
    """What one event costs, and the cause its cycles are booked to."""

    event: int
    cause: str
    cycles: int


def costs_of(config: RunConfig, model: Words) -> list[Cost]:
    """Return what each event costs that costs something; `model`: `Machine.model` of a processor."""
    latency, costs = config.processor.latencies, config.costs
    second = bool(config.processor.l2 or config.processor.l2_fetch)
    return [
        Cost(INSTRUCTIONS, "base", costs.cycles_per_instruction),
        Cost(L2_LOOKUPS, "l2", latency.l2 if second else 0),
        Cost(WALKS, "walk_cache", latency.walk_cache),
        Cost(DIRTY_WALKS, "walk_cache", latency.walk_cache),
        Cost(FAULT_WALKS, "walk_cache", latency.walk_cache),
        Cost(ENTRY_HITS, "walk_cache", latency.walk_cache),
        Cost(NESTED_LOOKUPS, "nested_tlb", int(model[NESTED_TLB_CYCLES])),
        *read_costs(config, model),
        Cost(UPDATES, "update", latency.update),
        Cost(GUEST_FAULTS, "guest_fault", costs.guest_fault),
        Cost(NESTED_FAULTS, "nested_fault", costs.nested_fault),
        Cost(EXITS, "exit", costs.exit),
        Cost(SWITCHES, "switch", costs.switch),
        Cost(CR3_LOADS, "cr3_load", costs.cr3_load),
        Cost(MIGRATIONS, "migration", costs.migration),
        Cost(SHOOTDOWNS, "shootdown", costs.shootdown),
        Cost(SHOOTDOWN_TARGETS, "shootdown", costs.shootdown_target),
        Cost(INVALIDATIONS, "invalidation", costs.invalidation),
    ]


def read_costs(config: RunConfig, model: Words) -> list[Cost]:
    """Return what table reads cost, by where they are served from."""
    cycles = model[READ_CYCLES : READ_CYCLES + SERVED].tolist()
    if config.table_reads == "fixed":
        events = {"guest_table": GUEST_REFERENCES, "nested_table": NESTED_REFERENCES}
        return [Cost(event, cause, cycles[0]) for cause, event in events.items()]
    reads = {"guest_table": GUEST_READS, "nested_table": NESTED_READS}
    return [
        Cost(event + served, cause, cycles[served])
        for cause, event in reads.items()
        for served in range(SERVED)
    ]


def prices(costs: list[Cost], overlap: bool) -> Words:
    """Return `Schedule.cost` [2, event]: of a virtual machine's own events, of the hypervisor's for it.

    overlap: what a machine's walks take is told by how long they were waited for, not by their events.
    """
    cost = np.zeros((2, len(EVENTS)), np.int64)
    for event, cause, cycles in costs:
        cost[:, event] = cycles
        if overlap and cause in PIECES:
            cost[0, event] = 0
    cost[1, INSTRUCTIONS] = 0  # an exit's cost covers the handler's instructions
    return cost
