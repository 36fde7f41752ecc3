"""What notification knows of a person: endpoints of their organisations, what these were told, and what came of it."""

from collections.abc import AsyncIterator

from services.common.db import Database, load_queries
from services.common.errors import Unavailable
from services.common.personal.data import Person, Tables
from services.common.secrets.keyring import Keyring

_FILES = ("webhook_endpoints", "webhook_events", "webhook_deliveries")
# Words first, while it is known whose events they are in.
_SOME = ("erase_words_of_some_events", "rename_models_of_some_events")
_ERASING = ("erase_deliveries", "erase_endpoints", "erase_events", "erase_quota_notices", "erase_addresses")


class NotificationData:
    """A `PersonalData`."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._tables = Tables(database, __name__, _FILES, _ERASING, _SOME)
        self._q = load_queries(__name__)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        """Raises Unavailable until it has found no event of theirs any more: others may have been on their way."""
        org_ids = [o.org_id for o in person.organisations]
        async with self._database.connection() as connection:
            told = await self._q.count_events(connection, org_ids=org_ids)
        await self._tables.erase(person)
        async with self._database.transaction() as connection:
            for org_id in org_ids:
                await self._keyring.shred(connection, org_id)
        if told:
            raise Unavailable("events of theirs may be on their way")
