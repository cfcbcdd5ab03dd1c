"""Each effect of each invalidation is one that software relies on, and its loss is told.

`CASES` are scripts of `scripted_changes`. Each is run with every instruction that suffices: nothing is
stale. Then it is run with that instruction put out of action for one kind of entry only: the access
meets a stale translation.
"""

import pytest
from scripted_changes import (
    VM,
    A,
    B,
    Script,
    a_large_nested_page_split,
    a_large_page_kept_in_pieces,
    a_nested_page_cached_under_another_pcid,
    a_nested_page_logged_as_clean,
    a_nested_page_moved,
    a_nested_page_of_the_kernel_moved,
    a_nested_page_seen_by_another_virtual_processor,
    a_page_cached_under_other_nested_tables,
    a_page_logged_as_clean_by_the_guest,
    a_page_moved,
    a_page_of_another_pcid,
    a_page_of_another_vm,
    a_page_of_the_kernel_moved,
    a_page_table_freed_of_another_pcid,
    a_page_table_replaced,
    a_pcid_given_to_another_space,
    a_vm_id_and_root_used_again,
    guest_tables_moved,
    nested_tables_that_do_not_run,
)
from systems import KERNEL, LARGE
from weak_invalidations import (
    everything,
    global_pages,
    guest_physical,
    pages,
    tables,
    weaken,
    weaken_faults,
)

from mmu.errors import StaleTranslation
from mmu.hardware.outcome import Outcome

GUEST_PAGE = ("INVLPG", "INVPCID 0", "INVPCID 1", "INVPCID 2", "INVPCID 3", "CR4.PGE")
BY_HOST = {
    "ept": ("INVVPID 0", "INVVPID 1", "INVVPID 2", "INVVPID 3", "INVEPT 1", "INVEPT 2"),
    "npt": ("TLB_CONTROL 1", "TLB_CONTROL 3", "TLB_CONTROL 7", "INVLPGA"),
}
KEEPS_GLOBALS = {
    "INVPCID 0", "INVPCID 1", "INVPCID 3", "MOV CR3", "INVVPID 3", "TLB_CONTROL 7"
}  # fmt: skip


# --- which instruction suffices for which -------------------------------------------------------

GUESTS = {"ept": (*GUEST_PAGE, *BY_HOST["ept"]), "npt": (*GUEST_PAGE, *BY_HOST["npt"])}
NESTED = {"ept": BY_HOST["ept"][-2:], "npt": BY_HOST["npt"][:2]}
WITHOUT_GLOBALS = {"with_globals": 0}


def cases():
    for form in ("ept", "npt"):
        guests, nested, host = GUESTS[form], NESTED[form], BY_HOST[form]
        table = {
            a_page_moved: (*guests, "MOV CR3"),
            a_page_of_the_kernel_moved: [name for name in guests if name not in KEEPS_GLOBALS],
            a_large_page_kept_in_pieces: (*guests, "MOV CR3"),
            a_page_table_replaced: (*guests, "MOV CR3"),
            a_page_table_freed_of_another_pcid: ("INVLPG", *host[3:4]) if form == "npt" else ("INVLPG",),
            a_page_of_another_pcid: guests[1:],
            a_page_of_another_vm: host,
            a_pcid_given_to_another_space: ("MOV CR3", "INVPCID 1", "INVPCID 3"),
            a_page_logged_as_clean_by_the_guest: (*guests, "MOV CR3"),
            a_nested_page_of_the_kernel_moved: nested,
            guest_tables_moved: nested,
            a_nested_page_seen_by_another_virtual_processor: nested,
            a_nested_page_cached_under_another_pcid: nested,
            a_nested_page_logged_as_clean: nested,
            a_large_nested_page_split: nested,
        }  # fmt: skip
        for forgotten in (everything, guest_physical, pages):
            table[a_nested_page_moved(forgotten)] = nested
        if form == "ept":
            table[a_page_cached_under_other_nested_tables] = (*guests, "MOV CR3")
            table[nested_tables_that_do_not_run] = nested
        for script, names in table.items():
            yield from ((script, form, name, {}) for name in names)
    for forgotten in (everything, guest_physical, pages):
        yield a_nested_page_moved(forgotten), "npt", "TLB_CONTROL 7", WITHOUT_GLOBALS
    yield guest_tables_moved, "npt", "TLB_CONTROL 7", WITHOUT_GLOBALS
    for name in ("INVEPT 1", "INVEPT 2"):
        yield a_vm_id_and_root_used_again, "ept", name, {}
    yield a_page_moved, "ept", "MOV CR3", {"pcide": False}
    for form, shadow in (("ept", False), ("npt", False), ("ept", True)):
        options = {"tagged": False, "shadow": shadow}
        for script in (
            a_page_moved,
            a_page_of_the_kernel_moved,
            a_page_table_replaced,
            a_page_of_another_pcid,
        ):
            yield script, form, "exit and entry", options
    yield a_nested_page_moved(guest_physical), "npt", "exit and entry", {"tagged": False}


