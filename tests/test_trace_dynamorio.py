import gzip
import re
import zipfile

import numpy as np
import pytest
from binary_samples import COUNTED, FETCHED, dynamorio, entry, marker, slow_dynamorio
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.trace import buffer, import_trace, open_trace
from mmu.trace import dynamorio as reader
from mmu.trace.dynamorio_names import marker_words, type_words
from mmu.trace.source import Source

ADDRESS = st.one_of(
    st.integers(1, (1 << 47) - 4096),
    st.sampled_from([4095, 0x7FFF_FFFF_FFF8, (1 << 64) - 64, (1 << 64) - (1 << 47), 0x401FFD]),
)
SIZE = st.one_of(st.integers(0, 17), st.sampled_from([64, 4095, 4096]))
ACCESS = st.builds(
    entry, st.sampled_from([0, 1, 10, 10, 12, 16, 29, 30, 30, 31, 48, 49]), SIZE, ADDRESS
)
BUNDLE = st.builds(
    lambda lengths: entry(17, len(lengths), int.from_bytes(bytes(lengths), "little")),
    st.lists(st.integers(1, 15), min_size=1, max_size=8),
)
OTHER = st.one_of(
    st.builds(entry, st.sampled_from(sorted(COUNTED - {23})), SIZE, ADDRESS),
    st.builds(marker, st.sampled_from([0, 2, 3, 15, 20, 21, 36, 37, 99, 65535]), ADDRESS),
    st.builds(marker, st.just(12), st.integers(2, 7)),
)
OWNER = st.one_of(
    st.builds(
        lambda thread, process: entry(22, 0, thread) + entry(24, 0, process),
        st.integers(1, 4),
        st.integers(1, 3),
    ),
    st.builds(lambda thread: entry(22, 0, thread), st.sampled_from([77, 77, 1])),
)
ENTRIES = st.one_of(ACCESS, ACCESS, ACCESS, BUNDLE, OTHER, OWNER)
WILD = st.builds(
    entry,
    st.one_of(st.integers(0, 51), st.integers(0, 65535)),
    st.one_of(SIZE, st.integers(0, 65535)),
    st.one_of(ADDRESS, st.integers(0, 10), st.integers(0, (1 << 64) - 1)),
)


def parsed(data, piece=None, timed=False):
    """What `slow_dynamorio` gives, from the reader under test, fed in pieces of some length."""
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)] if piece else [data]
    source = Source("trace", b"", iter(pieces))
    threads = [reader.Thread(source.pieces, "trace", timed)]
    accesses = []
    try:
        for part in reader.read_threads(threads, source):
            names = {space: process for process, space in source.notes.spaces.items()}
            owner = [] if part.space is None else [names[space] for space in part.space.tolist()]
            columns = (part.address.view(np.uint64), part.kind, part.size)
            accesses += zip(
                *(column.tolist() for column in columns), owner, part.thread.tolist(), strict=True
            )
    except InputError as error:
        return int(re.match(r"trace: record (\d+) at byte", str(error))[1])
    return accesses, source.notes.passed.total()


@settings(max_examples=200, deadline=None)
@given(
    body=st.lists(ENTRIES, max_size=40),
    piece=st.one_of(st.none(), st.integers(1, 100)),
    timed=st.booleans(),
)
def test_a_trace_is_read_as_the_slow_reader_reads_it(body, piece, timed):
    trace = dynamorio(b"".join(body))
    assert parsed(trace, piece, timed) == slow_dynamorio(trace)


@settings(max_examples=200, deadline=None)
@given(body=st.lists(st.one_of(ENTRIES, WILD), max_size=12), cut=st.integers(0, 30))
def test_a_record_that_cannot_be_is_refused_by_its_number(body, cut):
    trace = dynamorio(b"".join(body))
    trace = trace[: len(trace) - cut]
    assert parsed(trace) == slow_dynamorio(trace)


@pytest.mark.parametrize("room", range(16, 36))
def test_a_full_part_makes_way_for_the_next_one(room, monkeypatch):
    monkeypatch.setattr(reader, "RECORDS", room)
    bundle = entry(17, 8, int.from_bytes(bytes([15] * 8), "little"))
    body = b"".join([entry(10, 3, 0x401FF0), bundle, entry(0, 8, 0x1FFC), entry(1, 64, 0x1FFF)] * 9)
    trace = dynamorio(body)
    assert parsed(trace) == slow_dynamorio(trace)


