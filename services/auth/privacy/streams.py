"""Takes a person out of the stream of events, which is kept for days: messages that name them, or say what others did
for them, once everybody has read them."""

import re
from collections.abc import Set as AbstractSet

from mercat.event.v1 import event_pb2
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from services.common.errors import Unavailable
from services.common.events import EVENT_STREAM, EVENT_SUBJECTS, Events

_BATCH = 500
_AUDIT_SUBJECT = f"mercat.event.{event_pb2.AuditRecorded.DESCRIPTOR.name}"


async def purge(events: Events, marks: re.Pattern[bytes], requests: AbstractSet[str]) -> int:
    """Deletes messages in which the marks are found, and what audit entries of these requests say, in whosever log, and
    overwrites what they were on the disk; how many.

    Raises:
        Unavailable: not every consumer has read all of them, or there is no NATS. Ask again later.
    """
    try:
        return await _purge(events, marks, requests)
    except (NatsError, OSError) as e:
        raise Unavailable(f"the stream of events: {type(e).__name__}") from e


async def _purge(events: Events, marks: re.Pattern[bytes], requests: AbstractSet[str]) -> int:
    js = events.js
    read = await _read(events)
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=30.0)
    subscription = await js.pull_subscribe(EVENT_SUBJECTS, stream=EVENT_STREAM, config=config)
    found = []
    try:
        left = (await subscription.consumer_info()).num_pending
        while left:
            for message in await subscription.fetch(_BATCH, timeout=5):
                left = message.metadata.num_pending
                if marks.search(message.data) or _request(message) in requests:
                    found.append(message.metadata.sequence.stream)
    finally:
        await subscription.unsubscribe()
    for sequence in found:
        if sequence > read:
            raise Unavailable("not everybody has read what is to be erased")
        try:
            await js.delete_msg(EVENT_STREAM, sequence)
        except NotFoundError:
            continue
    return len(found)


def _request(message: Msg) -> str:
    """Of an audit entry."""
    if message.subject != _AUDIT_SUBJECT:
        return ""
    return event_pb2.AuditRecorded.FromString(message.data).request_id


async def _read(events: Events) -> int:
    """Up to which message every durable consumer has handled all."""
    read = (await events.js.stream_info(EVENT_STREAM)).state.last_seq
    for consumer in await events.js.consumers_info(EVENT_STREAM):
        waiting = (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)
        if consumer.config.durable_name and waiting:
            read = min(read, consumer.ack_floor.stream_seq if consumer.ack_floor is not None else 0)
    return int(read)
