"""What a processor is set to: how many levels, which bits are reserved, who may do what.

Sources: Intel SDM vol. 3, "Determination of Access Rights" and "Page-Fault Exceptions"; "The Extended
Page Table Mechanism"; AMD64 APM vol. 2, "Nested Paging".
"""

from mmu.hardware.bits import LEVELS, frame_bits
from mmu.hardware.entry import (
    ADDRESS,
    EPT,
    EPT_BAD_TYPES,
    EPT_CODE,
    EPT_TABLE_RESERVED,
    EPT_TYPE_SHIFT,
    EPT_WITHOUT_DIRTY,
    EXECUTE,
    EXECUTE_DISABLE,
    LARGE_LEAF,
    LARGE_PAT,
    NPT,
    READ,
    TABLE_GLOBAL,
    USER,
    WRITE,
)
from mmu.hardware.machine import FETCH, READ_ACCESS, SUPERVISOR, WRITE_ACCESS, Rules
from mmu.jit import inlined

# Bit k of `denied` forbids kind k.
DENY_READ, DENY_WRITE, DENY_FETCH = 0b001001, 0b010010, 0b100100
DENY_USER, DENY_SUPERVISOR = 0b000111, 0b111000
LARGEST_LEAF = {False: 2, True: 3}  # level of the largest page: without and with 1 GiB pages


def reserved_bits(maxphyaddr: int, execute_disable: bool) -> int:
    """Return the bits that no present x86-64 entry may have set, as the int64 that kernels use."""
    mask = ADDRESS & ~((1 << maxphyaddr) - 1)
    return mask if execute_disable else mask | EXECUTE_DISABLE - (1 << 64)


def x86_rules(
    *,
    wp: bool = True,
    nxe: bool = True,
    smep: bool = False,
    smap: bool = False,
    la57: bool = False,
    gbpages: bool = True,
    maxphyaddr: int = 52,
) -> Rules:
    """Return the rules of x86-64 tables in nested ones of EPT with accessed and dirty bits.

    Parameters
    ----------
    wp, nxe, smep, smap, la57, gbpages : bool
        CR0.WP, EFER.NXE, CR4.SMEP, CR4.SMAP with RFLAGS.AC clear, CR4.LA57, CPUID's 1 GiB pages.
    maxphyaddr : int
        Bits of a physical address, up to 52.
    """
    user_page = (1 << FETCH if smep else 0) | (1 << READ_ACCESS | 1 << WRITE_ACCESS if smap else 0)
    rules = Rules(
        levels=LEVELS + int(la57),
        largest=LARGEST_LEAF[gbpages],
        reserved=reserved_bits(maxphyaddr, nxe),
        read_only=DENY_WRITE if wp else DENY_WRITE & DENY_USER,
        user_page=user_page << SUPERVISOR,
        nested_code=0, nested_levels=0, nested_largest=0, nested_reserved=0, table_reserved=0,
        execute_only=0, present=0, accessed=0, dirty=0, table_kind=0, update=1,
    )  # fmt: skip
    return with_ept(rules, maxphyaddr=maxphyaddr)


def with_ept(
    rules: Rules,
    *,
    dirty: bool = True,
    levels: int = LEVELS,
    execute_only: bool = True,
    gbpages: bool = True,
    maxphyaddr: int = 52,
) -> Rules:
    """Return the rules with nested tables of EPT; `dirty`: EPTP bit 6.

    With it every access to a guest table counts as a write, else as a read.
    """
    form = EPT if dirty else EPT_WITHOUT_DIRTY
    return rules._replace(
        nested_code=EPT_CODE,
        nested_levels=levels,
        nested_largest=LARGEST_LEAF[gbpages],
        nested_reserved=ADDRESS & ~((1 << maxphyaddr) - 1),
        execute_only=int(execute_only),
        present=form.present,
        accessed=form.accessed,
        dirty=form.dirty,
        table_kind=WRITE_ACCESS if dirty else READ_ACCESS,
    )


def with_npt(
    rules: Rules,
    *,
    levels: int = LEVELS,
    nxe: bool = True,
    gbpages: bool = True,
    maxphyaddr: int = 52,
) -> Rules:
    """Return the rules with nested tables of NPT; `nxe` is the host's EFER.NXE.

    Every access to a guest table is a user's write. The guest's tables, too, are then AMD's.
    """
    return rules._replace(
        nested_code=NPT.code,
        nested_levels=levels,
        nested_largest=LARGEST_LEAF[gbpages],
        nested_reserved=reserved_bits(maxphyaddr, nxe),
        table_reserved=TABLE_GLOBAL,
        present=NPT.present,
        accessed=NPT.accessed,
        dirty=NPT.dirty,
        table_kind=WRITE_ACCESS,
    )


@inlined
def guest_denied(rules: Rules, rights: int) -> int:
    """Return the kinds of access that these rights of guest entries deny."""
    denied = rules.user_page if rights & USER else DENY_USER
    if not rights & WRITE:
        denied |= rules.read_only
    if not rights & EXECUTE:
        denied |= DENY_FETCH
    return denied


@inlined
def nested_denied(rights: int) -> int:
    """Return the kinds that these rights of nested entries deny: the user's as the supervisor's.

    A nested access is always a user's, and a page that only supervisors may use denies all.
    """
    denied = 0 if rights & USER else DENY_USER | DENY_SUPERVISOR
    if not rights & READ:
        denied |= DENY_READ
    if not rights & WRITE:
        denied |= DENY_WRITE
    if not rights & EXECUTE:
        denied |= DENY_FETCH
    return denied


@inlined
def malformed(rules: Rules, entry: int, level: int, leaf: bool, reserved: int, code: int) -> bool:
    """Tell whether a present entry holds what no processor accepts.

    `reserved` are the bits that no entry of the format may have set, whatever its level; a `leaf`
    maps a page. In an x86-64 entry that is a page fault with RSVD set, in an EPT entry a
    misconfiguration.
    """
    if code == EPT_CODE:
        rights = entry & (READ | WRITE | EXECUTE)
        if rights & (READ | WRITE) == WRITE or (rights == EXECUTE and not rules.execute_only):
            return True
        if leaf:
            if EPT_BAD_TYPES >> (entry >> EPT_TYPE_SHIFT & 7) & 1:
                return True
            reserved |= frame_bits(level - 1)
        else:
            reserved |= EPT_TABLE_RESERVED | LARGE_LEAF
    elif leaf:
        reserved |= frame_bits(level - 1) & ~LARGE_PAT
    else:
        reserved |= LARGE_LEAF | (rules.table_reserved if level > 2 else 0)
    return entry & reserved != 0
