"""The tables of webhooks, one typed method per named query. Deliveries are locked before their endpoint."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mercat.event.v1 import event_pb2

from services.common import ids, outbox
from services.common.db import Connection, load_queries, rows_affected

Row = Mapping[str, Any]


class WebhookStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.notification.webhooks")

    async def count_endpoints(self, c: Connection, org_id: str) -> int:
        """Those of an organisation, of which nobody else makes one until the transaction ends."""
        await self._q.lock_org(c, org_id=org_id)
        return int(await self._q.count_endpoints(c, org_id=org_id))

    async def add_endpoint(self, c: Connection, **columns: Any) -> Row:
        row: Row = await self._q.add_endpoint(c, **columns)
        return row

    async def get_endpoint(self, c: Connection, endpoint_id: str, org_id: str, *, lock: bool = False) -> Row | None:
        query = self._q.lock_endpoint if lock else self._q.get_endpoint
        row: Row | None = await query(c, id=endpoint_id, org_id=org_id)
        return row

    async def list_endpoints(self, c: Connection, org_id: str, before: str | None, most: int) -> list[Row]:
        return [r async for r in self._q.list_endpoints(c, org_id=org_id, before=before, most=most)]

    async def update_endpoint(self, c: Connection, endpoint_id: str, *, fresh: bool, **columns: Any) -> Row:
        """`fresh`: its failures are forgotten."""
        row: Row = await self._q.update_endpoint(c, id=endpoint_id, fresh=fresh, **columns)
        return row

    async def set_secret(
        self, c: Connection, endpoint_id: str, sealed: bytes, previous: bytes | None, until: datetime | None,
        now: datetime,
    ) -> Row:  # fmt: skip
        row: Row = await self._q.set_secret(
            c, id=endpoint_id, sealed_secret=sealed, previous_secret=previous, previous_until=until, now=now
        )
        return row

    async def delete_endpoint(self, c: Connection, endpoint_id: str, org_id: str) -> Row | None:
        """With its deliveries; None when the organisation has no such one."""
        if await self.get_endpoint(c, endpoint_id, org_id) is not None:
            await self._q.delete_deliveries(c, endpoint_id=endpoint_id)
        row: Row | None = await self._q.delete_endpoint(c, id=endpoint_id, org_id=org_id)
        return row

    async def add_event(self, c: Connection, org_id: str, event_type: str, body: str, now: datetime) -> str:
        """Keeps what is to be said; its id."""
        event_id = ids.new("evt")
        await self._q.add_event(c, id=event_id, org_id=org_id, type=event_type, body=body, now=now)
        return event_id

    async def add_quota_notice(self, c: Connection, event: event_pb2.QuotaReached) -> bool:
        """False when that end of the quota was told in this period."""
        row = await self._q.add_quota_notice(
            c, org_id=event.org_id, quota=event.quota, key_id=event.key_id, model=event.model, hard=event.hard,
            limit_calls=event.limit_calls, reset_time=event.reset_time.ToDatetime(UTC),
        )  # fmt: skip
        return row is not None

    async def hearers(self, c: Connection, org_id: str, event_type: str) -> list[str]:
        """Endpoints that hear of a type."""
        return [r["id"] async for r in self._q.hearers(c, org_id=org_id, type=event_type)]

    async def add_deliveries(
        self, c: Connection, event_id: str, endpoint_ids: Sequence[str], now: datetime, *, once: bool = False
    ) -> list[str]:
        """`once`: not tried again. Their ids, of which endpoints that are deleted just now have none."""
        made = [ids.new("whd") for _ in endpoint_ids]
        await self._q.add_deliveries(
            c, ids=made, event_id=event_id, endpoint_ids=list(endpoint_ids), once=once, now=now
        )
        return made

    async def claim_deliveries(
        self, c: Connection, now: datetime, until: datetime, *, busy: Mapping[str, int], each: int, failing: int,
        most: int,
    ) -> list[Row]:  # fmt: skip
        """Some of what is due, of each endpoint at most `each` with those that it has under way (`busy`), and one at a
        time of those that failed `failing` times."""
        rows = self._q.claim_deliveries(
            c, now=now, until=until, busy=list(busy), counts=list(busy.values()), each=each, failing=failing, most=most
        )
        return [r async for r in rows]

    async def add_attempt(self, c: Connection, delivery_id: str, number: int, **columns: Any) -> None:
        await self._q.add_attempt(c, delivery_id=delivery_id, number=number, **columns)

    async def end_attempt(self, c: Connection, delivery_id: str, number: int, **columns: Any) -> None:
        """Nothing when the delivery was claimed again meanwhile."""
        await self._q.end_attempt(c, id=delivery_id, number=number, **columns)

    async def endpoint_answered(self, c: Connection, endpoint_id: str) -> None:
        await self._q.endpoint_answered(c, id=endpoint_id)

    async def endpoint_failed(self, c: Connection, endpoint_id: str, now: datetime) -> Row | None:
        """The endpoint, with this failure counted; None when it is gone."""
        row: Row | None = await self._q.endpoint_failed(c, id=endpoint_id, now=now)
        return row

    async def pause_endpoint(self, c: Connection, endpoint_id: str, until: datetime | None) -> None:
        await self._q.pause_endpoint(c, id=endpoint_id, until=until)

    async def disable_endpoint(self, c: Connection, row: Row, reason: str, now: datetime) -> None:
        """Disables it, and tells of it."""
        if not rows_affected(await self._q.disable_endpoint(c, id=row["id"], reason=reason, now=now)):
            return
        event = event_pb2.WebhookEndpointDisabled(
            endpoint_id=row["id"], org_id=row["org_id"], url=row["url"], reason=reason
        )
        event.failing_since.FromDatetime(row["failing_since"])
        await outbox.add(c, event)

    async def list_deliveries(
        self, c: Connection, endpoint_id: str, state: str | None, before: str | None, most: int
    ) -> list[Row]:
        rows = self._q.list_deliveries(c, endpoint_id=endpoint_id, state=state, before=before, most=most)
        return [r async for r in rows]

    async def get_delivery(self, c: Connection, delivery_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.get_delivery(c, id=delivery_id, org_id=org_id)
        return row

    async def list_attempts(self, c: Connection, delivery_id: str) -> list[Row]:
        return [r async for r in self._q.list_attempts(c, delivery_id=delivery_id)]

    async def redeliver(self, c: Connection, delivery_id: str, now: datetime) -> None:
        await self._q.redeliver(c, id=delivery_id, now=now)

    async def redeliver_failed(self, c: Connection, endpoint_id: str, since: datetime, now: datetime) -> int:
        """How many."""
        return rows_affected(await self._q.redeliver_failed(c, endpoint_id=endpoint_id, since=since, now=now))

    async def sweep(self, c: Connection, now: datetime, begun_before: datetime, forget_before: datetime) -> None:
        """Ends deliveries that waited in vain, and forgets what is old."""
        await self._q.expire_deliveries(c, begun_before=begun_before, now=now)
        await self._q.forget_events(c, before=forget_before)
        await self._q.forget_quota_notices(c, before=forget_before)
