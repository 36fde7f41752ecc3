"""The table of publishers' keys, one typed method per named query."""

from datetime import datetime

from services.common.db import Connection, load_queries
from services.registry.store import Row


class KeyStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.registry.provenance")

    async def add_publisher_key(
        self, c: Connection, *, org_id: str, fingerprint: str, publisher: str, name: str, public_key: str, now: datetime
    ) -> Row | None:
        """None when the organisation has it already."""
        row: Row | None = await self._q.add_publisher_key(
            c, org_id=org_id, fingerprint=fingerprint, publisher=publisher, name=name, public_key=public_key, now=now
        )
        return row

    async def count_publisher_keys(self, c: Connection, org_id: str) -> int:
        return int(await self._q.count_publisher_keys(c, org_id=org_id))

    async def list_publisher_keys(self, c: Connection, publisher: str, after: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_publisher_keys(c, publisher=publisher, after=after, most=most)]

    async def trusted_keys(self, c: Connection, org_id: str) -> list[Row]:
        """Those of an organisation that are not revoked, and are not until the transaction ends."""
        return [r async for r in self._q.trusted_keys(c, org_id=org_id)]

    async def revoke_publisher_key(self, c: Connection, org_id: str, fingerprint: str, now: datetime) -> Row | None:
        row: Row | None = await self._q.revoke_publisher_key(c, org_id=org_id, fingerprint=fingerprint, now=now)
        return row
