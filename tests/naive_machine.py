"""The naive model's processor: one access, the walks in both dimensions, what drops entries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from naive_cache import Array, Cache, Data, DataCaches, Entry, LineCache
from naive_counters import Counters, bucket
from naive_timing import Timeline, Window, length
from naive_tlb import FLUSH, INVALIDATION, Tlb
from naive_words import (
    ACCESSED,
    ALL_RIGHTS,
    DIRTY,
    FETCH,
    FRAME,
    G1,
    K4,
    NESTED_ACCESSED,
    NESTED_DIRTY,
    NESTED_RWX,
    PRESENT,
    READ,
    SIDE_NAME,
    SIZE_NAME,
    WRITE,
    base_of,
    bytes_of,
    denied,
    guest_rights,
    index,
    is_leaf,
    nested_rights,
    page_number,
    side_of,
)

STORE_SIDE = 2


@dataclass(frozen=True)
class PageWalkCache:
    """The shape of a cache of table entries by where they stand."""

    array: Array
    levels: Sequence[int]  # of 2, 3, 4
    nested: bool  # it has entries of nested tables, too


@dataclass(frozen=True)
class Geometry:
    l1: Sequence[Sequence[Array]]  # [side][array]; the third side is the stores' if they have one
    l2: Sequence[Array] = ()  # all sides share it
    l2_fetch: Sequence[Array] | None = None  # the fetches', if they do not
    walk: Sequence[Array | None] = (None, None, None)  # PDE, PDPTE, PML4E
    nested: Array | None = None
    page_walk: PageWalkCache | None = None
    data: Data | None = None
    table_reads: str = "fixed"  # "walker": through the data caches; "shared": the program's, too
    walkers: int = 1
    window: int = 0  # instructions that the processor goes on beside a walk
    overlap: bool = False  # even with a window of 0
    conflicts: bool = False  # tell conflict from capacity


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
        l3: LineCache | None = None,
    ) -> None:
        self.memory = memory
        self.roots = roots  # {context: guest-physical address of its root; native: machine address}
        self.nested_roots = {} if nested_roots is None else nested_roots  # {vm: machine address}
        self.counters = Counters(2) if counters is None else counters
        self.nested_dirty = nested_dirty
        self.l1 = [
            [
                Tlb([f"l1.{SIDE_NAME[side]}.{i}"], [array], has_twin=False)
                for i, array in enumerate(arrays)
            ]
            for side, arrays in enumerate(geometry.l1)
        ]
        names = [f"l2.{i}" for i, _ in enumerate(geometry.l2)]
        self.l2 = Tlb(names, geometry.l2, geometry.conflicts)
        self.l2_fetch = self.l2
        if geometry.l2_fetch is not None:
            names = [f"l2_fetch.{i}" for i, _ in enumerate(geometry.l2_fetch)]
            self.l2_fetch = Tlb(names, geometry.l2_fetch, geometry.conflicts)
        # {level of the tables it points to: cache}, in the order of look-up
        self.walk_caches = {
            level: Cache(array, sizes=[level])
            for level, array in zip((1, 2, 3), geometry.walk, strict=True)
            if array is not None
        }
        self.nested_tlb = None if geometry.nested is None else Cache(geometry.nested)
        self.page_walk, self.page_walk_levels, self.page_walk_nested = None, (), False
        if geometry.page_walk:
            self.page_walk = Cache(geometry.page_walk.array)
            self.page_walk_levels = geometry.page_walk.levels
            self.page_walk_nested = geometry.page_walk.nested
        self.data = DataCaches(geometry.data, l3) if geometry.data else None
        self.table_reads = geometry.table_reads
        self.window = Window(self.counters, geometry.walkers, geometry.window)
        self.overlaps = geometry.overlap or geometry.window > 0
        self.references = 0  # of the last walk
        self.timeline: Timeline = []  # of the last walk

    # -- one access

    def access(self, context: tuple[int, int], gva: int, kind: int, row: int | None = None) -> int:
        """Make one attempt at an access and return its machine address, or raise the fault."""
        row = context[0] if row is None else row
        maddr = self.translate(context, gva, kind, row)
        if self.data and self.table_reads == "shared":
            self.data.read(maddr, is_fetch=kind % 3 == FETCH)
        return maddr

    def translate(self, context: tuple[int, int], gva: int, kind: int, row: int) -> int:
        side = side_of(kind)
        l1 = self.l1_of(kind)
        l2 = self.l2_fetch if side_of(kind) else self.l2
        l2_found = None

        l1_found = self.look_up(l1, context, gva)
        if l1_found and self.allows(l1_found, kind):
            return self.hit(row, l1_found, gva)

        if not l1_found and l2.sizes:
            self.counters.add(row, "L2_LOOKUP")
            l2_found = l2.look_up(context, gva)
            if l2_found and self.allows(l2_found, kind):
                self.counters.l1_misses[row][side] += 1
                self.fill_l1(l1, gva, l2_found[1])
                if side and self.is_beside(row):
                    self.window.fetch_was_answered_by_l2(context, gva)
                return self.hit(row, l2_found, gva)

        entry = self.whole_walk(context, gva, kind, row)
        if l1_found:
            self.hit(row, l1_found, gva)
        else:
            self.counters.l1_misses[row][side] += 1
            if l2_found:
                self.hit(row, l2_found, gva)
        if l1_found or l2_found:
            self.counters.counts[row]["DIRTY_WALK"] += 1
        else:
            self.counters.counts[row]["WALK"] += 1
            self.counters.misses[row][self.why_missed(l1, l2, gva, entry)] += 1
        self.counters.histogram[row][self.references] += 1
        self.counters.walk_latency[row][bucket(length(self.timeline))] += 1
        dropped = l2.fill(entry)
        if dropped:
            self.counters.evicted(row, dropped.tag[0])
        self.fill_l1(l1, gva, entry)
        return entry.frame + gva % bytes_of(entry.size)

    def l1_of(self, kind: int) -> list[Tlb]:
        if kind % 3 == WRITE and len(self.l1) > STORE_SIDE:
            return self.l1[STORE_SIDE]
        return self.l1[side_of(kind)]

    def look_up(self, level: list[Tlb], tag: object, address: int) -> tuple[str, Entry] | None:
        for tlb in level:
            found = tlb.look_up(tag, address)
            if found:
                return found
        return None

    def allows(self, found: tuple[str, Entry], kind: int) -> bool:
        _, entry = found
        return not denied(entry.rights, kind, entry.dirty)

    def hit(self, row: int, found: tuple[str, Entry], gva: int) -> int:
        name, entry = found
        self.counters.hits[row][f"{name}.{SIZE_NAME[entry.size]}"] += 1
        return entry.frame + gva % bytes_of(entry.size)

    def fill_l1(self, l1: list[Tlb], gva: int, entry: Entry) -> None:
        tlb, piece = self.piece_for(l1, gva, entry)
        if tlb:
            tlb.fill(piece)

    def piece_for(self, l1: list[Tlb], gva: int, entry: Entry) -> tuple[Tlb | None, Entry]:
        """Return who of this L1 takes the entry, or its piece around gva of the largest size held."""
        for size in range(entry.size, K4 - 1, -1):
            for tlb in l1:
                if size in tlb.sizes:
                    inside = base_of(gva, size) % bytes_of(entry.size)
                    page, frame = page_number(gva, size), entry.frame + inside
                    return tlb, replace(entry, size=size, page=page, frame=frame)
        return None, entry

    def why_missed(self, l1: list[Tlb], l2: Tlb, gva: int, entry: Entry) -> str:
        """Ask the last level that holds pages of this size."""
        if entry.size in l2.sizes:
            return l2.why_missed(entry)
        tlb, piece = self.piece_for(l1, gva, entry)
        return tlb.why_missed(piece) if tlb else "first_touch"

    # -- the walk, its events and its time

    def whole_walk(self, context: tuple[int, int], gva: int, kind: int, row: int) -> Entry:
        """Walk, and let the time pass that it takes; a fault drops what could make it recur."""
        self.references = 0
        self.timeline = [("walk_cache", self.counters.cost("WALK"))]
        try:
            entry = self.walk(context, gva, kind, row)
        except (PageFault, NestedFault) as fault:
            self.counters.counts[row]["FAULT_WALK"] += 1
            if self.is_beside(row):
                self.window.wait_for_all()
            self.wait_for_the_walk(row)
            self.drop_after(fault, context, gva)
            raise
        if self.is_beside(row):
            self.window.walk(row, self.timeline, entry, is_fetch=kind % 3 == FETCH)
        else:
            self.wait_for_the_walk(row)
        return entry

    def is_beside(self, row: int) -> bool:
        """Tell whether a walk goes on beside the program's instructions; not the hypervisor's."""
        return self.overlaps and row < self.counters.vms

    def wait_for_the_walk(self, row: int) -> None:
        for cause, cycles in self.timeline:
            self.counters.spend(row, cause, cycles)

    def walk_event(self, row: int, event: str, cause: str, cycles: int) -> None:
        self.counters.counts[row][event] += 1
        self.timeline.append((cause, cycles))

    def walk(self, context: tuple[int, int], gva: int, kind: int, row: int) -> Entry:
        """Translate gva with the guest's tables, and all that they point to with the nested."""
        vm = context[0]
        level, maddr, rights = self.walk_start(context, gva, row)
        gpa = self.roots[context]
        while True:
            if maddr is None:
                maddr = self.nested(vm, gpa, self.table_kind(), row).maddr
                if level in self.walk_caches:
                    page = page_number(gva, level)
                    self.walk_caches[level].fill(Entry(context, level, page, maddr, rights))
            at = maddr + 8 * index(gva, level)
            cached = self.cached_word("guest", context, at, level, row)
            word = self.load(at, "guest", row) if cached is None else cached
            if not word & PRESENT:
                raise PageFault(gva)
            rights &= guest_rights(word)
            if is_leaf(word, level):
                break
            self.set_bits(at, ACCESSED, row)
            if cached is None:
                self.cache_word("guest", context, at, level)
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
        self.walk_event(row, "NESTED_LOOKUP", "nested_tlb", self.counters.cost("NESTED_LOOKUP"))
        if self.nested_tlb:
            entry = self.nested_tlb.look_up(vm, gpa)
            if entry and not denied(entry.rights, kind, entry.dirty):
                self.counters.hits[row][f"nested.{SIZE_NAME[entry.size]}"] += 1
                maddr = entry.frame + gpa % bytes_of(entry.size)
                return Translation(maddr, entry.size, entry.rights, entry.dirty)

        table, rights, level = self.nested_roots[vm], ALL_RIGHTS, 4
        while True:
            at = table + 8 * index(gpa, level)
            cached = self.cached_word("nested", vm, at, level, row)
            word = self.load(at, "nested", row) if cached is None else cached
            if not word & NESTED_RWX:
                raise NestedFault(gpa)
            rights &= nested_rights(word)
            if is_leaf(word, level):
                break
            if self.nested_dirty:
                self.set_bits(at, NESTED_ACCESSED, row)
            if cached is None:
                self.cache_word("nested", vm, at, level)
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

    def load(self, at: int, dimension: str, row: int) -> int:
        """Read a table's word; dimension is guest or nested."""
        event, cause = f"{dimension.upper()}_REFERENCE", f"{dimension}_table"
        cycles = self.counters.cost(event)
        if self.data and self.table_reads != "fixed":
            found_in, cycles = self.data.read(at)
            self.counters.reads[row][f"{dimension}.{found_in}"] += 1
        self.references += 1
        self.walk_event(row, event, cause, cycles)
        return self.memory.get(at, 0)

    def set_bits(self, at: int, bits: int, row: int) -> None:
        if self.memory[at] & bits != bits:
            self.memory[at] |= bits
            self.walk_event(row, "UPDATE", "update", self.counters.cost("UPDATE"))

    # -- table entries by where they stand

    def may_cache_word(self, dimension: str, level: int) -> bool:
        if not self.page_walk or level not in self.page_walk_levels:
            return False
        return dimension == "guest" or self.page_walk_nested

    def cached_word(
        self, dimension: str, owner: object, at: int, level: int, row: int
    ) -> int | None:
        if not self.may_cache_word(dimension, level):
            return None
        entry = self.page_walk.look_up_page(((dimension, owner), K4, at // 8))
        if not entry:
            return None
        self.counters.hits[row][f"page_walk_cache.{dimension}"] += 1
        self.walk_event(row, "ENTRY_HIT", "walk_cache", self.counters.cost("ENTRY_HIT"))
        return entry.frame

    def cache_word(self, dimension: str, owner: object, at: int, level: int) -> None:
        if self.may_cache_word(dimension, level):
            word = self.memory[at]
            self.page_walk.fill(Entry((dimension, owner), K4, at // 8, word, ALL_RIGHTS))

    def drop_words(self, dimension: str, unwanted: Callable[[object], bool]) -> None:
        """Drop the entries of a dimension whose owner (context, or vm) is unwanted."""
        if self.page_walk:
            self.page_walk.drop(lambda entry: entry.tag[0] == dimension and unwanted(entry.tag[1]))

    # -- dropping entries

    def tlbs(self) -> list[Tlb]:
        found = [tlb for side in self.l1 for tlb in side] + [self.l2]
        return found if self.l2_fetch is self.l2 else [*found, self.l2_fetch]

    def drop(self, unwanted: Callable[[Entry], bool], why: str) -> None:
        """Drop entries by guest-virtual address."""
        for tlb in self.tlbs():
            tlb.drop(unwanted, why)
        for cache in self.walk_caches.values():
            cache.drop(unwanted)

    def drop_after(
        self, fault: PageFault | NestedFault, context: tuple[int, int], gva: int
    ) -> None:
        """A fault drops the entries that would translate its address, so that it cannot recur."""
        if isinstance(fault, NestedFault):
            self.drop_words("nested", lambda vm: vm == context[0])
            if self.nested_tlb:
                self.nested_tlb.drop(
                    lambda entry: (
                        entry.tag == context[0] and entry.page == page_number(fault.gpa, entry.size)
                    )
                )
            if not fault.of_data:
                return
        self.drop_words("guest", lambda owner: owner == context)
        self.drop(
            lambda entry: entry.tag == context and entry.page == page_number(gva, entry.size),
            INVALIDATION,
        )

    def flush(self, flush_nested: bool = False) -> None:
        self.drop(lambda entry: True, FLUSH)
        self.drop_words("guest", lambda context: True)
        if flush_nested:
            self.drop_words("nested", lambda vm: True)
            if self.nested_tlb:
                self.nested_tlb.drop(lambda entry: True)

    def purge(self, vm: int) -> None:
        self.drop_of(vm, FLUSH)

    def drop_of(self, vm: int, why: str) -> None:
        self.drop(lambda entry: entry.tag[0] == vm, why)
        self.drop_words("guest", lambda context: context[0] == vm)

    def invalidate(self, vm: int) -> None:
        """Drop all that was made of a vm's nested tables: INVEPT of a single context."""
        self.drop_of(vm, INVALIDATION)
        self.drop_words("nested", lambda owner: owner == vm)
        if self.nested_tlb:
            self.nested_tlb.drop(lambda entry: entry.tag == vm)
