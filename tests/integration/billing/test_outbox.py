"""Case 6: what is in the outbox is published, in whatever order it was committed."""

import asyncio
import random
from itertools import pairwise

import pytest
from mercat.event.v1 import event_pb2

from services.common import ids, outbox
from tests.integration.billing.books import Books
from tests.sizes import Size


@pytest.mark.case
async def test_an_event_with_a_lower_id_that_commits_last_is_published_too(books: Books) -> None:
    database, model_id = books.deps["billing"].database, ids.new("mdl")
    subscription = await books.events.js.subscribe("mercat.event.PriceChanged", ordered_consumer=True)

    async def next_of_ours() -> str:
        async with asyncio.timeout(10):
            while True:
                message = await subscription.next_msg(timeout=10)
                if event_pb2.PriceChanged.FromString(message.data).model_id == model_id:
                    return str((message.headers or {})["Nats-Msg-Id"])

    async with database.transaction() as slow:
        first = await outbox.add(slow, event_pb2.PriceChanged(model_id=model_id, price_id="prc_1"))
        await asyncio.sleep(0.005)  # ids are in the order of milliseconds
        async with database.transaction() as quick:
            second = await outbox.add(quick, event_pb2.PriceChanged(model_id=model_id, price_id="prc_2"))
        assert first < second
        assert await next_of_ours() == second
        await asyncio.sleep(1)  # the relay has looked again, and found nothing that it may see
    assert await next_of_ours() == first
    async with database.connection() as connection, asyncio.timeout(5):  # a row goes just after it is published
        while await connection.fetchval("SELECT count(*) FROM outbox WHERE id = ANY($1)", [first, second]):
            await asyncio.sleep(0.02)
    await subscription.unsubscribe()


async def test_an_event_of_a_transaction_that_fails_is_never_published(books: Books) -> None:
    database = books.deps["billing"].database
    lost = ""
    try:
        async with database.transaction() as connection:
            lost = await outbox.add(connection, event_pb2.PriceChanged(model_id="mdl_never"))
            raise RuntimeError
    except RuntimeError:
        pass
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM outbox WHERE id = $1", lost) == 0


@pytest.mark.case
async def test_events_of_many_transactions_at_once_are_published_once_each(
    books: Books, size: Size, seed: random.Random
) -> None:
    """Transactions that begin, end and fail in whatever order: what committed is published, and nothing else."""
    database, model_id = books.deps["billing"].database, ids.new("mdl")
    subscription = await books.events.js.subscribe("mercat.event.PriceChanged", ordered_consumer=True)
    lives = [(seed.random() < 0.1, seed.uniform(0, 0.02), seed.randrange(1, 5)) for _ in range(size.calls // 2)]
    committed: list[str] = []

    async def transact(fails: bool, lasts: float, count: int) -> None:
        try:
            async with database.transaction() as connection:
                event = event_pb2.PriceChanged(model_id=model_id)
                added = [await outbox.add(connection, event) for _ in range(count)]
                await asyncio.sleep(lasts)
                if fails:
                    raise RuntimeError
            committed.extend(added)
        except RuntimeError:
            pass

    async def one_after_another() -> None:
        while lives:
            await transact(*lives.pop())

    async def published() -> list[str]:
        """The ids of ours, until no more are to come."""
        heard: list[str] = []
        async with database.connection() as connection:
            while True:
                try:
                    message = await subscription.next_msg(timeout=1)
                    if event_pb2.PriceChanged.FromString(message.data).model_id == model_id:
                        heard.append((message.headers or {})["Nats-Msg-Id"])
                except TimeoutError:
                    if not working and not await connection.fetchval("SELECT count(*) FROM outbox"):
                        return heard

    working = True
    hearing = asyncio.create_task(published())
    await asyncio.gather(*(one_after_another() for _ in range(8)))
    working = False
    async with asyncio.timeout(120):
        heard = await hearing
    await subscription.unsubscribe()
    late = sum(1 for first, then in pairwise(heard) if then < first)
    print(f"\noracle L: {len(committed)} events, {late} of them published after one with a higher id")
    assert late
    assert sorted(heard) == sorted(committed)
