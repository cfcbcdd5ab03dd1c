"""From a run's configuration to a machine that has booted: pools, spaces, schedule."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmu.config import DataCaches, RunConfig, VmConfig
from mmu.errors import InputError, MmuError, OutOfMemory
from mmu.hardware.bits import LARGE_BYTES, LARGE_FRAMES, PAGE_BYTES
from mmu.hardware.check import STALE_FIELDS
from mmu.hardware.entry import PRESENT, WRITABLE, X86
from mmu.hardware.geometry import (
    Counted,
    build_machine,
    lazy_words,
    processor_model,
    processor_rows,
)
from mmu.hardware.machine import (
    FAULT_GPA,
    FETCH,
    INSTRUCTION_CYCLES,
    NO_CONTEXT,
    READ_ACCESS,
    SHARED,
    SUPERVISOR,
    WINDOW,
    WRITE_ACCESS,
    Machine,
)
from mmu.hardware.overlap import walks_overlap
from mmu.hardware.rows import CONTEXTS
from mmu.hardware.rules import with_ept, x86_rules
from mmu.software.costs import costs_of, prices
from mmu.software.frames import Frames, break_regions, pools
from mmu.software.guest import back_found, map_found, map_pages
from mmu.software.hypervisor import open_partition
from mmu.software.placement import PageMapLike, Placement
from mmu.software.turns import (
    AT_ACCESSES,
    AT_CYCLES,
    CHOSEN,
    CURRENT,
    LAST,
    LP,
    MODES,
    NEXT_EXIT,
    NEXT_SHOOTDOWN,
    NOBODY,
    NOW_FIELDS,
    RAN_ON,
    RUNS_ON,
    SEEN,
    SLICE_FIELDS,
    SPACE,
    TAKEN_BY,
    TAKEN_FIELDS,
    UNITS,
    VCPU_FIELDS,
    VM,
    WARM,
    WHOLE_FIELDS,
    Schedule,
)
from mmu.software.world import (
    FIRST_GUEST_POOL,
    HOST_POOL,
    MAPPED,
    OFF_LIMITS,
    OUT_OF_MEMORY,
    POLICIES,
    RESERVE_POOL,
    ROOT,
    RUNAWAY,
    RUNAWAY_SHOOTDOWNS,
    SHORT_OWNER,
    SHORT_POOL,
    SHORT_SIZE,
    SMALL_PAGES,
    World,
)
from mmu.strict import MOST_COUNT
from mmu.turns import PagePolicy, ProcessConfig, Quantum, Start

HYPERVISOR_CONTEXT = 0
# Where its code and data stand in its own space: tables apart, as in kernels.
HYPERVISOR_CODE = 0xFFFF_8000_0000_0000 - (1 << 64)
HYPERVISOR_DATA = 0xFFFF_8880_0000_0000 - (1 << 64)


def overlaps(config: RunConfig) -> bool:
    """Tell whether walks overlap with what follows."""
    return config.window > 0


class Stream(NamedTuple):
    """What one process replays: its virtual machine's number, and how it is set up."""

    vm: int
    setting: ProcessConfig


