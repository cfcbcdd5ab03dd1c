"""Named processors: tables of `mmu/presets`, or a file of the user's, with single values replaced.

A preset is an aligned table in TOML with the source of each number beside it. Values are replaced
before anything is judged, so two settings that are right only together can be given together.
"""

import re
import tomllib
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmu.errors import InputError
from mmu.files import read_toml
from mmu.units import format_size, nearest, refusal, shown

if TYPE_CHECKING:  # it imports pydantic (0.2 s), which a list of names does not need
    from mmu.config import Processor, RunConfig

PRESETS = Path(__file__).parent / "presets"
SETTING_ACCEPTED = "FIELD=VALUE, such as l2.ways=6, l2.index=linear or nested_tlb=none"
Fields = dict[str, Any]
Location = tuple[str | int, ...]

MOST_BYTES = 1 << 20  # of a processor's file


def names() -> list[str]:
    """Return the names of the processors that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def title(name: str) -> str:
    """Return the one line that says what a named processor is."""
    return str(read(name).get("title", ""))


def find(name_or_path: str) -> Path:
    """Return the file of a processor named as a preset, or by the path of a TOML file."""
    if name_or_path in names():
        return PRESETS / f"{name_or_path}.toml"
    path = Path(name_or_path)
    if path.suffix != ".toml" and not path.is_file():
        accepted = f"{' | '.join(names())}, or the path of a TOML file"
        raise refusal(name_or_path, accepted, nearest(name_or_path, names()))
    return path


def read(name_or_path: str) -> Fields:
    """Return the table of a processor as it stands in its file."""
    path = find(name_or_path)
    return {"name": path.stem} | read_toml(path, MOST_BYTES)


def load_processor(name_or_path: str, overrides: list[str] | None = None) -> "Processor":
    """Return a processor with some of its values replaced.

    Parameters
    ----------
    name_or_path : str
        One of `names`, or the path of a TOML file with the same fields.
    overrides : list of str, optional
        ``field=value`` each, applied in order: names joined by dots and a TOML value, a bare word
        or ``none``. In a list of arrays a number picks one, and no number means the first:
        ``l2.ways=8`` is ``l2.0.ways=8``.

    Raises
    ------
    InputError
        The file cannot be read, a field does not exist, or a value is not accepted.

    Notes
    -----
    An array that these settings leave with a number of sets that is not a power of two gets a
    linear index, and one with ways that its replacement cannot have ``lru``, unless that is set as
    well; the processor's `source` then says so.
    """
    from mmu.config import Processor  # noqa: PLC0415  imports pydantic
    from mmu.strict import ConfigError  # noqa: PLC0415

    try:
        processor = Processor(**read(name_or_path))
    except ConfigError as error:
        raise InputError(f"{name_or_path}: {error}") from None
    if not overrides:
        return processor
    fields = processor.model_dump(mode="json")
    source = dict(processor.source)
    changed: dict[Location, str] = {}
    for setting in overrides:
        try:
            location = override(fields, setting)
        except InputError as error:
            raise InputError(f"{setting}: {error}") from None
        changed[location] = setting
        source[".".join(map(str, location))] = f"set by hand: {setting}"
    for location in changed:
        _fit(fields, location[:-1], changed, source)
    try:
        return Processor(**fields, source=source)
    except ConfigError as error:
        said = [text for at, text in changed.items() if all(map(eq, at, error.path))]
        raise InputError(": ".join([*said, str(error)])) from None


def notes(processor: "Processor") -> list[str]:
    """Return what settings changed beside what they name, one line each."""
    beside = ("linear instead of ", "lru instead of ")
    return [f"{path}: {text}" for path, text in processor.source.items() if text.startswith(beside)]


def unused(config: "RunConfig") -> list[str]:
    """Return what was asked for and has no effect on a run, one line each.

    Values of the processor, if set by hand, and more processors than can run at a time.
    """
    by_hand = [
        path for path, text in config.processor.source.items() if text.startswith("set by hand")
    ]
    through = config.table_reads != "fixed"
    reasons = {
        "latencies.reference": "tables are read through data caches; --table-reads fixed uses it"
        if through else "",
        "walkers": "" if config.window else "without a --window each walk is waited for",
        "data_caches": "" if through else "with --table-reads fixed none is looked up",
        "data_caches.l1i": "only --table-reads shared uses it"
        if config.table_reads == "walker" else "",
        "data_caches.l1i.latency": "what programs wait for their own lines is not counted"
        if config.table_reads == "shared" else "",
    }  # fmt: skip
    return [
        f"{path}: no effect, as {reason}"
        for path in by_hand
        for of, reason in reasons.items()
        if reason and (path == of or path.startswith(f"{of}.")) and _value_at(config, path)
    ] + _idle(config)


def _idle(config: "RunConfig") -> list[str]:
    """Return of how many processors, virtual and logical, some always have nothing to run."""
    machines = config.machines
    at_once = sum(min(vm.vcpus, len(vm.streams)) for vm in machines)
    found = []
    if more := [vm for vm in machines if vm.vcpus > len(vm.streams)]:
        vm, traces = more[0], len(more[0].streams)
        others = f"; and so of {len(more) - 1} more" if len(more) > 1 else ""
        found.append(
            f"vcpus: at most {traces} of {vm.vcpus} of {vm.name} run at a time, as it has "
            f"{traces} trace{'s' if traces > 1 else ''}{others}"
        )
    if config.lps > at_once:
        found.append(
            f"lps: at most {at_once} of {config.lps} run at a time, as {at_once} virtual "
            f"processor{'s' if at_once > 1 else ''} can"
        )
    return found


def _value_at(config: "RunConfig", path: str) -> bool:
    """Tell whether there is anything at a path: data caches that were taken away are nothing."""
    node: Any = config.processor
    for name in path.split("."):
        node = getattr(node, name, None)
    return node is not None


def override(fields: Fields, setting: str) -> Location:
    """Replace one value in a tree of plain values, in place, and return where it stands.

    `fields` holds every field of a model, defaults included, so that a name which is not in it
    does not exist.
    """
    path, equals, text = (part.strip() for part in setting.partition("="))
    if not equals or not path or not text:
        raise refusal(setting, SETTING_ACCEPTED)
    value = _value(text)
    first, *rest = path.split(".")
    node, key, location = _step(fields, first, ())
    for name in rest:
        node, key, location = _step(node[key], name, location)
    node[key] = value
    return location


def _value(text: str) -> object:
    """Return a TOML value; a bare word or size is text, and ``none`` is nothing."""
    if text == "none":
        return None
    word = re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", text, re.ASCII) and text not in ("true", "false")
    if word or re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMGT](iB)?", text, re.ASCII | re.IGNORECASE):
        return text
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        table = {}
    if list(table) != ["value"]:
        raise refusal(
            text, 'a TOML value or a word, such as 8, 32KiB, linear, ["4k", "2m"] or none'
        )
    return table["value"]


def _step(node: Any, name: str, location: Location) -> tuple[Any, Any, Location]:
    """Go one name down: the list or table that holds it, its key there, and where it stands."""
    if isinstance(node, list) and not name.isdecimal():
        _picked(node, 0, location)
        node, location = node[0], (*location, 0)
    where = ".".join(map(str, location))
    if isinstance(node, list):
        _picked(node, int(name), location)
        return node, int(name), (*location, int(name))
    if isinstance(node, dict):
        if name not in node:
            place = f" in {where!r}" if where else ""
            known = ", ".join(node)
            raise InputError(
                f"no field {shown(name)}{place}; accepted: {known}{nearest(name, node)}"
            )
        return node, name, (*location, name)
    if node is None:
        example = f"{where}={{entries=64, ways=4, ...}}"
        raise InputError(f"{where!r} is none; accepted: all of it at once, as in {example}")
    raise InputError(
        f"no field {shown(name)} in {where!r}, which is a value; accepted: {where}=VALUE"
    )


def _picked(items: list[Any], number: int, location: Location) -> None:
    if number >= len(items):
        where = ".".join(map(str, location))
        most = f"0 to {len(items) - 1}" if items else "none, as it is empty"
        raise InputError(f"no number {number} in {where!r}; accepted: {most}")


def _fit(fields: Fields, location: Location, changed: dict[Location, str], source: Any) -> None:
    """Give an array another index or rule if its new shape is none that these can be used with."""
    from mmu.processor_model import PLRU_WAYS  # noqa: PLC0415  imports pydantic

    node: Any = fields
    for key in location:
        node = node[key] if not isinstance(node, dict) or key in node else None
    if not isinstance(node, dict):
        return
    entries, ways = node.get("entries"), node.get("ways")
    if not isinstance(entries, int) or not isinstance(ways, int) or ways <= 0 or entries % ways:
        return
    sets = entries // ways
    where = ".".join(map(str, location))
    asked = {name for name in ("index", "replacement") if (*location, name) in changed}
    index, rule = node.get("index", "linear"), str(node.get("replacement", "lru"))
    if "index" not in asked and index != "linear" and sets & (sets - 1):
        source[f"{where}.index"] = f"linear instead of {index}, as {sets} sets are no power of two"
        node["index"] = "linear"
    if "replacement" not in asked and ways not in PLRU_WAYS.get(rule, (ways,)):
        why = f"which has {', '.join(map(str, PLRU_WAYS[rule][:-1]))} or {PLRU_WAYS[rule][-1]} ways"
        source[f"{where}.replacement"] = f"lru instead of {rule}, {why}"
        node["replacement"] = "lru"


def describe(processor: "Processor") -> list[str]:
    """Return the lines ``field = value  # source`` of a processor."""
    rows = [(path, value, _source(processor, path)) for path, value in _leaves(processor)]
    path_width = max(len(path) for path, _, _ in rows)
    value_width = max(len(value) for _, value, _ in rows)
    lines = [f"# {processor.title}"] if processor.title else []
    for path, value, origin in rows:
        line = f"{path:{path_width}} = {value:{value_width}}"
        lines.append(f"{line}  # {origin}" if origin else line.rstrip())
    return lines


