"""The emulator once more: slow, obvious, and sharing no code with the package.

Top to bottom: numbers and words, one cache, counters, the machine (access, walk, nested walk), the
software (frames, tables), the replay (faults, exits, slices). Machine memory is a dict
{machine address: 64-bit word}, a cache set is a list with the most recent entry first, a context
is the pair (vm, space). The hypervisor's own context is (number of vms, 0), natively mapped.

Each part works alone: `Cache`, `Machine` over any memory, `Replay` for a whole run.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

# ---- numbers ------------------------------------------------------------------------------------

READ, WRITE, FETCH = 0, 1, 2  # kinds by the user; + 3 by the supervisor
SUPERVISOR = 3
K4, M2, G1 = 0, 1, 2  # page sizes
SIZE_NAME = ("4k", "2m", "1g")
SIDE_NAME = ("data", "fetch")
MAY_READ, MAY_WRITE, MAY_EXECUTE, MAY_USER = 1, 2, 4, 8
ALL_RIGHTS = MAY_READ | MAY_WRITE | MAY_EXECUTE | MAY_USER
BLOCK = 4096  # accesses
HYPERVISOR_CODE = 0xFFFF_8000_0000_0000
HYPERVISOR_DATA = 0xFFFF_8880_0000_0000


def side_of(kind: int) -> int:
    return 1 if kind % 3 == FETCH else 0


def bytes_of(size: int) -> int:
    return 1 << (12 + 9 * size)


def base_of(address: int, size: int) -> int:
    return address - address % bytes_of(size)


def page_number(address: int, size: int) -> int:
    """Number of the page of this size, 45 bits, sign-extended like the 64-bit address it is of."""
    signed = address - (1 << 64) if address >= 1 << 63 else address
    return (signed >> (12 + 9 * size)) & ((1 << 45) - 1)


def index(address: int, level: int) -> int:
    return (address >> (12 + 9 * (level - 1))) & 511


# ---- table words --------------------------------------------------------------------------------

FRAME = 0x000F_FFFF_FFFF_F000
LARGE = 1 << 7  # both formats
# the guest's format: Intel SDM vol. 3, "4-level paging"
PRESENT, WRITABLE, USER, ACCESSED, DIRTY = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6
NO_EXECUTE = 1 << 63
# the nested format: Intel SDM vol. 3, "EPT translation mechanism"
NESTED_READ, NESTED_WRITE, NESTED_EXECUTE = 1 << 0, 1 << 1, 1 << 2
NESTED_RWX = NESTED_READ | NESTED_WRITE | NESTED_EXECUTE
NESTED_WRITE_BACK = 6 << 3
NESTED_ACCESSED, NESTED_DIRTY = 1 << 8, 1 << 9


def guest_rights(word: int) -> int:
    rights = MAY_READ
    if word & WRITABLE:
        rights |= MAY_WRITE
    if word & USER:
        rights |= MAY_USER
    if not word & NO_EXECUTE:
        rights |= MAY_EXECUTE
    return rights


def nested_rights(word: int) -> int:
    rights = MAY_USER
    if word & NESTED_READ:
        rights |= MAY_READ
    if word & NESTED_WRITE:
        rights |= MAY_WRITE
    if word & NESTED_EXECUTE:
        rights |= MAY_EXECUTE
    return rights


def is_leaf(word: int, level: int) -> bool:
    return level == 1 or (level in (2, 3) and bool(word & LARGE))


def denied(rights: int, kind: int, dirty: bool = True) -> bool:
    if kind < SUPERVISOR and not rights & MAY_USER:
        return True
    if kind % 3 == READ:
        return not rights & MAY_READ
    if kind % 3 == WRITE:
        return not rights & MAY_WRITE or not dirty
    return not rights & MAY_EXECUTE


# ---- one cache ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Array:
    entries: int
    ways: int
    sizes: Sequence[int] = (K4,)
    fold: int = 0  # b of xor-b; 0: linear


@dataclass(frozen=True)
class Geometry:
    l1: Sequence[Sequence[Array]]  # [side][array]
    l2: Sequence[Array] = ()  # both sides share it
    walk: Sequence[Array | None] = (None, None, None)  # PDE, PDPTE, PML4E
    nested: Array | None = None


@dataclass(frozen=True)
class Entry:
    tag: object  # context; in the nested TLB the vm
    size: int  # in a walk cache the level of the table pointed to, whose keys shift the same
    page: int
    frame: int  # machine address of the page's or table's first byte
    rights: int
    dirty: bool = True

    def key(self) -> tuple[object, int, int]:
        return (self.tag, self.size, self.page)


class Cache:
    """One set-associative array with exact LRU: each set is a list, most recent first."""

    def __init__(self, array: Array, sizes: Sequence[int] | None = None) -> None:
        self.sizes = array.sizes if sizes is None else sizes
        self.ways = array.ways
        self.fold = array.fold
        count, rest = divmod(array.entries, array.ways)
        if rest or (array.fold and count & (count - 1)):
            raise ValueError(f"{array}: no whole number of sets, or not a power of two for xor")
        self.sets: list[list[Entry]] = [[] for _ in range(count)]

    def set_of(self, page: int) -> list[Entry]:
        if self.fold:
            return self.sets[(page ^ page >> self.fold) & (len(self.sets) - 1)]
        return self.sets[page % len(self.sets)]

    def look_up(self, tag: object, address: int) -> Entry | None:
        """Find the entry that holds the address, sizes in order, and make it the most recent."""
        for size in self.sizes:
            page = page_number(address, size)
            entries = self.set_of(page)
            for entry in entries:
                if entry.key() == (tag, size, page):
                    entries.remove(entry)
                    entries.insert(0, entry)
                    return entry
        return None

    def fill(self, new: Entry) -> Entry | None:
        """Put in front; replaces its own old copy, else a full set drops and returns its oldest."""
        entries = self.set_of(new.page)
        dropped = None
        own = [entry for entry in entries if entry.key() == new.key()]
        if own:
            entries.remove(own[0])
        elif len(entries) == self.ways:
            dropped = entries.pop()
        entries.insert(0, new)
        return dropped

    def drop(self, unwanted: Callable[[Entry], bool]) -> None:
        for entries in self.sets:
            entries[:] = [entry for entry in entries if not unwanted(entry)]

    def entries(self) -> list[Entry]:
        return [entry for entries in self.sets for entry in entries]


# ---- counters and cycles ------------------------------------------------------------------------

CAUSE = {  # event: the cause its cycles are charged to
    "INSTRUCTION": "base",
    "L2_LOOKUP": "l2",
    "WALK": "walk_cache",
    "DIRTY_WALK": "walk_cache",
    "FAULT_WALK": "walk_cache",
    "NESTED_LOOKUP": "nested_tlb",
    "GUEST_REFERENCE": "guest_table",
    "NESTED_REFERENCE": "nested_table",
    "UPDATE": "update",
    "GUEST_FAULT": "guest_fault",
    "NESTED_FAULT": "nested_fault",
    "EXIT": "exit",
    "SWITCH": "switch",
}
COSTS = {  # cycles of one event, by cause
    "base": 1,
    "l2": 9,
    "walk_cache": 1,
    "nested_tlb": 1,
    "guest_table": 14,
    "nested_table": 14,
    "update": 20,
    "guest_fault": 1000,
    "nested_fault": 5000,
    "exit": 1400,
    "switch": 2000,
}


class Counters:
    """Row v: vm v itself; row vms + v: what the hypervisor accesses on exits of vm v."""

    def __init__(self, vms: int, costs: dict[str, int] | None = None) -> None:
        self.vms = vms
        self.costs = COSTS | (costs or {})
        self.clock = 0
        self.zero()

    def zero(self) -> None:
        """Forget what was counted; the clock goes on."""
        rows = range(2 * self.vms)
        self.counts = [Counter() for _ in rows]  # [row][event]
        self.hits = [Counter() for _ in rows]  # [row][cache name]
        self.l1_misses = [[0, 0] for _ in rows]  # [row][side]
        self.histogram = [Counter() for _ in rows]  # [row][references of a completed walk]
        self.evictions = [[0] * (self.vms + 1) for _ in range(self.vms + 1)]  # [by][of]
        self.cycles = [Counter() for _ in range(self.vms)]  # [vm][cause]

    def add(self, row: int, event: str, times: int = 1) -> None:
        self.counts[row][event] += times
        if event in CAUSE:
            cause = CAUSE[event]
            cycles = times * self.costs[cause]
            self.cycles[row % self.vms]["hypervisor" if row >= self.vms else cause] += cycles
            self.clock += cycles

    def evicted(self, row: int, owner: int) -> None:
        self.evictions[min(row, self.vms)][owner] += 1


# ---- the machine --------------------------------------------------------------------------------


class PageFault(Exception):
    """A guest entry is not present, or (protection) its rights deny the access."""

    def __init__(self, gva: int, protection: bool = False) -> None:
        super().__init__(f"page fault at {gva:#x}, protection {protection}")
        self.gva, self.protection = gva, protection


class NestedFault(Exception):
    """A nested entry is not present, or (protection) its rights deny the access."""

    def __init__(self, gpa: int, protection: bool = False) -> None:
        super().__init__(f"nested fault at {gpa:#x}, protection {protection}")
        self.gpa, self.protection = gpa, protection
        self.of_data = False  # it met the data's address, not a guest table's


@dataclass(frozen=True)
class Translation:
    """Where a guest-physical address is, and what its nested leaf says."""

    maddr: int
    size: int
    rights: int
    dirty: bool


class Machine:
    """The processor over a memory: `access` as the dispatcher uses it, the walks as it uses them.

    A context whose vm has no nested root is mapped natively.
    """

    def __init__(
        self,
        geometry: Geometry,
        memory: dict[int, int],
        roots: dict[tuple[int, int], int],
        nested_roots: dict[int, int] | None = None,
        *,
        counters: Counters | None = None,
        nested_dirty: bool = True,
    ) -> None:
        self.memory = memory
        self.roots = roots  # {context: guest-physical address of its root; native: machine address}
        self.nested_roots = {} if nested_roots is None else nested_roots  # {vm: machine address}
        self.counters = Counters(2) if counters is None else counters
        self.nested_dirty = nested_dirty
        self.l1 = [[Cache(array) for array in side] for side in geometry.l1]
        self.l2 = [Cache(array) for array in geometry.l2]
        # {level of the tables it points to: cache}, in the order of look-up
        self.walk_caches = {
            level: Cache(array, sizes=[level])
            for level, array in zip((1, 2, 3), geometry.walk, strict=True)
            if array is not None
        }
        self.nested_tlb = None if geometry.nested is None else Cache(geometry.nested)
        self.references = 0  # of the last walk
        self.names = {
            **{c: f"l1.{SIDE_NAME[s]}.{i}" for s in (0, 1) for i, c in enumerate(self.l1[s])},
            **{c: f"l2.{i}" for i, c in enumerate(self.l2)},
        }

    # -- one access

    def access(self, context: tuple[int, int], gva: int, kind: int, row: int | None = None) -> int:
        """Make one attempt at an access and return its machine address, or raise the fault."""
        row = context[0] if row is None else row
        side = side_of(kind)
        l2_cache, l2_entry = None, None

        l1_cache, l1_entry = self.look_up(self.l1[side], context, gva)
        if l1_entry and not denied(l1_entry.rights, kind, l1_entry.dirty):
            self.hit(row, l1_cache, l1_entry)
            return l1_entry.frame + gva % bytes_of(l1_entry.size)

        if not l1_entry and self.l2:
            self.counters.add(row, "L2_LOOKUP")
            l2_cache, l2_entry = self.look_up(self.l2, context, gva)
            if l2_entry and not denied(l2_entry.rights, kind, l2_entry.dirty):
                self.counters.l1_misses[row][side] += 1
                self.hit(row, l2_cache, l2_entry)
                self.fill_l1(side, gva, l2_entry)
                return l2_entry.frame + gva % bytes_of(l2_entry.size)

        try:
            entry = self.walk(context, gva, kind, row)
        except (PageFault, NestedFault) as fault:
            self.counters.add(row, "FAULT_WALK")
            self.drop_after(fault, context, gva)
            raise
        if l1_entry:
            self.hit(row, l1_cache, l1_entry)
        else:
            self.counters.l1_misses[row][side] += 1
            if l2_entry:
                self.hit(row, l2_cache, l2_entry)
        self.counters.add(row, "DIRTY_WALK" if l1_entry or l2_entry else "WALK")
        self.counters.histogram[row][self.references] += 1
        self.fill_l2(row, entry)
        self.fill_l1(side, gva, entry)
        return entry.frame + gva % bytes_of(entry.size)

    def look_up(
        self, level: list[Cache], tag: object, address: int
    ) -> tuple[Cache | None, Entry | None]:
        for cache in level:
            entry = cache.look_up(tag, address)
            if entry:
                return cache, entry
        return None, None

    def hit(self, row: int, cache: Cache, entry: Entry) -> None:
        self.counters.hits[row][f"{self.names[cache]}.{SIZE_NAME[entry.size]}"] += 1

    def fill_l2(self, row: int, entry: Entry) -> None:
        for cache in self.l2:
            if entry.size in cache.sizes:
                dropped = cache.fill(entry)
                if dropped:
                    self.counters.evicted(row, dropped.tag[0])
                return

    def fill_l1(self, side: int, gva: int, entry: Entry) -> None:
        """Fill the entry, or its piece around gva of the largest size that this L1 holds."""
        for size in range(entry.size, K4 - 1, -1):
            for cache in self.l1[side]:
                if size in cache.sizes:
                    inside = base_of(gva, size) % bytes_of(entry.size)
                    page, frame = page_number(gva, size), entry.frame + inside
                    cache.fill(replace(entry, size=size, page=page, frame=frame))
                    return

    # -- the walk

    def walk(self, context: tuple[int, int], gva: int, kind: int, row: int) -> Entry:
        """Translate gva with the guest's tables, and all that they point to with the nested."""
        vm = context[0]
        self.references = 0
        level, maddr, rights = self.walk_start(context, gva, row)
        gpa = self.roots[context]
        while True:
            if maddr is None:
                maddr = self.nested(vm, gpa, self.table_kind(), row).maddr
                if level in self.walk_caches:
                    page = page_number(gva, level)
                    self.walk_caches[level].fill(Entry(context, level, page, maddr, rights))
            at = maddr + 8 * index(gva, level)
            word = self.load(at, "GUEST_REFERENCE", row)
            if not word & PRESENT:
                raise PageFault(gva)
            rights &= guest_rights(word)
            if is_leaf(word, level):
                break
            self.set_bits(at, ACCESSED, row)
            level, maddr, gpa = level - 1, None, word & FRAME

        if denied(rights, kind):
            raise PageFault(gva, protection=True)
        self.set_bits(at, ACCESSED | DIRTY if kind % 3 == WRITE else ACCESSED, row)
        guest_size = level - 1
        gpa = base_of(word & FRAME, guest_size) + gva % bytes_of(guest_size)
        try:
            data = self.nested(vm, gpa, kind % 3, row)
        except NestedFault as fault:
            fault.of_data = True
            raise
        size = min(guest_size, data.size)
        return Entry(
            context,
            size,
            page_number(gva, size),
            base_of(data.maddr, size),
            rights & data.rights,
            bool(self.memory[at] & DIRTY) and data.dirty,
        )

    def walk_start(
        self, context: tuple[int, int], gva: int, row: int
    ) -> tuple[int, int | None, int]:
        """Return level, machine address (None: not known yet) and rights of the first table."""
        for level, cache in self.walk_caches.items():
            entry = cache.look_up(context, gva)
            if entry:
                self.counters.hits[row][("pde", "pdpte", "pml4e")[level - 1]] += 1
                return level, entry.frame, entry.rights
        return 4, None, ALL_RIGHTS

    def table_kind(self) -> int:
        return WRITE if self.nested_dirty else READ

    def nested(self, vm: int, gpa: int, kind: int, row: int) -> Translation:
        """Translate a guest-physical address; natively it is the machine address."""
        if vm not in self.nested_roots:
            return Translation(gpa, G1, ALL_RIGHTS, dirty=True)
        self.counters.add(row, "NESTED_LOOKUP")
        if self.nested_tlb:
            entry = self.nested_tlb.look_up(vm, gpa)
            if entry and not denied(entry.rights, kind, entry.dirty):
                self.counters.hits[row][f"nested.{SIZE_NAME[entry.size]}"] += 1
                maddr = entry.frame + gpa % bytes_of(entry.size)
                return Translation(maddr, entry.size, entry.rights, entry.dirty)

        table, rights, level = self.nested_roots[vm], ALL_RIGHTS, 4
        while True:
            at = table + 8 * index(gpa, level)
            word = self.load(at, "NESTED_REFERENCE", row)
            if not word & NESTED_RWX:
                raise NestedFault(gpa)
            rights &= nested_rights(word)
            if is_leaf(word, level):
                break
            if self.nested_dirty:
                self.set_bits(at, NESTED_ACCESSED, row)
            table, level = word & FRAME, level - 1

        if denied(rights, kind):
            raise NestedFault(gpa, protection=True)
        dirty = True
        if self.nested_dirty:
            written = NESTED_DIRTY if kind % 3 == WRITE else 0
            self.set_bits(at, NESTED_ACCESSED | written, row)
            dirty = bool(self.memory[at] & NESTED_DIRTY)
        size = level - 1
        frame = base_of(word & FRAME, size)
        if self.nested_tlb and size in self.nested_tlb.sizes:
            self.nested_tlb.fill(Entry(vm, size, page_number(gpa, size), frame, rights, dirty))
        return Translation(frame + gpa % bytes_of(size), size, rights, dirty)

    def load(self, at: int, event: str, row: int) -> int:
        self.references += 1
        self.counters.add(row, event)
        return self.memory.get(at, 0)

    def set_bits(self, at: int, bits: int, row: int) -> None:
        if self.memory[at] & bits != bits:
            self.memory[at] |= bits
            self.counters.add(row, "UPDATE")

    # -- dropping entries

    def gva_caches(self) -> list[Cache]:
        return [*self.l1[0], *self.l1[1], *self.l2, *self.walk_caches.values()]

    def drop_after(
        self, fault: PageFault | NestedFault, context: tuple[int, int], gva: int
    ) -> None:
        """A fault drops the entries that would translate its address, so that it cannot recur."""
        if isinstance(fault, NestedFault):
            if self.nested_tlb:
                self.nested_tlb.drop(
                    lambda entry: (
                        entry.tag == context[0] and entry.page == page_number(fault.gpa, entry.size)
                    )
                )
            if not fault.of_data:
                return
        for cache in self.gva_caches():
            cache.drop(
                lambda entry: entry.tag == context and entry.page == page_number(gva, entry.size)
            )

    def flush(self, flush_nested: bool = False) -> None:
        for cache in self.gva_caches():
            cache.drop(lambda entry: True)
        if flush_nested and self.nested_tlb:
            self.nested_tlb.drop(lambda entry: True)

    def purge(self, vm: int) -> None:
        for cache in self.gva_caches():
            cache.drop(lambda entry: entry.tag[0] == vm)


