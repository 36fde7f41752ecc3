"""Automatic top-ups: the default card is charged whenever less than a threshold is free to spend.

At most one is under way for an organisation, which an index sees to; `saga` notes how each ended."""

import logging

from services.billing.payments.saga import AUTO_TOP_UP, AlreadyUnderWay, Payments
from services.billing.payments.store import PaymentStore
from services.common import ids
from services.common.clock import Clock
from services.common.db import Database
from services.common.repeating import repeat

log = logging.getLogger(__name__)
_AT_ONCE = 100


class AutoTopUps:
    """Looks for wallets that need one."""

    def __init__(
        self, database: Database, store: PaymentStore, payments: Payments, clock: Clock, seconds: float
    ) -> None:
        self._database = database
        self._store = store
        self._payments = payments
        self._clock = clock
        self._seconds = seconds

    async def run(self) -> None:
        """One query every so often for all wallets, for ever; nothing on the way of a call."""
        await repeat(self.begin, "automatic top-ups wait", batch=_AT_ONCE, every=self._seconds)

    async def begin(self) -> int:
        """Begins a payment for each wallet below its threshold; how many there were."""
        async with self._database.connection() as connection:
            rows = await self._store.due_auto_top_ups(connection, self._clock.now(), _AT_ONCE)
        for row in rows:
            try:
                async with self._database.transaction() as connection:
                    await self._payments.start(
                        connection, org_id=row["org_id"], amount=row["amount"], purpose=AUTO_TOP_UP,
                        subject=ids.new("atu"),
                    )  # fmt: skip
            except AlreadyUnderWay:
                log.info("another process began the top-up of %s", row["org_id"])
        return len(rows)
