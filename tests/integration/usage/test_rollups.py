"""Rollups say what the records say, also of what comes late, is corrected, or comes while they are made."""

import asyncio
from datetime import UTC, datetime, timedelta

from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.usage.sources import floor
from services.usage.store import Store
from tests.integration.billing.books import USD, Books, Person
from tests.integration.usage.test_queries import rolled_up

HOUR = timedelta(hours=1)


def _at(books: Books, consumer: Person, publisher: Person, moment: datetime, cost: int = 7) -> usage_pb2.UsageRecord:
    call = books.call(consumer, publisher, cost)
    call.request_id = ids.new("req", int(moment.timestamp() * 1000))
    call.timestamp.FromDatetime(ids.timestamp(call.request_id))
    return call


async def _differences(books: Books, *people: Person) -> list[object]:
    """Hours whose rollups are not what their records make, of a metering count that shares no code with them."""
    async with books.superuser("usage") as connection:
        return list(await connection.fetch(
            """
            WITH made AS (
                SELECT start, meter, calls, total FROM usage_rollups WHERE span = 'hour' AND org_id = ANY($1)
            ), recorded AS (
                SELECT date_trunc('hour', timestamp, 'UTC') AS start, 'rows' AS meter,
                    count(*) FILTER (WHERE corrects IS NULL) AS calls, sum((units ->> 'rows')::bigint) AS total
                FROM usage_records WHERE org_id = ANY($1)
                    AND timestamp < (SELECT through FROM rollup_progress) GROUP BY 1
                UNION ALL SELECT date_trunc('hour', timestamp, 'UTC'), 'cost_nanos',
                    count(*) FILTER (WHERE corrects IS NULL), sum(cost)
                FROM usage_records WHERE org_id = ANY($1)
                    AND timestamp < (SELECT through FROM rollup_progress) GROUP BY 1
            )
            SELECT start, meter, m.calls, r.calls, m.total, r.total
            FROM (SELECT * FROM made WHERE meter IN ('rows', 'cost_nanos')) m FULL JOIN recorded r USING (start, meter)
            WHERE (m.calls, m.total) IS DISTINCT FROM (r.calls, r.total)
            """,
            [p.org_id for p in people],
        ))  # fmt: skip


async def _summary(books: Books, person: Person) -> usage_pb2.SummarizeUsageResponse:
    return await books.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest(), metadata=person.metadata)


async def test_what_comes_late_counts_at_once_and_is_rolled_up_again(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    long_ago = books.clock.now() - timedelta(days=3)
    await books.send(*(_at(books, person, publisher, long_ago + n * HOUR) for n in range(5)))
    await books.settled()
    await rolled_up(books)
    assert await rolled_up(books) == 0, "what is rolled up stays so"
    assert (await _summary(books, person)).cost_nanos == 5 * 7
    late = _at(books, person, publisher, long_ago, 100)
    await books.send(late)
    await books.settled()
    assert (await _summary(books, person)).cost_nanos == 5 * 7 + 100
    assert await rolled_up(books) >= 1
    assert (await _summary(books, person)).cost_nanos == 5 * 7 + 100
    await books.send(late)
    await books.settled()
    assert (await _summary(books, person)).calls == 6
    assert not await _differences(books, person)


async def test_a_correction_is_rolled_up(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    call = _at(books, person, publisher, books.clock.now() - timedelta(days=2), 3000)
    call.price_id = await books.price(publisher, rows=1000 * 1_000_000)
    await books.send(call)
    await books.settled()
    await rolled_up(books)
    await books.correct(call.request_id, units={"rows": 8})
    query = usage_pb2.QueryUsageRequest(meter="rows", aggregation=usage_pb2.USAGE_AGGREGATION_MAX)
    for again in (False, True):
        async with asyncio.timeout(10):
            while (await _summary(books, person)).cost_nanos != 8000:
                await asyncio.sleep(0.05)
        (point,) = (await books.usage.QueryUsage(query, metadata=person.metadata)).points
        assert point.value == 8, again
        await rolled_up(books)
    assert not await _differences(books, person)


async def test_calls_that_come_while_their_hour_is_rolled_up_are_counted_once(books: Books) -> None:
    """Transactions of inserts stay open over every step of the rollup."""
    person, publisher = await books.person(USD), await books.person()
    database, store = books.deps["usage"].database, Store()
    begin = floor(books.clock.now(), HOUR) + timedelta(days=40)  # no other test's hours
    sent = 0

    async def insert(n: int) -> None:
        nonlocal sent
        for k in range(25):
            calls = [
                _at(books, person, publisher, begin + timedelta(minutes=(7 * n + 13 * k + j) % 300)) for j in range(4)
            ]
            async with database.transaction() as connection:
                await store.add_records(connection, calls)
                await asyncio.sleep(0.003 * n)
            sent += len(calls)

    async def roll() -> None:
        for step in range(60):
            await rolled_up(books, begin + timedelta(minutes=6 * step))
            await asyncio.sleep(0.002)

    await asyncio.gather(*(insert(n) for n in range(6)), roll(), roll())
    await rolled_up(books, begin + timedelta(hours=6))
    assert not await _differences(books, person)
    summary = await books.usage.SummarizeUsage(_until(begin + timedelta(hours=6)), metadata=person.metadata)
    assert summary.calls == sent == 600
    assert (summary.cost_nanos, summary.models[0].units["rows"]) == (7 * sent, 3 * sent)


async def test_an_insert_that_is_under_way_is_waited_for(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    begin = floor(books.clock.now(), HOUR) + timedelta(days=60)  # no other test's hours
    async with books.deps["usage"].database.transaction() as connection:
        await Store().add_records(connection, [_at(books, person, publisher, begin)])
        rolling = asyncio.create_task(rolled_up(books, begin + 3 * HOUR))
        await asyncio.sleep(0.5)
        assert not rolling.done(), "it would miss what it cannot see yet, and the insert would not say that it is late"
    await rolling
    assert not await _differences(books, person)
    assert (await books.usage.SummarizeUsage(_until(begin + 2 * HOUR), metadata=person.metadata)).calls == 1


def _until(moment: datetime) -> usage_pb2.SummarizeUsageRequest:
    request = usage_pb2.SummarizeUsageRequest()
    request.end_time.FromDatetime(moment)
    return request


async def test_an_accounts_calls_are_counted_from_rollups_as_well(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    begin = datetime(2026, 1, 10, 3, 20, tzinfo=UTC)
    await books.send(*(_at(books, person, publisher, begin + n * HOUR, 0) for n in range(40)))
    await books.settled()
    await rolled_up(books)
    request = usage_pb2.CountCallsRequest(org_id=person.org_id)
    request.start_time.FromDatetime(begin + 2 * HOUR)
    request.end_time.FromDatetime(begin + 31 * HOUR)
    assert (await books.settlement.CountCalls(request)).calls == 29
