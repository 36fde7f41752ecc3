"""What payments do to the books, pure. Amounts in nanos."""

from services.billing.ledger import CLEARING, LOSS, PLATFORM, WALLET, Account, Posting

CLEARINGS = {"sandbox": CLEARING, "stripe": "stripe_clearing"}  # by provider: what it holds for the platform, negative
HELD = {"refund": Account(PLATFORM, "refunds"), "dispute": Account(PLATFORM, "disputes")}


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


def withheld(cause: str, kind: str, org_id: str, amount: int, taken: int) -> Posting:
    """Money that is to go back: `taken` of it comes from the wallet, and the rest is the platform's loss.

    Raises:
        ValueError: the amount is not positive, or more or less is taken than that.
    """
    _check(amount, taken)
    parts = ((Account(org_id, WALLET), -taken), (LOSS, taken - amount), (HELD[kind], amount))
    return Posting(cause, kind, tuple(part for part in parts if part[1]))


def paid_back(cause: str, kind: str, amount: int, provider: str) -> Posting:
    """Withheld money that has left through the provider."""
    _check(amount, amount)
    return Posting(f"{cause}:paid", f"{kind}_paid", ((HELD[kind], -amount), (clearing(provider), amount)))


def returned(cause: str, kind: str, org_id: str, amount: int, taken: int, provider: str, *, was_paid: bool) -> Posting:
    """Withheld money that did not leave, or came back from where it had gone: the wallet has again what was taken."""
    _check(amount, taken)
    source = clearing(provider) if was_paid else HELD[kind]
    parts = ((Account(org_id, WALLET), taken), (LOSS, amount - taken), (source, -amount))
    return Posting(f"{cause}:returned", f"{kind}_returned", tuple(part for part in parts if part[1]))


def _check(amount: int, taken: int) -> None:
    if amount <= 0 or not 0 <= taken <= amount:
        raise ValueError("money that goes back is positive, and no more of it comes from the wallet")
