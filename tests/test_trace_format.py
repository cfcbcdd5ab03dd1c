import json
import os
import stat
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_samples import random_accesses

from mmu.errors import InputError
from mmu.trace import Compact, Raw, compact_trace, fold, open_trace, write_compact, write_raw
from mmu.trace.parquet import MOST_GROUP_RECORDS


def raw_parts(columns, cuts=()):
    address, kind, size, space = columns
    for begin, end in zip([0, *cuts], [*cuts, len(kind)], strict=True):
        part = slice(begin, end)
        yield Raw(address[part], kind[part], size[part], space[part])


def rewrite(path, metadata=None, **columns):
    """Write a native trace's table again with other columns or metadata."""
    file = pq.ParquetFile(path)
    table, header = file.read(), file.metadata.metadata[b"mmu trace"]
    file.close()
    for name, values in columns.items():
        table = table.drop_columns(name) if name in table.column_names else table
        table = table if values is None else table.append_column(name, pa.array(values))
    if metadata is not None:
        header = metadata(json.loads(header))
        header = header if isinstance(header, bytes) else json.dumps(header).encode()
    pq.write_table(table.replace_schema_metadata({b"mmu trace": header}), path)


@pytest.fixture
def raw_path(tmp_path):
    path = tmp_path / "sample.parquet"
    write_raw(path, raw_parts(random_accesses(1, 10_000)), {"command": "true", "skipped": 7})
    return path


@pytest.fixture
def compact_path(raw_path):
    path = raw_path.with_name("compact.parquet")
    compact_trace(raw_path, path)
    return path


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 9_000), max_size=4))
def test_what_is_written_raw_is_read_back(tmp_path_factory, seed, cuts):
    path = tmp_path_factory.mktemp("raw") / "t.parquet"
    columns = random_accesses(seed, 9_000, streams=3)
    header = write_raw(path, raw_parts(columns, sorted(cuts)))
    table = pq.read_table(path)
    for name, values in zip(("address", "kind", "size", "space"), columns, strict=True):
        assert np.array_equal(table[name].to_numpy(), values)
    kinds = np.bincount(columns[1], minlength=3)
    assert [header.reads, header.writes, header.fetches] == kinds.tolist()
    trace = open_trace(path)
    chunks = list(trace.chunks())
    assert np.array_equal(np.concatenate([c.address for c in chunks]), columns[0].view(np.int64))
    assert np.array_equal(np.concatenate([c.kind for c in chunks]), columns[1])


def test_a_trace_says_what_is_in_it(raw_path, compact_path):
    raw, compact = open_trace(raw_path), open_trace(str(compact_path))
    kinds = np.bincount(random_accesses(1, 10_000)[1])
    for trace in (raw, compact):
        assert [trace.reads, trace.writes, trace.fetches] == kinds.tolist()
        assert trace.accesses == 10_000
        assert trace.has_fetches
        assert trace.metadata == {"command": "true", "skipped": 7}
    assert (raw.name, raw.compact, raw.records) == ("sample", False, 10_000)
    assert (compact.name, compact.compact) == ("compact", True)
    assert compact.records < raw.records


def test_stored_types_are_those_of_the_format(raw_path, compact_path):
    raw, compact = pq.read_schema(raw_path), pq.read_schema(compact_path)
    types = dict(zip(raw.names, raw.types, strict=True))
    assert types == {
        "address": pa.uint64(), "kind": pa.uint8(), "size": pa.uint16(), "space": pa.uint16()
    }  # fmt: skip
    types = dict(zip(compact.names, compact.types, strict=True))
    assert types == {
        "page": pa.uint64(), "kind": pa.uint8(), "fetches": pa.uint16(), "reads": pa.uint16(),
        "writes": pa.uint16(), "order": pa.uint8(), "space": pa.uint16(),
    }  # fmt: skip


