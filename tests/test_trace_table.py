import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_formats import split
from test_trace_formats import read
from trace_formats import BYTES, SAMPLES

from mmu import cli
from mmu.errors import InputError
from mmu.trace import import_trace
from mmu.trace.importer import chosen

KINDS = {"r": 0, "read": 0, "load": 0, "l": 0, "rd": 0, "ld": 0, "0": 0}
KINDS |= {"w": 1, "write": 1, "store": 1, "s": 1, "wr": 1, "st": 1, "1": 1}
KINDS |= {"x": 2, "fetch": 2, "ifetch": 2, "i": 2, "f": 2, "exec": 2, "execute": 2, "2": 2}
KINDS["instr"] = 2


def table(text, columns=None):
    return read("csv", text.encode(), columns=columns)


def short(text, columns=None):
    """Address, kind and size of each access, or what `read` returns instead."""
    found = table(text, columns)
    return [access[:3] for access in found] if isinstance(found, list) else found


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", " ", "  ", " , ", "\t \t"])
def test_columns_are_separated_by_what_the_first_line_has(separator):
    rows = [["address", "kind", "size"], ["0x1000", "r", "4"], ["0x1ffe", "W", "0x4"]]
    text = "".join(separator.join(row) + "\n" for row in rows)
    if separator == "\t \t":
        text = text.replace("\t \t", "\t")
    assert short(text) == [(0x1000, 0, 4), (0x1FFE, 1, 2), (0x2000, 1, 2)]
    assert chosen(None, text.encode(), "x") == "csv"


@pytest.mark.parametrize("word", KINDS)
def test_every_word_for_a_kind_is_known(word):
    text = f'address,kind\n0x1000,{word}\n0x1000, {word.upper()} \n0x1000,"{word}"\n'
    assert [access[1] for access in table(text)] == 3 * [KINDS[word]]


@pytest.mark.parametrize("word", ["q", "3", "readx", "rw", "", "-1", "read write", "instruction"])
def test_another_kind_is_refused_with_those_that_are_accepted(tmp_path, word):
    text = f"address,kind\n0x1000,r\n0x1000,{word}\n"
    assert table(text) == 3
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=r"line 3: .*accepted, in upper or lower case: r\|l\|rd"):
        import_trace(tmp_path / "t.csv", tmp_path / "out")


def test_columns_are_named_by_the_caller():
    text = "pc,va,op,pid\n1,0x7fff2a30,W,5\n2,0x8,R,6\n"
    columns = {"address": "va", "kind": "op"}
    assert table(text, columns) == [(0x7FFF2A30, 1, 0, 5, None), (8, 0, 0, 6, None)]
    assert table(text, {"address": "va", "kind": "op", "size": "pc", "thread": "pid"}) == [
        (0x7FFF2A30, 1, 1, None, 5),
        (8, 0, 2, None, 6),
    ]


def test_columns_without_names_are_numbered_from_one():
    text = "W 7fff2a30 4\nR 10 8\n"
    assert short(text, {"address": "2", "kind": "1", "size": "3"}) == [
        (0x7FFF2A30, 1, 4),
        (0x10, 0, 8),
    ]


def test_a_first_line_of_names_may_be_numbered_as_well():
    assert short("where,b\n0x10,w\n", {"address": "1", "kind": "2"}) == [(0x10, 1, 0)]


def test_one_kind_may_stand_for_all_rows():
    assert short("0x10\n0x20\n", {"address": "1", "kind": "write"}) == [(0x10, 1, 0), (0x20, 1, 0)]
    assert short("va,write\n0x10,r\n", {"address": "va", "kind": "write"}) == [(0x10, 0, 0)]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,b\n0x1,r\n", {}, "no column is known as the address"),
        ("address,b\n0x1,r\n", {}, "no column is known as the kind"),
        ("address,b\n0x1,r\n", {"kind": "c"}, "kind=c: no such column"),
        ("address,b\n0x1,r\n", {"kind": "3"}, "the first row has 2 columns"),
        ("address,b\n0x1,r\n", {"kind": "0"}, "the first row has 2 columns"),
        ("b,b,address\nr,r,0x1\n", {"kind": "b"}, "twice the same name"),
        (
            "address,b\n0x1,r\n",
            {"kind": "address", "address": "address"},
            "each a column of its own",
        ),
        (
            "address,kind\n0x1,r\n",
            {"colour": "kind"},
            "accepted: address, kind, size, space, thread",
        ),
        ("# nothing\n\n", {}, "no line of it has columns"),
        ("address,kind\n1000,r\n2000,w\n", {}, "may be decimal or hexadecimal"),
    ],
)
def test_a_table_that_can_be_read_in_more_ways_or_none_is_refused(text, columns, message):
    assert message in table(text, columns)


