"""A host, virtual machines and their guests that change their tables, and say what that needs."""

import numpy as np
from invalidating import Invalidating
from invalidation_scopes import ANY, GLOBAL
from systems import BLOCKS, LARGE, Runner, below

from mmu.errors import InputError
from mmu.testing import tables as made
from mmu.testing.tables import ENTRIES, FIRST_TABLE, PAGE, SIZES

SPARE = 1 << 40  # machine addresses that nothing is at
LINK_BITS = {"w": made.WRITABLE, "u": made.USER}


class Software(Invalidating):
    """Who changes tables: kernels theirs, the hypervisor the nested ones."""

    # --- guests' tables --------------------------------------------------------------------------

    def needs_of_guest(self, system, space, pages, *, walk=(), is_global=False):
        """Note what a change of an address space needs, of each processor that may have run it.

        `pages`: an address in each page that was mapped; `walk`: addresses of which an entry for a
        table has changed.
        """
        shared = (*pages, *walk)[0] < 0
        for runner in self.runners:
            if runner.system is not system:
                continue
            if is_global and pages:
                self.need(system, vm_id=runner.vm_id, pcid=GLOBAL, pages=tuple(pages))
            for pcid, owner in runner.owner.items():
                if (shared or owner == space) and (walk or not is_global):
                    self.need(
                        system, vm_id=runner.vm_id, pcid=pcid, walk=bool(walk), at=tuple(walk),
                        pages=() if is_global else tuple(pages),
                    )  # fmt: skip

    def change_guest(self, number, space, gva, change, *arguments):
        """Map, unmap, protect, split, merge or move a page of an address space of a system."""
        system = self.systems[number]
        space %= len(system.spaces)
        tables = system.spaces[space]
        before = tables.leaf(gva)
        if change == "map" and gva < 0 and system.with_globals:
            arguments = (*arguments, made.GLOBAL)
        try:
            if change == "map":
                frame, size, rights, *bits = arguments
                start, frame = gva & -SIZES[size], frame & -SIZES[size]
                tables.map(start, frame, size, rights, bits=sum(bits))
            elif change == "move":
                tables.move(gva, arguments[0] & -(before.size if before else PAGE))
            else:
                getattr(tables, change)(gva, *arguments)
        except InputError:
            return
        finally:
            system.show_tables()
        if change == "map":
            return  # what was not present is not cached
        after = tables.leaf(gva)
        if change == "protect":
            lost = set(tables.rights_of(before.word)) - set(tables.rights_of(after.word))
            if not lost:
                return  # at worst a spurious fault, and not even that for a leaf
        pages = [gva]
        if change == "merge":
            pages = below(gva, 2)
        is_global = bool(before.word & made.GLOBAL)
        walk = pages if change == "merge" else ()
        self.needs_of_guest(system, space, pages, walk=walk, is_global=is_global)

    def clear_marks(self, number, space, gva, bits):
        """Clear accessed, dirty or both in a guest's leaf: only dirty needs anything."""
        system = self.systems[number]
        space %= len(system.spaces)
        leaf = system.spaces[space].leaf(gva)
        if leaf:
            self.memory.write(leaf.place, leaf.word & ~bits)
            if leaf.word & bits & made.DIRTY:
                is_global = bool(leaf.word & made.GLOBAL)
                self.needs_of_guest(system, space, [gva], is_global=is_global)

    def change_link(self, number, space, gva, level, right):
        """Take a right from an entry for a table, or give it back."""
        system = self.systems[number]
        space %= len(system.spaces)
        tables = system.spaces[space]
        for entry in tables.path(gva):
            if entry.level == level and tables.is_present(entry.word) and (
                level > 1 and not tables.is_leaf(level, entry.word)
            ):  # fmt: skip
                word = entry.word ^ LINK_BITS[right]
                self.memory.write(entry.place, word)
                if word & LINK_BITS[right]:
                    self.given_rights = True
                    return
                self.whole_table(system, space, gva, level)

    def whole_table(self, system, space, gva, level):
        """Note what a change of an entry for a table needs."""
        pages = below(gva, level)
        is_global = gva < 0 and system.with_globals
        self.needs_of_guest(system, space, pages, walk=pages, is_global=is_global)

    def drop_table(self, number, space, gva):
        """Take away a table that maps nothing any more, and free it."""
        system = self.systems[number]
        space %= len(system.spaces)
        way = system.spaces[space].path(gva)
        if len(way) < 4:
            return
        gpa = way[2].word & made.FRAME
        page = system.machine_page(gpa)
        if not self.memory.words[page // 8 : page // 8 + ENTRIES].any():
            self.memory.write(way[2].place, 0)
            self.needs_of_guest(system, space, [], walk=below(gva, 2))
            self.free(page)

    def replace_table(self, number, space, gva):
        """Give a table's pages other frames in a new table; the old one is left as it is.

        It is freed once everybody has been made to forget it, as kernels do.
        """
        system = self.systems[number]
        space %= len(system.spaces)
        tables = system.spaces[space]
        way = tables.path(gva)
        if len(way) < 4:
            return
        entry = way[2]
        try:
            table = tables._new_table()
        except InputError:
            return
        system.show_tables()
        new, old = system.machine_page(table), system.machine_page(entry.word & made.FRAME)
        words = self.memory.words[old // 8 : old // 8 + ENTRIES]
        block = self.new_frame()
        kept = words & np.uint64(~made.FRAME % (1 << 64))
        frames = np.uint64(block) + np.arange(ENTRIES, dtype=np.uint64) * np.uint64(PAGE)
        moved = np.where(words & np.uint64(1), kept | frames, np.uint64(0))
        self.memory.words[new // 8 : new // 8 + ENTRIES] = moved
        self.memory.write(entry.place, entry.word & ~made.FRAME | table)
        self.whole_table(system, space, gva, 2)
        self.free(old)

    def new_frame(self):
        """A 2 MiB frame that is another than the last one: of guests' memory."""
        self.made += 1
        return LARGE * (self.made % BLOCKS)

    def gpa(self, number, space, gva):
        """The guest-physical address that a guest maps an address to, or would."""
        leaf = self.systems[number].spaces[space].leaf(gva)
        return leaf.frame + gva % leaf.size & -PAGE if leaf else gva & LARGE - PAGE

    # --- nested tables ---------------------------------------------------------------------------

    def needs_of_nested(self, system, view):
        """Note what a change of nested tables needs."""
        if self.form == "ept":
            self.need(root=view.root)
            return
        for runner in self.runners:
            if runner.system is system:
                has = system.with_globals
                self.need(vm_id=runner.vm_id, pages=ANY, asid=True, has_globals=has, walk=True)

    def change_nested(self, number, view, gpa, change, *arguments):
        """Map, unmap, protect, split, merge or move a page of a VM's memory."""
        system = self.systems[number]
        if not system.views:
            return
        tables = system.views[view % len(system.views)]
        before = tables.leaf(gpa)
        self.made += 1
        frame = SPARE + LARGE * self.made
        try:
            if change == "map":
                tables.map(gpa & -SIZES[arguments[0]], frame, *arguments)
            elif change == "move":
                tables.move(gpa, frame)
            else:
                getattr(tables, change)(gpa, *arguments)
        except InputError:
            return
        if change == "map":
            return
        if change == "protect":
            after = tables.leaf(gpa)
            if not set(tables.rights_of(before.word)) - set(tables.rights_of(after.word)):
                return
        self.needs_of_nested(system, tables)

    def clear_nested_marks(self, number, view, gpa, bits):
        """Clear accessed, dirty or both in a nested leaf; dirty logging is this."""
        system = self.systems[number]
        if system.views:
            tables = system.views[view % len(system.views)]
            leaf, shift = tables.leaf(gpa), 3 if self.form == "ept" else 0
            if leaf:
                self.memory.write(leaf.place, leaf.word & ~(bits << shift))
                if leaf.word & (made.DIRTY << shift) & (bits << shift):
                    self.needs_of_nested(system, tables)

    def move_guest_table(self, number, table):
        """Move a page of guest tables to another frame, with what is in it, behind the guest's back."""
        system = self.systems[number]
        if not system.views:
            return
        gpa = FIRST_TABLE + PAGE * (table % system.views[0].guest_tables)
        try:
            new = self.memory.take()
        except InputError:
            return
        old = system.views[0].leaf(gpa).frame
        words = self.memory.words
        words[new // 8 : new // 8 + ENTRIES] = words[old // 8 : old // 8 + ENTRIES]
        for view in system.views:
            view.move(gpa, new)
            self.needs_of_nested(system, view)
        self.free(old)

    def free(self, page):
        """Use a page of tables for data, once nobody needs to forget it."""
        self.freed.append(page)

    def recreate(self):
        """End the second VM, and begin another that has its VPID, and its pages for tables."""
        old, runner = self.systems[2], self.runners[3]
        if not old.views:
            return  # whose tables nobody counts
        if self.now is runner:
            self.run(0)
        for view in old.views:
            self.needs_of_nested(old, view)
        self.need(old, vm_id=3, pages=ANY, walk=True)
        for page in sorted(old.pages(), reverse=True):
            self.memory.give(page)
        self.systems[2] = self.system(2)
        self.runners[3] = Runner(3, self.systems[2])
