"""Scripts of right software, in which one kind of entry stands between an access and a wrong answer.

Each is a generator: it yields that kind, for `weak_invalidations`, before a need is met.
"""

from processors_for_tests import LARGE_TLBS
from right_software import Software
from systems import KERNEL, LARGE, address_of
from weak_invalidations import (
    everything,
    global_pages,
    guest_physical,
    of_pcid,
    of_tables,
    of_vm,
    splinters_but,
    tables,
    tables_but,
)

from mmu.testing.tables import PAGE

A, B = address_of(0, 0), address_of(0, 1)  # side by side in one page table
BIG, BESIDE = address_of(1, 0), address_of(1, 1)  # of one large page, which the VM has in pieces
HOST, VM, OTHER_VM = 0, 1, 2


class Script(Software):
    """Software that meets all needs with one instruction."""

    def __init__(self, form, with_instruction, made_of=LARGE_TLBS, **options):
        self.wanted = with_instruction
        super().__init__(made_of, form, choose=self.by_name, **options)

    def by_name(self, need, names):
        if self.wanted is None:
            return names[0]
        assert self.wanted in names, f"{self.wanted} does not suffice for {need}: {names}"
        return self.wanted

    def meet_of(self, **what):
        """Meet needs now, though nothing that runs has them."""
        for need in [*self.needs]:
            if need in self.needs and what.items() <= vars(need).items():
                assert self.meet_one(need)

    def owner(self, vm_id):
        return self.cpu._owner(vm_id)

    def tag(self, view):
        return self.cpu._tag("ept", self.systems[VM].views[view].root)


# --- what comes of a guest's tables ---------------------------------------------------------------


def a_page_moved(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    script.change_guest(VM, 0, A, "move", LARGE + PAGE)
    yield everything
    script.access(A)


def a_page_of_the_kernel_moved(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(KERNEL, user=False)
    script.load_cr3(1, 2)
    script.change_guest(VM, 0, KERNEL, "move", LARGE + PAGE)
    yield global_pages
    script.access(KERNEL, user=False)


def a_large_page_kept_in_pieces(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(BIG)
    script.access(BESIDE)
    script.change_guest(VM, 0, BIG, "move", 3 * LARGE)
    yield splinters_but(BIG)
    script.access(BESIDE)


def a_page_table_replaced(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    script.replace_table(VM, 0, A)
    yield tables
    script.access(B)


def a_page_table_freed_of_another_pcid(script):
    """INVLPG and INVLPGA drop all of the walk caches, whatever the page: Linux relies on it."""
    script.run(1)
    for space, pcid in ((1, 2), (0, 1)):
        script.load_cr3(space, pcid)
        script.access(KERNEL, user=False)
    wanted, script.wanted = script.wanted, "INVLPG"
    script.change_guest(VM, 0, KERNEL, "unmap")
    script.access(A)
    script.wanted = wanted
    script.drop_table(VM, 0, KERNEL)
    yield tables_but(A)
    for pcid in (0, 1):
        script.load_cr3(0, pcid)
        script.access(A)
    script.load_cr3(1, 2)
    script.access(A)
    script.run(2)
    script.access(A)
    assert not script.needs  # and what was a table is data
    script.run(1)
    script.access(KERNEL, user=False)


def a_page_of_another_pcid(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    script.load_cr3(1, 2)
    script.change_guest(VM, 0, A, "move", LARGE + PAGE)
    yield of_pcid(1)
    script.meet_of(pcid=1)
    script.load_cr3(0, 1)
    script.access(A)


def a_page_of_another_vm(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    script.run(3)
    script.change_guest(VM, 0, A, "move", LARGE + PAGE)
    yield of_vm(script.owner(1))
    script.meet_of(vm_id=1)
    script.run(1)
    script.access(A)


def a_page_cached_under_other_nested_tables(script):
    script.run(1, view=1)
    script.load_cr3(0, 1)
    script.access(A)
    script.run(1, view=0)
    script.change_guest(VM, 0, A, "move", LARGE + PAGE)
    yield of_tables(script.tag(1))
    script.access(A)
    script.run(1, view=1)
    script.access(A)


def a_pcid_given_to_another_space(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    yield everything
    script.load_cr3(1, 1, keep=script.wanted != "MOV CR3")
    script.access(A)


def a_page_logged_as_clean_by_the_guest(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A, "write")
    script.clear_marks(VM, 0, A, 1 << 6)
    yield everything
    script.access(A, "write")


# --- what comes of nested tables ------------------------------------------------------------------


def a_nested_page_moved(forgotten):
    def script(script):
        script.run(1)
        script.load_cr3(0, 1)
        script.access(A)
        script.change_nested(VM, 0, 0, "move")
        yield forgotten
        script.access(A)

    return script


def a_nested_page_of_the_kernel_moved(script):
    script.run(1)
    script.access(KERNEL, user=False)
    script.change_nested(VM, 0, 0, "move")
    yield global_pages
    script.access(KERNEL, user=False)


def guest_tables_moved(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    for table in range(script.systems[VM].views[0].guest_tables):
        script.move_guest_table(VM, table)
    yield tables
    for number, view in ((1, 0), (1, 1), (2, 0), (2, 1)):
        script.run(number, view)
        script.access(A)
    assert not script.needs  # and what were tables is data
    script.run(1)
    script.access(B)


def a_nested_page_seen_by_another_virtual_processor(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    script.run(2)
    script.change_nested(VM, 0, 0, "move")
    yield of_vm(script.owner(1))
    script.access(B)
    if script.form == "npt":
        script.meet_of(vm_id=1)
    script.run(1)
    script.access(A)


def a_nested_page_cached_under_another_pcid(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    script.load_cr3(0, 2)
    script.change_nested(VM, 0, 0, "move")
    yield of_pcid(1)
    script.access(B)
    script.load_cr3(0, 1)
    script.access(A)


def nested_tables_that_do_not_run(script):
    script.run(1, view=1)
    script.load_cr3(0, 1)
    script.access(A)
    script.run(1, view=0)
    script.change_nested(VM, 1, 0, "move")
    yield of_tables(script.tag(1))
    script.meet_of(root=script.systems[VM].views[1].root)
    script.run(1, view=1)
    script.access(A)


def a_nested_page_logged_as_clean(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A, "write")
    script.clear_nested_marks(VM, 0, 0, 1 << 6)
    yield everything
    script.access(A, "write")


def a_large_nested_page_split(script):
    script.run(1)
    script.load_cr3(0, 1)
    script.access(A)
    script.change_nested(VM, 0, 0, "split")
    script.change_nested(VM, 0, PAGE, "move")
    yield guest_physical
    script.access(B)


def a_vm_id_and_root_used_again(script):
    script.run(3)
    script.load_cr3(0, 1)
    script.access(A)
    old = script.systems[OTHER_VM]
    script.recreate()
    new = script.systems[OTHER_VM]
    assert [view.root for view in new.views] == [view.root for view in old.views]
    script.change_nested(OTHER_VM, 0, 0, "move")
    script.run(3)
    script.load_cr3(0, 1)
    yield guest_physical
    script.access(A)
