import bz2
import gzip
import lzma
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from binary_samples import instruction, sample, slow_dynamorio
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_samples import random_accesses

import mmu
from mmu import units
from mmu.errors import InputError
from mmu.trace import Raw, compact_trace, export_trace, import_trace, open_trace, write_raw
from mmu.trace import unfold as unfolding
from mmu.trace.champsim import CHAMPSIM, CLOUDSUITE
from mmu.trace.compact import fold
from mmu.trace.entries import EntryWriter
from mmu.trace.export import TARGETS
from mmu.trace.instructions import InstructionWriter
from mmu.trace.textlines import Style, TextWriter

TOP = 1 << 64
ADDRESS = st.one_of(
    st.integers(1, 1 << 16), st.integers(1, (1 << 47) - 1), st.integers(TOP - (1 << 47), TOP - 1)
)
ACCESS = st.tuples(
    ADDRESS, st.sampled_from([0, 0, 1, 2]), st.integers(0, 64), st.sampled_from([0, 0, 0, 5])
)
ACCESSES = st.lists(ACCESS, min_size=1, max_size=60)


def raw(accesses, streams=False):
    """Accesses (address, kind, size, space) as a part of a raw trace; sizes do not cross a page."""
    address, kind, size, space = (list(column) for column in zip(*accesses, strict=True))
    room = [4096 - a % 4096 for a in address]
    return Raw(
        np.array(address, np.uint64),
        np.array(kind, np.uint8),
        np.minimum(np.array(size, np.uint16), room).astype(np.uint16),
        np.array(space, np.uint16) if streams else None,
    )


def slow_group(accesses, cloudsuite=False, ip=None, single=False):
    """Records [ip, reads, writes, space of the fetch, space of the data] of accesses."""
    records = []
    most = 4 if cloudsuite else 2
    if ip is None:
        ip = next((address for address, kind, *_ in accesses if kind == 2), None)
    for address, kind, _, owner in accesses:
        space = owner if cloudsuite else 0
        if kind == 2:
            records.append([address, [], [], space, None])
            continue
        if not records:
            records.append([ip, [], [], space, None])
        _, reads, writes, of_fetch, of_data = records[-1]
        fits = (
            of_data in (None, space)
            and not (single and reads + writes)
            and (len(reads) < 4 and not writes if kind == 0 else len(writes) < most)
        )
        if not fits:
            records.append([records[-1][0], [], [], of_fetch, None])
        records[-1][1 + kind].append(address)
        records[-1][4] = space
    return records


def slow_bytes(records, cloudsuite=False):
    return b"".join(
        instruction(
            ip, reads, writes, asid=(first, first if data is None else data) if cloudsuite else None
        )
        for ip, reads, writes, first, data in records
    )


def written(writer, part, pieces=1):
    edges = np.linspace(0, len(part.kind), pieces + 1).astype(int)
    data = b""
    for first, last in pairwise(edges):
        piece = Raw(*(None if column is None else column[first:last] for column in part))
        data += bytes(writer.add(piece))
    return data + bytes(writer.finish())


@settings(max_examples=150, deadline=None)
@given(accesses=ACCESSES, cloudsuite=st.booleans(), pieces=st.integers(1, 4), ip=st.booleans())
def test_accesses_are_grouped_as_the_slow_writer_groups_them(accesses, cloudsuite, pieces, ip):
    fetches = any(kind == 2 for _, kind, *_ in accesses)
    layout = CLOUDSUITE if cloudsuite else CHAMPSIM
    ip = 0xFFFF_8000_0040_0000 if ip or not fetches or pieces > 1 else None
    writer = InstructionWriter(layout, "t", fetches, ip)
    data = written(writer, raw(accesses, cloudsuite), pieces)
    records = slow_group(accesses, cloudsuite, ip, single=not fetches)
    assert data == slow_bytes(records, cloudsuite)
    assert writer.records == len(records)


