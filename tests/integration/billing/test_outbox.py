"""Case 6: what is in the outbox is published, in whatever order it was committed."""

import asyncio

from mercat.event.v1 import event_pb2

from services.common import ids, outbox
from tests.integration.billing.books import Books


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
