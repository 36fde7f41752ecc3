"""Where an answer is read: whatever is asked, each moment of it once."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.usage.sources import DAY, HOUR, Source, ceiling, floor, sources

BASE = datetime(2026, 2, 27, tzinfo=UTC)
moments = st.integers(0, 6 * 86_400_000).map(lambda ms: BASE + timedelta(milliseconds=ms))
hours = st.integers(-30, 170).map(lambda h: BASE + h * HOUR)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def _check(found: list[Source], start: datetime, until: datetime, rolled: datetime) -> None:
    at = start
    for source in found:
        assert source.start == at
        assert source.start < source.until
        at = source.until
        if source.span != "record":
            size = DAY if source.span == "day" else HOUR
            assert floor(source.start, size) == source.start
            assert floor(source.until, size) == source.until <= rolled
    assert at == max(until, start) or not found


@given(moments, moments, hours, st.booleans())
def test_the_parts_are_the_time_asked_for(start: datetime, until: datetime, rolled: datetime, days: bool) -> None:
    found = sources(start, until, rolled=rolled, kept_from=LONG_AGO, days=days)
    _check(found, start, until, rolled)
    assert bool(found) == (start < until)
    assert days or all(source.span != "day" for source in found)
    # Records are read of less than an hour, and of what is not rolled up.
    for source in found:
        if source.span == "record":
            assert source.until > rolled or source.until - source.start < 2 * HOUR


@given(moments, moments, st.integers(0, 6), hours)
def test_where_no_records_are_kept_only_rollups_are_read(
    start: datetime, until: datetime, kept: int, rolled: datetime
) -> None:
    kept_from = BASE + kept * DAY
    rolled = max(rolled, kept_from)
    found = sources(start, until, rolled=rolled, kept_from=kept_from)
    for source in found:
        assert source.span != "record" or source.start >= kept_from
    if start < until:
        assert found[0].start in (start, floor(start, HOUR))
        assert found[-1].until in (until, ceiling(until, HOUR))


def test_a_long_time_is_days() -> None:
    start, until = BASE + timedelta(minutes=90), BASE + timedelta(days=5, minutes=150)
    rolled = BASE + timedelta(days=5, hours=1)
    assert [(s.span, s.until - s.start) for s in sources(start, until, rolled=rolled, kept_from=LONG_AGO)] == [
        ("record", timedelta(minutes=30)), ("hour", 22 * HOUR), ("day", 4 * DAY), ("hour", HOUR),
        ("record", timedelta(minutes=90)),
    ]  # fmt: skip


def test_hours_and_days_begin_on_their_first_microsecond() -> None:
    least = timedelta(microseconds=1)
    for span in (HOUR, DAY):
        for moment, start, after in (
            (BASE, BASE, BASE), (BASE + least, BASE, BASE + span), (BASE + span - least, BASE, BASE + span),
        ):  # fmt: skip
            assert (floor(moment, span), ceiling(moment, span)) == (start, after)


def parts(start: timedelta, until: timedelta, rolled: timedelta, kept: timedelta | None = None, **how: bool) -> list:
    kept_from = LONG_AGO if kept is None else BASE + kept
    found = sources(BASE + start, BASE + until, rolled=BASE + rolled, kept_from=kept_from, **how)
    return [(s.span, s.start - BASE, s.until - BASE) for s in found]


def test_each_time_has_as_few_parts_as_there_can_be() -> None:
    half, none, long = HOUR / 2, timedelta(0), 9 * DAY
    assert parts(half, 3 * half, long) == [("record", half, 3 * half)], "no whole hour"
    assert parts(half, half, long) == parts(HOUR, half, long) == parts(HOUR, HOUR, long) == []
    assert parts(none, HOUR, long) == [("hour", none, HOUR)]
    assert parts(none, HOUR, none) == [("record", none, HOUR)]
    assert parts(none, 3 * HOUR, HOUR) == [("hour", none, HOUR), ("record", HOUR, 3 * HOUR)]
    assert parts(22 * HOUR, 26 * HOUR, long) == [("hour", 22 * HOUR, 26 * HOUR)], "over midnight, and no whole day"
    assert parts(none, DAY, long) == [("day", none, DAY)]
    assert parts(none, DAY, long, days=False) == [("hour", none, DAY)]
    assert parts(none, 3 * DAY, DAY) == [("day", none, DAY), ("record", DAY, 3 * DAY)]


def test_a_part_of_an_hour_without_records_is_the_whole_hour() -> None:
    half, none, kept = HOUR / 2, timedelta(0), DAY + HOUR / 2
    assert parts(half, 3 * half, 9 * DAY, DAY) == [("hour", none, 2 * HOUR)]
    assert parts(half, 2 * DAY, 9 * DAY, DAY) == [("day", none, 2 * DAY)]
    # Of the moment from which on they are kept there are records.
    assert parts(kept, 2 * DAY, 9 * DAY, kept) == [
        ("record", kept, DAY + HOUR), ("hour", DAY + HOUR, 2 * DAY),
    ]  # fmt: skip
    assert parts(none, kept, 9 * DAY, kept) == [("day", none, DAY), ("record", DAY, kept)]
