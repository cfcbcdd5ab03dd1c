"""Entry formats: x86-64 tables, Intel EPT, AMD NPT; what an entry permits, and what it must not hold.

Sources: Intel SDM vol. 3, "4-Level Paging and 5-Level Paging" (formats of entries) and "The Extended
Page Table Mechanism" (formats, "EPT Misconfigurations"); AMD64 APM vol. 2, "Page-Translation-Table
Entry Fields" and "Nested Paging": NPT entries have the x86-64 format.

What an entry permits is brought to one form, whatever its format: the four *rights* bits. EPT has no
user bit and permits both; x86-64 has no read bit and a present entry permits reads.
"""

from typing import NamedTuple

from mmu.jit import inlined

ADDRESS = 0x000F_FFFF_FFFF_F000  # bits 51:12: the next table, or the frame
PRESENT, WRITABLE, USER_PAGE = 1 << 0, 1 << 1, 1 << 2
ACCESSED, DIRTY, LARGE_LEAF = 1 << 5, 1 << 6, 1 << 7
LARGE_PAT = 1 << 12  # of an x86-64 leaf above level 1: the PAT bit, which is no address bit there
EXECUTE_DISABLE = 1 << 63  # the sign of an int64 entry
EPT_READ, EPT_WRITE, EPT_EXECUTE = 1 << 0, 1 << 1, 1 << 2
EPT_TYPE_SHIFT = 3  # of the memory type in a leaf
EPT_WRITE_BACK = 6 << EPT_TYPE_SHIFT
EPT_BAD_TYPES = 1 << 2 | 1 << 3 | 1 << 7  # bit t is set if memory type t is reserved
EPT_TABLE_RESERVED = 0xF << 3  # of an entry that points to a table: memory type and "ignore PAT"
# AMD keeps bit 8 of an entry that points to a table of level 2 or more zero (APM vol. 2, "PML4E"; KVM
# checks it as reserved); Intel ignores it.
TABLE_GLOBAL = 1 << 8
GLOBAL_PAGE = 1 << 8  # of an x86-64 leaf: kept over a change of PCID, where CR4.PGE is set
EPT_ACCESSED, EPT_DIRTY = 1 << 8, 1 << 9

READ, WRITE, EXECUTE, USER = 1 << 0, 1 << 1, 1 << 2, 1 << 3
RIGHTS = READ | WRITE | EXECUTE | USER

X86_CODE, EPT_CODE = 0, 1  # how `rights_of` and `rules.malformed` read an entry


class Format(NamedTuple):
    """Masks of one entry format; the fields are plain ints."""

    code: int  # X86_CODE or EPT_CODE
    present: int  # an entry is present if any of these bits is set
    accessed: int  # 0 where the hardware keeps no such bit
    dirty: int
    table: int  # bits of an entry that points to a table and permits everything
    leaf: int  # bits of an entry that maps a page and permits everything, but its size bit


X86 = Format(
    X86_CODE, PRESENT, ACCESSED, DIRTY,
    table=PRESENT | WRITABLE | USER_PAGE, leaf=PRESENT | WRITABLE | USER_PAGE,
)  # fmt: skip
EPT = Format(
    EPT_CODE, EPT_READ | EPT_WRITE | EPT_EXECUTE, EPT_ACCESSED, EPT_DIRTY,
    table=EPT_READ | EPT_WRITE | EPT_EXECUTE,
    leaf=EPT_READ | EPT_WRITE | EPT_EXECUTE | EPT_WRITE_BACK,
)  # fmt: skip
EPT_WITHOUT_DIRTY = EPT._replace(accessed=0, dirty=0)  # EPTP bit 6 clear
NPT = X86


@inlined
def rights_of(entry: int, code: int) -> int:
    """Return the rights that one present entry grants."""
    if code == EPT_CODE:
        return entry & (READ | WRITE | EXECUTE) | USER
    executable = EXECUTE if entry >= 0 else 0
    return READ | entry & WRITABLE | executable | (entry & USER_PAGE) << 1
