"""Prints README.md's table of traces: ``python traces/table.py``."""

from pathlib import Path

from mmu.trace import info

COLUMNS = ("accesses", "fetches", "reads", "writes", "records", "pages", "large_pages")


def main() -> None:
    """Print a row for each trace in this folder."""
    print("| trace | " + " | ".join(COLUMNS).replace("large_pages", "2M pages") + " | size |")
    print("|---|" + "---:|" * (len(COLUMNS) + 1))
    for path in sorted(Path(__file__).parent.glob("*.parquet")):
        found = info(path)
        numbers = " | ".join(f"{found[name]:,}" for name in COLUMNS)
        print(f"| `{path.stem}` | {numbers} | {found['file_bytes'] / 1000:,.0f} KB |")


if __name__ == "__main__":
    main()
