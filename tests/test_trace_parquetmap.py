"""Other tools' Parquet files, by a map of their columns."""

import gzip
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from binary_samples import fits, split
from hypothesis import given, settings
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.trace import import_trace, parquetmap

MASK = (1 << 64) - 1
WORDS = {
    0: ["r", "Load", "READ", "0", " ld "],
    1: ["w", "store", "Write", "1"],
    2: ["x", "ifetch", "2"],
}
ROW = st.tuples(
    st.one_of(
        st.integers(0, (1 << 47) - 1),
        st.integers((1 << 64) - (1 << 47), MASK),
        st.sampled_from([4093, (1 << 47) - 1, 1 << 47, MASK]),
    ),
    st.integers(0, 2),
    st.one_of(st.none(), st.sampled_from([0, 1, 4, 64, 4096])),
    st.integers(0, 3),
    st.integers(0, 4),
)


def slow(rows, sizes, spaces):
    """Accesses (address, kind, size, process), or the number of the row that is none."""
    accesses = []
    for number, (address, kind, size, space, _) in enumerate(rows):
        length = (size or 0) if sizes else 0
        if not fits(address, max(length, 1)):
            return number
        pieces = split(address, kind, length) if length else [(address, kind, 0)]
        accesses += [(*piece, space if spaces else None) for piece in pieces]
    return accesses


def parsed(folder, columns=None, name="t"):
    try:
        made = import_trace(folder / name, folder / "out", "parquet", columns=columns)
    except InputError as error:
        return int(re.search(r"record (\d+): ", str(error))[1])
    processes = {int(space): p for space, p in made.metadata.get("processes", {}).items()}
    accesses = []
    for part in made.parts(sizes=True):
        space = (
            [None] * len(part.kind)
            if part.space is None
            else [processes[s] for s in part.space.tolist()]
        )
        columns = (part.address.view(np.uint64), part.kind, part.size)
        accesses += zip(*(column.tolist() for column in columns), space, strict=True)
    return accesses


@settings(max_examples=100, deadline=None)
@given(data=st.data(), rows=st.lists(ROW, min_size=1, max_size=20))
def test_rows_are_read_as_the_slow_reader_reads_them(tmp_path_factory, data, rows):
    folder = tmp_path_factory.mktemp("parquet")
    address, kind, size, space, thread = (list(column) for column in zip(*rows, strict=True))
    signed = [a - (1 << 64) if a >> 63 else a for a in address]
    addresses = {
        "unsigned": pa.array(address, pa.uint64()),
        "signed": pa.array(signed, pa.int64()),
        "hex": pa.array([f"{a:x}" for a in address]),
        "0xHEX": pa.array([f"0x{a:X}" for a in address], pa.large_string()),
        "dictionary": pa.array([f"{a:016x}" for a in address]).dictionary_encode(),
        "decimal": pa.array([str(a) for a in address]),
    }
    form = data.draw(st.sampled_from(list(addresses)))
    kinds = {
        "numbers": pa.array(kind, pa.int8()),
        "words": pa.array([data.draw(st.sampled_from(WORDS[k])) for k in kind]),
        "dictionary": pa.array(["rwx"[k] for k in kind]).dictionary_encode(),
    }
    columns = {"what": kinds[data.draw(st.sampled_from(list(kinds)))], "va": addresses[form]}
    given = {"kind": "what", "address": "va:dec" if form == "decimal" else "va"}
    sizes, spaces = data.draw(st.booleans()), data.draw(st.booleans())
    if sizes:
        columns["how long"] = pa.array(size, data.draw(st.sampled_from([pa.int16(), pa.uint64()])))
        given["size"] = "how long"
    if spaces:
        columns |= {"pid": pa.array(space, pa.int32()), "tid": pa.array(thread, pa.int64())}
    columns["other"] = pa.array([[1.5]] * len(rows))
    pq.write_table(pa.table(columns), folder / "t", row_group_size=data.draw(st.integers(1, 20)))
    assert parsed(folder, given) == slow(rows, sizes, spaces)


def write(folder, **columns):
    pq.write_table(pa.table(columns), folder / "t")


