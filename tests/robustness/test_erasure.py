"""Case 29: somebody who did everything there is to do is erased, through deaths at steps of it. No trace of them is
left in tables, logs, streams, files or others' exports, and the books and the audit log hold."""

import asyncio
import io
import json
import secrets
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import httpx
import nats
import pytest
from mercat.auth.v1 import auth_pb2, organisation_pb2, privacy_pb2, signin_pb2, sso_pb2, team_pb2
from mercat.billing.v1 import budgets_pb2, payments_pb2, plans_pb2, prices_pb2
from mercat.inference.v1 import inference_pb2
from mercat.marketplace.v1 import collections_pb2, discovery_pb2, marketplace_pb2, reviews_pb2
from mercat.notification.v1 import webhooks_pb2
from mercat.registry.v1 import registry_pb2, transfer_pb2
from mercat.storage.v1 import storage_pb2
from redis import Redis

from services.common.audit_chain import entry_of, verify
from services.common.errors import from_rpc_error
from services.common.events import EVENT_STREAM, JOB_STREAM, USAGE_STREAM
from tests import graphs
from tests.expect import until
from tests.integration.signin.people import Member
from tests.platform import PASSWORD, USD, Account, Platform
from tests.webhook_receiver import receiver

pytestmark = pytest.mark.case

# Files of a database or broker, in which what was deleted lies until it is written over, are looked into through them.
THROUGH = ("postgres", "nats", "valkey", "secrets", "run", "tls", "connection.json")


