"""The naive model's caches: of translations by three replacement rules, and of 64-byte lines.

An LRU set is a list with the most recent entry first. A set with a tree's bits is a list of ways.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from naive_words import K4, page_number

LINE = 64  # bytes


@dataclass(frozen=True)
class Array:
    entries: int
    ways: int
    sizes: Sequence[int] = (K4,)
    fold: int = 0  # b of xor-b; 0: linear
    replacement: str = "lru"  # or "tree-plru" or "rotating-plru"


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
    """One set-associative array; who leaves a full set is up to the kind of its sets."""

    def __init__(self, array: Array, sizes: Sequence[int] | None = None) -> None:
        self.sizes = array.sizes if sizes is None else sizes
        self.fold = array.fold
        count, rest = divmod(array.entries, array.ways)
        if rest or (array.fold and count & (count - 1)):
            raise ValueError(f"{array}: no whole number of sets, or not a power of two for xor")
        if array.replacement == "lru":
            self.sets: list[RecentFirst] | list[Ways] = [
                RecentFirst(array.ways) for _ in range(count)
            ]
        elif array.replacement == "tree-plru":
            self.sets = [Ways(OneTree(array.ways)) for _ in range(count)]
        else:
            self.sets = [Ways(ThreeTrees(array.ways)) for _ in range(count)]

    def set_of(self, page: int) -> "RecentFirst | Ways":
        if self.fold:
            return self.sets[(page ^ page >> self.fold) & (len(self.sets) - 1)]
        return self.sets[page % len(self.sets)]

    def look_up(self, tag: object, address: int) -> Entry | None:
        """Find the entry that holds the address, sizes in order; that is a use of it."""
        for size in self.sizes:
            page = page_number(address, size)
            entry = self.look_up_page((tag, size, page))
            if entry:
                return entry
        return None

    def look_up_page(self, key: tuple[object, int, int]) -> Entry | None:
        its_set = self.set_of(key[2])
        entry = its_set.find(key)
        if entry:
            its_set.use(entry)
        return entry

    def holds(self, entry: Entry) -> bool:
        return self.set_of(entry.page).find(entry.key()) is not None

    def has_free_way(self, page: int) -> bool:
        its_set = self.set_of(page)
        return len(its_set.entries()) < its_set.ways

    def fill(self, new: Entry) -> Entry | None:
        """Fill it in; replaces its own old copy, else a full set drops one and returns it."""
        its_set = self.set_of(new.page)
        own = its_set.find(new.key())
        return its_set.put(new, instead_of=own)

    def drop(self, unwanted: Callable[[Entry], bool]) -> None:
        for its_set in self.sets:
            its_set.drop(unwanted)

    def entries(self) -> list[Entry]:
        return [entry for its_set in self.sets for entry in its_set.entries()]


class RecentFirst:
    """A set with exact LRU."""

    def __init__(self, ways: int) -> None:
        self.ways = ways
        self.list: list[Entry] = []

    def entries(self) -> list[Entry]:
        return self.list

    def find(self, key: tuple[object, int, int]) -> Entry | None:
        return next((entry for entry in self.list if entry.key() == key), None)

    def use(self, entry: Entry) -> None:
        self.list.remove(entry)
        self.list.insert(0, entry)

    def put(self, new: Entry, instead_of: Entry | None) -> Entry | None:
        dropped = None
        if instead_of:
            self.list.remove(instead_of)
        elif len(self.list) == self.ways:
            dropped = self.list.pop()
        self.list.insert(0, new)
        return dropped

    def drop(self, unwanted: Callable[[Entry], bool]) -> None:
        self.list = [entry for entry in self.list if not unwanted(entry)]


class Ways:
    """A set whose entries stay in their way, with the bits of a rule that names the victim."""

    def __init__(self, rule: "OneTree | ThreeTrees") -> None:
        self.rule = rule
        self.ways = rule.ways
        self.way: list[Entry | None] = [None] * rule.ways

    def entries(self) -> list[Entry]:
        return [entry for entry in self.way if entry]

    def find(self, key: tuple[object, int, int]) -> Entry | None:
        return next((entry for entry in self.entries() if entry.key() == key), None)

    def use(self, entry: Entry) -> None:
        self.rule.use(self.way.index(entry))

    def put(self, new: Entry, instead_of: Entry | None) -> Entry | None:
        if instead_of:
            number = self.way.index(instead_of)
        elif None in self.way:
            number = self.way.index(None)
        else:
            number = self.rule.victim()
        dropped = None if instead_of else self.way[number]
        self.way[number] = new
        self.rule.use(number)
        return dropped

    def drop(self, unwanted: Callable[[Entry], bool]) -> None:
        """Empty ways; the bits stay."""
        self.way = [None if entry and unwanted(entry) else entry for entry in self.way]


class OneTree:
    """Tree-PLRU of 2, 4, 8 or 16 ways: a bit says in which half of its ways the victim is."""

    def __init__(self, ways: int) -> None:
        if ways not in (2, 4, 8, 16):
            raise ValueError(f"no tree of {ways} ways")
        self.ways = ways
        self.upper_half: dict[tuple[int, int], bool] = {}  # {first and last way of a node: its bit}

    def victim(self) -> int:
        first, last = 0, self.ways - 1
        while first < last:
            middle = (first + last) // 2
            if self.upper_half.get((first, last), False):
                first = middle + 1
            else:
                last = middle
        return first

    def use(self, way: int) -> None:
        first, last = 0, self.ways - 1
        while first < last:
            middle = (first + last) // 2
            in_lower = way <= middle
            self.upper_half[first, last] = in_lower  # the victim is in the other half
            if in_lower:
                last = middle
            else:
                first = middle + 1


class ThreeTrees:
    """Three groups of ways, each with a tree; the victim is in the group after the last used."""

    def __init__(self, ways: int) -> None:
        self.ways = ways
        self.each = ways // 3
        if ways % 3:
            raise ValueError(f"no three groups of {ways} ways")
        self.trees = [OneTree(self.each) for _ in range(3)]
        self.last = 0

    def victim(self) -> int:
        group = (self.last + 1) % 3
        return group * self.each + self.trees[group].victim()

    def use(self, way: int) -> None:
        self.last = way // self.each
        self.trees[self.last].use(way % self.each)


# ---- caches of data -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines:
    """The shape of one data cache."""

    bytes: int
    ways: int
    latency: int  # cycles


@dataclass(frozen=True)
class Data:
    """The shape of a processor's data caches; None where one is absent."""

    l1d: Lines
    l1i: Lines | None
    l2: Lines | None
    l3: Lines | None
    memory: int  # cycles


