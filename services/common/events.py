"""NATS JetStream: the streams, publishing, and durable consumers that handle each event once.

JetStream only carries: what was handled is known by each service's own inbox table."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import nats
from google.protobuf.message import Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from services.common.db import Connection, Database, load_queries
from services.common.pull import Puller

log = logging.getLogger(__name__)
queries = load_queries("services.common")

USAGE_STREAM, USAGE_SUBJECT = "USAGE", "mercat.usage.records"
EVENT_STREAM, EVENT_SUBJECTS = "EVENTS", "mercat.event.>"
JOB_STREAM, JOB_SUBJECT = "JOBS", "mercat.job.queued"
_DAY = 86_400.0


class Handler(Protocol):
    """Applies an event within the transaction of `connection`."""

    def __call__(self, connection: Connection, event: Message) -> Awaitable[None]: ...


class Asking(Protocol):
    """Asks others what an event needs, before there is a transaction that could wait for them; answers what applies it
    then."""

    def __call__(self, event: Message) -> Awaitable[Handler]: ...


class Events:
    """A connection to NATS that reconnects for ever."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.js: JetStreamContext = client.jetstream(timeout=5)

    @classmethod
    async def connect(cls, url: str, name: str) -> "Events":
        """Connects and makes the streams. Raises nats.errors.Error when there is no server within 10 s."""

        async def on_error(e: Exception) -> None:
            log.warning("nats: %s", e)

        client = await nats.connect(
            url, name=name, max_reconnect_attempts=-1, reconnect_time_wait=0.25, ping_interval=5,
            max_outstanding_pings=2, connect_timeout=5, error_cb=on_error, pending_size=64 * 1024 * 1024,
            drain_timeout=2,  # what a cancelled consumer had fetched is never taken, and comes back by itself
        )  # fmt: skip
        events = cls(client)
        await events._ensure_streams()
        return events

    async def _ensure_streams(self) -> None:
        # USAGE is a work queue: a record leaves it when it is stored and posted, and when it is full, calls are refused
        # rather than records lost.
        usage = StreamConfig(
            USAGE_STREAM, subjects=[USAGE_SUBJECT], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE,
            discard=DiscardPolicy.NEW, max_bytes=8 * 1024**3, duplicate_window=120,
        )  # fmt: skip
        events = StreamConfig(
            EVENT_STREAM, subjects=[EVENT_SUBJECTS], retention=RetentionPolicy.LIMITS, storage=StorageType.FILE,
            max_age=7 * _DAY, duplicate_window=120,
        )  # fmt: skip
        # JOBS is a work queue of job ids; the jobs themselves are rows.
        jobs = StreamConfig(
            JOB_STREAM, subjects=[JOB_SUBJECT], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE,
            duplicate_window=120,
        )  # fmt: skip
        for config in (usage, events, jobs):
            for attempt in range(20):
                try:
                    await self.js.add_stream(config)
                    break
                except (APIError, TimeoutError) as e:
                    if isinstance(e, APIError) and e.err_code == 10058:  # exists with another configuration
                        await self.js.update_stream(config)
                        break
                    if attempt == 19:
                        raise
                    await asyncio.sleep(0.25)

    async def publish(self, subject: str, payload: bytes, event_id: str) -> None:
        """Stores one event. Raises a nats error when the server did not acknowledge it in 5 s."""
        await self.js.publish(subject, payload, headers={"Nats-Msg-Id": event_id})

    async def close(self) -> None:
        try:
            await self.client.drain()
        except nats.errors.Error as e:  # the server is gone already: there is nobody to say goodbye to
            log.warning("nats: %s", e)

    async def pull(
        self, stream: str, durable: str, subjects: Sequence[str], *, batch: int, ack_wait: float = 30.0,
        max_pending: int = 1000,
    ) -> AsyncIterator[Sequence[Msg]]:  # fmt: skip
        """Batches of messages of a durable consumer, for ever; survives the server's absence and its own loss. What was
        made with other subjects or limits is brought to these."""
        config = ConsumerConfig(
            name=durable, durable_name=durable, filter_subjects=list(subjects), ack_wait=ack_wait,
            max_ack_pending=max_pending, max_deliver=-1,
        )  # fmt: skip
        while True:
            try:
                await self.js.add_consumer(stream, config)
                async with Puller(self.client, stream, durable) as puller:
                    while True:
                        if messages := await puller.next(batch):
                            yield messages
            except (nats.errors.Error, TimeoutError) as e:
                log.warning("consumer %s of %s waits: %s", durable, stream, e)
            await asyncio.sleep(0.5)
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await self._ensure_streams()


async def consume(
    events: Events, database: Database, consumer: str, kinds: Sequence[type[Message]], handler: Handler
) -> None:
    """Handles each event of the given kinds once, for ever: the effect and the inbox row are one transaction. A handler
    that fails is tried again after a second; others are not held up by it."""

    async def at_once(event: Message) -> Handler:
        return handler

    await consume_asking(events, database, consumer, kinds, at_once)


async def consume_asking(
    events: Events, database: Database, consumer: str, kinds: Sequence[type[Message]], asking: Asking, inbox: str = ""
) -> None:
    """The same for events that need answers of others first: `asking` may be asked more than once for one, and fail.
    `inbox`: the name under which was noted what is handled, when that was another consumer's before."""
    by_subject = {f"mercat.event.{kind.DESCRIPTOR.name}": kind for kind in kinds}

    async def one(message: Msg) -> None:
        kind = by_subject.get(message.subject)
        if kind is None:  # given out before this consumer was narrowed to what it handles now
            await message.ack()
            return
        event_id = (message.headers or {}).get(
            "Nats-Msg-Id"
        ) or f"{message.metadata.stream}-{message.metadata.sequence.stream}"
        try:
            event = kind.FromString(message.data)
            handler = await asking(event)
            async with database.transaction() as connection:
                if await queries.handle_event(connection, event_id=event_id, consumer=inbox or consumer):
                    await handler(connection, event)
            await message.ack()
        except Exception:
            log.exception("%s could not handle %s", consumer, event_id)
            await message.nak(delay=1)

    # Its own subjects alone: the server writes to disk for each message that a consumer is given and answers.
    async for messages in events.pull(EVENT_STREAM, consumer, list(by_subject), batch=100):
        for message in messages:
            await one(message)


async def broadcast(events: Events, subject: str, payload: bytes) -> None:
    """A message nobody stores, for listeners of the moment: `mercat.live.…`, `mercat.forget.…`. Lost when there is no
    NATS: nothing may hang on it."""
    try:
        await events.client.publish(subject, payload)
    except NatsError as e:
        log.warning("%s is not heard: %s", subject, e)


async def listen(
    events: Events, subject: str, handler: Callable[[Msg], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """Hears broadcasts; the function answered ends it."""
    subscription = await events.client.subscribe(subject, cb=handler)
    return subscription.unsubscribe
