"""What is varied: names, lists and ranges of values, and what is refused of them."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmu.errors import InputError
from mmu.units import parse_count, parse_quantum, parse_size
from mmu.values import (
    DIGITS,
    MOST,
    Vary,
    given_value,
    is_about,
    of_value,
    parse_values,
    parse_vary,
    quantity,
)

OPTIONS = {"quantum": parse_quantum, "exits-per-second": parse_count, "memory": parse_size}


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("20us", Fraction(20, 10**6), "s"),
        ("1.5 ms", Fraction(15, 10**4), "s"),
        ("2s", Fraction(2), "s"),
        ("4KiB", Fraction(4096), "bytes"),
        ("2M", Fraction(2 << 20), "bytes"),
        ("1g", Fraction(1 << 30), "bytes"),
        ("1TiB", Fraction(1 << 40), "bytes"),
        ("9B", Fraction(9), "bytes"),
        ("500 accesses", Fraction(500), "accesses"),
        ("7cycles", Fraction(7), "cycles"),
        ("0", Fraction(0), ""),
        (" 0.25 ", Fraction(1, 4), ""),
    ],
)
def test_a_quantity_is_a_number_of_something(text, number, unit):
    assert quantity(text) == (number, unit)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1e3", "5 parsecs", "1 2", "0x10", "us", "1us2", "\u0661"]
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(InputError, match=r"found .*; accepted: a number from 0"):
        quantity(text)


def test_the_nearest_unit_is_named():
    with pytest.raises(InputError, match=r"did you mean 'accesses'\?"):
        quantity("5 acceses")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("20us,50us, 1ms", ("20us", "50us", "1ms")),
        ("0,1000", ("0", "1000")),
        ("5,3,4", ("5", "3", "4")),
        ("10us..10ms:7", ("10us", "31.6us", "100us", "316us", "1ms", "3.16ms", "10ms")),
        ("1us..2s:3", ("1us", "1.41ms", "2s")),
        ("0.5us..50us:3", ("0.5us", "5us", "50us")),
        ("1000..64000:7", ("1000", "2000", "4000", "8000", "16000", "32000", "64000")),
        ("1..100000:4", ("1", "46", "2150", "100000")),
        ("4..12:2", ("4", "12")),
        ("0.1..1:4", ("0.1", "0.215", "0.464", "1")),
        ("0.001..1:3", ("0.001", "0.0316", "1")),
        ("1GiB..16GiB:5", ("1GiB", "2GiB", "4GiB", "8GiB", "16GiB")),
        ("1GiB..3GiB:3", ("1GiB", "1774MiB", "3GiB")),
        ("4KiB..64KiB:3", ("4KiB", "16KiB", "64KiB")),
        ("1KiB..2KiB:3", ("1KiB", "1448B", "2KiB")),
        ("100cycles .. 10000cycles : 3", ("100cycles", "1000cycles", "10000cycles")),
    ],
)
def test_values_are_a_list_or_a_range_in_equal_ratios(text, values):
    assert parse_values(text) == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found 0 values; accepted: 2 to 64 values, such as"),
        ("5us", "found 1 value; accepted: 2 to 64"),
        (",".join(map(str, range(MOST + 1))), "found 65 values; accepted: 2 to 64"),
        ("1..9:65", "found 65 values in '1..9:65'; accepted: 2 to 64"),
        ("1..9:1", "found 1 values in"),
        ("1..9:999999999", "found 999999999 values in"),
        ("1us,5cycles", "found '1us,5cycles'; accepted: values of one kind"),
        ("0,5us", "accepted: values of one kind"),
        ("1,2,1", "found 1 twice; accepted: values that differ"),
        ("1ms,5us,1000us", "found 1ms and 1000us, the same"),
        ("1..4:9", "found 1 twice; accepted: values that differ; of a range, fewer"),
        ("0..5:3", "found '0..5:3'; accepted: FIRST..LAST:N"),
        ("5..5:3", "accepted: FIRST..LAST:N"),
        ("9..5:3", "accepted: FIRST..LAST:N"),
        ("1us..5:3", "accepted: FIRST..LAST:N"),
        ("1..5", "found '1..5'; accepted: FIRST..LAST:N"),
        ("1..5:x", "accepted: FIRST..LAST:N"),
        ("1,,2", "found ''; accepted: a number"),
        ("a,b", "found 'a'; accepted: a number"),
        ("x..5:3", "found 'x'; accepted: a number"),
    ],
)
def test_other_values_are_refused(text, message):
    with pytest.raises(InputError) as caught:
        parse_values(text)
    assert message in str(caught.value)


@given(
    st.integers(1, 10**6),
    st.integers(2, 10**4),
    st.integers(2, MOST),
    st.sampled_from(["", "us", "KiB", "accesses"]),
)
def test_a_range_rises_from_its_first_to_its_last_by_about_one_ratio(first, factor, steps, unit):
    last = first * factor
    try:
        values = parse_values(f"{first}{unit}..{last}{unit}:{steps}")
    except InputError as error:
        same = any(words in str(error) for words in ("the same", "twice"))
        assume(not same)
        raise
    numbers = [quantity(value)[0] for value in values]
    assert len(values) == steps
    assert (values[0], values[-1]) == (f"{first}{unit}", f"{last}{unit}")
    assert numbers == sorted(set(numbers))
    exact = [float(numbers[0]) * factor ** (n / (steps - 1)) for n in range(steps)]
    for number, ideal in zip(numbers, exact, strict=True):
        rounding = max(0.6 * 10.0 ** (1 - DIGITS) * ideal, 0.6 if unit in ("", "accesses") else 0)
        if unit == "KiB":
            rounding = max(rounding, (1 << 20 if ideal >= 1 << 21 else 1))
        assert abs(float(number) - ideal) <= rounding


def test_what_is_varied_has_a_name_and_values():
    assert parse_vary("quantum=20us,50us", OPTIONS) == Vary("quantum", ("20us", "50us"))
    assert parse_vary("--exits-per-second = 0, 5", OPTIONS) == Vary("exits-per-second", ("0", "5"))
    assert parse_vary("exits_per_second=0,5", OPTIONS).name == "exits-per-second"
    assert parse_vary("l2.ways=4,8", OPTIONS) == Vary("l2.ways", ("4", "8"))
    assert parse_vary("nested_tlb.entries=4,8", OPTIONS).name == "nested_tlb.entries"
    assert parse_vary("walkers=1,2", OPTIONS) == Vary("walkers", ("1", "2"))
    again = Vary("quantum", ("1us", "2us"))
    assert parse_vary(again, OPTIONS) is again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantum", "found 'quantum'; accepted: NAME=VALUES, such as"),
        ("=1,2", "accepted: NAME=VALUES"),
        ("", "accepted: NAME=VALUES"),
        (5, "found 5; accepted: NAME=VALUES"),
        ("x=" + "1," * 2000, "accepted: NAME=VALUES"),
        ("quantun=1us,2us", "name 'quantun'; accepted: exits-per-second, frequency_hz, memory, "),
        ("quantun=1us,2us", "or a path such as l2.ways; did you mean 'quantum'?"),
        ("quantum=5,6", "quantum: found '5'; accepted: a number above 0 with us, ms"),
        ("quantum=0us,6us", "quantum: found '0us'"),
        ("exits-per-second=1,1.5", "exits-per-second: found '1.5'; accepted: a whole number"),
        ("quantum=1us", "found 1 value"),
    ],
)
def test_what_cannot_be_varied_is_refused(text, message):
    with pytest.raises(InputError) as caught:
        parse_vary(text, OPTIONS)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_options_take_numbers_as_numbers_and_the_rest_as_text():
    assert [given_value(text) for text in ("5", "0.5", "5us", "1GiB")] == [5, 0.5, "5us", "1GiB"]
    assert isinstance(given_value("5"), int)


@pytest.mark.parametrize(
    "start", ["--set l2.ways=7: ", "--set l2.ways: ", "--l2.ways: ", "l2.ways=7: ", "l2.ways: ", ""]
)
def test_an_error_says_once_whose_value_it_is_about(start):
    error = InputError(f"{start}bad")
    assert of_value("l2.ways", "7", error) == "l2.ways=7: bad"
    assert is_about("l2.ways", "7", error) == bool(start)


def test_errors_about_costs_are_about_a_cost_that_is_varied():
    error = InputError("--set costs: no field 'exits'")
    assert is_about("costs.exits", "1", error)
    assert not is_about("seed", "1", error)
    assert of_value("seed", "1", error) == "seed=1: --set costs: no field 'exits'"
