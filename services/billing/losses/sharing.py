"""Whose loss it is when money that paid calls goes back to the card it came from, pure. Amounts in nanos."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from services.billing.ledger import LOSS, PAYABLE, Account, Posting
from services.common.money import divide_half_even


class Paid(NamedTuple):
    """A call as it stands, corrections and all: what the wallet paid of it, what the publisher earned of its whole
    cost, and that cost."""

    posting_id: str
    publisher_org_id: str
    paid: int
    earned: int
    cost: int


@dataclass(slots=True)
class Share:
    """Of a publisher: how many of its calls the money paid, and what they brought it of that."""

    calls: int = 0
    amount: int = 0


@dataclass(slots=True)
class Tracing:
    """Follows money that was spent through calls, the newest first, until all of it is found. What publishers did not
    earn of it is the platform's own loss: its fees, and what no call explains."""

    left: int
    first: str = ""  # the oldest posting that was looked at
    last: str = ""  # and the newest
    shares: dict[str, Share] = field(default_factory=dict)

    def follow(self, calls: Iterable[Paid]) -> None:
        """`calls`: newest first, each older than those before."""
        for call in calls:
            if not self.left:
                return
            self.first, self.last = call.posting_id, self.last or call.posting_id
            part = min(self.left, call.paid)
            if part <= 0:
                continue  # corrected down to nothing
            self.left -= part
            share = self.shares.setdefault(call.publisher_org_id, Share())
            share.calls += 1
            share.amount += divide_half_even(call.earned * part, call.cost)


def charged(reversal_id: str, publisher_org_id: str, amount: int) -> Posting:
    """A publisher bears its share of a dispute that is lost.

    Raises:
        ValueError: it is not positive.
    """
    _check(amount)
    entries = ((Account(publisher_org_id, PAYABLE), -amount), (LOSS, amount))
    return Posting(_cause(reversal_id, "shared", publisher_org_id), "chargeback", entries)


def returned(reversal_id: str, publisher_org_id: str, amount: int) -> Posting:
    """It has it again, since the dispute was won after all. Raises ValueError."""
    _check(amount)
    entries = ((Account(publisher_org_id, PAYABLE), amount), (LOSS, -amount))
    return Posting(_cause(reversal_id, "unshared", publisher_org_id), "chargeback_returned", entries)


def causes(reversal_id: str, publisher_org_id: str) -> tuple[str, str]:
    """Those of both postings."""
    return _cause(reversal_id, "shared", publisher_org_id), _cause(reversal_id, "unshared", publisher_org_id)


def _cause(reversal_id: str, what: str, publisher_org_id: str) -> str:
    """A posting is named after its cause from the last underscore on: that must be the reversal's."""
    return f"{reversal_id}:{what}:{publisher_org_id.rpartition('_')[2]}"


def _check(amount: int) -> None:
    if amount <= 0:
        raise ValueError("a share of a loss is positive")
