"""Sums over the records of a time. Times are those in ids: parts of a time lie between the digits of ids."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from google.protobuf import json_format
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.common.db import Connection, load_queries
from services.usage.store import Record, record_of

Row = Mapping[str, Any]
_PART = 250_000  # calls that are read at a time
_PAGE = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_METERS = {"requests", "rows", "input_bytes", "input_tokens", "cached_input_tokens", "output_tokens"}
_LONGEST_JOB = timedelta(days=8)  # from the arrival of a call of a job to its lease, and more


class Part(NamedTuple):
    """From some digits of ids on, until just before others; the moments around them."""

    start: datetime
    until: datetime
    after: str
    before: str


def digits(moment: datetime) -> str:
    """Those of ids that are made at an instant, to the millisecond, or later."""
    return ids.first("", (moment - _EPOCH) // timedelta(milliseconds=1))[1:]


class ProofStore:
    """Reads within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.usage.proof")

    async def parts(self, c: Connection, start: datetime, until: datetime) -> list[Part]:
        """The time in parts of about as many calls; none where there is nothing."""
        after, end = digits(start), digits(until)
        if await self._q.first_id(c, after=after, until=end) is None:
            return []
        found: list[Part] = []
        while True:
            bound = await self._q.next_bound(c, after=after, until=end, rows=_PART)
            found.append(Part(start, until, after, bound[4:] if bound else end))
            if bound is None:
                return found
            after = bound[4:]

    async def first_moment(self, c: Connection, after: datetime, until: datetime) -> datetime | None:
        """When the first call within a time arrived."""
        found = await self._q.first_id(c, after=digits(after), until=digits(until))
        return ids.timestamp(f"req_{found}") if found else None

    async def sum_calls(self, c: Connection, part: Part, seed: int) -> list[Row]:
        """digits, price_id, records, calls, cost, checksum."""
        return [r async for r in self._q.sum_calls(c, **part._asdict(), seed=seed)]

    async def group_calls(
        self, c: Connection, part: Part, request: usage_pb2.GroupCallsRequest
    ) -> AsyncIterator[usage_pb2.GroupCallsResponse]:
        """Calls that must cost the same, in pages."""
        flat = {i: p.nanos_per_million for i, p in request.flat.items() if p.nanos_per_million.keys() <= _METERS}
        asked = {
            "start": part.start, "until": part.until, "first": f"req_{part.after}", "last": f"req_{part.before}",
            "price_ids": list(request.meters), "meters": list(request.meters.values()), "flat_ids": list(flat),
            **{meter: [price.get(meter, 0) for price in flat.values()] for meter in _METERS},
        }  # fmt: skip
        async with self._q.group_calls_cursor(c, **asked) as cursor:
            page = usage_pb2.GroupCallsResponse()
            async for row in cursor:
                if row["request_id"] is None:
                    page.exact = row["calls"]
                else:
                    page.groups.append(_group(row))
                if len(page.groups) == _PAGE:
                    yield page
                    page = usage_pb2.GroupCallsResponse()
            yield page

    async def records(self, c: Connection, start: datetime, until: datetime) -> AsyncIterator[list[Record]]:
        """Pages of the records of a time: corrections, then calls, each in the order of their ids."""
        for prefix in ("cor_", "req_"):
            first, last = prefix + digits(start), prefix + digits(until)
            while True:
                rows = [
                    r
                    async for r in self._q.records_between(
                        c, start=start, until=until, first=first, last=last, most=_PAGE
                    )
                ]
                if rows:
                    yield [record_of(r) for r in rows]
                if len(rows) < _PAGE:
                    break
                first = rows[-1]["request_id"] + "0"

    async def sum_spending(self, c: Connection, days: Sequence[date], org_ids: Sequence[str]) -> list[Row]:
        """org_id, day, key_id, model_id, cost: of days that follow each other."""
        starts = [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in days]
        leases = [f"lse_{digits(start)}" for start in starts]
        rows = self._q.sum_spending(
            c, start=starts[0] - _LONGEST_JOB, leases=leases, days=list(days), org_ids=list(org_ids)
        )
        return [r async for r in rows]


def _group(row: Row) -> usage_pb2.CallGroup:
    call = Record(
        request_id=row["request_id"], price_id=row["price_id"], units=json.loads(row["units"]), cost_nanos=row["cost"],
        status_code=row["status_code"],
    )  # fmt: skip
    if row["rating"] is not None:
        json_format.Parse(row["rating"], call.rating)
    return usage_pb2.CallGroup(call=call, calls=row["calls"])
