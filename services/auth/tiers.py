"""How much accounts and keys may call models: what tiers give, and what was set for one of them."""

from mercat.auth.v1 import auth_pb2
from mercat.common.v1 import limits_pb2

from services.auth.store import Row

# Calls a second, and calls at once after a rest.
TIERS = {
    auth_pb2.TIER_FREE: (50, 500),
    auth_pb2.TIER_STANDARD: (5_000, 20_000),
    auth_pb2.TIER_ENTERPRISE: (50_000, 200_000),
}


def of(calls_per_second: int | None, burst: int | None) -> limits_pb2.CallLimit | None:
    """A limit as its two columns say; None where there is none."""
    if calls_per_second is None or burst is None:
        return None
    return limits_pb2.CallLimit(calls_per_second=calls_per_second, burst=burst)


def of_account(row: Row) -> limits_pb2.CallLimit:
    """The limit of an account that is in force."""
    own = of(row["calls_per_second"], row["burst"])
    if own is not None:
        return own
    rate, burst = TIERS[row["tier"]]
    return limits_pb2.CallLimit(calls_per_second=rate, burst=burst)
