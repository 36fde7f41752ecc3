"""How long questions about a year of usage take, from the records alone and with what is rolled up of them.

python -m benchmarks.usage_year --rows 5000000
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from services.common.db import Connection, Database, migrate
from services.embedded.postgres import Postgres
from services.usage.partitions import make_partitions
from services.usage.questions import Question
from services.usage.rollups import Rollups
from services.usage.store import Store
from services.usage.totals import Totals

YEAR = timedelta(days=365)
ORG = "org_0"  # makes half of the calls; 20 others the rest
# Every call of a year at equal distances, under a valid id: ten digits of its milliseconds, sixteen of noise.
FILL = """
INSERT INTO usage_records SELECT 'use_' || k, 'req_' || k, to_timestamp(ms / 1000.0), 'org_' || o, 'usr_' || n % 7,
    'key_' || n % 5, 'mdl_' || n % 10, 'ada/model-' || n % 10, '1.0.0', 'org_' || n % 4, n % 900,
    jsonb_build_object('requests', 1, 'input_tokens', n % 800, 'output_tokens', n % 100), 'prc_1', n % 5000,
    n % 90000 / 1000.0,
    n % 90000, 0, 'local', false, '',
    CASE n % 3 WHEN 0 THEN jsonb_build_object('team', 'team-' || n % 9) END
FROM (
    SELECT n, ms, CASE WHEN n % 2 = 0 THEN 0 ELSE 1 + n % 20 END AS o, (
        SELECT string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', (ms >> s & 31)::integer + 1, 1), ''
            ORDER BY s DESC)
        FROM generate_series(0, 45, 5) s
    ) || left(md5(n::text), 16) AS k
    FROM (SELECT n, $1 + n * $2 / $3 AS ms FROM generate_series($4::bigint, $5::bigint) n) t
) t
"""
_SLICE = 50_000


async def fill(database: Database, rows: int, start: datetime) -> None:
    first, length = int(start.timestamp() * 1000), int(YEAR.total_seconds() * 1000)
    for at in range(0, rows, _SLICE):
        async with database.connection() as connection:
            await connection.execute(FILL, first, length, rows, at, min(at + _SLICE, rows) - 1, timeout=300)
    async with database.connection() as connection:
        await connection.execute("VACUUM ANALYZE usage_records", timeout=600)


async def timed(database: Database, ask: Callable[[Connection], Awaitable[object]]) -> tuple[float, object]:
    """Milliseconds, the median of five, and the answer."""
    took, answer = [], None
    for _ in range(5):
        async with database.connection() as connection:
            began = time.perf_counter()
            answer = await ask(connection)
            took.append((time.perf_counter() - began) * 1000)
    return median(took), answer


def plain(answer: object) -> object:
    """An answer that can be compared, of rows of whatever kind."""
    return [dict(row) if hasattr(row, "items") else row for row in answer] if isinstance(answer, list) else answer


def question(start: datetime, until: datetime, bucket: str, *groups: str) -> Question:
    none = {"model": "", "version": "", "key_id": "", "user_id": "", "tags": None}
    return Question(False, "input_tokens", "sum", "value", frozenset(groups), "", bucket, start, until, none)


async def measure(rows: int) -> None:
    now = datetime.now(UTC)
    start = now - YEAR
    with tempfile.TemporaryDirectory() as folder:
        async with Postgres(Path(folder) / "postgres") as postgres:
            await migrate(postgres.url, "usage", "services.usage")
            database = await Database.connect(postgres.url, "usage")
            for month in range(13):
                await make_partitions(database, start + month * timedelta(days=30))
            began = time.perf_counter()
            await fill(database, rows, start)
            print(f"{rows:,} calls in {time.perf_counter() - began:.0f} s")
            store = Store()
            totals = Totals(store)
            month = now - timedelta(days=30)
            asked: dict[str, Callable[[Connection], Awaitable[object]]] = {
                "summary of a year": lambda c: totals.by_model(c, ORG, publisher=False, start=start, until=now),
                "summary of a month": lambda c: totals.by_model(c, ORG, publisher=False, start=month, until=now),
                "a publisher's year": lambda c: totals.by_model(c, ORG, publisher=True, start=start, until=now),
                "calls of a year": lambda c: totals.calls(c, ORG, start, now),
                "a meter by month and model": lambda c: totals.query(c, ORG, question(start, now, "month", "model")),
                "a meter by day": lambda c: totals.query(c, ORG, question(start, now, "day")),
                "a meter of a month by hour": lambda c: totals.query(c, ORG, question(month, now, "hour")),
                "a meter of a month by tag (records)": lambda c: totals.query(c, ORG, question(month, now, "", "tag")),
                "the oldest page of a list (records)": lambda c: store.list_records(
                    c, ORG, publisher=False, model="", start=start, until=start + timedelta(days=3), before=None,
                    most=50,
                ),
            }  # fmt: skip
            before = {name: await timed(database, ask) for name, ask in asked.items()}

            async def settled() -> datetime:
                return now

            began = time.perf_counter()
            hours = await Rollups(database, store, settled).catch_up(await settled())
            print(f"{hours:,} hours rolled up in {time.perf_counter() - began:.0f} s")
            async with database.connection() as connection:
                await connection.execute("VACUUM ANALYZE usage_rollups", timeout=600)
            print(f"{'':40} {'records':>12} {'rolled up':>12}")
            for name, ask in asked.items():
                took, answer = await timed(database, ask)
                if plain(answer) != plain(before[name][1]):
                    raise AssertionError(f"{name}: the answers differ")
                print(f"{name:40} {before[name][0]:9.1f} ms {took:9.1f} ms")
            await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.usage_year", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="calls of the year [%(default)s]")
    rows = parser.parse_args().rows
    if not 1_000 <= rows <= 20_000_000:
        parser.error("--rows must be 1000 to 20000000")
    asyncio.run(measure(rows))


if __name__ == "__main__":
    main()
