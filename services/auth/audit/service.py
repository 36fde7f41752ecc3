"""Shows the audit log."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mercat.auth.v1 import audit_pb2, audit_pb2_grpc

from services.auth.audit.heads import Heads
from services.auth.audit.store import AuditStore
from services.common import pages
from services.common.db import Database
from services.common.rpc.context import Context, caller
from services.common.spans import span

_FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Serves `mercat.auth.v1.AuditService`."""

    def __init__(self, database: Database, store: AuditStore, heads: Heads) -> None:
        self._database = database
        self._store = store
        self._heads = heads

    async def ListAuditEntries(
        self, request: audit_pb2.ListAuditEntriesRequest, context: Context
    ) -> audit_pb2.ListAuditEntriesResponse:
        key, most = pages.decode(request.page_token, int), pages.size(request.page_size)
        async with self._database.connection() as connection:
            entries = await self._store.list_entries(
                connection, caller().org_id, _filters(request.filter), int(key[0]) if key else 0, most + 1,
                oldest_first=request.oldest_first,
            )  # fmt: skip
        token = _token(entries, most, "sequence")
        return audit_pb2.ListAuditEntriesResponse(entries=entries[:most], next_page_token=token)

    async def GetAuditHeads(
        self, request: audit_pb2.GetAuditHeadsRequest, context: Context
    ) -> audit_pb2.GetAuditHeadsResponse:
        return audit_pb2.GetAuditHeadsResponse(heads=await self._heads.of(caller().org_id))

    async def ListPlatformAuditEntries(
        self, request: audit_pb2.ListPlatformAuditEntriesRequest, context: Context
    ) -> audit_pb2.ListPlatformAuditEntriesResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        before = str(key[0]) if key else ""
        async with self._database.connection() as connection:
            entries = await self._store.platform_entries(
                connection, request.chain, _filters(request.filter), before, most + 1
            )
        token = _token(entries, most, "audit_id")
        return audit_pb2.ListPlatformAuditEntriesResponse(entries=entries[:most], next_page_token=token)

    async def GetAuditKeys(
        self, request: audit_pb2.GetAuditKeysRequest, context: Context
    ) -> audit_pb2.GetAuditKeysResponse:
        return audit_pb2.GetAuditKeysResponse(keys=[key.public_jwk() for key in self._heads.keys.keys])


def _token(entries: Sequence[audit_pb2.AuditEntry], most: int, field: str) -> str:
    return pages.encode([getattr(entries[most - 1], field)]) if len(entries) > most else ""


def _filters(asked: audit_pb2.AuditFilter) -> dict[str, Any]:
    start, until = span(asked, _FOREVER)
    names = ("user_id", "key_id", "action", "resource_type", "resource_id", "denied")
    return {name: getattr(asked, name) for name in names} | {"start": start, "until": until}
