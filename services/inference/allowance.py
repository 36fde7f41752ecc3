"""What a call needs to be allowed: a call of each bucket and quota, and a slot, of its account, its key and its model,
where these have such limits."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from mercat.auth.v1 import auth_pb2
from mercat.common.v1 import limits_pb2
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.common.limits import ENDLESS, Bucket, Limit
from services.common.months import month_of, next_month
from services.common.rpc.channels import InternalChannel


class Limited(NamedTuple):
    """What a limit is of, its id, the limit, and the organisation that hears of a quota's end."""

    name: str
    subject: str
    limit: limits_pb2.CallLimit
    org_id: str
    model: str = ""


Limits = tuple[Limited, ...]


def limits(caller: auth_pb2.Principal, deployment: registry_pb2.Deployment) -> Limits:
    """The limits of a call."""
    found: Limits = ()
    if caller.HasField("account_limit"):
        found = (Limited("account", caller.org_id, caller.account_limit, caller.org_id),)
    if caller.HasField("key_limit"):
        found += (Limited("key", caller.key_id, caller.key_limit, caller.org_id),)
    if deployment.HasField("limit"):
        found += (Limited("model", deployment.model_id, deployment.limit, deployment.org_id, deployment.model),)
    return found


def slots(limited: Limits) -> list[tuple[str, str, int]]:
    """Of what, its id, and calls at a time."""
    return [(own.name, own.subject, n) for own in limited if (n := own.limit.concurrent_calls)]


def buckets(limited: Limits, now: datetime) -> list[Bucket]:
    """What a call at a time takes one of."""
    found: list[Bucket] = []
    for name, subject, limit, org_id, model in limited:
        if limit.calls_per_second:
            found.append(Bucket(Limit(name, limit.calls_per_second, limit.burst), subject))
        for period in ("daily", "monthly"):
            quota: limits_pb2.CallQuota = getattr(limit, period)
            if quota.soft or quota.hard:
                start, until = span(period, now)
                of = Limit(f"{name}_{period}", 0, quota.hard or ENDLESS, soft=quota.soft)
                found.append(Bucket(of, f"{subject}:{start:%Y-%m-%d}", until.timestamp(), org_id, model))
    return found


def span(period: str, now: datetime) -> tuple[datetime, datetime]:
    """The day or the month, UTC, that a time is in."""
    if period == "daily":
        start = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return start, start + timedelta(days=1)
    return month_of(now), next_month(now)


class Recorded:
    """Asks usage what was recorded."""

    def __init__(self, channel: InternalChannel) -> None:
        self._usage = usage_pb2_grpc.SettlementServiceStub(channel)

    async def count(self, bucket: Bucket, before: float) -> int:
        """Calls of a quota's period that were recorded before a time, seconds since 1970."""
        name, _, _ = bucket.limit.name.partition("_")
        subject, _, start = bucket.subject.partition(":")
        request = usage_pb2.CountCallsRequest(
            org_id=subject if name == "account" else "",
            key_id=subject if name == "key" else "",
            model_id=subject if name == "model" else "",
        )
        request.start_time.FromDatetime(datetime.fromisoformat(start).replace(tzinfo=UTC))
        request.end_time.FromDatetime(datetime.fromtimestamp(before, UTC))
        answer: usage_pb2.CountCallsResponse = await self._usage.CountCalls(request, timeout=30)
        return answer.calls
