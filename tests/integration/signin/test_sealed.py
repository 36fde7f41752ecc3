"""Secrets of second factors at rest: under keys of their owners, those from before too, replaced and shredded."""

import time
from collections.abc import Iterator

import asyncpg
import pytest
from mercat.auth.v1 import auth_pb2

from services.common.sealing import Sealer
from services.common.secrets.keyring import MAGIC
from tests.integration.signin.people import Mailbox, Member, code_of, enrolled, fails, move
from tests.platform import PASSWORD, Platform


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, mailbox: Mailbox) -> Iterator[Platform]:
    """A platform whose keys are replaced."""
    with Platform(tmp_path_factory.mktemp("sealed") / "home", env=mailbox.settings) as running:
        yield running


async def stored(platform: Platform, person: Member) -> bytes:
    connection = await asyncpg.connect(platform.postgres_url())
    try:
        query = "SELECT sealed_secret FROM auth.totp_factors WHERE user_id = $1"
        return bytes(await connection.fetchval(query, person.profile.user_id))
    finally:
        await connection.close()


def refused(platform: Platform, person: Member, code: str) -> str:
    request = auth_pb2.SignInRequest(email=person.email, password=PASSWORD, code=code)
    return fails(platform.anonymous.auth.SignIn, request).reason


def eventually(platform: Platform, text: str) -> None:
    """Until `mercat secrets status` says so: mail on its way lies under the key too, and goes."""
    deadline = time.monotonic() + 20
    while text not in (said := platform.command("secrets", "status").stdout):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


async def test_the_story_of_a_key(own: Platform) -> None:
    person, secret, recovery = enrolled(own)
    assert (await stored(own, person)).startswith(MAGIC)

    # As they lay before there were keys of each person.
    sealer = Sealer.load("", own.home / "secrets" / "sealing.key")
    first = sealer.newest
    before = sealer.seal(secret.encode(), f"totp:{person.profile.user_id}")
    connection = await asyncpg.connect(own.postgres_url())
    await connection.execute(
        "UPDATE auth.totp_factors SET sealed_secret = $2 WHERE user_id = $1", person.profile.user_id, before
    )
    await connection.close()
    used = code_of(own, secret)
    person.again(code=used)
    eventually(own, f"{first} (newest): 1 data keys, 1 rows")
    assert own.command("restart", "control").returncode == 0
    assert (await stored(own, person)).startswith(MAGIC)
    assert refused(own, person, used) == "SECOND_FACTOR_WRONG"
    move(own, minutes=2)
    person.again(code=code_of(own, secret))

    # Another key of the installation, while control goes on with the one before in memory.
    rotated = own.command("secrets", "rotate")
    assert rotated.stdout.startswith("1 data keys are under "), rotated
    newest = Sealer.load("", own.home / "secrets" / "sealing.key").newest
    assert newest != first
    other, other_secret, other_recovery = enrolled(own)
    other.again(code=code_of(own, other_secret))
    eventually(own, f"{newest} (newest): 2 data keys, 0 rows")
    assert own.command("secrets", "retire").stdout.strip() == f"Removed: {first}."
    assert own.command("secrets", "retire").stdout.strip() == "None can be removed."
    assert (own.home / "secrets" / "sealing.key").stat().st_mode & 0o777 == 0o600
    assert own.command("restart", "control").returncode == 0
    move(own, minutes=2)
    other.again(code=code_of(own, other_secret))

    # Somebody is erased: their secret is not readable any more, though the row lies there.
    shredded = own.command("secrets", "shred", person.profile.user_id, "--yes")
    assert shredded.stdout.strip() == f"1 keys of {person.profile.user_id} are gone."
    assert refused(own, person, code_of(own, secret)) == "SECOND_FACTOR_WRONG"
    person.again(code=recovery[0])
    other.again(code=other_recovery[0])


def test_a_key_that_others_can_read_stops_the_start(own: Platform) -> None:
    key_file = own.home / "secrets" / "sealing.key"
    key_file.chmod(0o644)
    try:
        said = own.command("secrets", "status")
        assert (said.returncode, "chmod 600" in said.stderr) == (1, True)
        assert "Traceback" not in said.stderr
    finally:
        key_file.chmod(0o600)
