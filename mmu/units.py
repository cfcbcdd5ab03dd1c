"""Quantities as people write them, and the nearest known word to one they got wrong.

Light on purpose: the command line checks its arguments here before anything heavy is imported.
An error says what was found and what is accepted; where it stood is added by the caller.
"""

import re
from collections.abc import Iterable
from fractions import Fraction

from mmu.errors import InputError

MIB = 1 << 20
LARGE_PAGE = 2 * MIB
LONGEST_ADDRESS = 40  # characters, with underscores

_NUMBER = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)\s*", re.ASCII)
_SIZE_UNITS = {"": 0, "b": 0, "k": 10, "kib": 10, "m": 20, "mib": 20}
_SIZE_UNITS |= {"g": 30, "gib": 30, "t": 40, "tib": 40}
_TIME_UNITS = {"us": Fraction(1, 10**6), "ms": Fraction(1, 10**3), "s": Fraction(1)}
_COUNT_UNITS = ("cycles", "accesses", "instructions")
_START_UNITS = ("cycles", "accesses")
_PAGE_SIZES = {4 << 10: "4k", 2 * MIB: "2m", 1 << 30: "1g"}

SIZE_ACCEPTED = "a number with KiB, MiB, GiB or TiB (or K, M, G, T), or whole bytes, such as 4GiB"
QUANTUM_ACCEPTED = "a number above 0 with us, ms, s, cycles, accesses or instructions, such as 50us"
START_ACCEPTED = "0, or a number with us, ms, s, cycles or accesses, such as 5ms"
MODES = ("tagged", "purge", "flush", "native")
PAGES = ("4k", "2m", "auto")
BACKINGS = ("start", "first-touch")
TABLE_READS = ("fixed", "walker", "shared")
TRACE_COLUMNS = ("address", "kind", "size", "space", "thread")
EXPORTS = ("champsim", "cloudsuite", "din", "xdin", "lackey", "dynamorio", "csv")


def shown(value: object, limit: int = 60) -> str:
    """Return a value as it stands in an error: on one line, quoted if it is text, not too long."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def refusal(found: object, accepted: str, hint: str = "") -> InputError:
    """Return the error for a value that cannot be used: found, accepted, and what to do."""
    return InputError(f"found {shown(found)}; accepted: {accepted}{hint}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word that is nearest, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415  needed only where something is wrong

    by_fold = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), by_fold, n=1, cutoff=0.5)
    return f"; did you mean {by_fold[close[0]]!r}?" if close else ""


def parse_choice(value: object, choices: tuple[str, ...]) -> str:
    """Return the choice that a word names, in any case of letters."""
    if isinstance(value, str) and value.strip().lower() in choices:
        return value.strip().lower()
    hint = nearest(value, choices) if isinstance(value, str) else ""
    raise refusal(value, " | ".join(choices), hint)


def parse_size(value: object) -> int:
    """Return the bytes that ``"4GiB"``, ``"512M"`` or a whole number of bytes stand for."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise refusal(value, SIZE_ACCEPTED)
        return value
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2].lower() not in _SIZE_UNITS:
        hint = nearest(match[2], ("KiB", "MiB", "GiB", "TiB")) if match and match[2] else ""
        raise refusal(value, SIZE_ACCEPTED, hint)
    size = Fraction(match[1]) * (1 << _SIZE_UNITS[match[2].lower()])
    if size.denominator != 1:
        raise refusal(value, "a size of whole bytes")
    return int(size)


def format_size(size: int) -> str:
    """Return bytes with the largest unit that divides them: ``4GiB``, ``1538MiB``, ``17``."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def parse_count(value: object, least: int = 0, most: int = 10**18 - 1) -> int:
    """Return the whole number that a text of digits stands for."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip(), re.ASCII):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        limit = "below 10^18" if most == 10**18 - 1 else f"at most {most}"
        raise refusal(value, f"a whole number of at least {least}, {limit}")
    return value


def parse_numbers(value: object) -> tuple[int, ...]:
    """Return the whole numbers of a list with commas."""
    if isinstance(value, tuple):
        return value
    try:
        return tuple(parse_count(number) for number in str(value).split(","))
    except InputError:
        raise refusal(value, "whole numbers with commas between them, such as 64,1536") from None


def parse_number(value: object) -> float:
    """Return the number from 0 that a text stands for."""
    try:
        number = float(value) if isinstance(value, str | int | float) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise refusal(value, "a number from 0")
    return number


