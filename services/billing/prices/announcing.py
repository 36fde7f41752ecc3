"""Tells the other services when a price that was set ahead takes effect. Workers know the moment by themselves; the
marketplace shows what is in effect."""

import logging

from mercat.event.v1 import event_pb2

from services.billing.prices.store import PriceStore
from services.common import outbox
from services.common.clock import Clock
from services.common.db import Database
from services.common.repeating import repeat

log = logging.getLogger(__name__)


class Announcer:
    """Of prices that are due. Several may run: a row is taken by one of them."""

    def __init__(self, database: Database, prices: PriceStore, clock: Clock) -> None:
        self._database = database
        self._prices = prices
        self._clock = clock

    async def repeat(self) -> None:
        """Looks again and again, for ever."""
        await repeat(self._announce, "prices that took effect are announced later")

    async def _announce(self) -> int:
        async with self._database.transaction() as connection:
            due = await self._prices.take_due(connection, self._clock.now())
            for row in due:
                event = event_pb2.PriceChanged(model_id=row["model_id"], model=row["model"], price_id=row["price_id"])
                await outbox.add(connection, event)
        return len(due)
