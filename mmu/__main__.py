"""``python -m mmu`` is the command ``mmu``."""

import sys

from mmu.cli import main

sys.exit(main())
