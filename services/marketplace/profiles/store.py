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

    async def lock_verification(self, c: Connection, org_id: str) -> None:
        """Until the transaction ends, nobody else finds out whether an organisation is verified."""
        await self._q.lock_verification(c, org_id=org_id)

    async def get_profile_of(self, c: Connection, org_id: str) -> Row | None:
        row: Row | None = await self._q.get_profile_of(c, org_id=org_id)
        return row

    async def list_profiles(self, c: Connection, after: str, most: int, *, unknown: bool) -> list[Row]:
        """(org_id, publisher), of all or of those of which it is unknown whether they are verified."""
        return [r async for r in self._q.list_profiles(c, after=after, unknown=unknown, most=most)]

    async def set_verified(self, c: Connection, org_id: str, *, verified: bool) -> bool:
        """False when it is so already."""
        return await self._q.set_verified(c, org_id=org_id, verified=verified) is not None

    async def is_public(self, c: Connection, publisher: str) -> bool:
        """Whether it has a model in the marketplace, or is verified."""
        return bool(await self._q.is_public(c, publisher=publisher))

    async def put_profile(self, c: Connection, **columns: Any) -> None:
        """Raises asyncpg.UniqueViolationError when the display name looks like another's."""
        await self._q.put_profile(c, **columns)

    async def list_published(self, c: Connection, publisher: str, most: int) -> list[Listing]:
        """Those published last first."""
        return [listing_of(r) async for r in self._q.list_published(c, publisher=publisher, most=most)]

    async def count_published(self, c: Connection, publisher: str) -> Row:
        row: Row = await self._q.count_published(c, publisher=publisher)
        return row
