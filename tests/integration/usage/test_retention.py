"""Months long ago: dropped when proven, answered by their rollups, and checked with the books all the same."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from mercat.billing.v1 import billing_pb2
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.common.events import USAGE_SUBJECT
from services.usage.partitions import make_partitions, month
from services.usage.retention import Retention
from services.usage.service_settlement import settled_through
from services.usage.store import Store
from tests.integration.billing.books import USD, Books, Person, running
from tests.integration.usage.test_queries import rolled_up

NOW = datetime.now(UTC)
MONTHS = [month(NOW.year, NOW.month - n) for n in range(10, -1, -1)]  # the second of them is the one that goes first
OLD = MONTHS[1] + timedelta(days=9, hours=4, minutes=20)
KEEP = 8  # months before this one, all but the first two


def _table(start: datetime) -> str:
    return f"usage_records_{start:%Y_%m}"


@pytest_asyncio.fixture(scope="module")
async def books(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Books]:
    """Of this file's own: it drops months of everybody."""
    async with running(tmp_path_factory.mktemp("retention")) as made:
        for start in MONTHS:
            await make_partitions(made.deps["usage"].database, start)
        yield made


def _retention(books: Books, months: int) -> Retention:
    async def settled() -> datetime:
        return await settled_through(books.deps["usage"].events, books.clock)

    return Retention(books.deps["usage"].database, Store(), settled, books.clock, months)


def _at(books: Books, consumer: Person, publisher: Person, moment: datetime, cost: int = 1000) -> usage_pb2.UsageRecord:
    call = books.call(consumer, publisher, cost)
    call.request_id = ids.new("req", int(moment.timestamp() * 1000))
    call.timestamp.FromDatetime(ids.timestamp(call.request_id))
    return call


async def _check(books: Books) -> set[tuple[str, str]]:
    return {(d.code, d.subject) for d in (await books.check()).discrepancies}


async def _partitions(books: Books) -> set[str]:
    async with books.superuser("usage") as connection:
        rows = await connection.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'usage_records'::regclass"
        )
    return {r["name"] for r in rows}


async def _summary(books: Books, person: Person) -> usage_pb2.SummarizeUsageResponse:
    return await books.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest(), metadata=person.metadata)


async def test_a_month_goes_and_its_sums_stay(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    calls = [
        _at(books, person, publisher, OLD + n * timedelta(days=5, hours=1)) for n in range(12)
    ]  # into the months after it
    calls[0].price_id = await books.price(publisher, rows=500 * 1_000_000)
    calls[0].cost_nanos = 1500
    await books.send(*calls)
    await books.settled()
    await books.correct(calls[0].request_id, units={"rows": 1})
    async with asyncio.timeout(10):
        while (await _summary(books, person)).cost_nanos != 11_500:
            await asyncio.sleep(0.05)
    before = await _summary(books, person)
    assert not await _check(books)

    assert await _retention(books, 0).drop_old() == [], "0 keeps all"
    # Not what is not rolled up, and not what its rollups do not say.
    async with books.superuser("usage") as connection:
        progress = await connection.fetchval("SELECT through FROM rollup_progress")
        await connection.execute("UPDATE rollup_progress SET through = $1", OLD)
        assert _table(OLD) not in await _retention(books, KEEP).drop_old()
        await connection.execute("UPDATE rollup_progress SET through = $1", progress)
        await rolled_up(books)
        tamper = "UPDATE usage_rollups SET total = total + $2 WHERE span = $1 AND org_id = $3 AND meter = 'rows'"
        for span in ("hour", "day"):
            await connection.execute(tamper, span, 1, person.org_id)
            assert _table(OLD) not in await _retention(books, KEEP).drop_old()
            await connection.execute(tamper, span, -1, person.org_id)
    assert _table(OLD) in await _retention(books, KEEP).drop_old()
    there = await _partitions(books)
    assert _table(OLD) not in there
    assert {_table(start) for start in MONTHS[2:]} <= there
    assert await _summary(books, person) == before
    query = usage_pb2.QueryUsageRequest(meter="cost_nanos", bucket=usage_pb2.USAGE_BUCKET_MONTH)
    points = (await books.usage.QueryUsage(query, metadata=person.metadata)).points
    of = [c.timestamp.ToDatetime(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0) for c in calls]
    assert [(p.start_time.ToDatetime(UTC), p.value) for p in points] == [
        (start, 1000 * of.count(start) - (500 if start == MONTHS[1] else 0)) for start in MONTHS if start in of
    ]
    assert not await _check(books)


async def test_what_comes_late_for_a_dropped_month_counts_once(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    await _retention(books, KEEP).drop_old()
    late = [_at(books, person, publisher, OLD + timedelta(minutes=n)) for n in (0, 50)]
    for _ in range(2):
        await books.send(*late)
        await books.settled()
        await rolled_up(books)
        summary = await _summary(books, person)
        assert (summary.calls, summary.cost_nanos, summary.models[0].units["rows"]) == (2, 2000, 6)
        assert not await _check(books)
    later = _at(books, person, publisher, OLD + timedelta(minutes=1))
    await books.send(later)
    await books.settled()
    assert (await _summary(books, person)).calls in (2, 3), "until it is added, what was there is still there"
    await rolled_up(books)
    assert (await _summary(books, person)).cost_nanos == 3000
    # A part of an hour is answered by the hour.
    request = usage_pb2.SummarizeUsageRequest()
    request.start_time.FromDatetime(OLD + timedelta(minutes=5))
    request.end_time.FromDatetime(OLD + timedelta(minutes=10))
    assert (await books.usage.SummarizeUsage(request, metadata=person.metadata)).calls == 2


async def test_the_books_of_a_dropped_month_are_checked_by_its_sums(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    await _retention(books, KEEP).drop_old()
    await books.send(_at(books, person, publisher, OLD))
    await books.settled()
    await rolled_up(books)
    assert not await _check(books)
    change = "UPDATE usage_rollups SET total = total + $2 WHERE span = 'hour' AND org_id = $1 AND meter = 'cost_nanos'"
    async with books.superuser("usage") as connection:
        for by in (1, -1):
            await connection.execute(change, person.org_id, by)
            found = await _check(books)
            assert ("MONTH_DIFFERS", person.org_id) in found
            assert {code for code, _ in found} == {"MONTH_DIFFERS"}
            await connection.execute(change, person.org_id, -by)
    assert not await _check(books)
    statement = await books.billing.GetStatement(billing_pb2.GetStatementRequest(), metadata=person.metadata)
    assert statement.closing_nanos == USD - 1000, "postings are kept for ever"


async def test_a_month_with_unposted_calls_stays(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.usage import retention

    monkeypatch.setattr(retention, "_PATIENCE", 0.5)
    await rolled_up(books)
    before = await _partitions(books)
    mark = await books.events.js.publish(USAGE_SUBJECT, b"\xff\xff")
    assert await _retention(books, KEEP - 1).drop_old() == []
    assert await _partitions(books) == before
    await books.events.js.delete_msg("USAGE", mark.seq)
    assert (await _retention(books, KEEP - 1).drop_old())[-1] == _table(MONTHS[2])
