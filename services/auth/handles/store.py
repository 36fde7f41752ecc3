"""The tables of released handles, one typed method per named query."""

from collections.abc import Sequence
from datetime import datetime

from services.common.db import Connection, load_queries


class HandleStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.handles")

    async def add_handle_key(self, c: Connection, sealed: bytes) -> None:
        """Nothing when there is one."""
        await self._q.add_handle_key(c, sealed=sealed)

    async def get_handle_key(self, c: Connection) -> bytes | None:
        """Sealed; None before the first handle was released."""
        sealed: bytes | None = await self._q.get_handle_key(c)
        return sealed

    async def retire_handle(self, c: Connection, handle_hash: bytes, now: datetime) -> None:
        await self._q.retire_handle(c, handle_hash=handle_hash, now=now)

    async def is_retired(self, c: Connection, handle_hashes: Sequence[bytes], since: datetime) -> bool:
        """Whether one of them was released after an instant."""
        return bool(await self._q.is_retired(c, handle_hashes=handle_hashes, since=since))

    async def forget_retired(self, c: Connection, before: datetime) -> None:
        await self._q.forget_retired(c, before=before)

    async def list_unkeyed(self, c: Connection, most: int) -> list[bytes]:
        """Hashes without a key, of an earlier time; locked."""
        return [r["handle_hash"] async for r in self._q.list_unkeyed(c, most=most)]

    async def key_retired(self, c: Connection, before: bytes, handle_hash: bytes) -> None:
        await self._q.key_retired(c, before=before, handle_hash=handle_hash)
