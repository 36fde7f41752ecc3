"""Which grants a call spends, and to which comes back what it should not have, pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Grant:
    """What is left of a grant, nanos; `expires_at` empty: it never does."""

    grant_id: str
    remaining: int
    priority: int
    expires_at: datetime | None
    created_at: datetime


def in_order(grants: Iterable[Grant]) -> list[Grant]:
    """The lowest priority first, then what expires first, then the oldest."""
    return sorted(grants, key=lambda g: (g.priority, g.expires_at or _NEVER, g.created_at, g.grant_id))


def burn(grants: Iterable[Grant], cost: int, moment: datetime) -> list[tuple[str, int]]:
    """Spends up to `cost` nanos of grants that are in order, of those that had not expired at a moment.

    Returns:
        What was spent of which, nanos: together at most the cost, and less only when no more is left.
    """
    burnt: list[tuple[str, int]] = []
    for grant in grants:
        if not cost:
            break
        part = min(cost, grant.remaining)
        if part and (grant.expires_at is None or grant.expires_at > moment):
            grant.remaining -= part
            cost -= part
            burnt.append((grant.grant_id, part))
    return burnt


def give_back(burnt: Iterable[Grant], amount: int) -> list[tuple[str, int]]:
    """Gives `amount` nanos back to grants of which a call has spent what `remaining` says, in the order in which it
    did: the last that was spent comes back first, so that what is left is what a call that cost less would have spent.

    Returns:
        What comes back to which: together the amount, or all that was spent.
    """
    back: list[tuple[str, int]] = []
    for grant in reversed(list(burnt)):
        part = min(amount, grant.remaining)
        if part:
            amount -= part
            back.append((grant.grant_id, part))
    return back
