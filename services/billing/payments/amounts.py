"""Nanos and the cents that cards are charged in, pure."""

from services.common.money import NANOS

CENT = NANOS // 100  # nanos
LEAST = (
    50 * CENT
)  # the least that Stripe charges in US dollars: https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts
MOST = 99_999_999 * CENT  # and the most


def whole(nanos: int) -> bool:
    """Whether an amount is of whole cents."""
    return nanos % CENT == 0


def chargeable(nanos: int) -> int:
    """The least amount of whole cents, nanos, that a card can be charged to bring in this one.

    Raises:
        ValueError: not positive, or more than a card can be charged at once.
    """
    if not 0 < nanos <= MOST:
        raise ValueError(f"no card is charged {nanos} nanos")
    return max(-(-nanos // CENT) * CENT, LEAST)


def to_cents(nanos: int) -> int:
    """Raises ValueError when a part of a cent would be lost."""
    if not whole(nanos):
        raise ValueError(f"{nanos} nanos are no whole cents")
    return nanos // CENT


def from_cents(cents: int) -> int:
    """Nanos."""
    return cents * CENT