class Host:
    """A booted host: the machine, its software, and who is who."""

    def __init__(
        self, config: RunConfig, page_maps: Mapping[int, PageMapLike] | None = None
    ) -> None:
        self.config = config
        self.native = config.mode == "native"
        self.names = ["root", *(vm.name for vm in config.vms)]
        self.vms: list[VmConfig | None] = [config.root, *config.vms]
        self.streams = [
            Stream(vm, process)
            for vm, setting in enumerate(self.vms)
            for process in (setting.streams if setting else ())
        ]
        self.placement = Placement(config, self.names, self.vms, page_maps or {})
        self.groups = processor_rows(config.processor, self._page_sizes())
        self.row_names = [row.name for group in self.groups for row in group]
        owners = len(self.vms) + 1
        self.machine: Machine = build_machine(
            self.groups,
            owners,
            lazy_words(config.memory),
            with_ept(x86_rules(), dirty=config.nested_dirty),
            lps=config.lps,
            model=self._model(),
            caches=self.data_caches,
            counted=Counted(walks=True, conflicts=config.conflicts),
            sizes=self._page_sizes(),
            split_l2=config.processor.l2_fetch is not None,
            overlap=overlaps(config),
        )
        self.world = self._world()
        self.contexts: dict[tuple[int, int], int] = {}
        self._open_hypervisor()
        self._map_found()
        self.costs = costs_of(config, self.machine.model[0])
        self.schedule = self._schedule()

    @property
    def data_caches(self) -> DataCaches | None:
        """What table reads go through; None if each takes one latency."""
        return None if self.config.table_reads == "fixed" else self.config.processor.data_caches

    def _model(self) -> NDArray[np.int64]:
        config = self.config
        model = processor_model(config.processor, self.data_caches)
        model[INSTRUCTION_CYCLES] = config.costs.cycles_per_instruction
        model[WINDOW] = config.window
        model[SHARED] = config.table_reads == "shared"
        return model

    def _page_sizes(self) -> tuple[str, ...]:
        """Page sizes that a translation of this run can have."""
        for number, process in self.streams:
            vm = self.vms[number]
            assert vm is not None
            large = process.guest_pages != "4k" or self.placement.has_large(number)
            if large and (self.native or vm.nested_pages != "4k"):
                return ("4k", "2m")
        return ("4k",)

    def _world(self) -> World:
        config, vms = self.config, self.vms
        reserve = config.reserve // LARGE_BYTES
        sizes = [vm.memory // LARGE_BYTES if vm else 0 for vm in vms]
        if not self.native:
            sizes[ROOT] = 0  # its guest-physical memory is machine memory
        bases = np.zeros(len(sizes), np.int64)
        if self.native:
            # Without a hypervisor each program owns a part of machine memory, and translation ends there.
            bases = (reserve + np.cumsum([0, *sizes[:-1]])) * LARGE_FRAMES
            self._check_fits(sizes)
        frames = pools(
            [0, reserve * LARGE_FRAMES, *bases.tolist()],
            [reserve, config.memory // LARGE_BYTES - reserve, *sizes],
        )
        self._fragment(frames, sizes)
        self.placement.claim_frames(frames)
        pool = [FIRST_GUEST_POOL + vm for vm in range(len(vms))]
        if not self.native:
            pool[ROOT] = HOST_POOL
        leaf = [X86.leaf] * len(vms) + [PRESENT | WRITABLE]
        world = World(
            frames=frames,
            pool=np.array([*pool, RESERVE_POOL], np.int64),
            guest_policy=np.full(CONTEXTS, SMALL_PAGES, np.int64),
            nested_policy=self._nested_policies(),
            nested_root=np.full(len(vms) + 1, -1, np.int64),
            identity=np.zeros(len(vms) + 1, np.int64),
            leaf=np.array(leaf, np.int64),
            first_touch=np.array([config.backing == "first-touch"], np.int64),
            mapped=np.zeros((len(vms) + 1, len(MAPPED)), np.int64),
            shortage=np.zeros(3, np.int64),
        )
        if not self.native:
            world.identity[ROOT] = 1
            for vm in range(len(vms)):
                if self.vms[vm]:
                    self._check(open_partition(world, vm), world)
        return world

    def _check_fits(self, sizes: list[int]) -> None:
        left = self.config.memory - self.config.reserve
        for vm, regions in enumerate(sizes):
            asked = regions * LARGE_BYTES
            if asked > left:
                raise OutOfMemory(
                    self.names[vm], asked, left,
                    f"{self.names[vm]}: out of memory: asked for {asked} bytes, {left} bytes of the "
                    "host's are left; choose less with --memory or more with --host-memory",
                )  # fmt: skip
            left -= asked

    def _nested_policies(self) -> NDArray[np.int64]:
        chosen = [POLICIES[vm.nested_pages] if vm else SMALL_PAGES for vm in self.vms]
        return np.array([*chosen, SMALL_PAGES], np.int64)

    def _fragment(self, frames: Frames, sizes: list[int]) -> None:
        """Break regions by the configured shares; frame 0 of every space is never given out."""
        config = self.config
        first = np.zeros(1, np.int64)
        break_regions(frames, RESERVE_POOL, first, first)
        shares = [(HOST_POOL, config.host_fragmentation)]
        for vm, setting in enumerate(self.vms):
            if setting and sizes[vm]:
                shares.append((FIRST_GUEST_POOL + vm, setting.fragmentation))
        for pool, share in shares:
            regions = int(frames.begin[pool + 1] - frames.begin[pool])
            random = np.random.default_rng([config.seed, pool])
            chosen = random.permutation(regions)[: int(share * regions)]
            taken = random.integers(0, LARGE_FRAMES, len(chosen))
            if pool >= FIRST_GUEST_POOL:
                taken[chosen == 0] = 0
                if 0 not in chosen:
                    chosen, taken = np.append(chosen, 0), np.append(taken, 0)
            order = np.argsort(chosen)
            break_regions(frames, pool, chosen[order], taken[order])

    def _open_hypervisor(self) -> None:
        """Map the pages that the hypervisor touches at exits, in a space of its own."""
        config = self.config
        shared = 0 if self.native else config.exit_code_pages
        own = 0 if self.native else config.exit_data_pages
        code = HYPERVISOR_CODE + PAGE_BYTES * np.arange(shared, dtype=np.int64)
        data = HYPERVISOR_DATA + PAGE_BYTES * np.arange(own * len(self.vms), dtype=np.int64)
        by_vm = data.reshape(len(self.vms), own)
        self.footprint = np.hstack([np.broadcast_to(code, (len(self.vms), shared)), by_vm])
        data_kinds = [WRITE_ACCESS if i % 2 else READ_ACCESS for i in range(own)]
        kinds = [FETCH] * shared + data_kinds
        self.footprint_kind = np.array([SUPERVISOR + kind for kind in kinds], np.uint8)
        if self.native:
            return
        pages = np.concatenate([code, data])
        self.check(map_pages(self.machine, self.world, 0, HYPERVISOR_CONTEXT, pages))

    def _map_found(self) -> None:
        """Map the pages of page maps; that was before the run, so that it counts for nothing."""
        for vm, space, pages in self.placement.by_space(self.world.frames):
            context = self.context(vm, space, self._pages_in(vm, space))
            vpn, gfn, size = pages
            self.check(map_found(self.machine, self.world, 0, context, vpn, gfn, size))
            if self.native or self.config.backing != "start":
                continue
            order = np.argsort(gfn, kind="stable")
            self.check(back_found(self.machine, self.world, 0, vm, gfn[order], size[order]))
        self.machine.events[:] = 0

    def _pages_in(self, vm: int, space: int) -> PagePolicy:
        """Return the pages that the guest maps in a space where it goes by its own policy."""
        setting = self.vms[vm]
        assert setting is not None
        own = [process.guest_pages for process in setting.processes if process.space == space]
        return (own[0] if own else None) or setting.guest_pages

    def _schedule(self) -> Schedule:
        config = self.config
        vms, lps = len(self.vms), config.lps
        now = np.zeros((lps, NOW_FIELDS), np.int64)
        now[:, NEXT_EXIT] = exits = self._interval(config.exits_per_second)
        now[:, NEXT_SHOOTDOWN] = shootdowns = self._interval(config.shootdowns_per_second)
        now[:, CURRENT], now[:, LAST], now[:, SEEN] = NOBODY, -1, -1
        whole = np.zeros(WHOLE_FIELDS, np.int64)
        whole[WARM] = not config.warm_up
        owners = [vm for vm, _ in self.streams]
        taken = np.zeros((len(self.streams), TAKEN_FIELDS), np.int64)
        taken[:, TAKEN_BY] = -1
        start = self._starts()
        return Schedule(
            whole=whole,
            now=now,
            charged=np.zeros((lps, vms), np.int64),
            idle=np.zeros((lps, vms), np.int64),
            holds=np.zeros((lps, vms), np.int64),
            requested=np.zeros((lps, vms), np.int64),
            cost=prices(self.costs, walks_overlap(self.machine)),
            mode=MODES.index(config.mode),
            unit=UNITS.index(config.quantum.unit),
            length=np.array(
                [config.quantum.value * (vm.weight if vm else 1) for vm in self.vms], np.int64
            ),
            vcpu=self._vcpus(),
            stream=np.searchsorted(owners, np.arange(vms + 1)),
            taken=taken,
            start=start,
            last_start=int(start[:, AT_ACCESSES].max()),
            turn=np.array([self._turn(*stream) for stream in self.streams], np.int64),
            turn_unit=np.array([self._turn_unit(vm) for vm in range(vms)], np.int64),
            pinned=int(config.pinned),
            migration_flush=int(config.migration_flush),
            exit_interval=exits,
            shootdown_interval=shootdowns,
            flush_nested=int(config.processor.flush_nested),
            warm_up=config.warm_up,
            footprint=np.ascontiguousarray(self.footprint),
            footprint_kind=self.footprint_kind,
            hypervisor=HYPERVISOR_CONTEXT,
            nowhere=np.zeros(0, np.int64),
            pcid=np.array([vm is None or vm.pcid for vm in self.vms], np.int64),
            stale=np.zeros(STALE_FIELDS, np.int64),
            again=np.zeros(1, np.int64),
            again_kind=np.zeros(1, np.uint8),
            slices=np.zeros((0, SLICE_FIELDS), np.int64),
        )

    def _interval(self, per_second: int) -> int:
        """Return the cycles from one event of the hypervisor's timers to the next; 0: there are none."""
        if not per_second or self.native:
            return 0
        return max(self.config.processor.frequency_hz // per_second, 1)

    def _vcpus(self) -> NDArray[np.int64]:
        """Return the virtual processors of all machines, in their order, before any has run."""
        owners = [vm for vm, its in enumerate(self.vms) if its for _ in range(its.vcpus)]
        vcpus = np.zeros((len(owners), VCPU_FIELDS), np.int64)
        vcpus[:, VM] = owners
        vcpus[:, [RUNS_ON, RAN_ON, CHOSEN]] = -1
        vcpus[:, SPACE] = NO_CONTEXT
        return vcpus

    def _turn_unit(self, vm: int) -> int:
        turn = getattr(self.vms[vm], "turn", None)
        return UNITS.index(turn.unit) if isinstance(turn, Quantum) else 0

    def _turn(self, vm: int, process: ProcessConfig) -> int:
        """Return how long a process may run before its guest's scheduler looks at the others."""
        turn = getattr(self.vms[vm], "turn", None)
        if not isinstance(turn, Quantum):
            return MOST_COUNT  # it is alone
        return min(turn.value * process.weight, MOST_COUNT)

    def _starts(self) -> NDArray[np.int64]:
        """Return what has to have come before each stream may run: its machine's start and its own."""
        starts = np.zeros((len(self.streams), 2), np.int64)
        for row, (vm, process) in zip(starts, self.streams, strict=True):
            for begins in (getattr(self.vms[vm], "start", None), process.start):
                if isinstance(begins, Start):
                    field = AT_CYCLES if begins.unit == "cycles" else AT_ACCESSES
                    row[field] = max(row[field], begins.value)
        return starts

    def context(self, vm: int, space: int, guest_pages: PagePolicy = "4k") -> int:
        """Return the context of a virtual machine's address space, interned at its first mention."""
        key = (vm, space)
        if key not in self.contexts:
            context = len(self.contexts) + 1
            if context >= CONTEXTS:
                raise InputError(
                    f"{self.names[vm]}: found address space {space}, number {context} of this run; "
                    f"accepted: up to {CONTEXTS - 1} in all; replay fewer traces at once"
                )
            setting = self.vms[vm]
            self.machine.vm[context] = vm
            if setting is None or setting.pcid:
                self.machine.pcid[context] = sum(owner == vm for owner, _ in self.contexts)
            self.machine.nested[context] = self.world.nested_root[vm]
            self.machine.nested_tag[context] = NO_CONTEXT if self.native else vm
            self.world.guest_policy[context] = POLICIES[guest_pages]
            self.contexts[key] = context
        return self.contexts[key]

    def check(self, status: int) -> None:
        """Raise what a kernel's negative status stands for."""
        self._check(status, self.world)

    def _check(self, status: int, world: World) -> None:
        if status >= 0:
            return
        if status == OUT_OF_MEMORY:
            raise self._out_of_memory(world)
        if status == OFF_LIMITS:
            gpa = int(self.machine.fault[self.schedule.whole[LP], FAULT_GPA])
            raise MmuError(
                f"root: touched machine address {gpa:#x}, which the hypervisor reserves "
                f"(0x0 to {self.config.reserve - 1:#x}) or the host has not"
            )
        if status == RUNAWAY:
            raise InputError(
                f"--exits-per-second: found {self.config.exits_per_second}: one falls due every "
                f"{self.schedule.exit_interval} cycles, and the misses of the hypervisor's own pages "
                "make each take longer than that; accepted: fewer, or --exit-code-pages and "
                "--exit-data-pages below what they are"
            )
        if status == RUNAWAY_SHOOTDOWNS:
            raise InputError(
                f"--shootdowns-per-second: found {self.config.shootdowns_per_second}: one falls due "
                f"every {self.schedule.shootdown_interval} cycles, and what it costs takes longer than "
                "that; accepted: fewer, or costs.shootdown below what it is (--set)"
            )
        raise AssertionError(f"a fault that no pager can mend: status {status}")

    def _out_of_memory(self, world: World) -> OutOfMemory:
        owner, pool = int(world.shortage[SHORT_OWNER]), int(world.shortage[SHORT_POOL])
        asked = LARGE_BYTES if world.shortage[SHORT_SIZE] else PAGE_BYTES
        left = int(world.frames.left[pool]) * PAGE_BYTES
        name = [*self.names, "hypervisor"][owner]
        where, remedy = "its own memory", "give it more with --memory"
        if pool == RESERVE_POOL:
            where, remedy = "the hypervisor's reserve", "give it more with --reserve"
        elif pool == HOST_POOL:
            where, remedy = "the host's memory", "give it more with --host-memory"
        if asked == LARGE_BYTES and left >= asked:
            remedy = "no 2 MiB of it are free in one piece: use auto pages, or less fragmentation"
        return OutOfMemory(
            name, asked, left,
            f"{name}: out of memory: asked for {asked} bytes of {where}, {left} bytes are left; {remedy}",
        )  # fmt: skip
