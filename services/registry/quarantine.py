"""Versions that keep bringing their engines down are taken out of service, and their publishers told."""

import dataclasses
import json
from datetime import timedelta

from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2

from services.common import outbox
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import NotFound
from services.registry import references
from services.registry.lifecycle import CALLABLE
from services.registry.store import Row, Store
from services.registry.validation.report import Finding

CRASHES, WITHIN = 3, timedelta(minutes=10)
_FINDING = Finding(
    "ENGINE_CRASHED",
    f"it brought its engine down {CRASHES} times within {WITHIN.seconds // 60} minutes; push a corrected version",
)


class Quarantine:
    """Counts crashes and acts on them."""

    def __init__(self, database: Database, store: Store, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock

    async def report(self, request: registry_pb2.ReportCrashRequest) -> registry_pb2.ReportCrashResponse:
        """Raises NotFound when there is no such version."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            model = await self._store.model_of_version(connection, request.version_id)
            if model is None:
                raise NotFound("there is no such version", reason="VERSION_NOT_FOUND")
            await self._store.touch_model(connection, model["id"], now)
            row = await self._store.lock_version(connection, request.version_id)
            crashes = await self._store.add_crash(
                connection, request.crash_id, request.version_id, request.worker_id, now, now - WITHIN
            )
            state = int(row["state"])
            if crashes >= CRASHES and state in CALLABLE:
                state = registry_pb2.VERSION_STATE_QUARANTINED
                await self._quarantine(connection, model, row, crashes)
        return registry_pb2.ReportCrashResponse(state=state, crashes=crashes)  # type: ignore[arg-type]

    async def _quarantine(self, c: Connection, model: Row, row: Row, crashes: int) -> None:
        now = self._clock.now()
        await self._store.move_version(c, row["id"], registry_pb2.VERSION_STATE_QUARANTINED, row["review_note"], now)
        await self._store.add_finding(c, row["id"], json.dumps([dataclasses.asdict(_FINDING)]))
        latest = references.newest(await self._store.published_versions(c, model["id"]))
        await self._store.set_latest(c, model["id"], latest, now)
        name = f"{model['publisher']}/{model['name']}"
        changed = event_pb2.ModelChanged(model_id=model["id"], model=name, published=bool(latest))
        await outbox.add(c, changed)
        told = event_pb2.VersionQuarantined(
            version_id=row["id"], model=name, version=row["version"], org_id=model["org_id"], crashes=crashes
        )
        await outbox.add(c, told)
