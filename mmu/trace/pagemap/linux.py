"""Reads the page map of a live process from Linux's ``/proc/PID``.

``maps`` says where its mappings are and ``pagemap`` has a 64-bit word for each of their pages: bit 63
present, bit 62 swapped, bits 54:0 the frame number (Documentation/admin-guide/mm/pagemap.rst), which the
kernel shows as zero to those without CAP_SYS_ADMIN.

Which pages are large, only the page tables know. Since Linux 6.7 the ioctl PAGEMAP_SCAN tells it exactly
(PAGE_IS_HUGE: mapped by one entry for 2 MiB or 1 GiB). On older kernels the frames' flags in
``/proc/kpageflags`` stand in for it: a compound page of 512 frames that is mapped in a row and aligned
counts as large, which is exact for hugetlb pages, and wrong for a transparent one that is mapped in
pieces by one mapping.

The process runs on meanwhile: stop it (kill -STOP) where the map has to be of one moment.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import numpy as np

from mmu.errors import InputError
from mmu.trace.kinds import PAGE_BYTES, PAGE_SHIFT, VIRTUAL_BITS
from mmu.trace.pagemap.pages import MOST_PAGES, Entries, Words
from mmu.trace.pagemap.pagetypes import HEAD, LARGE, TAIL, large_runs, with_large

FRAME_BITS, SWAPPED_BIT, PRESENT_BIT = 55, 62, 63
WORD_BYTES = 8
BATCH = 1 << 16  # words of one read
# include/uapi/linux/fs.h: _IOWR('f', 16, struct pm_scan_arg), whose 12 words these are:
# size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, anyof_mask, return_mask.
PAGEMAP_SCAN, SCAN_ARGUMENT = 0xC0606610, struct.Struct("<12Q")
PAGE_IS_PRESENT, PAGE_IS_SWAPPED, PAGE_IS_HUGE = 1 << 3, 1 << 4, 1 << 6
REGIONS = 1 << 12  # of one call; each start, end, categories
# include/uapi/linux/kernel-page-flags.h
KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL, KPF_HUGE, KPF_THP = 15, 16, 17, 22
EXACT, CONCLUDED = "PAGEMAP_SCAN", "kpageflags"


@contextmanager
def proc_file(name: str, pid: int) -> Iterator[int]:
    """Open a file of /proc.

    Raises
    ------
    InputError
        There is no such process, or it may not be looked at.
    """
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):
            text = f"no process has it ({name}: {error.strerror})"
            if not Path("/proc/self/pagemap").exists():
                text = "this system has no /proc/PID/pagemap"
            raise InputError(f"PID {pid}: {text}; accepted: a process that runs") from None
        raise InputError(
            f"PID {pid}: {name}: {error.strerror}; its owner, or root, may look at it"
        ) from None
    try:
        yield file
    finally:
        os.close(file)


def mappings(pid: int) -> list[tuple[int, int]]:
    """Return the first address and the end of each mapping of a process, in its lower half."""
    with proc_file(f"/proc/{pid}/maps", pid) as file, open(file, closefd=False) as lines:
        try:
            ranges = [line.split(" ", 1)[0].split("-") for line in lines]
        except OSError as error:
            raise InputError(f"PID {pid}: its maps: {error.strerror}; it has ended") from None
    found = [(int(start, 16), int(end, 16)) for start, end in ranges]
    # vsyscall is the kernel's, and pagemap does not have it.
    return [(start, end) for start, end in found if end <= 1 << VIRTUAL_BITS - 1]


def scanned(file: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the runs of present or swapped pages: start, end, and whether large entries map them.

    Raises
    ------
    OSError
        This kernel has no PAGEMAP_SCAN.
    """
    regions = (ctypes.c_uint64 * (3 * REGIONS))()
    anyof = PAGE_IS_PRESENT | PAGE_IS_SWAPPED
    while start < end:
        argument = bytearray(
            SCAN_ARGUMENT.pack(
                SCAN_ARGUMENT.size, 0, start, end, 0, ctypes.addressof(regions), REGIONS, 0, 0, 0,
                anyof, anyof | PAGE_IS_HUGE,
            )
        )  # fmt: skip
        count = ioctl(file, PAGEMAP_SCAN, argument)
        for i in range(count):
            first, last, categories = regions[3 * i : 3 * i + 3]
            yield first, last, bool(categories & PAGE_IS_HUGE)
        start = SCAN_ARGUMENT.unpack(argument)[4]