CASES = list(cases())
NAMES = [
    f"{script.__qualname__.split('.')[0]}-{form}-{name}-{number}"
    for number, (script, form, name, _) in enumerate(CASES)
]


def play(script, software, weak=None):
    """Run a script; `weak`: told what is to be forgotten, before anything that a need is met with."""
    for forgotten in script(software):
        if weak:
            weak(forgotten)


@pytest.mark.parametrize(("script", "form", "name", "options"), CASES, ids=NAMES)
def test_what_suffices_leaves_nothing_stale_and_is_missed(script, form, name, options, monkeypatch):
    play(script, Script(form, name, **options))
    weak = Script(form, name, **options)
    with pytest.raises(StaleTranslation):
        play(script, weak, lambda forgotten: weaken(monkeypatch, name, forgotten))


# --- what software relies on of faults ------------------------------------------------------------


def swap_in(script, gva, user, frame):
    """A read-only page is taken away, a write faults, and it comes back elsewhere.

    Nothing is invalidated but by the fault: what was not present when it was mapped is not cached.
    """
    space = script.systems[VM].spaces[0]
    word = space.leaf(gva).word
    space.unmap(gva)
    assert script.cpu.access(gva, "write", user).outcome == Outcome.PAGE_FAULT
    space.put(gva, 1, (word & 0xFFF) | frame | 2)
    script.access(gva, user=user)


def page_fault(script):
    script.run(1)
    script.change_guest(VM, 0, A, "protect", "rxu")
    script.access(A)
    yield pages
    swap_in(script, A, True, LARGE)


def page_fault_of_a_global_page(script):
    script.run(1)
    script.change_guest(VM, 0, KERNEL, "protect", "rx")
    script.access(KERNEL, user=False)
    yield global_pages
    swap_in(script, KERNEL, False, LARGE)


def page_fault_below_a_table_that_is_given(script):
    """Rights that an entry for a table is given: a walk cache may deny them, but not twice."""
    script.run(1)
    script.change_link(VM, 0, A, 2, "w")
    script.access(A)
    yield tables
    script.change_link(VM, 0, A, 2, "w")  # given back, which needs nothing
    script.access(A, "write")  # a spurious fault at worst, and only once


def violation(forgotten):
    def script(script):
        view = script.systems[VM].views[0]
        script.run(1)
        script.change_nested(VM, 0, 0, "split")
        script.change_nested(VM, 0, 0, "protect", "rxu")
        script.access(A)
        script.access(B)
        yield forgotten
        view.unmap(0)
        assert script.cpu.access(A, "write").outcome == Outcome.NESTED_VIOLATION
        view.map(0, 1 << 40)
        script.access(A)

    return script


FAULTS = [
    (page_fault, StaleTranslation),
    (page_fault_of_a_global_page, StaleTranslation),
    (page_fault_below_a_table_that_is_given, AssertionError),
    (violation(pages), StaleTranslation),
    (violation(guest_physical), StaleTranslation),
]


@pytest.mark.parametrize("form", ["ept", "npt"])
@pytest.mark.parametrize(("script", "error"), FAULTS)
def test_what_a_fault_drops_is_missed(script, error, form, monkeypatch):
    play(script, Script(form, None))
    with pytest.raises(error):
        play(script, Script(form, None), lambda forgotten: weaken_faults(monkeypatch, forgotten))
