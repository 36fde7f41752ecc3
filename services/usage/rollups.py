"""Rolls up hours once they have passed, and again when a record of theirs comes late.

Two steps, so that inserts never wait for a sum: an hour that has passed is first declared to be rolled up and stale, in
a moment without inserts; from then on every insert into it says so in `stale_hours`. Then stale hours are made from
their records, one by one, whole. Dying in between costs nothing: an hour is stale until it is made,
in one transaction."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import asyncpg

from services.common import ids
from services.common.db import Database
from services.common.errors import Unavailable
from services.usage.sources import DAY, HOUR, floor
from services.usage.store import Store

log = logging.getLogger(__name__)
_EVERY = 15.0  # seconds
_MOST = 24  # hours made at once
_SETTLING = timedelta(minutes=5)  # after the hour, in which most of what is late comes


class Rollups:
    """`settled` answers the instant up to which every recorded call is stored."""

    def __init__(self, database: Database, store: Store, settled: Callable[[], Awaitable[datetime]]) -> None:
        self._database = database
        self._store = store
        self._settled = settled
        self._most = _MOST

    async def work(self) -> None:
        """Rolls up, for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.catch_up(await self._settled())
                self._most = _MOST
            except (Unavailable, asyncpg.LockNotAvailableError) as e:
                self._most = max(self._most // 2, 1)  # perhaps they were too much for one statement
                log.warning("usage is not rolled up just now: %s", e)
            except Exception:  # its records answer meanwhile
                log.exception("usage is not rolled up just now")

    async def catch_up(self, settled: datetime) -> int:
        """Rolls up what has passed and what is stale; answers how many hours that was."""
        hours, boundary = 0, floor(settled - _SETTLING, HOUR)
        while True:
            while made := await self._roll_up():
                hours += made
            if not await self._advance(boundary):
                return hours

    async def _advance(self, boundary: datetime) -> bool:
        """Declares the next hours that have passed, at most a day's; False when there are none."""
        async with self._database.transaction() as connection:
            await connection.execute("SET LOCAL lock_timeout = '2s'")  # inserts wait behind this
            await self._store.lock_inserts(connection)
            through = (await self._store.progress(connection)).through
            if through >= boundary:
                return False
            # In the order of ids, which is that of time; months without calls cost nothing.
            first = await self._store.first_record(connection, ids.first("req", _milliseconds(through)))
            start = min(floor(first, HOUR), boundary) if first is not None else boundary
            await self._store.advance(connection, start, min(start + DAY, boundary))
        return True

    async def _roll_up(self) -> int:
        """Makes the oldest stale hours of a day, and the day; answers how many they were."""
        async with self._database.transaction() as connection:
            await self._store.lock_rollups(connection)
            hours = await self._store.take_stale_hours(connection, self._most)
            if hours:
                day = floor(hours[0], DAY)
                if day < (await self._store.progress(connection)).kept_from:
                    await self._store.forget_day(connection, day)
                    for hour in hours:
                        await self._store.add_late(connection, hour)
                else:
                    await self._store.forget_rollups(connection, hours, day)
                    await self._store.roll_up_hours(connection, hours)
                await self._store.roll_up_day(connection, day, day + DAY)
        return len(hours)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
