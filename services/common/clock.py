"""Time, injected, so that months can pass in a test.

A platform that was started with `MERCAT_TEST_CLOCK=true` has a clock that can be moved ahead: nanoseconds in
the file `test-clock` of its home, which every process maps into its memory, so that all of them see a move at once."""

import mmap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from services.common.settings import SettingsError

FILE = "test-clock"


class Clock(Protocol):
    """Tells the time: `now` for what is recorded, `machine` for what processes hold for seconds and renew, which a move
    must not take from them, and for what others date, `monotonic` for what is measured."""

    def now(self) -> datetime: ...

    def machine(self) -> datetime: ...

    def monotonic(self) -> float: ...


class SystemClock:
    """The machine's clock, UTC, and how far the test clock is ahead of it."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(microseconds=_Ahead.nanos[0] // 1000)

    def machine(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class _Ahead:
    nanos = memoryview(bytearray(8)).cast("q")
    movable = False


def time_ns() -> int:
    """`time.time_ns`, moved as `SystemClock.now` is: for ids, and for what is told by them."""
    return time.time_ns() + _Ahead.nanos[0]


def check(home: Path, test_clock: bool) -> None:
    """Raises SettingsError when a home whose time was moved would go back to the machine's: its books have dates of
    then."""
    if not test_clock and (home / FILE).exists():
        raise SettingsError(f"{home} has a test clock: set MERCAT_TEST_CLOCK=true, or use another home")


def follow(home: Path, test_clock: bool) -> None:
    """From here on this process lives by the home's clock. Raises SettingsError as `check`."""
    check(home, test_clock)
    if test_clock:
        with (home / FILE).open("ab") as file:
            if not file.tell():
                file.write(bytes(8))
        _Ahead.nanos, _Ahead.movable = _mapped(home / FILE), True


def is_moved() -> bool:
    """Whether time may move ahead, or has."""
    return _Ahead.movable or _Ahead.nanos[0] > 0


def move(by: timedelta, home: Path | None = None) -> datetime:
    """Moves the clock of a home ahead, or this process's own; answers the time it is then.

    Raises:
        ValueError: the clock would go back, or more than two centuries ahead.
        OSError: the home has no test clock.
    """
    nanos = _Ahead.nanos if home is None else _mapped(home / FILE)
    ahead = nanos[0] + by // timedelta(microseconds=1) * 1000
    if by < timedelta():
        raise ValueError("the clock only goes ahead")
    if ahead > 200 * 365 * 86_400 * 10**9:
        raise ValueError("the clock does not go that far")
    nanos[0] = ahead
    return datetime.now(UTC) + timedelta(microseconds=ahead // 1000)


def _mapped(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
