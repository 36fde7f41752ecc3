"""Tells of quotas that have come to an end: each end of a period once in a worker. Another worker may tell too: who
passes it on knows what was told."""

import asyncio
import logging
from datetime import UTC, datetime

from mercat.event.v1 import event_pb2

from services.common import outbox
from services.common.db import Database
from services.common.errors import MercatError
from services.common.limits import Bucket

log = logging.getLogger(__name__)
_MOST = 100_000  # ends that are remembered
_AGAIN = 2.0  # seconds


class QuotaNotices:
    """What a `Limiter` is to call with quotas that were reached, and what writes the events beside the calls."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._told: set[tuple[str, bool, int]] = set()
        self._waiting: list[event_pb2.QuotaReached] = []
        self._wake = asyncio.Event()

    def reached(self, bucket: Bucket, hard: bool) -> None:
        calls = bucket.limit.burst if hard else bucket.limit.soft
        end = (bucket.key, hard, int(calls))
        if end in self._told or not bucket.org_id:
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add(end)
        name, subject = bucket.limit.name, bucket.subject.partition(":")[0]
        event = event_pb2.QuotaReached(
            org_id=bucket.org_id, quota=name, key_id=subject if name.startswith("key_") else "", model=bucket.model,
            hard=hard, limit_calls=int(calls),
        )  # fmt: skip
        event.reset_time.FromDatetime(datetime.fromtimestamp(bucket.until, UTC))
        self._waiting.append(event)
        self._wake.set()

    async def keep(self) -> None:
        """Writes them down, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
            except MercatError as e:
                log.warning("quotas that were reached are told later: %s", e)
                self._wake.set()
                await asyncio.sleep(_AGAIN)

    async def flush(self) -> None:
        """Writes down what was reached until now. Raises DatabaseUnavailable."""
        events = list(self._waiting)
        async with self._database.transaction() as connection:
            for event in events:
                await outbox.add(connection, event)
        del self._waiting[: len(events)]
