"""Events of the platform become events of organisations: each once, in the transaction that notes it as handled."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2
from mercat.usage.v1 import callers_pb2, callers_pb2_grpc

from services.common import outbox
from services.common.clock import Clock
from services.common.db import Connection
from services.common.events import Handler
from services.common.rpc.channels import InternalChannel
from services.notification.webhooks.catalogue import EventType, types_of
from services.notification.webhooks.store import WebhookStore

_LATELY = timedelta(days=90)  # who called a version within these is told what becomes of it
_ASKING = 10.0  # seconds, less than the stream waits for an acknowledgement


def subject(org_id: str) -> str:
    """Where listeners of the moment hear an organisation's events."""
    return f"mercat.event.webhook.{org_id}"


class Telling:
    """Keeps what happened, for the endpoints that hear of it and for listeners."""

    def __init__(self, store: WebhookStore, clock: Clock, control: InternalChannel) -> None:
        self._usage = callers_pb2_grpc.CallerServiceStub(control)
        self._store = store
        self._clock = clock

    async def tell(self, connection: Connection, event: Message, callers: Sequence[str] = ()) -> None:
        """The organisation that an event names, and `callers` of what is told to them too."""
        if isinstance(event, event_pb2.QuotaReached) and not await self._store.add_quota_notice(connection, event):
            return  # by another worker
        org_id = str(getattr(event, "org_id", ""))
        for kind in types_of(event) if org_id else []:
            for hearer in dict.fromkeys([org_id, *(callers if kind.callers else ())]):
                await self._tell(connection, event, kind, hearer)

    async def ask(self, event: Message) -> Handler:
        """Of an event that callers are told: who they are is usage's to say, which may be slow or gone."""
        callers = await self._callers(event)

        async def tell(connection: Connection, event: Message) -> None:
            await self.tell(connection, event, callers)

        return tell

    async def _callers(self, event: Any) -> list[str]:
        request = callers_pb2.ListVersionCallersRequest(model=event.model, version=event.version)
        request.start_time.FromDatetime(self._clock.now() - _LATELY)
        return [x async for page in self._usage.ListVersionCallers(request, timeout=_ASKING) for x in page.org_ids]

    async def _tell(self, connection: Connection, event: Message, kind: EventType, org_id: str) -> None:
        now = self._clock.now()
        body = kind.body(event, now)
        event_id = await self._store.add_event(connection, org_id, kind.name, body, now)
        await self._store.add_deliveries(
            connection, event_id, await self._store.hearers(connection, org_id, kind.name), now
        )
        told = event_pb2.WebhookEvent(event_id=event_id, org_id=org_id, event_type=kind.name, body=body)
        # Wakes the sender too, when this commits.
        await outbox.add_message(connection, subject(org_id), told.SerializeToString())
