"""What a run is made of: processor, virtual machines, schedule. Validated, frozen, nothing unknown."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mmu.errors import InputError
from mmu.strict import MOST_COUNT, ConfigError, Count, Positive, Strict, Whole
from mmu.turns import (
    PagePolicy,
    ProcessConfig,
    Quantum,
    Scheduled,
    Turn,
    names_for,
    printable,
    settled,
    stem_of,
)
from mmu.units import (
    LARGE_PAGE,
    MIB,
    QUANTUM_ACCEPTED,
    format_size,
    nearest,
    parse_page_size,
    parse_size,
    refusal,
    shown,
)

MOST_MEMORY = 1 << 44  # bytes: the allocators' books of a host so large take half a GB
MOST_ENTRIES = 1 << 20  # of one cache: far above any processor, and still a small array
MOST_CYCLES = 1 << 30  # of one latency or cost: sums of them stay far inside 64 bits
MOST_VMS = 1000  # a tag word has 1023 contexts, and a virtual machine may have more than one space
MOST_TRACES = 1000  # of all machines: each has a part of what is kept in memory
LINEAR = 63  # the fold of a linear index: a page number shifted by it is nothing


def _memory(value: object) -> int:
    size = parse_size(value)
    if size % LARGE_PAGE or not 0 < size <= MOST_MEMORY:
        below = size // LARGE_PAGE * LARGE_PAGE
        near = [n for n in (below, below + LARGE_PAGE) if 0 < n <= MOST_MEMORY]
        hint = f"; nearest: {' or '.join(map(format_size, near))}" if size % LARGE_PAGE else ""
        limits = f"2MiB to {format_size(MOST_MEMORY)} in steps of 2MiB"
        raise refusal(value, limits, hint)
    return size


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise refusal(value, "a number from 0 to 1")
    return float(value)


def _index(value: object) -> str:
    text = value.strip().lower() if isinstance(value, str) else ""
    fold = re.fullmatch(r"xor-([0-9]{1,2})", text, re.ASCII)
    if text != "linear" and not (fold and 1 <= int(fold[1]) < 45):
        raise refusal(value, "linear, or xor-1 to xor-44, such as xor-7", nearest(text, ["linear"]))
    return text


Entries = Annotated[int, BeforeValidator(Whole(1, MOST_ENTRIES))]
Cycles = Annotated[int, BeforeValidator(Whole(0, MOST_CYCLES))]
Pages4K = Annotated[int, BeforeValidator(Whole(0, 4096))]
Memory = Annotated[int, BeforeValidator(_memory)]
Share = Annotated[float, BeforeValidator(_share)]
PageSize = Annotated[Literal["4k", "2m", "1g"], BeforeValidator(parse_page_size)]
Mode = Literal["tagged", "purge", "flush", "native"]
Backing = Literal["start", "first-touch"]


class Cache(Strict):
    """A set-associative cache with exact LRU: a walk cache, or the base of a TLB's array."""

    entries: Entries
    ways: Entries
    index: Annotated[str, BeforeValidator(_index)] = "linear"

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


_SIZE_ORDER = ["4k", "2m", "1g"].index


class WalkCaches(Strict):
    """Paging-structure caches by the level of the entry that they stand for; None where absent."""

    pde: Cache | None = None
    pdpte: Cache | None = None
    pml4e: Cache | None = None


class Latencies(Strict):
    """Cycles that a look-up, or one reference, takes."""

    l2: Cycles
    walk_cache: Cycles
    nested_tlb: Cycles
    reference: Cycles
    update: Cycles


