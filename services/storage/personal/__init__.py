"""What storage knows of a person: what they uploaded."""

from collections.abc import AsyncIterator

from services.common.db import Database, load_queries
from services.common.personal.data import Person, Tables
from services.storage.blobs import Blobs
from services.storage.spool import Spool


class StorageData:
    """A `PersonalData`. Artifacts that others uploaded too stay."""

    def __init__(self, database: Database, blobs: Blobs, spool: Spool) -> None:
        self._database = database
        self._blobs = blobs
        self._spool = spool
        self._tables = Tables(database, __name__, ("uploads", "artifacts"), ("erase_owners", "erase_uploads"))
        self._q = load_queries(__name__)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        org_ids = [o.org_id for o in person.organisations]
        async with self._database.connection() as connection:
            uploads = [row["id"] async for row in self._q.list_uploads(connection, org_ids=org_ids)]
            digests = [row["digest"] async for row in self._q.list_digests(connection, org_ids=org_ids)]
        for upload_id in uploads:
            self._spool.remove(upload_id)
        await self.drop(digests, org_ids)
        await self._tables.erase(person)

    async def drop(self, digests: list[str], org_ids: list[str]) -> None:
        """Removes artifacts that nobody owns but these organisations. Raises Unavailable."""
        for digest in digests:
            async with self._database.transaction() as connection:
                # Locked, so that nobody becomes an owner of what goes.
                if await self._q.lock_unowned(connection, digest=digest, org_ids=org_ids) is None:
                    continue
                await self._blobs.remove(digest)
                await self._q.drop_artifact(connection, digest=digest)
