"""How a translation ends."""

from enum import IntEnum


class Outcome(IntEnum):
    """How a translation ends; the numbers are what `translate_many` and result files hold."""

    OK = 0
    NOT_CANONICAL = 1  # #GP: bits 63:47 of the address differ (63:56 with 5-level tables)
    PAGE_FAULT = 2  # #PF: the guest's own tables do not allow the access
    NESTED_VIOLATION = 3  # EPT violation, #NPF: the hypervisor's tables do not allow it
    NESTED_MISCONFIGURATION = 4  # EPT misconfiguration: an entry that no processor accepts
    NO_MEMORY = 5  # a table lies outside memory


NOT_CANONICAL = int(Outcome.NOT_CANONICAL)
# Kernels return a negative number where a word was asked for and there is none.
PAGE_FAULT = -int(Outcome.PAGE_FAULT)
NESTED_VIOLATION = -int(Outcome.NESTED_VIOLATION)
NESTED_MISCONFIGURATION = -int(Outcome.NESTED_MISCONFIGURATION)
NO_MEMORY = -int(Outcome.NO_MEMORY)
