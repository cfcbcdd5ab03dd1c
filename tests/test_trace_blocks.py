import os
import subprocess
import sys
import threading
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_samples import random_accesses, slow_blocks, slow_fold

from mmu.errors import InputError
from mmu.trace import Compact, Raw, compact_trace, fold, open_trace, write_compact, write_raw
from mmu.trace.blocks import cut_compact, cut_raw

SEEDS = st.integers(0, 2**32)
SIGNATURE = {
    "address": np.int64, "kind": np.uint8, "fetches": np.uint16, "reads": np.uint16,
    "writes": np.uint16, "order": np.uint8, "first": np.int64, "space": np.int64,
    "accesses": np.int64, "instructions": np.int64, "data": np.int64,
}  # fmt: skip


def raw(columns):
    return Raw(*columns)


def written(folder, columns, compact, name="t.parquet"):
    if compact:
        write_compact(folder / name, fold([raw(columns)]))
    else:
        write_raw(folder / name, [raw(columns)])
    return open_trace(folder / name)


def joined(chunks):
    """All chunks as one, with the first records of blocks counted from the beginning."""
    starts = np.cumsum([0] + [len(c.kind) for c in chunks])
    fields = {
        name: np.concatenate([getattr(c, name) for c in chunks])
        for name in SIGNATURE
        if name != "first"
    }
    first = [c.first[:-1] + start for c, start in zip(chunks, starts, strict=False)]
    return fields | {"first": np.concatenate([*first, starts[-1:]])}


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.sampled_from([1, 4095, 4096, 4097, 9001]), streams=st.integers(1, 3))
def test_blocks_are_cut_as_the_slow_way_cuts_them(tmp_path_factory, seed, count, streams):
    folder = tmp_path_factory.mktemp("blocks")
    columns = random_accesses(seed, count, streams=streams)
    _, kind, _, space = columns
    expected = slow_blocks(kind, space)
    for compact in (False, True):
        found = joined(list(written(folder, columns, compact).chunks()))
        assert found["accesses"].tolist() == [len(block) for block in expected]
        assert found["space"].tolist() == [space[block[0]] for block in expected]
        fetches = [int(np.count_nonzero(kind[block] == 2)) for block in expected]
        assert found["data"].tolist() == [
            len(block) - fetched for block, fetched in zip(expected, fetches, strict=True)
        ]
        if kind.max() == 2:
            assert found["instructions"].tolist() == fetches
        if not compact:
            assert found["first"].tolist() == [block[0] for block in expected] + [count]


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, streams=st.integers(1, 2), pages=st.integers(1, 30), fetches=st.booleans())
def test_folding_equals_the_slow_folding(tmp_path_factory, seed, streams, pages, fetches):
    folder = tmp_path_factory.mktemp("fold")
    columns = random_accesses(seed, 9_500, pages, streams, fetches)
    trace = written(folder, columns, compact=True)
    table = pq.read_table(trace.path)
    names = ("page", "kind", "fetches", "reads", "writes", "order", "space")
    found = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    address, kind, _, space = columns
    assert found == slow_fold(address, kind, space)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, cuts=st.lists(st.integers(0, 9_000), max_size=6))
def test_folding_does_not_depend_on_how_the_parts_are_cut(seed, cuts):
    columns = random_accesses(seed, 9_000, streams=2)
    edges = [0, *sorted(cuts), 9_000]
    parts = [Raw(*(column[begin:end] for column in columns)) for begin, end in pairwise(edges)]

    def whole(pieces):
        columns = zip(*pieces, strict=True)
        return Compact(*(None if c[0] is None else np.concatenate(c).tolist() for c in columns))

    assert whole(fold(parts)) == whole(fold([raw(columns)]))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, fetches=st.booleans())
def test_a_compact_trace_counts_as_its_raw_one(tmp_path_factory, seed, fetches):
    folder = tmp_path_factory.mktemp("counts")
    columns = random_accesses(seed, 10_000, streams=2, fetches=fetches)
    plain = written(folder, columns, compact=False, name="raw")
    packed = written(folder, columns, compact=True, name="compact")
    for count in ("accesses", "fetches", "reads", "writes", "has_fetches"):
        assert getattr(plain, count) == getattr(packed, count)
    one, other = joined(list(plain.chunks())), joined(list(packed.chunks()))
    for name in ("space", "accesses", "instructions", "data"):
        assert one[name].tolist() == other[name].tolist()
    folded = sum(int(other[name].sum()) for name in ("fetches", "reads", "writes"))
    assert packed.records + folded == plain.accesses


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, records=st.integers(1, 9_000), compact=st.booleans())
def test_small_chunks_hold_what_a_large_one_holds(tmp_path_factory, seed, records, compact):
    folder = tmp_path_factory.mktemp("chunks")
    trace = written(folder, random_accesses(seed, 20_000, streams=2), compact)
    (large,) = trace.chunks(1 << 20)
    small = list(trace.chunks(records))
    assert compact or len(small) > 1
    assert max(len(c.kind) for c in small) < max(records, 4096) + 4096
    one, other = joined([large]), joined(small)
    for name in SIGNATURE:
        assert np.array_equal(one[name], other[name]), name


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("streams", [1, 3])
def test_chunks_are_plain_arrays_of_one_kind(tmp_path, compact, streams):
    trace = written(tmp_path, random_accesses(4, 20_000, streams=streams), compact)
    for chunk in [*trace.chunks(1), *trace.chunks()]:
        assert chunk.first[0] == 0
        assert chunk.first[-1] == len(chunk.kind) == len(chunk.address)
        for name, wanted in SIGNATURE.items():
            array = getattr(chunk, name)
            assert array.dtype == wanted
            assert array.ndim == 1
            assert array.flags.c_contiguous
            assert array.flags.writeable
        folded = {len(getattr(chunk, name)) for name in ("fetches", "reads", "writes", "order")}
        assert folded == {len(chunk.kind) if compact else 0}