@dataclass
class Marked:
    """A person each of whose words is like nothing else."""

    word: str

    @property
    def email(self) -> str:
        return f"{self.word}mail@example.com"

    @property
    def handle(self) -> str:
        return f"{self.word}handle"

    def forms(self) -> list[bytes]:
        """What to look for: the word in any case, and in hex as tables show bytes."""
        return [self.word.encode(), self.word.upper().encode(), self.word.encode().hex().encode()]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One whose processes die at each step of an erasure, once; mail goes into its folder."""
    env = {
        "MERCAT_FAILPOINTS": "export.part=2,erasure.part=3,erasure.finish=1", "MERCAT_AUDIT_HEAD_SECONDS": "0.5",
        "MERCAT_LEASE_SECONDS": "5", "MERCAT_LOG_LEVEL": "DEBUG", "MERCAT_EGRESS_NETWORKS": "127.0.0.0/8",
    }  # fmt: skip
    with Platform(tmp_path_factory.mktemp("erasure") / "home", env=env) as running:
        yield running


def quietly(call: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except (grpc.RpcError, httpx.HTTPError):
        return None


def live(platform: Platform, person: Marked, others: Account, theirs: str, team: Account) -> Member:
    """Leaves traces everywhere a person can. `theirs`: a model of somebody else's."""
    word = person.word
    signup = {
        "email": person.email, "username": person.handle, "password": PASSWORD, "role": "ROLE_PUBLISHER",
        "displayName": f"{word} name",
    }  # fmt: skip
    # From an address of their own, with a program of their own.
    transport = httpx.HTTPTransport(local_address="127.77.66.55")
    agent = {"user-agent": f"{word}-agent/1"}
    with httpx.Client(base_url=platform.rest, transport=transport, headers=agent, timeout=30) as client:
        signed = client.post("/v1/signup", json=signup).json()
        client.post("/v1/signup", json=signup)  # once more: refused by the database
        client.post("/v1/signin", json={"email": person.email, "password": f"{word} wrong"})
        client.post("/v1/signin", json={"email": person.email, "password": PASSWORD})
        client.post("/v1/password:requestReset", json={"email": person.email})
        client.headers["authorization"] = f"Bearer {signed['session']['accessToken']}"
        client.post("/v1/keys", json={"name": f"{word} key"})
        client.get("/v1/me")
    session = auth_pb2.Session(
        access_token=signed["session"]["accessToken"], refresh_token=signed["session"]["refreshToken"]
    )
    member = Member(platform, person.email, session, auth_pb2.Profile(user_id=signed["profile"]["userId"]))
    account = member.account
    member.profile.CopyFrom(account.auth.GetProfile(auth_pb2.GetProfileRequest()).profile)
    account = member.account
    # A model that others call, with words of theirs.
    model = platform.publish(account, graphs.tiny(), "perceptron", price={"requests": 10**12})
    account.registry.UpdateModel(registry_pb2.UpdateModelRequest(model=model, description=f"by {word}", tags=[word]))
    inputs = [inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))]
    predict = inference_pb2.PredictRequest(model=model, inputs=inputs)
    others.inference.Predict(predict)
    others.budgets.SetBudget(
        budgets_pb2.SetBudgetRequest(name="theirs", model=model, period=budgets_pb2.BUDGET_PERIOD_MONTHLY,
                                        limit_nanos=100 * USD)
    )  # fmt: skip
    others.budgets.SetBudget(
        budgets_pb2.SetBudgetRequest(name="told", model=model, period=budgets_pb2.BUDGET_PERIOD_DAILY, limit_nanos=1,
                                        notify_only=True, thresholds=[1])
    )  # fmt: skip
    account.prices.SetDiscount(
        prices_pb2.SetDiscountRequest(org_id=others.profile.org_id, model=model, discount_ppm=1000)
    )
    others.inference.Predict(predict)
    # Money, cards, plans, budgets.
    account.top_up(20 * USD)
    account.payments.AttachPaymentMethod(payments_pb2.AttachPaymentMethodRequest(payment_method="pm_card_visa"))
    account.plans.ChangePlan(plans_pb2.ChangePlanRequest(plan_id="pro"))
    account.budgets.SetBudget(
        budgets_pb2.SetBudgetRequest(name=f"{word}-budget", period=budgets_pb2.BUDGET_PERIOD_MONTHLY,
                                        limit_nanos=USD)
    )  # fmt: skip
    # Calls with tags, and a job.
    account.inference.Predict(predict, metadata=[("mercat-tag", f"by={word}")])
    account.jobs.CreateJob(inference_pb2.CreateJobRequest(predict=predict))
    # Organisations: one that is theirs alone, one of others that they are in.
    account.organisations.CreateOrganisation(
        organisation_pb2.CreateOrganisationRequest(handle=f"{word}org", display_name=f"{word} inc")
    )
    code = team.invitations.CreateInvitation(
        organisation_pb2.CreateInvitationRequest(email=person.email, role="developer")
    ).code
    account.invitations.AcceptInvitation(organisation_pb2.AcceptInvitationRequest(code=code))
    transport = httpx.HTTPTransport(local_address="127.77.66.55")
    with httpx.Client(base_url=platform.rest, transport=transport, headers=agent, timeout=30) as client:
        again = client.post("/v1/signin", json={"email": person.email, "password": PASSWORD}).json()["session"]
        into = {"refreshToken": again["refreshToken"], "organisation": team.profile.organisation}
        there = client.post("/v1/sessions:refresh", json=into).json()["session"]["accessToken"]
        made = client.post("/v1/keys", json={"name": f"{word} there"}, headers={"authorization": f"Bearer {there}"})
        assert made.status_code == 200, made.text
    elsewhere = platform.organisation(platform.sign_up())  # an invitation that is never answered
    elsewhere.invitations.CreateInvitation(organisation_pb2.CreateInvitationRequest(email=person.email, role="viewer"))
    quietly(member.passwords.SendVerification, signin_pb2.SendVerificationRequest())
    account.email = person.email
    take_part(person, account, theirs, others, model)
    hear(person, account)
    keep(platform, person, account, others, team)
    return member


def review(account: Account, model: str, comment: str) -> str:
    """Of a model that they have called; its id."""
    request = reviews_pb2.WriteReviewRequest(model=model, version="1.0.0", rating=2, comment=comment)
    until(lambda: quietly(account.reviews.WriteReview, request))
    return str(account.reviews.WriteReview(request).review.review_id)


