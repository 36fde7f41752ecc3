"""How much accounts may call models: what tiers give, and what was set for one of them."""

from mercat.auth.v1 import auth_pb2
from mercat.common.v1 import limits_pb2

from services.auth.store import Row
from services.common import call_limits

_Limit, _Quota = limits_pb2.CallLimit, limits_pb2.CallQuota
TIERS = {
    auth_pb2.TIER_FREE: _Limit(
        calls_per_second=50, burst=500, concurrent_calls=128,
        daily=_Quota(soft=40_000, hard=50_000), monthly=_Quota(soft=400_000, hard=500_000),
    ),
    auth_pb2.TIER_STANDARD: _Limit(calls_per_second=5_000, burst=20_000, concurrent_calls=1_000),
    auth_pb2.TIER_ENTERPRISE: _Limit(calls_per_second=50_000, burst=200_000, concurrent_calls=10_000),
}  # fmt: skip


def of_account(row: Row) -> limits_pb2.CallLimit:
    """The limit of an account that is in force: what its own does not say is its tier's."""
    limit = _Limit()
    limit.CopyFrom(TIERS[row["tier"]])
    own = call_limits.read(row["call_limit"])
    if own is not None:
        for name in ("daily", "monthly"):
            if own.HasField(name):
                limit.ClearField(name)  # as a whole, not merged
        limit.MergeFrom(own)
    return limit
