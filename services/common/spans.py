"""The time a request asks about: from `start_time` until just before `end_time`, either of which may be left out."""

from datetime import UTC, datetime
from typing import Any

from services.common.errors import InvalidFields, Violation

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)  # before everything that was ever recorded


def span(request: Any, until: datetime) -> tuple[datetime, datetime]:
    """The start and the end of a request's time; `until` where it names no end.

    Raises:
        InvalidFields: a time that is none, or an end before the start.
    """
    start, end = _moment(request, "start_time", BEGINNING), _moment(request, "end_time", until)
    if end < start:
        raise InvalidFields(violations=[Violation("end_time", "must not be before start_time")])
    return start, end


def _moment(request: Any, field: str, default: datetime) -> datetime:
    if not request.HasField(field):
        return default
    try:
        moment: datetime = getattr(request, field).ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidFields(violations=[Violation(field, "is not a time of the years 1 to 9999")]) from None
    return moment