@pytest.mark.parametrize("what", range(50))
def test_every_type_is_an_access_or_counted_or_tells_something(what):
    trace = dynamorio(entry(10, 4, 0x1000) + entry(what, 4, 0x2000))
    if what in (17, 25, 26):  # 17: a bundle of lengths 0, 32, 0, 0
        assert isinstance(parsed(trace), int)
        return
    accesses, passed = parsed(trace)
    access = what in FETCHED | {0, 1, 30}
    assert (len(accesses), passed) == ((2, 1) if access else (1, 1 + (what not in (22, 24))))


def test_an_instruction_that_is_repeated_is_fetched_once():
    again = [entry(30, 2, 0x1000), entry(30, 2, 0x1000), entry(0, 8, 0x5000), entry(30, 2, 0x1000)]
    trace = dynamorio(b"".join([*again, entry(30, 3, 0x1002), entry(30, 2, 0x1000)]))
    accesses, passed = parsed(trace)
    assert [each[:3] for each in accesses] == [
        (0x1000, 2, 2),
        (0x5000, 0, 8),
        (0x1002, 2, 3),
        (0x1000, 2, 2),
    ]
    assert passed == 3  # and the thread's end
    assert (accesses, passed) == slow_dynamorio(trace)


def test_a_bundle_without_lengths_is_refused():
    trace = dynamorio(entry(10, 4, 0x1000) + entry(17, 4, 0x2000))
    assert parsed(trace) == slow_dynamorio(trace) == 6


def test_what_is_passed_over_is_counted_by_name(tmp_path):
    body = [entry(3, 8, 1), entry(18, 8, 1), entry(20), entry(21), entry(27), entry(29, 2, 0x1000)]
    body += [
        entry(47, 3, 1),
        entry(10, 0, 0x1000),
        entry(10, 4, 0x1000),
        marker(15, 1),
        marker(2, 5),
        marker(40),
    ]
    (tmp_path / "t").write_bytes(dynamorio(b"".join(body), file_type=0x240))
    made = import_trace(tmp_path / "t", tmp_path / "t.parquet", limit=1)
    assert made.metadata == {
        "tool": "DynamoRIO drmemtrace",
        "version": 6,
        "file_type": "0x240",
        "architecture": "x86_64",
        "passed_over": {
            "prefetches": 1,
            "flushes of the instruction cache": 1,
            "flushes of the data cache": 2,
            "prefetches by hardware": 1,
            "instructions that were not fetched": 2,
            "encodings of instructions": 1,
            "markers: physical_address": 1,
            "markers: timestamp": 1,
            "markers of other kinds": 1,
            "ends of threads": 1,
        },
        "processes": {"0": 70},
        "format": "dynamorio",
        "source": "t",
        "skipped": 0,
    }


def test_all_that_is_counted_has_a_name():
    for what in COUNTED | {29}:
        assert len(type_words(what)) > 5
    assert [marker_words(what) for what in (0, 2, 36, 37)] == [
        "markers: kernel_event",
        "markers: timestamp",
        "markers: vector_length",
        "markers of other kinds",
    ]


