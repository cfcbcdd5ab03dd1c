"""The naive model's numbers: page sizes, kinds of access, the bits of table words."""

# ---- numbers ------------------------------------------------------------------------------------

READ, WRITE, FETCH = 0, 1, 2  # kinds by the user; + 3 by the supervisor
SUPERVISOR = 3
K4, M2, G1 = 0, 1, 2  # page sizes
SIZE_NAME = ("4k", "2m", "1g")
SIDE_NAME = ("data", "fetch", "store")
MAY_READ, MAY_WRITE, MAY_EXECUTE, MAY_USER = 1, 2, 4, 8
ALL_RIGHTS = MAY_READ | MAY_WRITE | MAY_EXECUTE | MAY_USER
BLOCK = 4096  # accesses
HYPERVISOR_CODE = 0xFFFF_8000_0000_0000
HYPERVISOR_DATA = 0xFFFF_8880_0000_0000


def side_of(kind: int) -> int:
    return 1 if kind % 3 == FETCH else 0


def bytes_of(size: int) -> int:
    return 1 << (12 + 9 * size)


def base_of(address: int, size: int) -> int:
    return address - address % bytes_of(size)


def page_number(address: int, size: int) -> int:
    """Number of the page of this size, 45 bits, sign-extended like the 64-bit address it is of."""
    signed = address - (1 << 64) if address >= 1 << 63 else address
    return (signed >> (12 + 9 * size)) & ((1 << 45) - 1)


def index(address: int, level: int) -> int:
    return (address >> (12 + 9 * (level - 1))) & 511


# ---- table words --------------------------------------------------------------------------------

FRAME = 0x000F_FFFF_FFFF_F000
LARGE = 1 << 7  # both formats
# the guest's format: Intel SDM vol. 3, "4-level paging"
PRESENT, WRITABLE, USER, ACCESSED, DIRTY = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6
NO_EXECUTE = 1 << 63
# the nested format: Intel SDM vol. 3, "EPT translation mechanism"
NESTED_READ, NESTED_WRITE, NESTED_EXECUTE = 1 << 0, 1 << 1, 1 << 2
NESTED_RWX = NESTED_READ | NESTED_WRITE | NESTED_EXECUTE
NESTED_WRITE_BACK = 6 << 3
NESTED_ACCESSED, NESTED_DIRTY = 1 << 8, 1 << 9


def guest_rights(word: int) -> int:
    rights = MAY_READ
    if word & WRITABLE:
        rights |= MAY_WRITE
    if word & USER:
        rights |= MAY_USER
    if not word & NO_EXECUTE:
        rights |= MAY_EXECUTE
    return rights


def nested_rights(word: int) -> int:
    rights = MAY_USER
    if word & NESTED_READ:
        rights |= MAY_READ
    if word & NESTED_WRITE:
        rights |= MAY_WRITE
    if word & NESTED_EXECUTE:
        rights |= MAY_EXECUTE
    return rights


def is_leaf(word: int, level: int) -> bool:
    return level == 1 or (level in (2, 3) and bool(word & LARGE))


def denied(rights: int, kind: int, dirty: bool = True) -> bool:
    if kind < SUPERVISOR and not rights & MAY_USER:
        return True
    if kind % 3 == READ:
        return not rights & MAY_READ
    if kind % 3 == WRITE:
        return not rights & MAY_WRITE or not dirty
    return not rights & MAY_EXECUTE
