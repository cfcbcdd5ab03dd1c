import pytest
from test_trace_formats import read

from mmu.trace import import_trace, lines
from mmu.trace.din import recognised_din, recognised_xdin


def test_din_is_label_address_comment():
    text = b"0 7fff2a30\n1\t0x7FFF2A30 any words\n  2 401000\n\n3 0 escape\n4 deadbeef\n"
    assert read("din", text) == [
        (0x7FFF2A30, 0, 0, None, None),
        (0x7FFF2A30, 1, 0, None, None),
        (0x401000, 2, 0, None, None),
    ]


def test_extended_din_has_hexadecimal_sizes():
    text = b"r 7fff2a30 4\nW 0x1ff8 0x10 comment\ni 401000 f\nm 10 1\nc 0 40\nv 0 fffff\nr 20\nw 30 0\n"
    assert read("xdin", text) == [
        (0x7FFF2A30, 0, 4, None, None),
        (0x1FF8, 1, 8, None, None),
        (0x2000, 1, 8, None, None),
        (0x401000, 2, 15, None, None),
        (0x10, 0, 1, None, None),
        (0x20, 0, 0, None, None),
        (0x30, 1, 0, None, None),
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("din", b"5 10"),
        ("din", b"00 10"),
        ("din", b"r 10"),
        ("din", b"0"),
        ("din", b"0 0x"),
        ("din", b"0 10000000000401000"),
        ("din", b"0 800000000000"),
        ("din", b"0 10,4"),
        ("xdin", b"0 10 4"),
        ("xdin", b"q 10 4"),
        ("xdin", b"rw 10 4"),
        ("xdin", b"r 10 1001"),
        ("xdin", b"r 10000000000401000 4"),
        ("xdin", b"r 10 10000000000000004"),
        ("xdin", b"r 10 x"),
        ("xdin", b"r 7fffffffffff 2"),
        ("xdin", b"c"),
    ],
)
def test_a_line_that_is_no_reference_is_refused(name, line):
    good = b"0 10\n" if name == "din" else b"r 10 4\n"
    assert read(name, good + line + b"\n" + good) == 2


def test_address_0_can_be_touched_though_the_size_is_not_known():
    assert read("din", b"0 0\n1 ffff800000000000\n") == [
        (0, 0, 0, None, None),
        (0xFFFF_8000_0000_0000, 1, 0, None, None),
    ]


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (b"0 1\n3 0\n4 0\n4 0\n\n", {"escapes (label 3)": 1, "cache flushes (label 4)": 2}),
        (b"r 1 1\nc 0 0\nv 0 0\nv 0 0\n\n", {"copybacks (type c)": 1, "invalidations (type v)": 2}),
    ],
)
def test_what_is_no_access_is_counted(tmp_path, text, passed, monkeypatch):
    monkeypatch.setattr(lines, "RECORDS", 2)  # in several parts
    (tmp_path / "trace").write_bytes(3 * text)
    made = import_trace(tmp_path / "trace", tmp_path / "t")
    assert made.metadata["passed_over"] == {
        what: 3 * times for what, times in (passed | {"empty lines": 1}).items()
    }


def test_the_last_byte_of_the_lower_half_can_be_touched():
    assert read("xdin", b"r 7ffffffffffe 2\nw ffffffffffffffff 1\n") == [
        (0x7FFF_FFFF_FFFE, 0, 2, None, None),
        ((1 << 64) - 1, 1, 1, None, None),
    ]


def test_din_and_extended_din_are_not_each_other():
    assert recognised_din(b"2 401000\n")
    assert recognised_xdin(b"i 401000 3\n")
    assert not recognised_din(b"i 401000 3\n")
    assert not recognised_xdin(b"2 401000 3\n")
    assert not recognised_din(b"2 401000\n9 1\n")
