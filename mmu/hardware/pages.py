"""Every page of an address space: tables read from the root down, each once for each time it is met.

Nothing is written and nothing cached. What an access would meet on its way is judged as `walk` judges
it, with the entries as they stand: that a walk sets accessed and dirty bits in a word which it then
reads again as an entry of the other format is not followed.

The state is kept between calls, so that a caller can make room, draw a bar, or stop: tables that point
to themselves have no end.
"""

from mmu.hardware.bits import (
    ENTRIES,
    LEVEL_BITS,
    PAGE_SHIFT,
    WORD_BYTES,
    entry_word,
    frame_bits,
    reach,
)
from mmu.hardware.entry import (
    ACCESSED,
    ADDRESS,
    DIRTY,
    EPT_CODE,
    EXECUTE,
    LARGE_LEAF,
    PRESENT,
    READ,
    RIGHTS,
    USER,
    WRITE,
    X86_CODE,
    rights_of,
)
from mmu.hardware.machine import READ_ACCESS, Machine
from mmu.hardware.memory import OUTSIDE, load, locate
from mmu.hardware.outcome import (
    NESTED_MISCONFIGURATION,
    NESTED_VIOLATION,
    NO_MEMORY,
    PAGE_FAULT,
)
from mmu.hardware.rows import Words
from mmu.hardware.rules import malformed, nested_denied
from mmu.jit import at, constant, inlined, kernel

GLOBAL = 1 << 8  # of a leaf

# Fields of a table under way, one row a level: machine address, next index, rights granted above it,
# whether nested tables let it be written, and the address of its first page without sign extension.
TABLE, INDEX, GRANTED, WRITABLE, GVA, TABLE_FIELDS = range(6)
# Fields of the state: level under way, bytes done of the leaf under way, rows in use; pages and holes
# found and tables read, and the most of each.
LEVEL, PIECE, USED_ROWS, PAGES, TABLES, MOST_PAGES, MOST_TABLES, STATE_FIELDS = range(8)
# Fields of a row: first address and the one after its last, without sign extension; guest-physical and
# machine address of its start; and what it is. Of a hole, MADDR is the entry's that ends the walk.
FIRST, END, GPA, MADDR, ABOUT, ROW_FIELDS = range(6)
# Of ABOUT: outcome, size code of the guest's and of the nested page, rights, global.
GUEST_SIZE_SHIFT, NESTED_SIZE_SHIFT, RIGHTS_SHIFT, GLOBAL_BIT = 3, 5, 7, 1 << 11

DONE, FULL, PAUSED, TOO_MANY = constant(0), constant(1), constant(2), constant(3)


@inlined
def add(
    state: Words, rows: Words, edge: int, first: int, size: int, gpa: int, maddr: int, about: int
) -> None:
    """Add a page or a hole; or make the row before it longer, if it goes on there.

    edge: the first address of the upper half, where no row goes on.
    """
    state[PAGES] += 1
    last = state[USED_ROWS] - 1
    if last >= 0:
        known = rows[at(last), END] - rows[at(last), FIRST]
        follows = rows[at(last), END] == first and rows[at(last), ABOUT] == about and first != edge
        if follows and about & (1 << GUEST_SIZE_SHIFT) - 1 == 0:
            follows = rows[at(last), GPA] + known == gpa and rows[at(last), MADDR] + known == maddr
        if follows:
            rows[at(last), END] = first + size
            return
    rows[at(last + 1), FIRST] = first
    rows[at(last + 1), END] = first + size
    rows[at(last + 1), GPA] = gpa
    rows[at(last + 1), MADDR] = maddr
    rows[at(last + 1), ABOUT] = about
    state[USED_ROWS] = last + 2


@inlined
def nested_page(machine: Machine, gpa: int) -> tuple[int, int, int, int]:
    """Find the nested page of a guest-physical address, for any kind of access.

    Returns 0 or a negative outcome; the frame's address with the rights in the lowest bits; the size
    code of the page, or of the hole; and the machine address of the last entry, or -1.
    """
    rules = machine.rules
    level, table, rights = rules.nested_levels, machine.nested[0], RIGHTS
    if gpa >> reach(level):
        return NESTED_VIOLATION, 0, level - 1, -1
    while True:
        number = entry_word(table, gpa, level)
        place = number * WORD_BYTES
        slot = locate(machine.memory, machine.extents, number)
        if slot == OUTSIDE:
            return NO_MEMORY, 0, level - 1, place
        entry = load(machine.memory, slot) if slot >= 0 else 0
        if not entry & rules.present:
            return NESTED_VIOLATION, 0, level - 1, place
        leaf = level == 1 or (entry & LARGE_LEAF != 0 and level <= rules.nested_largest)
        rights &= rights_of(entry, rules.nested_code)
        if malformed(rules, entry, level, leaf, rules.nested_reserved, rules.nested_code):
            bad = NESTED_MISCONFIGURATION if rules.nested_code == EPT_CODE else NESTED_VIOLATION
            return bad, 0, level - 1, place
        if leaf:
            if not rights & USER or not rights & (READ | WRITE | EXECUTE):
                return NESTED_VIOLATION, 0, level - 1, place
            return 0, entry & ADDRESS & ~frame_bits(level - 1) | rights, level - 1, place
        table = entry & ADDRESS
        level -= 1


