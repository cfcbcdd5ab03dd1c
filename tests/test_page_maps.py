"""Page maps of live processes, and what a run makes of them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from memory_trace import MemoryTrace
from page_map_contents import content, read
from processors_for_tests import array, processor

import mmu
from mmu.cli import main
from mmu.config import RunConfig
from mmu.errors import InputError
from mmu.run import Replay
from mmu.strict import ConfigError
from mmu.trace.format import Raw
from mmu.trace.pagemap import linux, pages
from mmu.trace.pagemap.pages import PageMap, page_map_of
from mmu.trace.pagemap.reader import merged, read_page_map
from mmu.trace.writer import write_raw

MIB, GIB = 1 << 20, 1 << 30


# ---- live processes -----------------------------------------------------------------------------

SLEEPER = """
import ctypes, mmap, os, signal
memory = mmap.mmap(-1, 10 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
first = -(-begin // (2 << 20)) * (2 << 20)
ctypes.memset(first, 1, 6 << 20)
part = ctypes.c_void_p(first + (4 << 20) + 4096)
for rights in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
    ctypes.CDLL(None).mprotect(part, 4096, rights)
print(first, flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def sees_frames():
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file, open("/proc/kpageflags", "rb"):
            address = id(file)
            word = int.from_bytes(os.pread(file.fileno(), 8, (address >> 12) * 8), "little")
            return bool(word & (1 << 55) - 1)
    except OSError:
        return False


@pytest.fixture
def stopped():
    """A process that does not change, and where three huge pages of it are, the last mapped in pieces."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as process:
        first = int(process.stdout.readline())
        os.waitpid(process.pid, os.WUNTRACED)
        yield process.pid, first
        process.send_signal(signal.SIGKILL)


def slow_pagemap(pid):
    """{page: frame} by the kernel's description, word by word."""
    found = {}
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if end > 1 << 47:
                continue
            file.seek(start // 4096 * 8)
            for page in range(start // 4096, end // 4096):
                word = int.from_bytes(file.read(8), "little")
                if word >> 63:
                    found[page] = word & (1 << 55) - 1
    return found


@pytest.mark.skipif(not sees_frames(), reason="frame numbers are shown to root only")
def test_the_map_of_a_live_process_is_what_the_kernel_says(stopped, tmp_path, monkeypatch):
    pid, first = stopped
    expected = slow_pagemap(pid)
    whole = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    for method in (linux.EXACT, linux.CONCLUDED):
        entries, process = linux.read_process(pid)
        found = pages.collected(entries, "process", "page")
        assert process.method == method
        flat = {
            vpn + i: gfn + i
            for _, virtual, physical, size in content(found)
            for vpn, gfn in [(virtual >> 12, physical >> 12)]
            for i in range(size >> 12)
        }
        assert flat == expected
        if "[never]" not in whole:
            large = [virtual for _, virtual, _, size in content(found) if size == 2 * MIB]
            assert set(large) >= {first, first + 2 * MIB}
            # Only the page tables know.
            assert (first + 4 * MIB in large) == (method == linux.CONCLUDED)
        # A kernel before 6.7 has no such ioctl.
        monkeypatch.setattr(linux, "PAGEMAP_SCAN", linux.PAGEMAP_SCAN + 1)
    assert main(["trace", "pagemap", f"5={pid}", "-o", str(tmp_path / "m"), "--quiet"]) == 0
    assert read_page_map(tmp_path / "m").spaces == [5]


def test_hidden_frame_numbers_are_refused_with_the_reason(stopped, monkeypatch):
    words = linux.words_of
    monkeypatch.setattr(
        linux,
        "words_of",
        lambda *a: ((page, w & ~np.int64((1 << 55) - 1)) for page, w in words(*a)),
    )
    entries, _ = linux.read_process(stopped[0])
    with pytest.raises(
        InputError, match=r"PID \d+: the kernel hides its frame numbers.*CAP_SYS_ADMIN"
    ):
        pages.collected(entries, "process", "page")


def test_a_process_that_is_not_there_is_refused(capsys, tmp_path):
    assert main(["trace", "pagemap", "4194305", "-o", str(tmp_path / "m")]) == 2
    assert "PID 4194305: no process has it" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_words_say_present_swapped_and_neither(monkeypatch):
    present = -(1 << 63)
    words = np.array([1 << 62 | 7 << 5, 0, present | 5, present | 1 << 62 | 1 << 61 | 6], np.int64)
    process = linux.ProcessMap(1)
    monkeypatch.setattr(linux, "words_of", lambda *_: [(0x1000, words)])
    (vpn, pfn), swapped = process._pages(0, 0, 0)
    assert (vpn.tolist(), pfn.tolist(), swapped) == ([0x1002, 0x1003], [5, 6], 1)


# ---- runs ---------------------------------------------------------------------------------------


def plain(**changes):
    """A processor without walk caches, whose uncached walks read every table."""
    return processor(**{"walk_caches": {}, "nested_tlb": None, **changes})


def ran(accesses, page_map=None, mode="tagged", page_maps=None, **fields):
    run = {name: fields.pop(name) for name in ("backing", "reserve", "root") if name in fields}
    vm = {"trace": "t", "name": "vm", "memory": 64 * MIB, "nested_pages": "4k", **fields}
    config = RunConfig(processor=plain(), mode=mode, vms=[vm], memory=GIB, **run)
    maps = {1: page_map} if page_map is not None else {}
    replay = Replay(config, [MemoryTrace(accesses)], page_maps=page_maps or maps)
    return replay, replay.run()


def small_map(addresses, frames, size=4096, space=0):
    return page_map_of(
        addresses, [frame << 12 for frame in frames], [size] * len(frames), [space] * len(frames)
    )


SCATTERED = [0x7F00_0000_0000 + 4096 * page for page in (0, 1, 5, 511, 512, 700, 701)]


@pytest.mark.parametrize("mode", ["tagged", "purge", "flush", "native"])
@pytest.mark.parametrize("backing", ["start", "first-touch"])
def test_each_page_of_a_map_leads_to_its_frame_and_none_faults(mode, backing):
    frames = [
        0x123,
        0x3000,
        0x123,
        0,
        0x100_0000,
        0x3FFF,
        0x4000,
    ]  # shared, 64 GiB up, last, beyond
    page_map = small_map(SCATTERED, frames)
    trace = [(0, 0, address, kind) for address in SCATTERED for kind in (0, 1, 2)]
    replay, result = ran(trace, page_map, mode, backing=backing)
    assert result.count("guest_faults") == 0
    assert result.memory["page_map_4k"][0] == result.memory["guest_4k"][0] == 7
    base = int(replay.host.world.frames.base[3])
    for address, frame in zip(SCATTERED, frames, strict=True):
        found = mmu.translate(replay.memory, address + 0x123, **replay.space("vm"))
        if mode == "native":
            frame += base if frame < 64 * MIB >> 12 else GIB >> 12  # noqa: PLW2901
        assert (found.outcome, found.gpa) == (mmu.Outcome.OK, (frame << 12) + 0x123)
        assert found.guest_page_size == 4096


def test_pages_that_a_map_lacks_are_first_touched_at_frames_that_it_does_not_name():
    page_map = small_map([0x1000, 0x2000, 0x3000, 0x4000], [1, 2, 4, 6])
    replay, result = ran([(0, 0, 4096 * page, 0) for page in range(12)], page_map)
    assert result.count("guest_faults") == 12 - 4
    assert result.memory["guest_4k"][0] - result.memory["page_map_4k"][0] == 8
    host = replay.host
    frames = [
        mmu.translate(replay.memory, 4096 * n, **replay.space("vm")).gpa >> 12 for n in range(12)
    ]
    assert frames[1:5] == [1, 2, 4, 6]
    tables = [3, 5, 7, 8]  # frame 0 is nobody's; the four tables came first
    assert int(host.machine.root[host.contexts[1, 0]]) >> 12 == tables[0]
    assert frames[:1] + frames[5:] == list(range(9, 17))


def test_a_region_of_a_large_page_is_not_given_out_in_parts_nor_as_a_whole():
    page_map = page_map_of([0], [2 * MIB], [2 * MIB], [0])
    replay, _ = ran([(0, 0, GIB + 2 * MIB * n, 0) for n in range(3)], page_map, guest_pages="2m")
    found = [
        mmu.translate(replay.memory, GIB + 2 * MIB * n, **replay.space("vm")) for n in range(3)
    ]
    assert [one.gpa for one in found] == [4 * MIB, 6 * MIB, 8 * MIB]
    replay, result = ran([(0, 0, GIB + 4096 * n, 0) for n in range(600)], page_map)
    assert result.count("guest_faults") == 600
    gpas = [
        mmu.translate(replay.memory, GIB + 4096 * n, **replay.space("vm")).gpa for n in range(600)
    ]
    assert not {gpa >> 21 for gpa in gpas} & {1}
    assert max(gpas) > 4 * MIB


@pytest.mark.parametrize(
    ("size", "nested", "mode", "references"),
    [
        (4096, "4k", "tagged", 24), (4096, "2m", "tagged", 19), (2 * MIB, "4k", "tagged", 19),
        (2 * MIB, "2m", "tagged", 15), (4096, "4k", "native", 4), (2 * MIB, "4k", "native", 3),
    ],
)  # fmt: skip
def test_a_walk_reads_as_many_entries_as_the_page_sizes_of_the_map_demand(
    size, nested, mode, references
):
    if size == 4096:  # scattered over the frames, or one after the other in two large pages
        page_map = small_map([4096 * n for n in range(1024)], [2 * n + 1 for n in range(1024)])
    else:
        page_map = page_map_of([0, size], [2 * MIB, 4 * MIB], [size] * 2, [0] * 2)
    trace = [(0, 0, 4096 * n, 0) for n in range(0, 1024, 8)]
    _, result = ran(trace, page_map, mode, nested_pages=nested)
    assert list(result.references[0]) == [references]
    assert result.references[0][references] == result.count("walks") == 128


def first_touch_map(replay):
    """The map of what a run's pager did."""
    pages_ = []
    for page in sorted({(space, address >> 12) for space, _, address, _ in TOUCHED}):
        found = mmu.translate(replay.memory, page[1] << 12, **replay.space("vm", page[0]))
        pages_.append((page[1] << 12, found.gpa, found.guest_page_size, page[0]))
    whole = {
        (space, address // size * size, gpa // size * size, size)
        for address, gpa, size, space in pages_
    }
    space, virtual, physical, size = zip(*sorted(whole), strict=True)
    return page_map_of(virtual, physical, size, space)


L2 = [array(64, 4, "4k", "2m")]
RANDOM = np.random.default_rng(5)
TOUCHED = [
    (
        int(n >= 1500),
        0,
        int(RANDOM.integers(0, 300)) * 4096 + (int(RANDOM.integers(0, 4)) << 30),
        int(RANDOM.integers(0, 3)),
    )
    for n in range(3000)
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["tagged", "flush", "native"])
@pytest.mark.parametrize("guest_pages", ["4k", "2m"])
def test_a_map_of_what_first_touch_does_changes_nothing_but_the_faults(
    mode, guest_pages, monkeypatch
):
    monkeypatch.setattr(sys.modules[__name__], "plain", lambda: processor(l2=L2))
    before, faulted = ran(TOUCHED, mode=mode, guest_pages=guest_pages)
    page_map = first_touch_map(before)
    if mode == "native":
        base = int(before.host.world.frames.base[3])
        page_map = PageMap(page_map.vpn, page_map.gfn - base, page_map.size, page_map.space)
    after, mapped = ran(TOUCHED, page_map, mode)
    assert content(first_touch_map(after)) == content(first_touch_map(before))
    assert faulted.count("guest_faults") == faulted.count("fault_walks") == len(page_map.vpn)
    assert mapped.count("guest_faults") == mapped.count("fault_walks") == 0
    assert mapped.references == faulted.references
    assert mapped.hits == faulted.hits
    assert mapped.evictions == faulted.evictions
    same = {
        "accesses",
        "data_accesses",
        "fetches",
        "instructions",
        "walks",
        "dirty_walks",
        "updates",
    }
    same |= {"l1_data_misses", "l1_fetch_misses", "exits", "switches", "nested_faults"}
    assert same <= set(mapped.counters)
    for event in same:
        assert mapped.counters[event] == faulted.counters[event], event
    looked_up = faulted.count("l2_lookups") - mapped.count("l2_lookups")
    assert looked_up == len(page_map.vpn)  # a faulting access is made twice
    completed = sum(n * walks for n, walks in mapped.references[0].items())
    assert mapped.count("guest_references") + mapped.count("nested_references") == completed


def test_each_space_has_its_own_pages_and_a_map_without_spaces_is_of_space_0(tmp_path):
    text = "0x1000 0x5000 4K 0\n0x1000 0x6000 4K 7\n"
    page_map = read(tmp_path, text)
    trace = [(0, 0, 0x1000, 0), (7, 0, 0x1000, 0), (3, 0, 0x1000, 0)]
    replay, result = ran(trace, page_map)
    gpas = [mmu.translate(replay.memory, 0x1000, **replay.space("vm", n)).gpa for n in (0, 7)]
    assert gpas == [0x5000, 0x6000]
    assert result.count("guest_faults") == 1
    replay, result = ran(trace, read(tmp_path, "0x1000 0x5000\n"))
    assert result.count("guest_faults") == 2


def test_the_frames_of_the_root_partition_are_the_hosts():
    accesses = [(0, 0, 4096 * n, 1) for n in range(3)]
    fields = {"processor": plain(), "memory": GIB, "reserve": 64 * MIB, "root": {"trace": "r"}}
    config = RunConfig(**fields)
    frames = [64 * MIB >> 12, (GIB >> 12) - 1, 0x10000]
    page_map = small_map([0, 4096, 8192], frames)
    replay = Replay(config, [MemoryTrace(accesses)], page_maps={0: page_map})
    assert replay.run().count("guest_faults") == 0
    found = [mmu.translate(replay.memory, 4096 * n, **replay.space("root")) for n in range(3)]
    assert [one.maddr >> 12 for one in found] == [one.gpa >> 12 for one in found] == frames
    for frame, said in (((64 * MIB >> 12) - 1, "0x3fff000"), (GIB >> 12, "0x40000fff")):
        with pytest.raises(InputError, match=f"root: its page map has a frame at {said}"):
            Replay(config, [MemoryTrace(accesses)], page_maps={0: small_map([0], [frame])})


def test_frames_far_beyond_the_memory_need_room_for_their_regions_only():
    scattered = small_map(
        [4096 * n for n in range(400)], [(n << 9) + (400 << 18) for n in range(400)]
    )
    trace = [(0, 0, 4096 * n, 0) for n in range(400)]
    replay, result = ran(trace, scattered)  # 400 GiB up, on a host of 1 GiB
    assert result.count("guest_faults") == 0
    assert replay.host.world.mapped[1, 3] == 400 + result.memory["guest_tables"][0]
    with pytest.raises(InputError, match=r"--host-memory: found 1GiB, .* beyond its memory"):
        ran(
            trace,
            small_map([4096 * n for n in range(600)], [n << 9 for n in range(100, 700)]),
            nested_pages="2m",
        )
    replay, result = ran(trace, scattered, nested_pages="2m")
    assert result.memory["nested_2m"][0] == 401


def test_frames_that_no_nested_table_reaches_are_refused():
    with pytest.raises(
        InputError, match="vm: its page map has a frame at 0x1000000000fff; accepted"
    ):
        ran([(0, 0, 0, 0)], small_map([0], [1 << 36]))
    with pytest.raises(InputError, match="natively"):
        ran([(0, 0, 0, 0)], small_map([0], [(1 << 40) - 1]), "native")


def test_a_map_that_takes_all_memory_leaves_none_for_tables():
    page_map = page_map_of([0], [0], [2 * MIB], [0])
    with pytest.raises(mmu.OutOfMemory, match=r"give it more with --memory"):
        ran([(0, 0, 0, 0)], page_map, memory=2 * MIB)


def test_a_map_and_a_moved_layout_exclude_each_other():
    with pytest.raises(ConfigError, match=r"page_map: found 'm' and aslr 3"):
        RunConfig(processor=plain(), vms=[{"trace": "t", "page_map": "m", "aslr": 3}])


def test_memory_is_claimed_from_regions_that_are_broken_already():
    """Fragmentation gives frames to somebody who is nobody: a map's owner takes them."""
    page_map = small_map([4096 * n for n in range(1, 4096)], range(1, 4096))
    replay, result = ran(
        [(0, 0, 4096 * n, 0) for n in range(1, 4096, 7)], page_map, fragmentation=1.0
    )
    assert result.count("guest_faults") == 0
    frames = replay.host.world.frames
    owner = frames.owner[frames.begin[3] * 512 : frames.begin[4] * 512].reshape(-1, 512)
    assert (owner[:8].ravel()[1:] == 4).all()
    assert (frames.free[frames.begin[3] : frames.begin[4]] == (owner == 0).sum(axis=1)).all()
    assert frames.left[3] == (owner == 0).sum()


# ---- the command line ---------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    """Two traces, and a map of one page each."""
    paths = []
    for name in ("web", "db"):
        write_raw(tmp_path / f"{name}.parquet", raw(5000))
        (tmp_path / f"{name}.map").write_text("0x1000 0x5000\n")
        paths.append(str(tmp_path / f"{name}.parquet"))
    return tmp_path, paths


def raw(count):
    address = np.tile(np.array([4096, 8192], np.int64), count)
    return [Raw(address, np.zeros(2 * count, np.uint8), np.full(2 * count, 8, np.uint16))]


def counts(path):
    result = mmu.Result.load(path)
    return [result.count("guest_faults", vm) for vm in result.vms], result


def test_a_map_is_of_the_machine_that_is_named_or_of_all_others(recorded, capsys):
    folder, paths = recorded
    out = str(folder / "out.json")
    base = ["replay", *paths, "--host-memory", "16GiB", "--json", out]
    assert main([*base, "--page-map", str(folder / "web.map")]) == 0
    assert counts(out)[0] == [1, 1]
    assert (
        "web: 1 pages by its page map; 1 that it lacks, at first touch." in capsys.readouterr().out
    )
    assert main([*base, "--page-map", f"db={folder / 'web.map'}"]) == 0
    faults, result = counts(out)
    assert faults == [2, 1]
    assert [vm["page_map"] for vm in result.config["vms"]] == [None, str(folder / "web.map")]
    assert result.memory["page_map_4k"] == [0, 1, 0]
    (folder / "both.map").write_text("0x1000 0x5000\n0x2000 0x6000")
    both = ["--page-map", f"db={folder / 'web.map'}", "--page-map", str(folder / "both.map")]
    assert main([*base, *both]) == 0
    assert counts(out)[0] == [0, 1]
    got = mmu.replay(
        {"trace": paths[0], "page_map": str(folder / "both.map")}, paths[1], host_memory="16GiB"
    )
    assert [got.count("guest_faults", vm) for vm in got.vms] == [0, 2]


def test_wrong_maps_are_refused_in_one_line_that_names_the_option(recorded, capsys):
    folder, paths = recorded
    (folder / "bad").write_text("0x1000 0x1001\n")
    good = str(folder / "web.map")
    for given_, said in (
        (
            [f"wbe={good}"],
            "--page-map: no virtual machine 'wbe'; accepted: web, db; did you mean 'web'?",
        ),
        ([good, good], "--page-map: found two for all machines"),
        ([f"db={good}", f"db={good}"], "--page-map: found two for db"),
        ([f"db={folder}/none"], "--page-map: no file"),
        (
            [str(folder / "bad")],
            "bad: line 1: page 0x1000 of 4 KiB at 0x1001: the physical address",
        ),
        ([good, "--aslr=3"], "--page-map: found"),
        ([good, f"--json={good}"], "--json: "),
    ):
        options = [text if text.startswith("--") else f"--page-map={text}" for text in given_]
        assert main(["replay", *paths, *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("mmu: error: ")
        assert said in error
        assert error.count("\n") == 1


def test_maps_of_several_sources_become_spaces(recorded, capsys):
    folder, _ = recorded
    out, web, db = str(folder / "m"), str(folder / "web.map"), str(folder / "db.map")
    assert main(["trace", "pagemap", web, db, f"9={db}", "-o", out]) == 0
    assert (
        "3 pages of 4 KiB, 0 of 2 MiB in 3 spaces, frames up to 0x5fff; 0 in swap"
        in capsys.readouterr().out
    )
    assert content(read_page_map(out)) == [(space, 0x1000, 0x5000, 4096) for space in (0, 1, 9)]
    said = json.loads(pq.read_schema(out).metadata[b"mmu_page_map"])
    assert said["source"] == {"sources": [{"file": web}, {"file": db}, {"file": db}]}
    for arguments, text in (
        ([f"1={web}", db], "found pages of space 1"),
        ([out, web], "found 3 spaces; accepted: one"),
        (["65536=" + web], "found space 65536; accepted: 0 to 65535"),
        (["nothing"], "SOURCE: no file 'nothing'"),
    ):
        assert main(["trace", "pagemap", *arguments, "-o", str(folder / "x")]) == 2
        assert text in capsys.readouterr().err
        assert not (folder / "x").exists()
    assert main(["trace", "pagemap", out, "-o", str(folder / "again"), "--quiet"]) == 0
    assert content(read_page_map(folder / "again")) == content(read_page_map(out))


def test_maps_are_merged_up_to_what_one_may_have(monkeypatch):
    one = small_map([0], [1])
    monkeypatch.setattr("mmu.trace.pagemap.reader.MOST_PAGES", 1)
    with pytest.raises(InputError, match="found 2 pages together"):
        merged([(0, one), (1, one)], ["a", "b"])


def test_a_schedule_names_maps_and_its_processes_have_their_spaces_of_it(recorded, capsys):
    folder, _ = recorded
    (folder / "maps").mkdir()
    (folder / "maps" / "two").write_text(
        "0x1000 0x5000 4K 0\n0x1000 0x6000 4K 4\n0x2000 0x7000 4K 4\n"
    )
    schedule = folder / "run.toml"
    schedule.write_text(
        "host-memory = '16GiB'\n"
        "[[vm]]\nname = 'both'\npage-map = 'maps/two'\n"
        "[[vm.process]]\ntrace = 'web.parquet'\n"
        "[[vm.process]]\ntrace = 'db.parquet'\nspace = 4\nguest_pages = '2m'\n"
        "[[vm]]\ntrace = 'db.parquet'\n"
    )
    replay = Replay(mmu.load_schedule(schedule))
    result = replay.run()
    assert [result.count("guest_faults", vm) for vm in result.vms] == [1, 2]
    for space, address, gpa in ((0, 0x1000, 0x5000), (4, 0x1000, 0x6000), (4, 0x2000, 0x7000)):
        assert mmu.translate(replay.memory, address, **replay.space("both", space)).gpa == gpa
    out = str(folder / "out.json")
    web = str(folder / "web.map")
    assert (
        main(["replay", "--schedule", str(schedule), "--json", out, "--page-map", f"both={web}"])
        == 0
    )
    assert counts(out)[0] == [2, 2]  # the option replaces what the file says
    capsys.readouterr()
    assert (
        main(["replay", "--schedule", str(schedule), "--json", str(folder / "maps" / "two")]) == 2
    )
    assert "--json: " in capsys.readouterr().err
    schedule.write_text("[[vm]]\ntrace = 'db.parquet'\npage_map = 'nothing'\n")
    assert main(["replay", "--schedule", str(schedule)]) == 2
    error = capsys.readouterr().err
    assert "[[vm]] 1: page_map: no file" in error
    assert "a page map that can be read" in error


def test_a_space_with_a_map_goes_by_its_own_policy_where_the_map_lacks_a_page():
    page_map = small_map([0x1000], [5], space=1)
    vm = {"name": "vm", "memory": 64 * MIB, "processes": [
        {"trace": "a"}, {"trace": "b", "guest_pages": "2m"},
    ]}  # fmt: skip
    config = RunConfig(processor=plain(), vms=[vm], memory=GIB)
    traces = [MemoryTrace([(0, 0, address, 0) for address in (0x1000, GIB)]) for _ in range(2)]
    replay = Replay(config, traces, page_maps={1: page_map})
    replay.run()
    sizes = [
        mmu.translate(replay.memory, GIB, **replay.space("vm", n)).guest_page_size for n in (0, 1)
    ]
    assert sizes == [4096, 2 * MIB]
