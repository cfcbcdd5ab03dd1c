"""A processor's file of what CPUID tells, with the rest as of the nearest named processor."""

import json
from typing import Any

from mmu.config import Array, ConfigError, DataCache, Processor
from mmu.cpuid.rows import Cache, Tlb
from mmu.cpuid.told import INTEL, Told
from mmu.processor_model import LINE, PLRU_WAYS
from mmu.processors import load_processor
from mmu.units import format_size

SIZES = ("4k", "2m", "1g")  # those of 64-bit tables
LEVELS = ("l1_data", "l1_store", "l1_fetch", "l2", "l2_fetch")
INLINE = ("nested_tlb", "page_walk_cache")
SECTIONS = ("walk_caches", "data_caches", "latencies")


def processor_of(told: Told, name: str) -> Processor:
    """Return the processor that CPUID tells of, with the source of each value.

    Arrays and data caches are those that are told; where some are known to be told wrongly, or one
    cannot be, those that are known, or the nearest processor's. So is what CPUID never tells:
    latencies, indices, replacement, walk caches, nested TLB and walkers.
    """
    base = load_processor(told.nearest)
    source = {path: _as_in(told.nearest, text) for path, text in base.source.items()}
    fields: dict[str, Any] = {level: getattr(base, level) for level in LEVELS}
    for level, arrays in _levels(told, base).items():
        for path in [path for path in source if path.partition(".")[0] == level]:
            del source[path]
        fields[level] = None if arrays is None else tuple(array for array, _ in arrays)
        for number, (_, origin) in enumerate(arrays or ()):
            source[f"{level}.{number}"] = origin
        if arrays is None:
            source[level] = "none: CPUID tells of one L2 for data and fetches"
    fields["data_caches"], of_caches = _data_caches(told, base)
    source |= of_caches
    if told.frequency_hz:
        source["frequency_hz"] = "CPUID leaf 16h EAX, the base frequency"
        fields["frequency_hz"] = told.frequency_hz
    kept = {field: getattr(base, field) for field in Processor.model_fields}
    title = f"{told.name or told.vendor}, as CPUID tells it"
    return Processor(**kept | fields | {"name": name, "title": title, "source": source})


def _as_in(name: str, text: str) -> str:
    return text if text.startswith("none: ") else f"as in {name}: {text}"


def _levels(told: Told, base: Processor) -> dict[str, list[tuple[Array, str]] | None]:
    """Return the arrays of each level that is told, and where each comes from."""
    wrong = {correction.told: correction.known for correction in told.corrections}
    rows = [row for tlb in told.tlbs for row in wrong.get(tlb, (tlb,))]
    rows = [row._replace(sizes=tuple(s for s in row.sizes if s in SIZES)) for row in rows]
    rows = [row for row in rows if row.sizes]
    sides: dict[str, list[Tlb]] = {level: [] for level in LEVELS}
    for row in rows:
        second, data = row.level > 1, row.side in ("data", "load", "all")
        if row.side == "store":
            sides["l1_store"] += [] if second else [row]
        elif data:
            sides["l2" if second else "l1_data"].append(row)
        if row.side == "fetch" or (row.side == "all" and not second):
            sides["l2_fetch" if second else "l1_fetch"].append(row)
    found: dict[str, list[tuple[Array, str]] | None] = {}
    for level, listed in sides.items():
        arrays = _arrays(told, base, level, listed)
        if arrays is not None:
            found[level] = arrays
    if "l2" in found and "l2_fetch" not in found:
        shared = any(row.side == "all" for row in sides["l2"])
        found["l2_fetch"] = None if shared else []
    if "l1_data" in found and "l1_store" not in found:
        found["l1_store"] = []
    return found


def _arrays(
    told: Told, base: Processor, level: str, rows: list[Tlb]
) -> list[tuple[Array, str]] | None:
    """Return the arrays of a level with their sources, or nothing if they are none that can be."""
    arrays = getattr(base, level) or getattr(base, "l1_data" if level == "l1_store" else "l2")
    hidden: list[tuple[Array, str]] = []
    if told.vendor != INTEL:
        rows = _together(rows, arrays)
        if not any("1g" in tlb.sizes for tlb in told.tlbs):
            rows, hidden = _with_huge(rows, arrays, told.nearest)
    held = [size for row in rows for size in row.sizes]
    most = 1 if level.startswith("l1") else 2
    if not rows or any(held.count(size) > most for size in held) or "4k" not in held:
        return None
    made = hidden
    for row in rows:
        like = [array for array in arrays if row.sizes[0] in array.sizes]
        ways = row.ways or next((a.ways for a in like if row.entries % a.ways == 0), row.entries)
        sets = row.entries // ways
        index = next((array.index for array in like if array.sets == sets), "linear")
        rule = next((array.replacement for array in like), "lru")
        rule = rule if ways in PLRU_WAYS.get(rule, (ways,)) else "lru"
        fields: dict[str, Any] = {"entries": row.entries, "ways": ways, "sizes": row.sizes}
        fields |= {"index": index, "replacement": rule}
        text = f"{row.origin}; assumption: index {index} and replacement {rule}, "
        text += f"nearest to {told.nearest}" + ("" if row.ways else f", and {ways} ways")
        try:
            made.append((Array(**fields), text))
        except ConfigError:
            return None
    return sorted(made, key=lambda item: SIZES.index(item[0].sizes[0]))


