"""Data keys in a real database: who they open for, replaced and shredded, by many at once."""

import asyncio
import base64
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.common.clock import SystemClock
from services.common.db import Database
from services.common.errors import Unavailable
from services.common.sealing import Sealer, Unsealable, generate, named
from services.common.secrets.keyring import MAGIC, Keyring
from services.common.secrets.vault import Transit, client
from services.common.secrets.wrapping import LocalWrapper, TransitWrapper, Wrapper
from tests.platform import Platform
from tests.vault_server import ROOT, Vault, serving

SECRET = b"nobody may read this"


@pytest.fixture(scope="module")
async def database(platform: Platform) -> AsyncIterator[Database]:
    made = await Database.connect(platform.postgres_url(), "auth", max_size=8)
    yield made
    await made.close()


@pytest.fixture(scope="module")
def vault() -> Iterator[Vault]:
    with serving() as made:
        yield made


@pytest.fixture(params=["local", "transit"])
def wrapper(request: pytest.FixtureRequest, vault: Vault, tmp_path: Path) -> Wrapper:
    if request.param == "local":
        return LocalWrapper(Sealer.load("", tmp_path / "sealing.key"))
    name = secrets.token_hex(4)
    vault.keys[name] = [os.urandom(32)]
    return TransitWrapper(Transit(client({"VAULT_ADDR": vault.url, "VAULT_TOKEN": ROOT}), name))


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[str]:
    """Somebody of this test's; their keys, which no other wrapper opens, are taken away afterwards."""
    name = f"usr_{secrets.token_hex(8)}"
    yield name
    async with database.connection() as c:
        await c.execute("DELETE FROM data_keys WHERE owner_id LIKE $1", f"{name}%")


async def test_what_is_sealed_opens_for_its_owner_alone(database: Database, wrapper: Wrapper, owner: str) -> None:
    keyring = Keyring(wrapper, SystemClock())
    async with database.transaction() as c:
        sealed = await keyring.seal(c, owner, b"a secret", "totp")
        assert sealed.startswith(MAGIC)
        assert b"a secret" not in sealed
        assert await keyring.seal(c, owner, b"a secret", "totp") != sealed
        assert await Keyring(wrapper, SystemClock()).open(c, owner, sealed, "totp") == b"a secret"
        await keyring.seal(c, f"{owner}2", b"x", "totp")
        for who, about in ((f"{owner}2", "totp"), (owner, "webhook"), (f"{owner}3", "totp")):
            with pytest.raises(Unsealable):
                await keyring.open(c, who, sealed, about)
        for at in range(len(sealed)):
            altered = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
            with pytest.raises(Unsealable):
                await keyring.open(c, owner, altered, "totp")
        for short in (b"", MAGIC, sealed[:8], sealed[:20]):
            with pytest.raises(Unsealable):
                await keyring.open(c, owner, short, "totp")


async def test_keys_are_renewed_and_shredded(database: Database, wrapper: Wrapper, owner: str) -> None:
    keyring = Keyring(wrapper, SystemClock())
    async with database.transaction() as c:
        first = await keyring.seal(c, owner, b"one", "a")
        assert await keyring.renew(c, owner) == 2
        second = await keyring.seal(c, owner, b"two", "a")
        assert await keyring.open(c, owner, first, "a") == b"one"
        assert await keyring.open(c, owner, second, "a") == b"two"
        assert first[:8] != second[:8]
        assert await keyring.shred(c, owner) == 2
        for sealed in (first, second):  # though this keyring had them in memory
            with pytest.raises(Unsealable):
                await keyring.open(c, owner, sealed, "a")
        again = await keyring.seal(c, owner, b"three", "a")
        assert await keyring.open(c, owner, again, "a") == b"three"
        with pytest.raises(Unsealable):
            await keyring.open(c, owner, first, "a")


async def test_of_many_who_seal_first_all_use_one_key(database: Database, wrapper: Wrapper, owner: str) -> None:
    async def seal(n: int) -> bytes:
        keyring = Keyring(wrapper, SystemClock())
        async with database.transaction() as c:
            return await keyring.seal(c, owner, str(n).encode(), "a")

    made = await asyncio.gather(*(seal(n) for n in range(20)))
    async with database.connection() as c:
        keyring = Keyring(wrapper, SystemClock())
        assert [await keyring.open(c, owner, sealed, "a") for sealed in made] == [str(n).encode() for n in range(20)]
        assert await c.fetchval("SELECT count(*) FROM data_keys WHERE owner_id = $1", owner) == 1


async def test_a_new_key_of_the_installation_takes_over(database: Database, tmp_path: Path, owner: str) -> None:
    path = tmp_path / "sealing.key"
    running = Keyring(LocalWrapper(Sealer.load("", path)), SystemClock())
    async with database.transaction() as c:
        await c.execute("DELETE FROM data_keys WHERE owner_id LIKE 'usr_rewrap%'")
        sealed = await running.seal(c, owner, b"x", "a")
    old = path.read_text().strip()
    path.write_text(f"{generate()},{old}\n")
    wrapper = LocalWrapper(Sealer.load("", path))
    keyring, under = Keyring(wrapper, SystemClock()), await wrapper.under()
    async with database.transaction() as c:
        # Only this test's: others' are under keys that it does not know.
        await c.execute("UPDATE data_keys SET under = $1 WHERE owner_id <> $2", under, owner)
        assert (await keyring.count(c))[old_name(old)] == 1
        assert await keyring.rewrap(c) == 1
        assert await keyring.rewrap(c) == 0
        assert old_name(old) not in await keyring.count(c)
    path.write_text(path.read_text().split(",")[0] + "\n")  # without the old one
    async with database.transaction() as c:
        assert await running.open(c, owner, sealed, "a") == b"x"
        alone = Keyring(LocalWrapper(Sealer.load("", path)), SystemClock())
        assert await alone.open(c, owner, sealed, "a") == b"x"


def old_name(text: str) -> str:
    return next(iter(named(text)))


async def test_while_vault_is_sealed_nothing_opens_and_it_is_said(database: Database, vault: Vault, owner: str) -> None:
    vault.keys["away"] = [os.urandom(32)]
    wrapper = TransitWrapper(Transit(client({"VAULT_ADDR": vault.url, "VAULT_TOKEN": ROOT}), "away"))
    keyring = Keyring(wrapper, SystemClock())
    async with database.transaction() as c:
        sealed = await keyring.seal(c, owner, SECRET, "a")
        vault.sealed = True
        try:
            assert await keyring.open(c, owner, sealed, "a") == SECRET  # by what is in memory
            with pytest.raises(Unavailable):
                await Keyring(wrapper, SystemClock()).open(c, owner, sealed, "a")
        finally:
            vault.sealed = False
    # Vault has seen keys, never what they seal.
    assert not [body for _, _, body in vault.asked if base64.b64encode(SECRET).decode() in str(body)]
