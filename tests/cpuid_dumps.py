"""Dumps of CPUID as InstLatx64 publishes them: of each, the words that are decoded.

Leaf 1 is a signature of the family; the other lines are those of the named machine.
"""

INTEL = "CPUID 00000000: 00000020-756E6547-6C65746E-49656E69 [GenuineIntel]"
AMD = "CPUID 00000000: 00000010-68747541-444D4163-69746E65 [AuthenticAMD]"
HYGON = "CPUID 00000000: 0000000D-6F677948-656E6975-6E65476E [HygonGenuine]"


def line(leaf, *words, sub=None):
    """A line of a dump: registers that are left out are 0."""
    words = [*words, 0, 0, 0, 0][:4]
    tail = "" if sub is None else f" [SL {sub:02X}]"
    return f"CPUID {leaf:08X}: {'-'.join(f'{word:08X}' for word in words)}{tail}"


def dump(vendor, signature, *lines):
    head = "------[ Logical CPU #0 ]------\n\nallcpu: Valid\n"
    return "\n".join([head, vendor, line(1, signature), *lines, ""])


def parameters(*rows):
    """Leaf 18h with rows of EBX, ECX, EDX after an empty first one."""
    lines = [line(0x18, len(rows), sub=0)]
    return lines + [line(0x18, 0, *row, sub=n) for n, row in enumerate(rows, start=1)]


ROWS_18H = {
    "sapphire-rapids": (
        (0x00080001, 0x20, 0x4022), (0x00080006, 4, 0x4022), (0x0010000F, 1, 0x4125),
        (0x00040001, 0x10, 0x4024), (0x00040006, 8, 0x4024), (0x00080008, 1, 0x4124),
        (0x00080007, 0x80, 0x4043), (0x00080009, 0x80, 0x4043),
    ),
    "icelake-sp": (
        (0x00080007, 1, 0x4122), (0x0010000F, 1, 0x4125), (0x00040001, 0x10, 0x4024),
        (0x00040006, 8, 0x4024), (0x00080008, 1, 0x4124), (0x00080007, 0x80, 0x4043),
        (0x00080009, 0x80, 0x4043),
    ),
}  # fmt: skip

DUMPS = {
    "nehalem": dump(INTEL, 0x000106A5, line(2, 0x55035A01, 0x00F0B2E4, 0, 0x09CA212C)),
    "haswell": dump(INTEL, 0x000306F2, line(2, 0x76036301, 0x00F0B5FF, 0, 0x00C10000)),
    "skylake-sp": dump(INTEL, 0x00050654, line(2, 0x76036301, 0x00F0B5FF, 0, 0x00C30000)),
    "icelake-sp": dump(
        INTEL, 0x000606A6, line(2, 0x00FEFF01, 0xF0), *parameters(*ROWS_18H["icelake-sp"])
    ),
    "sapphire-rapids": dump(
        INTEL, 0x000806F8, line(2, 0x00FEFF01, 0xF0), *parameters(*ROWS_18H["sapphire-rapids"])
    ),
    "barcelona": dump(
        AMD.replace("00000010", "00000005"), 0x00100F21,
        "CPUID 80000000: 8000001A-68747541-444D4163-69746E65",
        "CPUID 80000002: 64617551-726F432D-4D412065-704F2044",
        "CPUID 80000003: 6F726574-6D74286E-72502029-7365636F",
        "CPUID 80000004: 20726F73-37343332-00454820-00000000",
        "CPUID 80000005: FF30FF10-FF30FF20-40020140-40020140",
        "CPUID 80000006: 20800000-42004200-02008140-0010A140",
        "CPUID 8000000A: 00000001-00000040-00000000-00000007",
        "CPUID 80000019: F0300000-00000000-00000000-00000000",
    ),
    "zen2": dump(AMD, 0x00830F10, line(0x80000006, 0x48006400, 0x68006400)),
    "zen3": dump(
        AMD, 0x00A00F11, line(0x80000005, 0xFF40FF40, 0xFF40FF40),
        line(0x80000006, 0x48002200, 0x68004200), line(0x80000019, 0xF040F040, 0xF0400000),
    ),
    "zen4": dump(AMD, 0x00A10F11, line(0x80000006, 0x5C002200, 0x6C004200)),
    "zen5": dump(
        AMD, 0x00B00F21, line(0x80000006, 0x40802040, 0x60804040), line(0x80000021, 0xD93FFFCF)
    ),
}  # fmt: skip
