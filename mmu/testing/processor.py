"""A processor with TLBs, walk caches and a nested TLB that a user's hypervisor or pager drives.

The model changes tables in its memory, makes accesses, and invalidates what it must. Whatever a cache
answers is compared with the tables; a difference is a `StaleTranslation`.

The processor drops exactly what each instruction must drop, and nothing else; a real one may drop more,
so that a missing invalidation shows seldom. Sources are those of `mmu.hardware.invalidate`.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import NoReturn

import numpy as np

from mmu.config import Processor
from mmu.errors import InputError, StaleTranslation
from mmu.hardware import invalidate
from mmu.hardware.bits import reach
from mmu.hardware.check import (
    STALE_DENIED_NOW,
    STALE_FIELDS,
    STALE_NOW,
    STALE_WORD,
    make_checked,
)
from mmu.hardware.entry import ADDRESS
from mmu.hardware.geometry import (
    SIZE_NAMES,
    build_machine,
    plain_view,
    processor_model,
    processor_rows,
    view_of,
)
from mmu.hardware.machine import (
    ERROR_PRESENT,
    ERROR_RESERVED,
    FAULT_ERROR,
    FAULT_OUTCOME,
    FAULT_WALKS,
    GLOBAL,
    GUEST_REFERENCES,
    NESTED_REFERENCES,
    NO_CONTEXT,
    SUPERVISOR,
    WALKS,
)
from mmu.hardware.outcome import Outcome
from mmu.hardware.rows import CONTEXTS
from mmu.hardware.tlb import FRAME_GLOBAL
from mmu.memory import Memory
from mmu.paging import Control, Ept, Npt, check_switches, whole
from mmu.processors import load_processor
from mmu.stale import OUTCOME_TEXTS, answer_of, described
from mmu.testing.diagnosis import History, remedy
from mmu.translation import ACCESSES, Translation, access_code, signed, translate

MOST_VMS = 256
MOST_PCID, MOST_VM_ID = (1 << 12) - 1, (1 << 16) - 1
PCID_MASK, KEEP = MOST_PCID, 1 << 63
NOWHERE = np.zeros(0, np.int64)  # positions of accesses that do not overlap
named = cache(load_processor)  # which parses a file


@dataclass(frozen=True)
class Access:
    """How an access ended.

    Attributes
    ----------
    outcome : Outcome
        OK, or the fault.
    maddr : int or None
        Machine address.
    answered_by : str
        "l1" or "l2", the TLB that had it, else "walk".
    references : int
        Table reads made.
    tables : Translation
        What the tables say now, without any cache; of a fault, its error code and addresses.
    spurious : bool
        It is a fault, and the tables permit the access: a cache granted less than they do, which is
        allowed. The entries it came from are gone; make the access again.
    """

    outcome: Outcome
    maddr: int | None
    answered_by: str
    references: int
    tables: Translation = field(repr=False)
    spurious: bool = False


@dataclass(frozen=True)
class Mode:
    """What the processor is running."""

    vm_id: int = 0  # VPID or ASID; 0: the hypervisor
    nested: Ept | Npt | None = None
    cr3: int | None = None  # as last loaded, but bit 63


class CheckedProcessor:
    """One logical processor over a memory of tables.

    Parameters
    ----------
    memory : Memory
        Machine memory, writable: the processor sets accessed and dirty bits.
    processor : str or Processor
        Its caches: a name of `mmu processors`, or a configuration, such as one of
        `strategies.processors`.
    control : Control
        Control registers, of guests and of the hypervisor.
    pcide : bool
        CR4.PCIDE: bits 11:0 of CR3 are a PCID.
    pge : bool
        CR4.PGE: bit 8 of a leaf makes a translation global.
    tagged : bool
        VMs have VPIDs or ASIDs. Without, every entry to a VM and every exit flushes.

    Raises
    ------
    InputError
        An argument is none of these; of any method as well.
    StaleTranslation
        By `access`: a cache answered what the tables do not say, or led the walk to a table that they
        no longer point to.

    Examples
    --------
    >>> cpu = CheckedProcessor(memory.view)
    >>> cpu.enter(vm_id=1, nested=nested.pointer, cr3=guest.root)
    >>> cpu.access(0x1234_5678, "write").maddr
    """

    def __init__(
        self,
        memory: Memory,
        processor: str | Processor = "skylake-sp",
        *,
        control: Control | None = None,
        pcide: bool = False,
        pge: bool = True,
        tagged: bool = True,
    ) -> None:
        if not isinstance(memory, Memory) or not memory.writable:
            raise InputError(
                f"memory: found {type(memory).__name__}; accepted: a writable mmu.Memory, such as "
                "Memory.from_words(numpy.zeros(512 * pages, numpy.uint64))"
            )
        if control is not None and not isinstance(control, Control):
            found = type(control).__name__
            raise InputError(f"control: found {found}; accepted: Control(wp=...)")
        if not isinstance(processor, str | Processor):
            found = type(processor).__name__
            raise InputError(f"processor: found {found}; accepted: a name, or mmu.Processor(...)")
        check_switches({"pcide": pcide, "pge": pge, "tagged": tagged})
        self.memory, self.control = memory, control or Control()
        self.processor = named(processor) if isinstance(processor, str) else processor
        self.pcide, self.pge, self.tagged = pcide, pge, tagged
        self.mode = Mode()
        self.saved: dict[int, int] = {}  # CR3 of each VM while another runs
        self._vms: dict[int, int] = {0: MOST_VMS}  # owner, by VPID or ASID
        self._tags: dict[tuple[str, int], int] = {}  # of guest-physical entries
        self._contexts: dict[tuple[int, int, int], int] = {}
        self._history = History()
        rules = self.control.rules(None)
        groups = processor_rows(self.processor, SIZE_NAMES)
        machine = build_machine(
            groups, MOST_VMS + 1, memory.words, rules, extents=memory.extents, pge=True,
            model=processor_model(self.processor, None),
            split_l2=self.processor.l2_fetch is not None,
        )  # fmt: skip
        self._machine = view_of(machine)
        self._plain = plain_view(self._machine)
        self._address, self._kind = np.zeros(1, np.int64), np.zeros(1, np.uint8)
        self._stale = np.zeros(STALE_FIELDS, np.int64)

    # --- what runs -------------------------------------------------------------------------------

    def enter(
        self, vm_id: int = 1, nested: Ept | Npt | None = None, cr3: int | None = None
    ) -> None:
        """VM entry: run a VM from now on.

        Parameters
        ----------
        vm_id : int
            Its VPID or ASID, 1 to 65535; without tags all VMs have VPID 0, whatever this is.
        nested : Ept or Npt, optional
            Its nested tables, at each entry anew: without, the guest runs on its own tables alone.
        cr3 : int, optional
            The guest's CR3; by default what it last had. Loading it this way invalidates nothing.
        """
        if not 1 <= whole("vm_id", vm_id) <= MOST_VM_ID:
            raise InputError(f"vm_id: found {vm_id}; accepted: 1 to {MOST_VM_ID}")
        if nested is not None and not isinstance(nested, Ept | Npt):
            found = type(nested).__name__
            raise InputError(f"nested: found {found}; accepted: None, Ept(eptp) or Npt(ncr3)")
        self._leave()
        cr3 = self.saved.get(vm_id) if cr3 is None else self._checked_cr3(cr3)
        self._run(Mode(vm_id, nested, cr3), nested)

    def exit(self) -> None:
        """VM exit: the hypervisor runs, with the CR3 that it last had."""
        nested = self.mode.nested
        self._leave()
        self._run(Mode(cr3=self.saved.get(0)), nested)

    def load_cr3(self, value: int) -> None:
        """MOV to CR3: drops what is not global of its PCID, unless PCIDE and bit 63 are set."""
        keep = bool(self.pcide and whole("cr3", value) & KEEP)
        value = self._checked_cr3(value & ~KEEP if self.pcide else value)
        self.mode = Mode(self.mode.vm_id, self.mode.nested, value)
        invalidate.load_cr3(self._machine, self._context(), int(keep))

    def access(self, gva: int, access: str = "read", user: bool = True) -> Access:
        """Make an access, and compare what the caches answer with the tables.

        Returns
        -------
        Access
            With the outcome; a fault is one, for the model to handle.
        """
        place, kind = signed(whole("gva", gva)), access_code(access)
        now = self._translate(gva, access, user)
        if now.outcome == Outcome.NOT_CANONICAL:
            return Access(now.outcome, None, "walk", 0, now)
        machine, context = self._machine, self._context()
        self._address[0], self._kind[0] = place, kind + (0 if user else SUPERVISOR)
        before, hits = machine.events[0].copy(), machine.hits[0].sum()
        done = make_checked(
            machine, self._plain, self._stale, 0, context, self._address, self._kind, NOWHERE, 0, 1
        )
        counted = machine.events[0] - before
        references = int(counted[GUEST_REFERENCES] + counted[NESTED_REFERENCES])
        by = "l1" if machine.hits[0].sum() == hits else "l2"
        if counted[WALKS : FAULT_WALKS + 1].any():
            by = "walk"
        if done == 0:
            outcome = Outcome(int(machine.fault[FAULT_OUTCOME]))
            spurious = now.outcome == Outcome.OK
            if self._strayed(outcome, now):
                text = OUTCOME_TEXTS[outcome] + self._code(outcome, now)
                self._refuse(gva, by, text, now, faulted=True)
            return Access(outcome, None, by, references, now, spurious)
        if done < 0:
            shared = bool(self._stale[STALE_WORD] & FRAME_GLOBAL)
            self._refuse(gva, by, answer_of(self._stale), now, shared=shared)
        self._history.note(self._key(), gva, now)
        return Access(Outcome.OK, now.maddr, by, references, now)

    # --- what drops entries ----------------------------------------------------------------------

    def invlpg(self, gva: int) -> None:
        """INVLPG: one page of the current PCID, and global; of no canonical address, nothing."""
        context = self._context()
        if self._canonical(gva):
            invalidate.invlpg(self._machine, context, signed(whole("gva", gva)))

    def invpcid(self, kind: int, pcid: int = 0, gva: int = 0) -> None:
        """INVPCID: 0 a page of a PCID, 1 a PCID, 2 all and what is global, 3 all but global."""
        self._of("kind", kind, (0, 1, 2, 3))
        most_pcid = MOST_PCID if self.pcide or kind > invalidate.ONE_PCID else 0
        if not 0 <= whole("pcid", pcid) <= most_pcid:
            most = f"0 to {MOST_PCID}" if most_pcid else "0, where PCIDE is clear"
            raise InputError(f"pcid: found {pcid}; accepted: {most}")
        place = self._operand(kind, invalidate.ADDRESS_IN_PCID, gva)
        invalidate.invpcid(self._machine, kind, self._context(), pcid, place)

    def invvpid(self, kind: int, vm_id: int = 1, gva: int = 0) -> None:
        """INVVPID: 0 a page of a VM, 1 a VM, 2 all VMs, 3 a VM but what is global."""
        self._of("kind", kind, (0, 1, 2, 3))
        if kind != invalidate.ALL_VMS and not 1 <= whole("vm_id", vm_id) <= MOST_VM_ID:
            raise InputError(f"vm_id: found {vm_id}; accepted: 1 to {MOST_VM_ID}, VPID 0 fails")
        place = self._operand(kind, invalidate.ADDRESS_IN_VM, gva)
        invalidate.invvpid(self._machine, kind, self._owner(vm_id), place)

    def invept(self, kind: int, nested: Ept | int | None = None) -> None:
        """INVEPT: 1 what comes of an EPT pointer's tables, 2 of any."""
        self._of("kind", kind, (1, 2))
        if kind == invalidate.ALL_EPTS:
            nested = 0
        elif nested is None:
            raise InputError("nested: found none; accepted: the Ept, or EPT pointer, for type 1")
        root = nested.root if isinstance(nested, Ept) else whole("nested", nested)
        if not 0 <= root < 1 << 64:
            raise InputError(f"nested: found {root:#x}; accepted: an EPT pointer, 64 bits")
        root &= ADDRESS
        invalidate.invept(self._machine, kind, self._tag("ept", root))

    def tlb_control(self, code: int, vm_id: int | None = None) -> None:
        """VMRUN's TLB_CONTROL: 0 nothing, 1 everything, 3 an ASID, 7 an ASID but what is global.

        `vm_id`: the ASID, by default that of the VM that runs.
        """
        self._of("code", code, (0, 1, 3, 7))
        asid = self.mode.vm_id if vm_id is None else vm_id
        if asid == 0 and code in (invalidate.FLUSH_ASID, invalidate.FLUSH_ASID_BUT_GLOBALS):
            raise InputError("vm_id: found 0, the hypervisor's; accepted: 1 to 65535, VMRUN fails")
        owner = self._owner(asid)
        invalidate.tlb_control(self._machine, code, owner)

    def invlpga(self, gva: int, asid: int) -> None:
        """INVLPGA: one page of an ASID; guest-physical entries stay."""
        owner = self._owner(asid)
        if self._canonical(gva):
            invalidate.invlpga(self._machine, owner, signed(whole("gva", gva)))

    def toggle_pge(self) -> None:
        """MOV to CR4 that changes PGE, twice: all of the current VM, what is global included."""
        invalidate.load_cr4(self._machine, self._context(), 1)

    def flush(self, nested: bool = True) -> None:
        """Drop everything; without `nested` all but guest-physical entries."""
        check_switches({"nested": nested})
        invalidate.flush(self._machine, nested)

    # --- within ----------------------------------------------------------------------------------

    @staticmethod
    def _of(name: str, value: object, accepted: tuple[int, ...]) -> None:
        if whole(name, value) not in accepted:
            raise InputError(f"{name}: found {value}; accepted: {' | '.join(map(str, accepted))}")

    def _canonical(self, gva: int) -> bool:
        """Tell whether bits 63:47 of an address are alike (63:56 with five levels)."""
        sign = signed(whole("gva", gva)) >> reach(self.control.rules(None).levels) - 1
        return sign in (0, -1)

    def _operand(self, kind: int, of_address: int, gva: int) -> int:
        """Return the address of an instruction's descriptor, which one of its types takes."""
        if not self._canonical(gva) and kind == of_address:
            raise InputError(
                f"gva: found {gva:#x}, which is not canonical; accepted: what is; type {kind} fails"
            )
        return signed(whole("gva", gva))

    @staticmethod
    def _checked_cr3(cr3: int) -> int:
        if not 0 <= whole("cr3", cr3) < 1 << 63:
            raise InputError(f"cr3: found {cr3:#x}; accepted: 63 bits, of which 51:12 count")
        return cr3

    def _leave(self) -> None:
        if self.mode.cr3 is not None:
            self.saved[self.mode.vm_id] = self.mode.cr3

    def _run(self, mode: Mode, nested: Ept | Npt | None) -> None:
        """Change what runs; `nested` are the VM's tables that is entered or left."""
        self.mode = mode
        rules = self.control.rules(mode.nested)
        self._machine = self._machine._replace(rules=rules)
        self._plain = self._plain._replace(rules=rules._replace(update=0))
        if not self.tagged:
            # Intel keeps guest-physical entries, and AMD has no way to.
            self.flush(nested=isinstance(nested, Npt) or self.processor.flush_nested)

    def _owner(self, vm_id: int) -> int:
        """Return the small number that stands for a VPID or ASID."""
        vm_id = whole("vm_id", vm_id) if self.tagged else 0
        if not 0 <= vm_id <= MOST_VM_ID:
            raise InputError(f"vm_id: found {vm_id}; accepted: 0 to {MOST_VM_ID}")
        if vm_id not in self._vms:
            if len(self._vms) > MOST_VMS:
                raise InputError(
                    f"vm_id: found {vm_id}, number {MOST_VMS + 1}; accepted: fewer VMs"
                )
            self._vms[vm_id] = len(self._vms) - 1
        return self._vms[vm_id]

    def _tag(self, form: str, number: int) -> int:
        if (form, number) not in self._tags:
            if len(self._tags) == CONTEXTS:
                raise InputError(f"nested: found more than {CONTEXTS} tables; accepted: fewer")
            self._tags[form, number] = len(self._tags)
        return self._tags[form, number]

    def _key(self) -> tuple[int, int, int]:
        """Return the tags of what the current address space caches: VM, PCID, nested tables."""
        nested, owner = self.mode.nested, self._owner(self.mode.vm_id)
        tag = NO_CONTEXT
        if isinstance(nested, Ept):
            tag = self._tag("ept", nested.root)
        elif nested is not None:
            tag = self._tag("asid", owner)  # AMD tags them by the VM
        pcid = (self.mode.cr3 or 0) & PCID_MASK if self.pcide else 0
        return owner, pcid, tag

    def _context(self) -> int:
        """Return the context that stands for the current tags, with its roots up to date."""
        if self.mode.cr3 is None:
            raise InputError(
                "cr3: found none; accepted: load_cr3(value), or enter(cr3=value), first"
            )
        owner, pcid, tag = self._key()
        context = self._interned(owner, pcid, tag)
        nested = self.mode.nested
        self._machine.root[context] = self.mode.cr3 & ADDRESS
        self._machine.nested[context] = nested.root if nested else -1
        if self.pge:
            shared = self._machine.global_context
            assert shared is not None  # `pge` made it
            shared[context] = self._interned(owner, GLOBAL, tag)
        return context

    def _interned(self, owner: int, pcid: int, tag: int) -> int:
        key = owner, pcid, tag
        if key not in self._contexts:
            context = len(self._contexts)
            if context == CONTEXTS - 1:
                raise InputError(
                    f"cr3: found {context} address spaces; accepted: fewer PCIDs and VMs"
                )
            machine = self._machine
            machine.vm[context], machine.pcid[context] = owner, pcid
            machine.nested_tag[context] = tag
            self._contexts[key] = context
        return self._contexts[key]

    def _translate(self, gva: int, access: str, user: bool) -> Translation:
        mode = self.mode
        if mode.cr3 is None:
            self._context()  # which says what is missing
        return translate(
            self.memory, gva, cr3=mode.cr3 or 0, nested=mode.nested, access=access, user=user,
            control=self.control,
        )  # fmt: skip

    def _strayed(self, outcome: Outcome, now: Translation) -> bool:
        """Tell whether a fault shows that the walk read a table that no entry points to any longer.

        Entries that are not present, or malformed, are cached nowhere, and what a cache may know of
        the others is fewer rights than they grant now: a spurious fault is one of protection.
        """
        both = ERROR_PRESENT | ERROR_RESERVED
        found = int(self._machine.fault[FAULT_ERROR]) & both
        if now.outcome == Outcome.OK:
            known = outcome in (Outcome.PAGE_FAULT, Outcome.NESTED_VIOLATION)
            return not known or found != ERROR_PRESENT
        if now.outcome == outcome == Outcome.PAGE_FAULT:
            return found != (now.error_code or 0) & both
        return False  # the tables' fault may be one that a cache spares

    def _code(self, outcome: Outcome, now: Translation) -> str:
        """Say which error code a page fault had, where the tables' has another."""
        if now.outcome != outcome or now.error_code is None:
            return ""
        both = ERROR_PRESENT | ERROR_RESERVED
        found = int(self._machine.fault[FAULT_ERROR]) & both
        return f", error code {now.error_code & ~both | found:#x}"

    def _refuse(
        self, gva: int, by: str, cached: str, now: Translation, *, shared: bool = False,
        faulted: bool = False,
    ) -> NoReturn:  # fmt: skip
        """Report a stale translation; `shared`: a global one; `faulted`: the access did."""
        kind = int(self._kind[0])
        who = "supervisor" if kind >= SUPERVISOR else "user"
        what = list(ACCESSES)[kind % SUPERVISOR]
        gva %= 1 << 64
        source = (
            "a walk through walk caches and nested TLB" if by == "walk" else f"the {by.upper()} TLB"
        )
        says = now.outcome.name
        if now.error_code is not None:
            says += f", error code {now.error_code:#x}"
        if now.outcome == Outcome.OK:
            says = f"{now.maddr:#x}, in a page of {now.page_size:#x} bytes"
            if not faulted:
                says = described(int(self._stale[STALE_NOW]), int(self._stale[STALE_DENIED_NOW]))
        change = self._history.change(self._key(), gva, now)
        dimension = change.dimension if change else None
        cause = f"; {change.text}" if change else ""
        drop = remedy(self.mode, self.pcide, gva, dimension, shared)
        raise StaleTranslation(
            gva,
            f"stale translation: {who} {what} of {gva:#x} was answered by {source} with {cached}; "
            f"the tables say {says}{cause}; {drop} would have dropped it",
        )