def take_part(person: Marked, account: Account, theirs: str, others: Account, model: str) -> None:
    """In the storefront: with a model of others (`theirs`), while others do with theirs."""
    word = person.word
    inputs = [inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))]
    account.inference.Predict(inference_pb2.PredictRequest(model=theirs, inputs=inputs))
    review(account, theirs, f"{word} thinks little of it")
    review(account, theirs, f"{word} thinks again")
    reply = reviews_pb2.ReplyToReviewRequest(review_id=review(others, model, "good"), comment=f"{word} says thanks")
    account.reviews.ReplyToReview(reply)
    report = reviews_pb2.ReportReviewRequest(review_id=reply.review_id, reason=f"{word} finds it short")
    account.reviews.ReportReview(report)
    for who, of in ((account, theirs), (others, model)):
        made = who.collections.CreateCollection(
            collections_pb2.CreateCollectionRequest(title=f"{word} picks" if who is account else "picks")
        ).collection
        who.collections.AddToCollection(
            collections_pb2.AddToCollectionRequest(collection_id=made.collection_id, model=of)
        )
        who.collections.AddFavourite(collections_pb2.AddFavouriteRequest(model=of))
        publisher = of.partition("/")[0]
        who.collections.FollowPublisher(collections_pb2.FollowPublisherRequest(publisher=publisher))
    account.discovery.SetDiscoveryPreferences(discovery_pb2.SetDiscoveryPreferencesRequest(recommendations_off=True))


def hear(person: Marked, account: Account) -> None:
    """By webhooks: one endpoint that takes what comes, and one that is gone."""
    with receiver() as there:
        there.answers[f"/{person.word}-gone"] = 410
        for path in (f"/{person.word}", f"/{person.word}-gone"):
            request = webhooks_pb2.CreateWebhookEndpointRequest(url=there.url(path), description=f"of {person.word}")
            made = account.webhooks.CreateWebhookEndpoint(request).endpoint
            account.webhooks.SendTestEvent(webhooks_pb2.SendTestEventRequest(endpoint_id=made.endpoint_id))
            there.wait(path)
        get = webhooks_pb2.GetWebhookEndpointRequest(endpoint_id=made.endpoint_id)
        until(lambda: not account.webhooks.GetWebhookEndpoint(get).endpoint.enabled)


def keep(platform: Platform, person: Marked, account: Account, others: Account, team: Account) -> None:
    """Files, versions with files beside them, a model that has moved and one that is offered; teams and a domain."""
    word = person.word
    upload = storage_pb2.CreateUploadRequest(filename=f"{word}.onnx", size_bytes=10, metadata=f"of {word}")
    account.storage.CreateUpload(upload)
    card = registry_pb2.VersionFile(
        name="README.md", role=registry_pb2.FILE_ROLE_CARD, digest=platform.upload(account, f"# {word}\n".encode())
    )
    for name in ("moved", "offered"):
        account.registry.CreateModel(
            registry_pb2.CreateModelRequest(name=name, summary="s", category="other", task="test", license="MIT")
        )
        model = f"{person.handle}/{name}"
        account.registry.CreateVersion(
            registry_pb2.CreateVersionRequest(
                model=model, version="1.0.0", digest=platform.upload(account, graphs.tiny()),
                files=[card] if name == "offered" else [],
            )
        )  # fmt: skip
        platform.until_validated(account, model, "1.0.0")
        offer = transfer_pb2.TransferModelRequest(model=model, organisation=others.profile.organisation)
        transfer = account.transfers.TransferModel(offer).transfer
        if name == "moved":
            accept = transfer_pb2.AcceptModelTransferRequest(transfer_id=transfer.transfer_id)
            others.transfers.AcceptModelTransfer(accept)
    inc = platform.session(account, f"{word}org")
    inc.teams.CreateTeam(team_pb2.CreateTeamRequest(name=f"{word}team"))
    inc.organisations.SetRole(organisation_pb2.SetRoleRequest(name=f"{word}role", scopes=["usage:read"]))
    inc.sso.AddSsoDomain(sso_pb2.AddSsoDomainRequest(domain=f"{word}.example.com"))
    made = team.teams.CreateTeam(team_pb2.CreateTeamRequest(name="everybody")).team
    member = team_pb2.AddTeamMemberRequest(team_id=made.team_id, user_id=account.profile.user_id)
    team.teams.AddTeamMember(member)