@pytest.mark.parametrize("version", [0, 1, 8, 9, 1 << 40])
def test_a_version_that_is_not_known_is_refused_with_the_one_found(tmp_path, version):
    (tmp_path / "t").write_bytes(dynamorio(b"", version))
    text = (
        rf"record 0 at byte 0: .*type 25, value {version:#x}: this version is not known; accepted"
    )
    with pytest.raises(InputError, match=text):
        import_trace(tmp_path / "t", tmp_path / "out", "dynamorio")


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        (
            dynamorio(entry(50)),
            "record 5 at byte 60: 32 00 .*: type 50, value 0x0: its type is not known",
        ),
        (
            dynamorio(entry(0, 8, 1 << 47)),
            "record 5 at byte 60: .* value 0x800000000000: the address",
        ),
        (dynamorio(entry(0, 5000, 16)), "the size is above 4096"),
        (dynamorio(entry(17, 1, 5)), "a bundle of 1 to 8 instructions follows one"),
        (dynamorio(b"", file_type=0x20), "record 2 at byte 24: .*32-bit"),
        (dynamorio(entry(22, 0, 0)), "a thread or process that is not a number from 1"),
        (dynamorio(entry(24, 0, 1 << 32)), "a thread or process that is not a number from 1"),
        (entry(25, 0, 6) + entry(10, 3, 16), "an access before the records that tell its thread"),
        (
            dynamorio(b"") + entry(0, 8, 1),
            "record 7 at byte 84: .*begins with a header, of type 25",
        ),
        (dynamorio(b"")[:-12], "record 6 at byte 72: .*ends without a footer"),
        (
            dynamorio(b"")[:-5],
            "record 6 at byte 72: 1a 00 .*: 7 of 12 bytes: the record is cut off",
        ),
    ],
)
def test_the_message_has_number_place_and_content(tmp_path, trace, text):
    (tmp_path / "t").write_bytes(trace)
    with pytest.raises(InputError, match=text) as refused:
        import_trace(tmp_path / "t", tmp_path / "out", "dynamorio")
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_traces_one_after_the_other_are_read(tmp_path):
    one, two = (dynamorio(entry(10, 4, 0x1000), process=p, thread=p) for p in (5, 6))
    accesses, _ = parsed(one + two)
    assert accesses == [(0x1000, 2, 4, 5, 5), (0x1000, 2, 4, 6, 6)]


def test_a_filtered_trace_is_remarked_on(tmp_path):
    (tmp_path / "t").write_bytes(dynamorio(entry(0, 4, 0x1000), file_type=0x140))
    made = import_trace(tmp_path / "t", tmp_path / "out")
    assert made.metadata["remarks"] == [
        "the recorder left out accesses that hit a small cache (filtered)"
    ]


def write_threads(folder, traces):
    folder.mkdir()
    for number, trace in enumerate(traces):
        name = f"drmemtrace.app.{number:03}.trace"
        if number % 3 == 0:
            (folder / f"{name}.gz").write_bytes(gzip.compress(trace))
        elif number % 3 == 1:
            with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("chunk.0000", trace[:50])
                archive.writestr("chunk.0001", trace[50:])
        else:
            (folder / name).write_bytes(trace)


def segments(times, address):
    """A thread's body: at each time, a few reads of its own."""
    return b"".join(
        marker(2, time) + marker(3, 1) + entry(0, 8, address + 64 * turn) * (1 + turn % 3)
        for turn, time in enumerate(times)
    )


def slow_merge(bodies):
    """Reads of threads (address, thread) in the order of their times; of equal ones the first."""
    turns = []
    for thread, (times, address) in enumerate(bodies):
        latest = 0
        for turn, time in enumerate(times):
            reads = [(address + 64 * turn, thread + 1)] * (1 + turn % 3)
            turns.append([time, thread, turn, reads])
            latest = max(latest, time)
    order = []
    queues = [[turn for turn in turns if turn[1] == thread] for thread in range(len(bodies))]
    while any(queues):
        queue = min(
            (queue for queue in queues if queue), key=lambda queue: (queue[0][0], queue[0][1])
        )
        order += queue.pop(0)[3]
    return order


@settings(max_examples=25, deadline=None)
@given(
    times=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=5),
    ordered=st.booleans(),
)
def test_threads_are_interleaved_by_their_times(tmp_path_factory, times, ordered):
    tmp_path = tmp_path_factory.mktemp("threads")
    bodies = [
        (sorted(each) if ordered else each, 0x10000 * (thread + 1))
        for thread, each in enumerate(times)
    ]
    traces = [dynamorio(segments(*body), thread=number + 1) for number, body in enumerate(bodies)]
    write_threads(tmp_path / "trace", traces)
    (tmp_path / "raw").mkdir()
    (tmp_path / "trace" / "serial_schedule.bin.gz").write_bytes(b"")
    import_trace(tmp_path, tmp_path / "t.parquet")
    trace = open_trace(tmp_path / "t.parquet")
    part = next(trace.parts())
    assert list(zip(part.address.tolist(), part.thread.tolist(), strict=True)) == slow_merge(bodies)
    assert trace.metadata["files"] == len(times)
    assert trace.metadata["other_files"] == 1


