"""Drops the records of months long ago: once what they sum up to is rolled up, proven and posted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

import asyncpg

from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import Unavailable
from services.usage.partitions import month
from services.usage.sources import DAY
from services.usage.store import Store

log = logging.getLogger(__name__)
_EVERY = 3600.0  # seconds
_PATIENCE = 20.0  # seconds until all that is recorded is posted


class Retention:
    """Keeps this month and so many before it. `settled` as of the rollups."""

    def __init__(
        self, database: Database, store: Store, settled: Callable[[], Awaitable[datetime]], clock: Clock, months: int
    ) -> None:
        self._database = database
        self._store = store
        self._settled = settled
        self._clock = clock
        self._months = months

    async def work(self) -> None:
        """Drops what is due, for ever; nothing when all is kept."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.drop_old()
            except (Unavailable, asyncpg.LockNotAvailableError) as e:
                log.warning("old usage stays for now: %s", e)
            except Exception:
                log.exception("old usage stays for now")

    async def drop_old(self) -> list[str]:
        """Drops the months that are due, oldest first; answers their partitions."""
        dropped: list[str] = []
        now = self._clock.now()
        keep = month(now.year, now.month - self._months)
        while self._months:
            async with self._database.transaction() as connection:
                name = await self._store.oldest_partition(connection)
                if name is None:
                    break
                year, number = (int(part) for part in name.split("_")[-2:])
                start, end = month(year, number), month(year, number + 1)
                if end > keep or not await self._drop(connection, name, start, end):
                    break
            log.info("%s was dropped: it is rolled up", name)
            dropped.append(name)
        return dropped

    async def _drop(self, connection: Connection, name: str, start: datetime, end: datetime) -> bool:
        # From here on no stale hour is made anew: whatever is still inserted into the month shows at the end.
        await self._store.lock_rollups(connection)
        if (await self._store.progress(connection)).rolled < end or not await self._all_posted():
            return False
        day = start
        while day < end:
            if await self._store.count_differences(connection, day, day + DAY):
                log.error("%s is not dropped: of %s its rollups are not what its records make", name, day)
                return False
            day += DAY
        await connection.execute("SET LOCAL lock_timeout = '2s'")  # inserts and questions wait behind this
        await connection.execute("LOCK TABLE usage_records IN ACCESS EXCLUSIVE MODE")
        if (await self._store.progress(connection)).rolled < end:
            return False
        await connection.execute(f'DROP TABLE "{name}"')
        await self._store.keep_from(connection, end)
        return True

    async def _all_posted(self) -> bool:
        """Whether everything recorded before now is posted."""
        now, loop = self._clock.now(), asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while await self._settled() < now:
            if loop.time() > until:
                return False
            await asyncio.sleep(0.2)
        return True
