"""Notes that the sunsets of versions have come. Workers refuse calls from then on of themselves."""

from mercat.event.v1 import event_pb2

from services.common import outbox
from services.common.clock import Clock
from services.common.db import Database
from services.common.repeating import repeat
from services.registry.lifecycle import Actor, is_retired
from services.registry.steps import Steps, told
from services.registry.store import Store


class Retiring:
    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._steps = Steps(store, clock)

    async def run(self) -> None:
        await repeat(self._one, "versions whose sunset has come wait")

    async def _one(self) -> int:
        now = self._clock.now()
        async with self._database.transaction() as connection:
            due = await self._store.due_sunset(connection, now)
            if due is None:
                return 0
            model = await self._store.model_of_version(connection, due["id"])
            assert model is not None
            row = await self._steps.lock(connection, model, due["version"], "retire")
            if row["state"] != due["state"] or not is_retired(row["state"], row["sunset_at"], now):
                return 1  # somebody was quicker, or it was put off
            row = await self._steps.take(connection, model, row, "retire", Actor.PLATFORM)
            await outbox.add(connection, event_pb2.VersionRetired(**told(row, model), successor=row["successor"]))
        return 1
