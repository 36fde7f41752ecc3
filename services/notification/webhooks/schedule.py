"""When a delivery is tried, and when an endpoint is left alone. Pure."""

from collections.abc import Callable
from datetime import datetime, timedelta

# Before each further attempt, as Standard Webhooks recommends: ten attempts within 75 hours and 35 minutes.
WAITS = (
    timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=5),
    timedelta(hours=10), timedelta(hours=14), timedelta(hours=20), timedelta(hours=24),
)  # fmt: skip
JITTER = 0.2  # a wait is longer by up to this part of it
# A delivery that was never tried so often, because its endpoint was left alone, ends after this.
LONGEST = sum(WAITS, timedelta()) * (1 + JITTER)
# Failures in a row from which on an endpoint is left alone, for ever longer, and then tried with one delivery.
FAILURES = 5
_PAUSES = (timedelta(seconds=10), timedelta(minutes=10))


def next_attempt(tries: int, now: datetime, chance: Callable[[], float]) -> datetime | None:
    """When what was tried so often is tried again; None: no more. `chance`: from 0 to 1."""
    if tries > len(WAITS):
        return None
    wait: timedelta = WAITS[tries - 1] * (1 + JITTER * chance())
    return now + wait


def pause(failures: int, now: datetime) -> datetime | None:
    """Until when an endpoint that failed so often in a row is left alone; None: it is not."""
    if failures < FAILURES:
        return None
    first, longest = _PAUSES
    return now + min(first * (1 << min(failures - FAILURES, 10)), longest)
