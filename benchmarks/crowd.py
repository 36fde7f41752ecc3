"""Many keys and models in a platform's own database, stored as auth, registry and billing store theirs: copies of rows
that these services wrote themselves, with new ids, names and secrets."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from benchmarks.mercat import Mercat
from services.auth import keys
from services.common import ids
from services.common.names import skeleton

_KEYS = """
INSERT INTO auth.api_keys
SELECT (jsonb_populate_record(k, jsonb_build_object('id', n.id, 'key_hash', n.hash::text, 'prefix', n.prefix))).*
FROM auth.api_keys k, unnest($1::text[], $2::bytea[], $3::text[]) AS n (id, hash, prefix)
WHERE k.key_hash = $4
"""
_MODELS = """
INSERT INTO registry.models
SELECT (jsonb_populate_record(m, jsonb_build_object('id', n.id, 'name', n.name, 'skeleton', n.skeleton))).*
FROM registry.models m, unnest($1::text[], $2::text[], $3::text[]) AS n (id, name, skeleton)
WHERE m.publisher = $4 AND m.name = $5
"""
_VERSIONS = """
INSERT INTO registry.versions
SELECT (jsonb_populate_record(v, jsonb_build_object('id', n.id, 'model_id', n.model_id))).*
FROM registry.versions v JOIN registry.models m ON m.id = v.model_id,
    unnest($1::text[], $2::text[]) AS n (id, model_id) WHERE m.publisher = $3 AND m.name = $4
"""
_PRICES = """
INSERT INTO billing.prices
SELECT (jsonb_populate_record(p, jsonb_build_object('id', n.id, 'model_id', n.model_id, 'model', n.model))).*
FROM billing.prices p, unnest($1::text[], $2::text[], $3::text[]) AS n (id, model_id, model) WHERE p.model = $4
"""


def add_keys(mercat: Mercat, number: int, people: int) -> list[str]:
    """Gives so many keys to so many people, evenly; answers the secrets, those of different people in turn."""
    owners = [person.api_key for person in mercat.consumers(people)]
    made = [[keys.generate(test=False) for _ in range(number // people - 1)] for _ in owners]

    async def fill(c: asyncpg.Connection) -> None:
        for owner, secrets in zip(owners, made, strict=True):
            digests, prefixes = [keys.digest(s) for s in secrets], [keys.prefix(s) for s in secrets]
            await c.execute(_KEYS, _new("key", len(secrets)), digests, prefixes, keys.digest(owner))
        await c.execute("ANALYZE auth.api_keys")

    asyncio.run(_with(mercat, fill))
    return [secret for of_each in (owners, *zip(*made, strict=True)) for secret in of_each]


def add_models(mercat: Mercat, model: str, number: int) -> list[str]:
    """Copies a published model until there are so many; answers all their names, `publisher/name`."""
    publisher, name = model.split("/")
    names = [f"{name}-{at}" for at in range(1, number)]
    models = _new("mdl", len(names))

    async def fill(c: asyncpg.Connection) -> None:
        await c.execute(_MODELS, models, names, [skeleton(one) for one in names], publisher, name)
        await c.execute(_VERSIONS, _new("ver", len(names)), models, publisher, name)
        called = [f"{publisher}/{one}" for one in names]
        await c.execute(_PRICES, _new("prc", len(names)), models, called, model)
        await c.execute("ANALYZE registry.models, registry.versions, billing.prices")

    asyncio.run(_with(mercat, fill))
    return [model, *(f"{publisher}/{one}" for one in names)]


def _new(prefix: str, number: int) -> Sequence[str]:
    return [ids.new(prefix) for _ in range(number)]


async def _with(mercat: Mercat, fill: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
    connection = await asyncpg.connect(mercat.postgres())
    try:
        async with connection.transaction():
            await fill(connection)
    finally:
        await connection.close()