@settings(max_examples=60, deadline=None)
@given(accesses=ACCESSES, cloudsuite=st.booleans())
def test_what_is_read_again_is_the_same_but_for_more_fetches(
    tmp_path_factory, accesses, cloudsuite
):
    folder = tmp_path_factory.mktemp("again")
    write_raw(folder / "t.parquet", [raw(accesses, cloudsuite)])
    to = "cloudsuite" if cloudsuite else "champsim"
    made = export_trace(folder / "t.parquet", folder / "t", to, ip=0x1234)
    back = import_trace(folder / "t", folder / "back.parquet", to)
    part = next(back.parts())
    expected = []
    for ip, reads, writes, first, data in slow_group(
        accesses, cloudsuite, 0x1234, not any(a[1] == 2 for a in accesses)
    ):
        expected += [
            (ip, 2, first),
            *((a, 0, data) for a in reads),
            *((a, 1, data) for a in writes),
        ]
    names = {
        int(space): process for space, process in back.metadata.get("processes", {"0": 0}).items()
    }
    space = [0] * len(part.kind) if part.space is None else part.space.tolist()
    found = [
        *zip(
            part.address.view(np.uint64).tolist(),
            part.kind.tolist(),
            (names[s] for s in space),
            strict=True,
        )
    ]
    assert found == expected
    assert [a[:2] for a in found if a[1] != 2] == [a[:2] for a in accesses if a[1] != 2]
    assert made.records == back.fetches
    assert made.accesses == len(accesses)


@pytest.mark.parametrize("name", ["champsim", "cloudsuite"])
def test_an_imported_trace_is_exported_byte_by_byte(tmp_path, name):
    asid = (3, 3) if name == "cloudsuite" else None
    records = [
        instruction(
            0x400000 + 4 * i, [0x7000 + i, 0x8000][: i % 3], [0x9000 + i][: i % 2], asid=asid
        )
        for i in range(5000)
    ]
    expected = b"".join(records)
    if asid:  # spaces are numbered anew
        expected = expected.replace(b"\3\3", b"\0\0")
    (tmp_path / "t").write_bytes(b"".join(records))
    import_trace(tmp_path / "t", tmp_path / "t.parquet", name)
    made = export_trace(tmp_path / "t.parquet", tmp_path / "back", name)
    assert (tmp_path / "back").read_bytes() == expected
    assert made.records == 5000
    assert made.remarks[0] == "branches and registers are not known: zero"
    assert made.remarks[1:] == ["sizes of accesses are left out"]


LINES = {
    Style.DIN: lambda a, k, n, s: f"{k} {a:x}",
    Style.DIN_EXTENDED: lambda a, k, n, s: f"{'rwi'[k]} {a:x} {max(n, 1):x}",
    Style.LACKEY: lambda a, k, n, s: f"{(' L', ' S', 'I ')[k]} {a:08x},{max(n, 1)}",
    Style.CSV: lambda a, k, n, s: f"0x{a:x},{('read', 'write', 'fetch')[k]},{n},{s},{s}",
}


@settings(max_examples=100, deadline=None)
@given(accesses=ACCESSES, style=st.sampled_from(list(Style)), pieces=st.integers(1, 3))
def test_lines_are_those_that_a_slow_writer_writes(accesses, style, pieces):
    part = raw(accesses, streams=style == Style.CSV)
    if style == Style.CSV:
        part = part._replace(thread=part.space.astype(np.uint32))
    sizes = part.size.tolist()
    lines = [LINES[style](a, k, n, s) for (a, k, _, s), n in zip(accesses, sizes, strict=True)]
    if style == Style.CSV:
        lines.insert(0, "address,kind,size,space,thread")
    assert written(TextWriter(style), part, pieces).decode() == "".join(
        f"{line}\n" for line in lines
    )


