"""One level of the naive model's TLB, and why a page is not in it."""

from collections.abc import Callable, Sequence

from naive_cache import Array, Cache, Entry

FIRST_TOUCH, OTHER_VM, OWN = "first_touch", "other_vm", "own"
FLUSH, INVALIDATION = "flush", "invalidation"
HERE = "here"


class Tlb:
    """Arrays that are asked in order; a page size may stand in two of them; one of none is absent.

    `fate` is what became of each page that was ever here. `twin`, if there is one, is a list of as
    many entries as all arrays have, the most recent first: what one set of all ways would hold.
    """

    def __init__(self, names: Sequence[str], arrays: Sequence[Array], has_twin: bool) -> None:
        self.arrays = [Cache(array) for array in arrays]
        self.names = dict(zip(self.arrays, names, strict=True))
        self.room = sum(array.entries for array in arrays if array.sizes) if has_twin else 0
        self.sizes = sorted({size for array in arrays for size in array.sizes})
        self.turn = 0  # of the arrays that share a size
        self.fate: dict[tuple[object, int, int], str] = {}
        self.twin: list[Entry] = []

    def look_up(self, tag: object, address: int) -> tuple[str, Entry] | None:
        """Return the name of the array that has the address, and its entry."""
        for cache in self.arrays:
            entry = cache.look_up(tag, address)
            if entry:
                self.use_in_twin(entry)
                return self.names[cache], entry
        return None

    def use_in_twin(self, used: Entry) -> None:
        """Put in front what is used; the twin takes it in again if it had to leave there."""
        self.twin = [used, *[entry for entry in self.twin if entry.key() != used.key()]]
        self.twin = self.twin[: self.room]

    def fill(self, new: Entry) -> Entry | None:
        """Fill it into the array that is due, if any holds its size; return who had to leave."""
        holding = [cache for cache in self.arrays if new.size in cache.sizes]
        if not holding:
            return None
        dropped = self.due(holding, new).fill(new)
        if dropped:
            self.fate[dropped.key()] = OWN if dropped.tag[0] == new.tag[0] else OTHER_VM
        self.fate[new.key()] = HERE
        self.use_in_twin(new)
        return dropped

    def due(self, holding: list[Cache], new: Entry) -> Cache:
        if len(holding) == 1:
            return holding[0]
        for cache in holding:
            if cache.holds(new):
                return cache
        for cache in holding:
            if cache.has_free_way(new.page):
                return cache
        self.turn += 1
        return holding[(self.turn - 1) % len(holding)]

    def drop(self, unwanted: Callable[[Entry], bool], why: str) -> None:
        for entry in filter(unwanted, self.entries()):
            self.fate[entry.key()] = why
        for cache in self.arrays:
            cache.drop(unwanted)
        self.twin = [entry for entry in self.twin if not unwanted(entry)]

    def why_missed(self, entry: Entry) -> str:
        """Return why this page, which was looked for and walked for, is not here."""
        fate = self.fate.get(entry.key(), FIRST_TOUCH)
        if fate == HERE:
            raise AssertionError(f"{entry} was walked for, and is here")
        if fate != OWN:
            return fate
        in_twin = any(other.key() == entry.key() for other in self.twin)
        return "conflict" if in_twin else "capacity"

    def entries(self) -> list[Entry]:
        return [entry for cache in self.arrays for entry in cache.entries()]
