"""What a payout is, pure. Amounts in nanos."""

from dataclasses import dataclass
from datetime import timedelta

from services.billing.ledger import PAYABLE, PLATFORM, Account, Posting
from services.billing.payments.amounts import CENT
from services.billing.payments.postings import clearing

PAYING = Account(PLATFORM, "payout_clearing")  # on its way

# From when on all postings of a time are there: those to a publisher do not lock its wallet.
SETTLED = timedelta(minutes=2)


def hold_of(days: int) -> timedelta:
    """How long earnings are held, which is at least until all of a time are there."""
    return max(timedelta(days=days), SETTLED)


@dataclass(frozen=True, slots=True)
class Sum:
    """`earned` since the payout before, `refunded` (or corrected; mostly less than 0) of it or of what was paid,
    `carried` of the payout before. Of all that `held` waits for disputes to end."""

    earned: int
    refunded: int
    carried: int
    held: int = 0

    @property
    def total(self) -> int:
        return self.earned + self.refunded + self.carried

    @property
    def amount(self) -> int:
        """What can be paid: whole cents, 0 or more."""
        return max(0, (self.total - self.held) // CENT * CENT)

    @property
    def left(self) -> int:
        """What is carried to the next payout."""
        return self.total - self.amount


def begun(payout_id: str, org_id: str, amount: int) -> Posting:
    """A payout leaves what is payable. Raises ValueError when it is not positive."""
    if amount <= 0:
        raise ValueError("a payout is positive")
    return Posting(payout_id, "payout", ((Account(org_id, PAYABLE), -amount), (PAYING, amount)))


def paid(payout_id: str, amount: int, provider: str) -> Posting:
    """It has left through the provider."""
    return Posting(f"{payout_id}:paid", "payout_paid", ((PAYING, -amount), (clearing(provider), amount)))


def returned(payout_id: str, org_id: str, amount: int) -> Posting:
    """It could not be paid, and is payable again."""
    return Posting(f"{payout_id}:returned", "payout_returned", ((PAYING, -amount), (Account(org_id, PAYABLE), amount)))


def call_refund(refund_id: str, charge: dict[Account, int]) -> Posting:
    """The reverse of a call's charge."""
    return Posting(refund_id, "call_refund", tuple((account, -amount) for account, amount in charge.items()))