def test_numbers_of_every_length_are_written():
    threads = [0, 9, 10, 99, 100, (1 << 32) - 1]
    address = [0, 0xF, 0x10, 0xFFF_FFFF, 0x1000_0000, TOP - 1]
    part = Raw(
        np.array(address, np.uint64),
        np.zeros(6, np.uint8),
        np.array([0, 1, 9, 10, 1, 1], np.uint16),
        None,
        np.array(threads, np.uint32),
    )
    lines = written(TextWriter(Style.CSV), part).decode().split("\n")
    sizes = part.size.tolist()
    assert lines == [
        "address,kind,size,thread",
        *(f"0x{a:x},read,{n},{t}" for a, n, t in zip(address, sizes, threads, strict=True)),
        "",
    ]


@settings(max_examples=15, deadline=None)
@given(accesses=ACCESSES)
@pytest.mark.parametrize("to", ["din", "xdin", "lackey", "csv"])
def test_lines_are_read_again_as_the_trace_was(tmp_path_factory, to, accesses):
    folder = tmp_path_factory.mktemp("lines")
    part = raw(accesses, streams=to == "csv")
    if to == "din":  # holds no sizes
        part = part._replace(size=np.zeros_like(part.size))
    elif to == "csv":  # spaces are numbered by their first appearance
        space = part.space != part.space[0]
        part = part._replace(space=space.astype(np.uint16), thread=part.space.astype(np.uint32))
    else:  # have no size that is not known
        part = part._replace(size=np.maximum(part.size, 1))
    write_raw(folder / "t.parquet", [part])
    export_trace(folder / "t.parquet", folder / "text", to)
    import_trace(folder / "text", folder / "back.parquet", to)
    assert pq.read_table(folder / "back.parquet").equals(pq.read_table(folder / "t.parquet"))


