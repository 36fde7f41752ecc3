"""Sets and shows how much accounts and keys may call models."""

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth import keys, tiers
from services.auth.store import Row, Store
from services.common import audit, call_limits
from services.common.db import Database
from services.common.errors import NotFound
from services.common.events import Events, broadcast
from services.common.rpc.context import Context, caller
from services.common.rpc.principals import FORGET_SUBJECT


def _account(handle: str, row: Row) -> auth_pb2.AccountLimit:
    return auth_pb2.AccountLimit(
        handle=handle, tier=row["tier"], limit=tiers.of_account(row), own=row["call_limit"] is not None
    )


class LimitServicer(auth_pb2_grpc.LimitServiceServicer):
    """Serves `mercat.auth.v1.LimitService`."""

    def __init__(self, database: Database, store: Store, events: Events) -> None:
        self._database = database
        self._store = store
        self._events = events

    async def GetLimits(self, request: auth_pb2.GetLimitsRequest, context: Context) -> auth_pb2.GetLimitsResponse:
        principal = caller()
        async with self._database.connection() as connection:
            row = await self._store.get_account(connection, principal.org_id)
            rows = await self._store.list_limited_keys(connection, principal.user_id, principal.org_id)
        return auth_pb2.GetLimitsResponse(
            account=_account(principal.handle, row), api_keys=[keys.message_of(row) for row in rows]
        )

    async def SetKeyLimit(self, request: auth_pb2.SetKeyLimitRequest, context: Context) -> auth_pb2.SetKeyLimitResponse:
        audit.about("api_key", request.key_id)
        keys.check_free(caller())
        limit = call_limits.column(request.limit if request.HasField("limit") else None)
        async with self._database.transaction() as connection:
            row = await self._store.set_key_limit(connection, request.key_id, caller().user_id, caller().org_id, limit)
        if row is None:
            raise NotFound("you have no such key; see `mercat keys list`", reason="API_KEY_NOT_FOUND")
        await self._forget(event_pb2.PrincipalChanged(org_id=row["org_id"], key_id=row["id"]))
        return auth_pb2.SetKeyLimitResponse(api_key=keys.message_of(row))

    async def SetAccountLimit(
        self, request: auth_pb2.SetAccountLimitRequest, context: Context
    ) -> auth_pb2.SetAccountLimitResponse:
        limit = call_limits.column(request.limit if request.HasField("limit") else None)
        async with self._database.transaction() as connection:
            row = await self._store.set_account_limit(connection, request.handle, request.tier, limit)
            if row is None:
                raise NotFound(f"there is no account {request.handle}", reason="ACCOUNT_NOT_FOUND")
            audit.about("organisation", row["id"])
        await self._forget(event_pb2.PrincipalChanged(org_id=row["id"]))
        return auth_pb2.SetAccountLimitResponse(account=_account(request.handle, row))

    async def _forget(self, changed: event_pb2.PrincipalChanged) -> None:
        """Makes everybody ask anew, sooner than they would by themselves."""
        await broadcast(self._events, FORGET_SUBJECT, changed.SerializeToString())
