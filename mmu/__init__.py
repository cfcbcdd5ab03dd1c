"""Emulator of virtual address translation under a hypervisor.

``mmu.replay`` and ``mmu.compare`` replay memory traces as virtual machines on one processor, ``mmu.vary``
with one value after another of an option;
``mmu.translate`` translates one address through page tables in a ``mmu.Memory``, ``mmu.mapping`` lists
all that they map.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmu.config import Costs, Processor, RunConfig, VmConfig
    from mmu.errors import InputError, MmuError, OutOfMemory, StaleTranslation
    from mmu.example import Example, example_tables
    from mmu.hardware.outcome import Outcome
    from mmu.memory import Memory
    from mmu.paging import Control, Ept, Npt
    from mmu.processors import load_processor
    from mmu.result import Comparison, Result
    from mmu.run import Replay, compare, replay
    from mmu.schedule import load_schedule
    from mmu.slices import Slices
    from mmu.spacemap import Mapping, mapping
    from mmu.sweep import vary
    from mmu.swept import Sweep
    from mmu.trace.reader import open_trace
    from mmu.translation import Step, Translation, Translations, translate, translate_many
    from mmu.turns import ProcessConfig, Quantum, Start
    from mmu.walkthrough import Read, Walkthrough, explain
    from mmu.watch import record_slices

__all__ = [
    "Comparison",
    "Control",
    "Costs",
    "Ept",
    "Example",
    "InputError",
    "Mapping",
    "Memory",
    "MmuError",
    "Npt",
    "OutOfMemory",
    "Outcome",
    "ProcessConfig",
    "Processor",
    "Quantum",
    "Read",
    "Replay",
    "Result",
    "RunConfig",
    "Slices",
    "StaleTranslation",
    "Start",
    "Step",
    "Sweep",
    "Translation",
    "Translations",
    "VmConfig",
    "Walkthrough",
    "compare",
    "example_tables",
    "explain",
    "load_processor",
    "load_schedule",
    "mapping",
    "open_trace",
    "record_slices",
    "replay",
    "translate",
    "translate_many",
    "vary",
]

_HOMES = {
    "mmu.config": ("Costs", "Processor", "RunConfig", "VmConfig"),
    "mmu.errors": ("InputError", "MmuError", "OutOfMemory", "StaleTranslation"),
    "mmu.example": ("Example", "example_tables"),
    "mmu.hardware.outcome": ("Outcome",),
    "mmu.memory": ("Memory",),
    "mmu.paging": ("Control", "Ept", "Npt"),
    "mmu.processors": ("load_processor",),
    "mmu.result": ("Comparison", "Result"),
    "mmu.run": ("Replay", "compare", "replay"),
    "mmu.schedule": ("load_schedule",),
    "mmu.slices": ("Slices",),
    "mmu.spacemap": ("Mapping", "mapping"),
    "mmu.sweep": ("vary",),
    "mmu.swept": ("Sweep",),
    "mmu.trace.reader": ("open_trace",),
    "mmu.translation": ("Step", "Translation", "Translations", "translate", "translate_many"),
    "mmu.turns": ("ProcessConfig", "Quantum", "Start"),
    "mmu.walkthrough": ("Read", "Walkthrough", "explain"),
    "mmu.watch": ("record_slices",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `mmu --help` needs none of them."""
    from importlib import import_module  # noqa: PLC0415

    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'mmu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
