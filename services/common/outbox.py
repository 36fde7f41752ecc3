"""Transactional outbox: an event is a row of the transaction that caused it; the relay publishes it to JetStream at
least once, under the row's id, which JetStream and every consumer's inbox de-duplicate by."""

import asyncio
import logging

from google.protobuf.message import Message

from services.common import ids
from services.common.db import Connection, Database, added_to_outbox, load_queries
from services.common.events import Events

log = logging.getLogger(__name__)
queries = load_queries("services.common")
_BATCH = 100
_POLL = 3.0  # seconds; another process may have written the row, and died


async def add(connection: Connection, event: Message) -> str:
    """Adds an event to the transaction of `connection`; its id is returned."""
    return await add_message(connection, f"mercat.event.{event.DESCRIPTOR.name}", event.SerializeToString())


async def add_message(connection: Connection, subject: str, payload: bytes) -> str:
    """Adds a message for another subject of JetStream; its id is returned."""
    event_id = ids.new("evt")
    await queries.add_event(connection, id=event_id, subject=subject, payload=payload)
    added_to_outbox(connection)
    return event_id


async def relay(database: Database, events: Events) -> None:
    """Publishes what the outbox holds, for ever."""
    wake = asyncio.Event()
    database.relays.append(wake)
    while True:
        try:
            while await _publish_some(database, events) == _BATCH:
                pass
        except Exception as e:
            log.warning("outbox of %s waits: %s", database.schema, e)
            await asyncio.sleep(1)
        try:
            await asyncio.wait_for(wake.wait(), _POLL)
        except TimeoutError:
            pass
        wake.clear()


async def _publish_some(database: Database, events: Events) -> int:
    # Not `database.transaction()`: its commit would wake this relay again at once.
    async with database.connection() as connection, connection.transaction():
        rows = [r async for r in queries.take_events(connection, most=_BATCH)]
        await asyncio.gather(*(events.publish(r["subject"], bytes(r["payload"]), r["id"]) for r in rows))
    return len(rows)
