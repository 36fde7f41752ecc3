"""A circuit breaker: a version whose engine keeps failing is left alone for a while, and then tried with one call."""

from dataclasses import dataclass

_FAILURES = 5  # in a row that open it
_FIRST, _LONGEST = 2.0, 60.0  # seconds that it stays open; twice as long each time the try fails as well


@dataclass(slots=True)
class Breaker:
    """Times are any steady clock's, seconds."""

    failures: int = 0
    until: float = 0.0
    wait: float = _FIRST

    def allows(self, now: float) -> bool:
        """Whether a call may run. The first one after the wait is the try; those beside it wait on."""
        if self.failures < _FAILURES:
            return True
        if now < self.until:
            return False
        self.until = now + self.wait
        return True

    def succeeded(self) -> None:
        self.failures, self.wait = 0, _FIRST

    def failed(self, now: float) -> None:
        self.failures += 1
        if self.failures >= _FAILURES:
            if self.failures > _FAILURES:
                self.wait = min(self.wait * 2, _LONGEST)
            self.until = now + self.wait
