"""A host and virtual machines: their address spaces, nested tables and processors; nothing is cached."""

from mmu.testing import tables as made
from mmu.testing.tables import ENTRIES, FIRST_TABLE, PAGE, SIZES, Tables

LARGE = SIZES["2m"]
REGIONS = (0, LARGE, 1 << 30)  # of 2 MiB, of each address space
KERNEL = -1 << 46  # a region that all address spaces of a system share, and that may be global
PIECES = (0, 1, 511)  # of a region, those that are used
BLOCKS = 4  # of 2 MiB, of a guest's memory


def address_of(region, piece):
    return ((*REGIONS, KERNEL)[region]) + PAGE * PIECES[piece]


def below(gva, level):
    """The addresses in use that an entry of a level maps, if it is that of an address."""
    return [at for at in EVERYWHERE if at >> 3 + 9 * level == gva >> 3 + 9 * level]


EVERYWHERE = tuple(address_of(r, p) for r in range(len(REGIONS) + 1) for p in range(len(PIECES)))


class System:
    """A virtual machine, or the host: its address spaces, and the nested tables that it may run on."""

    def __init__(self, memory, form, base, *, views, spaces, with_globals, large):
        self.memory, self.with_globals = memory, with_globals
        self.views = [Tables(memory, form) for _ in range(views)]
        nested = self.views[0] if views else None
        self.spaces = [Tables(memory, nested=nested) for _ in range(spaces)]
        for number, view in enumerate(self.views):
            for block in range(BLOCKS):
                frame = LARGE * (BLOCKS * number + block) + base
                view.map(LARGE * block, frame, "2m")
                if not (large >> block & 1):
                    view.split(LARGE * block)
        first, bits = self.spaces[0], made.GLOBAL if with_globals else 0
        first.map(KERNEL, 0, rights="rwx", bits=bits)
        for number, space in enumerate(self.spaces):
            for region, start in enumerate(REGIONS):
                if region % 2:
                    space.map(start, LARGE * region, "2m")
                    continue
                for piece in PIECES:
                    space.map(start + PAGE * piece, LARGE * number + PAGE * piece)
            if number:
                space.share(KERNEL, first, 4)
        self.show_tables()

    def show_tables(self):
        """Map the guest's own tables in each view, as the first has them."""
        for number in range(self.views[0].guest_tables if self.views else 0):
            gpa = FIRST_TABLE + PAGE * number
            frame = self.views[0].leaf(gpa).frame
            for view in self.views[1:]:
                if view.leaf(gpa) is None:
                    view.map(gpa, frame)

    def machine_page(self, place):
        """The machine address of a page of guest tables; of the host's, itself."""
        return self.views[0].leaf(place).frame if self.views else place

    def pages(self):
        """The machine pages of all tables."""
        found = set()

        def visit(tables, page, level):
            found.add(page)
            for word in self.memory.words[page // 8 : page // 8 + ENTRIES].tolist():
                if level > 1 and tables.is_present(word) and not tables.is_leaf(level, word):
                    visit(tables, word & made.FRAME, level - 1)

        for view in self.views:
            visit(view, view.root, view.levels)
        for number in range(self.views[0].guest_tables if self.views else 0):
            found.add(self.views[0].leaf(FIRST_TABLE + PAGE * number).frame)
        return found


class Runner:
    """A virtual processor, or the host's: a VPID or ASID, and which space has which PCID."""

    def __init__(self, vm_id, system):
        self.vm_id, self.system = vm_id, system
        self.view, self.space, self.pcid = 0, 0, 0
        self.owner = {0: 0}  # of a PCID: the space whose entries may be kept under it