def test_pages_are_stored_without_sign_extension(tmp_path):
    write_raw(tmp_path / "r", [Raw(np.array([-1, -(1 << 47)]), np.array([0, 0], np.uint8))])
    compact_trace(tmp_path / "r", tmp_path / "c")
    assert pq.read_table(tmp_path / "c")["page"].to_pylist() == [(1 << 52) - 1, 0xFFFF800000000]
    (chunk,) = open_trace(tmp_path / "c").chunks()
    assert chunk.address.tolist() == [-4096, -(1 << 47)]


def test_row_groups_do_not_depend_on_how_the_parts_were_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.writer.GROUP_RECORDS", 4000)
    columns = random_accesses(5, 10_000)
    for name, cuts in (("one", ()), ("many", (1, 3999, 4001, 9000))):
        write_raw(tmp_path / name, raw_parts(columns, cuts))
        file = pq.ParquetFile(tmp_path / name)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        file.close()
        assert groups == [4000, 4000, 2000]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()


def test_parts_may_reuse_their_arrays(tmp_path):
    def parts():
        address, kind = np.zeros(100, np.int64), np.zeros(100, np.uint8)
        for number in range(50):
            address[:] = number << 12
            yield Raw(address, kind)

    write_raw(tmp_path / "t", parts())
    assert pq.read_table(tmp_path / "t")["address"].to_numpy()[::100].tolist() == [
        number << 12 for number in range(50)
    ]


def test_a_file_of_another_tool_is_read_as_raw_and_counted(tmp_path):
    address, kind, size, space = random_accesses(2, 9_000, streams=2)
    columns = {"address": address.view(np.int64), "kind": kind.astype(np.int64), "space": space}
    pq.write_table(pa.table(columns | {"size": size}), tmp_path / "other.parquet")
    trace = open_trace(tmp_path / "other.parquet")
    assert not trace.compact
    assert trace.metadata == {}
    assert [trace.reads, trace.writes, trace.fetches] == np.bincount(kind).tolist()
    chunks = list(trace.chunks())
    assert np.array_equal(np.concatenate([c.address for c in chunks]), address.view(np.int64))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"kind": [0]}, "no column 'address'"),
        ({"address": [1]}, "no column 'kind'"),
        ({"address": [1.5], "kind": [0]}, "'address' is double"),
        ({"address": [float("nan")], "kind": [0]}, "'address' is double"),
        ({"address": ["0x1"], "kind": [0]}, "'address' is string"),
        ({"address": [1], "kind": [0], "pc": [3]}, "unknown or repeated column 'pc'"),
        ({"address": [1, None], "kind": [0, 0]}, "record 1: address is missing"),
        ({"address": [1, 2], "kind": [0, 300]}, "record 1: kind 300"),
        ({"address": [1, 2], "kind": [0, -1]}, "record 1: kind -1"),
        ({"address": [1, 2], "kind": [0, 3]}, "record 1: kind 3; accepted: 0 (read)"),
        ({"address": [1, 1 << 47], "kind": [0, 0]}, "record 1: address 0x800000000000"),
        ({"address": [0, 4090], "kind": [0, 0], "size": [8, 7]}, "record 1: 7 bytes at 0xffa"),
        ({"address": [1], "kind": [0], "space": [70_000]}, "record 0: space 70000"),
    ],
)
def test_a_file_of_another_tool_that_is_no_trace_is_refused(tmp_path, columns, text):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError) as refused:
        list(open_trace(path).chunks())
    assert text in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"metadata": lambda h: h | {"version": 2}}, "version 2"),
        ({"metadata": lambda h: h | {"layout": "folded"}}, "layout 'folded'"),
        ({"metadata": lambda h: h | {"accesses": -1}}, "do not add up"),
        ({"metadata": lambda h: h | {"reads": h["reads"] + 1}}, "do not add up"),
        ({"metadata": lambda h: h | {"records": 3}}, "do not add up"),
        ({"metadata": lambda h: h | {"accesses": 1 << 70, "reads": 1 << 70}}, "do not add up"),
        ({"metadata": lambda h: h | {"records": 9_999, "layout": "compact"}}, "no column 'page'"),
        ({"metadata": lambda h: b"{"}, "damaged"),
        ({"metadata": lambda h: b"[1]"}, "damaged"),
        ({"metadata": lambda h: b"\xff\xfe"}, "damaged"),
        ({"metadata": lambda h: b"[" * 100_000}, "damaged"),
        ({"metadata": lambda h: {k: v for k, v in h.items() if k != "layout"}}, "damaged"),
        ({"extra": np.zeros(10_000)}, "column 'extra'"),
        ({"kind": None}, "no column 'kind'"),
        ({"size": None}, "no column 'size'"),
        ({"kind": np.zeros(10_000, np.int64)}, "'kind' is int64; accepted: address uint64"),
    ],
)
def test_a_native_trace_with_wrong_metadata_or_columns_is_refused(raw_path, change, text):
    rewrite(raw_path, **change)
    with pytest.raises(InputError) as refused:
        open_trace(raw_path)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


