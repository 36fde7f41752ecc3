"""Months of UTC."""

import calendar
from datetime import UTC, datetime, timedelta


def month_of(moment: datetime) -> datetime:
    """The start of an instant's month."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(moment: datetime) -> datetime:
    """The start of the month after an instant's."""
    month = month_of(moment)
    return month + timedelta(days=calendar.monthrange(month.year, month.month)[1])
