"""Reads the folder that DynamoRIO leaves of a program: a trace file for each of its threads.

``drmemtrace.PROGRAM.PID.NUMBER.dir`` holds ``trace``, and that the files (``TRACE_SUFFIX`` and its
relatives in ``clients/drcachesim/tracer/raw2trace.h``). Beside them lie schedules and lists, which are
no traces.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from mmu.errors import InputError
from mmu.trace.decompress import decompressed
from mmu.trace.dynamorio import Thread, read_threads
from mmu.trace.format import Raw
from mmu.trace.source import Source

SUFFIXES = (".trace", ".trace.gz", ".trace.zip", ".trace.lz4")
MOST_FILES = 900  # all are open at once; systems allow a program 1,024
PIECE = 1 << 16  # bytes of each that are in memory
ACCEPTED = "accepted: a folder with files *.trace.zip or *.trace.gz, as DynamoRIO writes it"


def trace_files(folder: Path, where: str) -> tuple[list[Path], int]:
    """Return the trace files of a folder, by name, and the number of its other files.

    Raises
    ------
    InputError
        It cannot be read, or there are none, or too many.
    """
    inner = folder / "trace"
    try:
        found = sorted((inner if inner.is_dir() else folder).iterdir())
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}; {ACCEPTED}") from None
    files = [path for path in found if path.name.endswith(SUFFIXES) and path.is_file()]
    if not files and (folder / "raw").is_dir():
        raise InputError(
            f"{where}: holds what the program left and no trace yet; let DynamoRIO make it: "
            "drrun -t drmemtrace -indir FOLDER -tool basic_counts"
        )
    if not files:
        raise InputError(f"{where}: is a folder without trace files; {ACCEPTED}")
    if len(files) > MOST_FILES:
        raise InputError(
            f"{where}: holds {len(files):,} trace files; accepted: up to {MOST_FILES:,}; move the "
            "threads that matter to a folder of their own"
        )
    return files, len(found) - len(files)


def read_folder(source: Source) -> Iterator[Raw]:
    """Yield the accesses of a folder's threads, in the order of the times that their files tell.

    Raises
    ------
    InputError
        There is no trace in it, or a record of one cannot be.
    """
    files, others = trace_files(Path(source.where), source.where)
    with ExitStack() as stack:
        threads = []
        for path in files:
            pieces = stack.enter_context(closing(decompressed(path, PIECE)))
            threads.append(Thread(pieces, str(path), timed=True, capacity=PIECE))
        source.notes.said["files"] = len(files)
        if others:
            source.notes.said["other_files"] = others
        yield from read_threads(threads, source)
