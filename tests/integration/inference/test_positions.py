"""Positions in a month, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.common.rpc.channels import InternalChannel
from services.common.scripts import source
from services.embedded.ports import free_ports
from services.embedded.valkey import Valkey
from services.inference.positions import Key, Positions

KEY = Key("org_a", "mdl_a", "2099-01")
ONE = {"requests": 1}


@pytest.fixture
async def positions(tmp_path: Path) -> AsyncIterator[Positions]:
    """Of a counter that is known to be at 0; usage need not be asked."""
    async with Valkey(tmp_path / "valkey") as valkey:
        redis = Redis.from_url(valkey.url)
        begin = redis.register_script(source("services.inference", "positions_add.lua"))
        await begin([KEY.name], [60_000, 1, "requests", 0])
        yield Positions(redis, InternalChannel(f"127.0.0.1:{free_ports(1)[0]}", "token"))
        await redis.aclose()


async def test_units_that_were_taken_are_not_expected_as_well(positions: Positions) -> None:
    """Else a call without credit is refused what is still free."""
    furthest: list[int] = []

    async def look() -> None:
        while True:
            furthest.append((await positions.expect(KEY, ONE, 0))["requests"])
            positions.forget(KEY, ONE)
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    try:
        for number in range(50):
            about = await positions.expect(KEY, ONE, 0)
            assert about == {"requests": number}
            assert await positions.take(KEY, ONE, 0, expected=ONE) == {"requests": number}
            assert max(furthest, default=0) <= number + 1
    finally:
        looking.cancel()
    assert (await positions.expect(KEY, ONE, 0)) == {"requests": 50}
