"""What usage knows of a person: the calls of organisations that are theirs. They stay, since the books are proven by
them; what the person wrote on them goes, and the name in the names of their models."""

from collections.abc import AsyncIterator

from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common.db import Database, load_queries
from services.common.errors import NotFound, Unavailable
from services.common.personal.data import Person, Tables
from services.common.rpc.channels import InternalChannel

_FILES = ("usage_records", "usage_rollups")
_SOME = ("erase_some_tags", "rename_models_of_some_records")  # of what may be millions


class UsageData:
    """A `PersonalData`."""

    def __init__(self, database: Database, control: InternalChannel) -> None:
        self._database = database
        self._registry = registry_pb2_grpc.DeploymentServiceStub(control)
        self._tables = Tables(database, __name__, _FILES, ("rename_models_of_rollups",), _SOME)
        self._q = load_queries(__name__)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        """Raises Unavailable while calls of their models may still come in: until these are gone from the registry, and
        no record had to be renamed any more."""
        orgs = {
            "org_ids": [o.org_id for o in person.organisations],
            "handles": [o.handle for o in person.organisations],
        }
        async with self._database.connection() as connection:
            names = [row["model"] async for row in self._q.models_of(connection, **orgs)]
        for name in names:
            try:
                await self._registry.ResolveOwner(registry_pb2.ResolveOwnerRequest(model=name))
            except NotFound:
                continue
            raise Unavailable("a model of theirs can still be called")
        await self._tables.erase(person)
        if names:
            raise Unavailable("records of calls may be on their way")