@settings(max_examples=60, deadline=None)
@given(accesses=ACCESSES, spaces=st.booleans(), threads=st.booleans(), pieces=st.integers(1, 4))
def test_a_trace_for_dynamorio_is_read_as_its_slow_reader_reads_it(
    accesses, spaces, threads, pieces
):
    part = raw(accesses, spaces)
    if threads:
        part = part._replace(thread=np.arange(len(accesses), dtype=np.uint32) // 3 % 2)
    owner = [(a[3] if spaces else 0) + 1 for a in accesses]
    task = [i // 3 % 2 + 1 for i in range(len(accesses))] if threads else owner
    writer = EntryWriter("t")
    found, passed = slow_dynamorio(written(writer, part, pieces))
    sizes = [max(size, 1) for size in part.size.tolist()]
    expected = zip(accesses, sizes, owner, task, strict=True)
    assert found == [(a[0], a[1], size, process, thread) for a, size, process, thread in expected]
    assert passed == 4 + len(set(task))
    assert (
        writer.records
        == len(accesses) + passed + 3 + 2 * len(list(groupby(zip(owner, task, strict=True)))) + 1
    )


def test_a_trace_for_dynamorio_is_imported_again_as_it_was(tmp_path):
    address, kind, size, space = random_accesses(3, 9000, streams=3)
    first = {number: index for index, number in enumerate(dict.fromkeys(space.tolist()))}
    space = np.array([first[number] for number in space.tolist()], np.uint16)
    write_raw(
        tmp_path / "t.parquet", [Raw(address, kind, size, space, space.astype(np.uint32) + 1)]
    )
    export_trace(tmp_path / "t.parquet", tmp_path / "t.gz", "dynamorio")
    import_trace(tmp_path / "t.gz", tmp_path / "back.parquet")
    back, before = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("back", "t"))
    for name in ("address", "kind", "size", "space"):
        assert back[name].equals(before[name])
    assert back["thread"].to_pylist() == [thread + 1 for thread in before["thread"].to_pylist()]


@pytest.mark.parametrize(
    ("seed", "streams", "count"),
    [
        (0, 2, 6000),
        pytest.param(1, 1, 30_000, marks=pytest.mark.slow),
        pytest.param(2, 3, 60_000, marks=pytest.mark.slow),
    ],
)
def test_a_compact_trace_unfolds_into_one_that_folds_into_the_same(
    seed, streams, count, monkeypatch
):
    monkeypatch.setattr(unfolding, "ROOM", 4096 + 17 * seed)
    address, kind, _, space = random_accesses(seed, count, pages=3, streams=streams)
    compact = list(fold([Raw(address, kind, space=space)]))
    place = np.zeros(unfolding.PLACE_FIELDS, np.int64)
    raws = [part for each in compact for part in unfolding.unfolded(each, place)]
    assert sum(len(part.kind) for part in raws) == count
    again = list(fold(raws))
    for name in compact[0]._fields:
        columns = [
            [getattr(part, name) for part in parts if getattr(part, name) is not None]
            for parts in (compact, again)
        ]
        if columns[0]:
            assert np.array_equal(*(np.concatenate(column) for column in columns))


@pytest.mark.parametrize("to", ["din", "xdin", "lackey", "csv"])
def test_a_compact_trace_exported_and_imported_is_the_same(tmp_path, to):
    address, kind, size, _ = random_accesses(5, 6000)
    write_raw(tmp_path / "raw.parquet", [Raw(address, kind, size)])
    compact_trace(tmp_path / "raw.parquet", tmp_path / "compact.parquet")
    made = export_trace(tmp_path / "compact.parquet", tmp_path / "log", to, unfold=True)
    sizes = {
        "din": ["sizes of accesses are left out"],
        "xdin": ["sizes that are not known are written as 1"],
        "lackey": ["sizes that are not known are written as 1"],
        "csv": [],
    }
    unfolded = "unfolded: addresses are those of pages, and the order within records is ours"
    assert made.remarks == [*sizes[to], unfolded]
    import_trace(tmp_path / "log", tmp_path / "back.parquet", compact=True)
    assert pq.read_table(tmp_path / "back.parquet").equals(
        pq.read_table(tmp_path / "compact.parquet")
    )


def test_a_raw_trace_exported_and_imported_folds_into_the_same(tmp_path):
    address, kind, size, _ = random_accesses(6, 9000)
    write_raw(tmp_path / "raw.parquet", [Raw(address, kind, size)])
    compact_trace(tmp_path / "raw.parquet", tmp_path / "compact.parquet")
    export_trace(tmp_path / "raw.parquet", tmp_path / "log.zst", "lackey")
    import_trace(tmp_path / "log.zst", tmp_path / "back.parquet", compact=True)
    assert pq.read_table(tmp_path / "back.parquet").equals(
        pq.read_table(tmp_path / "compact.parquet")
    )


UNPACK = {
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".bz2": bz2.decompress,
    ".zst": lambda data: pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(),
    ".GZ": gzip.decompress,
    "": bytes,
    ".din": bytes,
}


@pytest.mark.parametrize("ending", UNPACK)
def test_the_ending_says_how_the_file_is_packed(tmp_path, ending):
    write_raw(tmp_path / "t.parquet", [raw([(64 * i, i % 3, 4, 0) for i in range(1, 1000)])])
    export_trace(tmp_path / "t.parquet", tmp_path / "plain", "din")
    for _ in range(2):
        export_trace(tmp_path / "t.parquet", tmp_path / f"t{ending}", "din")
        data = (tmp_path / f"t{ending}").read_bytes()
        assert UNPACK[ending](data) == (tmp_path / "plain").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["plain", f"t{ending}", "t.parquet"]
    )


