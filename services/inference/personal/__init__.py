"""What inference knows of a person: jobs, with what was sent and what came of it."""

from collections.abc import AsyncIterator

from services.common.db import Database, load_queries
from services.common.errors import Unavailable
from services.common.personal.data import Person, Tables
from services.inference.job_objects import JobObjects

_ERASING = ("erase_job_parts", "erase_jobs", "rename_models_of_jobs")


class InferenceData:
    """A `PersonalData`."""

    def __init__(self, database: Database, objects: JobObjects) -> None:
        self._database = database
        self._objects = objects
        self._tables = Tables(database, __name__, ("jobs",), _ERASING)
        self._q = load_queries(__name__)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        """Raises Unavailable while one of their jobs still runs, which is asked to end."""
        org_ids = [o.org_id for o in person.organisations]
        async with self._database.connection() as connection:
            await self._q.cancel_jobs(connection, org_ids=org_ids)
            jobs = [row async for row in self._q.list_jobs(connection, org_ids=org_ids)]
        for job in jobs:
            if job["state"] == "running":
                raise Unavailable(f"{job['id']} has not ended yet")
            await self._objects.delete(job["id"])
        await self._tables.erase(person)