@pytest.mark.parametrize(
    ("columns", "given", "text"),
    [
        ({"va": ["1", "g"], "kind": [0, 0]}, {}, "record 1: address 'g': not one of 1 to 16 hex"),
        ({"va": ["1", ""], "kind": [0, 0]}, {}, "record 1: address '': not one of 1 to 16"),
        ({"va": ["0x", "0"], "kind": [0, 0]}, {}, "record 0: address '0x': not one of 1 to 16"),
        ({"va": ["1" * 17], "kind": [0]}, {}, "record 0: address '11111111111111111': not one of"),
        (
            {"va": ["a"], "kind": [0]},
            {"address": "va:dec"},
            "from 0 on: an address that is no decimal",
        ),
        (
            {"va": [1, 1 << 47], "kind": [0, 0]},
            {},
            "record 1: address '0x800000000000': the address is",
        ),
        ({"va": [1, None], "kind": [0, 0]}, {}, "record 1: address None: the value is missing"),
        (
            {"va": [1, 1], "kind": [0, 3]},
            {},
            "record 1: kind 3: accepted: r|l|rd|ld|read|load|0, w|",
        ),
        ({"va": [1, 1], "kind": [0, -1]}, {}, "record 1: kind -1: accepted"),
        ({"va": [1, 1], "kind": ["r", "z"]}, {}, "record 1: kind 'z': accepted"),
        ({"va": [1], "kind": [0], "size": [4097]}, {}, "record 0: size 4097: accepted: 0 to 4096"),
        ({"va": [1], "kind": [0], "size": [-1]}, {}, "record 0: size -1: accepted: 0 to 4096"),
        (
            {"va": [1], "kind": [0], "tid": [1 << 32]},
            {},
            "record 0: thread 4294967296: accepted: 0 to",
        ),
        ({"va": [1], "kind": [0], "pid": [None]}, {}, "column 'pid', the space, is null"),
        (
            {"va": [1.5], "kind": [0]},
            {},
            "column 'va', the address, is double; accepted: whole numbers or",
        ),
        (
            {"va": [1], "kind": [0], "size": ["4"]},
            {},
            "column 'size', the size, is string; accepted: whole",
        ),
        (
            {"x": [1], "kind": [0]},
            {},
            "no column is known as the address (x, kind); say which with",
        ),
        (
            {"va": [1], "x": [0]},
            {},
            "no column is known as the kind (va, x); say which with --columns",
        ),
        (
            {"va": [1], "kind": [0]},
            {"address": "vb"},
            "address=vb: the file has 0 such columns; accepted",
        ),
        (
            {"va": [1], "kind": [0]},
            {"size": "va", "address": "va"},
            "two of our columns are one of the file's",
        ),
        (
            {"va": [1], "kind": [0]},
            {"page": "va"},
            "column 'page' is none of ours; accepted: address,",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, columns, given, text):
    write(tmp_path, **columns)
    with pytest.raises(InputError) as refused:
        import_trace(tmp_path / "t", tmp_path / "out", "parquet", columns=given)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_one_kind_may_stand_for_every_row_and_flags_for_writes(tmp_path):
    write(tmp_path, va=[1, 2])
    assert parsed(tmp_path, {"kind": "write"}) == [(1, 1, 0, None), (2, 1, 0, None)]
    write(tmp_path, va=[1, 2], is_write=[True, False])
    assert parsed(tmp_path, {"kind": "is_write"}) == [(1, 1, 0, None), (2, 0, 0, None)]


def test_a_map_is_enough_to_import_and_without_one_the_user_is_told(tmp_path):
    write(tmp_path, va=[1, 2], op=["r", "w"])
    with pytest.raises(
        InputError, match="needs no import if it has columns address and kind; else say"
    ):
        import_trace(tmp_path / "t", tmp_path / "out")
    made = import_trace(tmp_path / "t", tmp_path / "out", columns={"kind": "op"})
    assert (made.reads, made.writes, made.metadata["format"]) == (1, 1, "parquet")
    with pytest.raises(InputError, match="is a trace of mmu already, which needs no import"):
        import_trace(tmp_path / "out", tmp_path / "again", columns={"kind": "kind"})


def test_pipes_and_packed_files_are_refused(tmp_path, monkeypatch):
    write(tmp_path, va=[1], kind=[0])
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "t.gz").write_bytes(gzip.compress(data))
    with pytest.raises(InputError, match="not Parquet, or packed once more; unpack it first"):
        import_trace(tmp_path / "t.gz", tmp_path / "out", columns={"address": "va"})
    (tmp_path / "text").write_bytes(b"hello")
    with pytest.raises(InputError, match="not Parquet"):
        import_trace(tmp_path / "text", tmp_path / "out", "parquet")
    reader = open(tmp_path / "t", "rb")  # noqa: SIM115
    monkeypatch.setattr("sys.stdin", type("Input", (), {"buffer": reader}))
    with (
        reader,
        pytest.raises(InputError, match="cannot be read through a pipe; save it as a file"),
    ):
        import_trace("-", tmp_path / "out", columns={"address": "va"})


def test_rows_are_numbered_over_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(parquetmap, "BATCH", 10)
    write(tmp_path, va=[*range(1, 35), 1 << 60], kind=[0] * 35)
    assert parsed(tmp_path) == 34


def test_a_damaged_file_is_refused_or_the_same(tmp_path):
    address = np.arange(1, 3000) * 64
    write(tmp_path, va=address, kind=["r"] * 2999)
    whole = (tmp_path / "t").read_bytes()
    expected = parsed(tmp_path)
    random = np.random.default_rng(3)
    for _ in range(150):
        broken = bytearray(whole)
        for place in random.integers(4, len(whole), random.integers(1, 4)):
            broken[place] = random.integers(256)
        (tmp_path / "t").write_bytes(broken[: len(broken) - int(random.choice([0, 0, 0, 5]))])
        try:
            made = import_trace(tmp_path / "t", tmp_path / "out", columns={"address": "va"})
        except InputError:
            continue
        assert made.accesses <= len(expected)  # pages have no checksum here: a value may be another
