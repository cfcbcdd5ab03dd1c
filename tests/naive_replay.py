"""The naive model's replay: who runs where and when, faults, exits, switches, shootdowns.

A context is the pair (vm, space). The hypervisor's own is (number of vms, 0), natively mapped.
Several logical processors are a list; `lp` is the one whose turn it is.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from naive_cache import LineCache
from naive_counters import Counters
from naive_machine import Geometry, Machine, NestedFault, PageFault
from naive_software import FramePool, Tables
from naive_words import (
    BLOCK,
    FETCH,
    HYPERVISOR_CODE,
    HYPERVISOR_DATA,
    K4,
    M2,
    NESTED_RWX,
    NESTED_WRITE_BACK,
    PRESENT,
    READ,
    SUPERVISOR,
    USER,
    WRITABLE,
    WRITE,
    base_of,
    bytes_of,
    side_of,
)

Access = tuple[int, int, int, int]  # space, thread, address, kind


@dataclass
class ProcessSettings:
    """A trace of a vm that has several; space s of it is the vm's space + 65536 s."""

    trace: Sequence[Access]
    space: int = 0
    weight: int = 1
    repeat: int | None = None  # None: as the vm
    start: tuple[int, int] = (0, 0)  # may run from so many cycles on, and so many accesses
    guest_pages: str = "4k"  # the same for all of a space


@dataclass
class VmSettings:
    trace: Sequence[Access] = ()
    memory: int = 64 << 20  # bytes
    guest_pages: str = "4k"
    nested_pages: str = "auto"
    broken: Sequence[tuple[int, int]] = ()  # region, frame in it that is taken from the start
    # pages mapped before the run: space, address, guest-physical address, size; in order
    page_map: Sequence[tuple[int, int, int, int]] = ()
    base_frame: int | None = None  # native mode: first machine frame; None: after the one before
    weight: int = 1
    repeat: int | None = None  # None: as the run
    start: tuple[int, int] = (0, 0)  # cycles, accesses
    processes: Sequence[ProcessSettings] = ()  # instead of a trace
    turn: tuple[int, str] = (1, "accesses")  # of a process, times its weight
    pcid: bool = True  # False: a change of space drops all that the vm has
    vcpus: int = 1


@dataclass
class Settings:
    geometry: Geometry
    vms: Sequence[VmSettings]  # vm 1, 2, ...
    root: VmSettings | None = None  # vm 0
    mode: str = "tagged"  # "tagged", "purge", "flush" or "native"
    quantum: tuple[int, str] = (100_000, "accesses")  # or "instructions" or "cycles"
    exit_interval: int = 0  # cycles between timer exits; 0: none
    exit_code_pages: int = 8
    exit_data_pages: int = 8
    costs: dict[str, int] = field(default_factory=dict)  # those that differ from COSTS
    warm_up: int = 0  # accesses
    repeat: int = 1
    backing: str = "start"  # or "first-touch"
    nested_dirty: bool = True
    flush_nested: bool = False
    memory: int = 1 << 30  # bytes of the host
    reserve: int = 64 << 20  # bytes from machine address 0 that are the hypervisor's
    host_broken: Sequence[tuple[int, int]] = ()  # regions counted from the reserve's end
    lps: int = 1
    pinned: bool = False
    migration_flush: bool = True
    shootdown_interval: int = 0  # cycles between shootdowns on one lp; 0: none


def blocks(trace: Iterable[Access]) -> list[list[Access]]:
    """Cut a trace where space or thread changes, and after 4096 accesses."""
    result: list[list[Access]] = []
    for access in trace:
        if not result or result[-1][-1][:2] != access[:2] or len(result[-1]) == BLOCK:
            result.append([])
        result[-1].append(access)
    return result


