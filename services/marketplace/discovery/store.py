"""The tables of discovery, one typed method per named query."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mercat.marketplace.v1 import collections_pb2

from services.common import ids
from services.common.db import Connection, load_queries
from services.marketplace.discovery.together import Pair
from services.marketplace.store import Listing, listing_of

Row = Mapping[str, Any]


class DiscoveryStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.marketplace.discovery")

    # What goes together

    async def put_together(self, c: Connection, pairs: Sequence[Pair]) -> bool:
        """In the place of all that there was; False when another process is at it."""
        if not await self._q.lock_together(c):
            return False
        await self._q.forget_together(c)
        if pairs:
            models, others, accounts, scores = zip(*pairs, strict=True)
            await self._q.put_together(c, models=models, others=others, accounts=accounts, scores=scores)
        return True

    async def list_together(self, c: Connection, models: Sequence[str], most: int) -> list[tuple[str, str]]:
        """(model, other) of published others, those that go together best first."""
        return [(r["model"], r["other"]) async for r in self._q.list_together(c, models=list(models), most=most)]

    async def opted_out(self, c: Connection) -> set[str]:
        return {r["org_id"] async for r in self._q.list_opted_out(c)}

    async def get_preferences(self, c: Connection, org_id: str) -> bool:
        """Whether recommendations are off."""
        return bool(await self._q.get_preferences(c, org_id=org_id))

    async def set_preferences(self, c: Connection, org_id: str, *, off: bool) -> None:
        await self._q.set_preferences(c, org_id=org_id, off=off)

    # Collections

    async def add_collection(
        self, c: Connection, org_id: str, request: collections_pb2.CreateCollectionRequest, now: datetime
    ) -> Row:
        return await self._q.add_collection(  # type: ignore[no-any-return]
            c, id=ids.new("col"), org_id=org_id, title=request.title, description=request.description,
            curated=request.curated, now=now,
        )  # fmt: skip

    async def get_collection(self, c: Connection, collection_id: str, org_id: str) -> Row | None:
        """One that the organisation may see."""
        return await self._q.get_collection(c, id=collection_id, org_id=org_id)  # type: ignore[no-any-return]

    async def lock_collection(self, c: Connection, collection_id: str, org_id: str, *, admin: bool) -> Row | None:
        """One that the caller may change."""
        return await self._q.lock_collection(c, id=collection_id, org_id=org_id, admin=admin)  # type: ignore[no-any-return]

    async def list_collections(
        self, c: Connection, org_id: str, before: str, most: int, *, curated: bool
    ) -> Sequence[Row]:
        rows = self._q.list_collections(c, org_id=org_id, curated=curated, before=before, most=most)
        return [r async for r in rows]

    async def update_collection(
        self, c: Connection, collection_id: str, title: str, description: str, now: datetime
    ) -> Row:
        return await self._q.update_collection(  # type: ignore[no-any-return]
            c, id=collection_id, title=title, description=description, now=now
        )

    async def delete_collection(self, c: Connection, collection_id: str) -> None:
        await self._q.delete_collection(c, id=collection_id)

    async def count_collection(self, c: Connection, collection_id: str) -> int:
        return int(await self._q.count_collection(c, id=collection_id))

    async def add_to_collection(self, c: Connection, collection_id: str, model: str) -> None:
        await self._q.add_to_collection(c, id=collection_id, model=model)

    async def remove_from_collection(self, c: Connection, collection_id: str, model: str) -> None:
        await self._q.remove_from_collection(c, id=collection_id, model=model)

    async def collection_models(self, c: Connection, collection_id: str) -> list[Listing]:
        return [listing_of(r) async for r in self._q.collection_models(c, id=collection_id)]

    # Favourites, and whom somebody follows

    async def add_favourite(self, c: Connection, org_id: str, model: str) -> None:
        await self._q.add_favourite(c, org_id=org_id, model=model)

    async def remove_favourite(self, c: Connection, org_id: str, model: str) -> None:
        await self._q.remove_favourite(c, org_id=org_id, model=model)

    async def list_favourites(self, c: Connection, org_id: str, before: int, most: int) -> Sequence[Row]:
        return [r async for r in self._q.list_favourites(c, org_id=org_id, before=before, most=most)]

    async def follow(self, c: Connection, org_id: str, publisher: str) -> None:
        await self._q.follow(c, org_id=org_id, publisher=publisher)

    async def unfollow(self, c: Connection, org_id: str, publisher: str) -> None:
        await self._q.unfollow(c, org_id=org_id, publisher=publisher)

    async def list_following(self, c: Connection, org_id: str, after: str, most: int) -> list[str]:
        rows = self._q.list_following(c, org_id=org_id, after=after, most=most)
        return [r["publisher"] async for r in rows]

    async def list_feed(
        self, c: Connection, org_id: str, called: Sequence[str], before: tuple[datetime, str, int], most: int
    ) -> Sequence[Row]:
        """`called`: the models that the organisation calls. `before`: the moment, version and kind of an entry."""
        at, version_id, kind = before
        rows = self._q.list_feed(
            c, org_id=org_id, called=list(called), at=at, version_id=version_id, kind=kind, most=most
        )  # fmt: skip
        return [r async for r in rows]
