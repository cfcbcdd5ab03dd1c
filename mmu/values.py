"""What is varied from run to run: ``quantum=20us,50us`` or ``l2.ways=4..16:3``, read and judged.

Light on purpose: the command line checks its arguments here before anything heavy is imported.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from mmu.errors import InputError
from mmu.units import LARGE_PAGE, format_size, nearest, refusal, shown

FEWEST, MOST = 2, 64  # values: each is a run in every mode
DIGITS = 3  # of a value inside a range
LONGEST = 2000  # characters
# Values of the processor, or of the costs, that a path without a dot names.
SETTINGS = ("frequency_hz", "walkers")
VARY_ACCEPTED = "NAME=VALUES, such as quantum=20us,50us,1ms or exits-per-second=1000..64000:7"
VALUES_ACCEPTED = (
    f"{FEWEST} to {MOST} values, such as 20us,50us,1ms, or a range such as 10us..10ms:9"
)
RANGE_ACCEPTED = "FIRST..LAST:N, from a number above 0 to a larger one, such as 10us..10ms:9"

_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)", re.ASCII)
_RANGE = re.compile(r"(.*?)\.\.(.*):\s*([0-9]{1,9})", re.ASCII)
_TIME = {"us": Fraction(1, 10**6), "ms": Fraction(1, 10**3), "s": Fraction(1)}
_BYTES = {
    name: Fraction(1 << shift)
    for shift, names in ((0, "b"), (10, "k kib"), (20, "m mib"), (30, "g gib"), (40, "t tib"))
    for name in names.split()
}
_COUNTED = ("cycles", "accesses", "instructions")
SECONDS, BYTES, PLAIN = "s", "bytes", ""
_STEPS = (("s", _TIME["s"]), ("ms", _TIME["ms"]), ("us", _TIME["us"]))

Judge = Callable[[Any], object]


class Vary(NamedTuple):
    """An option, or a value of the processor, and what it is to be from run to run."""

    name: str
    values: tuple[str, ...]


def quantity(text: str) -> tuple[Fraction, str]:
    """Return the number that a value stands for, and of what: seconds, bytes, cycles, ... or nothing.

    Raises
    ------
    InputError
        It is no number, or its unit is none.
    """
    match = _QUANTITY.fullmatch(text.strip())
    unit = match[2].lower() if match else ""
    if match is None or unit not in ("", *_TIME, *_BYTES, *_COUNTED):
        hint = nearest(unit, [*_TIME, *_COUNTED]) if unit else ""
        raise refusal(text, "a number from 0, with a unit or without", hint)
    number = Fraction(match[1])
    if unit in _TIME:
        return number * _TIME[unit], SECONDS
    if unit in _BYTES:
        return number * _BYTES[unit], BYTES
    return number, unit


def given_value(text: str) -> int | float | str:
    """Return a value as an option takes it: a number where it has no unit, else the text."""
    number, unit = quantity(text)
    if unit:
        return text
    return int(number) if number.denominator == 1 else float(number)


def parse_vary(value: object, options: Mapping[str, Judge]) -> Vary:
    """Return what a text such as ``quantum=20us,50us`` says.

    Parameters
    ----------
    value : str
        ``NAME=VALUES``: an option by its name on the command line, or a path as in ``--set``; values
        with commas between, or a range (`parse_values`).
    options : mapping
        By name, what judges a value of an option that can be varied.

    Raises
    ------
    InputError
        There is no such option, or a value is none of its.
    """
    if isinstance(value, Vary):
        return value
    text = value if isinstance(value, str) and len(value) <= LONGEST else ""
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise refusal(value, VARY_ACCEPTED)
    if "." not in name and name not in SETTINGS:
        name = name.removeprefix("--").replace("_", "-")
        if name not in options:
            known = sorted([*options, *SETTINGS])
            accepted = f"{', '.join(known)}, or a path such as l2.ways"
            raise InputError(
                f"found nothing to vary of name {shown(name)}; accepted: {accepted}"
                f"{nearest(name, known)}"
            )
    made = parse_values(values)
    judge = options.get(name)
    for each in made if judge else ():
        try:
            judge(each)  # type: ignore[misc]
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    return Vary(name, made)


def is_about(name: str, value: str, error: Exception) -> bool:
    """Tell whether an error is about one of the values, by how it begins."""
    return str(error).startswith(_beginnings(name, value))


def of_value(name: str, value: str, error: Exception) -> str:
    """Return what is wrong with one of the values, said once of whose it is."""
    text = str(error)
    for beginning in _beginnings(name, value):
        text = text.removeprefix(beginning)
    return f"{name}={value}: {text}"


def _beginnings(name: str, value: str) -> tuple[str, ...]:
    settings = (f"--set {name}={value}: ", f"--set {name}: ")
    costs = ("--set costs: ",) if name.startswith("costs.") else ()
    return (*settings, *costs, f"--{name}: ", f"{name}={value}: ", f"{name}: ")


def parse_values(text: str) -> tuple[str, ...]:
    """Return the values of a list with commas, or of a range: ``10us..10ms:9``.

    A range has so many values from its first to its last, in equal ratios. Those inside are rounded:
    sizes to large pages, others to three digits, and to whole numbers if the ends are such.

    Raises
    ------
    InputError
        There is a value that is no number or there twice, units do not go together, or there are too
        few or too many.
    """
    ranged = _RANGE.fullmatch(text.strip())
    values = _spread(text, *ranged.groups()) if ranged else _listed(text)
    if not FEWEST <= len(values) <= MOST:
        found = f"found {len(values)} value{'' if len(values) == 1 else 's'}"
        raise InputError(f"{found}; accepted: {VALUES_ACCEPTED}")
    numbers = [quantity(value) for value in values]
    if len({unit for _, unit in numbers}) > 1:
        raise refusal(text, "values of one kind: all times, all sizes, or all counts of one unit")
    for n, number in enumerate(numbers):
        if number in numbers[:n]:
            first = values[numbers.index(number)]
            twice = f"{first} twice" if first == values[n] else f"{first} and {values[n]}, the same"
            raise InputError(f"found {twice}; accepted: values that differ; of a range, fewer")
    return values


def _listed(text: str) -> tuple[str, ...]:
    if ".." in text:
        raise refusal(text, RANGE_ACCEPTED)
    return tuple(value.strip() for value in text.split(",")) if text.strip() else ()


def _spread(text: str, first: str, last: str, steps: str) -> tuple[str, ...]:
    """Return the values of a range."""
    (low, unit), (high, other) = quantity(first), quantity(last)
    count = int(steps)
    if not FEWEST <= count <= MOST:
        raise InputError(f"found {count} values in {shown(text)}; accepted: {VALUES_ACCEPTED}")
    if unit != other or not 0 < low < high:
        raise refusal(text, RANGE_ACCEPTED)
    whole = unit not in (SECONDS, BYTES) and low.denominator == high.denominator == 1
    ratio = float(high / low)
    inside = [float(low) * ratio ** (n / (count - 1)) for n in range(1, count - 1)]
    return (first.strip(), *(_written(value, unit, whole) for value in inside), last.strip())


def _written(value: float, unit: str, whole: bool) -> str:
    """Return a value inside a range with few digits and the unit that suits it."""
    if unit == BYTES:  # memory comes in large pages
        step = LARGE_PAGE if value >= LARGE_PAGE else 1
        size = format_size(round(value / step) * step)
        return f"{size}B" if size.isdecimal() else size
    value = float(f"{value:.{DIGITS}g}")
    steps = _STEPS if unit == SECONDS else ((unit, Fraction(1)),)
    name, scale = next((each for each in steps if value >= float(each[1])), steps[-1])
    scaled = value / float(scale)
    return f"{f'{scaled:.0f}' if whole else _trimmed(scaled)}{name}"


def _trimmed(number: float) -> str:
    return f"{number:.{DIGITS + 3}f}".rstrip("0").rstrip(".")
