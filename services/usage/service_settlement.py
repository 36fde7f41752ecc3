"""What billing and the workers ask of the metering pipeline."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc
from nats.js.errors import NotFoundError

from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import Unavailable
from services.common.events import USAGE_STREAM, Events
from services.common.rpc.context import Context
from services.common.spans import BEGINNING, span
from services.usage.proof.store import ProofStore
from services.usage.store import Store
from services.usage.totals import Totals


async def settled_through(events: Events, clock: Clock) -> datetime:
    """The instant up to which every call that any worker recorded is stored and posted. Raises Unavailable."""
    # A message leaves the work queue when its records are stored and posted, so the oldest one left is the mark.
    try:
        while True:
            asked = clock.now()
            state = (await events.js.stream_info(USAGE_STREAM)).state
            if state.messages == 0:
                return asked
            try:
                oldest = await events.js.get_msg(USAGE_STREAM, state.first_seq)
            except NotFoundError:  # it has left meanwhile
                continue
            return oldest.time or BEGINNING
    except (nats.errors.Error, TimeoutError) as e:
        raise Unavailable("the stream of usage cannot be asked", reason="METERING_UNAVAILABLE", retry_after=1) from e


class SettlementServicer(usage_pb2_grpc.SettlementServiceServicer):
    """Serves `mercat.usage.v1.SettlementService`."""

    def __init__(self, database: Database, store: Store, events: Events, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._totals = Totals(store)
        self._proof = ProofStore()
        self._events = events
        self._clock = clock

    async def GetWatermark(
        self, request: usage_pb2.GetWatermarkRequest, context: Context
    ) -> usage_pb2.GetWatermarkResponse:
        response = usage_pb2.GetWatermarkResponse()
        response.settled_through.FromDatetime(await settled_through(self._events, self._clock))
        return response

    async def CountCalls(self, request: usage_pb2.CountCallsRequest, context: Context) -> usage_pb2.CountCallsResponse:
        start, until = span(request, self._clock.now() + timedelta(days=1))
        async with self._database.connection() as connection:
            if request.org_id and not request.key_id and not request.model_id:
                calls = await self._totals.calls(connection, request.org_id, start, until)
            else:
                calls = await self._store.count_calls(
                    connection, org_id=request.org_id, key_id=request.key_id, model_id=request.model_id, start=start,
                    until=until,
                )  # fmt: skip
        return usage_pb2.CountCallsResponse(calls=calls)

    async def SumUnits(self, request: usage_pb2.SumUnitsRequest, context: Context) -> usage_pb2.SumUnitsResponse:
        start, until = span(request, self._clock.now() + timedelta(days=1))
        async with self._database.connection() as connection:
            units = await self._store.sum_units(connection, request.org_id, request.model_id, start, until)
        return usage_pb2.SumUnitsResponse(units=units)

    async def SumDroppedUsage(
        self, request: usage_pb2.SumDroppedUsageRequest, context: Context
    ) -> usage_pb2.SumDroppedUsageResponse:
        response = usage_pb2.SumDroppedUsageResponse()
        async with (
            self._database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            response.kept_from.FromDatetime((await self._store.progress(connection)).kept_from)
            for row in await self._store.sum_dropped(connection):
                sums = response.sums.add(
                    org_id=row["org_id"], publisher_org_id=row["publisher_org_id"], cost_nanos=row["cost"]
                )
                sums.month.FromDatetime(row["month"])
            end = self._clock.now() + timedelta(days=1)
            if (first := await self._proof.first_moment(connection, BEGINNING, end)) is not None:
                response.first_time.FromDatetime(first)
        return response

    async def ExportUsage(
        self, request: usage_pb2.ExportUsageRequest, context: Context
    ) -> AsyncIterator[usage_pb2.ExportUsageResponse]:
        start, until = span(request, self._clock.now() + timedelta(days=1))
        async with self._database.connection() as connection:
            if request.request_ids:
                records = await self._store.get_records(connection, list(request.request_ids))
                await self._store.add_corrections(connection, records)
                yield usage_pb2.ExportUsageResponse(records=records)
                return
            async for page in self._proof.records(connection, start, until):
                yield usage_pb2.ExportUsageResponse(records=page)

    async def SumCalls(
        self, request: usage_pb2.SumCallsRequest, context: Context
    ) -> AsyncIterator[usage_pb2.SumCallsResponse]:
        start, until = span(request, self._clock.now() + timedelta(days=1))
        async with self._database.apart() as connection:
            for part in await self._proof.parts(connection, start, until):
                rows = await self._proof.sum_calls(connection, part, request.seed)
                sums = [
                    usage_pb2.CallSum(
                        digits=r["digits"], calls=r["calls"], cost_nanos=r["cost"], checksum=r["checksum"]
                    )
                    for r in rows if r["calls"]
                ]  # fmt: skip
                yield usage_pb2.SumCallsResponse(
                    sums=sums, records=sum(r["records"] for r in rows),
                    price_ids={r["price_id"] for r in rows},
                )  # fmt: skip

    async def GroupCalls(
        self, request: usage_pb2.GroupCallsRequest, context: Context
    ) -> AsyncIterator[usage_pb2.GroupCallsResponse]:
        start, until = span(request, self._clock.now() + timedelta(days=1))
        async with self._database.apart() as connection:
            for part in await self._proof.parts(connection, start, until):
                async for page in self._proof.group_calls(connection, part, request):
                    yield page

    async def SumSpending(
        self, request: usage_pb2.SumSpendingRequest, context: Context
    ) -> usage_pb2.SumSpendingResponse:
        first = max(request.start_time.ToDatetime(UTC), BEGINNING).date()
        days = [first + timedelta(days=n) for n in range((self._clock.now().date() - first).days + 2)]
        async with self._database.apart() as connection:
            rows = await self._proof.sum_spending(connection, days, request.org_ids)
        response = usage_pb2.SumSpendingResponse()
        for row in rows:
            one = response.spending.add(
                org_id=row["org_id"], key_id=row["key_id"], model_id=row["model_id"], cost_nanos=row["cost"]
            )
            one.day.FromDatetime(datetime(row["day"].year, row["day"].month, row["day"].day, tzinfo=UTC))
        return response
