"""What is told of a stale translation: the access, what the cache said, what the tables say."""

from mmu.errors import StaleTranslation
from mmu.hardware.bits import LEVEL_BITS, PAGE_BYTES, WORD_BYTES
from mmu.hardware.check import (
    STALE_DENIED,
    STALE_DENIED_NOW,
    STALE_ENTRY,
    STALE_GVA,
    STALE_KIND,
    STALE_NOW,
    STALE_PLACE,
    STALE_USED,
    STALE_WORD,
)
from mmu.hardware.entry import ADDRESS, EXECUTE, READ, USER, WRITE
from mmu.hardware.machine import SUPERVISOR, WRITE_ACCESS
from mmu.hardware.outcome import Outcome
from mmu.hardware.rows import Words
from mmu.hardware.tlb import FRAME_GLOBAL, frame_size, guest_size
from mmu.units import format_size

KIND_NAMES = ("read", "write", "fetch")
RIGHT_NAMES = ((USER, "u"), (READ, "r"), (WRITE, "w"), (EXECUTE, "x"))
OUTCOME_TEXTS = {
    Outcome.PAGE_FAULT: "a page fault",
    Outcome.NESTED_VIOLATION: "a nested violation",
    Outcome.NESTED_MISCONFIGURATION: "a nested misconfiguration",
    Outcome.NO_MEMORY: "a table outside memory",
}


def described(word: int, denied: int) -> str:
    """Say what a TLB entry, or a walk, gives: word and denied kinds as `hardware.tlb` has them."""
    if word < 0:
        return OUTCOME_TEXTS[Outcome(-word)]
    rights = "".join(name if word & right else "-" for right, name in RIGHT_NAMES)
    size, guest = (PAGE_BYTES << LEVEL_BITS * code for code in (frame_size(word), guest_size(word)))
    text = f"{word & ADDRESS:#x}, {format_size(size)}, {rights}"
    text += f", of a guest page of {format_size(guest)}" if guest != size else ""
    text += ", global" if word & FRAME_GLOBAL else ""
    dirty = not denied >> WRITE_ACCESS & 1 or not denied >> WRITE_ACCESS + SUPERVISOR & 1
    return text + (", dirty" if dirty else "")


def answer_of(stale: Words) -> str:
    """Say what the caches gave: a translation, or a walk that left bits clear.

    stale: int64 [STALE_FIELDS].
    """
    if not stale[STALE_USED]:
        return described(int(stale[STALE_WORD]), int(stale[STALE_DENIED]))
    entry, used = int(stale[STALE_ENTRY]) % (1 << 64), int(stale[STALE_USED]) % (1 << 64)
    place = int(stale[STALE_PLACE]) * WORD_BYTES
    return f"a walk that left {entry ^ used:#x} clear in the entry {entry:#x} at {place:#x}"


def stale_translation(stale: Words, where: str) -> StaleTranslation:
    """Return the error for what `hardware.check.make_checked` noted, of an access `where` says.

    stale: int64 [STALE_FIELDS].
    """
    gva = int(stale[STALE_GVA]) % (1 << 64)
    kind = int(stale[STALE_KIND])
    who = "supervisor" if kind >= SUPERVISOR else "user"
    cached = answer_of(stale)
    now = described(int(stale[STALE_NOW]), int(stale[STALE_DENIED_NOW]))
    return StaleTranslation(
        gva,
        f"{where}: stale translation: {who} {KIND_NAMES[kind % SUPERVISOR]} of {gva:#x} was answered "
        f"with {cached}; the tables say {now}; whoever changed them has to invalidate",
    )
