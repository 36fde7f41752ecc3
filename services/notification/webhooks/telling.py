"""Events of the platform become events of organisations: each once, in the transaction that notes it as handled."""

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2

from services.common import outbox
from services.common.clock import Clock
from services.common.db import Connection
from services.notification.webhooks.catalogue import types_of
from services.notification.webhooks.store import WebhookStore


def subject(org_id: str) -> str:
    """Where listeners of the moment hear an organisation's events."""
    return f"mercat.event.webhook.{org_id}"


class Telling:
    """Keeps what happened, for the endpoints that hear of it and for listeners."""

    def __init__(self, store: WebhookStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def tell(self, connection: Connection, event: Message) -> None:
        if isinstance(event, event_pb2.QuotaReached) and not await self._store.add_quota_notice(connection, event):
            return  # by another worker
        now, org_id = self._clock.now(), str(getattr(event, "org_id", ""))
        for kind in types_of(event) if org_id else []:
            body = kind.body(event, now)
            event_id = await self._store.add_event(connection, org_id, kind.name, body, now)
            await self._store.add_deliveries(
                connection, event_id, await self._store.hearers(connection, org_id, kind.name), now
            )
            told = event_pb2.WebhookEvent(event_id=event_id, org_id=org_id, event_type=kind.name, body=body)
            # Wakes the sender too, when this commits.
            await outbox.add_message(connection, subject(org_id), told.SerializeToString())
