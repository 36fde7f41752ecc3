"""Monthly partitions of the usage table: this month's and the next two are always there."""

import asyncio
import logging
from datetime import UTC, datetime

from services.common.clock import Clock
from services.common.db import Database

log = logging.getLogger(__name__)
_DAY = 86_400


def month(year: int, number: int) -> datetime:
    """The start of a month; the 13th is the next year's first."""
    return datetime(year + (number - 1) // 12, (number - 1) % 12 + 1, 1, tzinfo=UTC)


async def make_partitions(database: Database, now: datetime) -> None:
    """Makes the partitions that are not there. What the default partition holds of a month stays where it is, and its
    month gets none."""
    for ahead in range(3):
        start, end = month(now.year, now.month + ahead), month(now.year, now.month + ahead + 1)
        name = f"usage_records_{start:%Y_%m}"
        async with database.connection() as connection:
            if await connection.fetchval("SELECT to_regclass($1)", f"{database.schema}.{name}"):
                continue
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF usage_records"
                f" FOR VALUES FROM ('{start:%Y-%m-%d}') TO ('{end:%Y-%m-%d}')"
            )


async def keep_partitions(database: Database, clock: Clock) -> None:
    """Makes partitions ahead of time, every day, for ever."""
    while True:
        try:
            await make_partitions(database, clock.now())
        except Exception as e:
            log.error("partitions were not made, records go to the default one: %s", e)
        await asyncio.sleep(_DAY)
