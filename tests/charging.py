"""Calls as the postings that they are."""

from services.billing import ledger
from services.billing.ledger import Posting


def charge(cause: str, consumer: str, publisher: str, cost: int, fee_ppm: int, credit: int = 0) -> Posting:
    """Raises ValueError as `ledger.split`."""
    entries = zip(ledger.parties(consumer, publisher), ledger.split(cost, fee_ppm, credit), strict=True)
    return Posting(cause, "charge", tuple(entry for entry in entries if entry[1]))
