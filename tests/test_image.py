"""Images of machines' memory: the formats, what is refused, and that files stay as they are."""

import os
import time

import numba
import numpy as np
import pytest
from handtables import PAGE, HandGuest, HandTables
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import elf, header, lime, load

import mmu
from mmu import Ept, Memory, Outcome, translate, translate_many
from mmu.errors import InputError
from mmu.image import write_elf
from mmu.image.write import program_headers

GVA = 0x7F12_3456_7ABC
GIB = 1 << 30
NESTED = HandGuest(1, 64)
NESTED.map(GVA, 0x7000_0000)
NESTED.memory.map_nested(NESTED.nested_root, 0x7000_0000, 0x9_0000_0000)


def tables():
    made = HandTables(16)
    root = made.take()
    made.map_native(root, GVA, 0x5000)
    return made.words, root


def opened(tmp_path, content, name="image"):
    path = tmp_path / name
    path.write_bytes(content)
    return Memory.open(path)


def runs(pages):
    """Runs of pages that are not all zero, as (first page, end)."""
    used = [bool(page.any()) for page in pages]
    edges = [n for n in range(len(used) + 1) if [*used, False][n] != [False, *used][n]]
    return list(zip(edges[::2], edges[1::2], strict=True))


@settings(max_examples=5 if numba.config.DISABLE_JIT else 60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_translation_is_the_same_from_every_source(tmp_path_factory, seed, update):
    """Words, pages, a raw image, an ELF core with holes, and a LiME dump of the same memory."""
    random = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("same")
    words = NESTED.memory.words.copy()
    for _ in range(20):  # damage that stays inside
        words[int(random.integers(0, words.size))] = int(random.integers(0, 64)) << 12 | 0x67
    pages = words.reshape(-1, 512)
    held = np.flatnonzero(pages.any(axis=1))
    random.shuffle(held)
    found = runs(pages)
    stops = [begin for begin, _ in found[1:]] + [len(pages)]
    start = [(0, b"", found[0][0] * PAGE)] if found[0][0] else []
    segments = start + [
        (begin * PAGE, pages[begin:end].tobytes(), (stop - begin) * PAGE)
        for (begin, end), stop in zip(found, stops, strict=True)
    ]
    random.shuffle(segments)
    cut = int(random.integers(1, len(pages)))
    ranges = [(0, pages[:cut].tobytes()), (cut * PAGE, pages[cut:].tobytes())]
    sources = [
        Memory.from_words(words.copy()),
        Memory.from_pages((held * PAGE).astype(np.uint64), pages[held].copy()),
        opened(folder, words.tobytes(), "raw"),
        opened(folder, elf(segments, b"n" * int(random.integers(0, 20))), "elf"),
        opened(folder, lime(ranges[:: int(random.choice([1, -1]))]), "lime"),
    ]
    gvas = np.array([GVA, *random.integers(0, 1 << 47, 3)], np.uint64)
    for nested, cr3 in ((None, NESTED.nested_root), (Ept.at(NESTED.nested_root), NESTED.root)):
        for access in ("read", "write"):
            kept = {"cr3": cr3, "nested": nested, "access": access, "update": update}
            for gva in gvas.tolist():
                first, *others = [translate(memory, gva, **kept) for memory in sources]
                assert all(other == first for other in others)
            first, *others = [translate_many(memory, gvas, **kept) for memory in sources]
            for other in others:
                assert all(map(np.array_equal, first, other))


def test_an_image_of_pages_is_written_and_read_again(tmp_path):
    words, root = tables()
    pages = words.reshape(-1, 512)
    addresses = np.array([4, 2, 1, 3, 1 << 39], np.uint64) * np.uint64(PAGE)
    content = np.concatenate([pages[[4, 2, 1, 3]], np.full((1, 512), 7, np.uint64)])
    write_elf(tmp_path / "core", addresses, content)
    memory = Memory.open(tmp_path / "core")
    assert memory.ranges().tolist() == [[PAGE, 5 * PAGE - 1], [1 << 51, (1 << 51) + PAGE - 1]]
    assert translate(memory, GVA, cr3=root).maddr == 0x5ABC
    assert translate(memory, GVA, cr3=0x6000).outcome == Outcome.NO_MEMORY
    assert os.listdir(tmp_path) == ["core"]
    with pytest.raises(InputError, match="cannot write"):
        write_elf(tmp_path / "none" / "core", addresses, content)
    with pytest.raises(InputError, match="twice"):
        write_elf(tmp_path / "other", addresses * np.uint64(0), content)
    assert os.listdir(tmp_path) == ["core"]


def test_more_segments_than_an_elf_header_counts_are_read(tmp_path):
    number = 0x10001
    head = elf([(0, b"", 0)] * number, many=True)
    words, root = tables()
    pages = [
        load(2 * PAGE * n, len(head), 0, PAGE)
        if n
        else load(0, len(head), words.nbytes, words.nbytes)
        for n in range(number)
    ]
    content = head[: 64 + 56] + b"".join(pages) + head[64 + 56 * (number + 1) :] + words.tobytes()
    with pytest.raises(InputError, match="overlap"):
        opened(tmp_path, content)
    pages[1 : words.nbytes // PAGE] = [load(0, 0, 0)] * (words.nbytes // PAGE - 1)
    content = head[: 64 + 56] + b"".join(pages) + head[64 + 56 * (number + 1) :] + words.tobytes()
    memory = opened(tmp_path, content)
    assert len(memory.extents) == number - words.nbytes // PAGE + 1
    assert translate(memory, GVA, cr3=root).maddr == 0x5ABC
    last = 2 * PAGE * (number - 1)
    assert translate(memory, GVA, cr3=last).outcome == Outcome.PAGE_FAULT
    assert translate(memory, GVA, cr3=last + PAGE).outcome == Outcome.NO_MEMORY


@pytest.mark.parametrize("number", [0xFFFE, 0xFFFF, 0x10000])
def test_as_many_runs_as_are_written_are_read(tmp_path, number):
    extents = np.zeros((number, 3), np.int64)
    extents[:, 0] = np.arange(number) * 1024 + 1024
    extents[:, 1], extents[:, 2] = 512, np.arange(number) * 512
    head = program_headers(extents)
    path = tmp_path / "core"
    path.write_bytes(head)
    os.truncate(path, len(head) + number * PAGE)
    found = Memory.open(path).extents
    assert np.array_equal(found[:, :2], extents[:, :2])
    assert np.array_equal(found[:, 2], extents[:, 2] + len(head) // 8)


def test_a_core_written_from_page_tables_names_the_same_memory_many_times(tmp_path):
    """As dump-guest-memory -p does: a segment for each virtual mapping."""
    words, root = tables()
    at = 64 + 56 * 4
    programs = [
        load(0, at, words.nbytes), load(PAGE, at + PAGE, PAGE),
        load(3 * PAGE, at + 3 * PAGE, 2 * PAGE), load(1 << 40, (1 << 64) - 1, 0, PAGE),
    ]  # fmt: skip
    memory = opened(tmp_path, header(4) + b"".join(programs) + words.tobytes())
    assert memory.ranges().tolist() == [[0, words.nbytes - 1]]
    assert translate(memory, GVA, cr3=root).maddr == 0x5ABC
    assert translate(memory, 0, cr3=1 << 40).outcome == Outcome.NO_MEMORY  # a filter left it out


def test_segments_that_overlap_in_part_are_one_if_the_file_has_their_memory_once(tmp_path):
    at = 64 + 56 * 3
    content = bytes(4 * PAGE)
    programs = [load(PAGE, at + PAGE, 3 * PAGE), load(0, at, 2 * PAGE), load(0, at, PAGE)]
    memory = opened(tmp_path, header(3) + b"".join(programs) + content)
    assert memory.extents.tolist() == [[0, 2048, at // 8]]
    programs[1] = load(0, at + 8, 2 * PAGE)
    with pytest.raises(InputError, match="overlap"):
        opened(tmp_path, header(3) + b"".join(programs) + content, "other")


def test_the_version_that_virtualbox_writes_is_taken(tmp_path):
    assert opened(tmp_path, elf([(PAGE, WORDS, PAGE)], version=0)).base == PAGE


def test_a_range_may_end_within_a_page(tmp_path):
    words, root = tables()
    memory = opened(tmp_path, lime([(0x100_0000, words[: 512 + 8].tobytes())]))
    assert memory.ranges().tolist() == [[0x100_0000, 0x100_0000 + PAGE + 63]]
    assert translate(memory, 7 << 39, cr3=0x100_0000 + root).references == 1
    assert translate(memory, 8 << 39, cr3=0x100_0000 + root).outcome == Outcome.NO_MEMORY


WORDS = bytes(PAGE)
LONG = elf([(0, WORDS, PAGE)])
REFUSED = {
    "nothing": (b"", "empty file"),
    "text": (b"hello\n", "6 bytes in no format that is known"),
    "kdump": (b"KDUMP   " + WORDS, "kdump-compressed"),
    "flattened": (b"makedumpfile" + WORDS, "makedumpfile -R"),
    "windows": (b"PAGEDU64" + WORDS, "Windows crash dump"),
    "qcow2": (b"QFI\xfb" + WORDS, "qcow2"),
    "migration": (b"QEVM" + WORDS, "migration stream"),
    "gzip": (b"\x1f\x8b\x08" + WORDS, "decompress it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + WORDS, "decompress it first"),
    "xz": (b"\xfd7zXZ\x00" + WORDS, "decompress it first"),
    "avml": (lime([(0, WORDS)], 0x4C4D5641, 2), "avml-convert"),
    "lime 2": (lime([(0, WORDS)], version=2), "LiME dump of version 2"),
    "lime, header cut": (lime([(0, WORDS)])[:20], "20 bytes of a range's header"),
    "lime, range cut": (lime([(0, WORDS)])[:-8], "the file is cut short"),
    "lime, junk": (lime([(0, WORDS)]) + bytes(32), "no range's header at 0x1020"),
    "lime, high": (lime([((1 << 52) - 8, WORDS)]), "memory below 0x10000000000000"),
    "lime, overlap": (lime([(0, WORDS), (8, WORDS)]), "which overlap"),
    "lime, odd address": (lime([(4, WORDS)]), "at 0x4; accepted: multiples of 8"),
    "lime, odd size": (lime([(0, WORDS[:-4])]), "accepted: multiples of 8"),
    "32 bits": (header(1, klass=1) + WORDS, "32-bit ELF"),
    "big-endian": (header(1, data=2) + WORDS, "big-endian ELF"),
    "elf 2": (header(1, version=2) + WORDS, "version 2"),
    "program": (header(1, kind=2) + WORDS, "type 2, no core"),
    "arm": (header(1, machine=183) + WORDS, "machine 183"),
    "header cut": (header(1)[:40], "no room for the ELF header"),
    "no segments": (header(0), "no memory in it"),
    "no loads": (header(1) + load(0, 0, 64, kind=4), "no memory in it"),
    "small headers": (header(1, size=32) + WORDS, "program headers of 32 bytes"),
    "programs cut": (header(100) + load(0, 64, 8), "no room for program headers"),
    "far programs": (header(1, phoff=(1 << 64) - 8) + WORDS, "no room for program headers"),
    "no section": (header(0xFFFF) + load(0, 0, 8), "no section header with their number"),
    "far section": (header(0xFFFF, shoff=1 << 63), "no room for the first section header"),
    "memory cut": (LONG[:-8], "the file is cut short"),
    "far memory": (header(1) + load(0, 1 << 63, 8), "the file is cut short"),
    "high memory": (header(1) + load((1 << 64) - 8, 0, 8), "memory below 0x10000000000000"),
    "too long": (header(1) + load(0, 0, 8, 1 << 63), "no more in the file than in memory"),
    "too full": (header(1) + load(0, 0, 64, 8), "no more in the file than in memory"),
    "overlap": (elf([(0, WORDS, PAGE), (8, WORDS, PAGE)]), "which overlap"),
    "zero over all": (elf([(0, WORDS, 3 * PAGE), (PAGE, WORDS, PAGE)]), "which overlap"),
    "mixed": (header(2) + load(0, 0, 64) + load(64, 4, 64) + WORDS, r"are \[0, 4\]"),
    "process": (elf([(0, WORDS, PAGE), (0, WORDS, PAGE)]), "those of processes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_readable_image_is_refused_in_one_line_that_names_it(tmp_path, name):
    content, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as error:
        opened(tmp_path, content)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_an_absurd_number_of_segments_is_refused_before_they_are_read(tmp_path):
    head = bytearray(elf([(0, WORDS, PAGE)], many=True))
    head[64 + 112 + 44 : 64 + 112 + 48] = b"\xff\xff\xff\xff"
    with pytest.raises(InputError, match="4,294,967,295 program headers"):
        opened(tmp_path, bytes(head))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    strange = os.fsdecode(bytes(tmp_path) + b"/\xff")
    for path, message in (
        (tmp_path, "a folder"),
        (tmp_path / "pipe", "no regular file"),
        (tmp_path / "none", "No such file"),
        ("a\0b", "null byte"),
        (strange, r"udcff'"),
        (b"bytes", "accepted: the name"),
        (5, "accepted: the name"),
    ):
        with pytest.raises(InputError, match=message) as error:
            Memory.open(path)
        str(error.value).encode()  # can be printed
    (tmp_path / os.fsdecode(b"\xfe")).write_bytes(WORDS)
    assert Memory.open(tmp_path / os.fsdecode(b"\xfe")).base == 0


@pytest.mark.parametrize("kind", ["raw", "elf", "lime"])
def test_a_file_stays_as_it_is_whatever_is_marked(tmp_path, kind):
    words, root = tables()
    data = words.tobytes()
    content = {"raw": data, "elf": elf([(0, data, len(data))]), "lime": lime([(0, data)])}[kind]
    path = tmp_path / "image"
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    path.chmod(0o400)
    memory = Memory.open(path)
    t = translate(memory, GVA, cr3=root, access="write", update=True)
    assert len(t.updates) == 4
    again = translate(memory, GVA, cr3=root, access="write", update=True)
    assert not again.updates  # this memory has the bits
    assert len(translate(Memory.open(path), GVA, cr3=root, access="write").updates) == 4
    del memory
    assert path.read_bytes() == content
    assert path.stat().st_mtime_ns == 10**18


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", ["raw", "elf", "elf, not aligned", "lime"])
def test_an_image_of_64_gib_costs_what_is_touched(tmp_path, kind):
    size, place = 64 * GIB, 63 * GIB
    words, root = tables()
    links = (words & 1 == 1) & (words != 0x5007)
    words[links] += np.uint64(place)
    skip = 64 + 56 + 3 * (kind == "elf, not aligned")
    head = {
        "raw": b"", "lime": lime([(0, bytes(8))])[:16] + (size - 1).to_bytes(8, "little") + bytes(8),
    }.get(kind, header(1) + load(0, skip, size))  # fmt: skip
    begin = skip if "elf" in kind else len(head)
    path = tmp_path / "image"
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(begin + size)
        file.seek(begin + place)
        file.write(words.tobytes())
    if path.stat().st_blocks * 512 > GIB:
        pytest.skip("this file system has no sparse files")
    Memory.open(path)  # what is imported then is not counted
    before, start = resident(), time.perf_counter()
    memory = Memory.open(path)
    t = translate(memory, GVA, cr3=root + place)
    took = time.perf_counter() - start
    assert t.maddr == 0x5ABC
    assert memory.ranges().tolist() == [[0, size - 1]]
    assert resident() - before < 64 << 20
    assert took < 60 if numba.config.DISABLE_JIT else 30  # the first translation may compile


def hostile(random, base):
    """An image's bytes, some of them changed or cut away; most changes are in headers."""
    data = bytearray(base)
    for _ in range(int(random.integers(0, 5))):
        at = int(random.integers(0, min(len(data), int(random.choice([64, 256, len(data)])))))
        width = int(random.choice([1, 2, 4, 8]))
        value = random.choice(
            np.array([0, 1, 7, 8, 0xFF, 0xFFFF, PAGE, 1 << 51, (1 << 52) - 8, (1 << 63), (1 << 64) - 1],
                     np.uint64)
        )  # fmt: skip
        data[at : at + width] = int(value).to_bytes(8, "little")[:width]
    if random.random() < 0.2:
        del data[int(random.integers(0, len(data))) :]
    return bytes(data)


def try_hostile(folder, random, count):
    words, root = tables()
    data = words.tobytes()
    bases = [
        data,
        elf([(0, data, len(data)), (1 << 30, WORDS, 3 * PAGE)], b"note"),
        elf([(0, data[:PAGE], PAGE), (PAGE, data[PAGE:], len(data))], many=True),
        lime([(0, data), (1 << 40, WORDS)]),
    ]
    read, messages = 0, set()
    for n in range(count):
        path = folder / str(n % 8)
        base = bases[n % len(bases)]
        if n % 16 == 15:
            base = base[: int(random.integers(1, 8))] + random.bytes(int(random.integers(1, 9000)))
        content = hostile(random, base)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        try:
            memory = Memory.open(path)
        except InputError as error:
            messages.add(str(error))
            continue
        read += 1
        gvas = np.array([GVA, 0, 1 << 46], np.uint64)
        for cr3 in (root, 1 << 40, (1 << 52) - PAGE):
            for nested in (None, Ept.at(root)):
                t = translate_many(
                    memory, gvas, cr3=cr3, nested=nested, access="write", update=True
                )
                assert set(t.outcome.tolist()) <= set(mmu.Outcome)
        assert int(memory.ranges().max(initial=0)) < 1 << 52
        del memory
        assert path.read_bytes() == content
    assert not any("\n" in message for message in messages)
    return read


def test_damaged_images_are_refused_or_opened_and_never_harm(tmp_path):
    count = 60 if numba.config.DISABLE_JIT else 600
    assert try_hostile(tmp_path, np.random.default_rng(7), count) > count // 10


@pytest.mark.fuzz
def test_images_damaged_at_random_for_long(tmp_path):
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    try_hostile(tmp_path, np.random.default_rng(seed), 100_000)
