"""A processor's software that invalidates what it must, with whatever suffices.

What a change of tables needs (`Need`) is met before the next access that the old entries could answer:
soon for what runs, later for what does not. Which instruction meets it is chosen, from those whose
scope suffices, by `choose`: by Hypothesis, or by a script.
"""

from contextlib import contextmanager

import numpy as np
from invalidation_scopes import ANY, EVERYTHING_OF_GUESTS_TABLES, GUESTS, Need, Scope
from systems import EVERYWHERE, Runner, System

from mmu.testing.processor import KEEP, CheckedProcessor
from mmu.testing.tables import ENTRIES, PAGE, TableMemory

# Data that looks like entries: present, writable, user, accessed, dirty.
SCRIBBLE = np.arange(ENTRIES, 0, -1, dtype=np.uint64) * np.uint64(PAGE) | np.uint64(0x67)


class Invalidating:
    """What runs on one processor: a host, a VM of two virtual processors, a VM of one.

    Parameters
    ----------
    processor : Processor
    form : {"ept", "npt"}
    pcide, tagged : bool
        As of `CheckedProcessor`.
    with_globals : int
        Bit n: system n (host, first, second VM) maps its kernel with global pages.
    large : int
        Bit n: block n of guests' memory is backed by a 2 MiB page.
    shadow : bool
        The second VM has no nested tables: its own are all there is.
    choose : callable
        Takes a need and a dictionary of instructions that suffice, by name; returns one's name.
    """

    def __init__(
        self, processor, form="ept", *, choose, pcide=True, tagged=True, with_globals=7, large=5,
        shadow=False,
    ):  # fmt: skip
        self.form, self.choose, self.large = form, choose, large
        self.memory = TableMemory(pages=512)
        self.made, self.with_globals, self.shadow = 0, with_globals, shadow
        self.systems = [self.system(number) for number in range(3)]
        host, first, second = self.systems
        self.runners = [Runner(0, host), Runner(1, first), Runner(2, first), Runner(3, second)]
        self.needs, self.freed = [], []
        self.given_rights = (
            False  # to tables: until a fault, walk caches may deny what is permitted
        )
        self.met = set()  # names of instructions used
        self.cpu = CheckedProcessor(self.memory.view, processor, pcide=pcide, tagged=tagged)
        self.cpu.load_cr3(self.systems[0].spaces[0].root)
        self.now = self.runners[0]

    def system(self, number):
        views = 0 if number == 0 or (number == 2 and self.shadow) else 1
        views += number == 1 and self.form == "ept"
        spaces, with_globals = 3 - number, bool(self.with_globals >> number & 1)
        return System(
            self.memory, self.form, number + 1 << 32, views=views, spaces=spaces,
            with_globals=with_globals, large=self.large,
        )  # fmt: skip

    # --- what runs -------------------------------------------------------------------------------

    @property
    def root(self):
        """Of the nested tables in use, the tag that INVEPT goes by."""
        views = self.now.system.views
        return views[self.now.view].root if views and self.form == "ept" else None

    def run(self, number, view=0):
        """Exit, and let a virtual processor run, or the host."""
        self.exited()
        self.now = self.runners[number]
        if number:
            views = self.now.system.views
            self.now.view = view % len(views) if views else 0
            self.enter()

    def exited(self):
        if self.now.vm_id:
            self.cpu.exit()
            self.flushed()

    def enter(self):
        runner = self.now
        if runner.vm_id:
            views = runner.system.views
            nested = views[runner.view].pointer if views else None
            root = runner.system.spaces[runner.space].root
            self.cpu.enter(runner.vm_id, nested, root | runner.pcid)
            self.flushed()

    def flushed(self):
        """Without tags every entry and exit flushes; on AMD what is the VM's as well."""
        if self.cpu.tagged:
            return
        self.use(EVERYTHING_OF_GUESTS_TABLES)
        if self.form == "npt":
            self.use(Scope(ANY, asid=True))
        elif self.cpu.processor.flush_nested:
            self.use(Scope(ANY, roots=ANY))

    @contextmanager
    def hypervisor(self):
        """Exit for what only the hypervisor may do, and enter again."""
        self.exited()
        yield
        self.enter()

    def load_cr3(self, space, pcid=0, keep=True):
        """Run another address space; a PCID that another one had is to be flushed."""
        runner = self.now
        space %= len(runner.system.spaces)
        pcid = pcid if self.cpu.pcide else 0
        value = runner.system.spaces[space].root | pcid
        if runner.owner.get(pcid, space) != space:
            self.need(vm_id=runner.vm_id, pcid=pcid, pages=ANY, walk=True, system=runner.system)
        runner.owner[pcid] = runner.space = space
        runner.pcid = pcid
        keep = keep and self.cpu.pcide
        self.cpu.load_cr3(value | (KEEP if keep else 0))
        if not keep:
            self.use(Scope(runner.vm_id, pcid, with_globals=False))

    def access(self, gva, access="read", user=True):
        """Meet what is needed, and make an access."""
        self.meet()
        found = self.cpu.access(gva, access, user)
        if found.spurious:
            assert self.given_rights, found
            found = self.cpu.access(gva, access, user)
            assert not found.spurious, "a fault drops what it came from"
        assert found.outcome == found.tables.outcome
        assert found.maddr == found.tables.maddr
        return found

    # --- what is needed, and what meets it --------------------------------------------------------

    def need(self, system=None, **what):
        if system is not None and self.form == "ept":
            what["combined"] = frozenset(view.root for view in system.views)
        self.needs.append(Need(**what))

    def use(self, scope):
        self.needs = [need for need in self.needs if not scope.meets(need)]
        if self.needs:
            return
        for page in self.freed:  # which is data from now on, and looks like a table
            self.memory.words[page // 8 : page // 8 + ENTRIES] = SCRIBBLE
        self.freed.clear()

    def meet(self):
        """Meet all needs that an access could tell."""
        while True:
            now = self.now.vm_id, self.now.pcid, self.root
            due = [need for need in self.needs if need.concerns(*now)]
            if not due:
                return
            assert self.meet_one(due[0]), due[0]

    def meet_one(self, need):
        """Meet a need with an instruction of those that suffice; tells whether what runs has one."""
        ways = {
            name: (scope, act)
            for name, scope, act in self.instructions(need)
            if scope.meets(need)
        }  # fmt: skip
        if ways:
            name = self.choose(need, sorted(ways))
            scope, act = ways[name]
            self.met.add(name)
            act()
            self.use(scope)
        return bool(ways)

    def instructions(self, need):
        """Every instruction, aimed at a need: name, scope, what runs it."""
        cpu, vm_id, current = self.cpu, self.now.vm_id, self.now.pcid
        spots = need.at if need.pages == ANY else need.pages or need.at
        one = need.pcid if isinstance(need.pcid, int) else current
        # INVLPG and INVLPGA of any page drop all of the walk caches.
        away = spots if need.pages else EVERYWHERE[:1]

        def each(instruction, spots=spots):
            return lambda: [instruction(gva) for gva in spots]

        yield "INVLPG", Scope(vm_id, current, pages=away), each(cpu.invlpg, away)
        invpcid = cpu.invpcid
        here = Scope(vm_id, one, False, spots, None)
        yield "INVPCID 0", here, each(lambda gva: invpcid(0, one, gva))
        yield "INVPCID 1", Scope(vm_id, one, False), lambda: invpcid(1, one)
        yield "INVPCID 2", Scope(vm_id), lambda: invpcid(2)
        yield "INVPCID 3", Scope(vm_id, with_globals=False), lambda: invpcid(3)
        runner = self.now
        again = lambda: self.load_cr3(runner.space, runner.pcid, keep=False)  # noqa: E731
        yield "MOV CR3", Scope(vm_id, current, False), again
        yield "CR4.PGE", Scope(vm_id), cpu.toggle_pge
        if vm_id and not cpu.tagged:
            yield "exit and entry", Scope(ANY, asid=self.form == "npt"), self.exit_and_enter
        if self.form == "npt":
            yield from self.amd(need, away, each)
        else:
            yield from self.intel(need, spots, each)

    def exit_and_enter(self):
        with self.hypervisor():
            pass

    def by_hypervisor(self, act):
        def run():
            with self.hypervisor():
                act()

        return run

    def intel(self, need, spots, each):
        cpu, target, by = self.cpu, need.vm_id, self.by_hypervisor
        if cpu.tagged and target:
            invvpid = cpu.invvpid
            at_page = each(lambda gva: invvpid(0, target, gva))
            yield "INVVPID 0", Scope(target, pages=spots, walk=None), by(at_page)
            yield "INVVPID 1", Scope(target), by(lambda: invvpid(1, target))
            yield "INVVPID 2", Scope(GUESTS), by(lambda: invvpid(2))
            without = Scope(target, with_globals=False)
            yield "INVVPID 3", without, by(lambda: invvpid(3, target))
        roots = {need.root} if need.root is not None else need.combined
        invept = cpu.invept
        single = by(lambda: [invept(1, root) for root in sorted(roots)])
        yield "INVEPT 1", Scope(roots=frozenset(roots)), single
        yield "INVEPT 2", Scope(roots=ANY), by(lambda: invept(2))

    def amd(self, need, away, each):
        cpu, target, by = self.cpu, need.vm_id, self.by_hypervisor
        if not cpu.tagged or not target:
            return
        control = cpu.tlb_control
        yield "TLB_CONTROL 1", Scope(ANY, asid=True), by(lambda: control(1, target))
        yield "TLB_CONTROL 3", Scope(target, asid=True), by(lambda: control(3, target))
        without = Scope(target, with_globals=False, asid=True)
        yield "TLB_CONTROL 7", without, by(lambda: control(7, target))
        at_page = each(lambda gva: cpu.invlpga(gva, target), away)
        yield "INVLPGA", Scope(target, pages=away), by(at_page)