class Processor(Strict):
    """A processor model: its caches of translations and what they cost."""

    name: str
    title: str = ""
    frequency_hz: Annotated[int, BeforeValidator(Whole(1, 10**12))]
    l1_data: tuple[Array, ...]
    l1_fetch: tuple[Array, ...]
    l2: tuple[Array, ...] = ()
    walk_caches: WalkCaches = WalkCaches()
    nested_tlb: Array | None = None
    latencies: Latencies
    flush_nested: bool = Field(default=False, strict=True)
    source: dict[str, str] = Field(default={}, exclude=True)

    @field_validator("l2", "walk_caches", mode="before")
    @classmethod
    def _absent(cls, value: object, info: ValidationInfo) -> object:
        nothing: object = () if info.field_name == "l2" else {}
        return nothing if value is None else value

    @field_validator("l1_data", "l1_fetch", "l2")
    @classmethod
    def _level(cls, arrays: tuple[Array, ...], info: ValidationInfo) -> tuple[Array, ...]:
        held = [size for array in arrays for size in array.sizes]
        for size in held:
            if held.count(size) > 1:
                found = f"found {size} pages in {held.count(size)} arrays"
                raise InputError(f"{found}; accepted: each page size in one array of a level")
        if "4k" not in held and info.field_name != "l2":
            found = f"found arrays for {', '.join(held) or 'no page size'}"
            raise InputError(f"{found}; accepted: an array that holds 4k, and any others")
        return tuple(sorted(arrays, key=lambda array: _SIZE_ORDER(array.sizes[0])))

    @field_validator("nested_tlb")
    @classmethod
    def _nested(cls, array: Array | None) -> Array | None:
        if array is not None and array.sizes != ("4k", "2m"):
            raise ConfigError(("sizes",), str(refusal(list(array.sizes), '["4k", "2m"]')))
        return array


class Costs(Strict):
    """Cycles that an event costs, whatever the processor.

    ``exit`` is the round trip out and in: 1344 to 1376 cycles around VMRUN were measured with KVM
    on AMD in 2020 (M. Roth, LKML, December 2020). No clean figure has been published for the
    others, so they are assumptions: ``nested_fault`` the hypervisor's service of one page, without
    the exit; ``guest_fault`` the guest's; ``switch`` the change of virtual machine.
    """

    cycles_per_instruction: Cycles = 1
    guest_fault: Cycles = 1000
    nested_fault: Cycles = 5000
    exit: Cycles = 1400
    switch: Cycles = 2000


