"""Boot Linux in QEMU and write down what it and QEMU say about its page tables.

    python tests/vectors/linux_guest.py --kernel FILE [--modules FOLDER] [--out FOLDER] [NAME...]

Needs qemu-system-x86_64, a C compiler and a static busybox (Debian: qemu-system-x86, gcc,
busybox-static, linux-image-amd64). No privileges; a guest runs without KVM and takes two minutes. For
each guest of GUESTS and each process of PROCESSES it writes

- ``NAME-PROCESS.core``: an ELF core such as dump-guest-memory writes, of which only the pages are
  left that hold tables reachable from CR3;
- ``NAME-PROCESS.json.xz``: the registers; ``gva2gpa`` of some hundred addresses, ``info mem`` and
  ``info tlb`` in runs (`folded`); the process's maps and pagemap as Linux tells them.

The guest ``nested``, for which the kernel's modules are needed, runs a machine of its own with KVM:
``nested-kvm`` has both kinds of tables, the pairs of addresses that the machine's own tables were made
of (linux_nested.c), and the frames behind its memory as Linux tells them.

The formats of the monitor's answers are those of QEMU 7.2 (target/i386/monitor.c).
"""

import argparse
import io
import json
import lzma
import mmap
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cores import PAGE, segments, small_core, table_pages

HERE = Path(__file__).parent
SPIN = 0x5A5A_5A5A_5000  # as in linux_init.c
GUESTS = {
    # name: CPU, memory in MiB, kernel's words
    "four": ("max,la57=off", 192, "pti=on"),
    "five": ("max,la57=on", 3072, "pti=off hugepagesz=1G hugepages=1"),
    "nested": ("max,la57=off,+svm,+npt", 640, ""),  # Linux has large pages from 512 MiB on
}
NESTED = "nested"  # the guest that is a hypervisor
MODULES = ("irqbypass.ko", "kvm.ko", "ccp.ko", "kvm-amd.ko")
PROCESSES = ("user", "kernel", "shell")  # in the order of linux_init.c
SAME = {("five", "kernel")}  # without page-table isolation: the tables of "user"
WORDS = "console=ttyS0 quiet panic=-1 rdinit=/init"
WAIT = 300
# "first-end size rights", of which the end says nothing new; "page: frame flags".
MEM_LINE = "([0-9a-f]{16})-[0-9a-f]{16} ([0-9a-f]{16}) ([-urw]{3})"
TLB_LINE = "([0-9a-f]{16}): ([0-9a-f]{16}) ([-XGPDACTUW]{9})"


# --- the initial file system ----------------------------------------------------------------------


def cpio(files):
    """Pack (name, mode, content) as a cpio archive of the kind the kernel unpacks ("newc")."""
    out = io.BytesIO()
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")]):
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0)
        out.write(b"070701" + b"".join(b"%08x" % value for value in fields) + raw)
        out.write(bytes(-out.tell() % 4) + content)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


def initial_files(folder, source, files):
    """Compile the first process, and pack it with files: {name: path}."""
    init = folder / "init"
    flags = ("-O1", "-w", "-static", "-fno-stack-protector", "-fcf-protection=none")
    subprocess.run(["cc", *flags, "-o", init, HERE / source], check=True)
    packed = folder / f"{source}.initrd"
    packed.write_bytes(
        cpio(
            [
                ("dev", 0o40755, b""),
                ("bin", 0o40755, b""),
                ("init", 0o100755, init.read_bytes()),
                *((name, 0o100755, Path(path).read_bytes()) for name, path in files.items()),
            ]
        )
    )
    return packed


# --- the machine ----------------------------------------------------------------------------------


