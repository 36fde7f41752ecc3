"""Case 29: somebody who did everything there is to do is erased, through deaths at steps of it. No trace of them is
left in tables, logs, streams, files or others' exports, and the books and the audit log hold."""

import asyncio
import hashlib
import io
import json
import secrets
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import asyncpg
import grpc
import pytest
from mercat.auth.v1 import auth_pb2, privacy_pb2
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2

from services.common.audit_chain import entry_of, verify
from services.common.errors import from_rpc_error
from tests import graphs
from tests.integration.signin.elsewhere import Elsewhere
from tests.integration.signin.people import Member
from tests.platform import PASSWORD, USD, Account, Platform
from tests.robustness import publishing, traces
from tests.robustness.living import (
    PLACE,
    SECRET,
    Marked,
    add_second_factor,
    arrive,
    earn,
    join,
    pay,
    quietly,
    sign_in_otherwise,
    there,
)

pytestmark = pytest.mark.case

# Files of their export that have no line: a loss takes a payment that the payer's bank takes back after it was spent.
EMPTY = {"billing/losses.jsonl"}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    places = Elsewhere()
    yield places
    places.stop()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, elsewhere: Elsewhere) -> Iterator[Platform]:
    """One whose processes die at each step of an erasure, once; mail goes into its folder."""
    env = elsewhere.settings | {
        "MERCAT_FAILPOINTS": "export.part=2,erasure.part=3,erasure.finish=1", "MERCAT_AUDIT_HEAD_SECONDS": "0.5",
        "MERCAT_LEASE_SECONDS": "5", "MERCAT_LOG_LEVEL": "DEBUG", "MERCAT_EGRESS_NETWORKS": "127.0.0.0/8",
        "MERCAT_RECOMMENDATIONS_EVERY": "0.5", "MERCAT_SSO_PRIVATE_NETWORKS": "true",
        "MERCAT_TEST_CLOCK": "true", "MERCAT_PAYOUT_MINIMUM": "0.01",
    }  # fmt: skip
    with Platform(tmp_path_factory.mktemp("erasure") / "home", env=env) as running:
        yield running


def export_of(account: Account) -> zipfile.ZipFile:
    made = account.privacy.CreateExport(privacy_pb2.CreateExportRequest()).export
    deadline = time.monotonic() + 60
    while made.state != privacy_pb2.Export.STATE_READY:
        assert time.monotonic() < deadline, made
        time.sleep(0.2)
        # Its process may be dead just now.
        got = quietly(account.privacy.GetExport, privacy_pb2.GetExportRequest(export_id=made.export_id))
        made = got.export if got is not None else made
    download = privacy_pb2.DownloadExportRequest(export_id=made.export_id)
    return zipfile.ZipFile(io.BytesIO(b"".join(m.chunk.data for m in account.privacy.DownloadExport(download))))


def live(
    platform: Platform, person: Marked, others: Account, theirs: str, team: Account, elsewhere: Elsewhere
) -> tuple[Member, list[str]]:
    """Leaves traces everywhere a person can; with recovery codes. `theirs`: a model of somebody else's."""
    member = arrive(platform, person)
    model = publishing.publish(platform, person, member.account, others)
    earn(platform, person, member.account, others, model)
    member = member.again()  # nothing that lasts for less than that month is of before
    account, team = member.account, platform.session(team, team.profile.organisation)
    sign_in_otherwise(platform, person, member, elsewhere)
    pay(platform, person, account, others, model)
    join(platform, person, account, team, elsewhere)
    publishing.take_part(platform, person, account, theirs, others, model)
    publishing.hear(person, account)
    publishing.keep(platform, person, account, others)
    publishing.ask_and_answer(person, account, theirs, others, model)
    recovery = add_second_factor(platform, member)
    with there(platform, person) as client:
        client.post("/v1/signin", json={"email": person.email, "password": f"{person.word} wrong"})
    return member, recovery


