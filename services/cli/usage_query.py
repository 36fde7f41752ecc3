"""`mercat usage query`: what was counted of a meter, by group and bucket, as a table and a chart."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from mercat.usage.v1 import usage_pb2

from services.cli import output
from services.cli.command import Session
from services.cli.teams import team_id
from services.cli.times import parse_time
from services.common import money
from services.common.months import next_month

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60  # bars of a chart
_DIMENSIONS = {
    "model": usage_pb2.USAGE_DIMENSION_MODEL, "version": usage_pb2.USAGE_DIMENSION_VERSION,
    "key": usage_pb2.USAGE_DIMENSION_KEY, "member": usage_pb2.USAGE_DIMENSION_MEMBER,
    "tag": usage_pb2.USAGE_DIMENSION_TAG,
}  # fmt: skip
_FIELDS = {"model": "model", "version": "version", "key": "key_id", "member": "user_id", "tag": "tag"}
_AGGREGATIONS = {
    "sum": usage_pb2.USAGE_AGGREGATION_SUM, "count": usage_pb2.USAGE_AGGREGATION_COUNT,
    "max": usage_pb2.USAGE_AGGREGATION_MAX, "unique": usage_pb2.USAGE_AGGREGATION_UNIQUE,
    "latest": usage_pb2.USAGE_AGGREGATION_LATEST,
}  # fmt: skip
_BUCKETS = {
    "hour": usage_pb2.USAGE_BUCKET_HOUR, "day": usage_pb2.USAGE_BUCKET_DAY, "month": usage_pb2.USAGE_BUCKET_MONTH,
}  # fmt: skip
_FORMS = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d", "month": "%Y-%m"}

V = TypeVar("V", bound=int)
Points = Sequence[usage_pb2.UsagePoint]


def query(
    session: Session,
    meter: Annotated[str, typer.Option(help="requests, rows, input_tokens, … or cost_nanos, latency_us.")] = "requests",
    by: Annotated[str, typer.Option(metavar="A,B", help="Of model, version, key, member, tag, tag:NAME.")] = "",
    bucket: Annotated[str, typer.Option(help="hour, day or month.")] = "",
    aggregation: Annotated[str, typer.Option("--agg", help="sum, count, max, unique or latest.")] = "sum",
    of: Annotated[str, typer.Option(help="With --agg unique: of model, version, key, member or tag.")] = "",
    publisher: Annotated[bool, typer.Option("--publisher", help="Calls to your models instead of your calls.")] = False,
    since: Annotated[str, typer.Option(help="From when on: 2026-01-31, or 12h for the last twelve hours.")] = "30d",
    until: Annotated[str, typer.Option(help="Up to when.")] = "",
    model: Annotated[str, typer.Option(help="Only calls to publisher/name.")] = "",
    version: Annotated[str, typer.Option(help="Only of this version.")] = "",
    key: Annotated[str, typer.Option(metavar="KEY_ID", help="Only by this key.")] = "",
    member: Annotated[str, typer.Option(metavar="USER_ID", help="Only by this member.")] = "",
    team: Annotated[str, typer.Option(metavar="TEAM", help="Only by who is in this team now.")] = "",
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only with this tag. Repeatable.")] = None,
) -> None:
    """Shows what was counted of a meter, by groups and over time.

    Examples:

      mercat usage query --meter input_tokens --by model,tag --bucket day

      mercat usage query --meter cost_nanos --by tag:team --bucket month --since 365d

      mercat usage query --agg unique --of member
    """
    names, tag_name = _names(by)
    request = usage_pb2.QueryUsageRequest(
        view=usage_pb2.USAGE_VIEW_PUBLISHER if publisher else usage_pb2.USAGE_VIEW_CONSUMER, meter=meter,
        aggregation=_one_of("--agg", _AGGREGATIONS, aggregation), group_by=[_DIMENSIONS[name] for name in names],
        tag_name=tag_name, model=session.full_name(model) if model else "", version=version, key_id=key,
        user_id=member, team_id=team_id(session, team) if team else "", tags=tag or (),
    )  # fmt: skip
    if of:
        request.unique_of = _one_of("--of", _DIMENSIONS, of)
    if bucket:
        request.bucket = _one_of("--bucket", _BUCKETS, bucket)
    now = datetime.now(UTC)
    request.start_time.FromDatetime(parse_time(since, now))
    if until:
        request.end_time.FromDatetime(parse_time(until, now))
    answer = session.client.usage.QueryUsage(request)
    if session.json:
        output.say_json(answer)
        return
    _show(answer.points, names, bucket, meter if aggregation not in ("count", "unique") else "")


def _names(by: str) -> tuple[list[str], str]:
    names, tag_name = [], ""
    for part in filter(None, (text.strip() for text in by.split(","))):
        name, _, rest = part.partition(":")
        if rest and name == "tag":
            tag_name = rest
        elif rest or name not in _DIMENSIONS:
            raise typer.BadParameter(f"{part!r} is none of {', '.join(_DIMENSIONS)}, tag:NAME", param_hint="--by")
        names.append(name)
    return list(dict.fromkeys(names)), tag_name


def _one_of(option: str, known: Mapping[str, V], text: str) -> V:
    if text not in known:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(known)}", param_hint=option)
    return known[text]


def _show(points: Points, names: list[str], bucket: str, unit: str) -> None:
    form = _FORMS.get(bucket, "")
    rows = [
        (
            *([p.start_time.ToDatetime(UTC).strftime(form)] if form else []),
            *(getattr(p, _FIELDS[name]) or "-" for name in names),
            show_value(p.value, unit),
        )
        for p in points
    ]
    heading = ["time (UTC)"] if form else []
    output.table([*heading, *names, "value"], rows, empty="Nothing was counted in that time.", right=["value"])
    if form and points:
        groups: dict[tuple[str, ...], list[usage_pb2.UsagePoint]] = {}
        for p in points:
            groups.setdefault(tuple(getattr(p, _FIELDS[name]) or "-" for name in names), []).append(p)
        output.say("")
        output.table(
            [*names, "chart", "most"],
            [(*group, sparkline(buckets(own, points, bucket)), show_value(max(p.value for p in own), unit))
             for group, own in groups.items()],
            empty="", right=["most"],
        )  # fmt: skip


def show_value(value: int, unit: str) -> str:
    if unit == "cost_nanos":
        return money.show(value)
    return output.duration(value) if unit == "latency_us" else f"{value:,}"


def buckets(own: Points, every: Points, bucket: str) -> list[int]:
    """A group's values from the first bucket of all groups to the last, those without calls as 0."""
    known = {p.start_time.ToDatetime(UTC): p.value for p in own}
    starts = [p.start_time.ToDatetime(UTC) for p in every]
    at, last, values = min(starts), max(starts), []
    while at <= last:
        values.append(known.get(at, 0))
        at = following(at, bucket)
    return values


def following(start: datetime, bucket: str) -> datetime:
    """The start of the next bucket."""
    if bucket == "month":
        return next_month(start)
    return start + (timedelta(hours=1) if bucket == "hour" else timedelta(days=1))


def sparkline(values: Sequence[int]) -> str:
    """One bar for each value, of a long row for the greatest of some; nothing is the lowest bar."""
    step = -(-len(values) // _WIDTH) or 1
    some = [max(values[at : at + step]) for at in range(0, len(values), step)]
    top = max(some, default=0)
    return "".join(_BARS[max(0, v) * (len(_BARS) - 1) // top if top > 0 else 0] for v in some)
