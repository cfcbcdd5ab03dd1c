"""Traces of memory accesses: the native Parquet format, its readers and writers, importers.

The names below are loaded when they are first used: PyArrow and Numba are slow to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmu.trace.kinds import BLOCK, FETCH, KIND_NAMES, READ, WRITE

if TYPE_CHECKING:
    from mmu.trace.chunks import Chunk
    from mmu.trace.compact import compact_trace, fold
    from mmu.trace.export import Exported, export_trace
    from mmu.trace.format import Compact, Raw
    from mmu.trace.importer import import_lackey, import_trace
    from mmu.trace.reader import Trace, open_trace
    from mmu.trace.summary import info
    from mmu.trace.writer import write_compact, write_raw

HOMES = {
    "Chunk": "chunks",
    "Compact": "format",
    "Exported": "export",
    "Raw": "format",
    "Trace": "reader",
    "compact_trace": "compact",
    "export_trace": "export",
    "fold": "compact",
    "import_lackey": "importer",
    "import_trace": "importer",
    "info": "summary",
    "open_trace": "reader",
    "write_compact": "writer",
    "write_raw": "writer",
}

__all__ = [
    "BLOCK",
    "FETCH",
    "KIND_NAMES",
    "READ",
    "WRITE",
    "Chunk",
    "Compact",
    "Exported",
    "Raw",
    "Trace",
    "compact_trace",
    "export_trace",
    "fold",
    "import_lackey",
    "import_trace",
    "info",
    "open_trace",
    "write_compact",
    "write_raw",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
    globals()[name] = value
    return value
