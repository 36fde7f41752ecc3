"""Does a service's part of exports and erasures: a row for each it heard of, done once, whatever dies meanwhile."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common import failpoints, outbox
from services.common.db import Connection, added_to_outbox, load_queries
from services.common.errors import MercatError
from services.common.events import consume
from services.common.personal.data import Person, PersonalData
from services.common.repeating import repeat
from services.common.service import Deps, Task

log = logging.getLogger(__name__)
_CLAIM = timedelta(seconds=15)  # until a dead process's part is begun anew by another
_LONGEST_WAIT = 60  # seconds between attempts
_PIECE = 256 * 1024  # bytes of one message to the object store
_KEPT = timedelta(days=30)  # of a task that is done


def object_of(task_id: str, service: str, file: str) -> str:
    """Where a file of an export lies."""
    return f"exports/{task_id}/{service}-{file}"


class PersonTasks:
    """Of one service."""

    def __init__(self, deps: Deps, service: str, data: PersonalData) -> None:
        self._deps = deps
        self._service = service
        self._data = data
        self._objects = storage_pb2_grpc.ObjectServiceStub(deps.control)
        self._q = load_queries("services.common.personal")
        self.tasks: list[Task] = [self._hear, self._work]

    async def _hear(self) -> None:
        kinds = [event_pb2.PersonTaskRequested]
        await consume(self._deps.events, self._deps.database, f"persons-{self._service}", kinds, self._take)

    async def _take(self, connection: Connection, event: Message) -> None:
        assert isinstance(event, event_pb2.PersonTaskRequested)
        now = self._deps.clock.now()
        await self._q.add_task(connection, id=event.task_id, request=event.SerializeToString(), now=now)
        added_to_outbox(connection)  # which wakes who waits for work

    async def _work(self) -> None:
        await repeat(self._one, f"person tasks of {self._service} wait", wakes=self._deps.database)

    async def _one(self) -> int:
        """Does one task that is due; how many there were."""
        now = self._deps.clock.now()
        async with self._deps.database.connection() as connection:
            await self._q.forget_tasks(connection, before=now - _KEPT)
            row = await self._q.claim_task(connection, now=now, until=now + _CLAIM)
        if row is None:
            return 0
        person = Person.FromString(row["request"])
        holding = asyncio.create_task(self._hold(person.task_id))
        try:
            await self._do(person, int(row["attempts"]))
        finally:
            holding.cancel()
        return 1

    async def _hold(self, task_id: str) -> None:
        """Keeps others away from a task that is being done."""
        while True:
            await asyncio.sleep(_CLAIM.total_seconds() / 3)
            try:
                async with self._deps.database.connection() as connection:
                    await self._q.put_off_task(connection, id=task_id, at=self._deps.clock.now() + _CLAIM)
            except MercatError as e:
                log.warning("%s of %s is not held: %s", task_id, self._service, e)

    async def _do(self, person: Person, attempts: int) -> None:
        done = event_pb2.PersonTaskDone(task_id=person.task_id, service=self._service)
        try:
            if person.kind == Person.KIND_EXPORT:
                async for name, lines in self._data.export(person):
                    done.files.append(await self._write(person.task_id, name, lines))
            else:
                await self._data.erase(person)
        except Exception as e:
            wait = min(2 ** min(attempts, 10), _LONGEST_WAIT)
            if isinstance(e, MercatError):
                log.info("%s of %s waits %d s: %s", person.task_id, self._service, wait, e)
            else:
                log.exception("%s of %s is tried again in %d s", person.task_id, self._service, wait)
            async with self._deps.database.connection() as connection:
                await self._q.put_off_task(
                    connection, id=person.task_id, at=self._deps.clock.now() + timedelta(seconds=wait)
                )
            return
        failpoints.passing("export.part" if person.kind == Person.KIND_EXPORT else "erasure.part")
        async with self._deps.database.transaction() as connection:
            if await self._q.end_task(connection, id=person.task_id):
                await outbox.add(connection, done)

    async def _write(self, task_id: str, name: str, lines: AsyncIterator[str]) -> event_pb2.PersonTaskDone.File:
        """Puts a file into the object store as it is read."""
        file, digest = event_pb2.PersonTaskDone.File(name=name), hashlib.sha256()

        async def pieces() -> AsyncIterator[storage_pb2.PutObjectRequest]:
            piece = storage_pb2.PutObjectRequest(name=object_of(task_id, self._service, name))
            held = bytearray()
            async for line in lines:
                held += line.encode() + b"\n"
                file.lines += 1
                if len(held) >= _PIECE:
                    piece.data = bytes(held)
                    yield piece
                    piece = storage_pb2.PutObjectRequest()
                    digest.update(held)
                    file.size_bytes += len(held)
                    held.clear()
            digest.update(held)
            file.size_bytes += len(held)
            piece.data = bytes(held)
            yield piece

        await self._objects.PutObject(pieces(), timeout=600)
        file.sha256 = digest.hexdigest()
        return file
