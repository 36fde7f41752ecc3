"""Stores what the workers metered: records first, then their postings, then the acknowledgement.

A death between any two of these brings the messages back. Records are unique by request id and postings by their cause,
so the second time changes nothing; and what is posted is always what is stored, so that the two can never differ."""

import asyncio
import collections
import logging
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

import nats
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.usage.v1 import usage_pb2
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from services.common import failpoints, latencies, outbox
from services.common.db import Database
from services.common.errors import Unavailable
from services.common.events import USAGE_STREAM, USAGE_SUBJECT, Events
from services.common.repeating import repeat
from services.common.rpc.channels import InternalChannel
from services.usage.live import Live
from services.usage.store import Store

log = logging.getLogger(__name__)
REFUSED = Counter("mercat_usage_refusals_total", "Attempts at a message of usage that failed for what is in it")
DURABLE = "usage-records"
_MESSAGES = 64  # of one transaction
_AT_ONCE = 4  # transactions under way
_GATHER = 0.25  # seconds that messages gather while there are few
_ACK_WAIT = 10.0  # seconds until a dead consumer's messages come back
_SWEEP, _LEFT = 10.0, 1_000  # seconds between looks for messages that were left, and how many are taken at a time
_POSTED_AT_ONCE = 2_000  # records of one transaction of billing's, which holds their wallets; more make it no quicker
_LANES = 4  # such transactions under way: an organisation's calls have one lane, so that none waits for a wallet

Record = usage_pb2.UsageRecord


class Consumer:
    """The one durable consumer of the stream of records."""

    def __init__(self, database: Database, store: Store, events: Events, live: Live, control: InternalChannel) -> None:
        self._database = database
        self._store = store
        self._events = events
        self._live = live
        self._billing = billing_pb2_grpc.LeaseServiceStub(control)
        self._lanes = [asyncio.Lock() for _ in range(_LANES)]

    async def work(self) -> None:
        """Stores and posts, for ever. While the database is at one batch the next is made ready for it."""
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as taking:
            async for messages in self._events.pull(
                USAGE_STREAM, DURABLE, [USAGE_SUBJECT], batch=_MESSAGES, ack_wait=_ACK_WAIT
            ):
                await room.acquire()
                taking.create_task(self._take_held(messages)).add_done_callback(lambda _: room.release())
                if len(messages) < _MESSAGES:  # what a transaction costs hardly depends on how much it stores
                    await asyncio.sleep(_GATHER)

    async def _take_held(self, messages: Sequence[Msg]) -> None:
        holding = asyncio.create_task(_hold(messages))
        try:
            await self._take(messages)
        finally:
            holding.cancel()

    async def _take(self, messages: Sequence[Msg]) -> None:
        try:
            await self._store_and_post(messages)
        except Unavailable as e:  # all of them would fare alike
            log.warning("%d messages of usage wait: %s", len(messages), e)
            await _later(messages, 1)
            await asyncio.sleep(0.2)
        except Exception:
            if len(messages) > 1:  # one that cannot be taken must not hold up the others
                for message in messages:
                    await self._take([message])
                return
            (message,) = messages
            attempt = message.metadata.num_delivered
            REFUSED.inc()
            log.exception("message %d of usage was refused, attempt %d", message.metadata.sequence.stream, attempt)
            await _later(messages, min(2 ** min(attempt, 6), 60))
        else:
            failpoints.passing("usage.before_ack")
            # One whose acknowledgement is lost comes back, and changes nothing.
            await asyncio.gather(*(m.ack() for m in messages), return_exceptions=True)

    async def sweep(self) -> None:
        """Takes what no consumer will be given again, for ever."""
        await repeat(self._take_left, "usage that was left in the stream waits", batch=_LEFT, every=_SWEEP)

    async def _take_left(self) -> int:
        """A stream that cannot write, as on a full disk, keeps messages whose acknowledgement it took, and whoever
        waits for it to be empty waits for ever. They are stored and posted once more, which changes nothing, and
        removed; how many there were."""
        stream, left = self._events.js, 0
        try:
            through = (await stream.consumer_info(USAGE_STREAM, DURABLE)).ack_floor.stream_seq
            while left < _LEFT:
                state = (await stream.stream_info(USAGE_STREAM)).state
                if not state.messages or state.first_seq > through:
                    break
                await self._store_and_post([await stream.get_msg(USAGE_STREAM, state.first_seq)])
                await stream.delete_msg(USAGE_STREAM, state.first_seq)
                left += 1
        except NotFoundError:  # there is no consumer yet, or the message has gone meanwhile
            pass
        except (nats.errors.Error, TimeoutError) as e:
            raise Unavailable(f"the stream of usage cannot be asked: {e}") from e
        if left:
            log.warning("%d messages of usage had been acknowledged and were still in the stream", left)
        return left

    async def _store_and_post(self, messages: Sequence[Msg | RawStreamMsg]) -> None:
        batches = [message.data or b"" for message in messages]
        decoded = [record for batch in batches for record in event_pb2.UsageBatch.FromString(batch).records]
        records = {record.request_id: record for record in reversed(decoded)}  # of several of one id the first
        if not records:
            return
        if (wrong := next((i for i in records if not i.startswith("req_")), None)) is not None:
            raise ValueError(f"a usage record without a request id: {wrong!r}")
        posting = list(reversed(records.values()))
        async with self._database.transaction() as connection:
            new = await self._store.add_records(connection, posting)
            all_new = len(new) == len(records)
            fresh = posting if all_new else [r for r in posting if r.request_id in new]
            if fresh:
                await outbox.add(connection, statistics(fresh))
            if not all_new:
                posting = await self._store.get_records(connection, list(records))
        failpoints.passing("usage.stored")
        # Now, since a repetition finds nothing new to tell.
        await (self._live.tell(batches) if len(new) == len(decoded) else self._live.tell_records(fresh))
        lanes: list[list[Record]] = [[] for _ in range(_LANES)]
        for record in posting:
            lanes[_lane(record.org_id)].append(record)
        posted = [self._post(lock, own) for lock, own in zip(self._lanes, lanes, strict=True) if own]
        failed = [e for e in await asyncio.gather(*posted, return_exceptions=True) if e is not None]
        if failed:
            raise failed[0]

    async def _post(self, lane: asyncio.Lock, records: Sequence[Record]) -> None:
        for at in range(0, len(records), _POSTED_AT_ONCE):
            async with lane:
                part = records[at : at + _POSTED_AT_ONCE]
                await self._billing.PostUsage(billing_pb2.PostUsageRequest(records=part))


@lru_cache(10_000)
def _lane(org_id: str) -> int:
    return zlib.crc32(org_id.encode()) % _LANES


async def _hold(messages: Sequence[Msg]) -> None:
    """Tells the stream that the messages are being worked on, so that a slow transaction does not bring them back."""
    while True:
        await asyncio.sleep(_ACK_WAIT / 3)
        await asyncio.gather(*(m.in_progress() for m in messages), return_exceptions=True)


async def _later(messages: Sequence[Msg], seconds: float) -> None:
    await asyncio.gather(*(m.nak(delay=seconds) for m in messages), return_exceptions=True)


def statistics(records: Iterable[Record]) -> event_pb2.UsageStored:
    took: dict[str, list[int]] = defaultdict(list)
    for record in records:
        took[record.model].append(record.latency_us)
    models = [
        event_pb2.UsageStored.Model(
            model=model, calls=len(each), latency_us_sum=sum(each),
            latencies=collections.Counter(map(latencies.bucket, each)),
        )
        for model, each in took.items()
    ]  # fmt: skip
    return event_pb2.UsageStored(models=models)