async def tables(url: str, forms: list[bytes]) -> dict[str, list[str]]:
    """Every row of every table in which one of the forms is."""
    connection, found = await asyncpg.connect(url), {}
    try:
        names = await connection.fetch(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        for name in (row["name"] for row in names):
            rows = [row[0] for row in await connection.fetch(f"SELECT t::text FROM {name} t")]
            hits = [row for row in rows if any(form.decode() in row for form in forms)]
            if hits:
                found[name] = hits[:3]
    finally:
        await connection.close()
    return found


async def messages(url: str, forms: list[bytes]) -> list[str]:
    client, found = await nats.connect(url), []
    js = client.jetstream()
    for stream in (EVENT_STREAM, JOB_STREAM, USAGE_STREAM):
        state = (await js.stream_info(stream)).state
        for sequence in range(state.first_seq, state.last_seq + 1):
            try:
                message = await js.get_msg(stream, sequence)
            except nats.js.errors.NotFoundError:
                continue
            data = (message.data or b"") + str(message.headers).encode()
            if any(form in data for form in forms):
                found.append(f"{stream} {sequence} {message.subject}: {data!r}"[:300])
    await client.close()
    return found


def files(home: Path, forms: list[bytes]) -> list[str]:
    found = []
    for path in [*home.rglob("*"), home.parent / f"{home.name}.up.log"]:
        inside = path.relative_to(home.parent).parts[1:]
        if not path.is_file() or (inside and inside[0] in THROUGH):
            continue
        data = path.read_bytes()
        found += (
            [str(path.relative_to(home.parent))]
            if any(form in data or form in str(path).encode() for form in forms)
            else []
        )
    return found


def keys(url: str, forms: list[bytes]) -> list[str]:
    redis = Redis.from_url(url)
    try:
        return [
            str(key) for key in redis.scan_iter(count=1000)
            if any(form in key + (redis.dump(key) or b"") for form in forms)
        ]  # fmt: skip
    finally:
        redis.close()


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


async def test_a_person_is_erased(own: Platform) -> None:
    person = Marked(f"zq{secrets.token_hex(8)}")
    forms = person.forms()
    others = own.sign_up(auth_pb2.ROLE_PUBLISHER, credit=100 * USD)
    theirs = own.publish(own.publisher(), graphs.tiny(), "adder")
    listing = marketplace_pb2.GetListingRequest(model=theirs)
    team = own.organisation(own.sign_up())
    member = live(own, person, others, theirs, team)
    await asyncio.sleep(3)  # for outboxes and consumers
    # The search finds what is there.
    before = await tables(own.postgres_url(), forms)
    assert {"auth.users", "auth.sessions", "auth.audit_logs", "registry.models", "usage.usage_records",
            "billing.prices", "billing.budgets", "billing.discounts", "marketplace.listings", "inference.jobs",
            "marketplace.reviews", "marketplace.review_edits", "marketplace.review_reports", "marketplace.collections",
            "marketplace.collection_models", "marketplace.favourites", "marketplace.follows",
            "marketplace.listing_changes", "marketplace.publications", "marketplace.model_latencies",
            "notification.webhook_endpoints", "auth.teams", "auth.sso_domains", "registry.model_addresses",
            "storage.uploads"} <= before.keys()  # fmt: skip
    told = f"SELECT count(*) FROM notification.webhook_events WHERE org_id = '{others.profile.org_id}'"
    assert own.value(f"{told} AND body LIKE '%{person.handle}/%'")
    assert own.anonymous.marketplace.GetListing(listing).listing.review_count == 1
    assert own.value(
        "SELECT count(*) FROM notification.data_keys k JOIN auth.organisations o ON o.id = k.owner_id"
        f" WHERE o.handle = '{person.handle}'"
    )
    assert {"auth.audit_logs", "notification.webhook_events"} <= (
        await tables(own.postgres_url(), [b"127.77.66.55"])
    ).keys()
    assert await messages(own.nats_url(), forms)
    assert any(name.startswith("home/mail/") for name in files(own.home, forms))

    # They are given everything first.
    account = member.again().account
    org_id = own.value(f"SELECT id FROM auth.organisations WHERE handle = '{person.handle}'")
    archive = export_of(account)
    manifest = json.loads(archive.read("manifest.json"))
    listed = {entry["name"]: entry for entry in manifest["files"]}
    assert set(listed) | {"manifest.json"} == set(archive.namelist())
    for name in ("auth/profile.jsonl", "auth/api_keys.jsonl", "auth/audit_entries.jsonl", "registry/models.jsonl",
                 "usage/usage_records.jsonl", "billing/ledger_entries.jsonl", "inference/jobs.jsonl",
                 "auth/roles.jsonl", "auth/teams.jsonl", "auth/team_memberships.jsonl", "auth/sso_domains.jsonl",
                 "registry/version_files.jsonl", "registry/model_transfers.jsonl", "storage/uploads.jsonl",
                 "billing/discounts.jsonl", "billing/prices.jsonl", "marketplace/reviews.jsonl",
                 "marketplace/replies_to_reviews.jsonl", "marketplace/reports_of_reviews.jsonl",
                 "marketplace/collections.jsonl", "marketplace/favourites.jsonl", "marketplace/follows.jsonl",
                 "marketplace/preferences.jsonl", "notification/webhook_endpoints.jsonl",
                 "notification/webhook_events.jsonl", "notification/webhook_deliveries.jsonl"):  # fmt: skip
        lines = archive.read(name).splitlines()
        assert len(lines) == listed[name]["lines"] > 0, name
        assert all(isinstance(json.loads(line), dict) for line in lines)
    everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"password_hash" not in everything
    assert b"key_hash" not in everything
    assert b'secret"' not in everything.replace(b'"has_secret"', b"")
    assert theirs.encode() in archive.read("marketplace/favourites.jsonl")

    # Money stands in the way until it is given up.
    deletion = account.privacy.GetDeletion(privacy_pb2.GetDeletionRequest()).deletion
    assert set(deletion.organisations) == {person.handle, f"{person.word}org"}
    wrong = privacy_pb2.DeleteAccountRequest(username="somebody", forfeit=True)
    assert reason(account.privacy.DeleteAccount, wrong) == "INVALID_FIELDS"
    asked = privacy_pb2.DeleteAccountRequest(username=person.handle)
    assert reason(account.privacy.DeleteAccount, asked) == "ACCOUNT_HOLDS_MONEY"
    asked.forfeit = True
    erasure_id = account.privacy.DeleteAccount(asked).erasure_id
    assert reason(account.auth.GetProfile, auth_pb2.GetProfileRequest()) == "CREDENTIAL_INVALID"
    until_erased(own, erasure_id)

    # Nothing is left of them.
    assert await tables(own.postgres_url(), forms) == {}
    assert await tables(own.postgres_url(), [b"127.77.66.55"]) == {}
    assert await messages(own.nats_url(), [*forms, b"127.77.66.55"]) == []
    assert files(own.home, forms) == []
    assert keys(own.redis_url(), forms) == []
    given = export_of(own.session(others))
    assert not any(form in given.read(name) for name in given.namelist() for form in forms)
    # What others have is theirs still, and adds up.
    assert own.value(f"SELECT count(*) FROM notification.data_keys WHERE owner_id = '{org_id}'") == 0
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
    key = team.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="auditor")).secret
    verified = own.command("audit", "verify", "--json", MERCAT_API_KEY=key)
    assert json.loads(verified.stdout)["intact"], verified
    admin = own.admin()
    assert not admin.check_ledger().discrepancies
    key = admin.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="books")).secret
    proven = own.command("ledger", "prove", "--json", MERCAT_API_KEY=key)
    assert proven.returncode == 0, proven
