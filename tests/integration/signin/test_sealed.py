"""Secrets of second factors at rest: under keys of their owners, those from before too, replaced and shredded."""

import json
import secrets
import time
from collections.abc import Iterator

import asyncpg
import grpc
import pytest
from mercat.auth.v1 import auth_pb2, keys_pb2

from services.common.errors import from_rpc_error
from services.common.sealing import Sealer
from services.common.secrets.keyring import MAGIC
from services.common.signatures import HMAC_SHA256, Signer
from tests.expect import fails
from tests.integration.signin.people import Mailbox, Member, code_of, enrolled, move, now
from tests.platform import PASSWORD, Account, Platform


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
    used = code_of(own, secret)
    person.again(code=used)

    # As they lay before there were keys of each person.
    sealer = Sealer.load("", own.home / "secrets" / "sealing.key")
    first = sealer.newest
    before = sealer.seal(secret.encode(), f"totp:{person.profile.user_id}")
    connection = await asyncpg.connect(own.postgres_url())
    await connection.execute(
        "UPDATE auth.totp_factors SET sealed_secret = $2 WHERE user_id = $1", person.profile.user_id, before
    )
    await connection.close()
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


async def test_what_lay_under_the_keys_of_the_installation_is_sealed_anew(own: Platform, mailbox: Mailbox) -> None:
    """Secrets of signing keys, and mail on its way."""
    person, _, _ = enrolled(own)
    made = person.account.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="signs"))
    request = keys_pb2.CreateSigningKeyRequest(
        key_id=made.api_key.key_id, algorithm=auth_pb2.SIGNATURE_ALGORITHM_HMAC_SHA256
    )
    signing = person.account.keys.CreateSigningKey(request)
    signing_id = signing.signing_key.signing_key_id
    rules = auth_pb2.KeyRules(require_signature=True)
    person.account.keys.UpdateApiKey(keys_pb2.UpdateApiKeyRequest(key_id=made.api_key.key_id, rules=rules))
    connection = await asyncpg.connect(own.postgres_url())
    query = "SELECT sealed_secret FROM auth.signing_keys WHERE id = $1"
    assert bytes(await connection.fetchval(query, signing_id)).startswith(MAGIC)
    sealer, mail_id = Sealer.load("", own.home / "secrets" / "sealing.key"), "mail_before"
    before = sealer.seal(signing.secret, signing_id)
    await connection.execute("UPDATE auth.signing_keys SET sealed_secret = $2 WHERE id = $1", signing_id, before)
    address, code = f"{secrets.token_hex(6)}@example.com", secrets.token_hex(8)
    sealed = sealer.seal(json.dumps([address, {"username": "ada", "code": code}]).encode(), mail_id)
    await connection.execute(
        "INSERT INTO auth.mails (id, kind, sealed, due_at, expires_at)"
        " VALUES ($1, 'verify_email', $2, now() - interval '1 hour', now() + interval '2 days')", mail_id, sealed,
    )  # fmt: skip
    assert "2 rows" in own.command("secrets", "status").stdout
    assert own.command("restart", "control").returncode == 0
    assert code in mailbox.to(address)[0].get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert bytes(await connection.fetchval(query, signing_id)).startswith(MAGIC)
    # It signs as before, and is gone with its owner's keys.
    signer = Signer(signing_id, HMAC_SHA256, signing.secret)
    key = Account(own, made.secret)
    assert signed(key, signer) == ""
    own.command("secrets", "shred", person.profile.user_id, "--yes")
    time.sleep(5)  # for which others trust what they know
    assert signed(key, signer) == "SIGNATURE_INVALID"
    await connection.close()


def signed(key: Account, signer: Signer) -> str:
    """The reason that a signed call is refused for."""
    request = auth_pb2.GetProfileRequest()
    path, at = "/mercat.auth.v1.AuthService/GetProfile", int(now(key.platform))
    headers = signer.headers("POST", key.platform.grpc, path, request.SerializeToString(), now=at)
    try:
        key.auth.GetProfile(request, metadata=list(headers.items()))
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""