def _together(rows: list[Tlb], arrays: tuple[Array, ...]) -> list[Tlb]:
    """Make one array of the words that AMD's processors tell of each page size of it.

    Nothing says which are of one array. Those are taken so that have as many entries, in arrays
    that are fully associative, or whose sizes stand in one array of the nearest processor.
    """
    made: list[Tlb] = []
    for row in rows:
        for n, other in enumerate(made):
            full = other.ways == other.entries and row.ways == row.entries
            both = {*other.sizes, *row.sizes}
            near = [a for a in arrays if both <= set(a.sizes)]
            if other.entries != row.entries or not (full or near):
                continue
            ways = row.entries if full else max(row.ways or 0, other.ways or 0) or None
            ways = next((a.ways for a in near if a.entries == row.entries), ways)
            origin = f"{other.origin}, {row.origin.removeprefix('CPUID ')}"
            if "assumption" not in origin:
                origin += " (assumption: one array)"
            made[n] = other._replace(sizes=(*other.sizes, *row.sizes), ways=ways, origin=origin)
            break
        else:
            made.append(row)
    return made


def _with_huge(
    rows: list[Tlb], arrays: tuple[Array, ...], nearest: str
) -> tuple[list[Tlb], list[tuple[Array, str]]]:
    """Let pages of 1G stand where they do in the nearest processor: hypervisors hide their leaf."""
    hidden: list[tuple[Array, str]] = []
    for array in arrays:
        if array.sizes == ("1g",):
            hidden.append((array, f"as in {nearest}: CPUID tells of no pages of 1G"))
        elif "1g" in array.sizes:
            rows = [
                row._replace(sizes=array.sizes, origin=f"{row.origin}, pages of 1G as in {nearest}")
                if (*row.sizes, "1g") == array.sizes
                else row
                for row in rows
            ]
    return rows, hidden


def _data_caches(told: Told, base: Processor) -> tuple[Any, dict[str, str]]:
    """Return the data caches that are told, with the latencies of the nearest processor's."""
    kept = base.data_caches
    if kept is None:
        return None, {}
    names = {("data", 1): "l1d", ("fetch", 1): "l1i", ("all", 1): "l1d"}
    names |= {(side, 2): "l2" for side in ("all", "data")} | {("all", 3): "l3"}
    told_of: dict[str, Cache] = {}
    for cache in told.caches:
        if (cache.side, cache.level) in names:
            told_of.setdefault(names[cache.side, cache.level], cache)
    fields, source = kept.model_dump(), {}
    if "l1d" not in told_of:
        return kept, {}
    for name in ("l1d", "l1i", "l2", "l3"):
        like: DataCache | None = getattr(kept, name)
        told_one = told_of.get(name)
        if told_one is None:
            fields[name] = None
            source[f"data_caches.{name}"] = "none: CPUID does not tell of it"
            continue
        if like is None or told_one.line != LINE:
            continue
        try:
            shape = DataCache(bytes=told_one.bytes, ways=told_one.ways, latency=like.latency)
        except ConfigError:
            continue
        fields[name] = shape.model_dump()
        latency = base.source.get(f"data_caches.{name}", "")
        source[f"data_caches.{name}"] = (
            f"{told_one.origin}; latency as in {told.nearest}: {latency}"
        )
    return fields, source


def file_text(processor: Processor) -> str:
    """Return a processor's file, which `mmu.load_processor` reads."""
    fields = processor.model_dump(mode="json")
    lines = ["# Where each value comes from stands under [source].", ""]
    for name in ("name", "title", "frequency_hz", "walkers", "flush_nested"):
        lines.append(f"{name} = {_written(fields[name])}")
    for level in LEVELS:
        arrays = fields[level]
        if arrays:
            lines += ["", f"{level} = [", *(f"    {_written(array)}," for array in arrays), "]"]
        elif arrays is not None and level in ("l2", "l2_fetch"):
            lines += ["", f"{level} = []"]
    lines += ["", *(f"{name} = {_written(fields[name])}" for name in INLINE if fields[name])]
    for section in SECTIONS:
        table = {
            name: value for name, value in (fields[section] or {}).items() if value is not None
        }
        if table:
            lines += ["", f"[{section}]", *(f"{k} = {_written(v)}" for k, v in table.items())]
    lines += ["", "[source]", *(f'"{k}" = {_written(v)}' for k, v in processor.source.items())]
    return "\n".join(lines) + "\n"


def _written(value: object) -> str:
    """Return a value in TOML; its text is written as JSON's, but for one character."""
    if isinstance(value, dict):
        fields = {key: format_size(n) if key == "bytes" else n for key, n in value.items()}
        return f"{{ {', '.join(f'{key} = {_written(item)}' for key, item in fields.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
