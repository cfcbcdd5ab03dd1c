"""Makes the page maps in this folder from a real process: run it as root on x86-64 Linux.

    python tests/page_maps/generate.py

A child takes 4 MiB of its memory as transparent huge pages (which works where
/sys/kernel/mm/transparent_hugepage/enabled is madvise or always), breaks one of them up by mprotect(),
and stops.
Its map is read word by word from /proc/PID/pagemap and /proc/kpageflags, and written twice: as page-types
-r -l -N -p prints it, and as DynamoRIO's v2p.textproto. Which pages are large is taken from smaps
(AnonHugePages), which is of the page tables. Shares no code with the package.
"""

import ctypes
import mmap
import os
import platform
import signal
import struct
import sys
from pathlib import Path

PAGE, LARGE = 4096, 1 << 21
FOLDER = Path(__file__).parent
# Positions of the flags of page-types -r, by bit: kernel-page-flags.h, then tools/mm/page-types.c.
LETTERS = {
    **dict(enumerate("LERUDlASWIBMasbHTGuXnxtogzi")),
    32: "r", 33: "m", 34: "d", 35: "P", 36: "p", 37: "O",
    38: "h", 39: "c", 40: "f", 41: "H", 47: "d", 48: "I", 50: "A", 51: "E", 61: "F", 62: "w", 63: "1",
}  # fmt: skip


def child() -> None:
    """Take memory in pages of both sizes, say so, and stop."""
    memory = mmap.mmap(-1, 4 * LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    first = -(-begin // LARGE) * LARGE
    for large in (first, first + LARGE):
        ctypes.memset(large, 1, LARGE)
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(first + LARGE + PAGE), PAGE, mmap.PROT_READ)
    os.kill(os.getpid(), signal.SIGSTOP)


def words(file: str, first: int, count: int) -> list[int]:
    with open(file, "rb", buffering=0) as source:
        data = os.pread(source.fileno(), 8 * count, 8 * first)
    return list(struct.unpack(f"<{len(data) // 8}Q", data))


def flags_of(kernel: int, entry: int) -> str:
    flags = kernel
    if flags >> 12 & 1 and flags >> 34 & 1:
        flags ^= 1 << 34 | 1 << 47
    if flags >> 9 & 1 and not flags >> 8 & 1:
        flags ^= 1 << 9 | 1 << 48
    for bit, of_entry in ((40, 55), (61, 61), (62, 62), (63, 56)):
        flags |= (entry >> of_entry & 1) << bit
    return "".join(letter if flags >> bit & 1 else "_" for bit, letter in sorted(LETTERS.items()))


def mappings(pid: int) -> list[tuple[int, int, bool]]:
    """Return start, end and whether all of it is mapped by large entries."""
    found = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split()
        if "-" in head[0] and ":" not in head[0]:
            start, end = (int(number, 16) for number in head[0].split("-"))
            found.append([start, end, 0])
        elif head[0] == "AnonHugePages:":
            found[-1][2] = int(head[1]) << 10
    return [(start, end, huge) for start, end, huge in found if end < 1 << 47]


def main() -> None:
    pid = os.fork()
    if not pid:
        child()
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    pages, large = [], []
    for start, end, huge in mappings(pid):
        for i, entry in enumerate(
            words(f"/proc/{pid}/pagemap", start // PAGE, (end - start) // PAGE)
        ):
            if entry >> 63:
                frame = entry & (1 << 55) - 1
                flags = flags_of(words("/proc/kpageflags", frame, 1)[0], entry)
                pages.append((start // PAGE + i, frame, flags))
        if huge:
            spans = range(-(-start // LARGE) * LARGE, end - LARGE + 1, LARGE)
            there = {vpn for vpn, _, _ in pages}
            whole = [s for s in spans if all(s // PAGE + i in there for i in range(512))]
            assert huge == len(whole) * LARGE, "which of them are large, smaps does not say"
            large += whole
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    # The interpreter's own pages would make the files long: keep the huge mapping, and some others.
    near = {vpn for s in large for vpn in range(s // PAGE, s // PAGE + 1024)}
    others = [page for page in pages if page[0] not in near]
    pages = sorted(others[:: len(others) // 150] + [page for page in pages if page[0] in near])
    lines, run = ["voffset\toffset\tlen\tflags"], None
    for vpn, frame, flags in [*pages, (0, 0, "")]:
        if run and (vpn, frame, flags) == (run[0] + run[2], run[1] + run[2], run[3]):
            run[2] += 1
            continue
        if run:
            lines.append(f"{run[0]:x}\t{run[1]:x}\t{run[2]:x}\t{run[3]}")
        run = [vpn, frame, 1, flags]
    (FOLDER / "process.page-types").write_text("\n".join(lines) + "\n")
    inside = {vpn for s in large for vpn in range(s // PAGE, s // PAGE + 512)}
    frame_of = {vpn: frame for vpn, frame, _ in pages}
    groups = {
        PAGE: [vpn for vpn in frame_of if vpn not in inside],
        LARGE: [s // PAGE for s in large],
    }
    text = [f"# VirtualToPhysical of a process of Python {platform.python_version()} on Linux"]
    for size, vpns in groups.items():
        text += ["address_mapping_group {", f"  page_size: {size:#x}"]
        for vpn in vpns:
            text += ["  address_mapping {", f"    virtual_address: {vpn * PAGE:#x}"]
            text += [f"    physical_address: {frame_of[vpn] * PAGE:#x}", "  }"]
        text += [
            "  information {",
            f"    page_count: {len(vpns)}",
            f"    bytes_mapped: {size * len(vpns)}",
        ]
        text += ["  }", "}"]
    (FOLDER / "process.v2p.textproto").write_text("\n".join(text) + "\n")
    print(len(pages), "pages,", len(large), "of 2 MiB", file=sys.stderr)


if __name__ == "__main__":
    main()