def test_streams_are_chosen(tmp_path):
    accesses = [(64 * i, i % 3, 4, i % 2 * 7) for i in range(1, 100)]
    part = raw(accesses, streams=True)._replace(thread=np.arange(99, dtype=np.uint32) % 3)
    write_raw(tmp_path / "t.parquet", [part])
    for name, number in (("space", 7), ("thread", 2)):
        column = getattr(part, name)
        export_trace(tmp_path / "t.parquet", tmp_path / "csv", "csv", **{name: number})
        kept = np.flatnonzero(column == number)
        lines = (tmp_path / "csv").read_text().split("\n")[1:-1]
        assert [int(line.split(",")[0], 16) for line in lines] == part.address[kept].tolist()
    made = export_trace(tmp_path / "t.parquet", tmp_path / "din", "din", space=7, thread=1)
    assert made.accesses == sum(a[3] == 7 and i % 3 == 1 for i, a in enumerate(accesses))
    made = export_trace(
        tmp_path / "t.parquet", tmp_path / "din", "din", space=7, thread=1, skip=2, limit=3
    )
    assert made.accesses == 3


@pytest.fixture
def traces(tmp_path):
    accesses = [(64 * i, i % 3, 4, i % 2 * 7) for i in range(1, 100)]
    write_raw(tmp_path / "two.parquet", [raw(accesses, streams=True)])
    threads = raw(accesses)._replace(thread=np.arange(99, dtype=np.uint32))
    write_raw(tmp_path / "threads.parquet", [threads])
    write_raw(tmp_path / "data.parquet", [raw([(64, 0, 4, 0)])])
    write_raw(tmp_path / "zero.parquet", [raw([(64, 2, 4, 0), (0, 0, 4, 0)])])
    write_raw(tmp_path / "many.parquet", [raw([(64, 2, 4, 256)], streams=True)])
    compact_trace(tmp_path / "zero.parquet", tmp_path / "compact.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (
            "two",
            {"to": "din"},
            "spaces 7 and 0, and Dinero's din cannot tell them apart; choose one with --space",
        ),
        ("two", {"to": "champsim"}, "ChampSim's records of 64 bytes cannot tell them apart"),
        ("two", {"to": "din", "space": 3}, "has no accesses of space 3"),
        ("two", {"to": "din", "space": 7, "thread": 3}, "has no accesses of space 7 and thread 3"),
        ("threads", {"to": "cloudsuite"}, "threads 0 and 1, and ChampSim's records of 96 bytes"),
        (
            "data",
            {"to": "champsim"},
            "has no fetches, and ChampSim's records are instructions; give",
        ),
        ("data", {"to": "champsim", "ip": 0}, "ip 0x0; accepted: an address of 48 bits, not 0"),
        ("data", {"to": "champsim", "ip": 1 << 47}, "ip 0x800000000000; accepted"),
        ("zero", {"to": "champsim"}, "access 1 is at address 0, by which ChampSim's records say"),
        ("many", {"to": "cloudsuite"}, "space 256; accepted: up to 255"),
        (
            "compact",
            {"to": "din"},
            "is compact, it has the numbers of pages and no addresses; export",
        ),
        ("zero", {"to": "din", "unfold": True}, "is raw, there is nothing to unfold"),
        ("zero", {"to": "sift"}, "format 'sift' is not known; accepted: champsim, ChampSim's"),
        ("zero", {"to": "din", "skip": 2}, "holds 2 accesses, and 2 are to be skipped"),
        ("none", {"to": "din"}, "no such file"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_written(traces, name, options, text):
    before = sorted(path.name for path in traces.iterdir())
    with pytest.raises(InputError) as refused:
        export_trace(traces / f"{name}.parquet", traces / "out", **options)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in traces.iterdir()) == before


def test_an_output_that_cannot_be_written_is_refused(traces):
    with pytest.raises(InputError, match="no folder"):
        export_trace(traces / "zero.parquet", traces / "none" / "out", "din")


def test_data_before_the_first_fetch_are_given_its_ip(tmp_path):
    write_raw(tmp_path / "t.parquet", [raw([(64, 0, 4, 0), (128, 1, 4, 0), (4096, 2, 4, 0)])])
    made = export_trace(tmp_path / "t.parquet", tmp_path / "t", "champsim")
    assert (tmp_path / "t").read_bytes() == instruction(4096, [64], [128]) + instruction(4096)
    assert "1 records go on with an instruction, or begin without one" in made.remarks[2]
    export_trace(tmp_path / "t.parquet", tmp_path / "t", "champsim", ip=0x123)
    assert (tmp_path / "t").read_bytes() == instruction(0x123, [64], [128]) + instruction(4096)


