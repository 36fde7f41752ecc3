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
        metadata: str, complete: bool, now: datetime, expires_at: datetime,
    ) -> Row:  # fmt: skip
        row: Row = await self._q.add_upload(
            c, id=upload_id, org_id=org_id, filename=filename, size_bytes=size_bytes, digest=digest, metadata=metadata,
            complete=complete, now=now, expires_at=expires_at,
        )  # fmt: skip
        return row

    async def list_uploads(
        self, c: Connection, org_id: str, digest: str, before: str | None, now: datetime, most: int
    ) -> list[Row]:
        """Newest first; of any digest where that is empty."""
        return [
            r async for r in self._q.list_uploads(c, org_id=org_id, digest=digest, before=before, now=now, most=most)
        ]

    async def keep_upload(self, c: Connection, upload_id: str, expires_at: datetime) -> Row | None:
        row: Row | None = await self._q.keep_upload(c, id=upload_id, expires_at=expires_at)
        return row

    async def delete_upload(self, c: Connection, upload_id: str, org_id: str) -> bool:
        return await self._q.delete_upload(c, id=upload_id, org_id=org_id) is not None

    async def get_upload(self, c: Connection, upload_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.get_upload(c, id=upload_id, org_id=org_id)
        return row

    async def complete_upload(self, c: Connection, upload_id: str, digest: str) -> Row | None:
        """None when it was given up meanwhile."""
        row: Row | None = await self._q.complete_upload(c, id=upload_id, digest=digest)
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

    async def use_artifact(self, c: Connection, digest: str, now: datetime) -> None:
        """Keeps it from being removed for a while."""
        await self._q.use_artifact(c, digest=digest, now=now)

    async def unused_artifacts(self, c: Connection, before: datetime, most: int) -> list[str]:
        return [r["digest"] async for r in self._q.unused_artifacts(c, before=before, most=most)]

    async def use_artifacts(self, c: Connection, digests: Sequence[str], now: datetime) -> None:
        await self._q.use_artifacts(c, digests=digests, now=now)

    async def condemn_artifacts(self, c: Connection, digests: Sequence[str], before: datetime) -> None:
        await self._q.condemn_artifacts(c, digests=digests, before=before)

    async def condemn_strays(self, c: Connection, digests: Sequence[str], now: datetime) -> None:
        """Those of which there is no row."""
        known = {r["digest"] async for r in self._q.known_artifacts(c, digests=digests)}
        for digest in digests:
            if digest not in known:
                await self._q.condemn_stray(c, digest=digest, now=now)

    async def next_condemned(self, c: Connection) -> str | None:
        """One to remove, locked; None when there is none that nobody else is removing."""
        digest: str | None = await self._q.next_condemned(c)
        return digest

    async def drop_artifact(self, c: Connection, digest: str) -> None:
        await self._q.drop_owners(c, digest=digest)
        await self._q.drop_artifact(c, digest=digest)
