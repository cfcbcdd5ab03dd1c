"""How a walk ended, spelled out: the fault's codes bit by bit, and which entries are to blame.

Sources: Intel SDM vol. 3, "Page-Fault Exceptions", "Exit Qualification for EPT Violations", "EPT
Misconfigurations"; AMD64 APM vol. 2, "Nested versus Guest Page Faults".
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mmu.entrybits import EntryFormat
from mmu.hardware.answers import FINAL
from mmu.hardware.bits import LEVELS
from mmu.hardware.outcome import Outcome
from mmu.indices import reach
from mmu.paging import Control, Ept, Npt
from mmu.translation import Translation

if TYPE_CHECKING:
    from mmu.walkthrough import Place, Read

# Bits by number, in the manuals' terms.
ERROR_BITS = {0: "P", 1: "W/R", 2: "U/S", 3: "RSVD", 4: "I/D"}
QUALIFICATION_BITS = {
    0: "data read", 1: "data write", 2: "instruction fetch", 3: "R granted", 4: "W granted",
    5: "X granted", 7: "guest linear address valid", 8: "final translation",
}  # fmt: skip
INFO_BITS = {32: "final translation", 33: "guest table"}
LOW_WORD = (1 << 32) - 1
LETTERS = {"read": "R", "write": "W", "fetch": "X"}
BIT_NAMES = {"R": "R", "W": "RW", "X": "XD", "U": "US"}
SIZES = {4 << 10: "4 KiB", 2 << 20: "2 MiB", 1 << 30: "1 GiB"}
TITLES = {
    Outcome.OK: "translated",
    Outcome.NOT_CANONICAL: "#GP, general protection",
    Outcome.PAGE_FAULT: "#PF, page fault",
    Outcome.NESTED_MISCONFIGURATION: "EPT misconfiguration",
    Outcome.NO_MEMORY: "a table outside memory",
}


class Ending(NamedTuple):
    """How a walk ended.

    Attributes
    ----------
    title : str
        In the manuals' terms.
    reason : str
        Why, in a sentence; empty if the address was translated.
    facts : tuple of (str, str)
        Addresses and codes with their names.
    rights : dict or None
        Of the page that was found: what of ``RWX`` ``"user"`` and ``"supervisor"`` may do.
    """

    title: str
    reason: str
    facts: tuple[tuple[str, str], ...]
    rights: dict[str, str] | None


def set_bits(value: int, names: dict[int, str]) -> str:
    """Return the names of the bits that are set, with their numbers."""
    found = [
        f"{number} {names.get(number, 'reserved')}" for number in range(64) if value >> number & 1
    ]
    return ", ".join(found) or "no bit set"


def flags(code: int) -> str:
    """Return every bit of a page fault's error code by name, set or clear."""
    return " ".join(f"{name}={code >> number & 1}" for number, name in ERROR_BITS.items())


def together(reads: Iterable["Read"]) -> str:
    """Return what entries grant together, out of ``RWXU``."""
    grants = [read.grants for read in reads]
    return "".join(letter for letter in "RWXU" if all(letter in each for each in grants))


def without(reads: Iterable["Read"], letter: str) -> str:
    """Name the entries that do not grant a right."""
    return ", ".join(
        f"{read.label} (reference {read.number})" for read in reads if letter not in read.grants
    )


def allowed(guest: str, nested: str, control: Control) -> dict[str, str]:
    """Return what user and supervisor may do where each dimension grants so much.

    The same rules as `mmu.hardware.rules.guest_denied` and `nested_denied`.
    """
    user = guest if "U" in guest else ""
    supervisor = set(guest) | (set() if control.wp else {"W"})
    if "U" in guest and control.smep:
        supervisor -= {"X"}
    if "U" in guest and control.smap and not control.ac:
        supervisor -= {"R", "W"}
    host = nested if "U" in nested else ""
    return {
        "user": "".join(letter for letter in "RWX" if letter in user and letter in host),
        "supervisor": "".join(
            letter for letter in "RWX" if letter in supervisor and letter in host
        ),
    }


