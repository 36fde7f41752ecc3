"""Follows exports and erasures until every service has done its part, and does what comes last. What is done at a death
is seen in the rows, and the rest is done after it."""

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.auth.privacy.data import AuthData
from services.auth.privacy.marks import Marks
from services.auth.privacy.store import PrivacyStore, Row
from services.auth.privacy.streams import purge
from services.common import failpoints
from services.common.db import Connection, added_to_outbox
from services.common.events import consume
from services.common.personal.data import SERVICES, Person
from services.common.repeating import repeat
from services.common.secrets.keyring import Keyring
from services.common.service import Deps, Task

_PAGE = 5000  # entries of the audit log that are looked through at a time


class Saga:
    """Its tasks are auth's."""

    def __init__(self, deps: Deps, store: PrivacyStore, keyring: Keyring, data: AuthData) -> None:
        self._deps = deps
        self._store = store
        self._keyring = keyring
        self._data = data
        self._objects = storage_pb2_grpc.ObjectServiceStub(deps.control)
        self.tasks: list[Task] = [self._hear, self._work]

    async def _hear(self) -> None:
        await consume(self._deps.events, self._deps.database, "person-parts", [event_pb2.PersonTaskDone], self._note)

    async def _note(self, connection: Connection, event: Message) -> None:
        assert isinstance(event, event_pb2.PersonTaskDone)
        await self._store.add_part(connection, event.task_id, event.service, event.SerializeToString())
        added_to_outbox(connection)  # which wakes who finishes

    async def _work(self) -> None:
        await repeat(self._some, "exports and erasures wait", wakes=self._deps.database)

    async def _some(self) -> int:
        """Finishes what is complete, removes what has expired; how much that was."""
        async with self._deps.database.connection() as connection:
            complete = await self._store.list_complete(connection, SERVICES)
            expired = await self._store.list_expired(connection, self._deps.clock.now())
        for row in complete:
            await self._finish(row)
        for request_id in expired:
            await self._objects.DeleteObjects(storage_pb2.DeleteObjectsRequest(folder=f"exports/{request_id}"))
            async with self._deps.database.transaction() as connection:
                await self._store.delete_request(connection, request_id)
        return len(complete) + len(expired)

    async def _finish(self, row: Row) -> None:
        """Raises Unavailable while the last traces of somebody who is erased cannot be removed yet."""
        person = Person.FromString(row["request"])
        owners: list[str] = []
        if person.kind == Person.KIND_ERASURE:
            owners = [person.user_id, *(o.org_id for o in person.organisations)]
            marks = await self._data.marks(person)
            if marks is not None:
                await self._erase_traces(person, marks)
                async with self._deps.database.connection() as connection:
                    requests = await self._store.requests(connection, owners[1:])
                await purge(self._deps.events, marks.in_bytes(*owners, person.task_id), requests)
        failpoints.passing("erasure.finish")
        async with self._deps.database.transaction() as connection:
            await self._store.finish_request(connection, person.task_id, self._deps.clock.now())
            for owner_id in owners:
                await self._keyring.shred(connection, owner_id)

    async def _erase_traces(self, person: Person, marks: Marks) -> None:
        """Details of the audit log: its entries stay, and its chain holds without them."""
        org_ids = [o.org_id for o in person.organisations]
        needles = [*marks.in_json(), *(f'"{org_id}"' for org_id in org_ids)]
        after: str | None = ""
        while after is not None:
            async with self._deps.database.transaction() as connection:
                after = await self._store.erase_traces(
                    connection, after, _PAGE, person.user_id, org_ids, needles, marks.places
                )
