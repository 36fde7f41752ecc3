"""Days and months of UTC, pure: what a call counts into, and when that ends."""

import calendar
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from mercat.billing.v1 import budgets_pb2
from mercat.usage.v1 import usage_pb2

from services.common import ids

NAMES: dict[int, str] = {budgets_pb2.BUDGET_PERIOD_DAILY: "daily", budgets_pb2.BUDGET_PERIOD_MONTHLY: "monthly"}


def start(period: int, day: date) -> date:
    """The first day of the period (BudgetPeriod) that a day lies in."""
    return day.replace(day=1) if period == budgets_pb2.BUDGET_PERIOD_MONTHLY else day


def end(period: int, day: date) -> date:
    """The first day of the next one."""
    if period == budgets_pb2.BUDGET_PERIOD_MONTHLY:
        day = day.replace(day=calendar.monthrange(day.year, day.month)[1])
    return day + timedelta(days=1)


def midnight(day: date) -> datetime:
    """When a day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@lru_cache(10_000)
def _made(lease_id: str) -> tuple[datetime, date] | None:
    try:
        made = ids.timestamp(lease_id)
    except ValueError:
        return None
    return made, made.date()


def set_aside(r: usage_pb2.UsageRecord) -> tuple[datetime, date]:
    """When the money of a call was set aside, and the day: when its lease was made, or else when the call arrived. The
    calls of a job arrive, by their ids, when the job was made, which may be long before they run."""
    made = _made(r.lease_id)
    if made is None:
        arrived: datetime = r.timestamp.ToDatetime(UTC)
        return arrived, arrived.date()
    return made
