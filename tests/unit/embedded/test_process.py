"""When a process that died is started again."""

from itertools import accumulate

import pytest

from services.embedded.process import BACKOFF_FIRST, pause_before_restart

LONGEST = 10.0


def pauses(*served: float, longest: float = LONGEST) -> list[float]:
    """Of a process that answered so long each time before it died."""
    return list(accumulate(served, lambda before, s: pause_before_restart(before, s, longest), initial=0.0))[1:]


def test_one_that_never_answers_waits_twice_as_long_each_time() -> None:
    assert pauses(*[0.0] * 8) == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
    assert pauses(*[0.0] * 4, longest=0.5) == pytest.approx([0.2, 0.4, 0.5, 0.5])


def test_one_that_answered_is_back_at_once_however_often_it_is_killed() -> None:
    assert pauses(*[0.7] * 50) == [BACKOFF_FIRST] * 50


def test_one_that_answers_for_less_than_it_was_away_waits_longer() -> None:
    assert pauses(*[0.1] * 4) == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert pauses(0.0, 0.0, 0.0, 0.7, 0.9, 1.7) == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4])


def test_one_that_answers_again_is_forgiven() -> None:
    assert pauses(0.0, 0.0, 0.0, 0.9, 0.0) == pytest.approx([0.2, 0.4, 0.8, 0.2, 0.4])