def words_of(file: int, start: int, end: int) -> Iterator[tuple[int, Words]]:
    """Yield the words of the pages of a range, with the number of the first page of each part."""
    page, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
    while page < last:
        data = os.pread(file, WORD_BYTES * min(BATCH, last - page), WORD_BYTES * page)
        if not data:
            return
        yield page, np.frombuffer(data, np.int64)
        page += len(data) // WORD_BYTES


def frame_flags(pfn: Words, pid: int) -> Words:
    """Return what /proc/kpageflags says of frames: HEAD, TAIL, LARGE."""
    bits = np.zeros(len(pfn), np.int64)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(pfn) != 1) + 1, [len(pfn)]])
    with proc_file("/proc/kpageflags", pid) as file:
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            for at in range(begin, end, BATCH):
                count = min(BATCH, end - at)
                data = os.pread(file, WORD_BYTES * count, WORD_BYTES * int(pfn[at]))
                words = np.frombuffer(data, np.int64)
                large = words >> KPF_HUGE & 1 | words >> KPF_THP & 1
                found = HEAD * (words >> KPF_COMPOUND_HEAD & 1) + LARGE * large
                bits[at : at + len(words)] = found + TAIL * (words >> KPF_COMPOUND_TAIL & 1)
    return bits


class ProcessMap:
    """The page map of a process, mapping by mapping.

    Attributes
    ----------
    method : str
        How large pages were told: ``PAGEMAP_SCAN`` or ``kpageflags``.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.method = EXACT
        self.pages = 0

    def entries(self) -> Iterator[Entries]:
        """Yield the pages of the process.

        Raises
        ------
        InputError
            There is no such process, it may not be looked at, or its frame numbers may not be seen.
        """
        with proc_file(f"/proc/{self.pid}/pagemap", self.pid) as file:
            for start, end in mappings(self.pid):
                try:
                    yield from self._mapping(file, start, end)
                except OSError as error:
                    raise InputError(
                        f"PID {self.pid}: its pagemap cannot be read at {start:#x}: {error.strerror}"
                    ) from None

    def _mapping(self, file: int, start: int, end: int) -> Iterator[Entries]:
        runs = [(start, end, False)]
        if self.method == EXACT:
            try:
                runs = list(scanned(file, start, end))
            except OSError as error:
                if error.errno not in (errno.ENOTTY, errno.EINVAL):
                    raise
                self.method = CONCLUDED
        for first, last, huge in runs:
            pages, swapped = self._pages(file, first, last)
            if not len(pages[0]):
                if swapped:
                    yield with_large(*pages, pages[0], pages[0])._replace(swapped=swapped)
                continue
            vpn, pfn = pages
            if self.method == EXACT:
                bits = np.full(len(vpn), LARGE | TAIL if huge else 0, np.int64)
            else:
                bits = frame_flags(pfn, self.pid)
            place = np.arange(self.pages + 1, self.pages + 1 + len(vpn))
            self.pages += len(vpn)
            yield with_large(vpn, pfn, large_runs(vpn, pfn, bits), place)._replace(swapped=swapped)

    def _pages(self, file: int, start: int, end: int) -> tuple[tuple[Words, Words], int]:
        """Return page and frame numbers of the present pages of a range, and how many are swapped."""
        parts, swapped, count = [(np.zeros(0, np.int64),) * 2], 0, 0
        for first, words in words_of(file, start, end):
            present = np.flatnonzero(words < 0)  # bit 63
            swapped += int(np.count_nonzero(words >> SWAPPED_BIT & 3 == 1))
            frames = words[present] & (1 << FRAME_BITS) - 1
            if not frames.all():
                raise InputError(
                    f"PID {self.pid}: the kernel hides its frame numbers (it shows zero): that takes "
                    "CAP_SYS_ADMIN; run it as root"
                )
            count += len(present)
            if self.pages + count > MOST_PAGES:
                raise InputError(
                    f"PID {self.pid}: found more than {MOST_PAGES:,} pages; accepted: up to that, 128 "
                    "GiB in 4 KiB pages"
                )
            parts.append((first + present, frames))
        vpn, pfn = (np.concatenate([part[field] for part in parts]) for field in range(2))
        return (vpn, pfn), swapped


def page_size() -> int:
    """Return the bytes of this system's base page."""
    return os.sysconf("SC_PAGE_SIZE")


def read_process(pid: int) -> tuple[Iterator[Entries], ProcessMap]:
    """Return the pages of a live process, and the object that knows how large ones were told.

    Raises
    ------
    InputError
        This system's pages have another size than 4 KiB; else as `ProcessMap.entries`.
    """
    if page_size() != PAGE_BYTES:
        raise InputError(
            f"PID {pid}: this system has pages of {page_size()} bytes; accepted: a system with 4096"
        )
    process = ProcessMap(pid)
    return process.entries(), process
