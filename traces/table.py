"""Prints README.md's table of traces: ``python traces/table.py``, or of another folder's."""

import sys
from pathlib import Path

from mmu import replay
from mmu.trace import info

COLUMNS = ("accesses", "fetches", "reads", "writes", "records", "pages", "large_pages")


def lines(folder: Path) -> list[str]:
    """Return the table's lines, a row for each trace of a folder."""
    head = ", ".join(COLUMNS).replace("large_pages", "2M pages").split(", ")
    head += ["size", "L2 hits", "walks", "later walks"]
    table = [f"| trace | {' | '.join(head)} |", "|---|" + "---:|" * len(head)]
    for path in sorted(folder.glob("*.parquet")):
        found = info(path)
        cells = [f"{found[name]:,}" for name in COLUMNS]
        cells.append(f"{found['file_bytes'] / 1000:,.0f} KB")
        whole = replay(path)
        cells += [f"{whole.hit_rate('l2'):.1%}", f"{whole.walks_per_thousand():.2f}"]
        later = replay(path, warm_up=found["accesses"] // 2)
        cells.append(f"{later.walks_per_thousand():.2f}")
        table.append(f"| `{path.stem}` | {' | '.join(cells)} |")
    return table


if __name__ == "__main__":
    print("\n".join(lines(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)))
