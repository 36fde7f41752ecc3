"""Time passes: trials and periods end when they are due."""

import logging

from services.billing.subscriptions.changes import Changes
from services.billing.subscriptions.store import SubscriptionStore
from services.common import failpoints
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import MercatError
from services.common.repeating import repeat

log = logging.getLogger(__name__)
_AT_ONCE = 50  # organisations


class Periods:
    """Ends what is due, each organisation in a transaction of its own: a death in the middle repeats nothing."""

    def __init__(self, database: Database, store: SubscriptionStore, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._changes = changes
        self._clock = clock

    async def run(self) -> None:
        """For ever."""
        await repeat(self.advance, "periods wait", batch=_AT_ONCE)

    async def advance(self) -> int:
        """How many organisations were due. One that cannot be advanced does not hold up the others."""
        async with self._database.connection() as connection:
            due = await self._store.due(connection, self._clock.now(), _AT_ONCE)
        failed = 0
        for org_id in due:
            try:
                async with self._database.transaction() as connection:
                    # With the wallet locked, whoever else advances it waits, and then finds nothing due.
                    await self._changes.current(connection, org_id, "", self._clock.now())
            except MercatError:
                raise
            except Exception:
                failed += 1
                log.exception("the periods of %s wait", org_id)
            failpoints.passing("subscriptions.advanced")
        return len(due) if not failed else 0
