"""Monthly partitions of the usage table: this month's and the next two are always there."""

import asyncio
import logging
from datetime import UTC, datetime

from services.common.clock import Clock
from services.common.db import Connection, Database

log = logging.getLogger(__name__)
_DAY = 86_400
_AHEAD = 2  # months


def month(year: int, number: int) -> datetime:
    """The start of a month; the 13th is the next year's first."""
    return datetime(year + (number - 1) // 12, (number - 1) % 12 + 1, 1, tzinfo=UTC)


async def make_partitions(database: Database, now: datetime) -> None:
    """Makes the partitions that are not there; records of their months that went to the default partition move in."""
    for number in range(now.month, now.month + _AHEAD + 1):
        start, end = month(now.year, number), month(now.year, number + 1)
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('mercat-usage-partitions'))")
            await _make_partition(connection, f"usage_records_{start:%Y_%m}", start, end)


async def _make_partition(connection: Connection, name: str, start: datetime, end: datetime) -> None:
    if await connection.fetchval("SELECT to_regclass($1)", name):
        return
    strays = "FROM usage_records_rest WHERE timestamp >= $1 AND timestamp < $2"
    # A partition cannot be attached while the default one holds rows of it, and none may arrive meanwhile.
    await connection.execute("LOCK TABLE usage_records IN ACCESS EXCLUSIVE MODE")
    await connection.execute(f'CREATE TABLE "{name}" (LIKE usage_records INCLUDING DEFAULTS)')
    await connection.execute(f'INSERT INTO "{name}" SELECT * {strays}', start, end)
    await connection.execute(f"DELETE {strays}", start, end)
    await connection.execute(
        f'ALTER TABLE usage_records ATTACH PARTITION "{name}"'
        f" FOR VALUES FROM ('{start:%Y-%m-%d} UTC') TO ('{end:%Y-%m-%d} UTC')"
    )


async def keep_partitions(database: Database, clock: Clock) -> None:
    """Makes partitions ahead of time, every day, for ever."""
    while True:
        await asyncio.sleep(_DAY)
        try:
            await make_partitions(database, clock.now())
        except Exception as e:
            log.error("partitions were not made, records go to the default one: %s", e)
