"""Hypothesis strategies: page tables, addresses, processors, hosts, schedules, traces, operations.

    from hypothesis import given
    from mmu.testing import reference, strategies

    @given(strategies.questions(), strategies.accesses)
    def test_my_walker_says_what_the_manuals_say(question, access):
        layout, space, gva = question
        expected = reference.translate(
            layout.memory.words, gva, access=access, **layout.question(space)
        )
        assert my_walk(layout.memory.words, gva, access, ...) == expected.maddr

Examples are small, and shrink to one 4 KiB page at address 0 that permits everything; one takes a few
milliseconds. `layout.memory.words` is the array in which all tables stand.
"""

from mmu.testing.host_strategies import hosts, processors, schedules
from mmu.testing.operation_strategies import operation, operations
from mmu.testing.table_strategies import accesses, addresses, controls, page_tables, questions
from mmu.testing.trace_strategies import traces

__all__ = [
    "accesses",
    "addresses",
    "controls",
    "hosts",
    "operation",
    "operations",
    "page_tables",
    "processors",
    "questions",
    "schedules",
    "traces",
]
