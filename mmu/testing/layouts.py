"""Several page tables over one memory: what the strategies draw."""

from dataclasses import dataclass, field
from typing import Any

from mmu.paging import Control
from mmu.testing.tables import TableMemory, Tables
from mmu.translation import Translation, translate


@dataclass(frozen=True)
class Page:
    """A page that a layout maps on purpose.

    Attributes
    ----------
    space : int
        Index in `Layout.spaces`.
    gva, gpa : int
        Its first address, and the guest-physical one; unsigned.
    size, nested_size : int
        Bytes of the guest's page, and of the nested page behind it (0: there is none).
    """

    space: int
    gva: int
    gpa: int
    size: int
    nested_size: int = 0

    @property
    def alike(self) -> int:
        """Bytes from `gva` on that are translated alike: the smaller page."""
        return min(self.size, self.nested_size or self.size)


@dataclass
class Layout:
    """Page tables over one memory.

    Attributes
    ----------
    memory : TableMemory
        Where all tables lie.
    spaces : list of Tables
        Guest tables, one for each address space.
    nested : Tables or None
        The hypervisor's tables.
    control : Control
        What these tables are made for: LA57, and MAXPHYADDR.
    pages : list of Page
        What is mapped on purpose, holes included, in the order in which it was.
    aliases : list of (int, int)
        Space and address of what is reached in other ways: shared and recursive tables.
    """

    memory: TableMemory
    spaces: list[Tables]
    nested: Tables | None
    control: Control
    pages: list[Page] = field(default_factory=list)
    aliases: list[tuple[int, int]] = field(default_factory=list)

    def question(self, space: int = 0) -> dict[str, Any]:
        """Return the arguments ``cr3``, ``nested`` and ``control`` of `mmu.translate`."""
        nested = self.nested and self.nested.pointer
        return {"cr3": self.spaces[space].root, "nested": nested, "control": self.control}

    def translate(self, gva: int, space: int = 0, **access: Any) -> Translation:
        """Translate an address of a space; `access` as of `mmu.translate`."""
        return translate(self.memory.view, gva, **self.question(space), **access)

    def __repr__(self) -> str:
        """Return what a failing example shows: every entry on the way of each page."""
        form = self.nested.form if self.nested else "no nested tables"
        lines = [f"<Layout: {len(self.spaces)} spaces, {form}, {self.control}"]
        for page in self.pages:
            way = self.spaces[page.space].path(page.gva)
            entries = " ".join(f"{entry.level}:{entry.word:#x}" for entry in way)
            lines.append(f"  space {page.space} gva {page.gva:#x} = {entries}")
            if self.nested:
                way = self.nested.path(page.gpa)
                entries = " ".join(f"{entry.level}:{entry.word:#x}" for entry in way)
                lines.append(f"    gpa {page.gpa:#x} = {entries}")
        lines += [f"  space {space} alias {gva:#x}" for space, gva in self.aliases]
        return "\n".join(lines) + ">"
