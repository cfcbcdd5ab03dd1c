"""Quantities as people write them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmu import units
from mmu.errors import InputError

UNITS = {"": 1, "K": 1 << 10, "KiB": 1 << 10, "M": 1 << 20, "MiB": 1 << 20}
UNITS |= {"G": 1 << 30, "gib": 1 << 30, "T": 1 << 40, "TiB": 1 << 40}


@given(st.integers(0, 10**9), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number, unit, space):
    assert units.parse_size(f"{number}{space}{unit}") == number * UNITS[unit]


@given(st.integers(0, 1 << 50))
def test_a_formatted_size_reads_back(size):
    assert units.parse_size(units.format_size(size)) == size


def test_sizes_with_a_fraction_are_whole_bytes_or_refused():
    assert units.parse_size("1.5GiB") == 3 << 29
    with pytest.raises(InputError, match=r"found '0\.3K'; accepted: a size of whole bytes"):
        units.parse_size("0.3K")


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1G", "1e9", "4 G B", "٣G", "0x10", None, 1.5, True, -1]
)
def test_what_is_no_size_is_refused_with_what_was_found(text):
    with pytest.raises(InputError, match=r"found .*; accepted: a number with KiB"):
        units.parse_size(text)


def test_a_decimal_unit_names_the_binary_one():
    with pytest.raises(InputError, match="did you mean 'GiB'"):
        units.parse_size("4GB")


@given(st.text(max_size=12))
def test_any_text_is_parsed_or_refused_on_one_line(text):
    for parse in (
        units.parse_size, units.parse_quantum, units.parse_pages, units.parse_page_size,
        units.parse_modes, units.parse_count, units.parse_share,
    ):  # fmt: skip
        try:
            parse(text)
        except InputError as caught:
            error = str(caught)
        else:
            continue
        assert "\n" not in error
        assert repr(text)[:40] in error or parse is units.parse_modes


@given(
    st.decimals(min_value="0.001", max_value=10**6, places=3),
    st.sampled_from([("us", 10**6), ("ms", 1000), ("s", 1)]),
)
def test_a_quantum_of_time_is_an_exact_number_of_seconds(number, unit):
    name, per_second = unit
    assert units.parse_quantum(f"{number}{name}") == (Fraction(number) / per_second, "s")


@given(st.integers(1, 10**15), st.sampled_from(["cycles", "accesses", "instructions"]))
def test_a_counted_quantum_keeps_its_unit(number, unit):
    assert units.parse_quantum(f"{number}{unit}") == (number, unit)
    assert units.parse_quantum(f"{number} {unit.upper()}") == (number, unit)


@pytest.mark.parametrize(
    "text", ["-5us", "0us", "0cycles", "1.5accesses", "50", "us", "50ns", "", "5 5us", 50, None]
)
def test_what_is_no_quantum_is_refused(text):
    with pytest.raises(InputError, match=r"found .*; accepted: a number above 0 with us, ms, s"):
        units.parse_quantum(text)


def test_a_misspelt_unit_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'accesses'"):
        units.parse_quantum("20000acesses")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4k", "4k"), ("4KiB", "4k"), (4096, "4k"), ("2M", "2m"), ("2MiB", "2m"), ("1G", "1g")],
)
def test_page_sizes_are_words_or_bytes(text, size):
    assert units.parse_page_size(text) == size


def test_page_policies_are_two_sizes_and_auto():
    assert [units.parse_pages(text) for text in ("4K", "2MiB", " Auto ")] == ["4k", "2m", "auto"]
    with pytest.raises(InputError, match=r"found '1g'; accepted: 4k \| 2m \| auto"):
        units.parse_pages("1g")
    with pytest.raises(InputError, match="did you mean 'auto'"):
        units.parse_pages("atuo")


def test_modes_keep_their_order_and_come_once():
    assert units.parse_modes("flush, tagged") == ("flush", "tagged")
    assert units.parse_modes(("flush",)) == ("flush",)
    with pytest.raises(InputError, match="at most once"):
        units.parse_modes("flush,flush")
    with pytest.raises(InputError, match=r"found ''; accepted: tagged \| purge"):
        units.parse_modes("tagged,")


def test_counts_and_shares_have_limits():
    assert units.parse_count(" 12 ") == 12
    assert units.parse_share("0.25") == 0.25
    for text in ("-1", "1.0", "1e3", "", True):
        with pytest.raises(InputError, match="a whole number of at least 0"):
            units.parse_count(text)
    for text in ("-0.1", "1.1", "nan", "inf", "half", None, [1]):
        with pytest.raises(InputError, match="a number from 0 to 1"):
            units.parse_share(text)


def test_long_values_are_cut_in_messages():
    assert units.shown("x" * 100) == "'" + "x" * 56 + "..."
    assert units.shown("a\nb") == r"'a\nb'"


def test_nearest_says_nothing_where_nothing_is_near():
    assert units.nearest("zzz", ["ways", "entries"]) == ""
    assert units.nearest("WAYZ", ["ways", "entries"]) == "; did you mean 'ways'?"
