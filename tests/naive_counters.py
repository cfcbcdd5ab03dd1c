"""The naive model's counters, and what each event costs."""

from collections import Counter

EVENTS = {  # event: the cause its cycles are charged to, and the name of its cost if another
    "INSTRUCTION": ("base", "base"),
    "L2_LOOKUP": ("l2", "l2"),
    "WALK": ("walk_cache", "walk_cache"),
    "DIRTY_WALK": ("walk_cache", "walk_cache"),
    "FAULT_WALK": ("walk_cache", "walk_cache"),
    "ENTRY_HIT": ("walk_cache", "walk_cache"),
    "NESTED_LOOKUP": ("nested_tlb", "nested_tlb"),
    "GUEST_REFERENCE": ("guest_table", "guest_table"),
    "NESTED_REFERENCE": ("nested_table", "nested_table"),
    "UPDATE": ("update", "update"),
    "GUEST_FAULT": ("guest_fault", "guest_fault"),
    "NESTED_FAULT": ("nested_fault", "nested_fault"),
    "EXIT": ("exit", "exit"),
    "SWITCH": ("switch", "switch"),
    "CR3_LOAD": ("cr3_load", "cr3_load"),
    "MIGRATION": ("migration", "migration"),
    "SHOOTDOWN": ("shootdown", "shootdown"),
    "SHOOTDOWN_TARGET": ("shootdown", "shootdown_target"),
    "INVALIDATION": ("invalidation", "invalidation"),
}
COSTS = {  # cycles of one event
    "base": 1,
    "l2": 9,
    "walk_cache": 1,
    "nested_tlb": 1,
    "guest_table": 14,
    "nested_table": 14,
    "update": 20,
    "guest_fault": 1000,
    "nested_fault": 5000,
    "exit": 1400,
    "switch": 2000,
    "cr3_load": 0,
    "migration": 0,
    "shootdown": 2000,
    "shootdown_target": 500,
    "invalidation": 200,
}


def bucket(latency: int) -> int:
    """Return the lowest latency counted together with this one: 64 steps to a power of two."""
    step = 1
    while latency // step >= 128:  # 64 to 127 steps from a power of two to the next
        step *= 2
    return latency if latency < 512 else latency // step * step


class Counters:
    """Row v: vm v itself; row vms + v: what the hypervisor accesses on exits of vm v."""

    def __init__(self, vms: int, costs: dict[str, int] | None = None) -> None:
        self.vms = vms
        self.costs = COSTS | (costs or {})
        self.clock = 0
        self.zero()

    def zero(self) -> None:
        """Forget what was counted; the clock goes on."""
        rows = range(2 * self.vms)
        self.counts = [Counter() for _ in rows]  # [row][event]
        self.hits = [Counter() for _ in rows]  # [row][cache name]
        self.l1_misses = [[0, 0] for _ in rows]  # [row][data, stores included; fetch]
        self.histogram = [Counter() for _ in rows]  # [row][references of a completed walk]
        self.walk_latency = [Counter() for _ in rows]  # [row][bucket of a completed walk's cycles]
        self.reads = [Counter() for _ in rows]  # [row][dimension and who had the line]
        self.misses = [Counter() for _ in rows]  # [row][why a page was walked for]
        self.evictions = [[0] * (self.vms + 1) for _ in range(self.vms + 1)]  # [by][of]
        self.cycles = [Counter() for _ in range(self.vms)]  # [vm][cause]

    def add(self, row: int, event: str, times: int = 1) -> None:
        """Count an event, and let its cycles pass."""
        self.counts[row][event] += times
        if event in EVENTS:
            self.spend(row, EVENTS[event][0], times * self.cost(event))

    def cost(self, event: str) -> int:
        return self.costs[EVENTS[event][1]]

    def spend(self, row: int, cause: str, cycles: int) -> None:
        self.cycles[row % self.vms]["hypervisor" if row >= self.vms else cause] += cycles
        self.clock += cycles

    def evicted(self, row: int, owner: int) -> None:
        self.evictions[min(row, self.vms)][owner] += 1
