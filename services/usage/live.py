"""Calls as they are recorded, for those who watch their own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from mercat.event.v1 import event_pb2
from mercat.usage.v1 import usage_pb2
from nats.aio.msg import Msg

from services.common.events import Events, broadcast, listen

_SUBJECT = "mercat.live.usage"
_AT_ONCE = 500  # records of one message; one is at most about 1 KiB and a message may have 1 MiB
_BEHIND = 10_000  # records a slow watcher may be behind before it hears no more

Record = usage_pb2.UsageRecord


class Watch:
    """What one watcher has not read yet."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Record] = asyncio.Queue()
        self._behind = False

    def put(self, record: Record) -> None:
        self._behind = self._behind or self._queue.qsize() > _BEHIND
        if not self._behind:
            own = Record()  # the one that was heard would keep all that came with it
            own.CopyFrom(record)
            self._queue.put_nowait(own)

    async def records(self) -> AsyncIterator[Record]:
        """As they come; ends when they came faster than they were read."""
        while not (self._behind and self._queue.empty()):
            yield await self._queue.get()


class Live:
    """All records are told on one subject, as they came from the workers: mostly nobody listens, and to sort them for
    nobody would cost more than to store them. A process in which somebody watches hears all and gives each its own."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._watches: dict[str, list[Watch]] = {}  # by organisation
        self._stop: Callable[[], Awaitable[None]] | None = None
        self._changing = asyncio.Lock()

    async def tell(self, batches: Sequence[bytes]) -> None:
        """Serialised batches."""
        for batch in batches:
            await broadcast(self._events, _SUBJECT, batch)

    async def tell_records(self, records: Sequence[Record]) -> None:
        parts = [records[at : at + _AT_ONCE] for at in range(0, len(records), _AT_ONCE)]
        await self.tell([event_pb2.UsageBatch(records=part).SerializeToString() for part in parts])

    @asynccontextmanager
    async def watch(self, org_id: str) -> AsyncIterator[Watch]:
        """An organisation's calls: from here on none is missed."""
        watch = Watch()
        async with self._changing:
            if self._stop is None:
                self._stop = await listen(self._events, _SUBJECT, self._heard)
            self._watches.setdefault(org_id, []).append(watch)
        try:
            await self._events.client.flush()
            yield watch
        finally:
            self._watches[org_id].remove(watch)
            if not self._watches[org_id]:
                del self._watches[org_id]
            async with self._changing:
                if not self._watches and self._stop is not None:
                    stop, self._stop = self._stop, None
                    await stop()

    async def _heard(self, message: Msg) -> None:
        for record in event_pb2.UsageBatch.FromString(message.data).records:
            for watch in self._watches.get(record.org_id, ()):
                watch.put(record)
