"""Strategies for what is done to tables and a processor."""

from collections.abc import Sequence

from mmu.testing.layouts import Layout
from mmu.testing.lazily import strategies as st
from mmu.testing.operations import CHANGES, VM_IDS, Operation
from mmu.testing.table_strategies import (
    EPT_RIGHTS,
    EVERY_SIZE,
    GUEST_RIGHTS,
    accesses,
    addresses,
    booleans,
    data_frames,
    one_of,
)
from mmu.testing.tables import SIZES

INTEL = ("invlpg", "invpcid", "invvpid", "invept")
AMD = ("invlpg", "invpcid", "tlb_control", "invlpga")
NATIVE = ("invlpg", "invpcid")


@st.composite
def operation(draw: st.DrawFn, /, layout: Layout, names: Sequence[str] | None = None) -> Operation:
    """Draw one operation on a layout's tables, or on the processor.

    Parameters
    ----------
    names : sequence of str, optional
        Methods of `mmu.testing.operations.Session`; by default all that the layout's format has,
        accesses most often.
    """
    form = layout.nested.form if layout.nested else "native"
    if names is None:
        instructions = {"native": NATIVE, "ept": INTEL, "npt": AMD}[form]
        names = ("access",) * 8 + CHANGES + CHANGES + ("switch", "enter") + 2 * instructions
    name = draw(one_of(*names))
    if name in CHANGES:
        return _change(draw, layout, name, form)
    space, gva = draw(addresses(layout))
    levels = layout.spaces[0].levels
    if name == "access":
        user = not draw(booleans)
        return Operation(
            name, {"space": space, "gva": gva, "access": draw(accesses), "user": user}
        )  # fmt: skip
    if name == "switch":
        return Operation(name, {"space": space, "keep": draw(booleans)})
    if name == "enter":
        return Operation(name, {"vm_id": draw(one_of(*VM_IDS))})
    edge = 1 << 11 + 9 * levels
    if edge <= gva < (1 << 64) - edge:
        gva = layout.pages[0].gva  # instructions take canonical addresses
    if name == "invlpg":
        return Operation(name, {"gva": gva})
    if name == "invpcid":
        return Operation(name, {"kind": draw(one_of(0, 1, 2, 3)), "pcid": space, "gva": gva})
    if name == "invept":
        return Operation(name, {"kind": draw(one_of(1, 2))})
    vm_id = draw(one_of(*VM_IDS))
    if name == "invvpid":
        return Operation(name, {"kind": draw(one_of(0, 1, 2, 3)), "vm_id": vm_id, "gva": gva})
    if name == "tlb_control":
        return Operation(name, {"code": draw(one_of(0, 1, 3, 7)), "vm_id": vm_id})
    return Operation(name, {"gva": gva, "asid": vm_id})


def _change(draw: st.DrawFn, layout: Layout, name: str, form: str) -> Operation:
    """Draw a change of a page that the layout maps, or has mapped."""
    page = draw(one_of(*layout.pages))
    dimension = draw(one_of("guest", "nested")) if form != "native" else "guest"
    nested = dimension == "nested"
    address = page.gpa if nested else page.gva
    arguments = {"dimension": dimension, "space": page.space, "address": address}
    rights = EPT_RIGHTS if nested and form == "ept" else GUEST_RIGHTS
    if name in ("map", "move"):
        arguments["frame"] = draw(data_frames(form if not nested else "native"))
    if name == "map":
        size = draw(one_of(*EVERY_SIZE))
        arguments |= {"size": size, "rights": draw(one_of(*rights))}
        for key in ("address", "frame"):
            arguments[key] &= -SIZES[size]
    if name == "protect":
        arguments["rights"] = draw(one_of(*rights))
    return Operation(name, arguments)


@st.composite
def _steps(draw: st.DrawFn, /, layout: Layout, names: Sequence[str] | None) -> list[Operation]:
    """Draw an operation; a change often between two accesses to the page that it changes."""
    drawn = draw(operation(layout, names))
    accessed = names is None or "access" in names
    if drawn.name not in CHANGES or not accessed or not draw(booleans):
        return [drawn]
    page = layout.pages[0]
    for other in layout.pages:
        if drawn.arguments["address"] in (other.gva, other.gpa):
            page = other
    arguments = {"space": page.space, "gva": page.gva, "access": draw(accesses), "user": True}
    access = Operation("access", arguments)
    return [access, drawn, access]


def operations(
    layout: Layout, most: int = 20, names: Sequence[str] | None = None
) -> "st.SearchStrategy[list[Operation]]":
    """Draw operations on a layout's tables and the processor.

    Parameters
    ----------
    most : int
        At most so many, of which an access, a change and the access again count as one.
    names : sequence of str, optional
        As of `operation`.
    """
    steps = st.lists(_steps(layout, names), min_size=1, max_size=most)
    return steps.map(lambda drawn: [operation for step in drawn for operation in step])
