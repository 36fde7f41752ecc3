"""Sums of calls by the first digits of their ids, of which usage and the ledger each make their own. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

DIGITS = 7  # of 26: those of ids within 2^15 milliseconds are alike
_MANY = 100_000  # calls of a half
_WIDTH = 15  # bits of milliseconds
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # of the year 9999


@dataclass
class Sums:
    """Calls, nanos and checksum (an exclusive or, so in any order) by digits."""

    _sums: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def add(self, digits: str, calls: int, nanos: int, checksum: int) -> None:
        before = self._sums.get(digits, (0, 0, 0))
        self._sums[digits] = (before[0] + calls, before[1] + nanos, before[2] ^ checksum)

    def middle(self) -> datetime | None:
        """About when half of the calls had been made; None: they are few."""
        left = sum(calls for calls, _, _ in self._sums.values()) / 2
        if left < _MANY:
            return None
        for digits in sorted(self._sums):
            left -= self._sums[digits][0]
            if left <= 0:
                break
        time = time_of(digits)
        return time[1] if time is not None else None

    def unlike(self, other: "Sums") -> list[str]:
        """The digits of which they do not say the same, in order."""
        return sorted(d for d in self._sums.keys() | other._sums.keys() if self._of(d) != other._of(d))

    def _of(self, digits: str) -> tuple[int, int, int]:
        return self._sums.get(digits, (0, 0, 0))


def time_of(digits: str) -> tuple[datetime, datetime] | None:
    """From when until when ids that begin so are made; None: no id does."""
    value = 0
    for digit in digits:
        if digit not in _BASE32:
            return None
        value = value * 32 + _BASE32.index(digit)
    first, until = value << _WIDTH, (value + 1) << _WIDTH
    if len(digits) != DIGITS or until > _LAST_MS:
        return None
    return _EPOCH + timedelta(milliseconds=first), _EPOCH + timedelta(milliseconds=until)


def pages(names: list[str], size: int) -> Iterator[list[str]]:
    for at in range(0, len(names), size):
        yield names[at : at + size]
