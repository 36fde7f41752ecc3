"""Serves `mercat.billing.v1.ClosingService`."""

from mercat.billing.v1 import closing_pb2, closing_pb2_grpc

from services.common.db import Database, load_queries
from services.common.rpc.context import Context


class ClosingServicer(closing_pb2_grpc.ClosingServiceServicer):
    """Tells what stands in the way of closing an account."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._q = load_queries(__package__)

    async def GetClosing(
        self, request: closing_pb2.GetClosingRequest, context: Context
    ) -> closing_pb2.GetClosingResponse:
        async with self._database.connection() as connection:
            row = await self._q.closing(connection, org_ids=list(request.org_ids))
        return closing_pb2.GetClosingResponse(
            balance_nanos=row["balance"], payable_nanos=row["payable"], owed_nanos=row["owed"],
            pending_count=row["pending"],
        )  # fmt: skip
