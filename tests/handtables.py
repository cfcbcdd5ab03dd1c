"""Page tables written by hand into an array of words, entry by entry, without the package's help."""

import numpy as np

PAGE = 4096
P, W, U, A, D, PS, XD = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 63
EPT_RWX, EPT_WB = 7, 6 << 3


class HandTables:
    """A memory of `pages` pages in which tables are put one after the other."""

    def __init__(self, pages=512):
        self.words = np.zeros(512 * pages, np.uint64)
        self.free = PAGE  # page 0 stays empty

    def take(self, size=PAGE):
        """The address of fresh memory, aligned to its size."""
        self.free = -(-self.free // size) * size
        self.free += size
        return self.free - size

    def put(self, table, index, entry):
        self.words[table // 8 + index] = entry

    def get(self, table, index):
        return int(self.words[table // 8 + index])

    def present(self):
        """Every word that is not zero, by its address."""
        return {8 * int(i): int(self.words[i]) for i in np.flatnonzero(self.words)}

    def map_native(self, root, gva, frame, level=1, link=P | W | U, leaf=P | W | U):
        """Map the page of `level` that holds gva; tables at machine addresses."""
        table = root
        for above in range(4, level, -1):
            index = gva >> (3 + 9 * above) & 511
            if not self.get(table, index):
                self.put(table, index, self.take() | link)
            table = self.get(table, index) & 0xF_FFFF_FFFF_F000
        self.put(table, gva >> (3 + 9 * level) & 511, frame | leaf | (PS if level > 1 else 0))

    def map_nested(self, root, gpa, frame, level=1, link=EPT_RWX, leaf=EPT_RWX | EPT_WB):
        """Map the guest-physical page of `level` that holds gpa."""
        self.map_native(root, gpa, frame, level, link, leaf)


class HandGuest:
    """A guest in nested tables: its tables stand in guest-physical pages backed one by one."""

    def __init__(self, table_level=1, pages=4096):
        self.memory = HandTables(pages)
        self.nested_root = self.memory.take()
        self.table_level = table_level  # level of the nested leaves that back the guest's tables
        self.next_gpa = 0x4000_0000
        self.where = {}  # machine address of each guest table page
        self.root = self.new_table()

    def new_table(self):
        gpa = self.next_gpa
        self.next_gpa += PAGE << (9 * (self.table_level - 1))
        size = PAGE << (9 * (self.table_level - 1))
        frame = self.memory.take(size)
        self.memory.map_nested(self.nested_root, gpa, frame, self.table_level)
        self.where[gpa] = frame
        return gpa

    def map(self, gva, gpa, level=1, link=P | W | U, leaf=P | W | U):
        table = self.root
        for above in range(4, level, -1):
            index = gva >> (3 + 9 * above) & 511
            entry = self.memory.get(self.where[table], index)
            if not entry:
                entry = self.new_table() | link
                self.memory.put(self.where[table], index, entry)
            table = entry & 0xF_FFFF_FFFF_F000
        entry = gpa | leaf | (PS if level > 1 else 0)
        self.memory.put(self.where[table], gva >> (3 + 9 * level) & 511, entry)
