"""What the registry knows of a person: their models and versions. What others' receipts name of them stays."""

from collections.abc import AsyncIterator

from mercat.event.v1 import event_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common import outbox
from services.common.db import Database, load_queries
from services.common.personal.data import Person, Tables
from services.common.rpc.channels import InternalChannel

_FILES = (
    "models", "versions", "version_files", "aliases", "model_addresses", "model_transfers", "version_decisions",
    "lineage", "publisher_keys", "accesses", "acceptances",
)  # fmt: skip
_ERASING = (
    "erase_aliases", "erase_crashes", "erase_decisions", "forget_reviewer", "erase_version_files", "erase_lineage",
    "erase_publisher_keys", "erase_versions", "erase_successors", "erase_transfers", "erase_addresses",
    "erase_acceptances",
    "erase_acceptors", "erase_accesses", "erase_requesters", "erase_terms", "erase_models",
)  # fmt: skip


class RegistryData:
    """A `PersonalData`."""

    def __init__(self, database: Database, control: InternalChannel) -> None:
        self._database = database
        self._artifacts = storage_pb2_grpc.ArtifactServiceStub(control)
        self._tables = Tables(database, __name__, _FILES, _ERASING)
        self._q = load_queries(__name__)

    async def export(self, person: Person) -> AsyncIterator[tuple[str, AsyncIterator[str]]]:
        async for part in self._tables.export(person):
            yield part

    async def erase(self, person: Person) -> None:
        """Calls of these models end with NOT_FOUND from then on. What validation made of their files goes first, since
        only their rows know it."""
        org_ids = [o.org_id for o in person.organisations]
        async with self._database.connection() as connection:
            made = [row["digest"] async for row in self._q.made_of_versions(connection, org_ids=org_ids)]
        if made:
            await self._artifacts.DropArtifacts(storage_pb2.DropArtifactsRequest(digests=made))
        async with self._database.transaction() as connection:
            models = [row async for row in self._q.lock_models(connection, org_ids=org_ids)]
            await self._tables.erase_within(connection, person)
            for model in models:
                await outbox.add(
                    connection, event_pb2.ModelChanged(model_id=model["id"], model=model["model"], published=False)
                )
