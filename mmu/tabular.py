"""Results as tables: pandas frames, and files of CSV or Parquet."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from mmu.errors import InputError
from mmu.files import Table, csv_text, parquet_bytes, write_whole
from mmu.units import shown

if TYPE_CHECKING:
    import pandas


class Tabular(ABC):
    """What can be written as tables."""

    @abstractmethod
    def tables(self) -> dict[str, Table]:
        """Return all counts and figures as named tables."""

    def to_frames(self) -> "dict[str, pandas.DataFrame]":
        """Return `tables` as pandas frames."""
        try:
            import pandas  # noqa: PLC0415  an extra, and slow to import
        except ImportError:
            raise InputError(
                "pandas is not installed; accepted: pip install 'mmu[pandas]', or use tables()"
            ) from None
        return {
            name: pandas.DataFrame(table.rows, columns=table.columns)
            for name, table in self.tables().items()
        }

    def write_tables(self, folder: str | Path, kind: str = "csv") -> list[Path]:
        """Write each of `tables` to a file of a folder, as ``csv`` or ``parquet``."""
        if kind not in ("csv", "parquet"):
            raise InputError(f"found {shown(kind)}; accepted: csv | parquet")
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make folder {str(folder)!r}: {error.strerror}") from None
        written = []
        for name, table in self.tables().items():
            written.append(Path(folder) / f"{name}.{kind}")
            write_whole(written[-1], csv_text(table) if kind == "csv" else parquet_bytes(table))
        return written
