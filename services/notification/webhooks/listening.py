"""The catalogue of events, and events as they happen."""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.json_format import ParseDict
from mercat.event.v1 import event_pb2
from mercat.notification.v1 import webhooks_pb2 as w
from nats.aio.msg import Msg

from services.common import pages
from services.common.clock import Clock
from services.common.errors import ResourceExhausted
from services.common.events import Events, listen
from services.common.rpc.context import Context, caller
from services.notification.webhooks.access import heard
from services.notification.webhooks.catalogue import TYPES, EventType
from services.notification.webhooks.telling import subject

_WAITING = 1000  # events that a listener may be behind
_BEAT = 15.0  # seconds


class Listening:
    """The calls about events themselves."""

    _events: Events
    _clock: Clock

    async def ListEventTypes(self, request: w.ListEventTypesRequest, context: Context) -> w.ListEventTypesResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        rest = [t for t in TYPES.values() if key is None or t.name > str(key[0])]
        token = pages.encode([rest[most - 1].name]) if len(rest) > most else ""
        return w.ListEventTypesResponse(event_types=map(self._type, rest[:most]), next_page_token=token)

    def _type(self, kind: EventType) -> w.EventType:
        made = w.EventType(name=kind.name, description=kind.description, scope=kind.scope)
        ParseDict(kind.schema(), made.schema)
        made.example.update(kind.whole(kind.example, self._clock.now()))
        return made

    async def StreamEvents(
        self, request: w.StreamEventsRequest, context: Context
    ) -> AsyncIterator[w.StreamEventsResponse]:
        wanted = heard(request.event_types)
        waiting: asyncio.Queue[w.Event] = asyncio.Queue(_WAITING)
        lost = False

        async def hear(message: Msg) -> None:
            nonlocal lost
            told = event_pb2.WebhookEvent.FromString(message.data)
            if told.event_type in wanted:
                try:
                    waiting.put_nowait(w.Event(event_id=told.event_id, event_type=told.event_type, body=told.body))
                except asyncio.QueueFull:
                    lost = True

        stop = await listen(self._events, subject(caller().org_id), hear)
        try:
            yield w.StreamEventsResponse()
            while not lost:
                try:
                    async with asyncio.timeout(_BEAT):
                        event = await waiting.get()
                except TimeoutError:
                    yield w.StreamEventsResponse()
                else:
                    yield w.StreamEventsResponse(event=event)
            raise ResourceExhausted("you listen too slowly; some events were not told", reason="LISTENER_TOO_SLOW")
        finally:
            await stop()