@inlined
def find_table(machine: Machine, gpa: int) -> tuple[int, int, int, int]:
    """Find a guest table for the access that reading it is.

    Returns 0 or a negative outcome, its machine address, whether it can be written, and the machine
    address of the entry that ends the walk, or -1.
    """
    if machine.nested[0] < 0:
        return 0, gpa, 1, -1
    status, frame, size, place = nested_page(machine, gpa)
    if status < 0:
        return status, 0, 0, place
    if nested_denied(frame & RIGHTS) >> machine.rules.table_kind & 1:
        return NESTED_VIOLATION, 0, 0, place
    table = frame & ADDRESS | gpa & frame_bits(size)
    return 0, table, 1 if frame & WRITE else 0, place


@inlined
def enter(
    machine: Machine, tables: Words, state: Words, level: int, gpa: int, rights: int, gva: int
) -> tuple[int, int]:
    """Begin with a table of `level`; returns 0 or a negative outcome, and the entry to blame."""
    status, table, writable, place = find_table(machine, gpa)
    if status == 0:
        tables[at(level), TABLE], tables[at(level), INDEX] = table, 0
        tables[at(level), GRANTED], tables[at(level), WRITABLE] = rights, writable
        tables[at(level), GVA] = gva
        state[LEVEL] = level
        state[TABLES] += 1
    return status, place


@inlined
def add_page(
    machine: Machine, state: Words, rows: Words, edge: int, gva: int, size: int, gpa: int, about: int,
    rights: int,
) -> bool:  # fmt: skip
    """Add a guest page, or as much of it as its next nested page holds; tells whether any is left."""
    if machine.nested[0] < 0:
        add(state, rows, edge, gva, size, gpa, gpa, about | rights << RIGHTS_SHIFT)
        return False
    done = state[PIECE]
    status, frame, code, place = nested_page(machine, gpa + done)
    span = min(1 << PAGE_SHIFT + LEVEL_BITS * code, size)
    if status < 0:
        add(state, rows, edge, gva + done, span, gpa + done, place, -status)
    else:
        maddr = frame & ADDRESS | (gpa + done) & frame_bits(code)
        about |= code << NESTED_SIZE_SHIFT | (rights & frame & RIGHTS) << RIGHTS_SHIFT
        add(state, rows, edge, gva + done, span, gpa + done, maddr, about)
    state[PIECE] = 0 if done + span == size else done + span
    return state[PIECE] != 0


@kernel
def begin_pages(machine: Machine, tables: Words, state: Words, rows: Words) -> None:
    """Begin at the root; a root that is out of reach is a hole in either half."""
    levels = machine.rules.levels
    status, place = enter(machine, tables, state, levels, machine.root[0], RIGHTS, 0)
    if status < 0:
        half = 1 << reach(levels) - 1
        for first in (0, half):
            add(state, rows, half, first, half, 0, place, -status)
        state[LEVEL] = levels + 1


@kernel
def find_pages(machine: Machine, tables: Words, state: Words, rows: Words, entries: int) -> int:
    """Go on with the pages of context 0, up to so many entries.

    tables: int64 [levels + 2, TABLE_FIELDS]; state: int64 [STATE_FIELDS]; rows: int64 [n, ROW_FIELDS].
    Returns DONE; FULL: `rows` are used up, the last one may grow; PAUSED: `entries` have been read; or
    TOO_MANY: more pages and holes, or tables, than `state` permits.
    """
    rules, nested = machine.rules, machine.nested[0] >= 0
    levels = rules.levels
    edge = 1 << reach(levels) - 1
    while state[LEVEL] <= levels:
        if entries == 0:
            return PAUSED
        entries -= 1
        if state[USED_ROWS] == rows.shape[0]:
            return FULL
        if state[PAGES] > state[MOST_PAGES] or state[TABLES] > state[MOST_TABLES]:
            return TOO_MANY
        level = state[LEVEL]
        index = tables[at(level), INDEX]
        if index == ENTRIES:
            state[LEVEL] = level + 1
            continue
        shift = PAGE_SHIFT + LEVEL_BITS * (level - 1)
        gva = tables[at(level), GVA] + (index << shift)
        number = entry_word(tables[at(level), TABLE], index << shift, level)
        place = number * WORD_BYTES
        tables[at(level), INDEX] = index + 1
        slot = locate(machine.memory, machine.extents, number)
        if slot == OUTSIDE:
            add(state, rows, edge, gva, 1 << shift, 0, place, -NO_MEMORY)
            continue
        entry = load(machine.memory, slot) if slot >= 0 else 0
        if not entry & PRESENT:
            continue
        leaf = level == 1 or (entry & LARGE_LEAF != 0 and level <= rules.largest)
        if malformed(rules, entry, level, leaf, rules.reserved, X86_CODE):
            add(state, rows, edge, gva, 1 << shift, 0, place, -PAGE_FAULT)
            continue
        rights = tables[at(level), GRANTED] & rights_of(entry, X86_CODE)
        fixed = nested and rules.table_kind == READ_ACCESS and not tables[at(level), WRITABLE]
        if fixed and not entry & ACCESSED:
            add(state, rows, edge, gva, 1 << shift, 0, place, -NESTED_VIOLATION)
            continue
        if not leaf:
            status, blamed = enter(machine, tables, state, level - 1, entry & ADDRESS, rights, gva)
            if status < 0:
                add(state, rows, edge, gva, 1 << shift, 0, blamed, -status)
            continue
        if fixed and not entry & DIRTY:
            rights &= ~WRITE
        about = (level - 1) << GUEST_SIZE_SHIFT | (GLOBAL_BIT if entry & GLOBAL else 0)
        gpa = entry & ADDRESS & ~frame_bits(level - 1)
        if add_page(machine, state, rows, edge, gva, 1 << shift, gpa, about, rights):
            tables[at(level), INDEX] = index  # the same entry once more
    return DONE