def test_counts_that_the_records_do_not_confirm_are_refused(raw_path):
    def swap(header):
        return header | {"reads": header["fetches"], "fetches": header["reads"]}

    rewrite(raw_path, metadata=swap)
    with pytest.raises(InputError, match="its metadata say"):
        list(open_trace(raw_path).chunks())


def test_counts_of_reads_and_writes_are_confirmed_as_well(raw_path):
    def swap(header):
        return header | {"reads": header["writes"], "writes": header["reads"]}

    rewrite(raw_path, metadata=swap)
    with pytest.raises(InputError, match="its metadata say"):
        list(open_trace(raw_path).chunks())


def test_a_file_that_changes_after_it_was_opened_is_refused(raw_path):
    trace = open_trace(raw_path)
    write_raw(raw_path, raw_parts(random_accesses(1, 9_999)))
    with pytest.raises(InputError, match="has changed"):
        list(trace.chunks())


def test_an_empty_trace_is_refused(tmp_path):
    pq.write_table(pa.table({"address": pa.array([], pa.uint64()), "kind": pa.array([], pa.uint8())}),
                   tmp_path / "t")  # fmt: skip
    with pytest.raises(InputError, match="without records"):
        open_trace(tmp_path / "t")


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no such file"):
        open_trace(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="not a regular file"):
        open_trace(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        open_trace(tmp_path / "pipe")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" * 10, b"I  0401ab70,3\n" * 99, bytes(5000)]
)
def test_a_file_that_is_not_parquet_is_refused(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(InputError, match="not a Parquet file that can be read"):
        open_trace(tmp_path / "t")


def test_a_row_group_too_large_to_be_held_is_refused(tmp_path):
    # Zeros: 256 MiB of them are a few kilobytes in the file, as a hostile file would have them.
    rows = MOST_GROUP_RECORDS + 1000
    zeros = pa.array(np.zeros(rows, np.uint64))
    table = pa.table({"address": zeros, "kind": pa.array(np.zeros(rows, np.uint8))})
    pq.write_table(
        table, tmp_path / "t", row_group_size=rows, use_dictionary=False, compression="zstd"
    )
    with pytest.raises(InputError, match="row group"):
        open_trace(tmp_path / "t")


@pytest.mark.parametrize("statistics", [True, False])
def test_any_damaged_byte_of_a_foreign_footer_is_refused_or_harmless(tmp_path, statistics):
    """PyArrow ends the process where it is asked for a damaged column's size."""
    table = pa.table({"address": pa.array(range(20), pa.uint64()), "kind": [0] * 20})
    pq.write_table(table, tmp_path / "t", write_statistics=statistics)
    whole = (tmp_path / "t").read_bytes()
    begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in range(begin, len(whole)):
        (tmp_path / "t").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with suppress(InputError):
            trace = open_trace(tmp_path / "t")
            assert sum(len(part.kind) for part in trace.parts()) == trace.records


@pytest.mark.parametrize(
    "recording",
    ["[[1, 2]]", '{"a": NaN}', '{"a": ' + "[" * 900 + "]" * 900 + "}", '"text"', "7"],
    ids=str.__len__,
)
def test_metadata_that_could_not_be_written_again_are_damaged(tmp_path, recording):
    write_raw(tmp_path / "t", raw_parts(random_accesses(1, 10)), {"command": "true"})
    table = pq.read_table(tmp_path / "t")
    said = pq.read_metadata(tmp_path / "t").metadata[b"mmu trace"]
    said = said.replace(b'{"command": "true"}', recording.encode())
    pq.write_table(table.replace_schema_metadata({b"mmu trace": said}), tmp_path / "u")
    with pytest.raises(InputError, match="are damaged"):
        open_trace(tmp_path / "u")


PAGE = np.array([5, 5, 6], np.uint64)
GOOD = {
    "page": [5, 5, 6], "kind": [2, 0, 1], "fetches": [3, 1, 0], "reads": [0, 2, 0],
    "writes": [0, 0, 4], "order": [0, 0, 2],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": [2, 3, 1]}, "record 1: kind 3"),
        ({"page": [5, 1 << 35, 6]}, "record 1: page 0x800000000 is not canonical (bits 51:35"),
        ({"page": [5, 1 << 52, 6]}, "record 1: page 0x10000000000000 is not canonical"),
        ({"fetches": [4096, 1, 0]}, "record 0: its accesses overrun"),
        ({"fetches": [4090, 1, 0]}, "record 2: its accesses overrun"),
        ({"kind": [0, 2, 1]}, "record 0: it counts folded"),
        ({"writes": [0, 1, 4]}, "record 1: it counts folded"),
        ({"kind": [2, 0, 0]}, "record 2: it counts folded"),
        ({"reads": [0, 2, 1], "order": [0, 0, 0]}, "record 2: it counts folded"),
        ({"order": [0, 4, 2]}, "record 1: `order`"),
        ({"order": [1, 0, 2]}, "record 0: `order`"),
        ({"order": [0, 2, 2]}, "record 1: `order`"),
        ({"order": [0, 0, 0]}, "record 2: `order`"),
    ],
)
def test_a_compact_record_that_cannot_be_is_refused(tmp_path, change, text):
    def columns(values):
        types = (np.uint64, np.uint8, np.uint16, np.uint16, np.uint16, np.uint8)
        return Compact(*(np.array(v, t) for v, t in zip(values.values(), types, strict=True)))

    write_compact(tmp_path / "good", [columns(GOOD)])
    assert open_trace(tmp_path / "good").accesses == 13
    with pytest.raises(InputError) as refused:
        write_compact(tmp_path / "bad", [columns(GOOD | change)])
    assert text in str(refused.value)
    assert not (tmp_path / "bad").exists()
    stored = dict(columns(GOOD | change)._asdict())
    rewrite(tmp_path / "good", **{name: v for name, v in stored.items() if v is not None})
    with pytest.raises(InputError) as refused:
        list(open_trace(tmp_path / "good").chunks())
    assert text in str(refused.value)


