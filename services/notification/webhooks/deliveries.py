"""The log of deliveries, and sending again."""

from datetime import UTC, datetime

from mercat.notification.v1 import webhooks_pb2 as w

from services.common import pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import FailedPrecondition, InvalidFields, Violation
from services.common.rpc.context import Context, caller
from services.notification.webhooks.access import DeliveryNotFound, check_types, found
from services.notification.webhooks.catalogue import TYPES
from services.notification.webhooks.rows import STATES, delivery_of
from services.notification.webhooks.store import Row, WebhookStore


class Deliveries:
    """The calls about what was and is sent."""

    _database: Database
    _store: WebhookStore
    _clock: Clock

    async def SendTestEvent(self, request: w.SendTestEventRequest, context: Context) -> w.SendTestEventResponse:
        now, org_id = self._clock.now(), caller().org_id
        if request.event_type:
            check_types([request.event_type], "event_type")
        async with self._database.transaction() as connection:
            row = await self._enabled(connection, request.endpoint_id)
            kind = TYPES[request.event_type or next(iter(row["event_types"] or TYPES))]
            event_id = await self._store.add_event(
                connection, org_id, kind.name, kind.body(kind.example, now, test=True), now
            )
            made = await self._store.add_deliveries(connection, event_id, [row["id"]], now, once=True)
            # None: somebody deleted the endpoint just now.
            delivery = found(await self._store.get_delivery(connection, made[0], org_id))
        self._hurry()
        return w.SendTestEventResponse(delivery=delivery_of(delivery))

    async def ListWebhookDeliveries(
        self, request: w.ListWebhookDeliveriesRequest, context: Context
    ) -> w.ListWebhookDeliveriesResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        if request.state and request.state not in STATES:
            raise InvalidFields(violations=[Violation("state", "must be PENDING, SUCCEEDED or FAILED")])
        async with self._database.connection() as connection:
            found(await self._store.get_endpoint(connection, request.endpoint_id, caller().org_id))
            rows = await self._store.list_deliveries(
                connection, request.endpoint_id, STATES.get(request.state), str(key[0]) if key else None, most + 1
            )
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return w.ListWebhookDeliveriesResponse(deliveries=map(delivery_of, rows[:most]), next_page_token=token)

    async def GetWebhookDelivery(
        self, request: w.GetWebhookDeliveryRequest, context: Context
    ) -> w.GetWebhookDeliveryResponse:
        async with self._database.connection() as connection:
            row = await self._delivery(connection, request.delivery_id)
            check_types([row["type"]])
            attempts = await self._store.list_attempts(connection, row["id"])
        return w.GetWebhookDeliveryResponse(delivery=delivery_of(row, attempts))

    async def RedeliverWebhook(
        self, request: w.RedeliverWebhookRequest, context: Context
    ) -> w.RedeliverWebhookResponse:  # fmt: skip
        async with self._database.transaction() as connection:
            row = await self._delivery(connection, request.delivery_id)
            await self._enabled(connection, row["endpoint_id"])
            await self._store.redeliver(connection, row["id"], self._clock.now())
            row = await self._delivery(connection, request.delivery_id)
        self._hurry()
        return w.RedeliverWebhookResponse(delivery=delivery_of({**row, "body": ""}))

    async def RedeliverFailed(self, request: w.RedeliverFailedRequest, context: Context) -> w.RedeliverFailedResponse:
        since = datetime(1970, 1, 1, tzinfo=UTC)
        if request.HasField("since"):
            try:
                since = request.since.ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError):
                raise InvalidFields(violations=[Violation("since", "is no time")]) from None
        async with self._database.transaction() as connection:
            row = await self._enabled(connection, request.endpoint_id)
            count = await self._store.redeliver_failed(connection, row["id"], since, self._clock.now())
        self._hurry()
        return w.RedeliverFailedResponse(deliveries=count)

    async def _delivery(self, connection: Connection, delivery_id: str) -> Row:
        row = await self._store.get_delivery(connection, delivery_id, caller().org_id)
        if row is None:
            raise DeliveryNotFound("you have no such delivery; see `mercat webhooks deliveries ENDPOINT`")
        return row

    async def _enabled(self, connection: Connection, endpoint_id: str) -> Row:
        row = found(await self._store.get_endpoint(connection, endpoint_id, caller().org_id))
        if not row["enabled"]:
            raise FailedPrecondition(
                "the endpoint is disabled; enable it first, with `mercat webhooks update ENDPOINT --enable`",
                reason="WEBHOOK_ENDPOINT_DISABLED",
            )
        return row

    def _hurry(self) -> None:
        """Senders look now, not in a second."""
        for relay in self._database.relays:
            relay.set()
