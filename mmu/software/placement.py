"""Where the frames of page maps are in the machine of a run.

A guest's memory begins at guest-physical address 0 and is as large as configured. A page map may name
frames beyond it, as those of a server with 512 GB: the guest has the 2 MiB regions that they are in as
well, and nothing else there, so that its memory need not be as large as the server's. Frames of the map
are given to nobody else: tables, and pages that the map lacks, get frames of the guest's memory that the
map does not name.

The root partition's guest-physical addresses are machine addresses: its frames must be the host's, and
not the reserve's. Natively, a program owns a part of machine memory, and its frames are counted from that
part's beginning; those beyond its size come after the host's memory, for each program in a place of its
own.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from mmu.config import RunConfig, VmConfig
from mmu.errors import InputError
from mmu.hardware.bits import GUEST_PHYSICAL_BITS, LARGE_BYTES, LARGE_FRAMES, PAGE_BYTES, PAGE_SHIFT
from mmu.hardware.rows import Words
from mmu.software.frames import FIRST_VM, Frames, claim
from mmu.software.guest import Bytes
from mmu.software.world import FIRST_GUEST_POOL, HOST_POOL, ROOT
from mmu.units import format_size

MACHINE_BITS = 52  # of an entry's address


class PageMapLike(Protocol):
    """What a run needs of a page map; `mmu.trace.pagemap.pages.PageMap` is one."""

    @property
    def vpn(self) -> Words:
        """Page numbers, ascending within a space."""
        ...

    @property
    def gfn(self) -> Words:
        """Frame numbers."""
        ...

    @property
    def size(self) -> Bytes:
        """1 where a page is of 2 MiB."""
        ...

    @property
    def spaces(self) -> list[int]:
        """The address spaces that have pages."""
        ...

    @property
    def frames(self) -> int:
        """Number after that of the highest frame."""
        ...

    def of(self, space: int) -> "PageMapLike":
        """Return the pages of one space."""
        ...


class Pages(NamedTuple):
    """Pages of one space, and where they are in this run's machine."""

    vpn: Words
    gfn: Words
    size: Bytes


def distinct(values: Words) -> Words:
    """Return the values without repetition, ascending.

    `numpy.unique` of 10 million frame numbers in no order takes 15 s, this 1 s (NumPy 2.4.6).
    """
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=-1) != 0]


