"""The tables of passkeys, one typed method per named query."""

from datetime import datetime
from typing import Any

from services.auth.store import Row
from services.common.db import Connection, load_queries


class PasskeyStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.passkeys")

    async def add_challenge(
        self, c: Connection, challenge: bytes, user_id: str, now: datetime, expires_at: datetime
    ) -> None:
        """`user_id`: who registers a key; empty: whoever signs in."""
        await self._q.add_challenge(c, challenge=challenge, user_id=user_id or None, now=now, expires_at=expires_at)

    async def take_challenge(self, c: Connection, challenge: bytes, user_id: str, now: datetime) -> bool:
        """Uses it up; False when it is none of ours, of now and for this."""
        return await self._q.take_challenge(c, challenge=challenge, user_id=user_id or None, now=now) is not None

    async def add_passkey(self, c: Connection, **columns: Any) -> Row | None:
        """None when it is registered, with whomever."""
        row: Row | None = await self._q.add_passkey(c, **columns)
        return row

    async def find_passkey(self, c: Connection, credential_id: bytes) -> Row | None:
        row: Row | None = await self._q.find_passkey(c, credential_id=credential_id)
        return row

    async def use_passkey(
        self, c: Connection, passkey_id: str, sign_count: int, now: datetime, *, synced: bool
    ) -> bool:
        """False when it was used later than this meanwhile, or is gone."""
        return await self._q.use_passkey(c, id=passkey_id, sign_count=sign_count, synced=synced, now=now) is not None

    async def list_passkeys(self, c: Connection, user_id: str, before: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_passkeys(c, user_id=user_id, before=before, most=most)]

    async def delete_passkey(self, c: Connection, passkey_id: str, user_id: str) -> Row | None:
        row: Row | None = await self._q.delete_passkey(c, passkey_id=passkey_id, user_id=user_id)
        return row