class Process:
    """What is left of a trace, and where it stands in its guest's round."""

    def __init__(self, its: ProcessSettings, vm: VmSettings, repeat: int, stride: int) -> None:
        self.left = repeat * blocks(its.trace)
        self.stride = stride
        self.space, self.weight = its.space, its.weight
        self.has_fetches = any(side_of(kind) for _, _, _, kind in its.trace)
        self.not_before_cycle = max(its.start[0], vm.start[0])
        self.not_before_access = max(its.start[1], vm.start[1])
        self.on: Vcpu | None = None  # who runs it, or did last and has not let it go
        self.free_at = 0  # the clock at which it ran last


class Vcpu:
    """A virtual processor: what it runs, and where."""

    def __init__(self, vm: int, number: int) -> None:
        self.vm = vm
        self.number = number  # of all vms' together, in their order
        self.chosen: Process | None = None  # who runs in it, or did last
        self.used = 0  # of that one's turn
        self.loaded: int | None = None  # the space that its CR3 points to
        self.lp: Lp | None = None  # where it runs, or did last
        self.is_running = False
        self.free_at = 0  # the clock at which it ran last


class Lp:
    """A logical processor: its own caches, clock and counters."""

    def __init__(self, number: int, machine: Machine, settings: Settings) -> None:
        self.number, self.machine, self.counters = number, machine, machine.counters
        self.vcpu: Vcpu | None = None  # who runs here now
        self.last: Vcpu | None = None  # who did last
        self.is_fresh = False  # someone else was handed over to, and has not run a block yet
        self.has_run = False  # a block, and what follows on it is not decided
        self.idle_since: int | None = None
        self.next_exit = settings.exit_interval
        self.next_shootdown = settings.shootdown_interval
        self.done = {"accesses": 0, "instructions": 0}  # warm-up included
        self.slice_began = 0  # in the quantum's unit
        self.part_began = (0, 0)  # clock and accesses, when this process's part of it did
        self.counted_from = 0  # the clock at the end of the warm-up
        self.may_hold: set[int] = set()  # vms that ran here since all that they had was dropped
        self.requests: set[int] = set()  # vms of which all is to be dropped

    @property
    def clock(self) -> int:
        return self.counters.clock

    def now(self, unit: str) -> int:
        return self.clock if unit == "cycles" else self.done[unit]


