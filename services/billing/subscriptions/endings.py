"""How a subscription ends."""

from datetime import datetime

from services.billing.subscriptions.store import ACTIVE, CANCELED, FREE, Subscription, SubscriptionStore
from services.common import ids
from services.common.db import Connection


async def end(c: Connection, store: SubscriptionStore, was: Subscription, now: datetime) -> Subscription:
    """Ends a locked subscription. After a plan comes the free one, whose periods go on as they were."""
    ended = await store.update(c, was, status=CANCELED, canceled_at=now)
    if not was.model_id:
        free = Subscription(
            ids.new("sub"), was.org_id, was.user_id, FREE, ACTIVE, 0, None, "", "", "", was.anchor, was.start, was.end,
            None, False, None, now,
        )  # fmt: skip
        await store.add(c, free)
    return ended
