"""What is done to page tables and a processor, one operation after the other.

An `Operation` has a name and arguments, so that a model of one's own is driven by

    for operation in operations:
        getattr(model, operation.name)(**operation.arguments)

`Session` is such a model, and a right one: after each change of tables it invalidates what it must.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mmu.config import Processor
from mmu.errors import InputError
from mmu.testing.layouts import Layout
from mmu.testing.processor import KEEP, Access, CheckedProcessor
from mmu.testing.tables import Tables

CHANGES = ("map", "unmap", "protect", "split", "merge", "move")
VM_IDS = (1, 2)


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes
    ----------
    name : str
        A method of `Session`.
    arguments : dict
        Its arguments, by name.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the call, with addresses in hex."""
        shown = (
            f"{name}={value:#x}" if isinstance(value, int) and value > 9 else f"{name}={value!r}"
            for name, value in self.arguments.items()
        )  # fmt: skip
        return f"{self.name}({', '.join(shown)})"


class Session:
    """A layout's tables and a processor, of which every change is followed by its invalidation.

    A change that cannot be made (there is nothing to unmap) is none.

    Parameters
    ----------
    layout : Layout
        The tables. Space n has PCID n; its VM is the one that was entered.
    processor : str or Processor
        As of `CheckedProcessor`.
    pcide, tagged : bool
        As of `CheckedProcessor`.
    forget : iterable of str
        Changes, such as "split", and dimensions, such as "nested", that are not followed by an
        invalidation: "split" forgets it after any, "nested move" after a move in nested tables.
    """

    def __init__(
        self,
        layout: Layout,
        processor: str | Processor = "skylake-sp",
        *,
        pcide: bool = True,
        tagged: bool = True,
        forget: Iterable[str] = (),
    ) -> None:
        self.layout, self.forget = layout, set(forget)
        self.cpu = CheckedProcessor(
            layout.memory.view, processor, control=layout.control, pcide=pcide, tagged=tagged
        )
        self.pointer = layout.nested.pointer if layout.nested else None
        self.space, self.vm_id = 0, VM_IDS[0]
        self.made: list[Access] = []
        self.enter(self.vm_id)

    def run(self, operations: Iterable[Operation]) -> list[Access]:
        """Do one operation after the other; returns how the accesses among them ended."""
        self.made = []
        for operation in operations:
            getattr(self, operation.name)(**operation.arguments)
        return self.made

    # --- what runs -------------------------------------------------------------------------------

    def access(self, space: int, gva: int, access: str, user: bool) -> None:
        """Make an access in a space, after a switch to it where another is current."""
        if space != self.space:
            self.switch(space, keep=True)
        self.made.append(self.cpu.access(gva, access, user))

    def switch(self, space: int, keep: bool) -> None:
        """Load the CR3 of a space; `keep`: with bit 63, if there are PCIDs."""
        self.space = space
        self.cpu.load_cr3(self._cr3() | (KEEP if keep and self.cpu.pcide else 0))

    def enter(self, vm_id: int) -> None:
        """Exit, and enter a VM: on a native layout nothing but the exit is there to do."""
        if self.layout.nested is None:
            self.cpu.load_cr3(self._cr3())
            return
        self.cpu.exit()
        self.vm_id = vm_id
        self.cpu.enter(vm_id, self.pointer, self._cr3())

    # --- changes ---------------------------------------------------------------------------------

    def map(
        self, dimension: str, space: int, address: int, frame: int, size: str, rights: str
    ) -> None:
        """Map a page where there is none, in guest tables of a space or in nested ones."""
        self._change("map", dimension, space, address, frame, size, rights)

    def unmap(self, dimension: str, space: int, address: int) -> None:
        """Unmap what maps an address."""
        self._change("unmap", dimension, space, address)

    def protect(self, dimension: str, space: int, address: int, rights: str) -> None:
        """Give a page other rights."""
        self._change("protect", dimension, space, address, rights)

    def split(self, dimension: str, space: int, address: int) -> None:
        """Map a large page by 512 smaller ones."""
        self._change("split", dimension, space, address)

    def merge(self, dimension: str, space: int, address: int) -> None:
        """Map 512 pages by a larger one."""
        self._change("merge", dimension, space, address)

    def move(self, dimension: str, space: int, address: int, frame: int) -> None:
        """Map a page to another frame, aligned as it must be."""
        tables = self._tables(dimension, space)
        leaf = tables and tables.leaf(address)
        if leaf:
            self._change("move", dimension, space, address, frame & -leaf.size)

    # --- invalidations that nobody needs: they change no answer ---------------------------------

    def invlpg(self, gva: int) -> None:
        """INVLPG."""
        self.cpu.invlpg(gva)

    def invpcid(self, kind: int, pcid: int, gva: int) -> None:
        """INVPCID; without PCIDs, of PCID 0."""
        self.cpu.invpcid(kind, pcid if self.cpu.pcide else 0, gva)

    def invvpid(self, kind: int, vm_id: int, gva: int) -> None:
        """INVVPID."""
        self.cpu.invvpid(kind, vm_id, gva)

    def invept(self, kind: int) -> None:
        """INVEPT of the layout's tables."""
        self.cpu.invept(kind, self.layout.nested.root if self.layout.nested else 0)

    def tlb_control(self, code: int, vm_id: int) -> None:
        """VMRUN's TLB_CONTROL."""
        self.cpu.tlb_control(code, vm_id)

    def invlpga(self, gva: int, asid: int) -> None:
        """INVLPGA."""
        self.cpu.invlpga(gva, asid)

    # --- within ----------------------------------------------------------------------------------

    def _cr3(self) -> int:
        return self.layout.spaces[self.space].root | (self.space if self.cpu.pcide else 0)

    def _tables(self, dimension: str, space: int) -> Tables | None:
        return self.layout.nested if dimension == "nested" else self.layout.spaces[space]

    def _change(self, name: str, dimension: str, space: int, address: int, *more: Any) -> None:
        """Change tables, and drop what came of them: which is a right model's whole secret."""
        tables = self._tables(dimension, space)
        if tables is None:
            return
        try:
            getattr(tables, name)(address, *more)
        except InputError:
            return
        if {name, dimension, f"{dimension} {name}"} & self.forget or name == "map":
            return  # what was not present is not cached
        self._invalidate(dimension)

    def _invalidate(self, dimension: str) -> None:
        nested = self.layout.nested
        if nested is None:
            self.cpu.toggle_pge()
        elif nested.form == "npt":
            for vm_id in VM_IDS:
                self.cpu.tlb_control(3, vm_id)
        elif dimension == "nested":
            self.cpu.invept(1, nested.root)
        elif self.cpu.tagged:
            for vm_id in VM_IDS:
                self.cpu.invvpid(1, vm_id)
        else:
            self.cpu.toggle_pge()  # all VMs are VPID 0, which INVVPID refuses