def parse_address(value: object) -> int:
    """Return the address below 2^64 that a text stands for: hexadecimal with 0x, or decimal.

    Digits may stand in groups with underscores between, as in Python: ``0x7f00_1234_5000``.
    """
    text = value if isinstance(value, str) and len(value) <= LONGEST_ADDRESS else ""
    if re.fullmatch(r"0x[0-9a-f]+(_[0-9a-f]+)*|[0-9]+(_[0-9]+)*", text, re.I | re.A):
        digits = text.replace("_", "")
        value = int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise refusal(value, "an address below 2^64, such as 0x100000000000")
    return value


def parse_code_address(value: object) -> int:
    """Return the address, not 0, that hexadecimal digits stand for, with or without ``0x``."""
    text = value.strip() if isinstance(value, str) else ""
    address = int(text, 16) if re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,16}", text) else 0
    if not (0 < address < 1 << 47 or address >= (1 << 64) - (1 << 47)):
        raise refusal(value, "a hexadecimal address of 48 bits, not 0")
    return address


def parse_share(value: object) -> float:
    """Return the number from 0 to 1 that a text stands for."""
    try:
        share = float(value) if isinstance(value, str | int | float) else -1.0
    except (ValueError, OverflowError):
        share = -1.0
    if not 0 <= share <= 1:
        raise refusal(value, "a number from 0 to 1")
    return share


def parse_modes(value: object) -> tuple[str, ...]:
    """Return the modes of a list with commas, in its order, each once."""
    if isinstance(value, tuple):
        return value
    modes = tuple(parse_choice(mode, MODES) for mode in str(value).split(","))
    if len(set(modes)) < len(modes):
        raise refusal(value, f"each of {', '.join(MODES)} at most once")
    return modes


def parse_columns(value: object) -> dict[str, str]:
    """Return a table's names of our columns: ``address=va,kind=op``."""
    columns: dict[str, str] = {}
    for pair in str(value).split(","):
        ours, equals, theirs = pair.partition("=")
        if not equals or not theirs or ours.strip() in columns:
            raise refusal(value, "OURS=THEIRS with commas between, each of ours once")
        columns[parse_choice(ours, TRACE_COLUMNS)] = theirs.strip()
    return columns


def parse_quantum(value: object) -> tuple[Fraction, str]:
    """Return number and unit of a quantum: cycles, accesses, instructions, or ``"s"`` of time."""
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refusal(value, QUANTUM_ACCEPTED)
    number, unit = Fraction(match[1]), match[2].lower()
    if unit in _TIME_UNITS:
        number, unit = number * _TIME_UNITS[unit], "s"
    elif unit not in _COUNT_UNITS:
        raise refusal(value, QUANTUM_ACCEPTED, nearest(unit, _COUNT_UNITS) if unit else "")
    if number <= 0 or (unit != "s" and number.denominator != 1):
        raise refusal(value, QUANTUM_ACCEPTED)
    return number, unit


def parse_start(value: object) -> tuple[Fraction, str]:
    """Return number and unit of a start: cycles, accesses, or ``"s"`` of time."""
    text = "0cycles" if str(value).strip() == "0" else value
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    unit = match[2].lower() if match else ""
    if match is None or unit not in (*_TIME_UNITS, *_START_UNITS):
        raise refusal(value, START_ACCEPTED, nearest(unit, _START_UNITS) if unit else "")
    number = Fraction(match[1])
    if unit in _TIME_UNITS:
        return number * _TIME_UNITS[unit], "s"
    if number.denominator != 1:
        raise refusal(value, START_ACCEPTED)
    return number, unit


def parse_weights(value: object) -> tuple[int, ...]:
    """Return the whole numbers of a list with commas."""
    if isinstance(value, tuple):
        return value
    return tuple(parse_count(weight, least=1) for weight in str(value).split(","))


def parse_starts(value: object) -> tuple[str, ...]:
    """Return the starts of a list with commas, as texts."""
    if isinstance(value, tuple):
        return value
    starts = tuple(start.strip() for start in str(value).split(","))
    for start in starts:
        parse_start(start)
    return starts


def parse_page_size(value: object) -> str:
    """Return ``4k``, ``2m`` or ``1g`` for a page size as a word (``2M``, ``2MiB``) or bytes."""
    try:
        return _PAGE_SIZES[parse_size(value)]
    except (InputError, KeyError):
        raise refusal(value, " | ".join(_PAGE_SIZES.values())) from None


def parse_pages(value: object) -> str:
    """Return the policy that a word names: ``4k``, ``2m`` (or ``2M``, ``2MiB``) or ``auto``."""
    try:
        return parse_choice(value, PAGES)
    except InputError as error:
        try:
            policy = parse_page_size(value)
        except InputError:
            raise error from None
        if policy not in PAGES:
            raise error from None
        return policy
