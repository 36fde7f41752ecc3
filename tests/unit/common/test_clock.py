"""The test clock: processes of one home see one time, which only goes ahead."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.common import clock, ids
from services.common.settings import SettingsError

DAY = timedelta(days=1)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    own = clock._Ahead.nanos
    yield tmp_path
    clock._Ahead.nanos = own


def close(a: datetime, b: datetime) -> bool:
    return abs(a - b) < timedelta(seconds=20)


def test_what_is_recorded_follows_and_what_is_held_does_not(home: Path) -> None:
    clock.follow(home, True)
    said = clock.move(31 * DAY, home)
    system = clock.SystemClock()
    for now in (said, system.now(), ids.timestamp(ids.new("req")), datetime.fromtimestamp(clock.time_ns() / 1e9, UTC)):
        assert close(now, datetime.now(UTC) + 31 * DAY)
    assert close(system.machine(), datetime.now(UTC))


def test_every_process_of_a_home_sees_a_move_at_once_and_after_a_start(home: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from services.common import clock\n"
        "clock.follow(Path(sys.argv[1]), True)\n"
        "for line in sys.stdin: print(clock.SystemClock().now().isoformat(), flush=True)"
    )
    clock.follow(home, True)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for days in (0, 31, 62):
            if days:
                clock.move(31 * DAY, home)
            other.stdin.write("?\n")
            assert close(datetime.fromisoformat(other.stdout.readline().strip()), datetime.now(UTC) + days * DAY)
        other.stdin.close()
    clock.follow(home, True)
    assert close(clock.SystemClock().now(), datetime.now(UTC) + 62 * DAY)


def test_time_does_not_go_back_nor_for_ever(home: Path) -> None:
    clock.follow(home, True)
    for wrong in (-DAY, 300 * 365 * DAY):
        with pytest.raises(ValueError, match="clock"):
            clock.move(wrong, home)
    assert close(clock.SystemClock().now(), datetime.now(UTC))


def test_a_home_is_not_moved_without_a_test_clock_and_not_left_once_it_has_one(home: Path) -> None:
    clock.follow(home, False)
    with pytest.raises(FileNotFoundError):
        clock.move(DAY, home)
    assert list(home.iterdir()) == []
    clock.follow(home, True)
    with pytest.raises(SettingsError, match="MERCAT_TEST_CLOCK"):
        clock.check(home, False)
