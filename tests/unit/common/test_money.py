"""Money: one rounding rule, exact everywhere."""

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
def test_a_share_and_the_rest_are_the_whole(amount, ppm):
    share = money.share(amount, ppm)
    assert 0 <= share <= amount
    assert share + (amount - share) == amount


@given(st.integers(-(10**18), 10**18))
def test_what_is_shown_can_be_read_back(nanos):
    assert money.parse(money.show(nanos).removesuffix(" USD")) == nanos


@pytest.mark.parametrize("text", ["", "-", "1.2.3", "1e5", "0.0000000001", "abc"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="not an amount"):
        money.parse(text)


def test_a_cost_past_int64_is_refused():
    with pytest.raises(OverflowError):
        money.cost([("rows", 10**15)], {"rows": 10**15})