def test_a_trace_without_fetches_has_an_instruction_for_each_access(tmp_path):
    write_raw(tmp_path / "t.parquet", [raw([(64, 0, 4, 0), (128, 0, 4, 0), (192, 1, 4, 0)])])
    made = export_trace(tmp_path / "t.parquet", tmp_path / "t", "champsim", ip=0x123)
    expected = [instruction(0x123, [64]), instruction(0x123, [128]), instruction(0x123, [], [192])]
    assert (tmp_path / "t").read_bytes() == b"".join(expected)
    assert made.remarks[2] == "no fetches: each access is an instruction at 0x123"


def test_the_command_line_knows_the_formats_without_reading_the_module():
    assert set(units.EXPORTS) == set(TARGETS)


def test_progress_is_told(tmp_path):
    write_raw(tmp_path / "t.parquet", [raw([(64, 0, 4, 0)] * 1000)])
    told = []
    export_trace(tmp_path / "t.parquet", tmp_path / "t", "din", progress=told.append)
    assert told[-1] == 1000


@pytest.mark.slow
@pytest.mark.parametrize("to", ["champsim", "cloudsuite", "din", "lackey", "dynamorio", "csv"])
def test_a_replay_counts_the_same_after_export_and_import(tmp_path, to):
    name = "cloudsuite" if to in ("cloudsuite", "dynamorio", "csv") else "champsim"
    (tmp_path / "t").write_bytes(sample(name, 20_000))
    import_trace(tmp_path / "t", tmp_path / "before.parquet")
    made = export_trace(tmp_path / "before.parquet", tmp_path / "t.xz", to)
    import_trace(tmp_path / "t.xz", tmp_path / "after.parquet", to)
    assert not [remark for remark in made.remarks if "fetch" in remark]
    before, after = (
        mmu.replay(tmp_path / f"{name}.parquet", mode="flush", exits_per_second=200_000)
        for name in ("before", "after")
    )
    assert before.count("walks") > 100
    for field in ("counters", "hits", "cycles", "references", "series"):
        assert getattr(before, field)
        assert same(getattr(before, field), getattr(after, field))


def same(one, other):
    """Whether two results are equal, under names of virtual machines that are the files'."""
    return str(one).replace("before", "after") == str(other)


def test_the_command_writes_a_file_and_says_what_it_does_not_hold(traces, capsys):
    from mmu import cli  # noqa: PLC0415

    out = traces / "t.champsim.gz"
    status = cli.main(
        [
            "trace",
            "export",
            str(traces / "data.parquet"),
            "-o",
            str(out),
            "--to",
            "champsim",
            "--ip",
            "0x400000",
        ]
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert printed == (
        f"{out}: 1 accesses in 1 records\n"
        "note: branches and registers are not known: zero\n"
        "note: sizes of accesses are left out\n"
        "note: no fetches: each access is an instruction at 0x400000\n"
    )
    assert gzip.decompress(out.read_bytes()) == instruction(0x400000, [64])
    assert (
        cli.main(
            [
                "trace",
                "export",
                str(traces / "data.parquet"),
                "-o",
                str(out),
                "--to",
                "champsim",
                "--ip",
                "0",
            ]
        )
        == 2
    )
    assert "accepted: a hexadecimal address of 48 bits, not 0" in capsys.readouterr().err
    assert (
        cli.main(
            [
                "trace",
                "export",
                str(traces / "data.parquet"),
                "-o",
                str(traces / "data.parquet"),
                "--to",
                "din",
            ]
        )
        == 2
    )
    assert "also read as" in capsys.readouterr().err
    assert open_trace(traces / "data.parquet").reads == 1