class Placement:
    """The page maps of a run's virtual machines, checked against its memory.

    Parameters
    ----------
    config : RunConfig
        The run.
    names : list of str
        Of the virtual machines, by number.
    vms : list of VmConfig or None
        Likewise.
    maps : mapping
        Page maps by number of virtual machine.

    Raises
    ------
    InputError
        A frame cannot be where the map says, or the host has too little memory for them.
    """

    def __init__(
        self,
        config: RunConfig,
        names: list[str],
        vms: list[VmConfig | None],
        maps: Mapping[int, PageMapLike],
    ) -> None:
        self.config, self.names, self.vms = config, names, vms
        self.maps = dict(sorted(maps.items()))
        self.native = config.mode == "native"
        self.beyond = self._beyond()
        for vm, page_map in self.maps.items():
            self._check(vm, page_map)
        if not self.native and config.backing == "start":
            self._check_fits()

    def has_large(self, vm: int) -> bool:
        """Tell whether a virtual machine's page map has pages of 2 MiB."""
        return vm in self.maps and bool(self.maps[vm].size.any())

    def _memory(self, vm: int) -> int:
        """Return how many frames a virtual machine's own memory has; the root's is the host's."""
        setting = self.vms[vm]
        assert setting is not None
        of_host = vm == ROOT and not self.native
        return (self.config.memory if of_host else setting.memory) >> PAGE_SHIFT

    def _beyond(self) -> dict[int, int]:
        """Return, by virtual machine, from where its frames beyond its memory are counted natively."""
        end = self.config.memory >> PAGE_SHIFT
        begins = {}
        for vm, page_map in self.maps.items():
            begins[vm] = end
            end += -(-page_map.frames // LARGE_FRAMES) * LARGE_FRAMES
        return begins

    def _check(self, vm: int, page_map: PageMapLike) -> None:
        highest = (page_map.frames << PAGE_SHIFT) - 1
        name = self.names[vm]
        if self.native:
            if (self.beyond[vm] + page_map.frames) << PAGE_SHIFT > 1 << MACHINE_BITS:
                raise InputError(
                    f"{name}: its page map has a frame at {highest:#x}, which leaves no machine "
                    f"address of {MACHINE_BITS} bits for it natively; accepted: fewer machines at once"
                )
        elif vm == ROOT:
            reserve, memory = self.config.reserve, self.config.memory
            lowest = int(page_map.gfn.min()) << PAGE_SHIFT
            if lowest < reserve or highest >= memory:
                wrong = lowest if lowest < reserve else highest
                raise InputError(
                    f"{name}: its page map has a frame at {wrong:#x}, and the root partition's addresses "
                    f"are machine addresses; accepted: from {reserve:#x}, where the hypervisor's reserve "
                    f"ends, to {memory - 1:#x}; choose less with --reserve or more with --host-memory"
                )
        elif highest >> GUEST_PHYSICAL_BITS:
            raise InputError(
                f"{name}: its page map has a frame at {highest:#x}; accepted: guest-physical addresses "
                f"of {GUEST_PHYSICAL_BITS} bits, which 4-level nested tables translate"
            )

    def extra(self, vm: int) -> int:
        """Return the bytes that back the frames of a page map beyond the machine's memory."""
        setting, page_map = self.vms[vm], self.maps[vm]
        assert setting is not None
        outside = page_map.gfn >= self._memory(vm)
        gfn, size = page_map.gfn[outside], page_map.size[outside]
        regions = distinct(gfn // LARGE_FRAMES)
        if setting.nested_pages != "4k":
            return len(regions) * LARGE_BYTES
        large = distinct(gfn[size != 0] // LARGE_FRAMES)
        small = distinct(gfn[size == 0])
        if len(large):
            place = np.minimum(np.searchsorted(large, small // LARGE_FRAMES), len(large) - 1)
            small = small[large[place] != small // LARGE_FRAMES]
        return len(large) * LARGE_BYTES + len(small) * PAGE_BYTES

    def _check_fits(self) -> None:
        """Refuse maps whose frames the host cannot all back from the start."""
        extra = {vm: self.extra(vm) for vm in self.maps if vm != ROOT}
        asked = sum(vm.memory for vm in self.config.vms) + sum(extra.values())
        left = self.config.memory - self.config.reserve
        if asked > left and any(extra.values()):
            vm = max(extra, key=lambda number: extra[number])
            raise InputError(
                f"--host-memory: found {format_size(self.config.memory)}, of which {format_size(left)} "
                f"are left by the reserve for {format_size(asked)} of virtual machines: the page map of "
                f"{self.names[vm]} alone has frames in {format_size(extra[vm])} beyond its memory; "
                "accepted: enough to back them all, less memory for each, or --nested-pages 4k"
            )

    def claim_frames(self, frames: Frames) -> None:
        """Take the frames of all maps out of the pools, so that nobody else is given them."""
        for vm, page_map in self.maps.items():
            pool, origin = FIRST_GUEST_POOL + vm, 0
            if vm == ROOT and not self.native:
                pool, origin = HOST_POOL, self.config.reserve >> PAGE_SHIFT
            inside = page_map.gfn < self._memory(vm)
            claim(frames, pool, page_map.gfn[inside] - origin, page_map.size[inside], FIRST_VM + vm)

    def by_space(self, frames: Frames) -> Iterator[tuple[int, int, Pages]]:
        """Yield virtual machine, space and pages, in ascending order of the first two."""
        for vm, page_map in self.maps.items():
            base = int(frames.base[FIRST_GUEST_POOL + vm])  # 0 under a hypervisor
            for space in page_map.spaces:
                part = page_map.of(space)
                gfn = part.gfn
                if self.native:
                    inside = gfn < self._memory(vm)
                    gfn = gfn + np.where(inside, base, self.beyond[vm])
                vpn, size = np.ascontiguousarray(part.vpn), np.ascontiguousarray(part.size)
                yield vm, space, Pages(vpn, np.ascontiguousarray(gfn), size)