class Guest:
    """A running QEMU, its monitor (QMP) and its serial line."""

    def __init__(self, folder, kernel, initrd, name):
        cpu, megabytes, words = GUESTS[name]
        self.said = []
        listening = []
        for end in ("monitor", "serial"):
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(folder / f"{name}.{end}"))
            server.listen(1)
            server.settimeout(WAIT)
            listening.append(server)
        self.process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-m", f"{megabytes}M", "-smp", "1",
                "-display", "none", "-nodefaults", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
                "-append", f"{WORDS} {words}",
                "-qmp", f"unix:{folder / name}.monitor", "-serial", f"unix:{folder / name}.serial",
            ]
        )  # fmt: skip
        ends = [server.accept()[0] for server in listening]
        for end in ends:
            end.settimeout(WAIT)
        self.monitor, self.serial = (end.makefile("rwb", buffering=0) for end in ends)
        self.monitor.readline()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        """Send a command to the monitor and return its answer."""
        self.monitor.write(
            json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        )
        while True:
            answer = json.loads(self.monitor.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise SystemExit(f"{command}: {answer['error']}")

    def human(self, line):
        """Return what the monitor prints, with newlines of one character."""
        return self.ask("human-monitor-command", **{"command-line": line}).replace("\r\n", "\n")

    def wait(self):
        """Read the serial line up to "@ready" or "@done"; the lines before it that begin with "@"."""
        lines = []
        while True:
            line = self.serial.readline().decode(errors="replace").strip()
            if not line and self.process.poll() is not None:
                raise SystemExit("the guest ended; its last lines:\n" + "\n".join(lines[-20:]))
            lines.append(line)
            if line.startswith(("@ready", "@done")):
                return [text for text in lines if text.startswith("@")]

    def registers(self):
        """Return the numbers of `info registers` that say how addresses are translated."""
        text = self.human("info registers")
        names = ("RIP", "CR0", "CR3", "CR4", "EFER", "CPL", "RFL")
        return {name: int(re.search(rf"\b{name}=([0-9a-f]+)", text)[1], 16) for name in names}

    def stop_in(self, wanted):
        """Stop the machine where its registers are as wanted."""
        for _ in range(2000):
            self.ask("stop")
            registers = self.registers()
            if wanted(registers):
                return registers
            self.ask("cont")
            time.sleep(random.uniform(0.0001, 0.01))
        raise SystemExit(f"never stopped where it should; last {registers}")

    def end(self):
        """End the machine, whatever it does."""
        self.process.kill()
        self.process.wait()


WANTED = {
    "user": lambda seen: seen["CPL"] == 3 and seen["RIP"] >> 12 == SPIN >> 12,
    # With page-table isolation CR3 bit 12 tells the user's tables from the kernel's.
    "kernel": lambda seen: seen["CPL"] == 0 and not seen["CR3"] & PAGE and seen["RIP"] >> 31 & 1,
    "shell": lambda seen: seen["CPL"] == 3 and seen["RIP"] >> 12 != SPIN >> 12,
}


# --- the questions --------------------------------------------------------------------------------


def questions(tlb, maps, levels, rng):
    """Return addresses to translate: ends and insides of what is mapped, and what is not."""
    asked = set()
    starts = [int(line.split(":")[0], 16) for line in tlb.splitlines()]
    edges = [
        here
        for before, here, after in zip([None, *starts], starts, [*starts[1:], None], strict=False)
        if before is None or after is None or here - before != after - here
    ]
    for start in rng.sample(edges, min(len(edges), 150)) + rng.sample(
        starts, min(len(starts), 150)
    ):
        asked.update({start, start + rng.randrange(PAGE), start - 1, start + 0x1FF234})
    for line in maps:
        first, end = (int(part, 16) for part in line.split()[0].split("-"))
        asked.update({first, end - 1, end, first - 1, rng.randrange(first, end)})
    half = 1 << (12 + 9 * levels - 1)
    for edge in (0, half, -half, 1 << 47, -1 << 47, 1 << 63):
        asked.update({edge, edge - 1, edge + PAGE})
    asked.update(rng.getrandbits(64) for _ in range(20))
    asked.update(rng.randrange(-half, half) for _ in range(40))
    return sorted(value % (1 << 64) for value in asked)


def folded(lines, pattern):
    """Return lines of two hexadecimal numbers and a text as runs of lines that count on.

    Each run is "FIRST SECOND TEXT LINES STEP STEP": the numbers of the first line, how many lines
    there are, and by how much either number grows from line to line.
    """
    runs = []
    for line in lines.splitlines():
        first, second, text = re.fullmatch(pattern, line).groups()
        first, second = int(first, 16), int(second, 16)
        if runs and runs[-1][2] == text:
            start, base, _, count, step, by = runs[-1]
            if count == 1:
                runs[-1][3:] = 2, first - start, second - base
                continue
            if (first, second) == (start + count * step, base + count * by):
                runs[-1][3] += 1
                continue
        runs.append([first, second, text, 1, 0, 0])
    return [
        f"{first:x} {second:x} {text} {count} {step:x} {by:x}"
        for first, second, text, count, step, by in runs
    ]


def lines_of(lines, head):
    """Return what stands behind a head in the lines that have it."""
    return [line.removeprefix(head) for line in lines if line.startswith(head)]


def record(guest, name, process, lines, folder, out):
    """Write down one state of a guest."""
    last, _, frame = (int(part, 16) for part in lines_of(lines, "@page ")[-1].split())

    def wanted(seen):
        """The process runs, and not the first one or the kernel in its place: its stack is there."""
        here = f"gpa: {frame << 12:#x}"
        return WANTED[process](seen) and guest.human(f"gva2gpa {last << 12:#x}").strip() == here

    registers = guest.stop_in(wanted)
    levels = 5 if registers["CR4"] >> 12 & 1 else 4
    tlb, mapped = guest.human("info tlb"), guest.human("info mem")
    maps = lines_of(lines, "@maps ")
    answers = []
    for gva in questions(tlb, maps, levels, random.Random(f"{name} {process}")):
        answer = guest.human(f"gva2gpa {gva:#x}").strip()
        found = re.fullmatch(r"gpa: (0|0x[0-9a-f]+)|Unmapped", answer)
        if not found:
            raise SystemExit(f"gva2gpa {gva:#x}: found {answer!r}")
        answers.append([f"{gva:#x}", found[1]])
    dump = folder / "dump"
    guest.ask("dump-guest-memory", paging=False, protocol=f"file:{dump}")
    with open(dump, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as core:
        pages, notes = table_pages(memoryview(core), registers["CR3"], levels)
    dump.unlink()
    guest.ask("cont")
    cpu, megabytes, words = GUESTS[name]
    said = {
        "qemu": guest.ask("query-version")["qemu"],
        "linux": next((line[7:] for line in lines if line.startswith("@linux ")), ""),
        "cpu": cpu,
        "megabytes": megabytes,
        "command_line": f"{WORDS} {words}",
        "registers": {key: f"{value:#x}" for key, value in registers.items()},
        "gva2gpa": answers,
        "maps": maps,
        "pagemap": lines_of(lines, "@page "),
        "info_mem": folded(mapped, MEM_LINE),
        "info_tlb": folded(tlb, TLB_LINE),
    }
    written(out, f"{name}-{process}", small_core(pages, notes), said)
    print(f"{name} {process}: {len(pages)} table pages, {len(answers)} addresses, "
          f"{len(tlb.splitlines()):,} pages in info tlb")  # fmt: skip


def written(out, name, core, said):
    """Write both files of a state."""
    text = json.dumps(said, indent=0).encode()
    packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    for ending, content in (("core", core), ("json.xz", packed)):
        path = out / f"{name}.{ending}"
        path.write_bytes(content)
        print(f"{path}: {len(content):,} bytes")


def control_block(core, registers):
    """Find the block that KVM keeps for the machine, and return its nCR3.

    Places of its fields: AMD64 APM vol. 2, appendix B, "Layout of VMCB".
    """
    found = set()
    for _, offset, size in segments(core)[0]:
        for place in range(offset, offset + size - PAGE + 1, PAGE):
            (enabled, ncr3, cr3, rip) = (
                struct.unpack_from("<Q", core, place + field)[0]
                for field in (0x90, 0xB0, 0x550, 0x578)
            )
            if enabled & 1 and cr3 == registers["CR3"] and rip >> 12 == registers["RIP"] >> 12:
                found.add(ncr3)
    if len(found) != 1:
        raise SystemExit(f"nCR3: found {sorted(map(hex, found))}")
    return found.pop()


def record_nested(guest, lines, folder, out):
    """Write down the state of a guest and the machine that it runs."""
    made = [line.split()[1:] for line in lines if line.startswith("@gva ")]
    frames = lines_of(lines, "@page ")
    first = int(made[0][0], 16)  # the machine's code
    registers = guest.stop_in(lambda seen: seen["RIP"] >> 12 == first >> 12)
    dump = folder / "dump"
    guest.ask("dump-guest-memory", paging=False, protocol=f"file:{dump}")
    with open(dump, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as core:
        ncr3 = control_block(core, registers)
        pages, notes = table_pages(memoryview(core), ncr3, 4)
        for line in frames:
            gpa, _, frame = (int(part, 16) for part in line.split())
            if gpa << 12 < first:  # the machine's own tables
                for address, offset, size in segments(core)[0]:
                    if address <= frame << 12 < address + size:
                        at = offset + (frame << 12) - address
                        pages[frame << 12] = bytes(core[at : at + PAGE])
    dump.unlink()
    cpu, megabytes, words = GUESTS[NESTED]
    said = {
        "qemu": guest.ask("query-version")["qemu"],
        "cpu": cpu,
        "megabytes": megabytes,
        "command_line": f"{WORDS} {words}",
        "registers": {key: f"{value:#x}" for key, value in registers.items()},
        "ncr3": f"{ncr3:#x}",
        "made": made,
        "pagemap": frames,
    }
    written(out, "nested-kvm", small_core(pages, notes), said)


def main():
    """Boot the guests and write their states."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kernel", required=True)
    arguments.add_argument("--busybox", default=shutil.which("busybox"))
    arguments.add_argument("--modules", type=Path, help="such as /lib/modules/VERSION")
    arguments.add_argument("--out", type=Path, default=HERE)
    arguments.add_argument("names", nargs="*", default=list(GUESTS), metavar="NAME")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in given.names:
            if name == NESTED and not given.modules:
                print(f"{name}: left out, as --modules says nothing")
                continue
            if name == NESTED:
                files = {each: next(given.modules.rglob(each)) for each in MODULES}
                initrd = initial_files(folder, "linux_nested.c", files)
            else:
                initrd = initial_files(folder, "linux_init.c", {"bin/busybox": given.busybox})
            guest = Guest(folder, given.kernel, initrd, name)
            try:
                if name == NESTED:
                    record_nested(guest, guest.wait(), folder, given.out)
                    continue
                for process in PROCESSES:
                    lines = guest.wait()
                    if (name, process) not in SAME:
                        record(guest, name, process, lines, folder, given.out)
                    guest.serial.write(b"\n")
            finally:
                guest.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
