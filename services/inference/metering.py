"""Group commit of usage records: they gather while the previous publish is unacknowledged, then travel as one message.
A call is answered only when its record is stored by JetStream."""

import asyncio
import logging

from mercat.event.v1 import event_pb2
from mercat.usage.v1 import usage_pb2

from services.common import failpoints
from services.common.errors import Unavailable
from services.common.events import USAGE_SUBJECT, Events

log = logging.getLogger(__name__)
_MOST = 1000  # records of one message; one is about 400 bytes and a message may have 1 MiB
_GATHER = 0.003  # seconds that records gather before a message, while calls come several at a time
_PATIENCE = 1.0  # seconds without an acknowledgement after which new calls are refused before they run


class Meter:
    """Records calls, each once."""

    def __init__(self, events: Events, worker_id: str) -> None:
        self._events = events
        self._worker_id = worker_id
        self._gathered: list[tuple[usage_pb2.UsageRecord, asyncio.Future[None]]] = []
        self._flight: asyncio.Task[None] | None = None
        self._crowded = False  # the last message held several records
        self._failing_since: float | None = None

    def check(self) -> None:
        """Raises Unavailable, with a retry hint, while records cannot be stored: a call that could not be counted must
        not run."""
        since = self._failing_since
        if since is not None and asyncio.get_running_loop().time() - since > _PATIENCE:
            raise Unavailable("calls cannot be counted just now", reason="METERING_UNAVAILABLE", retry_after=1)

    async def record(self, record: usage_pb2.UsageRecord) -> None:
        """Ends when the record is stored. A caller that gives up meanwhile has been counted all the same: the record is
        published until it is acknowledged."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._gathered.append((record, future))
        if self._flight is None:
            self._flight = loop.create_task(self._fly())
        await future

    async def _fly(self) -> None:
        try:
            while self._gathered:
                if self._crowded:
                    await asyncio.sleep(_GATHER)
                batch, self._gathered = self._gathered[:_MOST], self._gathered[_MOST:]
                self._crowded = len(batch) > 1
                message = event_pb2.UsageBatch(records=[r for r, _ in batch], worker_id=self._worker_id)
                failpoints.passing("inference.before_ack")
                await self._store(message.SerializeToString())
                failpoints.passing("inference.after_ack")
                for _, future in batch:
                    if not future.done():
                        future.set_result(None)
        finally:
            self._flight = None

    async def _store(self, payload: bytes) -> None:
        # Publishing again what was stored but not acknowledged is harmless: a record counts once, by its request id.
        delay = 0.05
        while True:
            try:
                await self._events.js.publish(USAGE_SUBJECT, payload, timeout=2)
                self._failing_since = None
                return
            except Exception as e:
                if self._failing_since is None:
                    self._failing_since = asyncio.get_running_loop().time()
                log.warning("usage records wait to be stored: %s", str(e) or type(e).__name__)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 1.0)

    async def flush(self) -> None:
        """Ends when nothing waits to be stored."""
        while self._flight is not None:
            await asyncio.shield(self._flight)
