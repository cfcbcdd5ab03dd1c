import io
import random
import resource
import struct
import zipfile
from itertools import pairwise

import pytest
from binary_samples import dynamorio, entry, marker
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.trace import archive, import_trace, open_trace
from mmu.trace.decompress import decompressed

TRACE = dynamorio(marker(2, 9) + b"".join(entry(0, 8, 64 * i) for i in range(1, 400)))


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as made:
        for name, content in members:
            made.writestr(name, content)
    return packed.getvalue()


def unpacked(tmp_path, data, size=1 << 20):
    (tmp_path / "t.zip").write_bytes(data)
    return b"".join(decompressed(tmp_path / "t.zip", size))


def refused(tmp_path, data):
    with pytest.raises(InputError) as error:
        unpacked(tmp_path, data)
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/t.zip: zip data that cannot be read: ")
    assert "\n" not in text
    return text.split("cannot be read: ", 1)[1]


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, len(TRACE)), max_size=12), size=st.integers(1, 5000))
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_chunks_of_a_trace_are_one_trace(tmp_path_factory, method, cuts, size):
    edges = [0, *sorted(cuts), len(TRACE)]
    chunks = [
        (f"chunk.{number:04}", TRACE[first:last])
        for number, (first, last) in enumerate(pairwise(edges))
    ]
    folder = tmp_path_factory.mktemp("zip")
    assert unpacked(folder, zipped(*chunks, method=method), size) == TRACE
    import_trace(folder / "t.zip", folder / "t.parquet")
    assert open_trace(folder / "t.parquet").reads == 399


def test_a_single_file_may_have_any_name(tmp_path):
    assert unpacked(tmp_path, zipped(("../../etc/passwd", b"text"))) == b"text"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "no files; accepted: a single file, or DynamoRIO's chunk.0000, chunk.0001, ..."),
        (
            ["chunk.0000", "../x"],
            "2 files, of which number 1 is '../x'; accepted: a single file, or",
        ),
        (["chunk.0001", "chunk.0002"], "2 files, of which number 0 is 'chunk.0001'; accepted"),
        (["chunk.0000", "chunk.0002"], "number 1 is 'chunk.0002'"),
        (["a", "b"], "number 0 is 'a'"),
        (["d/", "d/a"], "number 0 is 'd/'"),
        (["chunk.0000", "n\n" * 99], r"number 1 is 'n\nn\n"),
    ],
)
def test_an_archive_of_other_files_is_refused(tmp_path, names, text):
    data = zipped(*((name, b"x") for name in names))
    if not names:
        data = b"PK\3\4" + data
        assert "no files" in refused(tmp_path, data) or "zip" in refused(tmp_path, data).lower()
        return
    assert text in refused(tmp_path, data)


def test_a_pipe_is_refused(tmp_path, monkeypatch):
    class Pipe(io.BufferedReader):
        def seekable(self):
            return False

    monkeypatch.setattr(
        "sys.stdin", type("Input", (), {"buffer": Pipe(io.BytesIO(zipped(("a", b"x"))))})
    )
    with pytest.raises(
        InputError, match=r"standard input: zip data .*through a pipe; save it as a file"
    ):
        list(decompressed("-"))


def patched(data, mark, offset, value):
    """An archive with some bytes of its records of one kind replaced."""
    data = bytearray(data)
    here = data.find(mark)
    while here >= 0:
        data[here + offset : here + offset + len(value)] = value
        here = data.find(mark, here + 1)
    return bytes(data)


LIST, FILE, END = b"PK\1\2", b"PK\3\4", b"PK\5\6"


def test_an_encrypted_file_is_refused(tmp_path):
    data = patched(zipped(("a", b"x" * 99)), LIST, 8, b"\1\0")
    assert refused(tmp_path, data) == "'a' is encrypted"


def test_unusual_packing_is_refused(tmp_path):
    data = zipped(("a", b"x" * 99), method=zipfile.ZIP_LZMA)
    assert refused(tmp_path, data) == "'a' is packed by method 14; accepted: stored, deflated"
    assert "packed by method 99" in refused(tmp_path, patched(data, LIST, 10, b"\x63\0"))


def test_files_that_lie_over_one_another_are_refused(tmp_path):
    """As in archives that unpack to thousands of times their size."""
    data = zipped(("chunk.0000", b"x" * 5000), ("chunk.0001", b"x" * 5000))
    assert (
        refused(tmp_path, patched(data, LIST, 42, bytes(4)))
        == "'chunk.0001' lies over another file"
    )


def test_what_follows_an_archive_is_refused(tmp_path):
    data = zipped(("a", b"x"))
    assert refused(tmp_path, data + b"rubbish") == "something follows its end"


def test_a_long_list_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_LIST", 70_000)
    data = zipped(*((f"chunk.{number:04}", b"") for number in range(1500)))
    assert "its list takes" in refused(tmp_path, data)
    assert "accepted: up to 70,000" in refused(tmp_path, data)


def test_a_file_that_unpacks_to_other_bytes_than_it_says_is_refused(tmp_path):
    data = zipped(("a", b"x" * 1000))
    assert "CRC" in refused(tmp_path, patched(data, LIST, 16, b"\1\2\3\4"))


def test_a_bomb_is_read_in_pieces_and_refused_at_its_first_record(tmp_path):
    (tmp_path / "t.zip").write_bytes(zipped(("chunk.0000", bytes(300 << 20))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="no format that is known"):
        import_trace(tmp_path / "t.zip", tmp_path / "out")
    with pytest.raises(InputError, match="record 0 at byte 0"):
        import_trace(tmp_path / "t.zip", tmp_path / "out", "dynamorio")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


def test_a_damaged_archive_is_refused_or_the_same(tmp_path):
    whole = zipped(("chunk.0000", TRACE[:2000]), ("chunk.0001", TRACE[2000:]))
    for seed in range(400):
        chance = random.Random(seed)
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 5])):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(5, len(data)) :]
        (tmp_path / "t.zip").write_bytes(data)
        try:
            found = b"".join(decompressed(tmp_path / "t.zip"))
        except InputError:
            continue
        assert found == TRACE


@pytest.mark.parametrize("offset", range(4, 46))
@pytest.mark.parametrize("mark", [LIST, FILE])
def test_every_field_of_an_archive_may_lie(tmp_path, mark, offset):
    whole = zipped(("chunk.0000", TRACE[:2000]), ("chunk.0001", TRACE[2000:]))
    for value in (b"\xff", b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0", b"\x40", b"\x20", b"\x80"):
        (tmp_path / "t.zip").write_bytes(patched(whole, mark, offset, value))
        try:
            found = b"".join(decompressed(tmp_path / "t.zip"))
        except InputError:
            continue
        assert found == TRACE


def test_a_list_that_lies_about_where_it_is_is_refused(tmp_path):
    data = zipped(("a", b"x" * 99))
    for field in (12, 16):
        for value in (0, 1, 0xFFFF_FFFE, 0xFFFF_FFFF):
            refused(tmp_path, patched(data, END, field, struct.pack("<I", value)))