def ending_of(
    found: Translation,
    gva: int,
    reads: Sequence["Read"],
    following: "Place",
    nested: Ept | Npt | None,
    control: Control,
    access: str,
    user: bool,
) -> Ending:
    """Return how a walk ended; `following` is what would have come after its reads."""
    outcome = found.outcome
    if outcome == Outcome.OK:
        return _translated(found, reads, nested, control)
    if outcome == Outcome.NOT_CANONICAL:
        bits = reach(LEVELS + control.la57)
        reason = f"bits 63:{bits - 1} of the address differ: it is not canonical, no table is read"
        return Ending(TITLES[outcome], reason, (("error code", "0x0"),), None)
    facts: list[tuple[str, str]] = []
    title = TITLES.get(outcome, "")
    if outcome == Outcome.NO_MEMORY:
        what = f"{following.label} would be read at machine address {following.address:#x}"
        return Ending(title, f"{what}, which is not in this memory", (), None)
    if outcome == Outcome.PAGE_FAULT:
        code = found.error_code or 0
        facts += [("error code", f"{code:#x}: {flags(code)}"), ("CR2", f"{gva % (1 << 64):#x}")]
        reason = _page_fault(reads, nested, control, access, user)
    else:
        reason = _nested_fault(found, reads, nested, control, access)
        if found.exit_qualification is not None:
            title = "EPT violation, exit reason 48"
            code = found.exit_qualification
            clear = "" if code & FINAL else "; 8 clear: a guest table"
            named = f"{code:#x}: {set_bits(code, QUALIFICATION_BITS)}{clear}"
            facts.append(("exit qualification", named))
        elif found.exit_info is not None:
            title = "#NPF, nested page fault, exit code 0x400"
            code = found.exit_info
            high = set_bits(code & ~LOW_WORD, INFO_BITS)
            facts.append(("EXITINFO1", f"{code:#x}: {flags(code)}, {high}"))
        else:
            title = f"{title}, exit reason 49"
        named = "EXITINFO2" if isinstance(nested, Npt) else "guest-physical address"
        facts.append((named, f"{found.fault_gpa or 0:#x}"))
    return Ending(title, reason, tuple(facts), None)


def _translated(
    found: Translation, reads: Sequence["Read"], nested: object, control: Control
) -> Ending:
    """Return how a walk ended that found the page."""
    guest = [read for read in reads if read.dimension == "guest"]
    inner = [read for read in reads if read.dimension == "nested" and read.row == len(guest)]
    size = SIZES[found.page_size or 0]
    if nested:
        sizes = [SIZES[each or 0] for each in (found.guest_page_size, found.nested_page_size)]
        size += f", the smaller of guest {sizes[0]} and nested {sizes[1]}"
    rights = allowed(together(guest), together(inner), control)
    facts = [("machine address", f"{found.maddr or 0:#x}")]
    if nested:
        facts.append(("guest-physical address", f"{found.gpa or 0:#x}"))
    facts.append(("page", size))
    facts.append(("rights", ", ".join(f"{who} {what or 'none'}" for who, what in rights.items())))
    return Ending(TITLES[Outcome.OK], "", tuple(facts), rights)


def _page_fault(
    reads: Sequence["Read"], nested: Ept | Npt | None, control: Control, access: str, user: bool
) -> str:
    """Say why the guest's own tables do not allow the access."""
    last = reads[-1]
    who = f"{last.name} (reference {last.number})"
    form = EntryFormat.of_guest(control, nested)
    if not form.present(last.entry):
        return f"{who} is not present"
    if problems := form.problems(last.entry, last.level):
        return f"{who}: {'; '.join(problems)}"
    guest = [read for read in reads if read.dimension == "guest"]
    granted, why = together(guest), []
    if user and "U" not in granted:
        why.append(f"the user must not: US is clear in {without(guest, 'U')}")
    if not user and "U" in granted:
        if access == "fetch" and control.smep:
            why.append("SMEP: the supervisor must not fetch from a user page")
        if access != "fetch" and control.smap and not control.ac:
            why.append(f"SMAP: the supervisor must not {access} a user page")
    if access == "fetch" and "X" not in granted:
        why.append(f"XD is set in {without(guest, 'X')}")
    if access == "write" and "W" not in granted and (user or control.wp):
        also = "" if user else ", and CR0.WP is set"
        why.append(f"RW is clear in {without(guest, 'W')}{also}")
    return "; ".join(why)


def _nested_fault(
    found: Translation,
    reads: Sequence["Read"],
    nested: Ept | Npt | None,
    control: Control,
    access: str,
) -> str:
    """Say why the hypervisor's tables do not allow the access."""
    assert nested is not None
    form = EntryFormat.of_nested(control, nested)
    gpa = found.fault_gpa or 0
    if gpa >> reach(nested.levels):
        bits = reach(nested.levels)
        return (
            f"{gpa:#x} has more than the {bits} bits that {nested.levels} nested levels translate"
        )
    last = reads[-1]
    who = f"{last.name} (reference {last.number})"
    inner = [read for read in reads if read.dimension == "nested" and read.row == last.row]
    if last.dimension == "guest":
        return (
            f"an accessed or dirty bit is to be set in {who}, but nested tables do not permit "
            f"writes to its table: W is missing in {without(inner, 'W')}"
        )
    if not form.present(last.entry):
        return f"{who} is not present"
    if problems := form.problems(last.entry, last.level):
        return f"{who}: {'; '.join(problems)}"
    data = found.guest_page_size is not None
    letter = LETTERS[access] if data else "W" if form.marks else "R"
    why = []
    if "U" not in together(inner):
        why.append(f"every nested access is a user's, and US is clear in {without(inner, 'U')}")
    if letter not in together(inner):
        bit = BIT_NAMES[letter] if form.name == "NPT" else letter
        state = "is set" if bit == "XD" else "is clear" if form.name == "NPT" else "is missing"
        what = f"a {access if data else 'read'} is not permitted"
        if not data and letter == "W":
            what = "an access to a guest table counts as a write, which is not permitted"
        why.append(f"{what}: {bit} {state} in {without(inner, letter)}")
    return "; ".join(why)