DIGITS = "".join(f"{140735340871216 + 8 * n},r\n" for n in range(32))
MANY = 120 * DIGITS  # more than the 64 KiB that decide


@pytest.mark.parametrize(
    ("rows", "suffix", "first"),
    [
        ("0x1000,r\n0,w\n", "", 0x1000),
        ("1000,r\n7fff2a30,r\n", "", 0x1000),
        ("00001000,r\n", "", 0x1000),
        ("1000,r\n", ":hex", 0x1000),
        ("1000,r\n", ":dec", 1000),
        ("0X1000,r\n", ":hex", 0x1000),
        ("1000,r\n-8,r\n", "", 1000),
        ("18446744073709551615,r\n", ":dec", (1 << 64) - 1),
        (DIGITS, "", 140735340871216),
    ],
)
def test_how_addresses_are_written_follows_from_them(rows, suffix, first):
    found = short("address,kind\n" + rows, {"address": "address" + suffix} if suffix else {})
    assert found[0][0] == first


@pytest.mark.parametrize(
    ("rows", "suffix"),
    [
        ("0x1000,r\n1000,r\n", ""),
        (MANY + "7fff2a30,r\n", ""),
        (MANY + "0x10,r\n", ""),
        ("10,r\n18446744073709551616,r\n", ":dec"),
        ("10,r\n9223372036854775808,r\n", ":dec"),
        ("10,r\n99999999999999999999999,r\n", ":dec"),
        ("10,r\n140737488355328,r\n", ":dec"),
        ("10,r\n11111111111111111,r\n", ":hex"),
        ("10,r\n1 0,r\n", ":hex"),
        ("10,r\n,r\n", ":hex"),
        ("10,r\n-,r\n", ":dec"),
    ],
)
def test_an_address_written_otherwise_is_refused(rows, suffix):
    found = table("address,kind\n" + rows, {"address": "address" + suffix} if suffix else {})
    assert found == 1 + len(rows.splitlines())


@pytest.mark.parametrize(
    "row",
    [
        "0x10",
        "0x10,r,4",
        "0x10,r,x,5,x",
        "0x10,r,4097,5,x",
        "0x10,r,-1,5,x",
        "0x10,r,4,4294967296,x",
        "0x10,r,4,,x",
        '0x10,r,4,5,"open',
        '0x10,r,4,5,"a"b',
        '"0x10,r,4,5,x',
        "0x7fffffffffff,r,2,5,x",
    ],
)
def test_a_row_that_is_no_access_is_refused(row):
    good = "address,kind,size,thread,note\n0x10,r,4,5,x\n"
    assert table(good + row + "\n") == 3


def test_comments_empty_lines_and_columns_that_nobody_names_are_passed_over(tmp_path):
    text = '# made by hand\n\naddress,kind,note,tid\n0x10,r,"a, ""b""",3\n# more\n0x20,w,,4,5,6\n'
    (tmp_path / "t.csv").write_text(text)
    made = import_trace(tmp_path / "t.csv", tmp_path / "t")
    assert table(text) == [(0x10, 0, 0, None, 3), (0x20, 1, 0, None, 4)]
    assert made.metadata["passed_over"] == {
        "comments": 2,
        "empty lines": 1,
        "lines of column names": 1,
    }


def test_a_mark_windows_line_ends_and_an_open_end_are_read():
    text = b"\xef\xbb\xbfaddress,kind\r\n0x10,r\r\n0x20,w"
    assert read("csv", text) == [(0x10, 0, 0, None, None), (0x20, 1, 0, None, None)]
    for piece in (1, 3, 7):
        assert read("csv", text[3:], piece) == read("csv", text)


