"""What payments do to the books, pure. Amounts in nanos."""

from services.billing.ledger import CLEARING, PLATFORM, WALLET, Account, Posting

CLEARINGS = {"sandbox": CLEARING, "stripe": "stripe_clearing"}  # by provider: what it holds for the platform, negative


def clearing(provider: str) -> Account:
    """The account of the money that lies with a provider."""
    return Account(PLATFORM, CLEARINGS[provider])


def paid_in(payment_id: str, org_id: str, amount: int, provider: str) -> Posting:
    """A payment that succeeded: the wallet has the money, which lies with the provider.

    Raises:
        ValueError: the amount is not positive.
    """
    if amount <= 0:
        raise ValueError("a payment is positive")
    return Posting(payment_id, "payment", ((Account(org_id, WALLET), amount), (clearing(provider), -amount)))
