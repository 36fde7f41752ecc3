"""What the storefront knows of a person: what they said of models and set apart for themselves, and listings of their
own, in its tables and in the index."""

from collections.abc import AsyncIterator

from services.common.db import Database, load_queries
from services.common.errors import Unavailable
from services.common.personal.data import Person, Tables
from services.marketplace.catalogue import Catalogue
from services.marketplace.store import Store

# Listings are copies of what the registry has.
_FILES = (
    "reviews", "replies_to_reviews", "reports_of_reviews", "collections", "favourites", "follows", "preferences",
    "profiles",
)  # fmt: skip
_ERASING = (
    "erase_reviews", "erase_reports", "erase_collections", "erase_places", "erase_favourites", "erase_follows",
    "erase_preferences", "erase_profiles", "erase_together", "erase_latencies", "erase_listings", "erase_endings",
    "erase_changes",
)  # fmt: skip


class MarketplaceData:
    """A `PersonalData`."""

    def __init__(self, database: Database, store: Store, catalogue: Catalogue) -> None:
        self._database = database
        self._store = store
        self._catalogue = catalogue
        self._tables = Tables(database, __name__, _FILES, _ERASING)
        self._q = load_queries(__name__)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        """Raises Unavailable while the registry has a listed model of theirs: its listing would come back."""
        org_ids = [o.org_id for o in person.organisations]
        handles = [o.handle for o in person.organisations]
        async with self._database.connection() as connection:
            listed = [row["model"] async for row in self._q.listed(connection, handles=handles)]
        for model in listed:
            if await self._catalogue.address(model):
                raise Unavailable("a model of theirs is in the registry yet")
        async with self._database.transaction() as connection:
            await self._store.await_changes(connection)  # whoever composes a listing later finds no model
            reviewed = [
                row["model"] async for row in self._q.reviewed(connection, org_ids=org_ids, handles=handles)
            ]  # fmt: skip
            for model in reviewed:
                await self._store.lock_listing(connection, model)
            await self._tables.erase_within(connection, person)
            for model in reviewed:
                await self._store.count_reviews(connection, model)
            await self._store.note_everything(connection)
        await self._catalogue.load()  # an index that is made anew keeps nothing of what it had
        self._catalogue.changed()