def test_chunks_of_all_files_are_cut_by_one_compiled_kernel(tmp_path):
    for streams in (1, 2):
        columns = random_accesses(4, 9_000, streams=streams)
        for compact in (False, True):
            list(written(tmp_path, columns, compact).chunks())
    pq.write_table(
        pa.table({"address": columns[0].view(np.int64), "kind": columns[1]}), tmp_path / "o"
    )
    list(open_trace(tmp_path / "o").chunks())
    for kernel in (cut_raw, cut_compact):
        if hasattr(kernel, "signatures"):  # not where the compiler is turned off
            assert len(kernel.signatures) == 1


def test_without_fetches_an_access_is_an_instruction(tmp_path):
    trace = written(tmp_path, random_accesses(4, 9_000, fetches=False), compact=True)
    (chunk,) = trace.chunks()
    assert not trace.has_fetches
    assert chunk.instructions.tolist() == chunk.data.tolist() == [4096, 4096, 808]


def test_a_change_of_thread_ends_a_block_too(tmp_path):
    thread = np.repeat(np.array([7, 1 << 31, 7], np.uint32), [100, 5000, 1])
    address = np.zeros(5101, np.int64)
    write_raw(tmp_path / "t", [Raw(address, np.zeros(5101, np.uint8), thread=thread)])
    compact_trace(tmp_path / "t", tmp_path / "c")
    for name in ("t", "c"):
        (chunk,) = open_trace(tmp_path / name).chunks()
        assert chunk.accesses.tolist() == [100, 4096, 904, 1]
        assert chunk.space.tolist() == [0] * 4
    assert pq.read_table(tmp_path / "c")["thread"].to_pylist() == [7, 1 << 31, 1 << 31, 7]


@pytest.mark.parametrize(
    ("accesses", "records"),
    [
        # one side's run is folded over what the other side does between
        ("f1 f1 r2 f1 r2", ["f1 f1 r0 w0 o0", "r2 f1 r1 w0 o0"]),
        # another page on the same side ends it
        ("r1 r2 r1", ["r1 f0 r0 w0 o0", "r2 f0 r0 w0 o0", "r1 f0 r0 w0 o0"]),
        # a kind not seen since the page became the last is a record of its own
        ("r1 w1 r1 w1", ["r1 f0 r0 w0 o0", "w1 f0 r1 w1 o0"]),
        ("r1 w1 w1 r1", ["r1 f0 r0 w0 o0", "w1 f0 r1 w1 o2"]),
        # fetches of a page say nothing of its data side
        ("f1 r1 f1", ["f1 f0 r0 w0 o0", "r1 f1 r0 w0 o0"]),
        ("f1 w1 w1 f1", ["f1 f0 r0 w0 o0", "w1 f1 r0 w1 o3"]),
        ("f1 r1 r1 f1", ["f1 f0 r0 w0 o0", "r1 f1 r1 w0 o1"]),
        ("f1 r1 f1 r1", ["f1 f0 r0 w0 o0", "r1 f1 r1 w0 o0"]),
    ],
)
def test_what_is_folded_into_what(accesses, records):
    kinds = {"r": 0, "w": 1, "f": 2}
    address = np.array([int(word[1]) << 12 for word in accesses.split()])
    kind = np.array([kinds[word[0]] for word in accesses.split()], np.uint8)
    (made,) = fold([Raw(address, kind)])
    found = [
        f"{'rwf'[made.kind[i]]}{made.page[i]} f{made.fetches[i]} r{made.reads[i]} "
        f"w{made.writes[i]} o{made.order[i]}"
        for i in range(len(made.kind))
    ]
    assert found == records


@pytest.mark.slow
def test_a_long_trace_is_read_in_bounded_memory(tmp_path):
    address = np.zeros(1 << 20, np.int64)
    kind = np.zeros(1 << 20, np.uint8)
    write_raw(tmp_path / "t", (Raw(address, kind) for _ in range(12)))  # 132 MB once unpacked
    most = 0
    for chunk in open_trace(tmp_path / "t").chunks(1 << 16):
        most = max(most, pa.total_allocated_bytes())
        assert len(chunk.kind) < 1 << 17
    assert most < 40 << 20


def test_a_trace_that_is_not_read_to_its_end_lets_go_of_its_file(tmp_path):
    trace = written(tmp_path, random_accesses(1, 20_000), compact=False)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    chunks = trace.chunks(1)
    next(chunks)
    chunks.close()
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_a_program_may_end_in_the_middle_of_a_trace(tmp_path):
    path = written(tmp_path, random_accesses(1, 20_000), compact=False).path
    code = (
        "import sys; from mmu.trace import open_trace\n"
        "chunks = open_trace(sys.argv[1]).chunks(1); print(len(next(chunks).kind))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert (found.stdout, found.stderr) == ("4096\n", "")


def test_a_fault_is_raised_where_the_chunks_are_asked_for(tmp_path):
    kind = np.zeros(20_000, np.int64)
    kind[19_000] = 3
    table = pa.table({"address": np.zeros(20_000, np.int64), "kind": kind})
    pq.write_table(table, tmp_path / "t")
    chunks = open_trace(tmp_path / "t").chunks(4096)
    assert len([next(chunks) for _ in range(4)]) == 4
    with pytest.raises(InputError, match="record 19000: kind 3"):
        next(chunks)
