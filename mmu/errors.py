"""What goes wrong, as exceptions that carry one line for the user."""


class MmuError(Exception):
    """Any error that `mmu` raises on purpose; its text is one line a user can act on."""


class InputError(MmuError, ValueError):
    """The user's input cannot be used: what was found, where, what is accepted, what to do."""


class StaleTranslation(MmuError):
    """A cache answered an access with what the tables no longer say: an invalidation is missing.

    Attributes
    ----------
    gva : int
        The virtual address, unsigned.
    """

    def __init__(self, gva: int, text: str) -> None:
        super().__init__(text)
        self.gva = gva


class OutOfMemory(MmuError):
    """A virtual machine, or the hypervisor, needs more memory than is left.

    Attributes
    ----------
    vm : str
        Name of the virtual machine, or ``"hypervisor"``.
    asked, left : int
        Bytes asked for and bytes left in the memory that was asked.
    """

    def __init__(self, vm: str, asked: int, left: int, text: str) -> None:
        super().__init__(text)
        self.vm = vm
        self.asked = asked
        self.left = left