async def plant(url: str, person: Marked, user_id: str) -> None:
    """What takes a browser with a device, or an engine that dies."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO auth.passkeys (id, user_id, credential_id, public_key, sign_count, name, synced, created_at)"
            " VALUES ('psk_' || $1, $2, convert_to($1, 'UTF8'), '', 0, $1 || ' laptop', false, now())",
            person.word, user_id,
        )  # fmt: skip
        await connection.execute(
            "INSERT INTO registry.crashes (id, version_id, worker_id, created_at)"
            " SELECT 'crs_' || $1, v.id, 'worker-0', now() FROM registry.versions v"
            " JOIN registry.models m ON m.id = v.model_id WHERE m.publisher = $2 LIMIT 1",
            person.word, person.handle,
        )  # fmt: skip
    finally:
        await connection.close()


def reason(call: Any, request: Any) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    return from_rpc_error(caught.value).reason


def until_erased(platform: Platform, erasure_id: str) -> None:
    deadline = time.monotonic() + 150
    request = privacy_pb2.GetErasureRequest(erasure_id=erasure_id)
    found = None
    while time.monotonic() < deadline:
        try:
            found = platform.anonymous.privacy.GetErasure(request).erasure
        except grpc.RpcError:  # its process is dead just now
            time.sleep(0.5)
            continue
        if found.done:
            return
        time.sleep(0.5)
    raise TimeoutError(f"{found}\n{platform.log()}")


async def chains(platform: Platform) -> dict[str, list[str]]:
    """What is wrong with each chain of the audit log, by its rows."""
    connection = await asyncpg.connect(platform.postgres_url())
    try:
        rows = await connection.fetch("SELECT * FROM auth.audit_logs WHERE chain IS NOT NULL ORDER BY chain, sequence")
    finally:
        await connection.close()
    by_chain: dict[str, list[Any]] = {}
    for row in rows:
        by_chain.setdefault(row["chain"], []).append(entry_of(row))
    return {chain: verify(chain, entries, []).problems for chain, entries in by_chain.items()}


async def test_a_person_is_erased(own: Platform, elsewhere: Elsewhere) -> None:
    person = Marked(f"zq{secrets.token_hex(8)}")
    forms = person.forms()
    others = own.sign_up(auth_pb2.ROLE_PUBLISHER, credit=100 * USD)
    theirs = own.publish(own.publisher(), graphs.tiny(), "adder")
    listing = marketplace_pb2.GetListingRequest(model=theirs)
    team = own.organisation(own.sign_up())
    auditor = team.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="auditor")).secret
    member, recovery = live(own, person, others, theirs, team, elsewhere)
    org_id = member.profile.org_id
    await plant(own.postgres_url(), person, member.profile.user_id)
    await asyncio.sleep(3)  # for outboxes and consumers

    # There is something of theirs wherever an erasure looks, and the search finds it.
    failed = hashlib.sha256(person.email.encode()).hexdigest()  # sign-ins
    names = [person.word, member.profile.user_id, org_id, failed]
    assert await traces.unfilled(own.postgres_url(), names) == set()
    told = f"SELECT count(*) FROM notification.webhook_events WHERE org_id = '{others.profile.org_id}'"
    assert own.value(f"{told} AND body LIKE '%{person.handle}/%'")
    assert own.value(f"{told} AND body LIKE '%{person.word} asks%'")
    assert own.anonymous.marketplace.GetListing(listing).listing.review_count == 1
    owned = f"SELECT count(*) FROM notification.data_keys WHERE owner_id = '{org_id}'"
    assert own.value(owned)
    assert {"auth.audit_logs", "notification.webhook_events"} <= (
        await traces.tables(own.postgres_url(), [PLACE.encode()])
    ).keys()
    assert await traces.messages(own.nats_url(), forms)
    assert any(name.startswith("home/mail/") for name in traces.files(own.home, forms))
    assert any(person.handle in found for found in traces.index(own.home, forms))

    # They are given everything first.
    account = member.again(code=recovery[0]).account
    archive = export_of(account)
    manifest = json.loads(archive.read("manifest.json"))
    listed = {entry["name"]: entry for entry in manifest["files"]}
    assert set(listed) | {"manifest.json"} == set(archive.namelist())
    assert {name for name, entry in listed.items() if not entry["lines"]} == EMPTY
    for name, entry in listed.items():
        lines = archive.read(name).splitlines()
        assert len(lines) == entry["lines"], name
        assert all(isinstance(json.loads(line), dict) for line in lines)
    everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"password_hash" not in everything
    assert b"key_hash" not in everything
    assert b'secret"' not in everything.replace(b'"has_secret"', b"").replace(b'"client_secret": "[secret]"', b"")
    assert SECRET.encode() not in everything
    assert theirs.encode() in archive.read("marketplace/favourites.jsonl")
    assert any("exports/" in name for name in traces.files(own.home, forms))

    # Money stands in the way until it is given up.
    deletion = account.privacy.GetDeletion(privacy_pb2.GetDeletionRequest()).deletion
    assert set(deletion.organisations) == {person.handle, person.organisation}
    wrong = privacy_pb2.DeleteAccountRequest(username="somebody", forfeit=True)
    assert reason(account.privacy.DeleteAccount, wrong) == "INVALID_FIELDS"
    asked = privacy_pb2.DeleteAccountRequest(username=person.handle)
    assert reason(account.privacy.DeleteAccount, asked) == "ACCOUNT_HOLDS_MONEY"
    asked.forfeit = True
    erasure_id = account.privacy.DeleteAccount(asked).erasure_id
    assert reason(account.auth.GetProfile, auth_pb2.GetProfileRequest()) == "CREDENTIAL_INVALID"
    until_erased(own, erasure_id)

    # Nothing is left of them.
    place = PLACE.encode()
    assert await traces.tables(own.postgres_url(), forms) == {}
    assert await traces.tables(own.postgres_url(), [place]) == {}
    assert await traces.messages(own.nats_url(), [*forms, place]) == []
    assert traces.files(own.home, [*forms, place]) == []
    assert traces.index(own.home, forms) == []
    assert traces.keys(own.redis_url(), [*forms, place]) == []
    given = export_of(own.session(others))
    assert not any(form in given.read(name) for name in given.namelist() for form in forms)
    # What others have is theirs still, and adds up.
    assert own.value(owned) == 0
    assert own.value(f"{told} AND body LIKE '%/perceptron%'")
    assert own.anonymous.marketplace.GetListing(listing).listing.review_count == 0
    moved = registry_pb2.GetVersionRequest(model=f"{others.profile.organisation}/moved", version="1.0.0")
    download = storage_pb2.DownloadArtifactRequest(digest=others.registry.GetVersion(moved).version.digest)
    assert b"".join(m.chunk.data for m in others.storage.DownloadArtifact(download)) == graphs.tiny()

    # Nobody takes their place; their address is free.
    again = auth_pb2.SignUpRequest(
        email=f"{secrets.token_hex(4)}@example.com", username=person.handle, password=PASSWORD
    )
    assert reason(own.anonymous.auth.SignUp, again) == "HANDLE_QUARANTINED"

    # The audit log and the books hold.
    assert {chain: found for chain, found in (await chains(own)).items() if found} == {}
    assert "tampered" not in own.log()
    verified = own.command("audit", "verify", "--json", MERCAT_API_KEY=auditor)
    assert json.loads(verified.stdout)["intact"], verified
    admin = own.admin()
    assert not admin.check_ledger().discrepancies
    key = admin.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="books")).secret
    proven = own.command("ledger", "prove", "--from", "1d", "--json", MERCAT_API_KEY=key)  # of the command's own clock
    assert proven.returncode == 0, proven
