"""A processor as a model: its TLBs, its caches of tables and of data, and their latencies."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mmu.errors import InputError
from mmu.strict import ConfigError, Strict, Whole
from mmu.units import format_size, nearest, parse_page_size, parse_size, refusal

MOST_ENTRIES = 1 << 20  # of one cache: far above any processor, and still a small array
MOST_CYCLES = 1 << 30  # of one latency or cost: sums of them stay far inside 64 bits
MOST_CACHE = 512 << 20  # bytes of one data cache: their tags take an eighth of that
MOST_WALKERS = 16
LINEAR = 63  # the fold of a linear index: a page number shifted by it is nothing
LINE = 64  # bytes of a line of a data cache
GROUPS = 3  # of ways, where the rule is rotating-plru
TREE_WAYS = (2, 4, 8, 16)  # what a binary tree of bits, one for each fork, can stand for
PLRU_WAYS = {
    "tree-plru": TREE_WAYS,
    "rotating-plru": tuple(GROUPS * ways for ways in TREE_WAYS),
}
_SIZE_ORDER = ["4k", "2m", "1g"].index


def _index(value: object) -> str:
    text = value.strip().lower() if isinstance(value, str) else ""
    fold = re.fullmatch(r"xor-([0-9]{1,2})", text, re.ASCII)
    if text != "linear" and not (fold and 1 <= int(fold[1]) < 45):
        raise refusal(value, "linear, or xor-1 to xor-44, such as xor-7", nearest(text, ["linear"]))
    return text


def _cache_bytes(value: object) -> int:
    size = parse_size(value)
    if not LINE <= size <= MOST_CACHE:
        raise refusal(value, f"{LINE} bytes to {format_size(MOST_CACHE)}")
    return size


Entries = Annotated[int, BeforeValidator(Whole(1, MOST_ENTRIES))]
Cycles = Annotated[int, BeforeValidator(Whole(0, MOST_CYCLES))]
Walkers = Annotated[int, BeforeValidator(Whole(1, MOST_WALKERS))]
Level = Annotated[int, BeforeValidator(Whole(2, 4))]
CacheBytes = Annotated[int, BeforeValidator(_cache_bytes)]
PageSize = Annotated[Literal["4k", "2m", "1g"], BeforeValidator(parse_page_size)]
Replacement = Literal["lru", "tree-plru", "rotating-plru"]


class Cache(Strict):
    """A set-associative cache: a walk cache, or the base of a TLB's array.

    Attributes
    ----------
    entries, ways : int
        Size; ways divide the entries.
    index : str
        ``linear``, or ``xor-N``: a set's number is that of the page, folded at bit N.
    replacement : {"lru", "tree-plru", "rotating-plru"}
        What makes room. ``tree-plru`` is a tree of one bit a fork over 2, 4, 8 or 16 ways;
        ``rotating-plru`` has three groups of so many ways, each with its tree, and takes a victim
        from the group after the one used last: "(MRU+1)%3PLRU4" of TLB;DR (USENIX Security 2022).
    """

    entries: Entries
    ways: Entries
    index: Annotated[str, BeforeValidator(_index)] = "linear"
    replacement: Replacement = "lru"

    @property
    def sets(self) -> int:
        """Number of sets."""
        return self.entries // self.ways

    @property
    def fold(self) -> int:
        """Shift b of the set index ``page ^ page >> b``; 63 where the index is linear."""
        return LINEAR if self.index == "linear" else int(self.index[4:])

    @model_validator(mode="after")
    def _shape(self) -> "Cache":
        if self.entries % self.ways:
            fit = [n for n in range(1, self.entries + 1) if self.entries % n == 0]
            below = max(n for n in fit if n <= min(self.ways, self.entries))
            above = min((n for n in fit if n > self.ways), default=below)
            ways = " or ".join(str(n) for n in sorted({below, above}))
            fill = self.entries // self.ways * self.ways
            totals = " or ".join(str(n) for n in (fill, fill + self.ways) if n)
            found = f"found {self.ways} ways, which do not divide {self.entries} entries"
            text = f"{found}; accepted: ways that do; nearest: ways={ways}, or entries={totals}"
            raise ConfigError(("ways",), text)
        if self.fold != LINEAR and self.sets & (self.sets - 1):
            found = f"found {self.index!r} with {self.sets} sets"
            found += f" ({self.entries} entries / {self.ways} ways)"
            raise ConfigError(
                ("index",), f"{found}; accepted: a power of two sets, or index=linear"
            )
        accepted = PLRU_WAYS.get(self.replacement)
        if accepted and self.ways not in accepted:
            found = f"found {self.replacement!r} with {self.ways} ways"
            ways = f"ways={' | '.join(map(str, accepted))}"
            raise ConfigError(("replacement",), f"{found}; accepted: lru, or {ways}")
        return self


class Array(Cache):
    """One array of a TLB, with the page sizes that it holds."""

    sizes: tuple[PageSize, ...]

    @field_validator("sizes")
    @classmethod
    def _each_once(cls, sizes: tuple[str, ...]) -> tuple[str, ...]:
        if not sizes or len(set(sizes)) < len(sizes):
            raise refusal(list(sizes), "one or more of 4k, 2m, 1g, each once")
        return tuple(sorted(sizes, key=_SIZE_ORDER))


class WalkCaches(Strict):
    """Paging-structure caches by the level of the entry that they stand for; None where absent."""

    pde: Cache | None = None
    pdpte: Cache | None = None
    pml4e: Cache | None = None


class PageWalkCache(Cache):
    """A cache of table entries by where they stand in memory, as AMD's processors have.

    Attributes
    ----------
    levels : tuple of int
        Which entries it holds: 2 (PDE), 3 (PDPTE), 4 (PML4E); leaves never.
    nested : bool
        It holds entries of nested tables as well.
    """

    levels: tuple[Level, ...]
    nested: bool = Field(strict=True)

    @field_validator("levels")
    @classmethod
    def _each_once(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not levels or len(set(levels)) < len(levels):
            raise refusal(list(levels), "one or more of 2, 3, 4, each once")
        return tuple(sorted(levels))


class DataCache(Strict):
    """A data cache of 64-byte lines with LRU: its size, and the cycles until it has answered."""

    bytes: CacheBytes
    ways: Entries
    latency: Cycles

    @property
    def sets(self) -> int:
        """Number of sets."""
        return self.bytes // (LINE * self.ways)

    @model_validator(mode="after")
    def _shape(self) -> "DataCache":
        step = LINE * self.ways
        if self.bytes % step:
            found = f"found {format_size(self.bytes)} with {self.ways} ways"
            near = [n for n in (self.bytes // step * step, self.bytes // step * step + step) if n]
            accepted = f"a multiple of {step} bytes ({self.ways} ways of {LINE}-byte lines)"
            hint = f"; nearest: {' or '.join(map(format_size, near))}"
            raise ConfigError(("bytes",), f"{found}; accepted: {accepted}{hint}")
        return self


class DataCaches(Strict):
    """What table reads go through, first to last; None where a level is absent.

    ``memory`` is the latency of a read that no cache answers.
    """

    l1d: DataCache
    l1i: DataCache | None = None
    l2: DataCache | None = None
    l3: DataCache | None = None
    memory: Cycles

    @property
    def own_lines(self) -> int:
        """Lines that a logical processor has for itself: all but the third level's."""
        caches = (self.l1d, self.l1i, self.l2)
        return sum(cache.bytes // LINE for cache in caches if cache is not None)


class Latencies(Strict):
    """Cycles that a look-up, or one reference, takes."""

    l2: Cycles
    walk_cache: Cycles
    nested_tlb: Cycles
    reference: Cycles
    update: Cycles


class Processor(Strict):
    """A processor model: its caches of translations and what they cost.

    Attributes
    ----------
    l1_data, l1_fetch : tuple of Array
        First-level TLBs of data and of fetches.
    l1_store : tuple of Array
        Stores' own first level; empty if they share that of loads.
    l2 : tuple of Array
        Second level; a page size may stand in two of its arrays.
    l2_fetch : tuple of Array, optional
        Fetches' own second level, empty if they have none; None if they share `l2`.
    walk_caches : WalkCaches
        Caches by virtual address, as Intel's processors have.
    page_walk_cache : PageWalkCache, optional
        A cache by the place of an entry, as AMD's have.
    nested_tlb : Array, optional
        Guest-physical to machine pages.
    data_caches : DataCaches, optional
        What table reads go through; without, each takes ``latencies.reference``.
    walkers : int
        Walks that can be under way at a time.
    flush_nested : bool
        An untagged entry or exit drops what was cached of nested tables, too.
    source : dict
        Where each value comes from, by its path, such as ``l2.0``.
    """

    name: str
    title: str = ""
    frequency_hz: Annotated[int, BeforeValidator(Whole(1, 10**12))]
    l1_data: tuple[Array, ...]
    l1_store: tuple[Array, ...] = ()
    l1_fetch: tuple[Array, ...]
    l2: tuple[Array, ...] = ()
    l2_fetch: tuple[Array, ...] | None = None
    walk_caches: WalkCaches = WalkCaches()
    page_walk_cache: PageWalkCache | None = None
    nested_tlb: Array | None = None
    data_caches: DataCaches | None = None
    walkers: Walkers = 1
    latencies: Latencies
    flush_nested: bool = Field(default=False, strict=True)
    source: dict[str, str] = Field(default={}, exclude=True)

    @field_validator("name", "title")
    @classmethod
    def _printable(cls, text: str) -> str:
        """Take what can stand in a line of a report, and does nothing to a terminal."""
        if not text.isprintable():
            raise refusal(text, "printable characters on one line")
        return text

    @field_validator("l1_store", "l2", "walk_caches", mode="before")
    @classmethod
    def _absent(cls, value: object, info: ValidationInfo) -> object:
        nothing: object = {} if info.field_name == "walk_caches" else ()
        return nothing if value is None else value

    @field_validator("l1_data", "l1_store", "l1_fetch", "l2", "l2_fetch")
    @classmethod
    def _level(
        cls, arrays: tuple[Array, ...] | None, info: ValidationInfo
    ) -> tuple[Array, ...] | None:
        if arrays is None:
            return None
        second = info.field_name in ("l2", "l2_fetch")
        held = [size for array in arrays for size in array.sizes]
        for size in held:
            if held.count(size) > (2 if second else 1):
                found = f"found {size} pages in {held.count(size)} arrays"
                number = "one or two arrays of a second level" if second else "one array of a level"
                raise InputError(f"{found}; accepted: each page size in {number}")
        if "4k" not in held and not second and (arrays or info.field_name != "l1_store"):
            found = f"found arrays for {', '.join(held) or 'no page size'}"
            raise InputError(f"{found}; accepted: an array that holds 4k, and any others")
        return tuple(sorted(arrays, key=lambda array: _SIZE_ORDER(array.sizes[0])))

    @field_validator("nested_tlb")
    @classmethod
    def _nested(cls, array: Array | None) -> Array | None:
        if array is not None and array.sizes != ("4k", "2m"):
            raise ConfigError(("sizes",), str(refusal(list(array.sizes), '["4k", "2m"]')))
        return array

    @property
    def own_entries(self) -> int:
        """Entries and lines of all that a logical processor has for itself."""
        walk = self.walk_caches
        levels = (self.l1_data, self.l1_store, self.l1_fetch, self.l2, self.l2_fetch or ())
        caches: list[Cache | None] = [array for level in levels for array in level]
        caches += [walk.pde, walk.pdpte, walk.pml4e, self.page_walk_cache, self.nested_tlb]
        lines = self.data_caches.own_lines if self.data_caches else 0
        return lines + sum(cache.entries for cache in caches if cache is not None)
