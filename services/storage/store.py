"""The tables of storage, one typed method per named query."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.common.db import Connection, load_queries

Row = Mapping[str, Any]


class Store:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.storage")

    async def add_upload(
        self, c: Connection, *, upload_id: str, org_id: str, filename: str, size_bytes: int, digest: str,
        complete: bool, now: datetime, expires_at: datetime,
    ) -> Row:  # fmt: skip
        row: Row = await self._q.add_upload(
            c, id=upload_id, org_id=org_id, filename=filename, size_bytes=size_bytes, digest=digest, complete=complete,
            now=now, expires_at=expires_at,
        )  # fmt: skip
        return row

    async def get_upload(self, c: Connection, upload_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.get_upload(c, id=upload_id, org_id=org_id)
        return row

    async def complete_upload(self, c: Connection, upload_id: str) -> Row:
        row: Row = await self._q.complete_upload(c, id=upload_id)
        return row

    async def take_expired(self, c: Connection, now: datetime, most: int) -> list[str]:
        return [r["id"] async for r in self._q.take_expired(c, now=now, most=most)]

    async def add_artifact(
        self, c: Connection, *, digest: str, size_bytes: int, org_id: str, filename: str, now: datetime
    ) -> None:
        """The artifact, and that this organisation has uploaded it; nobody where it is empty."""
        await self._q.add_artifact(c, digest=digest, size_bytes=size_bytes, now=now)
        if org_id:
            await self._q.add_owner(c, digest=digest, org_id=org_id, filename=filename)

    async def share_artifacts(self, c: Connection, digests: Sequence[str], org_id: str) -> None:
        """Makes artifacts an organisation's too, as if it had uploaded them."""
        await self._q.share_artifacts(c, digests=list(digests), org_id=org_id)

    async def get_artifact(self, c: Connection, digest: str, org_id: str = "") -> Row | None:
        """None when it is not stored, or not by that organisation."""
        row: Row | None = await self._q.get_artifact(c, digest=digest, org_id=org_id)
        return row
