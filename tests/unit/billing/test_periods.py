"""Days and months of UTC."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.billing.v1 import budgets_pb2
from mercat.usage.v1 import usage_pb2

from services.billing.budgets import periods, spent
from services.billing.budgets.spent import counts_as
from services.billing.budgets.store import Budget, Spending
from services.common import ids

DAILY, MONTHLY = budgets_pb2.BUDGET_PERIOD_DAILY, budgets_pb2.BUDGET_PERIOD_MONTHLY
T0 = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


@given(st.dates(date(1990, 1, 1), date(2200, 1, 1)), st.sampled_from((DAILY, MONTHLY)))
def test_a_day_lies_in_one_period_and_the_next_begins_where_it_ends(day: date, period: int) -> None:
    first, after = periods.start(period, day), periods.end(period, day)
    assert first <= day < after
    assert periods.start(period, after) == after
    assert periods.start(period, after - timedelta(days=1)) == first
    assert periods.midnight(after) - periods.midnight(first) == after - first
    if period == MONTHLY:
        assert (first.day, after.day) == (1, 1)


@pytest.mark.parametrize(
    ("period", "day", "first", "after"),
    [
        (DAILY, date(2026, 1, 31), date(2026, 1, 31), date(2026, 2, 1)),
        (MONTHLY, date(2026, 1, 31), date(2026, 1, 1), date(2026, 2, 1)),
        (MONTHLY, date(2028, 2, 1), date(2028, 2, 1), date(2028, 3, 1)),
        (MONTHLY, date(2026, 12, 15), date(2026, 12, 1), date(2027, 1, 1)),
    ],
)
def test_periods_are_days_and_months(period: int, day: date, first: date, after: date) -> None:
    assert (periods.start(period, day), periods.end(period, day)) == (first, after)
    assert periods.midnight(day) == datetime(day.year, day.month, day.day, tzinfo=UTC)


def record(lease_id: str = "", arrived: datetime = T0, cost: int = 5) -> usage_pb2.UsageRecord:
    made = usage_pb2.UsageRecord(
        request_id=ids.new("req"), org_id="org_a", key_id="key_a", model_id="mdl_a", lease_id=lease_id, cost_nanos=cost
    )
    made.timestamp.FromDatetime(arrived)
    return made


@pytest.mark.parametrize("made", [T0, T0 + timedelta(seconds=1)])
def test_a_call_counts_into_the_day_of_its_lease(made: datetime) -> None:
    lease_id = ids.new("lse", int(made.timestamp() * 1000))
    for arrived in (T0, T0 - timedelta(days=5), T0 + timedelta(seconds=2)):
        assert counts_as(record(lease_id, arrived)) == Spending("org_a", made.date(), "key_a", "mdl_a")
    for nothing in ("", "lse_x"):
        assert counts_as(record(nothing, made)).day == made.date()
        assert periods.set_aside(record(nothing, made)) == (made, made.date())
    assert periods.set_aside(record(lease_id)) == (made, made.date())


def test_what_is_compared_begins_with_last_month() -> None:
    assert spent.since(datetime(2026, 3, 15, tzinfo=UTC)) == date(2026, 2, 1)
    assert spent.since(datetime(2026, 1, 1, tzinfo=UTC)) == date(2025, 12, 1)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.lists(st.integers(1, 1000)))
def test_a_budget_says_what_is_free_and_which_thresholds_are_reached(
    limit: int, used: int, held: int, thresholds: list[int]
) -> None:
    budget = Budget(
        "bdg_a", "org_a", "b", "key_a", "", "", MONTHLY, limit, False, tuple(thresholds), used, held, T0.date()
    )
    assert budget.free == limit - used - held
    assert budget.reached == tuple(p for p in thresholds if used / limit * 100 >= p - 1e-6 and used * 100 >= p * limit)
    assert (budget.start, budget.resets_at) == (date(2026, 1, 1), datetime(2026, 2, 1, tzinfo=UTC))
    assert budget.counts("key_a", "mdl_x")
    assert not budget.counts("key_b", "mdl_x")