def _leaves(processor: "Processor") -> list[tuple[str, str]]:
    """Return ``(path, value)`` of every array and single value."""
    leaves: list[tuple[str, str]] = []

    def visit(node: Any, path: str) -> None:
        if isinstance(node, dict) and not {"entries", "bytes"} & set(node):
            for key, value in node.items():
                visit(value, f"{path}.{key}" if path else key)
        elif isinstance(node, list):
            for number, value in enumerate(node):
                visit(value, f"{path}.{number}")
        else:
            leaves.append((path, _written(node)))

    visit(processor.model_dump(mode="json", exclude={"name", "title"}), "")
    return leaves


def _written(node: object) -> str:
    if isinstance(node, dict):
        fields = {key: format_size(n) if key == "bytes" else n for key, n in node.items()}
        return f"{{ {', '.join(f'{key} = {_written(value)}' for key, value in fields.items())} }}"
    if isinstance(node, list):
        return f"[{', '.join(map(_written, node))}]"
    if isinstance(node, bool):
        return str(node).lower()
    return f'"{node}"' if isinstance(node, str) else str(node).lower()


def _source(processor: "Processor", path: str) -> str:
    """Return the sources of a value and, for an array, of its fields that were set by hand."""
    known = processor.source
    own = [known[path]] if path in known else []
    parts = [known[key] for key in sorted(known) if key.startswith(f"{path}.")]
    return "; ".join(parts + own) if own or parts else ""
