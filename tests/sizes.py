"""How large the cases of tests/robustness are."""

from dataclasses import dataclass

WHOLE = 20_000  # calls of a case


@dataclass(frozen=True)
class Size:
    """Of each case: its calls. What is done to them, and how often, is in proportion."""

    calls: int

    def of(self, whole: int, least: int) -> int:
        """The part of `whole` that belongs to so many calls; at least `least`."""
        return max(least, min(whole, whole * self.calls // WHOLE))
