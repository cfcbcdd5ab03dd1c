"""What `vectors/linux_guest.py` wrote down: a Linux guest's tables, and what was said of them."""

import json
import lzma
from dataclasses import dataclass, field
from pathlib import Path

import mmu

VECTORS = Path(__file__).parent / "vectors"
NAMES = ("four-user", "four-kernel", "four-shell", "five-user", "five-shell")


@dataclass
class LinuxState:
    """A guest, stopped while one of its processes ran."""

    name: str
    memory: mmu.Memory
    registers: dict
    said: dict = field(repr=False)

    @property
    def control(self):
        """What the control registers say."""
        cr0, cr4, flags = (self.registers[name] for name in ("CR0", "CR4", "RFL"))
        return mmu.Control(
            wp=bool(cr0 >> 16 & 1), nxe=bool(self.registers["EFER"] >> 11 & 1),
            smep=bool(cr4 >> 20 & 1), smap=bool(cr4 >> 21 & 1), ac=bool(flags >> 18 & 1),
            la57=bool(cr4 >> 12 & 1), maxphyaddr=40,
        )  # fmt: skip

    @property
    def answers(self):
        """Addresses, and where `gva2gpa` found them; None: it did not."""
        return [
            (int(gva, 16), None if gpa is None else int(gpa, 16))
            for gva, gpa in self.said["gva2gpa"]
        ]

    @property
    def areas(self):
        """The areas of /proc/PID/maps: first address, end, rights such as "r-xp", name."""
        for line in self.said["maps"]:
            span, rights, *rest = line.split()
            first, end = (int(part, 16) for part in span.split("-"))
            yield first, end, rights, rest[-1] if len(rest) > 3 else ""

    @property
    def present(self):
        """The pages that /proc/PID/pagemap has frames for: {page number: frame number}."""
        found = {}
        for line in self.said["pagemap"]:
            first, count, frame = (int(part, 16) for part in line.split())
            found.update({first + i: frame + i for i in range(count)})
        return found


def unfolded(runs):
    """The lines that `linux_guest.folded` made runs of: two numbers and a text each."""
    for run in runs:
        first, second, text, count, step, by = run.split()
        for i in range(int(count)):
            yield int(first, 16) + i * int(step, 16), int(second, 16) + i * int(by, 16), text


def linux_state(name, folder=VECTORS):
    """Read a state of that name."""
    said = json.loads(lzma.decompress((folder / f"{name}.json.xz").read_bytes()))
    memory = mmu.Memory.open(folder / f"{name}.core")
    registers = {key: int(value, 16) for key, value in said["registers"].items()}
    return LinuxState(name, memory, registers, said)
