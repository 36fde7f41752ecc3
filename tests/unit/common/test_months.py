"""Months of UTC."""

from datetime import UTC, datetime, timedelta, timezone

from services.common.months import month_of, next_month


def test_a_month_is_from_its_first_midnight_to_the_next() -> None:
    for moment, start, end in (
        (datetime(2026, 1, 31, 23, 59, 59, 999_999, UTC), (2026, 1), (2026, 2)),
        (datetime(2026, 2, 1, tzinfo=UTC), (2026, 2), (2026, 3)),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), (2028, 2), (2028, 3)),
        (datetime(2026, 12, 1, tzinfo=UTC), (2026, 12), (2027, 1)),
        (datetime(2026, 5, 1, 1, tzinfo=timezone(timedelta(hours=2))), (2026, 4), (2026, 5)),
    ):
        assert month_of(moment) == datetime(*start, 1, tzinfo=UTC)
        assert month_of(moment).tzinfo is UTC
        assert next_month(moment) == datetime(*end, 1, tzinfo=UTC)
