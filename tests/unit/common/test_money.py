"""Money: one rounding rule, exact everywhere."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common import money

AMOUNTS = st.integers(0, 10**15)


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**12))
def test_division_is_half_even(numerator, denominator):
    assert money.divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(
    st.lists(st.tuples(st.sampled_from(["requests", "rows", "input_bytes"]), AMOUNTS), max_size=4),
    st.integers(0, 10**6),
)
def test_a_cost_is_rounded_once(components, count):
    units = {"requests": 1, "rows": count}
    exact = Fraction(sum(price * units.get(meter, 0) for meter, price in components), 1_000_000)
    assert money.cost(components, units) == round(exact)  # Python rounds fractions half-even too


@given(AMOUNTS, st.integers(0, 1_000_000))
def test_a_share_is_a_part_of_the_whole_rounded_once(amount, ppm):
    share = money.share(amount, ppm)
    assert 0 <= share <= amount
    assert share == round(Fraction(amount * ppm, 1_000_000))


@given(st.integers(-(10**18), 10**18))
def test_what_is_shown_can_be_read_back(nanos):
    assert money.parse(money.show(nanos).removesuffix(" USD")) == nanos


@pytest.mark.parametrize(
    ("numerator", "denominator", "quotient"),
    [
        (1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (25, 10, 2), (35, 10, 4),  # halves, to the even one
        (2, 5, 0), (3, 5, 1), (-2, 5, 0), (-3, 5, -1), (10, 5, 2), (0, 5, 0), (24, 10, 2), (26, 10, 3),
    ],
)  # fmt: skip
def test_only_halves_go_to_the_even_one(numerator, denominator, quotient):
    assert money.divide_half_even(numerator, denominator) == quotient


def test_what_was_not_counted_costs_nothing():
    assert money.cost([("rows", 10**9), ("requests", 5_000_000)], {"requests": 2}) == 10
    assert money.cost([], {"requests": 2}) == 0


def test_a_share_is_of_a_million():
    assert [money.share(10**12, ppm) for ppm in (0, 1, 200_000, 1_000_000)] == [0, 10**6, 2 * 10**11, 10**12]


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [
        (0, "0.00"), (1, "0.000000001"), (-1, "-0.000000001"), (2_500_000, "0.0025"), (-1_500_000_000, "-1.50"),
        (50_000_000, "0.05"), (1_234_567_000_000_000, "1,234,567.00"), (10_000_000_000, "10.00"),
    ],
)  # fmt: skip
def test_amounts_are_shown_with_two_decimals_or_as_many_as_there_are(nanos, shown):
    assert money.show(nanos) == f"{shown} USD"
    assert money.show(nanos, "EUR") == f"{shown} EUR"
    assert money.parse(shown) == nanos


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("5", 5 * 10**9), ("+5", 5 * 10**9), ("-5", -5 * 10**9), (".5", 5 * 10**8), ("5.", 5 * 10**9),
        ("-.000000001", -1), ("12.50", 125 * 10**8), ("1,234,567.5", 12_345_675 * 10**8), ("007", 7 * 10**9),
    ],
)  # fmt: skip
def test_amounts_are_read_as_people_write_them(text, nanos):
    assert money.parse(text) == nanos


@pytest.mark.parametrize(
    "text",
    [
        "", "-", ".", ",", "1.2.3", "1e5", "0.0000000001", "abc", "X5", " 5", "5 USD", "²", "٣",
        "--5", "+-5", "-+5", "5-",  # one sign, and in front
        "12,50", "1,2", "1,,000", ",500", "1000,000", "1,000,", "1.5,000",  # a comma is between groups of three
    ],
)  # fmt: skip
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="^" + re.escape(f"not an amount: {text!r}; write it like 12.50") + "$"):
        money.parse(text)


def test_a_cost_past_int64_is_refused():
    assert money.cost([("rows", money.INT64_MAX)], {"rows": 10**6}) == money.INT64_MAX
    with pytest.raises(OverflowError, match=r"^a cost past int64 nanos$"):
        money.cost([("rows", money.INT64_MAX), ("requests", 10**6)], {"rows": 10**6, "requests": 1})
