"""What the storefront knows of a person: listings of their models, in its table and in the index."""

from collections.abc import AsyncIterator

from services.common.db import Database
from services.common.personal.data import Person, Tables
from services.marketplace.catalogue import Catalogue


class MarketplaceData:
    """A `PersonalData`."""

    def __init__(self, database: Database, catalogue: Catalogue) -> None:
        self._tables = Tables(database, __name__, (), ("erase_listings",))
        self._catalogue = catalogue

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        """Nothing: listings are copies of what the registry has."""
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        await self._tables.erase(person)
        await self._catalogue.load()  # an index that is made anew keeps nothing of what it had
