"""Unicorn (QEMU's MMU) as a translator: one access made by an instruction, on tables in its memory.

What it does otherwise than the manuals is said in `test_exact_unicorn.py`.
"""

import struct

from unicorn import UC_ARCH_X86, UC_HOOK_INTR, UC_MODE_64, Uc, UcError
from unicorn import unicorn_const as consts
from unicorn import x86_const as x86

EFER, STAR = 0xC000_0080, 0xC000_0081
SCE, LME, NXE = 1 << 0, 1 << 8, 1 << 11
PE, WP, PG = 1 << 0, 1 << 16, 1 << 31
PAE, LA57, SMEP, SMAP = 1 << 5, 1 << 12, 1 << 20, 1 << 21
AC = 1 << 18
CODE = 0xFFFF_FF80_0000_0000  # the last slot of a root table; two pages of instructions
LOAD, STORE, SYSRET = b"\x48\x8b\x03", b"\x48\x89\x03", b"\x48\x0f\x07"
UNTOUCHED = 0x5A5A_5A5A_5000  # CR2, unless there is a page fault


class Machine:
    """A processor of one privilege with `size` bytes of memory.

    Six pages after them hold the instructions and the tables that map them, in a root's last entry.
    """

    def __init__(self, size, user):
        self.uc, self.size, self.user = Uc(UC_ARCH_X86, UC_MODE_64), size, user
        self.uc.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
        self.uc.mem_map(0, size + 0x6000)
        self.uc.ctl_set_tlb_mode(consts.UC_TLB_CPU)
        pointers, directory, table, kernel, users = (size + 0x1000 * i for i in range(5))
        # What the last entry of a root must hold, by levels.
        self.link = {4: pointers | 0x27, 5: size + 0x5000 | 0x27}
        for place, entry in (
            (pointers, directory | 0x27),
            (directory, table | 0x27),
            (table, kernel | 0x21),
            (table + 8, users | 0x25),
            (size + 0x5000 + 8 * 511, self.link[4]),
        ):
            self.write(place, entry)
        for page in (kernel, users):
            self.uc.mem_write(page, LOAD + b"\x90" * 5 + STORE + b"\x90" * 5 + SYSRET)
        self.uc.hook_add(UC_HOOK_INTR, lambda uc, number, _: uc.emu_stop())
        self.set(size + 0x5000, 0, PAE, 0)
        self.code = CODE
        if user:
            self.uc.msr_write(STAR, 0x0010_0008 << 32)
            self.code = CODE + 0x1000
            self.uc.reg_write(x86.UC_X86_REG_RCX, self.code)
            self.uc.reg_write(x86.UC_X86_REG_R11, 2)
            self.uc.emu_start(CODE + 16, self.code)
        self.start = self.uc.context_save()

    def write(self, place, entry):
        self.uc.mem_write(place, struct.pack("<Q", entry))

    def read(self, place):
        return struct.unpack("<Q", self.uc.mem_read(place, 8))[0]

    def set(self, cr3, cr0, cr4, efer, flags=2):
        """Write the registers that paging goes by."""
        self.uc.reg_write(x86.UC_X86_REG_CR3, cr3)
        self.uc.reg_write(x86.UC_X86_REG_CR4, PAE | cr4)
        self.uc.msr_write(EFER, LME | SCE | efer)
        self.uc.reg_write(x86.UC_X86_REG_CR0, PG | PE | cr0)
        self.uc.reg_write(x86.UC_X86_REG_EFLAGS, flags)

    def access(self, gva, access, control, cr3, value=0):
        """Make an access; how it ends, and the word read or executed, or the page fault's address.

        A fault is told by RIP, which stays, and by CR2: user code's exceptions reach no hook.
        """
        uc = self.uc
        uc.context_restore(self.start)
        self.set(
            cr3,
            control.wp * WP,
            control.smep * SMEP | control.smap * SMAP | control.la57 * LA57,
            control.nxe * NXE,
            2 | control.ac * AC,
        )
        uc.reg_write(x86.UC_X86_REG_CR2, UNTOUCHED)
        uc.reg_write(x86.UC_X86_REG_RBX, gva)
        uc.reg_write(x86.UC_X86_REG_RAX, value)
        begin = {"read": self.code, "write": self.code + 8, "fetch": gva}[access]
        end = begin + (5 if access == "fetch" else 3)
        try:
            uc.emu_start(begin, end)
        except UcError as error:
            return f"{error}", None
        if uc.reg_read(x86.UC_X86_REG_RIP) == end:
            return "OK", uc.reg_read(x86.UC_X86_REG_RAX)
        address = uc.reg_read(x86.UC_X86_REG_CR2)
        return ("NOT_CANONICAL", None) if address == UNTOUCHED else ("PAGE_FAULT", address)
