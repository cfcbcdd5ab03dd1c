import bz2
import gzip
import io
import lzma
import os
import sys
import threading
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmu.errors import InputError
from mmu.trace import compact_trace, import_lackey, import_trace, info, open_trace
from mmu.trace import decompress as unpacking

HEAD = "==42== Using Valgrind-3.19.0 and LibVEX\n==42== Command: /bin/sort -n a,b\n==42== \n"


def log(count, seed=0):
    """Text of `count` accesses, one a line."""
    random = np.random.default_rng(seed)
    marks = random.choice(["I ", " L", " S"], count, p=[0.7, 0.2, 0.1])
    addresses = random.integers(0, 64, count) * (1 << 17) + random.integers(0, 4000, count)
    lines = [f"{mark} {address:08x},4\n" for mark, address in zip(marks, addresses, strict=True)]
    return (HEAD + "".join(lines)).encode()


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


def lz4(data):
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "lz4") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


def zipped(data):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log", data)
    return packed.getvalue()


PACKERS = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zstd": zstd,
    "lz4": lz4,
    "zip": zipped,
}
PACKED = [name for name in PACKERS if name != "plain"]
STREAMS = [name for name in PACKED if name != "zip"]  # of which one may follow the other


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "log").write_bytes(log(6000))
    import_lackey(tmp_path / "log", tmp_path / "plain.parquet")
    return pq.read_table(tmp_path / "plain.parquet")


@pytest.mark.parametrize("packer", PACKERS)
def test_a_packed_log_is_known_by_its_content(tmp_path, plain, packer):
    (tmp_path / "log.txt").write_bytes(PACKERS[packer](log(6000)))
    trace = import_trace(tmp_path / "log.txt", tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").equals(plain)
    assert trace.accesses == 6000
    assert trace.metadata == {
        "tool": "valgrind --tool=lackey --trace-mem=yes",
        "tool_version": "3.19.0",
        "command": "/bin/sort -n a,b",
        "passed_over": {"valgrind's messages and empty lines": 3},
        "format": "lackey",
        "source": "log.txt",
        "skipped": 0,
    }


@pytest.mark.parametrize("packer", STREAMS)
def test_a_log_packed_in_several_streams_is_read_to_its_end(tmp_path, plain, packer):
    text = log(6000)
    packed = PACKERS[packer](text[:1000]) + PACKERS[packer](text[1000:])
    (tmp_path / "log").write_bytes(packed)
    import_lackey(tmp_path / "log", tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").equals(plain)


@pytest.mark.parametrize("packer", PACKED)
@pytest.mark.parametrize("keep", [0.5, 0.99, 20])
def test_a_packed_log_that_is_cut_off_is_refused(tmp_path, packer, keep):
    packed = PACKERS[packer](log(6000))
    (tmp_path / "log").write_bytes(packed[: int(keep * len(packed)) if keep < 1 else keep])
    with pytest.raises(InputError, match=r"log: \w+ data that cannot be read: "):
        import_lackey(tmp_path / "log", tmp_path / "t.parquet")
    assert os.listdir(tmp_path) == ["log"]


@pytest.mark.parametrize("packer", PACKED)
def test_a_packed_log_followed_by_rubbish_is_refused(tmp_path, packer):
    (tmp_path / "log").write_bytes(PACKERS[packer](log(6000)) + b"rubbish that goes on for a while")
    with pytest.raises(InputError, match="cannot be read"):
        import_lackey(tmp_path / "log", tmp_path / "t.parquet")
    assert os.listdir(tmp_path) == ["log"]


@pytest.mark.parametrize("packer", PACKED)
def test_a_damaged_packed_log_never_becomes_another_trace(tmp_path, plain, packer):
    packed = PACKERS[packer](log(6000))
    random = np.random.default_rng(7)
    refused = 0
    for place in random.integers(0, len(packed), 25):
        broken = bytearray(packed)
        broken[place] ^= 1 << int(random.integers(8))
        (tmp_path / "log").write_bytes(broken)
        try:
            import_lackey(tmp_path / "log", tmp_path / "t.parquet")
        except InputError:
            refused += 1
        else:  # a bit that does not matter, such as gzip's time; these two have no checksum here
            assert packer in ("zstd", "lz4") or pq.read_table(tmp_path / "t.parquet").equals(plain)
            (tmp_path / "t.parquet").unlink()
    assert refused > 5
    assert sorted(os.listdir(tmp_path)) == ["log", "plain.parquet"]


def test_an_xz_file_that_wants_all_memory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "log").write_bytes(lzma.compress(log(100), preset=9))
    monkeypatch.setattr(unpacking, "XZ_MEMORY", 16 << 20)
    with pytest.raises(InputError, match="xz data that cannot be read"):
        import_lackey(tmp_path / "log", tmp_path / "t.parquet")


def test_standard_input_is_read(tmp_path, plain, monkeypatch):
    data = io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(log(6000)))))
    monkeypatch.setattr(sys, "stdin", data)
    trace = import_trace("-", tmp_path / "t.parquet")
    assert pq.read_table(tmp_path / "t.parquet").equals(plain)
    assert trace.metadata["source"] == "standard input"


def test_a_pipe_is_read(tmp_path, plain):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[log(6000)])
    writer.start()
    import_trace(tmp_path / "pipe", tmp_path / "t.parquet")
    writer.join()
    assert pq.read_table(tmp_path / "t.parquet").equals(plain)


