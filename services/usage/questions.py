"""What is asked of usage, pure: a QueryUsage as the arguments of a query, and its rows as points."""

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mercat.usage.v1 import usage_pb2

from services.common.errors import InvalidFields, OutOfRange, Violation
from services.common.rpc import tags

MOST = 10_000  # points
_PUBLISHERS = {"model", "version"}  # the rest is the consumer's own business
_AGGREGATIONS = {
    usage_pb2.USAGE_AGGREGATION_UNSPECIFIED: "sum", usage_pb2.USAGE_AGGREGATION_SUM: "sum",
    usage_pb2.USAGE_AGGREGATION_COUNT: "count", usage_pb2.USAGE_AGGREGATION_MAX: "max",
    usage_pb2.USAGE_AGGREGATION_UNIQUE: "unique", usage_pb2.USAGE_AGGREGATION_LATEST: "latest",
}  # fmt: skip
_DIMENSIONS = {
    usage_pb2.USAGE_DIMENSION_MODEL: "model", usage_pb2.USAGE_DIMENSION_VERSION: "version",
    usage_pb2.USAGE_DIMENSION_KEY: "key_id", usage_pb2.USAGE_DIMENSION_MEMBER: "user_id",
    usage_pb2.USAGE_DIMENSION_TAG: "tag",
}  # fmt: skip
_BUCKETS = {
    usage_pb2.USAGE_BUCKET_UNSPECIFIED: "", usage_pb2.USAGE_BUCKET_HOUR: "hour", usage_pb2.USAGE_BUCKET_DAY: "day",
    usage_pb2.USAGE_BUCKET_MONTH: "month",
}  # fmt: skip


_MERGED: dict[str, Callable[[int, int], int]] = {"sum": operator.add, "count": operator.add, "max": max}


class QueryTooLarge(OutOfRange, reason="QUERY_TOO_LARGE"):
    """The answer would have more points than an answer may have."""


@dataclass(frozen=True)
class Question:
    """A QueryUsage, checked. `filters`: the arguments that narrow the calls, `""` and None for those not given; to an
    empty list of users there are no calls."""

    publisher: bool
    meter: str
    aggregation: str
    unique_of: str
    groups: frozenset[str]
    tag_name: str
    bucket: str
    start: datetime
    until: datetime
    filters: Mapping[str, str | list[str] | None]

    @property
    def rolls_up(self) -> bool:
        """Whether rollups, which know no more than models, can answer it."""
        narrowed = {name for name, value in self.filters.items() if value not in ("", None)}
        return self.aggregation in _MERGED and self.groups <= {"model"} and narrowed <= {"model"}

    def merge(self, one: int, other: int) -> int:
        """The value of two parts of a bucket, of a question that rolls up."""
        return _MERGED[self.aggregation](one, other)


def read(
    request: usage_pb2.QueryUsageRequest, start: datetime, until: datetime, team: Sequence[str] | None = None
) -> Question:
    """`team`: who is in the team that is asked for. Raises InvalidFields for what is not of the contract, and for what
    publishers may not ask."""
    wrong: list[Violation] = []
    publisher = request.view == usage_pb2.USAGE_VIEW_PUBLISHER

    def dimension(field: str, number: int) -> str:
        name = _DIMENSIONS.get(number, "")  # type: ignore[call-overload]
        if not name:
            wrong.append(Violation(field, "must be a dimension of the contract"))
        elif publisher and name not in _PUBLISHERS:
            wrong.append(Violation(field, "publishers ask by model and version: the rest is their consumers' own"))
        return str(name)

    aggregation = _AGGREGATIONS.get(request.aggregation)
    if aggregation is None:
        wrong.append(Violation("aggregation", "must be an aggregation of the contract"))
    bucket = _BUCKETS.get(request.bucket)
    if bucket is None:
        wrong.append(Violation("bucket", "must be a bucket of the contract"))
    groups = {dimension(f"group_by[{i}]", number) for i, number in enumerate(request.group_by)}
    unique_of = dimension("unique_of", request.unique_of) if request.unique_of else "value"
    if request.unique_of and aggregation != "unique":
        wrong.append(Violation("unique_of", "goes with the aggregation UNIQUE"))
    if request.tag_name and "tag" not in groups | {unique_of}:
        wrong.append(Violation("tag_name", "goes with the dimension TAG"))
    theirs = [field for field in ("key_id", "user_id", "team_id", "tags") if publisher and getattr(request, field)]
    wrong += [Violation(field, "publishers cannot ask by it: it is their consumers' own") for field in theirs]
    try:
        wanted = dict(tags.read(request.tags)) if request.tags else {}
    except InvalidFields as e:
        wrong += [Violation("tags", v.description) for v in e.violations]
    if wrong:
        raise InvalidFields(violations=wrong)
    filters = {
        "model": request.model, "version": request.version, "key_id": request.key_id,
        "user_ids": _users(request.user_id, team),
        "tags": json.dumps(wanted) if wanted else None,
    }  # fmt: skip
    assert aggregation is not None
    assert bucket is not None
    return Question(
        publisher, request.meter, aggregation, unique_of, frozenset(groups), request.tag_name, bucket, start, until,
        filters,
    )  # fmt: skip


def _users(user_id: str, team: Sequence[str] | None) -> list[str] | None:
    """Whose calls are asked for; None: everybody's."""
    if not user_id:
        return None if team is None else list(team)
    return [user_id] if team is None or user_id in team else []


def point_of(row: Mapping[str, Any]) -> usage_pb2.UsagePoint:
    point = usage_pb2.UsagePoint(
        model=row["model"], version=row["version"], key_id=row["key_id"], user_id=row["user_id"], value=row["value"],
        tag=tags.show(sorted(json.loads(row["tags"]).items())) if row["tags"] else "",
    )  # fmt: skip
    if row["bucket"] is not None:
        point.start_time.FromDatetime(row["bucket"])
    return point
