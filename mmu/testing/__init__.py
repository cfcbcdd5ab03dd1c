"""For users who property-test a hypervisor or a pager of their own.

All but `strategies` and `example` does without Hypothesis.

==============  ======================================================================================
`tables`        `TableMemory`, `Tables`: page tables, EPT and NPT, made and changed by plain code
`processor`     `CheckedProcessor`: has TLBs and walk caches, and finds a missing invalidation
`strategies`    Hypothesis strategies: page tables, addresses, processors, hosts, traces, operations
`reference`     `translate`: a slow translation that follows the manuals, to compare a walker with
`operations`    `Session`: a model that invalidates whatever it must, or forgets what it is told to
`example`       a hypervisor with a bug, and the state machine that finds it
==============  ======================================================================================

The shortest of tests:

    from mmu.testing import CheckedProcessor, TableMemory, Tables

    memory = TableMemory(pages=8)
    tables = Tables(memory)
    tables.map(0x40_0000, 0x1234_5000)
    cpu = CheckedProcessor(memory.view)
    cpu.load_cr3(tables.root)
    assert cpu.access(0x40_0123).maddr == 0x1234_5123
    tables.move(0x40_0000, 0x8000_0000)
    cpu.invlpg(0x40_0000)  # without which the next access is a StaleTranslation
    assert cpu.access(0x40_0123).maddr == 0x8000_0123
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.testing.operations import Session
    from mmu.testing.processor import CheckedProcessor
    from mmu.testing.tables import TableMemory, Tables

__all__ = ["CheckedProcessor", "Session", "TableMemory", "Tables"]

_HOMES = {
    "operations": ("Session",),
    "processor": ("CheckedProcessor",),
    "tables": ("TableMemory", "Tables"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the reference needs NumPy only."""
    from importlib import import_module  # noqa: PLC0415

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"mmu.testing.{home}"), name)
    raise AttributeError(f"module 'mmu.testing' has no attribute {name!r}")
