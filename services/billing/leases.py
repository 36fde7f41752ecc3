"""How much credit one worker gets at a time, pure. What a lease reserves, and when it comes back, are the store's
statements: a wallet's `reserved` is always the sum of `granted − posted` over its leases that are not closed."""

from collections.abc import Mapping
from typing import Any

SLICES = 4  # a lease takes at most this part of what is free, so that several workers can serve one account


def available(wallet: Mapping[str, Any], credit: int) -> int:
    """Nanos that nobody holds, of a wallet and the credit beside it; below zero when more is owed than may be."""
    return int(wallet["balance"]) + int(wallet["credit_limit"]) + credit - int(wallet["reserved"])


def grant(free: int, minimum: int, wanted: int) -> int:
    """Nanos of a new lease, of `free` that nobody holds; 0 when the minimum is not to be had."""
    if free < minimum:
        return 0
    return max(minimum, min(wanted, free // SLICES))