def test_a_fold_that_crosses_a_block_end_is_refused(tmp_path):
    whole = list(fold(raw_parts(random_accesses(3, 9_000))))
    part = Compact(*(None if c[0] is None else np.concatenate(c) for c in zip(*whole, strict=True)))
    write_compact(tmp_path / "good", [part])
    part.fetches[part.kind == 2] += 1
    with pytest.raises(InputError, match=r"record \d+: its accesses overrun the block"):
        write_compact(tmp_path / "bad", [part])


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Raw(np.array([0.5]), np.array([0])), "address is float64"),
        (Raw(np.array([1 << 50]), np.array([0])), "record 0: address 0x4000000000000 is not"),
        (Raw(np.array([1]), np.array([3])), "record 0: kind 3"),
        (Raw(np.array([1]), np.array([0, 1])), "unequal length"),
        (Raw(np.array([[1]]), np.array([0])), "whole numbers"),
        (Raw(np.array([1]), np.array([0]), np.array([1 << 16])), "record 0: size 65536"),
        (Raw(np.array([4095]), np.array([0]), np.array([2])), "cross a 4 KiB boundary"),
    ],
)
def test_a_record_that_cannot_be_is_not_written(tmp_path, part, text):
    with pytest.raises(InputError) as refused:
        write_raw(tmp_path / "t", [part])
    assert text in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_a_refused_record_counts_the_parts_before_it(tmp_path):
    good = Raw(np.zeros(5000, np.int64), np.zeros(5000, np.uint8))
    bad = Raw(np.zeros(9, np.int64), np.array([0] * 8 + [9], np.uint8))
    with pytest.raises(InputError, match="record 5008: kind 9"):
        write_raw(tmp_path / "t", [good, bad])


