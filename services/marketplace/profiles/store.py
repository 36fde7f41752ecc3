"""The table of profiles, and what other tables say of a publisher; one typed method per named query."""

from collections.abc import Mapping
from typing import Any

from services.common.db import Connection, load_queries
from services.marketplace.store import Listing, listing_of

Row = Mapping[str, Any]


class ProfileStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.marketplace.profiles")

    async def get_profile(self, c: Connection, publisher: str) -> Row | None:
        row: Row | None = await self._q.get_profile(c, publisher=publisher)
        return row

    async def put_profile(self, c: Connection, **columns: Any) -> None:
        """Raises asyncpg.UniqueViolationError when the display name looks like another's."""
        await self._q.put_profile(c, **columns)

    async def list_published(self, c: Connection, publisher: str, most: int) -> list[Listing]:
        """Those published last first."""
        return [listing_of(r) async for r in self._q.list_published(c, publisher=publisher, most=most)]

    async def count_published(self, c: Connection, publisher: str) -> Row:
        row: Row = await self._q.count_published(c, publisher=publisher)
        return row
