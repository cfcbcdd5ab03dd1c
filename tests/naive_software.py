"""The naive model's software: frames and the tables that it writes."""

from collections.abc import Callable, Iterable

from naive_words import FRAME, K4, LARGE, M2, base_of, bytes_of, index, is_leaf


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
