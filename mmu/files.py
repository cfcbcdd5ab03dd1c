"""Files: looked at before a run, written whole after it; tables as text; shapes of plain values.

Light on purpose, as the command line looks at its arguments here.
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmu import units
from mmu.errors import InputError

FIGURES = (".png", ".svg")
MOST_DOTS = 200  # in a line of TOML
TRACE_ACCEPTED = "a trace file that can be read"


class Table(NamedTuple):
    """Rows of plain values under named columns."""

    columns: list[str]
    rows: list[list[Any]]


def check_trace(path: str, where: str, accepted: str = TRACE_ACCEPTED) -> None:
    """Refuse what cannot be a trace before anything heavy is imported to read it."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
    except FileNotFoundError:
        folder = Path(path).parent
        near = os.listdir(folder) if folder.is_dir() else []
        hint = units.nearest(Path(path).name, near)
        raise InputError(f"{where}: no file {path!r}; accepted: {accepted}{hint}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{where}: {path!r}: {reason}; accepted: {accepted}") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{where}: {path!r} is no regular file; accepted: {accepted}")
    if status.st_size == 0:
        least = "a trace of at least one access" if accepted == TRACE_ACCEPTED else accepted
        raise InputError(f"{where}: {path!r} is empty; accepted: {least}")


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to must not stop the program."""
    return os.open(path, flags | os.O_NONBLOCK)


def is_stream(path: str | Path) -> bool:
    """Whether a path is a pipe, a terminal or another thing that is written to as it is."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_outputs(given: Mapping[str, Any], inputs: tuple[str, ...]) -> dict[str, str]:
    """Return the files to write, after a look at whether each can be."""
    outputs = {name: given[name] for name in ("json", "csv", "figure", "output") if given.get(name)}
    taken = {os.path.realpath(path): f"also read as {path!r}" for path in inputs}
    for name, path in outputs.items():
        place = Path(os.path.realpath(path))
        try:
            problem = taken.get(str(place)) or _problem(path, place)
        except OSError as error:  # such as a name that is too long
            problem = error.strerror
        if problem:
            raise InputError(f"--{name}: {path!r}: {problem}; accepted: a file of its own to write")
        taken[str(place)] = f"also written by --{name}"
    return outputs


def _problem(path: str, place: Path) -> str | None:
    """Say why `path`, which is really `place`, cannot be written."""
    if path == "-":
        return "is not standard output here; a file of that name is './-'"
    if place.is_dir():
        return "is a folder"
    if is_stream(path):
        return None if os.access(path, os.W_OK) else "cannot be written"
    if not place.parent.is_dir():
        return f"folder {str(place.parent)!r} does not exist"
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        return "cannot be written"
    return None


def check_figure(path: str) -> None:
    """Refuse a file whose ending is not that of a format that figures are written in."""
    if Path(path).suffix.lower() not in FIGURES:
        raise InputError(f"found {path!r}; accepted: a name that ends in {' | '.join(FIGURES)}")


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file all or not at all; a pipe or device is written to as it is.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        if is_stream(path):
            Path(path).write_bytes(data)
            return
        try:
            part.write_bytes(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}") from None


def csv_text(table: Table) -> str:
    """Return a table as comma-separated values with a header; None is an empty field."""
    import csv  # noqa: PLC0415  the command line's start is timed
    import io  # noqa: PLC0415

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()


def parquet_bytes(table: Table) -> bytes:
    """Return a table as a Parquet file."""
    import io  # noqa: PLC0415

    import pyarrow  # noqa: PLC0415  slow to import
    from pyarrow import parquet  # noqa: PLC0415

    columns = list(zip(*table.rows, strict=True)) or [() for _ in table.columns]
    arrays = [pyarrow.array(list(column)) for column in columns]
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, names=table.columns), file)
    return file.getvalue()


def json_text(document: dict[str, Any]) -> str:
    """Return JSON with a line for each field; NumPy's numbers and arrays become plain ones."""
    import json  # noqa: PLC0415

    def text(value: object) -> str:
        return json.dumps(value, allow_nan=False, default=lambda array: array.tolist())

    lines = [f"{json.dumps(key)}: {text(value)}" for key, value in document.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_toml(path: str | Path, most: int) -> dict[str, Any]:
    """Return what a TOML file of at most so many bytes holds.

    Raises
    ------
    InputError
        The file cannot be read, is too large, or is not TOML.
    """
    import tomllib  # noqa: PLC0415  the command line's start is timed

    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{str(path)!r} is no regular file; accepted: a TOML file")
        if path.stat().st_size > most:
            raise InputError(f"{str(path)!r} is larger than {most} bytes; accepted: a TOML file")
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), start=1):
            if line.count(".") > MOST_DOTS:  # a key of many parts takes memory by their square
                found = f"{line.count('.'):,} dots in line {number}"
                raise InputError(f"{str(path)!r}: found {found}; accepted: up to {MOST_DOTS}")
        return tomllib.loads(text)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    # What tomllib says of numbers and of nesting without end is no TOMLDecodeError.
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is not TOML: {error}") from None


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    InputError
        The file cannot be read, or is not JSON.
    """
    import json  # noqa: PLC0415

    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text; accepted: a JSON file that mmu wrote") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); accepted: a file that mmu wrote") from None


def is_count(value: object) -> bool:
    """Whether a value is a whole number that is not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_list(value: object, length: int, fits: Callable[[Any], bool]) -> bool:
    """Whether a value is a list of some length, of which each element fits."""
    return isinstance(value, list) and len(value) == length and all(map(fits, value))


def is_table(value: object, length: int, needed: tuple[str, ...] = ()) -> bool:
    """Whether a value is columns of counts, with all that are needed."""
    if not isinstance(value, dict) or any(name not in value for name in needed):
        return False
    return all(is_list(column, length, is_count) for column in value.values())


def is_histogram(value: object) -> bool:
    """Whether a value is counts by number."""
    if not isinstance(value, dict):
        return False
    return all(number.isdecimal() and is_count(n) for number, n in value.items())
