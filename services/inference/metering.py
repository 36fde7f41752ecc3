"""Group commit of usage records: they gather while the previous publish is unacknowledged, then travel as one message.
A call is answered only when its record is stored by JetStream."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from services.common import failpoints
from services.common.errors import DeadlineExceeded, Unavailable
from services.inference import records
from services.inference.publisher import Publisher

log = logging.getLogger(__name__)
_MOST = 1000  # records of one message; one is about 400 bytes and a message may have 1 MiB
# Seconds from one message to the next while calls come several at a time, and when no more are under way. A message
# costs as much as thirty records.
_GATHER, _LEAST = 0.005, 0.002
_PATIENCE = 1.0  # seconds without an acknowledgement after which new calls are refused before they run
_FIRST = 0.5  # seconds for the first acknowledgement
_LONGEST = 60.0  # seconds after which callers are told that their calls' records are not known to be stored

Future = asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Calls whose records travel as one message."""

    calls: list[tuple[bytes, Future, object]]
    payload: bytes

    def stored(self) -> None:
        failpoints.passing("inference.after_ack")
        for _, future, result in self.calls:
            if not future.done():
                future.set_result(result)


class Meter:
    """Records calls, each once."""

    def __init__(self, publisher: Publisher, worker_id: str) -> None:
        self._publisher = publisher
        self._worker_id = worker_id
        self._gathered: list[tuple[bytes, Future, object]] = []
        self._flight: asyncio.Task[None] | None = None
        self._coming = 0  # calls under way that are not recorded yet
        self._all_here: asyncio.Future[None] | None = None
        self._crowded = False  # the last message held several records
        self._failing_since: float | None = None

    def check(self) -> None:
        """Raises Unavailable, with a retry hint, while records cannot be stored: a call that could not be counted must
        not run."""
        since = self._failing_since
        if since is not None and asyncio.get_running_loop().time() - since > _PATIENCE:
            raise Unavailable("calls cannot be counted just now", reason="METERING_UNAVAILABLE", retry_after=1)

    def expect(self) -> None:
        """A call is under way: until `add` or `forget` its record may be waited for, a moment."""
        self._coming += 1

    def forget(self) -> None:
        """A call that was expected is not recorded."""
        self._coming -= 1
        if not self._coming and self._all_here is not None:
            self._settle(self._all_here)

    def add(self, record: bytes, future: Future, result: object) -> None:
        """Stores the UsageRecord of a call that was expected; then the future gets the result. A caller who gives up
        meanwhile has been counted all the same: the record is published until it is acknowledged."""
        self._gathered.append((record, future, result))
        self.forget()
        if self._flight is None:
            # A call that is alone has nobody to wait for, not even the end of this turn of the event loop.
            first = None if self._coming or self._crowded else self._next()
            sent = self._publisher.publish(first.payload, _FIRST, first.stored) if first is not None else None
            self._flight = asyncio.get_running_loop().create_task(self._fly(first, sent))

    async def _fly(self, first: "_Batch | None", sent: "Future | None") -> None:
        loop = asyncio.get_running_loop()
        published = 0.0
        try:
            if first is not None:
                await self._store(first, sent)
            while self._gathered:
                if self._crowded:
                    await asyncio.sleep(published + _LEAST - loop.time())
                    if self._coming and (left := published + _GATHER - loop.time()) > 0:
                        self._all_here = loop.create_future()
                        timer = loop.call_later(left, self._settle, self._all_here)
                        await self._all_here
                        timer.cancel()
                published = loop.time()
                await self._store(self._next())
        finally:
            self._flight = None

    def _next(self) -> "_Batch":
        taken, self._gathered = self._gathered[:_MOST], self._gathered[_MOST:]
        self._crowded = len(taken) > 1
        failpoints.passing("inference.before_ack")
        return _Batch(taken, records.batch([record for record, _, _ in taken], self._worker_id))

    @staticmethod
    def _settle(future: "asyncio.Future[None]") -> None:
        if not future.done():
            future.set_result(None)

    async def _store(self, batch: "_Batch", sent: "Future | None" = None) -> None:
        # Publishing again what was stored but not acknowledged is harmless: a record counts once, by its request id.
        loop = asyncio.get_running_loop()
        delay, patience = 0.05, _FIRST
        while True:
            try:
                await (sent or self._publisher.publish(batch.payload, patience, batch.stored))
                self._failing_since = None
                return
            except Exception as e:
                if self._failing_since is None:
                    self._failing_since = loop.time()
                log.warning("usage records wait to be stored: %s", str(e) or type(e).__name__)
                if loop.time() - self._failing_since > _LONGEST:
                    for _, future, _ in (*batch.calls, *self._gathered):
                        if not future.done():
                            future.set_exception(DeadlineExceeded("the call's record was not stored in time"))
                await asyncio.sleep(delay)
                delay, patience, sent = min(delay * 2, 1.0), 2.0, None

    async def flush(self) -> None:
        """Ends when nothing waits to be stored."""
        while self._flight is not None:
            await asyncio.shield(self._flight)
