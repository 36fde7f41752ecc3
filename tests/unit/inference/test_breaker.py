"""The circuit breaker: opens after failures in a row, tries with one call, waits longer each time that fails."""

from services.inference.breaker import Breaker


def test_failures_in_a_row_open_it_and_one_call_tries():
    breaker = Breaker()
    for at in range(5):
        assert breaker.allows(at)
        breaker.failed(at)
    assert not breaker.allows(4.5)
    assert not breaker.allows(5.9)
    assert breaker.allows(6.1)
    assert not breaker.allows(6.2)
    breaker.failed(6.3)
    assert not breaker.allows(10.2)
    assert breaker.allows(10.4)
    breaker.succeeded()
    assert all(breaker.allows(10.4) for _ in range(3))


def test_a_success_between_failures_keeps_it_closed():
    breaker = Breaker()
    for at in range(20):
        breaker.failed(at)
        breaker.failed(at)
        breaker.succeeded()
    assert breaker.allows(20)


def test_it_never_waits_longer_than_a_minute():
    breaker, now = Breaker(), 0.0
    for _ in range(30):
        while not breaker.allows(now):
            now += 1
        breaker.failed(now)
    assert breaker.allows(now + 61)
