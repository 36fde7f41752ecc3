"""Parts of a period: they add up to it, and going there and back costs nothing."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.subscriptions.proration import Change, Period, after, change, next_end, unused, used

USD = 1_000_000_000
JANUARY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))

times = st.integers(0, 1_261_440_000).map(lambda s: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
prices = st.integers(0, 10**15)
spans = st.integers(1, 400 * 86_400).map(lambda s: timedelta(seconds=s))


@st.composite
def periods(draw: st.DrawFn) -> Period:
    start = draw(times)
    return Period(start, start + draw(spans))


@st.composite
def instants(draw: st.DrawFn) -> tuple[Period, datetime]:
    period = draw(periods())
    return period, period.start + timedelta(seconds=draw(st.integers(-10, period.seconds + 10)))


@given(instants(), prices)
def test_used_and_unused_are_the_whole(at: tuple[Period, datetime], price: int) -> None:
    period, instant = at
    assert used(price, period, instant) + unused(price, period, instant) == price
    assert 0 <= used(price, period, instant) <= price


@given(periods(), prices, st.lists(st.integers(0, 400 * 86_400), max_size=8))
def test_the_parts_between_any_instants_sum_to_the_whole(period: Period, price: int, cuts: list[int]) -> None:
    marks = [period.start, *sorted(min(period.start + timedelta(seconds=c), period.end) for c in cuts), period.end]
    parts = [used(price, period, b) - used(price, period, a) for a, b in pairwise(marks)]
    assert sum(parts) == price
    assert all(part >= 0 for part in parts)


@given(instants(), prices, prices)
def test_there_and_back_at_one_instant_nets_zero(at: tuple[Period, datetime], old: int, new: int) -> None:
    up, down = change(old, new, *at), change(new, old, *at)
    assert up.net + down.net == 0
    assert up.credit <= 0 <= up.charge


@given(instants(), prices, prices)
def test_what_is_paid_over_a_change_is_what_was_had(at: tuple[Period, datetime], old: int, new: int) -> None:
    period, instant = at
    paid = old + change(old, new, period, instant).net
    assert paid == used(old, period, instant) + unused(new, period, instant)


def test_half_a_period_is_half_its_price() -> None:
    assert change(20 * USD, 50 * USD, JANUARY, datetime(2026, 1, 16, 12, tzinfo=UTC)) == Change(-10 * USD, 25 * USD)
    assert change(20 * USD, 50 * USD, JANUARY, JANUARY.start).net == 30 * USD
    assert change(20 * USD, 50 * USD, JANUARY, JANUARY.end).net == 0


def test_a_period_without_a_second_is_none() -> None:
    with pytest.raises(ValueError, match=r"^a period ends after it starts$"):
        Period(JANUARY.start, JANUARY.start + timedelta(microseconds=999_999))


def test_months_end_on_the_day_of_their_anchor() -> None:
    anchor = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    ends = [after(anchor, n) for n in range(1, 14)]
    assert [(e.month, e.day) for e in ends][:4] == [(2, 28), (3, 31), (4, 30), (5, 31)]
    assert ends[-2:] == [datetime(2027, 1, 31, 9, 30, tzinfo=UTC), datetime(2027, 2, 28, 9, 30, tzinfo=UTC)]


@given(times, st.integers(0, 600))
def test_months_follow_each_other_without_a_gap(anchor: datetime, number: int) -> None:
    start = after(anchor, number)
    assert next_end(anchor, start) == after(anchor, number + 1)
    assert timedelta(days=27) < after(anchor, number + 1) - start < timedelta(days=32)


def test_a_period_counts_whole_seconds_from_its_start_to_its_end() -> None:
    second, part = timedelta(seconds=1), timedelta(microseconds=999_999)
    one = Period(JANUARY.start + part, JANUARY.start + second + part)
    assert (one.start, one.end, one.seconds) == (JANUARY.start, JANUARY.start + second, 1)
    ten = Period(JANUARY.start, JANUARY.start + 10 * second)
    for at, gone in (
        (-5 * second, 0),
        (timedelta(0), 0),
        (part, 0),
        (second, 1),
        (9 * second + part, 9),
        (11 * second, 10),
    ):
        assert ten.gone(ten.start + at) == gone
        assert used(1000, ten, ten.start + at) == gone * 100
        assert unused(1000, ten, ten.start + at) == 1000 - gone * 100


def test_a_month_that_began_between_two_anchors_ends_at_the_next() -> None:
    anchor = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    for start, end in (
        (datetime(2026, 2, 10, tzinfo=UTC), datetime(2026, 2, 28, 9, 30, tzinfo=UTC)),
        (datetime(2026, 2, 28, 9, 30, tzinfo=UTC), datetime(2026, 3, 31, 9, 30, tzinfo=UTC)),
        (datetime(2027, 2, 28, 10, tzinfo=UTC), datetime(2027, 3, 31, 9, 30, tzinfo=UTC)),
        (datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 2, 29, 9, 30, tzinfo=UTC)),
    ):
        assert next_end(anchor, start) == end
