"""The table of usage, one typed method per named query."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple

from google.protobuf import json_format
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.common.db import Connection, copy_new, load_queries
from services.usage.questions import Question
from services.usage.sources import HOUR, Source

Row = Mapping[str, Any]
Record = usage_pb2.UsageRecord


class Progress(NamedTuple):
    """How far usage is rolled up: hours before `through` are, every one before `rolled`. Records before `kept_from` are
    not kept."""

    through: datetime
    rolled: datetime
    kept_from: datetime


def moment(request_id: str) -> datetime:
    """The time inside a request id: what `timestamp` always is. Raises ValueError for what is no id."""
    return _datetime(ids.milliseconds(request_id))


@lru_cache(10_000)
def _datetime(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def tokens(units: Mapping[str, int]) -> int:
    """What was counted in tokens, of whatever kind: `tokens`, `input_tokens`, `output_tokens`, …"""
    return sum(count for meter, count in units.items() if meter == "tokens" or meter.endswith("_tokens"))


@lru_cache(10_000)
def _counted(units: tuple[tuple[str, int], ...]) -> tuple[str, int]:
    """`units` as JSON, and its tokens."""
    return json.dumps(dict(units)), tokens(dict(units))


# What is written of a record, in the order of `_row`.
_WRITTEN = (
    "id", "request_id", "timestamp", "org_id", "user_id", "api_key_id", "model_id", "model", "version",
    "publisher_org_id", "units", "tokens_used", "price_id", "cost", "latency_us", "latency_ms", "status_code", "region",
    "test", "lease_id", "rating", "tags",
)  # fmt: skip


def _row(request_id: str, r: Record) -> tuple[Any, ...]:
    units, latency = r.units, r.latency_us
    counted, in_tokens = _counted(tuple([(meter, units[meter]) for meter in units]))
    return (
        ids.sibling("use", request_id), request_id, moment(request_id), r.org_id, r.user_id, r.key_id, r.model_id,
        r.model, r.version, r.publisher_org_id, counted, in_tokens, r.price_id, r.cost_nanos, latency, latency / 1000,
        r.status_code, r.region, r.test, r.lease_id, _rating(r), _json(r.tags),
    )  # fmt: skip


def _ids(start: datetime, until: datetime) -> dict[str, str]:
    """Between which ids the calls of a time have theirs, or a millisecond more. Ids are in the order of time."""
    first, last = (int(t.timestamp() * 1000) for t in (start, until))
    return {"first": ids.first("req", first), "last": ids.first("req", last + 1)}


def _json(tags: Mapping[str, str]) -> str | None:
    return json.dumps(dict(tags)) if tags else None


class Store:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.usage")

    async def add_records(self, c: Connection, records: Iterable[Record]) -> set[str]:
        """Stores what was not stored before; answers the request ids stored now. Raises ValueError for a wrong one."""
        by_id = {r.request_id: r for r in records}
        # In one order everywhere: two consumers that store the same records at once then never wait for each other.
        rows = {request_id: _row(request_id, by_id[request_id]) for request_id in sorted(by_id)}
        return await copy_new(c, "usage_records", _WRITTEN, rows, partial(self._stored, c))

    async def get_records(self, c: Connection, request_ids: Sequence[str]) -> list[Record]:
        """Those of them that are stored, in the order of their ids."""
        known = [r for r in request_ids if ids.is_id("req", r) or ids.is_id("cor", r)]
        moments = [moment(r) for r in known]
        return [record_of(r) async for r in self._q.get_records(c, request_ids=known, timestamps=moments)]

    async def _stored(self, c: Connection, request_ids: Sequence[str]) -> set[str]:
        moments = [moment(r) for r in request_ids]
        return {r["request_id"] async for r in self._q.get_records(c, request_ids=request_ids, timestamps=moments)}

    async def add_correction(self, c: Connection, record: Record, reason: str, now: datetime) -> None:
        """Stores the record of a correction, once."""
        await self._q.add_correction(
            c, id=ids.sibling("use", record.request_id), request_id=record.request_id,
            timestamp=moment(record.request_id), org_id=record.org_id, user_id=record.user_id, key_id=record.key_id,
            model_id=record.model_id, model=record.model, version=record.version, publisher=record.publisher_org_id,
            tokens=tokens(record.units), units=json.dumps(dict(record.units)), price_id=record.price_id,
            cost=record.cost_nanos, region=record.region, test=record.test, rating=_rating(record),
            tags=_json(record.tags), corrects=record.corrects, reason=reason, now=now,
        )  # fmt: skip

    async def add_corrections(self, c: Connection, records: Sequence[Record]) -> None:
        """Adds to each call what was corrected of it."""
        by_id = {r.request_id: r for r in records}
        if not by_id:
            return
        moments = [moment(i) for i in by_id]
        rows = self._q.get_corrections(c, request_ids=list(by_id), start=min(moments), until=max(moments))
        async for row in rows:
            correction = by_id[row["corrects"]].corrections.add(
                correction_id=row["request_id"], units=json.loads(row["units"]), cost_nanos=row["cost"],
                reason=row["reason"],
            )  # fmt: skip
            correction.create_time.FromDatetime(row["corrected_at"])

    async def list_records(
        self, c: Connection, org_id: str, *, publisher: bool, model: str, start: datetime, until: datetime,
        before: str | None, most: int,
    ) -> list[Record]:  # fmt: skip
        query = self._q.list_as_publisher if publisher else self._q.list_as_consumer
        bounds = _ids(start, until)
        rows = query(
            c, org_id=org_id, model=model, start=start, until=until, from_id=bounds["first"],
            before=before or bounds["last"], most=most,
        )  # fmt: skip
        return [record_of(r) async for r in rows]

    async def sums(self, c: Connection, org_id: str, source: Source, *, publisher: bool) -> list[Row]:
        """By model and meter: how many calls counted it, and how much."""
        of = {"org_id": org_id, "publisher": publisher, "start": source.start, "until": source.until}
        if source.span == "record":
            rows = self._q.sum_records(c, **of, **_ids(source.start, source.until))
        else:
            rows = self._q.sum_rollups(c, span=source.span, **of)
        return [r async for r in rows]

    async def query_source(self, c: Connection, org_id: str, asked: Question, source: Source, most: int) -> list[Row]:
        """Points of a question that rolls up, of a part of its time."""
        if source.span == "record":
            return await self.query(c, org_id, replace(asked, start=source.start, until=source.until), most)
        rows = self._q.query_rollups(
            c, org_id=org_id, publisher=asked.publisher, span=source.span, meter=asked.meter,
            aggregation=asked.aggregation, by_model="model" in asked.groups, bucket=asked.bucket, start=source.start,
            until=source.until, model=asked.filters["model"], most=most,
        )  # fmt: skip
        return [r async for r in rows]

    # Rollups

    async def progress(self, c: Connection) -> Progress:
        row = await self._q.get_progress(c)
        return Progress(row["through"], row["rolled"], row["kept_from"])

    async def find_call(self, c: Connection, org_id: str, model: str, version: str) -> str:
        """A recorded call of an organisation to a version; empty when there is none."""
        return await self._q.find_call(c, org_id=org_id, model=model, version=version) or ""

    async def list_version_callers(self, c: Connection, model: str, version: str, start: datetime) -> list[str]:
        """Organisations that called a version from a moment on."""
        rows = self._q.list_version_callers(c, model=model, version=version, start=start)
        return [r["org_id"] async for r in rows]

    async def list_callers(self, c: Connection, org_id: str, start: datetime) -> Sequence[Row]:
        """Organisations (or this one) with the models that they called from a day on."""
        rolled = max((await self.progress(c)).rolled, start)
        first = ids.first("req", int(rolled.timestamp() * 1000))
        rows = self._q.list_callers(c, org_id=org_id, start=start, rolled=rolled, first=first)
        return [r async for r in rows]

    async def lock_inserts(self, c: Connection) -> None:
        """Until the end of the transaction no record is inserted, and none is on its way."""
        await self._q.lock_inserts(c)

    async def lock_rollups(self, c: Connection) -> None:
        await self._q.lock_rollups(c)

    async def first_record(self, c: Connection, after: str) -> datetime | None:
        """When the first call of this id or a later one arrived."""
        found: datetime | None = await self._q.first_record(c, after=after)
        return found

    async def advance(self, c: Connection, start: datetime, through: datetime) -> None:
        await self._q.advance(c, start=start, through=through)

    async def take_stale_hours(self, c: Connection, most: int) -> list[datetime]:
        """The oldest that are stale, all of one day."""
        return [r["hour"] async for r in self._q.take_stale_hours(c, most=most)]

    async def forget_rollups(self, c: Connection, hours: Sequence[datetime], day: datetime) -> None:
        await self._q.forget_rollups(c, hours=hours, day=day)

    async def roll_up_hours(self, c: Connection, hours: Sequence[datetime]) -> None:
        """Makes hours of one day from their records."""
        start, until = hours[0], hours[-1] + HOUR
        await self._q.roll_up_hours(c, hours=hours, start=start, until=until, **_ids(start, until))

    async def add_late(self, c: Connection, hour: datetime) -> None:
        """Adds what came into an hour whose other records are not kept any more."""
        await self._q.add_late(c, start=hour, until=hour + HOUR)

    async def forget_day(self, c: Connection, day: datetime) -> None:
        await self._q.forget_day(c, day=day)

    async def oldest_partition(self, c: Connection) -> str | None:
        """The table of the oldest month that is kept; None when there is none."""
        name: str | None = await self._q.oldest_partition(c)
        return name

    async def count_differences(self, c: Connection, start: datetime, until: datetime) -> int:
        """Of how many sums the records of whole days and their rollups do not say the same."""
        return int(await self._q.count_differences(c, start=start, until=until))

    async def keep_from(self, c: Connection, moment: datetime) -> None:
        await self._q.keep_from(c, moment=moment)

    async def sum_dropped(self, c: Connection) -> list[Row]:
        """What calls whose records are not kept have cost, by month and parties."""
        return [r async for r in self._q.sum_dropped(c)]

    async def roll_up_day(self, c: Connection, start: datetime, until: datetime) -> None:
        await self._q.roll_up_day(c, start=start, until=until)

    async def query(self, c: Connection, org_id: str, asked: Question, most: int) -> list[Row]:
        """Points of a question, at most so many."""
        if asked.aggregation == "unique":
            query, kind = self._q.query_unique, {"unique_of": asked.unique_of}
        else:
            query, kind = self._q.query, {"aggregation": asked.aggregation}
        rows = query(
            c, **kind, **asked.filters, **_ids(asked.start, asked.until), org_id=org_id, publisher=asked.publisher,
            meter=asked.meter, groups=sorted(asked.groups), tag_name=asked.tag_name, bucket=asked.bucket,
            start=asked.start, until=asked.until, most=most,
        )  # fmt: skip
        return [r async for r in rows]

    async def count_calls(
        self, c: Connection, *, org_id: str, key_id: str, model_id: str, start: datetime, until: datetime
    ) -> int:
        """Of an account, a key or a model; empty: not asked for."""
        calls: int = await self._q.count_calls(
            c, org_id=org_id, key_id=key_id, model_id=model_id, start=start, until=until
        )
        return calls

    async def sum_units(
        self, c: Connection, org_id: str, model_id: str, start: datetime, until: datetime
    ) -> dict[str, int]:
        """Of the calls that count for the prices of a model, by meter."""
        rows = self._q.sum_units(c, org_id=org_id, model_id=model_id, start=start, until=until)
        return {r["meter"]: r["total"] async for r in rows}


def _rating(record: Record) -> str | None:
    if not record.HasField("rating"):
        return None
    return json_format.MessageToJson(record.rating, preserving_proto_field_name=True, indent=None)


def record_of(row: Row) -> Record:
    record = Record(
        request_id=row["request_id"], org_id=row["org_id"], user_id=row["user_id"], key_id=row["api_key_id"],
        model_id=row["model_id"], model=row["model"], version=row["version"], publisher_org_id=row["publisher_org_id"],
        units=json.loads(row["units"]), price_id=row["price_id"], cost_nanos=row["cost"], latency_us=row["latency_us"],
        status_code=row["status_code"], region=row["region"], test=row["test"], lease_id=row["lease_id"],
        tags=json.loads(row["tags"]) if row["tags"] else None, corrects=row["corrects"] or "",
    )  # fmt: skip
    record.timestamp.FromDatetime(row["timestamp"])
    if row["rating"] is not None:
        json_format.Parse(row["rating"], record.rating)
    return record
