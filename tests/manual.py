"""What the manuals say about translating one access, word for word, slowly, on a dictionary of words.

A reference to compare the package with: it imports nothing of it and shares no constant. Sources:
Intel SDM vol. 3, "4-Level Paging and 5-Level Paging", "Access Rights", "Page-Fault Exceptions",
"Accessed and Dirty Flags", "EPT Translation Mechanism", "EPT-Induced VM Exits", "Accessed and Dirty
Flags for EPT", "Exit Qualification for EPT Violations"; AMD64 APM vol. 2, "Nested Paging" and, for
bit 8 of PML4E and PDPE, "Long-Mode Page Translation".
Three choices the manuals leave open: accessed is set in a table's entry when the entry is used, even
if the walk then fails further down; in the last entry once the rights have passed; and an EPT
violation of an update of a guest entry reports a read and a write.
"""

from dataclasses import dataclass

TABLE_ADDRESS = 0x000F_FFFF_FFFF_F000
LOW = {1: (1 << 12) - 1, 2: (1 << 21) - 1, 3: (1 << 30) - 1}  # offset in a page, by leaf's level


@dataclass(frozen=True)
class Control:
    wp: bool = True
    nxe: bool = True
    smep: bool = False
    smap: bool = False
    ac: bool = False
    la57: bool = False
    gbpages: bool = True
    maxphyaddr: int = 48


@dataclass(frozen=True)
class Ept:
    eptp: int
    execute_only: bool = True
    gbpages: bool = True


@dataclass(frozen=True)
class Npt:
    ncr3: int
    nxe: bool = True
    levels: int = 4
    gbpages: bool = True


class Stop(Exception):
    """The walk ends here without a translation."""

    def __init__(self, outcome, **found):
        super().__init__(outcome)
        self.outcome, self.found = outcome, found


class Words:
    """Machine memory: `size` bytes at `base`, zero but for the words of a dictionary."""

    def __init__(self, words, base=0, size=1 << 52):
        self.words, self.base, self.size = words, base, size

    def holds(self, address):
        return self.base <= address and address + 8 <= self.base + self.size


