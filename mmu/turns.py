"""Who runs when: how long turns last, when they may begin, and the processes of a virtual machine.

Two schedulers work here. The hypervisor's gives the virtual machines turns, in their order and
round again: a turn lasts a quantum times the machine's weight. In its turns a guest's own scheduler
does the same with the guest's processes, whose turns go on where the machine's last one broke off.
Whatever ends, ends at a block's end.
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import PurePath
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, field_validator

from mmu.errors import InputError
from mmu.strict import MOST_COUNT, ConfigError, Count, Positive, Strict, Whole
from mmu.units import parse_pages, parse_quantum, parse_start, refusal

MOST_WEIGHT = 10_000
MOST_SPACE = (1 << 16) - 1
_SUFFIXES = {".parquet", ".lackey", ".xz", ".gz", ".zst", ".bz2"}
RESERVED_NAMES = ("hypervisor", "total")  # rows of every result
AnyMachine = TypeVar("AnyMachine", bound="Scheduled")

PagePolicy = Annotated[Literal["4k", "2m", "auto"], BeforeValidator(parse_pages)]
Weight = Annotated[int, BeforeValidator(Whole(1, MOST_WEIGHT))]
Space = Annotated[int, BeforeValidator(Whole(0, MOST_SPACE))]


def stem_of(trace: str) -> str:
    """Return a trace's file name without the endings that say how it is stored."""
    path = PurePath(trace)
    while path.suffix in _SUFFIXES and path.stem:
        path = path.with_suffix("")
    stem = "".join(c if c.isprintable() else "?" for c in path.name)[:32]
    return f"{stem}-vm" if stem in RESERVED_NAMES else stem or "vm"


def names_for(given: list[str], stems: list[str], taken: set[str]) -> list[str]:
    """Return the given names, and where there is none the stem, from a second on with a number."""
    taken = taken | set(given)
    tried: dict[str, int] = {}  # how often a stem has been, so that many of one take no time
    names = []
    for name, stem in zip(given, stems, strict=True):
        found = name
        while not found or (found in taken and not name):
            tried[stem] = tried.get(stem, 0) + 1
            found = stem if tried[stem] == 1 else f"{stem}-{tried[stem]}"
        taken.add(found)
        names.append(found)
    return names


class Quantum(Strict):
    """How long a turn lasts: it ends at the first block end that reaches this."""

    value: Positive
    unit: Literal["accesses", "instructions", "cycles"]

    @classmethod
    def parse(cls, text: str, frequency_hz: int) -> "Quantum":
        """Return the quantum that a text such as ``50us`` means on a processor."""
        number, unit = parse_quantum(text)
        if unit == "s":
            number, unit = Fraction(int(number * frequency_hz)), "cycles"
        if not 1 <= number <= MOST_COUNT:
            raise refusal(text, f"1 to 2^62 cycles, at {frequency_hz} cycles a second")
        return cls(value=int(number), unit=unit)  # type: ignore[arg-type]


class Start(Strict):
    """When somebody may run first: once the clock, or the number of accesses made, is this far.

    Both count from the beginning of the run, warm-up included, and accesses are those of all.
    """

    value: Count
    unit: Literal["accesses", "cycles"]

    @classmethod
    def parse(cls, text: object, frequency_hz: int) -> "Start":
        """Return the start that ``0``, or a text such as ``5ms``, means on a processor."""
        number, unit = parse_start(text)
        if unit == "s":
            number, unit = Fraction(int(number * frequency_hz)), "cycles"
        if number > MOST_COUNT:
            raise refusal(text, f"0 to 2^62 - 1 cycles, at {frequency_hz} cycles a second")
        return cls(value=int(number), unit=unit)  # type: ignore[arg-type]


AT_ONCE = Start(value=0, unit="cycles")


def _start(value: object) -> object:
    """Judge a start; a text keeps its form until the processor's frequency is known."""
    if isinstance(value, Mapping):
        return Start(**value)
    if not isinstance(value, Start):
        parse_start(value)
    return value if isinstance(value, Start) else str(value)


def _turn(value: object) -> object:
    if isinstance(value, Mapping):
        return Quantum(**value)
    if value is not None and not isinstance(value, Quantum):
        parse_quantum(value)
    return value


Turn = Annotated[Quantum | str | None, BeforeValidator(_turn)]


class Scheduled(Strict):
    """What gets turns: a virtual machine, or a process in one."""

    weight: Weight = 1
    repeat: Positive | None = None
    start: Annotated[Start | str, BeforeValidator(_start)] = AT_ONCE

    def _begins(self, frequency_hz: int) -> Start:
        if isinstance(self.start, Start):
            return self.start
        try:
            return Start.parse(self.start, frequency_hz)
        except InputError as error:
            raise ConfigError(("start",), str(error)) from None


class ProcessConfig(Scheduled):
    """One trace in a virtual machine that runs several.

    Attributes
    ----------
    space : int
        The address space; processes with one number share its tables, as threads do. By default
        each has its own. Space `s` of a trace that has several is number ``space + 65536 s``.
    weight : int
        Its turns are so many times the guest's.
    start : Start
        When it may run first; its virtual machine must have started too.
    """

    trace: str
    name: str = ""
    space: Space | None = None
    guest_pages: PagePolicy | None = None

    @field_validator("trace", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return str(value) if isinstance(value, PurePath) else value

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        return printable(name)

    def expanded(self, repeat: int, frequency_hz: int) -> "ProcessConfig":
        """Return the process with nothing left to a default of its machine or its run."""
        begins = self._begins(frequency_hz)
        return self.model_copy(update={"repeat": self.repeat or repeat, "start": begins})


def printable(name: str) -> str:
    """Return a name that can stand in a table, or say which can."""
    if not name.isprintable() or len(name) > 40 or name in RESERVED_NAMES:
        accepted = "up to 40 printable characters, neither 'hypervisor' nor 'total'"
        raise refusal(name, accepted)
    return name


def settled(processes: tuple[ProcessConfig, ...], guest_pages: str) -> tuple[ProcessConfig, ...]:
    """Return processes with names, spaces and page policies where none was given.

    Raises
    ------
    ConfigError
        Two have one name, or one space and different pages.
    """
    if len(processes) > MOST_SPACE + 1:
        text = f"found {len(processes):,}; accepted: up to {MOST_SPACE + 1:,}"
        raise ConfigError((), text)
    names = names_for([p.name for p in processes], [stem_of(p.trace) for p in processes], set())
    given = {process.space for process in processes}
    free = (number for number in range(MOST_SPACE + 1) if number not in given)
    pages: dict[int, str] = {}
    made = []
    for n, (process, name) in enumerate(zip(processes, names, strict=True)):
        if name in names[:n]:
            raise ConfigError((n, "name"), str(refusal(name, "a name of its own for each")))
        space = next(free) if process.space is None else process.space
        policy = process.guest_pages or guest_pages
        if pages.setdefault(space, policy) != policy:
            found = f"found {policy!r} in space {space}, which has {pages[space]!r} already"
            accepted = "the same for all of a space, or a space of its own"
            raise ConfigError((n, "guest_pages"), f"{found}; accepted: {accepted}")
        update = {"name": name, "space": space, "guest_pages": policy}
        made.append(process.model_copy(update=update))
    return tuple(made)
