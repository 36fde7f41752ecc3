"""What a part of a paid period is worth, pure: by the second, as Stripe prorates
(https://docs.stripe.com/billing/subscriptions/prorations). Amounts in nanos, times UTC."""

import calendar
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.common.money import divide_half_even

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` until before `end`; both are cut to whole seconds.

    Raises:
        ValueError: it has no second.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", self.start.replace(microsecond=0))
        object.__setattr__(self, "end", self.end.replace(microsecond=0))
        if self.seconds <= 0:
            raise ValueError("a period ends after it starts")

    @property
    def seconds(self) -> int:
        return (self.end - self.start) // _SECOND

    def gone(self, at: datetime) -> int:
        """Whole seconds of it that have passed at an instant."""
        return min(max((at - self.start) // _SECOND, 0), self.seconds)


def used(price: int, period: Period, at: datetime) -> int:
    """What of a period's price was used up until an instant. Grows with time from 0 to the price, so that the parts of
    a period, taken as differences, always add up to it."""
    return divide_half_even(price * period.gone(at), period.seconds)


def unused(price: int, period: Period, at: datetime) -> int:
    """What of it is left: with `used` the whole price."""
    return price - used(price, period, at)


@dataclass(frozen=True, slots=True)
class Change:
    """Of a price within a period: `credit` (0 or less) for the rest of the old one, `charge` for that of the new one.
    There and back at one instant nets zero."""

    credit: int
    charge: int

    @property
    def net(self) -> int:
        return self.credit + self.charge


def change(old: int, new: int, period: Period, at: datetime) -> Change:
    """The proration of going from one price to another."""
    return Change(-unused(old, period, at), unused(new, period, at))


def after(anchor: datetime, months: int) -> datetime:
    """So many months after an instant, on its day of the month, or on the last one where the month is shorter: the
    31st of January is followed by the 28th of February and the 31st of March."""
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)


def next_end(anchor: datetime, start: datetime) -> datetime:
    """The end of the month that starts at `start`, where months are counted from the anchor."""
    months = (start.year - anchor.year) * 12 + start.month - anchor.month
    end = after(anchor, months)
    return end if end > start else after(anchor, months + 1)
