"""The tables of OAuth, one typed method per named query."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from services.auth.store import Row
from services.common.db import Connection, load_queries


class OAuthStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.oauth")

    async def add_client(self, c: Connection, *, scopes: Iterable[str], **columns: Any) -> Row:
        row: Row = await self._q.add_client(c, scopes=json.dumps(sorted(scopes)), **columns)
        return row

    async def count_clients(self, c: Connection, org_id: str) -> int:
        return int(await self._q.count_clients(c, org_id=org_id))

    async def list_clients(self, c: Connection, org_id: str, before: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_clients(c, org_id=org_id, before=before, most=most)]

    async def revoke_client(self, c: Connection, client_id: str, org_id: str, now: datetime) -> Row | None:
        """The client, and the `users` whose sessions of it ended; None when the organisation has no such one."""
        row: Row | None = await self._q.revoke_client(c, client_id=client_id, org_id=org_id, now=now)
        return row

    async def find_client(self, c: Connection, client_id: str) -> Row | None:
        row: Row | None = await self._q.find_client(c, client_id=client_id)
        return row

    async def get_client_principal(self, c: Connection, client_id: str, token_id: str = "") -> Row | None:
        """Of a service account's client; None also when the token was revoked."""
        row: Row | None = await self._q.get_client_principal(c, client_id=client_id, token_id=token_id)
        return row

    async def revoke_token(self, c: Connection, token_id: str, expires_at: datetime) -> None:
        await self._q.revoke_token(c, token_id=token_id, expires_at=expires_at)

    async def forget(self, c: Connection, now: datetime) -> None:
        """What has run out."""
        await self._q.forget(c, now=now)

    async def add_device(
        self, c: Connection, *, device_hash: bytes, user_hash: bytes, client_id: str, scopes: Iterable[str] | None,
        ip_address: str, now: datetime, expires_at: datetime, interval_seconds: int,
    ) -> None:  # fmt: skip
        """`scopes`: None is all."""
        await self._q.add_device(
            c, device_hash=device_hash, user_hash=user_hash, client_id=client_id,
            scopes=None if scopes is None else json.dumps(sorted(scopes)), ip_address=ip_address, now=now,
            expires_at=expires_at, interval_seconds=interval_seconds,
        )  # fmt: skip

    async def lock_device(self, c: Connection, device_hash: bytes) -> Row | None:
        row: Row | None = await self._q.lock_device(c, device_hash=device_hash)
        return row

    async def poll_device(self, c: Connection, device_hash: bytes, now: datetime, slower: int) -> None:
        """`slower`: seconds that are added between polls from now on."""
        await self._q.poll_device(c, device_hash=device_hash, now=now, slower=slower)

    async def end_device(self, c: Connection, device_hash: bytes) -> None:
        await self._q.end_device(c, device_hash=device_hash)

    async def find_device(self, c: Connection, user_hash: bytes, now: datetime) -> Row | None:
        """One that waits for a decision."""
        row: Row | None = await self._q.find_device(c, user_hash=user_hash, now=now)
        return row

    async def decide_device(
        self, c: Connection, user_hash: bytes, *, user_id: str, approved: bool, authenticated_at: datetime,
        second_factor: bool, session_id: str, now: datetime,
    ) -> str | None:  # fmt: skip
        """The client that it was for; None when it does not wait any more."""
        row = await self._q.decide_device(
            c, user_hash=user_hash, user_id=user_id, approved=approved, authenticated_at=authenticated_at,
            second_factor=second_factor, session_id=session_id, now=now,
        )  # fmt: skip
        return row["client_id"] if row is not None else None

    async def find_refreshed(self, c: Connection, token_hash: bytes) -> Row | None:
        """The session of a client's refresh token."""
        row: Row | None = await self._q.find_refreshed(c, token_hash=token_hash)
        return row

    async def find_session(self, c: Connection, session_id: str, user_id: str) -> Row | None:
        row: Row | None = await self._q.find_session(c, session_id=session_id, user_id=user_id)
        return row
