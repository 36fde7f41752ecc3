"""`mercat limits`: how much accounts, keys and models may be called."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from mercat.auth.v1 import auth_pb2
from mercat.common.v1 import limits_pb2
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.session import Refusal

_TIERS = {auth_pb2.Tier.Name(tier).removeprefix("TIER_").lower(): tier for tier in auth_pb2.Tier.values() if tier}

Rate = Annotated[int, typer.Option(help="Calls a second.", min=0)]
Burst = Annotated[int, typer.Option(help="Calls at once after a rest; twice the rate unless given.", min=0)]
Concurrent = Annotated[int, typer.Option(help="Calls under way at a time.", min=0)]
Daily = Annotated[
    str, typer.Option(help="Calls a day (UTC): 1000, or 800:1000 to be warned from 800 on.", metavar="CALLS")
]
Monthly = Annotated[str, typer.Option(help="Calls a month (UTC), in the same way.", metavar="CALLS")]
Remove = Annotated[bool, typer.Option("--remove", help="Takes the limit away.")]


def register(app: typer.Typer) -> None:
    limits = typer.Typer(
        help="How much accounts, keys and models may be called.", no_args_is_help=True, rich_markup_mode="rich"
    )
    for function in (show, key, model, account):
        limits.command()(command(function))
    app.add_typer(limits, name="limits")


def _limit(
    rate: int, burst: int, concurrent: int, daily: str, monthly: str, *, remove: bool
) -> limits_pb2.CallLimit | None:
    return None if remove else given_limit(rate, burst, concurrent, daily, monthly)


def given_limit(rate: int, burst: int, concurrent: int, daily: str, monthly: str) -> limits_pb2.CallLimit:
    """Refusal when none is given."""
    limit = limits_pb2.CallLimit(calls_per_second=rate, burst=burst or 2 * rate, concurrent_calls=concurrent)
    for name, given in (("daily", daily), ("monthly", monthly)):
        if given:
            getattr(limit, name).CopyFrom(_quota(name, given))
    if not limit.ByteSize():
        raise Refusal("There is no limit to set.", "give --rate, --concurrent, --daily or --monthly, or --remove")
    return limit


def _quota(name: str, given: str) -> limits_pb2.CallQuota:
    """`HARD` or `SOFT:HARD`, either side empty."""
    soft, _, hard = given.rpartition(":")
    try:
        return limits_pb2.CallQuota(soft=int(soft or 0), hard=int(hard or 0))
    except ValueError:
        raise typer.BadParameter(f"--{name} {given}: give calls as 1000, or as 800:1000 to be warned before") from None


def said(limit: limits_pb2.CallLimit) -> str:
    parts: list[str] = []
    if limit.calls_per_second:
        parts.append(f"{limit.calls_per_second:,} calls a second, {limit.burst:,} at once")
    if limit.concurrent_calls:
        parts.append(f"{limit.concurrent_calls:,} under way")
    for name, quota in (("day", limit.daily), ("month", limit.monthly)):
        warned = f"warned from {quota.soft:,}" if quota.soft else ""
        if quota.hard:
            parts.append(f"{quota.hard:,} a {name}" + (f" ({warned})" if warned else ""))
        elif warned:
            parts.append(f"{warned} a {name}")
    return "; ".join(parts)


def _calls(session: Session, since: datetime) -> int:
    request = usage_pb2.SummarizeUsageRequest()
    request.start_time.FromDatetime(since)
    answer: usage_pb2.SummarizeUsageResponse = session.client.usage.SummarizeUsage(request)
    return answer.calls


def show(session: Session) -> None:
    """Shows the limits of your account and your keys.

    Example: mercat limits show
    """
    answer = session.client.limits.GetLimits(auth_pb2.GetLimitsRequest())
    if session.json:
        output.say_json(answer)
        return
    tier = auth_pb2.Tier.Name(answer.account.tier).removeprefix("TIER_").lower()
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    used = f"{_calls(session, now):,} today, {_calls(session, now.replace(day=1)):,} this month"
    output.facts([("tier", tier), ("account", said(answer.account.limit)), ("calls", used)])
    output.table(
        ["key", "name", "limit"], [(k.key_id, k.name, said(k.limit)) for k in answer.api_keys],
        empty="No key has a limit of its own.",
    )  # fmt: skip


def key(
    session: Session,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id, key_….")],
    rate: Rate = 0, burst: Burst = 0, concurrent: Concurrent = 0, daily: Daily = "", monthly: Monthly = "",
    remove: Remove = False,
) -> None:  # fmt: skip
    """Limits one of your keys below your account; felt everywhere within five seconds.

    Examples:

      mercat limits key key_06b3c… --rate 20 --burst 50

      mercat limits key key_06b3c… --daily 800:1000 --concurrent 4

      mercat limits key key_06b3c… --remove
    """
    request = auth_pb2.SetKeyLimitRequest(
        key_id=key, limit=_limit(rate, burst, concurrent, daily, monthly, remove=remove)
    )
    made = session.client.limits.SetKeyLimit(request).api_key
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{made.name}: {said(made.limit) if made.HasField('limit') else 'no limit but the account’s'}.")


def model(
    session: Session,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Of your own without the publisher.")],
    rate: Rate = 0, burst: Burst = 0, concurrent: Concurrent = 0, daily: Daily = "", monthly: Monthly = "",
    remove: Remove = False,
) -> None:  # fmt: skip
    """Limits the calls of all callers of one of your models together.

    Example: mercat limits model adder --rate 500
    """
    name, limit = session.full_name(model), _limit(rate, burst, concurrent, daily, monthly, remove=remove)
    request = registry_pb2.SetModelLimitRequest(model=name, limit=limit)
    made = session.client.registry.SetModelLimit(request).model
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{name}: {said(made.limit) if made.HasField('limit') else 'no limit but its callers’'}.")


def account(
    session: Session,
    handle: Annotated[str, typer.Argument(help="The account's name.")],
    tier: Annotated[str, typer.Option(help=f"{', '.join(_TIERS)}.")] = "",
    rate: Rate = 0, burst: Burst = 0, concurrent: Concurrent = 0, daily: Daily = "", monthly: Monthly = "",
) -> None:  # fmt: skip
    """Sets an account's tier, or limits over it; for administrators. What is not given is the tier's.

    Examples:

      mercat limits account ada --tier enterprise --profile admin

      mercat limits account ada --rate 10 --burst 20 --profile admin
    """
    if tier and tier not in _TIERS:
        raise typer.BadParameter(f"there is no tier {tier!r}; there are {', '.join(_TIERS)}")
    given = rate or burst or concurrent or daily or monthly
    limit = _limit(rate, burst, concurrent, daily, monthly, remove=False) if given else None
    request = auth_pb2.SetAccountLimitRequest(handle=handle, tier=_TIERS.get(tier, 0), limit=limit)  # type: ignore[arg-type]
    made = session.client.limits.SetAccountLimit(request).account
    if session.json:
        output.say_json(made)
    else:
        named = auth_pb2.Tier.Name(made.tier).removeprefix("TIER_").lower()
        output.say(f"{made.handle} ({named}): {said(made.limit)}.")
