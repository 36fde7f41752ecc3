"""Usage, for those who called and those whose models were called."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.common import pages
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import OutOfRange, UsageRecordNotFound
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller
from services.common.spans import span
from services.usage import questions
from services.usage.live import Live
from services.usage.store import Store
from services.usage.totals import Totals, model_of


class WatcherBehind(OutOfRange, reason="WATCHER_BEHIND"): ...


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """Serves `mercat.usage.v1.UsageService`."""

    def __init__(self, database: Database, store: Store, live: Live, control: InternalChannel, clock: Clock) -> None:
        self._database = database
        self._auth = auth_pb2_grpc.PrincipalServiceStub(control)
        self._store = store
        self._totals = Totals(store)
        self._live = live
        self._clock = clock

    def _span(
        self, request: usage_pb2.ListUsageRequest | usage_pb2.SummarizeUsageRequest | usage_pb2.QueryUsageRequest
    ) -> tuple[datetime, datetime]:
        # A worker's clock may run a little ahead of this one.
        return span(request, self._clock.now() + timedelta(days=1))

    async def ListUsage(self, request: usage_pb2.ListUsageRequest, context: Context) -> usage_pb2.ListUsageResponse:
        start, until = self._span(request)
        publisher = request.view == usage_pb2.USAGE_VIEW_PUBLISHER
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            records = await self._store.list_records(
                connection, caller().org_id, publisher=publisher, model=request.model, start=start, until=until,
                before=str(key[0]) if key else None, most=most + 1,
            )  # fmt: skip
            await self._store.add_corrections(connection, records[:most])
        token = pages.encode([records[most - 1].request_id]) if len(records) > most else ""
        shown = [_for_publisher(r) if publisher else r for r in records[:most]]
        return usage_pb2.ListUsageResponse(records=shown, next_page_token=token)

    async def GetUsageRecord(
        self, request: usage_pb2.GetUsageRecordRequest, context: Context
    ) -> usage_pb2.GetUsageRecordResponse:
        org_id = caller().org_id
        async with self._database.connection() as connection:
            records = [r for r in await self._store.get_records(connection, [request.request_id]) if not r.corrects]
            await self._store.add_corrections(connection, records)
        for record in records:
            if record.org_id == org_id:
                return usage_pb2.GetUsageRecordResponse(record=record)
            if record.publisher_org_id == org_id:
                return usage_pb2.GetUsageRecordResponse(record=_for_publisher(record))
        raise UsageRecordNotFound

    async def SummarizeUsage(
        self, request: usage_pb2.SummarizeUsageRequest, context: Context
    ) -> usage_pb2.SummarizeUsageResponse:
        start, until = self._span(request)
        async with self._database.connection() as connection:
            found = await self._totals.by_model(
                connection, caller().org_id, publisher=request.view == usage_pb2.USAGE_VIEW_PUBLISHER, start=start,
                until=until,
            )  # fmt: skip
        models = [model_of(name, meters) for name, meters in found.items()]
        models.sort(key=lambda m: (-m.cost_nanos, m.model))
        return usage_pb2.SummarizeUsageResponse(
            calls=sum(m.calls for m in models), cost_nanos=sum(m.cost_nanos for m in models), models=models
        )

    async def QueryUsage(self, request: usage_pb2.QueryUsageRequest, context: Context) -> usage_pb2.QueryUsageResponse:
        team = await self._team(request.team_id) if request.team_id else None
        question = questions.read(request, *self._span(request), team)
        async with self._database.connection() as connection:
            rows = await self._totals.query(connection, caller().org_id, question)
        return usage_pb2.QueryUsageResponse(points=[questions.point_of(r) for r in rows])

    async def _team(self, team_id: str) -> Sequence[str]:
        """Who is in a team of the caller's organisation. Raises NotFound."""
        asked = auth_pb2.ListTeamUsersRequest(org_id=caller().org_id, team_id=team_id)
        return (await self._auth.ListTeamUsers(asked)).user_ids

    async def StreamUsage(
        self, request: usage_pb2.StreamUsageRequest, context: Context
    ) -> AsyncIterator[usage_pb2.StreamUsageResponse]:
        async with self._live.watch(caller().org_id) as watch:
            async for record in watch.records():
                yield usage_pb2.StreamUsageResponse(record=record)
        raise WatcherBehind("calls were recorded faster than they were read; list the rest and stream again")


def _for_publisher(record: usage_pb2.UsageRecord) -> usage_pb2.UsageRecord:
    """Without what is the consumer's own business."""
    for name in ("user_id", "key_id", "lease_id", "tags"):
        record.ClearField(name)
    return record
