"""Images of machines' memory: files that say what stood where.

Three formats are read, told apart by content: ELF cores of x86-64 machines, such as QEMU's
``dump-guest-memory`` writes; LiME's; and raw images, which are memory from address 0 on and nothing
else. What is known and not read is refused by its name.
"""

from mmu.image.file import open_image
from mmu.image.write import write_elf

__all__ = ["open_image", "write_elf"]