class VmConfig(Scheduled):
    """One virtual machine: the trace that runs in it, or the processes, each with its own trace.

    Attributes
    ----------
    weight : int
        The machine's turns are so many quanta.
    repeat : int, optional
        Times that its trace runs, and each of its processes'; by default as often as the run says.
    start : Start
        When it may run first.
    turn : Quantum, optional
        How long the guest's own scheduler lets a process run; by default the run's quantum.
    pcid : bool
        The guest gives each address space a PCID, and its CR3 loads (with bit 63 set) drop nothing.
        Without, each change of space drops all of the machine's TLB and walk-cache entries.
    """

    trace: str = ""
    processes: tuple[ProcessConfig, ...] = ()
    name: str = ""
    memory: Memory = 4 << 30
    guest_pages: PagePolicy = "4k"
    nested_pages: PagePolicy = "auto"
    fragmentation: Share = 0.0
    aslr: Count | None = None
    turn: Turn = None
    page_map: str | None = None
    pcid: bool = Field(default=True, strict=True)

    @field_validator("trace", "page_map", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return str(value) if isinstance(value, PurePath) else value

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        return printable(name)

    @model_validator(mode="after")
    def _runs_something(self) -> "VmConfig":
        if not self.trace and not self.processes:
            raise ConfigError(("trace",), "missing; a value must be given, or processes")
        if self.trace and self.processes:
            found = f"found a trace and {len(self.processes)} processes"
            raise ConfigError(("processes",), f"{found}; accepted: one or the other")
        if self.turn is not None and not self.processes:
            raise ConfigError(("turn",), "found a turn of processes; accepted: with processes")
        try:
            made = settled(self.processes, self.guest_pages)
        except ConfigError as error:
            raise ConfigError(("processes", *error.path), error.text) from None
        object.__setattr__(self, "processes", made)  # frozen for everybody else
        return self

    @model_validator(mode="after")
    def _as_recorded(self) -> "VmConfig":
        if self.page_map is not None and self.aslr is not None:
            found = f"found {shown(self.page_map)} and aslr {self.aslr}, which moves what it maps"
            raise ConfigError(("page_map",), f"{found}; accepted: one of them")
        return self

    @property
    def stem(self) -> str:
        """The name of the first trace's file without the endings that say how it is stored."""
        return stem_of(self.trace or self.processes[0].trace)

    @property
    def streams(self) -> tuple[ProcessConfig, ...]:
        """The processes; a trace without any is one."""
        if self.processes:
            return self.processes
        alone = ProcessConfig(
            trace=self.trace, space=0, repeat=self.repeat, guest_pages=self.guest_pages
        )
        return (alone.model_copy(update={"name": self.name}),)

    def expanded(self, quantum: Quantum, repeat: int, frequency_hz: int) -> "VmConfig":
        """Return the machine with nothing left to a default of its run, and times as cycles."""
        turn = self.turn
        if isinstance(turn, str):
            try:
                turn = Quantum.parse(turn, frequency_hz)
            except InputError as error:
                raise ConfigError(("turn",), str(error)) from None
        if self.processes and turn is None:
            turn = quantum
        most = MOST_COUNT // quantum.value
        if self.weight > most:
            accepted = f"up to {most}, with a quantum of {quantum.value} {quantum.unit}"
            raise ConfigError(("weight",), str(refusal(self.weight, accepted)))
        repeat = self.repeat or repeat
        processes = []
        for n, process in enumerate(self.processes):
            try:
                processes.append(process.expanded(repeat, frequency_hz))
            except ConfigError as error:
                raise ConfigError(("processes", n, *error.path), error.text) from None
        update = {"repeat": repeat, "turn": turn, "processes": tuple(processes)}
        return self.model_copy(update=update | {"start": self._begins(frequency_hz)})


class RunConfig(Strict):
    """Everything that decides a run's counts; the same configuration gives the same result."""

    processor: Processor
    mode: Mode = "tagged"
    quantum: Quantum = Field(default="50us", validate_default=True)
    repeat: Positive = 1
    vms: tuple[VmConfig, ...] = ()
    root: VmConfig | None = None
    memory: Memory = 64 << 30
    reserve: Memory = Field(default="auto", validate_default=True)
    exits_per_second: Count = 0
    exit_code_pages: Pages4K = 8
    exit_data_pages: Pages4K = 8
    warm_up: Count = 0
    host_fragmentation: Share = 0.0
    seed: Count = 0
    costs: Costs = Costs()
    nested_dirty: bool = Field(default=True, strict=True)
    backing: Backing = "start"

    @field_validator("root")
    @classmethod
    def _root_name(cls, root: VmConfig | None) -> VmConfig | None:
        return root and root.model_copy(update={"name": root.name or "root"})

    @field_validator("vms")
    @classmethod
    def _expanded(cls, vms: tuple[VmConfig, ...], info: ValidationInfo) -> tuple[VmConfig, ...]:
        made = []
        for n, vm in enumerate(vms):
            try:
                made.append(cls._settle(vm, info))
            except ConfigError as error:
                raise ConfigError((n, *error.path), error.text) from None
        return tuple(made)

    @field_validator("root")
    @classmethod
    def _expanded_root(cls, root: VmConfig | None, info: ValidationInfo) -> VmConfig | None:
        return root and cls._settle(root, info)

    @staticmethod
    def _settle(vm: VmConfig, info: ValidationInfo) -> VmConfig:
        """Leave nothing of a machine to the run's defaults, unless these cannot be used anyway."""
        given = info.data
        if not {"processor", "quantum", "repeat"} <= set(given):
            return vm
        return vm.expanded(given["quantum"], given["repeat"], given["processor"].frequency_hz)

    @field_validator("reserve", mode="before")
    @classmethod
    def _default_reserve(cls, value: object, info: ValidationInfo) -> object:
        """Set aside 1/64 of the host, at least 64 MiB; tables of 4 KiB pages take 1/512."""
        if value != "auto":
            return value
        share = info.data.get("memory", 0) // 64 // LARGE_PAGE * LARGE_PAGE
        return max(64 * MIB, share)

    @field_validator("quantum", mode="before")
    @classmethod
    def _quantum_text(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, Quantum | Mapping):
            return value
        if not isinstance(value, str):
            raise refusal(value, QUANTUM_ACCEPTED)
        processor = info.data.get("processor")
        return Quantum.parse(value, processor.frequency_hz if processor else 10**9)

    @model_validator(mode="before")
    @classmethod
    def _name_all(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Name each virtual machine after its trace; a second of one name gets a number."""
        vms = data.get("vms", ())
        if not isinstance(vms, list | tuple):
            raise ConfigError(("vms",), str(refusal(vms, "a list of virtual machines")))
        named = [cls._vm(vm, ("vms", n)) for n, vm in enumerate(vms)]
        taken = {"" if data.get("root") is None else "root"}
        names = names_for([vm.name for vm in named], [vm.stem for vm in named], taken)
        named = [
            vm.model_copy(update={"name": name}) for vm, name in zip(named, names, strict=True)
        ]
        return {**data, "vms": tuple(named)}

    @staticmethod
    def _vm(value: object, path: tuple[str | int, ...]) -> VmConfig:
        if isinstance(value, VmConfig):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(path, str(refusal(value, "a table with trace, name, memory, ...")))
        try:
            return VmConfig(**value)
        except ConfigError as error:
            raise ConfigError(path + error.path, error.text) from None

    @model_validator(mode="after")
    def _possible(self) -> "RunConfig":
        machines = self.machines
        if not 1 <= len(machines) <= MOST_VMS:
            found = f"found {len(machines)} virtual machines"
            raise ConfigError(("vms",), f"{found}; accepted: 1 to {MOST_VMS}")
        traces = sum(len(vm.streams) for vm in machines)
        if traces > MOST_TRACES:
            raise ConfigError(("vms",), f"found {traces} traces; accepted: up to {MOST_TRACES}")
        names = [vm.name for vm in machines]
        for n, vm in enumerate(self.vms):
            if names.count(vm.name) > 1:
                text = str(refusal(vm.name, "a name of its own for each virtual machine"))
                raise ConfigError(("vms", n, "name"), text)
        self._fits()
        self._leaves_time()
        return self

    def _fits(self) -> None:
        left = self.memory - self.reserve
        if left <= 0:
            text = f"found {format_size(self.reserve)} of {format_size(self.memory)} host memory"
            raise ConfigError(("reserve",), f"{text}; accepted: less than the host has")
        for n, vm in enumerate(self.vms):
            if vm.memory > left:
                found = f"found {format_size(vm.memory)} for {vm.name!r}"
                accepted = f"up to {format_size(left)}, what the host has less its reserve"
                raise ConfigError(("vms", n, "memory"), f"{found}; accepted: {accepted}")
        total = sum(vm.memory for vm in self.vms)
        if self.backing == "start" and total > left:
            found = f"found {format_size(self.memory)}, of which {format_size(left)} are left by"
            found += f" the reserve for {format_size(total)} of virtual machines"
            remedy = "or a backing at first touch"
            raise ConfigError(("memory",), f"{found}; accepted: enough to back them all, {remedy}")

    def _leaves_time(self) -> None:
        """Refuse exits that alone take all cycles: their number would grow without end."""
        spent = self.exits_per_second * max(self.costs.exit, 1)
        if self.mode != "native" and spent >= self.processor.frequency_hz:
            most = (self.processor.frequency_hz - 1) // max(self.costs.exit, 1)
            accepted = f"0 to {most}, as an exit costs {self.costs.exit} cycles and "
            accepted += f"{self.processor.name} has {self.processor.frequency_hz} a second"
            raise ConfigError(("exits_per_second",), str(refusal(self.exits_per_second, accepted)))

    @property
    def machines(self) -> tuple[VmConfig, ...]:
        """The root partition, if it runs a trace, and the virtual machines, in turn order."""
        return self.vms if self.root is None else (self.root, *self.vms)

    def expanded(self) -> dict[str, Any]:
        """Return every field, defaults included, as plain values that JSON holds."""
        return self.model_dump(mode="json")