def test_importing_compact_is_importing_and_compacting(tmp_path, plain):
    compact_trace(tmp_path / "plain.parquet", tmp_path / "two.parquet")
    import_lackey(tmp_path / "log", tmp_path / "one.parquet", compact=True)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


@pytest.mark.parametrize(("skip", "limit"), [(0, 1), (10, 4096), (5990, 100), (5999, None)])
def test_a_window_of_the_log_is_kept(tmp_path, plain, skip, limit):
    made = import_lackey(tmp_path / "log", tmp_path / "t.parquet", skip=skip, limit=limit)
    assert pq.read_table(tmp_path / "t.parquet").equals(plain.slice(skip, limit))
    assert made.metadata["skipped"] == skip


def test_what_follows_the_window_is_not_read(tmp_path):
    (tmp_path / "log").write_bytes(log(2_000_000 // 12) + b"rubbish\n" * 200_000)
    assert import_lackey(tmp_path / "log", tmp_path / "t.parquet", limit=10).accesses == 10


@pytest.mark.parametrize(
    ("skip", "limit", "text"),
    [
        (6000, None, "holds 6000 accesses, and 6,000 are to be skipped"),
        (-1, None, "skips -1"),
        (0, 0, "keeps 0"),
    ],
)
def test_a_window_that_holds_nothing_is_refused(tmp_path, plain, skip, limit, text):
    with pytest.raises(InputError) as refused:
        import_lackey(tmp_path / "log", tmp_path / "t.parquet", skip=skip, limit=limit)
    assert text in str(refused.value)


def test_progress_is_told(tmp_path, plain):
    told = []
    import_trace(tmp_path / "log", tmp_path / "t.parquet", progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 6000


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty; accepted: lackey, din"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"9 1234\n1 5678\n", "begins with '9 1234', no format that is known; accepted: lackey"),
        (b"PAR1xxxx", "is Parquet, which needs no import"),
        (bytes(1000), "no format that is known"),
        (b"==1== Lackey\n", "holds no accesses but 1 valgrind's messages and empty lines"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, content, text):
    (tmp_path / "log").write_bytes(content)
    with pytest.raises(InputError) as refused:
        import_trace(tmp_path / "log", tmp_path / "t.parquet")
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    assert os.listdir(tmp_path) == ["log"]


def test_an_unknown_format_is_refused(tmp_path):
    (tmp_path / "log").write_bytes(log(5))
    with pytest.raises(InputError, match="format 'dim' is not known; accepted: lackey"):
        import_trace(tmp_path / "log", tmp_path / "t", format="dim")


def test_a_missing_log_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        import_trace(tmp_path / "none", tmp_path / "t")
    with pytest.raises(InputError, match="is a folder without trace files"):
        import_trace(tmp_path, tmp_path / "t")


def test_a_bad_line_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.lines.RECORDS", 1000)
    monkeypatch.setattr("mmu.trace.writer.GROUP_RECORDS", 3000)  # some of it has been written
    (tmp_path / "log").write_bytes(log(8000) + b"oops\n")
    with pytest.raises(InputError, match=r"log: line 8004: 'oops': not a lackey record"):
        import_trace(tmp_path / "log", tmp_path / "t")
    assert os.listdir(tmp_path) == ["log"]


def test_a_summary_counts_pages_spaces_and_blocks(tmp_path, plain):
    found = info(tmp_path / "plain.parquet")
    address = plain["address"].to_numpy()
    assert found["accesses"] == found["records"] == 6000
    assert found["pages"] == len(np.unique(address >> np.uint64(12)))
    assert found["large_pages"] == len(np.unique(address >> np.uint64(21)))
    assert (found["blocks"], found["spaces"], found["threads"]) == (2, 1, 1)
    assert found["layout"] == "raw"
    assert found["file_bytes"] == (tmp_path / "plain.parquet").stat().st_size
    compact_trace(tmp_path / "plain.parquet", tmp_path / "c.parquet")
    packed = info(tmp_path / "c.parquet")
    assert packed["fold"] == 6000 / packed["records"] > 1
    same = ("accesses", "fetches", "reads", "writes", "pages", "large_pages", "blocks", "recording")
    assert [packed[name] for name in same] == [found[name] for name in same]


def test_pages_of_different_spaces_are_different_pages(tmp_path):
    columns = {
        "address": np.array([0, 1 << 21, 0, -4096, -4096]),
        "kind": np.zeros(5, np.uint8),
        "space": np.array([0, 0, 1, 1, 1]),
        "thread": np.array([5, 5, 5, 6, 7]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t")
    found = info(tmp_path / "t")
    assert (found["pages"], found["large_pages"]) == (4, 4)
    assert (found["spaces"], found["threads"], found["blocks"]) == (2, 3, 4)


def test_too_many_pages_are_not_counted(tmp_path, plain, monkeypatch):
    monkeypatch.setattr("mmu.trace.summary.MOST_PAGES", 10)
    found = info(tmp_path / "plain.parquet")
    assert found["pages"] is None
    assert found["large_pages"] is None


def test_the_trace_written_is_the_one_returned(tmp_path, plain):
    made = import_trace(tmp_path / "log", tmp_path / "t.parquet")
    assert made == open_trace(str(tmp_path / "t.parquet"))