class Walk:
    """One access: what was read, what is marked, how it ends."""

    def __init__(self, memory, cr3, nested, access, user, control):
        self.memory, self.nested, self.control = memory, nested, control
        self.cr3, self.access, self.user = cr3, access, user
        self.marked = {}  # words that the walk changed
        self.steps = []

    def load(self, dimension, level, address):
        if not self.memory.holds(address):
            raise Stop("NO_MEMORY")
        word = self.marked.get(address, self.memory.words.get(address, 0))
        self.steps.append((dimension, level, address, word))
        return word

    def mark(self, address, bits):
        word = self.marked.get(address, self.memory.words.get(address, 0))
        if word | bits != word:
            self.marked[address] = word | bits

    # --- second level: a guest-physical address to a machine address -----------------------------

    def machine(self, gpa, reads, writes, fetches, table):
        """Machine address of gpa, the size of its page, and whether writes to it are allowed."""
        if self.nested is None:
            return gpa, None, True
        if isinstance(self.nested, Ept):
            return self.through_ept(gpa, reads, writes, fetches, table)
        return self.through_npt(gpa, writes, fetches, table)

    def through_ept(self, gpa, reads, writes, fetches, table):
        keeps_dirty = bool(self.nested.eptp & 0x40)
        if keeps_dirty and table:
            writes = True  # "are treated as writes"
        levels = (self.nested.eptp >> 3 & 7) + 1
        if levels == 4 and gpa >> 48:
            raise self.violation(gpa, reads, writes, fetches, table, 0)
        where, rights = self.nested.eptp & TABLE_ADDRESS, 7
        for level in range(levels, 0, -1):
            place = where + 8 * (gpa >> (12 + 9 * (level - 1)) & 511)
            entry = self.load("nested", level, place)
            if entry & 7 == 0:
                raise self.violation(gpa, reads, writes, fetches, table, 0)
            large = level > 1 and bool(entry >> 7 & 1)
            leaf = level == 1 or large
            if self.ept_is_misconfigured(entry, level, large, leaf):
                raise Stop("NESTED_MISCONFIGURATION", fault_gpa=gpa)
            rights &= entry & 7
            if leaf:
                denied = (reads and not rights & 1) or (writes and not rights & 2)
                if denied or (fetches and not rights & 4):
                    raise self.violation(gpa, reads, writes, fetches, table, rights)
                if keeps_dirty:
                    self.mark(place, 0x300 if writes else 0x100)
                frame = entry & TABLE_ADDRESS & ~LOW[level]
                return frame | gpa & LOW[level], 1 + LOW[level], bool(rights & 2) or rights
            if keeps_dirty:
                self.mark(place, 0x100)
            where = entry & TABLE_ADDRESS
        raise AssertionError

    def ept_is_misconfigured(self, entry, level, large, leaf):
        if entry & 7 in (2, 6) or (entry & 7 == 4 and not self.nested.execute_only):
            return True
        if large and (level > 3 or (level == 3 and not self.nested.gbpages)):
            return True  # bit 7 is reserved there
        for bit in range(self.control.maxphyaddr, 52):
            if entry >> bit & 1:
                return True
        if not leaf:
            return bool(entry & 0x78)
        if entry & LOW[level] & TABLE_ADDRESS:
            return True
        return entry >> 3 & 7 in (2, 3, 7)

    def violation(self, gpa, reads, writes, fetches, table, rights):
        qualification = reads | writes << 1 | fetches << 2 | rights << 3 | 1 << 7
        if not table:
            qualification |= 1 << 8
        return Stop("NESTED_VIOLATION", exit_qualification=qualification, fault_gpa=gpa)

    def through_npt(self, gpa, writes, fetches, table):
        code = 1 << 2 | (1 << 33 if table else 1 << 32)
        if writes or table:
            writes, code = True, code | 1 << 1
        if fetches and not table and self.nested.nxe:
            code |= 1 << 4
        if gpa >> (48 if self.nested.levels == 4 else 57):
            raise Stop("NESTED_VIOLATION", exit_info=code, fault_gpa=gpa)
        where = self.nested.ncr3 & TABLE_ADDRESS
        writable = user = True
        executable = True
        for level in range(self.nested.levels, 0, -1):
            place = where + 8 * (gpa >> (12 + 9 * (level - 1)) & 511)
            entry = self.load("nested", level, place)
            if not entry & 1:
                raise Stop("NESTED_VIOLATION", exit_info=code, fault_gpa=gpa)
            leaf = level == 1 or bool(entry >> 7 & 1)
            if self.x86_is_reserved(entry, level, leaf, self.nested.gbpages, self.nested.nxe):
                raise Stop("NESTED_VIOLATION", exit_info=code | 1 | 1 << 3, fault_gpa=gpa)
            writable &= bool(entry & 2)
            user &= bool(entry & 4)
            executable &= not entry >> 63
            if leaf:
                if (
                    not user
                    or (writes and not writable)
                    or (fetches and not table and not executable)
                ):
                    raise Stop("NESTED_VIOLATION", exit_info=code | 1, fault_gpa=gpa)
                self.mark(place, 0x60 if writes else 0x20)
                frame = entry & TABLE_ADDRESS & ~LOW[level]
                return frame | gpa & LOW[level], 1 + LOW[level], writable
            self.mark(place, 0x20)
            where = entry & TABLE_ADDRESS
        raise AssertionError

    # --- first level: a virtual address to a guest-physical address -------------------------------

    def x86_is_reserved(self, entry, level, leaf, gbpages, nxe):
        for bit in range(self.control.maxphyaddr, 52):
            if entry >> bit & 1:
                return True
        if entry >> 63 and not nxe:
            return True
        if (
            not leaf
        ):  # what would be the global bit is reserved by AMD, in tables of level 2 and more
            return isinstance(self.nested, Npt) and level > 2 and bool(entry >> 8 & 1)
        if level == 1:
            return False
        if level > 3 or (level == 3 and not gbpages):
            return True  # PS is reserved there
        return bool(entry & LOW[level] & ~0x1FFF)  # bit 12 is PAT

    def guest(self, gva):
        """Guest-physical address of gva, and the size of its page."""
        control = self.control
        levels = 5 if control.la57 else 4
        top = gva >> (12 + 9 * levels - 1)
        if top not in (0, (1 << (64 - (12 + 9 * levels - 1))) - 1):
            raise Stop("NOT_CANONICAL")
        code = 0
        if self.access == "write":
            code |= 2
        if self.user:
            code |= 4
        if self.access == "fetch" and (control.nxe or control.smep):
            code |= 16
        where = self.cr3 & TABLE_ADDRESS
        writable = user_page = executable = True
        for level in range(levels, 0, -1):
            gpa = where + 8 * (gva >> (12 + 9 * (level - 1)) & 511)
            place, _, rights = self.machine(
                gpa, reads=True, writes=False, fetches=False, table=True
            )
            entry = self.load("guest", level, place)
            if not entry & 1:
                raise Stop("PAGE_FAULT", error_code=code)
            leaf = level == 1 or bool(entry >> 7 & 1)
            if self.x86_is_reserved(entry, level, leaf, control.gbpages, control.nxe):
                raise Stop("PAGE_FAULT", error_code=code | 1 | 8)
            writable &= bool(entry & 2)
            user_page &= bool(entry & 4)
            executable &= not entry >> 63
            if leaf:
                if not self.allowed(writable, user_page, executable):
                    raise Stop("PAGE_FAULT", error_code=code | 1)
                self.mark_guest(place, gpa, 0x60 if self.access == "write" else 0x20, entry, rights)
                frame = entry & TABLE_ADDRESS & ~LOW[level]
                return frame | gva & LOW[level], 1 + LOW[level]
            self.mark_guest(place, gpa, 0x20, entry, rights)
            where = entry & TABLE_ADDRESS
        raise AssertionError

    def allowed(self, writable, user_page, executable):
        control = self.control
        if self.user:
            if not user_page:
                return False
            if self.access == "write":
                return writable
            return self.access == "read" or executable
        if self.access == "fetch":
            return executable and not (control.smep and user_page)
        if control.smap and user_page and not control.ac:
            return False
        return self.access == "read" or writable or not control.wp

    def mark_guest(self, place, gpa, bits, entry, rights):
        """Set accessed and dirty in a guest's entry: a write that EPT may forbid."""
        if entry & bits == bits:
            return
        if isinstance(self.nested, Ept) and rights is not True:
            raise self.violation(gpa, True, True, False, True, rights)
        self.mark(place, bits)


FIELDS = (
    "outcome", "gpa", "maddr", "page_size", "guest_page_size", "nested_page_size", "error_code",
    "exit_qualification", "exit_info", "fault_gpa", "references", "steps", "updates",
)  # fmt: skip


def translate(
    memory, gva, *, cr3, nested=None, access="read", user=True, control=None, update=False
):
    """Translate one access; a dictionary of FIELDS, as the package's Translation names them."""
    walk = Walk(memory, cr3, nested, access, user, control or Control())
    result = dict.fromkeys(FIELDS)
    try:
        gpa, guest_size = walk.guest(gva % (1 << 64))
        result |= {"gpa": gpa, "guest_page_size": guest_size}
        maddr, nested_size, _ = walk.machine(
            gpa, access == "read", access == "write", access == "fetch", table=False
        )
        smaller = min(guest_size, nested_size or guest_size)
        result |= {"outcome": "OK", "maddr": maddr, "page_size": smaller}
        result["nested_page_size"] = nested_size
    except Stop as stop:
        result |= {"outcome": stop.outcome, **stop.found}
    result["steps"] = walk.steps
    result["references"] = len(walk.steps)
    result["updates"] = walk.marked
    if update:
        memory.words.update(walk.marked)
    return result