def test_the_repeated_time_at_the_beginning_of_a_chunk_is_no_new_time(tmp_path):
    again = marker(21) + marker(22, 9) + marker(2, 10) + marker(3, 1)
    first = (
        marker(20, 100)
        + marker(2, 10)
        + marker(3)
        + entry(0, 8, 0x1000)
        + again
        + entry(0, 8, 0x1040)
    )
    write_threads(
        tmp_path / "f",
        [dynamorio(marker(2, 10) + entry(0, 8, 0x2000), thread=1), dynamorio(first, thread=2)],
    )
    # Had the repeat of 10 been taken for a time, nothing would change here: 10 is the first anyway.
    other = marker(2, 5) + entry(0, 8, 0x3000) + marker(2, 10) + entry(0, 8, 0x3040)
    write_threads(
        tmp_path / "g",
        [
            dynamorio(other, thread=1),
            dynamorio(first.replace(marker(2, 10), marker(2, 7)), thread=2),
        ],
    )
    made = {}
    for name in "fg":
        import_trace(tmp_path / name, tmp_path / "t.parquet")
        made[name] = next(open_trace(tmp_path / "t.parquet").parts()).address.tolist()
    assert made == {"f": [0x2000, 0x1000, 0x1040], "g": [0x3000, 0x1000, 0x1040, 0x3040]}


def test_a_repeated_time_that_lies_would_change_the_order(tmp_path):
    """The repeat is passed over even where its value is another one, as DynamoRIO does."""
    again = marker(21) + marker(22, 9) + marker(2, 50) + marker(3, 1)
    first = (
        marker(20, 100)
        + marker(2, 10)
        + marker(3)
        + entry(0, 8, 0x1000)
        + again
        + entry(0, 8, 0x1040)
    )
    second = marker(2, 20) + entry(0, 8, 0x2000)
    write_threads(tmp_path / "f", [dynamorio(first, thread=1), dynamorio(second, thread=2)])
    import_trace(tmp_path / "f", tmp_path / "t.parquet")
    part = next(open_trace(tmp_path / "t.parquet").parts())
    assert part.address.tolist() == [0x1000, 0x1040, 0x2000]


def test_many_threads_take_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.folder.MOST_FILES", 3)
    write_threads(tmp_path / "f", [dynamorio(entry(0, 8, 16))] * 4)
    with pytest.raises(InputError, match="holds 4 trace files; accepted: up to 3"):
        import_trace(tmp_path / "f", tmp_path / "t.parquet")


def test_a_folder_without_a_trace_is_refused(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(
        InputError, match="a folder without trace files; accepted: a folder with files"
    ):
        import_trace(tmp_path / "d", tmp_path / "t")
    with pytest.raises(InputError, match="is a folder; accepted: a file, or format 'dynamorio'"):
        import_trace(tmp_path / "d", tmp_path / "t", "lackey")
    with pytest.raises(InputError, match="dynamorio has no columns to name"):
        import_trace(tmp_path / "d", tmp_path / "t", columns={"address": "va"})
    (tmp_path / "d" / "raw").mkdir()
    with pytest.raises(InputError, match="no trace yet; let DynamoRIO make it: drrun"):
        import_trace(tmp_path / "d", tmp_path / "t")


def test_a_damaged_thread_is_named(tmp_path):
    write_threads(tmp_path / "f", [dynamorio(entry(0, 8, 16)), dynamorio(entry(99))])
    with pytest.raises(
        InputError, match=r"f/drmemtrace.app.001.trace.zip: record 5 at byte 60: 63 00"
    ):
        import_trace(tmp_path / "f", tmp_path / "t")


def test_a_small_buffer_reads_the_same(monkeypatch):
    monkeypatch.setattr(buffer, "CAPACITY", 24)
    body = b"".join(entry(0, 8, 64 * i) for i in range(1, 50))
    source = Source("t", b"", iter([dynamorio(body)]))
    thread = reader.Thread(source.pieces, "t", capacity=25)
    part = next(reader.read_threads([thread], source))
    assert part.address.tolist() == [64 * i for i in range(1, 50)]
