"""What software may count on: which instruction meets which need, as the manuals' tables say it.

A second statement of the scopes, in terms of what software wants to be rid of, and independent of
`mmu.hardware.invalidate`. Sources: Intel SDM vol. 3, "Operations that Invalidate TLBs and
Paging-Structure Caches", "Operations that Invalidate Cached Mappings"; AMD64 APM vol. 2, "TLB Control".
"""

from dataclasses import dataclass, field

ANY, GLOBAL, GUESTS = "any", "global", "guests"


@dataclass(frozen=True)
class Need:
    """What must be dropped before something is accessed again.

    A guest's page: of a VM, and of a PCID or GLOBAL; `pages` has an address in each page that was
    mapped, or is ANY; `walk`: of the walk caches what translates the addresses `at`. A nested page:
    what comes of the tables at `root`, or on AMD (`asid`) what a VM has.
    """

    vm_id: int | None = None
    pcid: int | str = ANY
    pages: tuple[int, ...] | str = ()
    walk: bool = False
    at: tuple[int, ...] = ()
    root: int | None = None
    asid: bool = False
    has_globals: bool = True  # where PCID is ANY
    combined: frozenset[int] = frozenset()  # nested tables under which a guest's page may be cached

    def concerns(self, vm_id, pcid, root):
        """Whether it must be met before an access by these."""
        if self.root is not None:
            return self.root == root
        return self.vm_id == vm_id and self.pcid in (ANY, GLOBAL, pcid)


@dataclass(frozen=True)
class Scope:
    """What an instruction drops at the least."""

    vm_id: int | str | None = None  # None: nothing that is a guest's
    pcid: int | str = ANY
    with_globals: bool = True
    pages: tuple[int, ...] | str = ANY
    walk: str | None = ANY  # of its tags all walk caches; None: what translates `pages`
    roots: frozenset[int] | str = field(default_factory=frozenset)  # of these nested tables all
    asid: bool = False  # and guest-physical entries of the VM

    def meets(self, need):
        """Whether nothing is left to do for a need."""
        if need.root is not None:
            return self.roots == ANY or need.root in self.roots
        if need.combined and (self.roots == ANY or need.combined <= self.roots) and not need.asid:
            return True
        if self.vm_id is None or (need.asid and not self.asid):
            return False
        if self.vm_id != need.vm_id and not (
            self.vm_id == ANY or (self.vm_id == GUESTS and need.vm_id != 0)
        ):
            return False
        if need.pcid == GLOBAL and not self.with_globals:
            return False
        if need.pcid == ANY and (
            self.pcid != ANY or (need.has_globals and not self.with_globals)
        ):  # fmt: skip
            return False
        if need.pcid not in (GLOBAL, ANY) and self.pcid not in (ANY, need.pcid):
            return False
        if self.pages != ANY and (need.pages == ANY or not set(need.pages) <= set(self.pages)):
            return False
        return not need.walk or self.walk == ANY or set(need.at) <= set(self.pages)


EVERYTHING_OF_GUESTS_TABLES = Scope(ANY)  # of all VMs and of the host: what a flush drops