class Replay:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.native = settings.mode == "native"
        self.vms = 1 + len(settings.vms)
        self.vm = dict(enumerate(settings.vms, start=1))  # {number: VmSettings}
        if settings.root:
            self.vm = {0: settings.root} | self.vm
        self.memory: dict[int, int] = {}
        self.roots: dict[tuple[int, int], int] = {}
        self.nested_roots: dict[int, int] = {}
        self.reserve = FramePool(0, settings.reserve, [(0, 0)])
        size, taken = settings.memory - settings.reserve, list(settings.host_broken)
        if settings.root and not self.native:
            taken += self.claimed(settings.root, settings.reserve, size)
        self.host = FramePool(settings.reserve, size, taken)
        self.pools: dict[int, FramePool] = {}  # {vm: guest-physical frames}
        self.nested: dict[int, Tables] = {}  # {vm: nested tables}
        self.guest: dict[tuple[int, int], Tables] = {}  # {context: guest tables}
        self.pager_touched = 0  # nested faults of the pager's own stores, exits not yet taken
        self.next_base = settings.reserve  # native mode: where the next vm's memory starts
        self.next_beyond = settings.memory  # and where what its page map has beyond it does
        self.base: dict[int, tuple[int, int]] = {}  # {vm: those two}; 0 if guest-physical
        # frames are taken in this order: nested roots, the hypervisor's, what page maps need
        for vm in self.vm:
            self.new_vm(vm)
        if not self.native:
            self.hypervisor = self.new_hypervisor()
        for vm in self.vm:
            self.map_found(vm)

        self.processes = {vm: self.new_processes(its) for vm, its in self.vm.items()}
        owners = [vm for vm, its in self.vm.items() for _ in range(its.vcpus)]
        self.vcpus = [Vcpu(vm, number) for number, vm in enumerate(owners)]
        data = settings.geometry.data
        self.l3 = LineCache(data.l3) if data and data.l3 else None
        self.lps = [Lp(number, self.new_machine(), settings) for number in range(settings.lps)]
        self.lp = self.lps[0]
        self.slices: list[tuple[int, int, int, int, int, str]] = []
        self.slices_of: list[list[tuple[int, int, int, int, int, str]]] = [[] for _ in self.lps]
        self.accesses = 0  # of all lps, warm-up included
        self.warm = settings.warm_up == 0

    # -- the processor whose turn it is

    @property
    def machine(self) -> Machine:
        return self.lp.machine

    @property
    def counters(self) -> Counters:
        return self.lp.counters

    @property
    def next_exit(self) -> int:
        return self.lp.next_exit

    # -- setting up

    def new_machine(self) -> Machine:
        return Machine(
            self.settings.geometry,
            self.memory,
            self.roots,
            self.nested_roots,
            counters=Counters(self.vms, self.settings.costs),
            nested_dirty=self.settings.nested_dirty,
            l3=self.l3,
        )

    def new_processes(self, its: VmSettings) -> list[Process]:
        repeat = its.repeat or self.settings.repeat
        if not its.processes:
            return [Process(ProcessSettings(its.trace), its, repeat, 1)]
        return [Process(each, its, each.repeat or repeat, 65536) for each in its.processes]

    def pages_of(self, vm: int, space: int) -> str:
        """Return the guest's policy in a space, the same for all processes in it."""
        its = self.vm[vm]
        found = [each.guest_pages for each in its.processes if each.space == space % 65536]
        return found[0] if found else its.guest_pages

    def new_hypervisor(self) -> Tables:
        """Map what exits touch: code that all vms share, data of each vm."""
        bits = PRESENT | WRITABLE
        tables = Tables(
            self.memory,
            "4k",
            link=bits,
            leaf=bits,
            take_table=self.reserve.small,
            take_page=lambda _, size: self.reserve.page(size),
        )
        pages = [self.hypervisor_code(i) for i in range(self.settings.exit_code_pages)]
        for vm in range(self.vms):
            pages += [self.hypervisor_data(vm, i) for i in range(self.settings.exit_data_pages)]
        for page in pages:
            tables.map(page)
        self.roots[self.vms, 0] = tables.root
        return tables

    def hypervisor_code(self, i: int) -> int:
        return HYPERVISOR_CODE + i * bytes_of(K4)

    def hypervisor_data(self, vm: int, i: int) -> int:
        return HYPERVISOR_DATA + (vm * self.settings.exit_data_pages + i) * bytes_of(K4)

    def new_vm(self, vm: int) -> None:
        its = self.vm[vm]
        taken = [(0, 0), *its.broken, *self.claimed(its, 0, its.memory)]
        base = beyond = 0
        if self.native:
            base = self.next_base if its.base_frame is None else its.base_frame * bytes_of(K4)
            self.next_base = base + its.memory
            beyond = self.next_beyond
            end = max([gpa + bytes_of(size) for _, _, gpa, size in its.page_map], default=0)
            self.next_beyond += end + -end % bytes_of(M2)
            self.pools[vm] = FramePool(base, its.memory, taken)
        else:
            # the root's guest-physical addresses are machine addresses: it takes the host's frames
            self.pools[vm] = self.host if vm == 0 else FramePool(0, its.memory, taken)
            self.nested[vm] = self.new_nested(vm)
            self.nested_roots[vm] = self.nested[vm].root
        self.base[vm] = base, beyond

    def map_found(self, vm: int) -> None:
        """Map the pages of a page map, before the run."""
        its, (base, beyond) = self.vm[vm], self.base[vm]
        for space in sorted({space for space, *_ in its.page_map}):
            self.open_space(vm, space)
            backed = []
            for _, gva, gpa, size in filter(lambda page: page[0] == space, its.page_map):
                place = gpa + (base if gpa < its.memory else beyond)
                self.guest[vm, space].map_to(gva, place, size)
                backed.append((place, size))
            for place, size in sorted(backed, key=lambda page: page[0]):
                self.back_from_start(vm, place, size)

    def claimed(self, its: VmSettings, begin: int, size: int) -> list[tuple[int, int]]:
        """Return (region, frame in it) of its page map's frames in this memory, counted from there."""
        return [
            divmod((gpa + inside - begin) // bytes_of(K4), 512)
            for _, _, gpa, page in its.page_map
            for inside in range(0, bytes_of(page), bytes_of(K4))
            if begin <= gpa < begin + size
        ]

    def back_from_start(self, vm: int, gpa: int, size: int) -> None:
        """Back what a pager hands out, where memory counts as backed from the start."""
        if not self.native and self.settings.backing == "start":
            for page in range(gpa, gpa + bytes_of(size), bytes_of(K4)):
                if self.nested[vm].find(page) is None:
                    self.nested[vm].map(page)

    def new_nested(self, vm: int) -> Tables:
        def take(gpa: int, size: int) -> int:
            if vm != 0:
                return self.host.page(size)
            if gpa < self.settings.reserve:
                raise PermissionError(f"root may not have {gpa:#x}: it is the hypervisor's")
            return base_of(gpa, size)

        return Tables(
            self.memory,
            self.vm[vm].nested_pages,
            link=NESTED_RWX,
            leaf=NESTED_RWX | NESTED_WRITE_BACK,
            take_table=self.reserve.small,
            take_page=take,
            has_large=lambda: vm == 0 or self.host.has_large(),
        )

    def new_space(self, vm: int, space: int) -> Tables:
        def take(size: int) -> int:
            gpa = self.pools[vm].page(size)
            self.back_from_start(vm, gpa, size)
            return gpa

        def where(gpa: int) -> int:
            """Where the pager's store goes: it may be the first touch of the page."""
            if self.native:
                return gpa
            if self.nested[vm].find(gpa) is None:
                self.nested[vm].map(gpa)
                self.pager_touched += 1
            return self.nested[vm].find(gpa)

        bits = PRESENT | WRITABLE | USER
        return Tables(
            self.memory,
            self.pages_of(vm, space),
            link=bits,
            leaf=bits,
            take_table=lambda: take(K4),
            take_page=lambda _, size: take(size),
            has_large=self.pools[vm].has_large,
            where=where,
        )

    # -- one access, its faults and exits

    def access(self, vm: int, space: int, gva: int, kind: int) -> int:
        """Access until no fault is left; return the machine address."""
        if (vm, space) not in self.guest:  # a space gets its root table when it runs first
            self.open_space(vm, space)
        while True:
            try:
                return self.machine.access((vm, space), gva, kind)
            except PageFault as fault:
                if fault.protection:
                    raise
                self.counters.add(vm, "GUEST_FAULT")
                self.pager_touched = 0
                self.guest[vm, space].map(gva)
                for _ in range(self.pager_touched):
                    self.nested_fault(vm)
            except NestedFault as fault:
                if fault.protection or self.settings.backing == "start":
                    raise
                self.nested[vm].map(fault.gpa)
                self.nested_fault(vm)

    def open_space(self, vm: int, space: int) -> None:
        self.guest[vm, space] = self.new_space(vm, space)
        self.roots[vm, space] = self.guest[vm, space].root

    def nested_fault(self, vm: int) -> None:
        self.counters.add(vm, "NESTED_FAULT")
        self.exit(vm)

    def exit(self, vm: int) -> None:
        self.counters.add(vm, "EXIT")
        if self.settings.mode == "flush":
            self.machine.flush(self.settings.flush_nested)
        for i in range(self.settings.exit_code_pages):
            self.hypervisor_access(vm, self.hypervisor_code(i), SUPERVISOR + FETCH)
        for i in range(self.settings.exit_data_pages):
            kind = SUPERVISOR + (WRITE if i % 2 else READ)
            self.hypervisor_access(vm, self.hypervisor_data(vm, i), kind)
        if self.settings.mode == "flush":
            self.machine.flush(self.settings.flush_nested)

    def hypervisor_access(self, vm: int, gva: int, kind: int) -> None:
        row = self.vms + vm
        self.counters.add(row, "ACCESS")
        self.machine.access((self.vms, 0), gva, kind, row)

    # -- who runs next

    def run(self) -> dict[str, object]:
        while self.turn():
            pass
        for lp in self.lps:
            if lp.idle_since is not None:  # nobody came any more
                lp.counters.clock = max(lp.idle_since, lp.counted_from)
        return self.result()

    def turn(self) -> bool:
        """Let the processor with the lowest clock do its next step; False when all is done.

        It runs a block, or sees what follows on the last one, or takes somebody, or idles.
        """
        for lp in sorted(self.lps, key=lambda lp: (lp.clock, lp.vcpu is None, lp.number)):
            self.lp = lp
            if lp.vcpu and lp.has_run:
                self.decide(lp)
                return True
            if lp.vcpu:
                self.block(lp)
                return True
            if self.hand_over(lp):
                return True
            until = self.someone_can_run_at(lp)
            if until is not None:
                if lp.idle_since is None:
                    lp.idle_since = lp.clock
                lp.counters.clock = until
                return True
        return False

    def can_run(self, process: Process, vcpu: Vcpu, lp: Lp) -> bool:
        return (
            bool(process.left)
            and process.on in (None, vcpu)
            and process.free_at <= lp.clock
            and process.not_before_cycle <= lp.clock
            and process.not_before_access <= self.accesses
        )

    def may_run(self, vcpu: Vcpu, lp: Lp) -> bool:
        if vcpu.is_running:
            return False
        return not self.settings.pinned or vcpu.number % len(self.lps) == lp.number

    def next_vcpu(self, lp: Lp) -> Vcpu | None:
        """Return the vcpu after this processor's last, in cyclic order, that can run here."""
        after = 0 if lp.last is None else lp.last.number + 1
        for vcpu in self.vcpus[after:] + self.vcpus[:after]:
            if not self.may_run(vcpu, lp) or vcpu.free_at > lp.clock:
                continue
            if any(self.can_run(each, vcpu, lp) for each in self.processes[vcpu.vm]):
                return vcpu
        return None

    def next_process(self, vcpu: Vcpu, lp: Lp) -> Process | None:
        """Return the process after the chosen one, in cyclic order, that can run."""
        processes = self.processes[vcpu.vm]
        after = 0 if vcpu.chosen is None else processes.index(vcpu.chosen) + 1
        order = processes[after:] + processes[:after]
        return next((each for each in order if self.can_run(each, vcpu, lp)), None)

    def choose(self, vcpu: Vcpu, process: Process) -> None:
        if vcpu.chosen and vcpu.chosen.on is vcpu:
            vcpu.chosen.on = None
        vcpu.chosen, process.on = process, vcpu

    def someone_can_run_at(self, lp: Lp) -> int | None:
        """Return the clock to which a processor idles that nobody can run on now."""
        moments = [
            max(vcpu.free_at, process.free_at, process.not_before_cycle)
            for vcpu in self.vcpus
            if self.may_run(vcpu, lp)
            for process in self.processes[vcpu.vm]
            if process.left
            and process.on in (None, vcpu)
            and process.not_before_access <= self.accesses
        ]
        running = [other.clock for other in self.lps if other.vcpu]
        if running:
            moments.append(min(running))
        return min((moment for moment in moments if moment > lp.clock), default=None)

    def hand_over(self, lp: Lp) -> bool:
        """Give a processor that nobody runs on to the next vcpu; False if nobody can run."""
        vcpu = self.next_vcpu(lp)
        if vcpu is None:
            return False
        if lp.idle_since is not None:
            idle = lp.clock - lp.idle_since
            self.record(lp, (-1, -1, lp.idle_since, lp.clock, 0, "idle"))
            counted = lp.clock - max(lp.idle_since, lp.counted_from)
            lp.counters.cycles[vcpu.vm]["idle"] += counted
            lp.next_exit += idle  # the timers tick for a vm that runs
            lp.next_shootdown += idle
            lp.idle_since = None
        if lp.last not in (None, vcpu):
            self.switch(lp.last.vm, vcpu.vm)
        if vcpu.lp not in (None, lp):
            self.counters.add(vcpu.vm, "MIGRATION")
            if self.settings.migration_flush:
                self.machine.purge(vcpu.vm)
        vcpu.lp, vcpu.is_running = lp, True
        lp.vcpu = lp.last = vcpu
        lp.is_fresh = True
        if vcpu.chosen is None or not self.can_run(vcpu.chosen, vcpu, lp):
            self.choose(vcpu, self.next_process(vcpu, lp))
        lp.slice_began = lp.now(self.settings.quantum[1])
        lp.part_began = lp.clock, lp.done["accesses"]
        return True

    def switch(self, outgoing: int, incoming: int) -> None:
        self.counters.add(outgoing, "SWITCH")
        if self.settings.mode == "purge" and incoming != outgoing:
            self.machine.purge(outgoing)
        if self.settings.mode == "flush":
            self.machine.flush(self.settings.flush_nested)

    # -- blocks and turns

    def block(self, lp: Lp) -> None:
        """Run a block of the vcpu that has this processor."""
        vcpu, process = lp.vcpu, lp.vcpu.chosen
        if lp.is_fresh:
            self.answer_requests(running=None)
            lp.is_fresh = False
        self.step(lp, vcpu, process)
        vcpu.free_at = process.free_at = lp.clock
        lp.has_run = True

    def decide(self, lp: Lp) -> None:
        """Let the next stream, or the next vcpu, have this processor if it is time."""
        vcpu, process = lp.vcpu, lp.vcpu.chosen
        lp.has_run = False
        length, unit = self.settings.quantum
        is_over = lp.now(unit) - lp.slice_began >= length * self.vm[vcpu.vm].weight
        successor = self.go_on(lp, vcpu, process)
        if is_over or successor is not process:
            why = "quantum" if is_over else "turn"
            clock, accesses = lp.part_began
            made = lp.done["accesses"] - accesses
            number = self.processes[vcpu.vm].index(process)
            why = why if process.left else "end"
            self.record(lp, (vcpu.vm, number, clock, lp.clock, made, why))
            lp.part_began = lp.clock, lp.done["accesses"]
        if is_over or successor is None:
            lp.vcpu, vcpu.is_running = None, False
            self.hand_over(lp)

    def step(self, lp: Lp, vcpu: Vcpu, process: Process) -> None:
        """Run a block of a process and what is due at its end; take it off its turn."""
        vm = vcpu.vm
        unit = self.vm[vm].turn[1]
        before = lp.now(unit)
        self.run_block(vcpu, process)
        self.timer_exits(vm)
        self.shootdowns(vm)
        self.answer_requests(running=vm)
        vcpu.used += lp.now(unit) - before
        if not self.warm and self.accesses >= self.settings.warm_up:
            self.warm = True
            for each in self.lps:
                each.counters.zero()
                each.counted_from = each.clock

    def go_on(self, lp: Lp, vcpu: Vcpu, process: Process) -> Process | None:
        """Return who is next in the vcpu, this one if its turn is not over; None if nobody can."""
        its = self.vm[vcpu.vm]
        alone = not its.processes
        if process.left and (alone or vcpu.used < its.turn[0] * process.weight):
            return process
        vcpu.used = 0
        successor = self.next_process(vcpu, lp)
        if successor is not None:
            self.choose(vcpu, successor)
        return successor

    def record(self, lp: Lp, row: tuple[int, int, int, int, int, str]) -> None:
        self.slices.append(row)
        self.slices_of[lp.number].append(row)

    def run_block(self, vcpu: Vcpu, process: Process) -> None:
        vm, block = vcpu.vm, process.left.pop(0)
        self.lp.may_hold.add(vm)
        space = process.space + process.stride * block[0][0]
        if vcpu.loaded not in (None, space):
            self.counters.add(vm, "CR3_LOAD")
            if not self.vm[vm].pcid:
                self.machine.purge(vm)
        vcpu.loaded = space
        instructions = 0
        window = self.machine.window
        window.begin_block()
        for space, _, gva, kind in block:
            if side_of(kind) or not process.has_fetches:
                instructions += 1
                if self.machine.overlaps:
                    window.begin_instruction(vm)
            self.access(vm, process.space + process.stride * space, gva, kind)
        window.wait_for_all()
        self.counters.add(vm, "ACCESS", len(block))
        if self.machine.overlaps:
            self.counters.counts[vm]["INSTRUCTION"] += instructions
        else:
            self.counters.add(vm, "INSTRUCTION", instructions)
        self.lp.done["accesses"] += len(block)
        self.lp.done["instructions"] += instructions
        self.accesses += len(block)

    # -- timers and shootdowns

    def timer_exits(self, vm: int) -> None:
        interval = self.settings.exit_interval
        if self.native or not interval or self.lp.clock < self.lp.next_exit:
            return
        due = (self.lp.clock - self.lp.next_exit) // interval + 1
        self.lp.next_exit += due * interval
        for _ in range(due):
            self.exit(vm)

    def shootdowns(self, vm: int) -> None:
        interval = self.settings.shootdown_interval
        if self.native or not interval or self.lp.clock < self.lp.next_shootdown:
            return
        due = (self.lp.clock - self.lp.next_shootdown) // interval + 1
        self.lp.next_shootdown += due * interval
        for _ in range(due):
            self.shootdown(vm)

    def shootdown(self, vm: int) -> None:
        self.exit(vm)
        self.invalidate(vm)
        self.counters.add(vm, "SHOOTDOWN")
        for other in self.lps:
            if other is not self.lp and vm in other.may_hold:
                self.counters.add(vm, "SHOOTDOWN_TARGET")
                other.requests.add(vm)

    def answer_requests(self, running: int | None) -> None:
        """Drop what others asked this processor to; the vm that is interrupted for it exits."""
        for vm in sorted(self.lp.requests):
            if vm == running:
                self.exit(vm)
            self.invalidate(vm)
        self.lp.requests.clear()

    def invalidate(self, vm: int) -> None:
        self.machine.invalidate(vm)
        self.lp.may_hold.discard(vm)
        self.counters.add(vm, "INVALIDATION")

    # -- what came of it

    def result(self) -> dict[str, object]:
        every = [lp.counters for lp in self.lps]
        rows, vms = range(2 * self.vms), range(self.vms)

        def summed(name: str, rows: Iterable[int] = rows) -> list[dict[object, int]]:
            return [dict(sum((getattr(c, name)[row] for c in every), Counter())) for row in rows]

        return {
            "counts": summed("counts"),  # [row][event]
            "hits": summed("hits"),  # [row][cache name]
            "l1_misses": [  # [row][data, fetch]
                [sum(c.l1_misses[row][side] for c in every) for side in (0, 1)] for row in rows
            ],
            "histogram": summed("histogram"),  # [row][references]
            "walk_latency": summed("walk_latency"),  # [row][bucket]
            "reads": summed("reads"),  # [row][dimension and cache]
            "misses": summed("misses"),  # [row][why]
            "evictions": [  # [by][of]; the last one is the hypervisor
                [sum(c.evictions[by][of] for c in every) for of in range(self.vms + 1)]
                for by in range(self.vms + 1)
            ],
            "cycles": summed("cycles", vms),  # [vm][cause]
            "clock": max(lp.clock for lp in self.lps),  # warm-up included
            "clocks": [lp.clock - lp.counted_from for lp in self.lps],
            "processors": [[dict(+vm) for vm in c.cycles] for c in every],  # [lp][vm][cause]
            "slices": self.slices,  # (vm, process, begin, end, accesses, why); vm -1: idle
            "slices_of": self.slices_of,  # [lp], likewise
            "memory": self.memory,  # {machine address: word}
            "roots": self.roots,  # {context: address of its root table}
            "nested_roots": self.nested_roots,  # {vm: machine address}
            "guest_words": {context: tables.words() for context, tables in self.guest.items()},
            "nested_words": {vm: tables.words() for vm, tables in self.nested.items()},
            "hypervisor_words": {} if self.native else self.hypervisor.words(),
        }