class LineCache:
    """LRU sets of line numbers, the most recent first."""

    def __init__(self, shape: Lines) -> None:
        self.ways, self.latency = shape.ways, shape.latency
        self.sets: list[list[int]] = [[] for _ in range(shape.bytes // (LINE * shape.ways))]

    def has(self, line: int) -> bool:
        """Tell whether the line is here; that is a use of it."""
        its_set = self.sets[line % len(self.sets)]
        if line not in its_set:
            return False
        its_set.remove(line)
        its_set.insert(0, line)
        return True

    def fill(self, line: int) -> None:
        its_set = self.sets[line % len(self.sets)]
        if len(its_set) == self.ways:
            its_set.pop()
        its_set.insert(0, line)


class DataCaches:
    """What one logical processor reads through; l3 is the same object for all of them."""

    def __init__(self, shape: Data, l3: LineCache | None = None) -> None:
        def new(lines: Lines | None) -> LineCache | None:
            return None if lines is None else LineCache(lines)

        self.l1d, self.l1i, self.l2 = new(shape.l1d), new(shape.l1i), new(shape.l2)
        self.l3 = new(shape.l3) if l3 is None else l3
        self.memory = shape.memory

    def read(self, maddr: int, is_fetch: bool = False) -> tuple[str, int]:
        """Bring a line in; return the name of who had it, and how long it took."""
        line = maddr // LINE
        path = [
            ("l1i", self.l1i) if is_fetch else ("l1d", self.l1d),
            ("l2", self.l2),
            ("l3", self.l3),
        ]
        missed = []
        found = ("memory", self.memory)
        for name, cache in path:
            if cache is None:
                continue
            if cache.has(line):
                found = (name, cache.latency)
                break
            missed.append(cache)
        for cache in missed:
            cache.fill(line)
        return found