def test_a_text_with_named_columns_is_a_table():
    text = b"pc,virt,what\n1,0x10,r\n"
    assert chosen(None, text, "x", columns=True) == "csv"
    with pytest.raises(InputError, match=r"--columns"):
        chosen(None, text, "x")
    for sample in SAMPLES:  # even if it looks like something else
        if sample not in BYTES:
            assert chosen(None, SAMPLES[sample](20), "x", columns=True) == "csv"
    with pytest.raises(InputError, match="lackey has no columns to name; accepted with them: csv"):
        chosen("lackey", text, "x", columns=True)


ADDRESSES = st.one_of(
    st.integers(0, (1 << 47) - 4097),
    st.integers((1 << 64) - (1 << 47), (1 << 64) - 4097),
    st.sampled_from([0, 4093, (1 << 64) - 4096]),
)
ROWS = st.lists(
    st.tuples(
        ADDRESSES,
        st.sampled_from(list(KINDS)),
        st.one_of(st.none(), st.integers(0, 64), st.just(4096)),
        st.integers(0, (1 << 40)),
        st.integers(0, (1 << 32) - 1),
        st.text(st.sampled_from('ab ,;"\t'), max_size=5),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=80, deadline=None)
@given(
    rows=ROWS,
    base=st.sampled_from(["#x", "x", "d"]),
    order=st.permutations(range(6)),
    separator=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_of_the_standard_library_is_read_back(rows, base, order, separator, quoting, ends):
    names = ["address", "op", "len", "pid", "tid", "note"]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=ends)
    writer.writerow([names[column] for column in order])
    expected = []
    for address, word, size, process, thread, note in rows:
        row = [format(address, base), word, "" if size is None else size, process, thread, note]
        writer.writerow([row[column] for column in order])
        expected += split(address, KINDS[word], size or 0, process, thread)
    columns = {"address": "address:" + ("dec" if base == "d" else "hex")}
    assert table(text.getvalue(), columns) == expected


@pytest.mark.parametrize("sample", ["csv", "csv tabs"])
def test_a_sample_is_what_the_standard_library_reads(sample):
    text = SAMPLES[sample](300, seed=2).decode()
    expected = []
    for row in csv.DictReader(io.StringIO(text), delimiter="\t" if "tabs" in sample else ","):
        address = int(row["va"]) if "tabs" in sample else int(row["address"], 16)
        word = row["rw"] if "tabs" in sample else row["kind"]
        size = int(row["bytes" if "tabs" in sample else "size"] or 0)
        streams = [int(row[name]) if name in row else None for name in ("space", "thread")]
        expected += split(address, KINDS[word.lower()], size, *streams)
    for piece in (None, 50):
        assert read("csv", text.encode(), piece) == expected


def test_the_command_line_takes_columns(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("W 7fff2a30\nR 10\n")
    out = str(tmp_path / "t.parquet")
    command = ["trace", "import", str(tmp_path / "t.txt"), "-o", out]
    assert cli.main([*command, "--columns", "kind=1,address=2:hex"]) == 0
    assert "2 accesses (0 fetches, 1 reads, 1 writes)" in capsys.readouterr().out
    assert cli.main([*command, "--columns", "kind=1,address=3"]) == 2
    assert "address=3: the first row has 2 columns" in capsys.readouterr().err


@pytest.mark.parametrize(
    "space", ["1000000000000000000", "18446744073709551615", "4611686018427387904"]
)
def test_a_space_of_more_digits_than_are_read_is_refused(tmp_path, space):
    (tmp_path / "t.csv").write_text(f"address,kind,space\n0x1000,read,7\n0x1000,read,{space}\n")
    with pytest.raises(InputError, match=r"line 3: .*the space is not a whole number of up to 18"):
        import_trace(tmp_path / "t.csv", tmp_path / "t.parquet")


@pytest.mark.slow
def test_text_without_an_end_of_empty_lines_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mmu.trace.lines.MOST_IN_VAIN", 10_000)
    (tmp_path / "t.csv").write_text("address,kind\n0x1000,read\n" + "\n" * 20_000)
    import_trace(tmp_path / "t.csv", tmp_path / "t.parquet")  # one piece, with an access
    (tmp_path / "t.csv").write_text("address,kind\n0x1000,read\n" + "\n" * (12 << 20))
    with pytest.raises(InputError, match="more than 10,000 lines without an access"):
        import_trace(tmp_path / "t.csv", tmp_path / "t.parquet")
