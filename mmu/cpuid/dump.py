"""Dumps of CPUID in the text format of AIDA64, in which InstLatx64 publishes them.

A line is a leaf, its four registers and perhaps its subleaf and a remark::

    CPUID 00000002: 00FEFF01-000000F0-00000000-00000000
    CPUID 00000004: 04000121-02C0003F-0000003F-00000000 [SL 00]

Whatever else such a file holds is passed over. A dump has these lines for each logical processor; the
first one's are taken.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mmu.errors import InputError
from mmu.units import shown

MOST_BYTES = 1 << 25  # dumps of the largest machines are a tenth of that
ACCEPTED = "CPUID LLLLLLLL: EAX-EBX-ECX-EDX [SL NN], eight hexadecimal digits each"
Leaf = tuple[int, int]  # and its subleaf

_LINE = re.compile(
    r"CPUID\s+([0-9A-F]{8}):?\s+([0-9A-F]{8})-([0-9A-F]{8})-([0-9A-F]{8})-([0-9A-F]{8})"
    r"(?:\s+\[SL\s+([0-9A-F]{1,8})\])?(?:\s*\[(?!SL\b)[^\]]*\])*",
    re.IGNORECASE | re.ASCII,
)
# A line of registers, whole or not; none is "CPUID Manufacturer : AuthenticAMD", nor a signature
# such as "CPUID    000906EDh".
_REGISTERS = re.compile(
    r"CPUID\s+(?![A-Z]+(?:\s|:|$))"
    r"(?:[0-9A-F]+(?:[:\s]|$)|\S*[0-9]\S*:|.*[0-9A-F]{4}-[0-9A-F]{4})",
    re.IGNORECASE | re.ASCII,
)


class Registers(NamedTuple):
    """What one leaf returns."""

    eax: int
    ebx: int
    ecx: int
    edx: int

    @property
    def text(self) -> str:
        """The registers' bytes as text, where they hold some."""
        return b"".join(word.to_bytes(4, "little") for word in self).decode("latin-1")


NOTHING = Registers(0, 0, 0, 0)
Leaves = Mapping[Leaf, Registers]


def read_dump(path: str) -> str:
    """Return the text of a dump's file, or of standard input if it is ``-``.

    Raises
    ------
    InputError
        The file cannot be read or is too large.
    """
    if path == "-":
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    else:
        try:
            with Path(path).open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"cannot read {path!r}: {reason}") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{path!r} is larger than {MOST_BYTES} bytes; accepted: a dump of CPUID")
    return data.decode("utf-8", errors="replace")


def parse_dump(text: str) -> dict[Leaf, Registers]:
    """Return the registers of a dump's first logical processor by leaf and subleaf.

    A leaf that is there more than once without saying which subleaf is numbered as it comes.

    Raises
    ------
    InputError
        A line that begins like one of registers is none, or there is none at all.
    """
    leaves: dict[Leaf, Registers] = {}
    first = True
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not _REGISTERS.match(stripped):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise InputError(f"line {number}: found {shown(stripped)}; accepted: {ACCEPTED}")
        leaf = int(match[1], 16)
        first = first and not (leaf == 0 and (0, 0) in leaves)
        if first:
            at = int(match[6], 16) if match[6] else _next(leaves, leaf)
            words = (int(word, 16) for word in match.group(2, 3, 4, 5))
            leaves.setdefault((leaf, at), Registers(*words))
    for leaf in (0, 1):
        if (leaf, 0) not in leaves:
            raise InputError(f"found no line 'CPUID {leaf:08X}: ...'; accepted: {ACCEPTED}")
    return leaves


def _next(leaves: Leaves, leaf: int) -> int:
    at = 0
    while (leaf, at) in leaves:
        at += 1
    return at


def subleaves(leaves: Leaves, leaf: int) -> Iterable[tuple[int, Registers]]:
    """Yield the subleaves that there are of a leaf, in order."""
    return sorted((sub, words) for (of, sub), words in leaves.items() if of == leaf)


def bits(word: int, high: int, low: int) -> int:
    """Return bits ``high`` to ``low`` of a word."""
    return word >> low & ((1 << high - low + 1) - 1)
