"""Where the answer about a time is read: days and hours that are rolled up, and the records of what is not. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # whose hours and days are UTC's


@dataclass(frozen=True)
class Source:
    """`span` is record, hour or day; from `start` until just before `until`."""

    span: str
    start: datetime
    until: datetime


def floor(moment: datetime, span: timedelta) -> datetime:
    """The start of the hour or day that a moment is in."""
    return moment - (moment - _EPOCH) % span


def ceiling(moment: datetime, span: timedelta) -> datetime:
    """The start of the first hour or day that begins at a moment or after it."""
    return floor(moment + span - timedelta(microseconds=1), span)


def sources(
    start: datetime, until: datetime, *, rolled: datetime, kept_from: datetime, days: bool = True
) -> list[Source]:
    """Together just the time asked for, each moment once. Every hour before `rolled` is rolled up. Of a time before
    `kept_from` there are no records: there a part of an hour is answered by the whole hour. `days`: whether days will
    do where there are whole ones."""
    if start < kept_from:
        start = floor(start, HOUR)
    if until < kept_from:
        until = ceiling(until, HOUR)
    first, last = ceiling(start, HOUR), min(floor(until, HOUR), rolled)
    if first >= last:
        return [Source("record", start, until)] if start < until else []
    return [
        s for s in (
            Source("record", start, first), *_rolled_up(first, last, days), Source("record", last, until)
        ) if s.start < s.until
    ]  # fmt: skip


def _rolled_up(first: datetime, last: datetime, days: bool) -> Iterator[Source]:
    day, end = ceiling(first, DAY), floor(last, DAY)
    if not days or day >= end:
        yield Source("hour", first, last)
        return
    yield Source("hour", first, day)
    yield Source("day", day, end)
    yield Source("hour", end, last)
