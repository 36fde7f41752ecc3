"""Nonces of signed calls: of all processes together one lets a call through, and each alone while Redis is gone."""

import asyncio
import secrets
from pathlib import Path

from redis.asyncio import Redis

from services.common.rpc.signed import Nonces
from services.embedded.valkey import Valkey


async def test_a_nonce_is_good_once_in_all_processes(tmp_path: Path) -> None:
    async with Valkey(tmp_path / "valkey") as valkey:
        clients = [Redis.from_url(valkey.url) for _ in range(3)]
        processes = [Nonces(client) for client in clients]
        for _ in range(20):
            name = secrets.token_hex()
            assert sorted(await asyncio.gather(*(p.use(name, 60) for p in processes))) == [False, False, True]
            assert not any(await asyncio.gather(*(p.use(name, 60) for p in processes)))
        short = secrets.token_hex()
        assert await processes[0].use(short, 0.3)
        assert not await processes[1].use(short, 0.3)
        await asyncio.sleep(0.4)
        assert await processes[0].use(short, 60)  # whoever comes then is refused by the time in the signature
        for client in clients:
            await client.aclose()


async def test_while_redis_is_gone_each_process_knows_its_own(tmp_path: Path) -> None:
    async with Valkey(tmp_path / "valkey") as valkey:
        clients = [Redis.from_url(valkey.url) for _ in range(2)]
        one, other = (Nonces(client) for client in clients)
        before = secrets.token_hex()
        assert await one.use(before, 60)
    assert not await one.use(before, 60)
    name = secrets.token_hex()
    assert [await one.use(name, 60), await one.use(name, 60), await other.use(name, 60)] == [True, False, True]
    for client in clients:
        await client.aclose()
