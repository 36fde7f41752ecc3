"""Versions that keep bringing their engines down are taken out of service, and their publishers told."""

import dataclasses
import json
from datetime import timedelta

from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2

from services.common import outbox
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import NotFound
from services.registry.lifecycle import CALLABLE, Actor
from services.registry.steps import Steps, standing_of, told
from services.registry.store import Store
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
        self._steps = Steps(store, clock)

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
            if crashes >= CRASHES and standing_of(row, now).state in CALLABLE:
                state = registry_pb2.VERSION_STATE_QUARANTINED
                row = await self._steps.take(connection, model, row, "quarantine", Actor.PLATFORM)
                await self._store.add_finding(connection, row["id"], json.dumps([dataclasses.asdict(_FINDING)]))
                event = event_pb2.VersionQuarantined(**told(row, model), crashes=crashes, reason=_FINDING.message)
                await outbox.add(connection, event)
        return registry_pb2.ReportCrashResponse(state=state, crashes=crashes)  # type: ignore[arg-type]
