"""An input that is being imported: what a format's reader is given."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmu.trace.notes import Notes


@dataclass
class Source:
    """An open input.

    Attributes
    ----------
    where : str
        What messages call it.
    head : bytes
        Its beginning, unpacked: a megabyte or so, less only if there is no more.
    pieces : iterator of bytes
        All of it, unpacked, `head` included, in pieces of any length; to be read once.
    path : str or None
        The file itself, for formats that are not streams; None: a pipe or standard input.
    columns : mapping of str to str
        For tables: the input's name of a column by our own.
    notes : Notes
        For what the input says besides its accesses.
    """

    where: str
    head: bytes
    pieces: Iterator[bytes]
    path: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
