"""Who called what, for the marketplace and for what callers are told."""

from collections.abc import AsyncIterator
from datetime import UTC

from mercat.usage.v1 import callers_pb2, callers_pb2_grpc

from services.common.db import Database
from services.common.rpc.context import Context
from services.usage.sources import DAY, floor
from services.usage.store import Store

_AT_ONCE = 500  # organisations of one message


class CallerServicer(callers_pb2_grpc.CallerServiceServicer):
    """Serves `mercat.usage.v1.CallerService`."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store

    async def FindCall(self, request: callers_pb2.FindCallRequest, context: Context) -> callers_pb2.FindCallResponse:
        async with self._database.connection() as connection:
            found = await self._store.find_call(connection, request.org_id, request.model, request.version)
        return callers_pb2.FindCallResponse(request_id=found)

    async def ListVersionCallers(
        self, request: callers_pb2.ListVersionCallersRequest, context: Context
    ) -> AsyncIterator[callers_pb2.ListVersionCallersResponse]:
        start = request.start_time.ToDatetime(UTC)
        async with self._database.apart() as connection:
            found = await self._store.list_version_callers(connection, request.model, request.version, start)
        for at in range(0, len(found), _AT_ONCE):
            yield callers_pb2.ListVersionCallersResponse(org_ids=found[at : at + _AT_ONCE])

    async def ListCallers(
        self, request: callers_pb2.ListCallersRequest, context: Context
    ) -> AsyncIterator[callers_pb2.ListCallersResponse]:
        start = floor(request.start_time.ToDatetime(UTC), DAY)
        async with self._database.apart() as connection:
            rows = await self._store.list_callers(connection, request.org_id, start)
        callers = [callers_pb2.Caller(org_id=r["org_id"], models=r["models"]) for r in rows]
        for at in range(0, len(callers), _AT_ONCE):
            yield callers_pb2.ListCallersResponse(callers=callers[at : at + _AT_ONCE])
