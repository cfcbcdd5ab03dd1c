"""What a run is made of: processor, virtual machines, schedule. Validated, frozen, nothing unknown."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mmu.errors import InputError
from mmu.processor_model import (
    LINE,
    Array,
    Cache,
    Cycles,
    DataCache,
    DataCaches,
    Latencies,
    PageWalkCache,
    Processor,
    WalkCaches,
)
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
    parse_size,
    refusal,
    shown,
)

__all__ = [
    "Array", "Backing", "Cache", "ConfigError", "Costs", "DataCache", "DataCaches", "Latencies",
    "Mode", "PagePolicy", "PageWalkCache", "ProcessConfig", "Processor", "Quantum", "RunConfig",
    "TableReads", "VmConfig", "WalkCaches",
]  # fmt: skip

MOST_MEMORY = 1 << 44  # bytes: the allocators' books of a host so large take half a GB
MOST_VMS = 1000  # a tag word has 1023 contexts, and a virtual machine may have more than one space
MOST_TRACES = 1000  # of all machines: each has a part of what is kept in memory
MOST_LPS = 256
MOST_WINDOW = 1 << 16  # instructions: far above any reorder buffer
MOST_CACHED = 1 << 25  # entries and lines of all logical processors: some 500 MB of state


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


Pages4K = Annotated[int, BeforeValidator(Whole(0, 4096))]
Memory = Annotated[int, BeforeValidator(_memory)]
Share = Annotated[float, BeforeValidator(_share)]
Mode = Literal["tagged", "purge", "flush", "native"]
Backing = Literal["start", "first-touch"]
TableReads = Literal["fixed", "walker", "shared"]
Lps = Annotated[int, BeforeValidator(Whole(1, MOST_LPS))]
Window = Annotated[int, BeforeValidator(Whole(0, MOST_WINDOW))]


class Costs(Strict):
    """Cycles that an event costs, whatever the processor.

    ``exit`` is the round trip out and in: 1344 to 1376 cycles around VMRUN were measured with KVM
    on AMD in 2020 (M. Roth, LKML, December 2020). No clean figure has been published for the
    others, so they are assumptions: ``nested_fault`` the hypervisor's service of one page, without
    the exit; ``guest_fault`` the guest's; ``switch`` the change of virtual machine; ``migration``
    what a virtual processor loses on another logical one beside its cached translations;
    ``cr3_load`` a load of CR3; ``invalidation`` an INVEPT, or another instruction that drops
    entries, wherever it is executed. So are those of a shootdown's initiator, ``shootdown`` and
    for each processor that is interrupted ``shootdown_target``, in the range that is reported: an
    acknowledgement takes 1000 cycles or more (LATR, ASPLOS 2018), a shootdown "can take
    microseconds" (N. Amit, USENIX ATC 2017).
    """

    cycles_per_instruction: Cycles = 1
    guest_fault: Cycles = 1000
    nested_fault: Cycles = 5000
    exit: Cycles = 1400
    switch: Cycles = 2000
    cr3_load: Cycles = 200
    shootdown: Cycles = 2000
    shootdown_target: Cycles = 500
    invalidation: Cycles = 200
    migration: Cycles = 0


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
    vcpus : int
        Virtual processors, on which its traces run.
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
    vcpus: Lps = 1

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
    """Everything that decides a run's counts; the same configuration gives the same result.

    Attributes
    ----------
    lps : int
        Logical processors, each with its own TLBs and clock.
    pinned : bool
        Virtual processor n of a machine runs on logical processor n, modulo their number, only.
    migration_flush : bool
        A machine's entries are dropped where one of its virtual processors arrives from elsewhere.
    table_reads : {"fixed", "walker", "shared"}
        What a read of a table costs: ``latencies.reference``; what the processor's data caches
        say, of which the walker has the use alone; or shares it with the traces' own accesses. By
        default ``walker`` if the processor has data caches.
    window : int
        Instructions that may follow a walk before it has ended; 0 where each walk is waited for.
    conflicts : bool
        Misses of capacity are told from those of conflict.
    shootdowns_per_second : int
        Invalidations of a whole machine on all processors, on each of them.
    """

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
    lps: Lps = 1
    pinned: bool = Field(default=False, strict=True)
    migration_flush: bool = Field(default=True, strict=True)
    table_reads: TableReads = Field(default=None, validate_default=True)
    window: Window = 0
    conflicts: bool = Field(default=False, strict=True)
    shootdowns_per_second: Count = 0

    @field_validator("table_reads", mode="before")
    @classmethod
    def _default_reads(cls, value: object, info: ValidationInfo) -> object:
        """Read through the data caches that a processor has; one without takes one latency."""
        processor = info.data.get("processor")
        caches = processor is not None and processor.data_caches is not None
        if value is None:
            return "walker" if caches else "fixed"
        if value in ("walker", "shared") and processor is not None and not caches:
            found = f"found {value!r} with {processor.name}, which has no data_caches"
            raise InputError(f"{found}; accepted: fixed, or a processor that has")
        return value

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
        self._is_kept()
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
        if self.mode == "native":
            return
        frequency = self.processor.frequency_hz
        left = frequency - self.exits_per_second * max(self.costs.exit, 1)
        if left <= 0:
            most = (frequency - 1) // max(self.costs.exit, 1)
            accepted = f"0 to {most}, as an exit costs {self.costs.exit} cycles and "
            accepted += f"{self.processor.name} has {frequency} a second"
            raise ConfigError(("exits_per_second",), str(refusal(self.exits_per_second, accepted)))
        cost = self.shootdown_cycles
        if self.shootdowns_per_second * max(cost, 1) >= left:
            most = (left - 1) // max(cost, 1)
            among = f" among {self.lps} processors" if self.lps > 1 else ""
            accepted = f"0 to {most}, as a shootdown{among} costs each up to {cost} cycles and "
            accepted += f"{self.processor.name} has {left} a second"
            accepted += " left by exits" if self.exits_per_second else ""
            found = refusal(self.shootdowns_per_second, accepted)
            raise ConfigError(("shootdowns_per_second",), str(found))

    @property
    def shootdown_cycles(self) -> int:
        """Most cycles of a processor that go with each of its shootdowns and all others' like it."""
        costs, others = self.costs, self.lps - 1
        initiated = costs.exit + costs.shootdown + costs.shootdown_target * others
        return initiated + costs.invalidation + others * (costs.exit + costs.invalidation)

    def _is_kept(self) -> None:
        """Refuse more caches than there is memory for."""
        caches, own = self.processor.data_caches, self.processor.own_entries
        shared = caches.l3.bytes // LINE if caches and caches.l3 else 0
        most = (MOST_CACHED - shared) // own
        if self.lps > most:
            found = f"found {self.lps} with {own} entries and cache lines each"
            raise ConfigError(("lps",), f"{found}; accepted: up to {most} of such processors")

    @property
    def machines(self) -> tuple[VmConfig, ...]:
        """The root partition, if it runs a trace, and the virtual machines, in turn order."""
        return self.vms if self.root is None else (self.root, *self.vms)

    def expanded(self) -> dict[str, Any]:
        """Return every field, defaults included, as plain values that JSON holds."""
        return self.model_dump(mode="json")