def test_parts_with_different_columns_are_refused(tmp_path):
    one = Raw(np.zeros(5, np.int64), np.zeros(5, np.uint8))
    with pytest.raises(InputError, match="same columns"):
        write_raw(tmp_path / "t", [one, one._replace(space=np.zeros(5, np.uint16))])
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_write_is_refused(tmp_path):
    empty = Raw(np.zeros(0, np.int64), np.zeros(0, np.uint8))
    for parts in ([], [empty]):
        with pytest.raises(InputError, match="no record"):
            write_raw(tmp_path / "t", parts)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_and_nothing_else(raw_path):
    before = raw_path.read_bytes()

    def parts():
        yield from raw_parts(random_accesses(9, 5000))
        assert len(list(raw_path.parent.iterdir())) == 2  # the old file and the one in the making
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_raw(raw_path, parts())
    assert raw_path.read_bytes() == before
    assert list(raw_path.parent.iterdir()) == [raw_path]


def test_a_new_trace_has_the_permissions_of_any_new_file(raw_path):
    (raw_path.parent / "other").touch()
    assert stat.S_IMODE(raw_path.stat().st_mode) == stat.S_IMODE(
        (raw_path.parent / "other").stat().st_mode
    )


def test_a_target_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    def never():
        raise AssertionError("read")
        yield

    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for target in ("missing/t", "file/t", ".", "pipe", "x" * 300):
        with pytest.raises(InputError, match="cannot be written"):
            write_raw(tmp_path / target, never())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_raw(tmp_path / "t", raw_parts(random_accesses(1, 100)))
    assert list(tmp_path.iterdir()) == []


def test_a_compact_trace_is_not_compacted_again(compact_path):
    with pytest.raises(InputError, match="compact already"):
        compact_trace(compact_path, compact_path.with_name("again"))


def test_a_trace_may_be_compacted_onto_itself(raw_path, compact_path):
    compact_trace(raw_path, raw_path)
    assert raw_path.read_bytes() == compact_path.read_bytes()


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, mmu.trace; from mmu.trace import READ, BLOCK;"
        "print([m for m in ('numpy', 'pyarrow', 'numba') if m in sys.modules], hasattr(mmu.trace, 'x'))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[] False\n"


def test_a_header_with_another_number_of_records_is_refused(compact_path):
    rewrite(compact_path, metadata=lambda header: header | {"records": header["records"] - 1})
    with pytest.raises(InputError, match="claims another number"):
        open_trace(compact_path)


def test_what_is_known_of_a_recording_must_be_writable_before_anything_is_read(tmp_path):
    with pytest.raises(TypeError, match="JSON"):
        write_raw(tmp_path / "t", iter(()), {"command": object()})
