"""The tables of plans, subscriptions and models' offers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from mercat.event.v1 import event_pb2

from services.billing.subscriptions.proration import Period, next_end
from services.common import ids, outbox
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]
FREE, PAY_AS_YOU_GO, ENTERPRISE = "free", "pay_as_you_go", "enterprise"
TRIALING, ACTIVE, PAST_DUE, CANCELED = "trialing", "active", "past_due", "canceled"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A row. `price`: nanos a month; `next_at`: when its trial or period ends, only of a plan's."""

    id: str
    org_id: str
    user_id: str
    plan_id: str | None
    status: str
    price: int
    fee_ppm: int | None
    model_id: str
    model: str
    publisher_org_id: str
    anchor: datetime
    start: datetime
    end: datetime
    trial_end: datetime | None
    cancel: bool
    canceled_at: datetime | None
    created_at: datetime
    discount_ppm: int = 0  # of a model: off the price of calls to it, millionths

    @property
    def period(self) -> Period:
        return Period(self.start, self.end)

    @property
    def paid(self) -> int:
        """What the running period costs: nothing during a trial."""
        return 0 if self.status == TRIALING else self.price

    @property
    def next_at(self) -> datetime | None:
        if self.status == CANCELED or self.model_id:
            return None
        if self.status == TRIALING and self.trial_end is not None:
            return min(self.trial_end, self.end)
        return self.end

    def next_period(self) -> Period:
        return Period(self.end, next_end(self.anchor, self.end))


def _subscription(row: Row) -> Subscription:
    return Subscription(
        row["id"], row["org_id"], row["user_id"], row["plan_id"], row["status"], row["price"], row["fee_ppm"],
        row["model_id"], row["model"], row["publisher_org_id"], row["anchor"], row["current_period_start"],
        row["current_period_end"], row["trial_end"], row["cancel_at_period_end"], row["canceled_at"], row["created_at"],
        row["discount_ppm"],
    )  # fmt: skip


class SubscriptionStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.subscriptions")

    async def list_plans(self, c: Connection, after: tuple[int, str], most: int) -> list[Row]:
        """Those anyone can choose, the cheapest first, after the one of a price and id."""
        return [r async for r in self._q.list_plans(c, after_price=after[0], after_id=after[1], most=most)]

    async def get_plan(self, c: Connection, plan_id: str) -> Row | None:
        row: Row | None = await self._q.get_plan(c, id=plan_id)
        return row

    async def add(self, c: Connection, new: Subscription) -> Subscription | None:
        """None when the organisation has one to the same already."""
        values = asdict(new)
        row = await self._q.add_subscription(
            c, next_at=new.next_at, end_=values.pop("end"), now=values.pop("created_at"),
            **{k: v for k, v in values.items() if k not in ("cancel", "canceled_at")},
        )  # fmt: skip
        if row is None:
            return None
        await self._tell(c, new)
        return _subscription(row)

    async def of(self, c: Connection, org_id: str, *, lock: bool = False) -> list[Subscription]:
        """Those of an organisation that have not ended: its plan's, then its models'."""
        query = self._q.lock_subscriptions if lock else self._q.get_subscriptions
        return [_subscription(r) async for r in query(c, org_id=org_id)]

    async def update(self, c: Connection, was: Subscription, **changes: Any) -> Subscription:
        """Changes a locked row, and tells of it."""
        now = replace(was, **changes)
        row = await self._q.update_subscription(
            c, id=now.id, plan_id=now.plan_id, status=now.status, price=now.price, fee_ppm=now.fee_ppm, start=now.start,
            end_=now.end, trial_end=now.trial_end, next_at=now.next_at, cancel=now.cancel, canceled_at=now.canceled_at,
        )  # fmt: skip
        await self._tell(c, now)
        return _subscription(row)

    async def _tell(self, c: Connection, now: Subscription) -> None:
        event = event_pb2.SubscriptionChanged(
            subscription_id=now.id, org_id=now.org_id, plan_id=now.plan_id or "", model=now.model, status=now.status,
            cancel_at_period_end=now.cancel,
        )  # fmt: skip
        await outbox.add(c, event)
        if now.discount_ppm:  # workers price by it
            await outbox.add(c, event_pb2.DiscountChanged(publisher_org_id=now.publisher_org_id, org_id=now.org_id))

    async def had_trial(self, c: Connection, org_id: str) -> bool:
        return bool(await self._q.had_trial(c, org_id=org_id))

    async def due(self, c: Connection, now: datetime, most: int) -> list[str]:
        """Organisations whose trial or period has ended, longest first."""
        return [r["org_id"] async for r in self._q.due_organisations(c, now=now, most=most)]

    async def fees_of(self, c: Connection, org_ids: Iterable[str]) -> dict[str, int]:
        """The platform's share of calls to their models, millionths, where a plan says one."""
        wanted: Sequence[str] = sorted(set(org_ids))
        return {r["org_id"]: r["fee_ppm"] async for r in self._q.fees_of(c, org_ids=wanted)}

    async def put_offer(
        self, c: Connection, *, model_id: str, model: str, publisher_org_id: str, price: int, discount_ppm: int,
        now: datetime,
    ) -> Row:  # fmt: skip
        row: Row = await self._q.put_offer(
            c, model_id=model_id, model=model, publisher_org_id=publisher_org_id, price=price,
            discount_ppm=discount_ppm, now=now,
        )  # fmt: skip
        return row

    async def drop_offer(self, c: Connection, model_id: str) -> None:
        await self._q.drop_offer(c, model_id=model_id)

    async def get_offer(self, c: Connection, model_id: str) -> Row | None:
        row: Row | None = await self._q.get_offer(c, model_id=model_id)
        return row


def starting(org_id: str, user_id: str, plan_id: str, now: datetime) -> Subscription:
    """A plan without a fee, whose months begin now."""
    start = now.replace(microsecond=0)
    return Subscription(
        ids.new("sub"), org_id, user_id, plan_id, ACTIVE, 0, None, "", "", "", start, start, next_end(start, start),
        None, False, None, now,
    )  # fmt: skip
