"""Which programs are recorded: what each needs, the inputs it works on, and which accesses are kept."""

from typing import NamedTuple

BUNDLED_ACCESSES = 10_000_000
LONG_ACCESSES = 100_000_000


class Recipe(NamedTuple):
    """How a program is recorded; `{python}` and `{cc1plus}` in commands are replaced."""

    what: str  # it does in the window
    needs: dict[str, str]  # Debian package by program, or by a file that is looked for
    prepare: tuple[
        str, ...
    ]  # shell commands that make its inputs, in a folder with inputs/ copied to
    command: str
    skip: int | None  # accesses before the bundled window; None: too weighty to be bundled
    long_skip: int  # accesses before the long window


PYTHON = {"/usr/bin/python3": "python3"}
COMPILER = {"g++": "g++"}
COMPILE = "{cc1plus} -quiet -imultiarch x86_64-linux-gnu -D_GNU_SOURCE -O2 -std=c++17"
WORDS = ("/usr/bin/python3 words.py",)

RECIPES = {
    "bfs": Recipe(
        "Boost's breadth-first search in a power-law graph of 1 M vertices and 8 M edges",
        COMPILER | {"/usr/include/boost/graph/breadth_first_search.hpp": "libboost-dev"},
        ("{python} graph.py", "g++ -O2 -o bfs bfs.cpp"),
        "./bfs",
        500_000_000,
        450_000_000,
    ),
    "bwa": Recipe(
        "aligns reads of 150 bases with a genome of 32 M, by its index of 48 MB",
        {"bwa": "bwa"},
        ("{python} genome.py", "bwa index genome.fa"),
        "bwa mem -1 -t 1 -K 1000000 genome.fa reads.fq",
        100_000_000,
        100_000_000,
    ),
    "cc1plus": Recipe(
        "compiles 20 lines that include `<regex>`, `<map>`, `<iostream>`: 71,000 lines of C++",
        COMPILER,
        (),
        f"{COMPILE} index.cpp -o /dev/null",
        600_000_000,
        600_000_000,
    ),
    "cc1plus-eigen": Recipe(
        "compiles Eigen's decompositions of matrices: a heap of hundreds of MB",
        COMPILER | {"/usr/include/eigen3/Eigen/Dense": "libeigen3-dev"},
        (),
        f"{COMPILE} -I/usr/include/eigen3 eigen.cpp -o /dev/null",
        None,
        6_000_000_000,
    ),
    "duckdb-join": Recipe(
        "hash join of 2 M sales with 500,000 customers, column by column, one thread",
        {},
        (
            "{python} -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes"
            " --only-binary :all: --target pypi --requirement duckdb.txt",
            "cp pypi/duckdb_cli/duckdb duckdb",
            "chmod +x duckdb",
            "./duckdb shop.duckdb -f duckdb-build.sql",
        ),
        "./duckdb -readonly shop.duckdb -f duckdb-join.sql",
        350_000_000,
        350_000_000,
    ),
    "minisat": Recipe(
        "searches a random 3-SAT formula of 200,000 variables and 760,000 clauses",
        {"minisat": "minisat"},
        ("{python} formula.py",),
        "minisat -no-pre formula.cnf",
        700_000_000,
        700_000_000,
    ),
    "python-join": Recipe(
        "hash join: looks up random keys in a dict of 200,000, sums by customer",
        PYTHON,
        (),
        "/usr/bin/python3 -S python-join.py",
        440_000_000,
        440_000_000,
    ),
    "python-json": Recipe(
        "writes and reads JSON, sorts, groups, looks up earlier records at random",
        PYTHON,
        (),
        "/usr/bin/python3 -S python-json.py",
        270_000_000,
        270_000_000,
    ),
    "sort": Recipe(
        "the last merges of 160,000 lines (22 MB) with random keys",
        PYTHON | {"sort": "coreutils"},
        WORDS,
        "sort --parallel=1 -S 512M -o /dev/null lines.txt",
        290_000_000,
        225_000_000,  # there are 336 M
    ),
    "sqlite": Recipe(
        "index join of 200,000 customers with a million sales, 107 MB mapped, 32 KiB pages",
        {"sqlite3": "sqlite3"},
        ("sqlite3 shop.db <build.sql",),
        "sqlite3 -init join.sql shop.db",
        25_000_000,
        25_000_000,
    ),
    "xz": Recipe(
        "compresses text into a dictionary of 8 MB",
        PYTHON | {"xz": "xz-utils"},
        WORDS,
        "xz -6 -k -c text.txt",
        200_000_000,
        200_000_000,
    ),
}
