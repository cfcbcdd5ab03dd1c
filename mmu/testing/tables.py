"""Page tables made by plain code, one entry after the other, in an array of words.

What a user's own hypervisor or pager does to its tables, done plainly: a model to compare it with, and
what the strategies build their examples of. Guest tables, EPT and NPT have one vocabulary:

    memory = TableMemory(pages=64)
    nested = Tables(memory, "ept")
    guest = Tables(memory, "x86", nested=nested)  # its tables get guest-physical pages, backed
    guest.map(0x1234_5000, 0x8000_0000)
    nested.map(0x8000_0000, 0x7000_0000, "2m", "rw")
    mmu.translate(memory.view, 0x1234_5678, cr3=guest.root, nested=nested.pointer)

Nothing here invalidates anything: who changes an entry that a processor may have cached has to say so
to the processor.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.errors import InputError
from mmu.memory import Memory
from mmu.paging import Ept, Npt, whole

PAGE = 4096
ENTRIES = 512
MOST_PAGES = 1 << 18  # 1 GiB of tables
SIZES = {"4k": PAGE, "2m": PAGE << 9, "1g": PAGE << 18}
FRAME = 0x000F_FFFF_FFFF_F000
FORMATS = ("x86", "ept", "npt")
ALL_RIGHTS = "rwxu"
PRESENT, WRITABLE, USER, LARGE, PAT, EXECUTE_DISABLE = 1, 2, 4, 1 << 7, 1 << 12, 1 << 63
ACCESSED, DIRTY, GLOBAL = 1 << 5, 1 << 6, 1 << 8
EPT_ACCESSED, EPT_DIRTY, EPT_WRITE_BACK, EPT_TYPE = 1 << 8, 1 << 9, 6 << 3, 7 << 3
# Where a guest's tables lie in its own memory: above what examples map, below 2^36.
FIRST_TABLE = 0x8_0000_0000


class TableMemory:
    """Machine memory in which pages are handed out for tables, lowest first.

    Parameters
    ----------
    pages : int
        Pages of 4 KiB.
    base : int
        Machine address of the first.

    Attributes
    ----------
    words : ndarray of uint64 [512 * pages]
        The words; `view` is the same as an `mmu.Memory`, for `mmu.translate`.
    """

    def __init__(self, pages: int = 64, base: int = 0) -> None:
        if not 0 <= whole("pages", pages) <= MOST_PAGES:
            raise InputError(f"pages: found {pages}; accepted: 0 to {MOST_PAGES:,}")
        self.words: NDArray[np.uint64] = np.zeros(ENTRIES * pages, np.uint64)
        self.base = base
        self.view = Memory.from_words(self.words, base)
        self._given = 0
        self._returned: list[int] = []

    def take(self) -> int:
        """Return the machine address of a page of zeros that nobody has."""
        if self._returned:
            return self._returned.pop()
        if self._given == len(self.words) // ENTRIES:
            raise InputError(
                f"pages: found all {self._given} in use; accepted: as many as there are tables; "
                "make TableMemory(pages) larger"
            )
        self._given += 1
        return self.base + PAGE * (self._given - 1)

    def give(self, page: int) -> None:
        """Take a page back, and clear it."""
        first = self._index(page)
        if first % ENTRIES or first // ENTRIES >= self._given or page in self._returned:
            raise InputError(f"page: found {page:#x}, which nobody has; accepted: what take() gave")
        self.words[first : first + ENTRIES] = 0
        self._returned.append(page)

    def holds(self, address: int) -> bool:
        """Tell whether the word at a machine address lies in this memory."""
        return 0 <= address - self.base < 8 * len(self.words)

    def read(self, address: int) -> int:
        """Return the word at a machine address."""
        return int(self.words[self._index(address)])

    def write(self, address: int, word: int) -> None:
        """Replace the word at a machine address."""
        if not 0 <= whole("word", word) < 1 << 64:
            raise InputError(f"word: found {word:#x}; accepted: 64 bits, unsigned")
        self.words[self._index(address)] = word

    def _index(self, address: int) -> int:
        if not self.holds(whole("address", address)):
            last = self.base + 8 * len(self.words) - 1
            raise InputError(f"address: found {address:#x}; accepted: {self.base:#x} to {last:#x}")
        return (address - self.base) // 8


class Entry(NamedTuple):
    """One entry on the way of an address."""

    level: int  # of its table: 1 the last
    place: int  # machine address of the entry
    word: int


class Leaf(NamedTuple):
    """What maps an address."""

    level: int
    place: int  # machine address of the entry
    word: int
    frame: int  # address of the page that it maps to
    size: int  # bytes of that page


def level_of(size: str | int) -> int:
    """Return the level of the entry that maps a page of a size: "4k" | "2m" | "1g", or bytes."""
    names = list(SIZES)
    if isinstance(size, str) and size in names:
        return names.index(size) + 1
    if size in SIZES.values():
        return list(SIZES.values()).index(int(size)) + 1
    raise InputError(f"size: found {size!r}; accepted: {' | '.join(names)}, or as many bytes")


def bytes_of(level: int) -> int:
    """Return the bytes that an entry of a level maps."""
    return PAGE << 9 * (level - 1)


class Tables:
    """The page tables under one root.

    Parameters
    ----------
    memory : TableMemory
        Where they lie.
    form : {"x86", "ept", "npt"}
        Their format.
    levels : int
        4, or 5.
    nested : Tables, optional
        For guest tables: the hypervisor's, in which every page of guest tables gets a 4 KiB page.
    dirty : bool
        Of EPT: the pointer turns accessed and dirty bits on.
    table_rights : str
        What `nested` permits for pages of guest tables.

    Attributes
    ----------
    root : int
        Address of the root table: guest-physical with `nested`, else machine. It is CR3 or nCR3.
    """

    def __init__(
        self,
        memory: TableMemory,
        form: str = "x86",
        *,
        levels: int = 4,
        nested: "Tables | None" = None,
        dirty: bool = True,
        table_rights: str = ALL_RIGHTS,
    ) -> None:
        if form not in FORMATS:
            raise InputError(f"form: found {form!r}; accepted: {' | '.join(FORMATS)}")
        if levels not in (4, 5):
            raise InputError(f"levels: found {levels!r}; accepted: 4 | 5")
        self.memory, self.form, self.levels, self.nested = memory, form, levels, nested
        self.dirty, self.table_rights = dirty, table_rights
        self.guest_tables = 0  # that these, as nested tables, have backed
        self.root = self._new_table()

    # --- what there is ---------------------------------------------------------------------------

    @property
    def pointer(self) -> Ept | Npt:
        """What `mmu.translate` takes as `nested`."""
        if self.form == "ept":
            return Ept.at(self.root, dirty=self.dirty, levels=self.levels)
        return Npt(self.root, levels=self.levels)

    def is_present(self, word: int) -> bool:
        """Tell whether an entry is present."""
        return bool(word & (7 if self.form == "ept" else PRESENT))

    @staticmethod
    def is_leaf(level: int, word: int) -> bool:
        """Tell whether a present entry maps a page."""
        return level == 1 or bool(word & LARGE)

    def rights_of(self, word: int) -> str:
        """Return the rights that one present entry grants, as letters of "rwxu"."""
        if self.form == "ept":
            return "".join(right for bit, right in enumerate("rwx") if word >> bit & 1)
        granted = {"r": True, "w": word & WRITABLE, "x": not word >> 63, "u": word & USER}
        return "".join(right for right, has in granted.items() if has)

    def path(self, address: int) -> list[Entry]:
        """Return the entries on an address's way, root first, to where it ends."""
        found: list[Entry] = []
        table: int | None = self._machine(self.root)
        for level in range(self.levels, 0, -1):
            if table is None or not self.memory.holds(table):
                break
            place = table + 8 * (address >> 3 + 9 * level & ENTRIES - 1)
            word = self.memory.read(place)
            found.append(Entry(level, place, word))
            if not self.is_present(word) or self.is_leaf(level, word):
                break
            table = self._machine(word & FRAME)
        return found

    def leaf(self, address: int) -> Leaf | None:
        """Return what maps an address; None if nothing does."""
        way = self.path(address)
        level, place, word = way[-1] if way else (0, 0, 0)
        if not way or not self.is_present(word) or not self.is_leaf(level, word):
            return None
        size = bytes_of(level)
        return Leaf(level, place, word, word & FRAME & ~(size - 1), size)

    # --- what changes it -------------------------------------------------------------------------

    def map(
        self,
        address: int,
        frame: int,
        size: str | int = "4k",
        rights: str = ALL_RIGHTS,
        *,
        bits: int = 0,
        link_rights: str = ALL_RIGHTS,
        link_bits: int = 0,
    ) -> None:
        """Map a page that nothing maps yet, with the tables that this takes.

        Parameters
        ----------
        address : int
            Virtual or guest-physical, a multiple of the page's size; of either sign.
        frame : int
            Where to: as aligned. A guest's is guest-physical, if it has nested tables.
        size : {"4k", "2m", "1g"} or int
            Of the page, in bytes if a number.
        rights, link_rights : str
            Letters of "rwxu" (read, write, execute, user; EPT has no u): of the page, and of entries
            for tables that are made.
        bits, link_bits : int
            Further bits of those entries, such as GLOBAL | ACCESSED.

        Raises
        ------
        InputError
            Something is mapped there already, or an address is not aligned.
        """
        level = level_of(size)
        for name, value in (("address", address), ("frame", frame)):
            if whole(name, value) % bytes_of(level):
                raise InputError(
                    f"{name}: found {value:#x}; accepted: a multiple of {bytes_of(level):#x}, the "
                    "page's size"
                )
        if not 0 <= frame <= FRAME:
            raise InputError(f"frame: found {frame:#x}; accepted: up to {FRAME:#x}")
        way = self.path(address)
        if not way:
            raise InputError(
                f"root: found {self.root:#x}, which is in no memory; accepted: a root table that "
                "nested tables map"
            )
        end = way[-1]
        if self.is_present(end.word) or end.level < level:
            where = f"{end.word:#x} at level {end.level}"
            raise InputError(f"address: found {address:#x} in use, {where}; accepted: what is free")
        link = self._rights(link_rights) | link_bits
        while end.level > level:
            self.memory.write(end.place, self._new_table() | link)
            end = self.path(address)[-1]
        self.memory.write(end.place, frame | self.leaf_word(level, rights) | bits)

    def unmap(self, address: int) -> int:
        """Clear the entry that maps an address, and return what it was; its table stays."""
        leaf = self._mapped(address)
        self.memory.write(leaf.place, 0)
        return leaf.word

    def protect(self, address: int, rights: str) -> int:
        """Give the page that holds an address other rights; returns what its entry was."""
        leaf = self._mapped(address)
        self.memory.write(leaf.place, self._with_rights(leaf.word, rights))
        return leaf.word

    def move(self, address: int, frame: int) -> int:
        """Map the page that holds an address to another frame; returns what its entry was."""
        leaf = self._mapped(address)
        if whole("frame", frame) % leaf.size or not 0 <= frame <= FRAME:
            raise InputError(
                f"frame: found {frame:#x}; accepted: a multiple of {leaf.size:#x} up to {FRAME:#x}"
            )
        self.memory.write(leaf.place, leaf.word - leaf.frame + frame)
        return leaf.word

    def split(self, address: int) -> int:
        """Map a large page by 512 of the next smaller size instead; returns what its entry was."""
        leaf = self._mapped(address)
        if leaf.level == 1:
            raise InputError(f"address: found {address:#x} in a 4k page; accepted: in a larger one")
        table, piece = self._new_table(), leaf.size // ENTRIES
        first = self._machine(table)
        assert first is not None, "a new table is backed"
        word = leaf.word - leaf.frame
        if leaf.level == 2:
            word &= ~LARGE
            if self.form != "ept" and word & PAT:
                word = word & ~PAT | LARGE  # the PAT bit of a 4k page stands where LARGE does
        for number in range(ENTRIES):
            self.memory.write(first + 8 * number, word + leaf.frame + piece * number)
        self.memory.write(leaf.place, table | self._rights(ALL_RIGHTS) | self._accessed(leaf.word))
        return leaf.word

    def merge(self, address: int) -> int:
        """Undo a split: one entry for the table that holds an address's page.

        Its pieces must lie side by side, and differ in accessed and dirty bits at most. Returns what
        the entry was; the table's page is handed out again.
        """
        leaf = self._mapped(address)
        level, size = leaf.level + 1, leaf.size * ENTRIES
        if level > 3:
            raise InputError(
                f"address: found {address:#x} in a 1g page; accepted: in a smaller one"
            )
        first = leaf.place & ~(PAGE - 1)
        pieces = [self.memory.read(first + 8 * number) for number in range(ENTRIES)]
        marks = EPT_ACCESSED | EPT_DIRTY if self.form == "ept" else ACCESSED | DIRTY
        alike = pieces[0] & ~marks
        frame, together = alike & FRAME & ~(leaf.size - 1), 0
        if frame % size:
            raise InputError(
                f"address: found a first frame {frame:#x}; accepted: one at {size:#x}'s"
            )
        for number, piece in enumerate(pieces):
            if piece & ~marks != alike + leaf.size * number or not self.is_leaf(leaf.level, piece):
                raise InputError(
                    f"address: found {piece:#x} as entry {number}, {pieces[0]:#x} as the first; "
                    "accepted: frames side by side with the same rights"
                )
            together |= piece & marks
        word, above = alike, self.path(address)[-2]
        if leaf.level == 1 and self.form != "ept" and word & LARGE:
            word = word & ~LARGE | PAT
        both = [right for right in self.rights_of(word) if right in self.rights_of(above.word)]
        word = self._with_rights(word, "".join(both))
        self.memory.write(above.place, word | together | LARGE)
        self.memory.give(first)
        return above.word

    def put(self, address: int, level: int, word: int) -> None:
        """Write any word as an address's entry of a level; the tables above it must be there."""
        for entry in self.path(address):
            if entry.level == level:
                self.memory.write(entry.place, word)
                return
        raise InputError(
            f"level: found {level}; accepted: levels of {address:#x} that have a table: "
            f"{', '.join(str(entry.level) for entry in self.path(address))}"
        )

    def share(self, address: int, other: "Tables", level: int, source: int | None = None) -> None:
        """Let an address have the table, or page, that `source` has in other tables at a level."""
        for entry in other.path(address if source is None else source):
            if entry.level == level:
                self.put(address, level, entry.word)
                return
        raise InputError(f"level: found {level}; accepted: a level at which `source` has an entry")

    def recurse(self, index: int, rights: str = ALL_RIGHTS) -> None:
        """Make an entry of the root point to the root, which then maps every table."""
        self.put(index << 3 + 9 * self.levels, self.levels, self.root | self._rights(rights))

    def leaf_word(self, level: int, rights: str = ALL_RIGHTS) -> int:
        """Return an entry without an address that maps a page at a level."""
        word = self._rights(rights) | (LARGE if level > 1 else 0)
        return word | EPT_WRITE_BACK if self.form == "ept" else word

    # --- within ----------------------------------------------------------------------------------

    def _rights(self, rights: str) -> int:
        if set(rights) - set(ALL_RIGHTS) or (self.form != "ept" and "r" not in rights):
            needed = "" if self.form == "ept" else ", r among them"
            raise InputError(f"rights: found {rights!r}; accepted: letters of rwxu{needed}")
        if self.form == "ept":
            return sum(1 << bit for bit, right in enumerate("rwx") if right in rights)
        word = PRESENT | (WRITABLE if "w" in rights else 0) | (USER if "u" in rights else 0)
        return word if "x" in rights else word | EXECUTE_DISABLE

    def _with_rights(self, word: int, rights: str) -> int:
        mask = 7 if self.form == "ept" else PRESENT | WRITABLE | USER | EXECUTE_DISABLE
        return word & ~mask | self._rights(rights)

    def _accessed(self, word: int) -> int:
        return word & (EPT_ACCESSED if self.form == "ept" else ACCESSED)

    def _mapped(self, address: int) -> Leaf:
        leaf = self.leaf(address)
        if leaf is None:
            raise InputError(f"address: found {address:#x}, which nothing maps; accepted: what is")
        return leaf

    def _new_table(self) -> int:
        """Return the address, for an entry, of a new table; back it if it is a guest's."""
        page = self.memory.take()
        if self.nested is None:
            return page
        gpa = FIRST_TABLE + PAGE * self.nested.guest_tables
        self.nested.guest_tables += 1
        self.nested.map(gpa, page, rights=self.table_rights)
        return gpa

    def _machine(self, table: int) -> int | None:
        """Return the machine address of a table; None if the nested tables do not map it."""
        if self.nested is None:
            return table
        leaf: Any = self.nested.leaf(table)
        return None if leaf is None else leaf.frame + table % leaf.size
