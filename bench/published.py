"""Hold the replay against published results: ``python bench/published.py [--json FILE] [--readme]``.

Exact counts pass or fail. Of the others it prints ours (the median over the traces, and how far they
reach), theirs, whether the median lies in their band, and why a difference is to be expected. A
figure in a band is no reproduction: the programs are others.

With ``MMU_BENCH_SMOKE`` set everything runs on the beginnings of two traces, and means nothing.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from claims import CLAIMS, NOT_RERUN, Claim
from counts import COUNTS

from mmu.cli.progress import progress_bar
from mmu.errors import InputError
from mmu.files import check_outputs, json_text, write_whole
from mmu.trace import cut_trace

SMOKE = bool(os.environ.get("MMU_BENCH_SMOKE"))
SMOKE_ACCESSES = 16 * 4096
TRACES = sorted((Path(__file__).parents[1] / "traces").glob("*.parquet"))
UNITS: dict[str, Callable[[float], str]] = {
    "accesses": "{:.2f}".format,
    "gain": "{:+.1f} %".format,
    "factor": "{:.2f}".format,
}
Progress = Callable[[int, int], None]


class Row(NamedTuple):
    """A claim beside what a rerun gave."""

    claim: Claim
    arrangement: str  # of the claim's
    ours: dict[str, float]  # by trace, those that have a figure

    @property
    def median(self) -> float | None:
        """The middle of the traces; None if no trace has a figure."""
        return statistics.median(self.ours.values()) if self.ours else None

    @property
    def in_band(self) -> bool:
        """The median lies in the published band, its ends included."""
        return self.median is not None and within(self.claim, self.median)

    @property
    def inside(self) -> int:
        """How many traces lie in the band."""
        return sum(within(self.claim, value) for value in self.ours.values())

    def said(self, value: float | None) -> str:
        """Write a figure in the claim's unit."""
        return "-" if value is None else UNITS[self.claim.unit](value)

    @property
    def reach(self) -> str:
        """The lowest and the highest trace."""
        if not self.ours:
            return "no trace walks"
        return f"{self.said(min(self.ours.values()))} to {self.said(max(self.ours.values()))}"

    def plain(self) -> dict[str, Any]:
        """Return the row as values that JSON holds."""
        fields = ("name", "what", "source", "theirs", "unit", "why")
        return {name: getattr(self.claim, name) for name in fields} | {
            "programs": self.arrangement,
            "band": [self.claim.low, self.claim.high],
            "ours": self.ours,
            "median": self.median,
            "in_band": self.in_band,
            "traces_in_band": self.inside,
        }


def within(claim: Claim, value: float) -> bool:
    """Return whether a figure lies in a claim's band, its ends included."""
    return claim.low <= value <= claim.high


def rerun(
    claims: Sequence[Claim], traces: Sequence[Path], progress: Progress | None = None
) -> list[Row]:
    """Run claims again, each with all traces in each of its arrangements."""
    plan = [
        (claim, name, cases(traces))
        for claim in claims
        for name, cases in claim.arrangements.items()
    ]
    total, done, rows = sum(len(cases) for *_, cases in plan), 0, []
    for claim, arrangement, cases in plan:
        ours: dict[str, float | None] = {}
        for case in cases:
            ours |= claim.measure(*case)
            done += 1
            if progress:
                progress(done, total)
        found = {name: value for name, value in ours.items() if value is not None}
        rows.append(Row(claim, arrangement, found))
    return rows


def counted() -> list[dict[str, Any]]:
    """Make the walks whose reads are published exactly."""
    rows = []
    for count in COUNTS:
        ours = count.ours()
        rows.append(
            {"what": count.what, "source": count.source, "theirs": count.theirs, "ours": ours,
             "pass": ours == count.theirs}
        )  # fmt: skip
    return rows


def text(counts: list[dict[str, Any]], rows: list[Row]) -> list[str]:
    """Return what is printed."""
    lines = ["Table reads of a walk without caches: exact", ""]
    for row in counts:
        verdict = "pass" if row["pass"] else "FAIL"
        found = f"ours {row['ours']:2}, theirs {row['theirs']:2}"
        lines.append(f"  {row['what']:28} {found}  {verdict}  ({row['source']})")
    lines += ["", "Figures: median of the traces (lowest to highest); in band or not, the programs"]
    lines += ["are others: none is a reproduction"]
    for claim, of_claim in groupby(rows, lambda row: row.claim):
        lines += ["", claim.what, f"  {claim.source}", f"  theirs: {claim.theirs}"]
        for row in of_claim:
            found = f"{row.said(row.median)} ({row.reach}; {row.inside} of {len(row.ours)} in band)"
            verdict = f"{'' if row.in_band else 'not '}in band"
            lines.append(f"  ours, {row.arrangement}: {found}: {verdict}")
        lines.append(f"  expect a difference: {claim.why}")
    lines += ["", "Not run again", ""]
    lines += [f"  {each.source}: {each.figure}: {each.reason}" for each in NOT_RERUN]
    return lines


def markdown(counts: list[dict[str, Any]], rows: list[Row]) -> list[str]:
    """Return the README's table."""
    passed = sum(row["pass"] for row in counts)
    numbers = ", ".join(str(row["theirs"]) for row in counts)
    lines = [
        "| claim | theirs | programs | ours | lowest to highest | in band | expect a difference |",
        "|---|---|---|---|---|---|---|",
        f"| reads of a walk without caches | {numbers} | | {passed} of {len(counts)} equal | | | exact |",
    ]
    for claim, of_claim in groupby(rows, lambda row: row.claim):
        name, theirs, why = f"{claim.what} ({paper(claim)})", claim.theirs, claim.why
        for row in of_claim:
            verdict = f"{'yes' if row.in_band else 'no'}, {row.inside} of {len(row.ours)}"
            cells = (name, theirs, row.arrangement, row.said(row.median), row.reach, verdict, why)
            lines.append(f"| {' | '.join(cells)} |")
            name = theirs = why = ""
    return lines


def paper(claim: Claim) -> str:
    """Return the first words of a source: authors."""
    return claim.source.split(",")[0]


def beginnings(folder: Path) -> list[Path]:
    """Cut the first accesses out of two traces."""
    parts = [folder / trace.name for trace in TRACES[:2]]
    for trace, part in zip(TRACES, parts, strict=False):
        cut_trace(trace, part, limit=SMOKE_ACCESSES)
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; return 1 if an exact count is another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write every figure, by trace")
    parser.add_argument("--readme", action="store_true", help="print the README's table")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args(arguments)
    check_outputs({"json": given.json}, ())
    counts = counted()
    with tempfile.TemporaryDirectory() as folder, progress_bar(given.quiet) as progress:
        rows = rerun(CLAIMS, beginnings(Path(folder)) if SMOKE else TRACES, progress)
    print("\n".join((markdown if given.readme else text)(counts, rows)))
    if given.json:
        document = {
            "format": "mmu-published", "mmu": version("mmu"), "counts": counts,
            "claims": [row.plain() for row in rows], "not_rerun": [each._asdict() for each in NOT_RERUN],
        }  # fmt: skip
        write_whole(given.json, json_text(document))
    return 0 if all(row["pass"] for row in counts) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")
