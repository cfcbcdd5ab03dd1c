"""A worked example: a hypervisor's own paging code, tested with a processor that forgets nothing.

`Hypervisor` is what you have: it backs a guest's memory with 2 MiB pages, splits one when a 4 KiB piece
of it is taken away, and moves pieces to other frames. It has a bug that no single-step test sees.
`HypervisorMachine` is what you write: it lets Hypothesis call your code in any order, with accesses
of the guest in between. Run it:

    from mmu.testing.example import Fixed, Hypervisor, machine_of
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine_of(Fixed))
    run_state_machine_as_test(machine_of(Hypervisor))  # StaleTranslation

In a test file, ``TestHypervisor = machine_of(Hypervisor).TestCase`` is all that pytest needs. What it
then says of the bug names the access, the entry that changed, and the instruction that is missing:

    stale translation: user read of 0x0 was answered by a walk through walk caches and nested TLB with
    0x200000, 2MiB, urwx; the tables say 0x40001000, 4KiB, urwx, of a guest page of 2MiB; the nested
    entry of level 2 at 0x7000 was 0x2001b7 and is 0x8107; INVEPT 1 of EPTP 0x5e would have dropped it
"""

from typing import Any

from mmu.config import Processor
from mmu.errors import InputError
from mmu.hardware.outcome import Outcome
from mmu.testing.processor import CheckedProcessor
from mmu.testing.tables import PAGE, SIZES, TableMemory, Tables

LARGE = SIZES["2m"]
REGIONS, PIECES = 2, 2  # 2 MiB regions of guest memory, and the pieces of each that are used
BACKED_AT = LARGE  # machine address: the guest's memory lies side by side from here
SPARE = 1 << 30  # pieces that are moved go here and up
# A small processor meets the bug sooner: entries, ways, and what each array holds.
SMALL: dict[str, Any] = {
    "name": "small",
    "frequency_hz": 10**9,
    "l1_data": [{"entries": 4, "ways": 2, "sizes": ["4k", "2m"]}],
    "l1_fetch": [{"entries": 4, "ways": 2, "sizes": ["4k", "2m"]}],
    "nested_tlb": {"entries": 16, "ways": 16, "sizes": ["4k", "2m"]},
    "latencies": {"l2": 7, "walk_cache": 1, "nested_tlb": 1, "reference": 14, "update": 20},
}


class Hypervisor:
    """Backs one virtual machine's memory, and takes parts of it away."""

    def __init__(self) -> None:
        self.memory = TableMemory(pages=32)
        self.nested = Tables(self.memory, "ept")
        self.guest = Tables(self.memory, nested=self.nested)
        for region in range(REGIONS):  # the guest maps its memory one to one
            self.guest.map(region * LARGE, region * LARGE, "2m")
            self.nested.map(region * LARGE, BACKED_AT + region * LARGE, "2m")
        self.cpu = CheckedProcessor(self.memory.view, Processor(**SMALL))
        self.cpu.enter(vm_id=1, nested=self.nested.pointer, cr3=self.guest.root)
        self.moved = 0

    def take(self, gpa: int) -> None:
        """Take a piece of memory away from the guest."""
        self.split(gpa)
        self.nested.unmap(gpa)
        self.cpu.invept(1, self.nested.root)

    def give(self, gpa: int) -> None:
        """Back a piece that was taken away; what was not present is cached nowhere."""
        self.nested.map(gpa, self.fresh())

    def move(self, gpa: int) -> None:
        """Move a piece to another frame."""
        self.split(gpa)
        self.nested.move(gpa, self.fresh())
        self.forget(gpa)

    def forget(self, gpa: int) -> None:
        """Drop what is cached of a piece. The bug: guest-physical and combined entries need INVEPT.

        INVLPG drops what the guest's address translates to, but the nested TLB keeps the piece's
        frame, and the 2 MiB page that it was a part of.
        """
        self.cpu.invlpg(gpa)

    def split(self, gpa: int) -> None:
        """Map the page around by pieces, if it is large."""
        leaf = self.nested.leaf(gpa)
        if leaf and leaf.size == LARGE:
            self.nested.split(gpa)

    def fresh(self) -> int:
        """Return a frame that nothing is in."""
        self.moved += 1
        return SPARE + PAGE * self.moved


class Fixed(Hypervisor):
    """The same, without the bug."""

    def forget(self, gpa: int) -> None:
        """Drop whatever comes of the nested tables."""
        self.cpu.invept(1, self.nested.root)


def machine_of(hypervisor: type[Hypervisor]) -> Any:
    """Return the state machine that tests a hypervisor, for Hypothesis."""
    try:
        from hypothesis import strategies as st  # noqa: PLC0415  an extra
        from hypothesis.stateful import RuleBasedStateMachine, rule  # noqa: PLC0415
    except ImportError as error:
        raise InputError("found no hypothesis; pip install 'mmu[testing]'") from error

    pieces = st.builds(
        lambda region, piece: region * LARGE + piece * PAGE,
        st.integers(0, REGIONS - 1),
        st.integers(0, PIECES - 1),
    )

    class HypervisorMachine(RuleBasedStateMachine):
        """What may happen, in any order."""

        def __init__(self) -> None:
            super().__init__()
            self.mine = hypervisor()
            self.taken: set[int] = set()

        @rule(gpa=pieces, access=st.sampled_from(["read", "write", "fetch"]))
        def access(self, gpa: int, access: str) -> None:
            """Touch the guest's memory: the processor checks what its caches answer."""
            found = self.mine.cpu.access(gpa, access)
            expected = Outcome.NESTED_VIOLATION if gpa in self.taken else Outcome.OK
            assert found.outcome == expected, found

        @rule(gpa=pieces)
        def move(self, gpa: int) -> None:
            if gpa not in self.taken:
                self.mine.move(gpa)

        @rule(gpa=pieces)
        def take_or_give(self, gpa: int) -> None:
            (self.mine.give if gpa in self.taken else self.mine.take)(gpa)
            self.taken ^= {gpa}

    return HypervisorMachine