# ---- software: frames and tables ----------------------------------------------------------------


class OutOfMemory(Exception):
    """A pool has no frame of the size asked for."""


class FramePool:
    """A run of 2M regions of 512 frames: `partial` ones give small frames, `whole` ones large."""

    def __init__(self, base: int, size: int, taken: Iterable[tuple[int, int]] = ()) -> None:
        """Base and size in bytes; taken: (region, frame in the region) that someone else has."""
        self.base = base
        self.free: dict[int, list[int]] = {}  # {partial region: its free frames, ascending}
        for region, frame in sorted(set(taken)):
            self.free.setdefault(region, list(range(512))).remove(frame)
        self.partial = sorted(region for region, frames in self.free.items() if frames)
        self.whole = [r for r in range(size // bytes_of(M2)) if r not in self.free]

    def small(self) -> int:
        if not self.partial:
            if not self.whole:
                raise OutOfMemory("no 4K frame is free")
            region = self.whole.pop(0)
            self.free[region] = list(range(512))
            self.partial.insert(0, region)
        region = self.partial[0]
        frame = self.free[region].pop(0)
        if not self.free[region]:
            self.partial.pop(0)
        return self.base + region * bytes_of(M2) + frame * bytes_of(K4)

    def large(self) -> int:
        if not self.whole:
            raise OutOfMemory("no whole 2M frame is free")
        return self.base + self.whole.pop(0) * bytes_of(M2)

    def page(self, size: int) -> int:
        return self.large() if size == M2 else self.small()

    def has_large(self) -> bool:
        return bool(self.whole)


class Tables:
    """A tree of tables as software writes it, one page at a time, sized by a policy.

    `link` and `leaf` are the bits of new entries, `take_table()` and `take_page(address, size)`
    give frames, `has_large()` tells whether a whole 2M frame is free, and `where(table)` is the
    machine address at which a table is written.
    """

    def __init__(
        self,
        memory: dict[int, int],
        policy: str,  # "4k", "2m" or "auto"
        *,
        link: int,
        leaf: int,
        take_table: Callable[[], int],
        take_page: Callable[[int, int], int],
        has_large: Callable[[], bool] = lambda: True,
        where: Callable[[int], int] = lambda table: table,
    ) -> None:
        self.memory, self.policy = memory, policy
        self.link, self.leaf = link, leaf
        self.take_table, self.take_page = take_table, take_page
        self.has_large, self.where = has_large, where
        self.root = take_table()

    def at(self, table: int, address: int, level: int) -> int:
        return self.where(table) + 8 * index(address, level)

    def next_table(self, table: int, address: int, level: int) -> int:
        """Follow the entry of this level down; make the table that it lacks."""
        at = self.at(table, address, level)
        if not self.memory.get(at):
            self.memory[at] = self.take_table() | self.link
        return self.memory[at] & FRAME

    def map(self, address: int) -> None:
        """Map the page that holds the address, which is not mapped yet."""
        level3 = self.next_table(self.root, address, 4)
        level2 = self.next_table(level3, address, 3)
        at = self.at(level2, address, 2)
        if not self.memory.get(at) and self.wants_large():
            self.memory[at] = self.take_page(address, M2) | self.leaf | LARGE
        else:
            level1 = self.next_table(level2, address, 2)
            at = self.at(level1, address, 1)
            self.memory[at] = self.take_page(address, K4) | self.leaf

    def map_to(self, address: int, frame: int, size: int) -> None:
        """Map a page of this size, which is not mapped yet, to a frame."""
        table = self.root
        for level in range(4, size + 1, -1):
            table = self.next_table(table, address, level)
        large = LARGE if size == M2 else 0
        self.memory[self.at(table, address, size + 1)] = frame | self.leaf | large

    def wants_large(self) -> bool:
        return self.policy == "2m" or (self.policy == "auto" and self.has_large())

    def find(self, address: int) -> int | None:
        """Return where the page of the address leads, offset included; None if not mapped."""
        table = self.root
        for level in (4, 3, 2, 1):
            word = self.memory.get(self.at(table, address, level), 0)
            if not word:
                return None
            if is_leaf(word, level):
                return base_of(word & FRAME, level - 1) + address % bytes_of(level - 1)
            table = word & FRAME

    def words(self) -> dict[tuple[int, int], int]:
        """Return {(level, first address that the entry covers, 48 bits): word} of all entries."""
        found = {}

        def visit(table: int, level: int, first: int) -> None:
            maddr = self.where(table)
            for slot in range(512):
                start = first + slot * bytes_of(level - 1)
                word = self.memory.get(maddr + 8 * slot, 0)
                if word:
                    found[level, start] = word
                    if not is_leaf(word, level):
                        visit(word & FRAME, level - 1, start)

        visit(self.root, 4, 0)
        return found


# ---- the replay ---------------------------------------------------------------------------------

Access = tuple[int, int, int, int]  # space, thread, address, kind


@dataclass
class ProcessSettings:
    """A trace of a vm that has several; space s of it is the vm's space + 65536 s."""

    trace: Sequence[Access]
    space: int = 0
    weight: int = 1
    repeat: int | None = None  # None: as the vm
    start: tuple[int, int] = (0, 0)  # may run from so many cycles on, and so many accesses
    guest_pages: str = "4k"  # the same for all of a space


@dataclass
class VmSettings:
    trace: Sequence[Access] = ()
    memory: int = 64 << 20  # bytes
    guest_pages: str = "4k"
    nested_pages: str = "auto"
    broken: Sequence[tuple[int, int]] = ()  # region, frame in it that is taken from the start
    # pages mapped before the run: space, address, guest-physical address, size; in order
    page_map: Sequence[tuple[int, int, int, int]] = ()
    base_frame: int | None = None  # native mode: first machine frame; None: after the one before
    weight: int = 1
    repeat: int | None = None  # None: as the run
    start: tuple[int, int] = (0, 0)  # cycles, accesses
    processes: Sequence[ProcessSettings] = ()  # instead of a trace
    turn: tuple[int, str] = (1, "accesses")  # of a process, times its weight
    pcid: bool = True  # False: a change of space drops all that the vm has


@dataclass
class Settings:
    geometry: Geometry
    vms: Sequence[VmSettings]  # vm 1, 2, ...
    root: VmSettings | None = None  # vm 0
    mode: str = "tagged"  # "tagged", "purge", "flush" or "native"
    quantum: tuple[int, str] = (100_000, "accesses")  # or "instructions" or "cycles"
    exit_interval: int = 0  # cycles between timer exits; 0: none
    exit_code_pages: int = 8
    exit_data_pages: int = 8
    costs: dict[str, int] = field(default_factory=dict)  # those that differ from COSTS
    warm_up: int = 0  # accesses
    repeat: int = 1
    backing: str = "start"  # or "first-touch"
    nested_dirty: bool = True
    flush_nested: bool = False
    memory: int = 1 << 30  # bytes of the host
    reserve: int = 64 << 20  # bytes from machine address 0 that are the hypervisor's
    host_broken: Sequence[tuple[int, int]] = ()  # regions counted from the reserve's end


def blocks(trace: Iterable[Access]) -> list[list[Access]]:
    """Cut a trace where space or thread changes, and after 4096 accesses."""
    result: list[list[Access]] = []
    for access in trace:
        if not result or result[-1][-1][:2] != access[:2] or len(result[-1]) == BLOCK:
            result.append([])
        result[-1].append(access)
    return result


class Process:
    """What is left of a trace, and where it stands in its guest's round."""

    def __init__(self, its: ProcessSettings, vm: VmSettings, repeat: int, stride: int) -> None:
        self.left = repeat * blocks(its.trace)
        self.stride = stride
        self.space, self.weight = its.space, its.weight
        self.has_fetches = any(side_of(kind) for _, _, _, kind in its.trace)
        self.not_before_cycle = max(its.start[0], vm.start[0])
        self.not_before_access = max(its.start[1], vm.start[1])


class Replay:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.native = settings.mode == "native"
        self.vms = 1 + len(settings.vms)
        self.vm = dict(enumerate(settings.vms, start=1))  # {number: VmSettings}
        if settings.root:
            self.vm = {0: settings.root} | self.vm
        self.memory: dict[int, int] = {}
        self.counters = Counters(self.vms, settings.costs)
        self.reserve = FramePool(0, settings.reserve)
        size, taken = settings.memory - settings.reserve, list(settings.host_broken)
        if settings.root and not self.native:
            taken += self.claimed(settings.root, settings.reserve, size)
        self.host = FramePool(settings.reserve, size, taken)
        self.pools: dict[int, FramePool] = {}  # {vm: guest-physical frames}
        self.nested: dict[int, Tables] = {}  # {vm: nested tables}
        self.guest: dict[tuple[int, int], Tables] = {}  # {context: guest tables}
        self.loaded: dict[int, int] = {}  # {vm: the space that its CR3 points to}
        self.pager_touched = 0  # nested faults of the pager's own stores, exits not yet taken
        self.machine = Machine(
            settings.geometry,
            self.memory,
            roots={},
            nested_roots={},
            counters=self.counters,
            nested_dirty=settings.nested_dirty,
        )
        if not self.native:
            self.hypervisor = self.new_hypervisor()
        self.next_base = settings.reserve  # native mode: where the next vm's memory starts
        self.next_beyond = settings.memory  # and where what its page map has beyond it does
        for vm in self.vm:
            self.new_vm(vm)

        self.processes = {vm: self.new_processes(its) for vm, its in self.vm.items()}
        self.chosen: dict[int, Process] = {}  # {vm: who runs in it, or did last}
        self.used = dict.fromkeys(self.vm, 0)  # {vm: how much of that one's turn}
        self.slices: list[tuple[int, int, int, int, int, str]] = []
        self.done = {"accesses": 0, "instructions": 0}  # of all vms, warm-up included
        self.next_exit = settings.exit_interval
        self.warm = settings.warm_up == 0

    # -- setting up

    def new_processes(self, its: VmSettings) -> list[Process]:
        repeat = its.repeat or self.settings.repeat
        if not its.processes:
            return [Process(ProcessSettings(its.trace), its, repeat, 1)]
        return [Process(each, its, each.repeat or repeat, 65536) for each in its.processes]

    def pages_of(self, vm: int, space: int) -> str:
        """Return the guest's policy in a space, the same for all processes in it."""
        its = self.vm[vm]
        found = [each.guest_pages for each in its.processes if each.space == space % 65536]
        return found[0] if found else its.guest_pages

    def new_hypervisor(self) -> Tables:
        """Map what exits touch: code that all vms share, data of each vm."""
        bits = PRESENT | WRITABLE
        tables = Tables(
            self.memory,
            "4k",
            link=bits,
            leaf=bits,
            take_table=self.reserve.small,
            take_page=lambda _, size: self.reserve.page(size),
        )
        pages = [self.hypervisor_code(i) for i in range(self.settings.exit_code_pages)]
        for vm in self.vm:
            pages += [self.hypervisor_data(vm, i) for i in range(self.settings.exit_data_pages)]
        for page in pages:
            tables.map(page)
        self.machine.roots[self.vms, 0] = tables.root
        return tables

    def hypervisor_code(self, i: int) -> int:
        return HYPERVISOR_CODE + i * bytes_of(K4)

    def hypervisor_data(self, vm: int, i: int) -> int:
        return HYPERVISOR_DATA + (vm * self.settings.exit_data_pages + i) * bytes_of(K4)

    def new_vm(self, vm: int) -> None:
        its = self.vm[vm]
        taken = [(0, 0), *its.broken, *self.claimed(its, 0, its.memory)]
        base = beyond = 0
        if self.native:
            base = self.next_base if its.base_frame is None else its.base_frame * bytes_of(K4)
            self.next_base = base + its.memory
            beyond = self.next_beyond
            end = max([gpa + bytes_of(size) for _, _, gpa, size in its.page_map], default=0)
            self.next_beyond += end + -end % bytes_of(M2)
            self.pools[vm] = FramePool(base, its.memory, taken)
        else:
            # the root's guest-physical addresses are machine addresses: it takes the host's frames
            self.pools[vm] = self.host if vm == 0 else FramePool(0, its.memory, taken)
            self.nested[vm] = self.new_nested(vm)
            self.machine.nested_roots[vm] = self.nested[vm].root
        for space in sorted({space for space, *_ in its.page_map}):
            self.open_space(vm, space)
            backed = []
            for _, gva, gpa, size in filter(lambda page: page[0] == space, its.page_map):
                place = gpa + (base if gpa < its.memory else beyond)
                self.guest[vm, space].map_to(gva, place, size)
                backed.append((place, size))
            for place, size in sorted(backed, key=lambda page: page[0]):
                self.back_from_start(vm, place, size)

    def claimed(self, its: VmSettings, begin: int, size: int) -> list[tuple[int, int]]:
        """Return (region, frame in it) of its page map's frames in this memory, counted from there."""
        return [
            divmod((gpa + inside - begin) // bytes_of(K4), 512)
            for _, _, gpa, page in its.page_map
            for inside in range(0, bytes_of(page), bytes_of(K4))
            if begin <= gpa < begin + size
        ]

    def back_from_start(self, vm: int, gpa: int, size: int) -> None:
        """Back what a pager hands out, where memory counts as backed from the start."""
        if not self.native and self.settings.backing == "start":
            for page in range(gpa, gpa + bytes_of(size), bytes_of(K4)):
                if self.nested[vm].find(page) is None:
                    self.nested[vm].map(page)

    def new_nested(self, vm: int) -> Tables:
        def take(gpa: int, size: int) -> int:
            if vm != 0:
                return self.host.page(size)
            if gpa < self.settings.reserve:
                raise PermissionError(f"root may not have {gpa:#x}: it is the hypervisor's")
            return base_of(gpa, size)

        return Tables(
            self.memory,
            self.vm[vm].nested_pages,
            link=NESTED_RWX,
            leaf=NESTED_RWX | NESTED_WRITE_BACK,
            take_table=self.reserve.small,
            take_page=take,
            has_large=lambda: vm == 0 or self.host.has_large(),
        )

    def new_space(self, vm: int, space: int) -> Tables:
        def take(size: int) -> int:
            gpa = self.pools[vm].page(size)
            self.back_from_start(vm, gpa, size)
            return gpa

        def where(gpa: int) -> int:
            """Where the pager's store goes: it may be the first touch of the page."""
            if self.native:
                return gpa
            if self.nested[vm].find(gpa) is None:
                self.nested[vm].map(gpa)
                self.pager_touched += 1
            return self.nested[vm].find(gpa)

        bits = PRESENT | WRITABLE | USER
        return Tables(
            self.memory,
            self.pages_of(vm, space),
            link=bits,
            leaf=bits,
            take_table=lambda: take(K4),
            take_page=lambda _, size: take(size),
            has_large=self.pools[vm].has_large,
            where=where,
        )

    # -- one access, its faults and exits

    def access(self, vm: int, space: int, gva: int, kind: int) -> int:
        """Access until no fault is left; return the machine address."""
        if (vm, space) not in self.guest:  # a space gets its root table when it runs first
            self.open_space(vm, space)
        while True:
            try:
                return self.machine.access((vm, space), gva, kind)
            except PageFault as fault:
                if fault.protection:
                    raise
                self.counters.add(vm, "GUEST_FAULT")
                self.pager_touched = 0
                self.guest[vm, space].map(gva)
                for _ in range(self.pager_touched):
                    self.nested_fault(vm)
            except NestedFault as fault:
                if fault.protection or self.settings.backing == "start":
                    raise
                self.nested[vm].map(fault.gpa)
                self.nested_fault(vm)

    def open_space(self, vm: int, space: int) -> None:
        self.guest[vm, space] = self.new_space(vm, space)
        self.machine.roots[vm, space] = self.guest[vm, space].root

    def nested_fault(self, vm: int) -> None:
        self.counters.add(vm, "NESTED_FAULT")
        self.exit(vm)

    def exit(self, vm: int) -> None:
        self.counters.add(vm, "EXIT")
        if self.settings.mode == "flush":
            self.machine.flush(self.settings.flush_nested)
        for i in range(self.settings.exit_code_pages):
            self.hypervisor_access(vm, self.hypervisor_code(i), SUPERVISOR + FETCH)
        for i in range(self.settings.exit_data_pages):
            kind = SUPERVISOR + (WRITE if i % 2 else READ)
            self.hypervisor_access(vm, self.hypervisor_data(vm, i), kind)
        if self.settings.mode == "flush":
            self.machine.flush(self.settings.flush_nested)

    def hypervisor_access(self, vm: int, gva: int, kind: int) -> None:
        row = self.vms + vm
        self.counters.add(row, "ACCESS")
        self.machine.access((self.vms, 0), gva, kind, row)

    # -- blocks, slices, switches

    def run(self) -> dict[str, object]:
        vm = self.choose(-1)
        while vm is not None:
            self.slice(vm)
            successor = self.choose(vm)
            if successor not in (None, vm):
                self.switch_from(vm)
            vm = successor
        return self.result()

    def can_run(self, process: Process) -> bool:
        return (
            bool(process.left)
            and self.counters.clock >= process.not_before_cycle
            and self.done["accesses"] >= process.not_before_access
        )

    def choose(self, vm: int) -> int | None:
        """Return the vm after this one that can run; if there is none, idle until there is."""
        found = self.next_vm(vm)
        if found is not None:
            return found
        wakes = [
            process.not_before_cycle
            for processes in self.processes.values()
            for process in processes
            if process.left and process.not_before_access <= self.done["accesses"]
        ]
        if not wakes:
            return None
        begin, end = self.counters.clock, min(wakes)
        self.slices.append((-1, -1, begin, end, 0, "idle"))
        self.counters.clock = end
        self.next_exit += end - begin  # the timer ticks for a vm that runs
        found = self.next_vm(vm)
        self.counters.cycles[found]["idle"] += end - begin
        return found

    def next_vm(self, vm: int) -> int | None:
        """Return the vm after this one, in cyclic order, in which somebody can run."""
        order = [n for n in self.vm if n > vm] + [n for n in self.vm if n <= vm]
        return next((n for n in order if any(map(self.can_run, self.processes[n]))), None)

    def next_process(self, vm: int) -> Process | None:
        """Return the process after the chosen one, in cyclic order, that can run."""
        processes = self.processes[vm]
        after = processes.index(self.chosen[vm]) + 1 if vm in self.chosen else 0
        order = processes[after:] + processes[:after]
        return next(filter(self.can_run, order), None)

    def slice(self, vm: int) -> None:
        """Run blocks until the vm's turn is over or nobody in it can run."""
        length, unit = self.settings.quantum
        length *= self.vm[vm].weight
        begin = self.now(unit)
        if vm not in self.chosen or not self.can_run(self.chosen[vm]):
            self.chosen[vm] = self.next_process(vm)
        since = self.counters.clock, self.done["accesses"]
        while True:
            process = self.chosen[vm]
            self.step(vm, process)
            over = self.now(unit) - begin >= length
            successor = self.go_on(vm, process)
            if over or successor is not process:
                why = "quantum" if over else "turn"
                self.record(vm, process, since, why if process.left else "end")
                since = self.counters.clock, self.done["accesses"]
            if over or successor is None:
                return

    def step(self, vm: int, process: Process) -> None:
        """Run a block of a process, and take it off its turn."""
        unit = self.vm[vm].turn[1]
        before = self.now(unit)
        self.run_block(vm, process)
        self.timer_exits(vm)
        self.used[vm] += self.now(unit) - before
        if not self.warm and self.done["accesses"] >= self.settings.warm_up:
            self.warm = True
            self.counters.zero()

    def go_on(self, vm: int, process: Process) -> Process | None:
        """Return who is next in the vm, this one if its turn is not over; None if nobody can."""
        alone = not self.vm[vm].processes
        if process.left and (alone or self.used[vm] < self.vm[vm].turn[0] * process.weight):
            return process
        self.used[vm] = 0
        successor = self.next_process(vm)
        if successor is not None:
            self.chosen[vm] = successor
        return successor

    def record(self, vm: int, process: Process, since: tuple[int, int], why: str) -> None:
        clock, accesses = since
        made = self.done["accesses"] - accesses
        number = self.processes[vm].index(process)
        self.slices.append((vm, number, clock, self.counters.clock, made, why))

    def now(self, unit: str) -> int:
        return self.counters.clock if unit == "cycles" else self.done[unit]

    def run_block(self, vm: int, process: Process) -> None:
        block = process.left.pop(0)
        space = process.space + process.stride * block[0][0]
        if self.loaded.get(vm, space) != space:
            self.counters.add(vm, "CR3_LOAD")
            if not self.vm[vm].pcid:
                self.machine.purge(vm)
        self.loaded[vm] = space
        for space, _, gva, kind in block:
            self.access(vm, process.space + process.stride * space, gva, kind)
        instructions = len(block)
        if process.has_fetches:
            instructions = sum(side_of(kind) for _, _, _, kind in block)
        self.counters.add(vm, "ACCESS", len(block))
        self.counters.add(vm, "INSTRUCTION", instructions)
        self.done["accesses"] += len(block)
        self.done["instructions"] += instructions

    def timer_exits(self, vm: int) -> None:
        interval = self.settings.exit_interval
        if self.native or not interval or self.counters.clock < self.next_exit:
            return
        due = (self.counters.clock - self.next_exit) // interval + 1
        self.next_exit += due * interval
        for _ in range(due):
            self.exit(vm)

    def switch_from(self, vm: int) -> None:
        self.counters.add(vm, "SWITCH")
        if self.settings.mode == "purge":
            self.machine.purge(vm)
        if self.settings.mode == "flush":
            self.machine.flush(self.settings.flush_nested)

    def result(self) -> dict[str, object]:
        counters = self.counters
        return {
            "counts": [dict(row) for row in counters.counts],  # [row][event]
            "hits": [dict(row) for row in counters.hits],  # [row][cache name]
            "l1_misses": counters.l1_misses,  # [row][side]
            "histogram": [dict(row) for row in counters.histogram],  # [row][references]
            "evictions": counters.evictions,  # [by][of]; the last one is the hypervisor
            "cycles": [dict(vm) for vm in counters.cycles],  # [vm][cause]
            "clock": counters.clock,  # warm-up included
            "slices": self.slices,  # (vm, process, begin, end, accesses, why); vm -1: idle
            "memory": self.memory,  # {machine address: word}
            "roots": self.machine.roots,  # {context: address of its root table}
            "nested_roots": self.machine.nested_roots,  # {vm: machine address}
            "guest_words": {context: tables.words() for context, tables in self.guest.items()},
            "nested_words": {vm: tables.words() for vm, tables in self.nested.items()},
            "hypervisor_words": {} if self.native else self.hypervisor.words(),
        }
