"""What callers of a version are told, while usage, which knows them, is slow or cannot answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2 as r

from tests import graphs
from tests.integration.notification.test_webhooks import endpoint, happen
from tests.platform import Account, Platform
from tests.webhook_receiver import Receiver

# What the notification service holds open while it waits for something else.
HELD = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mercat-notification'"
    " AND state = 'idle in transaction' AND state_change < now() - interval '0.5 s'"
)


@asynccontextmanager
async def slow(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Usage waits for its own table."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE usage.usage_records IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def failing(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Usage has no such table, and says that something is wrong."""
    await connection.execute("ALTER TABLE usage.usage_records RENAME TO mislaid")
    yield
    await connection.execute("ALTER TABLE usage.mislaid RENAME TO usage_records")


@pytest.mark.parametrize("usage", [slow, failing])
async def test_nothing_waits_for_usage_and_nobody_is_left_out(
    platform: Platform, person: Account, there: Receiver,
    usage: Callable[[asyncpg.Connection], "asynccontextmanager[None]"],
) -> None:  # fmt: skip
    maker = platform.publisher()
    model = platform.publish(maker, graphs.tiny())
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[x]))
    connection = await asyncpg.connect(platform.postgres_url())
    try:
        calls = f"SELECT count(*) FROM usage.usage_records WHERE model = '{model}'"
        await come(lambda: connection.fetchval(calls))
        for who, path in ((maker, "/maker"), (person, "/person")):
            endpoint(who, there.url(path), "model.deprecated")
        endpoint(person, there.url("/keys"), "api_key.created")
        async with usage(connection):
            maker.registry.DeprecateVersion(r.DeprecateVersionRequest(model=model, version="1.0.0"))
            await asyncio.sleep(2)
            assert await connection.fetchval(HELD) == 0
            await asyncio.to_thread(happen, person)  # all else is told meanwhile
            await asyncio.to_thread(there.wait, "/keys", 1, 5)
            assert not there.at("/maker")
            assert not there.at("/person")
        for path in ("/maker", "/person"):
            await asyncio.to_thread(there.wait, path)
        told = "SELECT org_id FROM notification.webhook_events WHERE type = 'model.deprecated' AND body LIKE $1"
        rows = await connection.fetch(told, f"%{model}%")
        assert sorted(row["org_id"] for row in rows) == sorted([maker.profile.org_id, person.profile.org_id])
    finally:
        await connection.close()


async def come(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.05)
