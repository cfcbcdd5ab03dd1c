"""Put the output of commands into the README, between ``<!-- generated: NAME -->`` and its end."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PARTS = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SPEED = re.compile(
    r"^(\S+) +(compact|raw) +(\d+) M accesses/s, +([\d.]+) times .*\(([\d.]+) to ([\d.]+)\)"
)

IMPORT = re.compile(
    r"^(.{20}\S*) +reader +([\d.]+) M .* raw +([\d.]+) M .* compact +([\d.]+) M .*, +(\d+) bytes"
)


def output_of(*command: str) -> str:
    """Run one of the environment's commands in the checkout."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def demo(figure: str = "bench/demo.png") -> str:
    """Return the table of all programs together, and draw the figure."""
    lines = output_of("mmu", "demo", "--figure", figure).splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith("total "))
    end = next(n for n in range(begin, len(lines)) if not lines[n])
    return "\n".join(["```text", *lines[begin:end], "```", ""])


def speed() -> str:
    """Return the table of the benchmark."""
    lines = output_of("pytest", "bench/test_speed.py", "-q", "-s", "--benchmark-columns=median")
    table = [
        "| trace | layout | M accesses/s | CPU time, C program = 1 | lowest to highest |",
        "|---|---|---|---|---|",
    ]
    for line in lines.splitlines():
        if match := SPEED.match(line):
            name, layout, rate, ratio, low, high = match.groups()
            table.append(f"| {name} | {layout} | {rate} | {ratio} | {low} to {high} |")
    return "\n".join([*table, ""])


def imports() -> str:
    """Return the table of the importers."""
    lines = output_of("pytest", "bench/test_import.py", "-q", "-s", "--benchmark-columns=median")
    table = ["| sample | reader | raw | compact | bytes an access |", "|---|---:|---:|---:|---:|"]
    for line in lines.splitlines():
        if match := IMPORT.match(line):
            table.append("| " + " | ".join(found.strip() for found in match.groups()) + " |")
    return "\n".join([*table, ""])


def published() -> str:
    """Return the table of published results beside ours."""
    return output_of("python", "bench/published.py", "--readme")


def renewed(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """Return the text with the named parts made anew."""
    return PARTS.sub(
        lambda found: found[1] + (parts[found[2]]() if found[2] in parts else "") + found[3], text
    )


if __name__ == "__main__":
    readme = ROOT / "README.md"
    output_of("mmu", "walk", "0x7f0012345678", "--write", "--figure", "bench/walk.png")
    parts = {"demo": demo, "speed": speed, "imports": imports, "published": published}
    readme.write_text(renewed(readme.read_text(), parts))
