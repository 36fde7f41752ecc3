"""The audit log: what is in it, and that whoever changes it in the database is found out (by a superuser's SQL)."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import httpx
import psutil
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from mercat.auth.v1 import audit_pb2 as pb
from mercat.auth.v1 import auth_pb2, organisation_pb2

from services.common import audit_chain
from services.common.errors import from_rpc_error
from tests.platform import PASSWORD, Platform

ALL = pb.ListAuditEntriesRequest(page_size=1000, oldest_first=True)


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of these tests' own, which signs often."""
    home = tmp_path_factory.mktemp("audit") / "home"
    with Platform(home, env={"MERCAT_AUDIT_HEAD_SECONDS": "0.3", "MERCAT_TEST_CLOCK": "true",
                             "MERCAT_AUDIT_DAYS": "30", "MERCAT_AUDIT_DETAILS_DAYS": "10"}) as running:  # fmt: skip
        yield running


class Log:
    """An organisation's audit log, by the command line as an auditor uses it and by SQL as an attacker does."""

    def __init__(self, platform: Platform, folder: Path) -> None:
        self.platform = platform
        self.folder = folder
        self.owner = platform.organisation(platform.sign_up())
        self.chain = self.owner.profile.org_id
        self.key = self.owner.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="auditor")).secret
        self.url = psutil.Process(platform.pids()["control"]).environ()["MERCAT_POSTGRES_URL"]

    def acts(self, count: int) -> None:
        """Names the organisation `count` times, and waits until all of it is written and signed."""
        names = [f"name {number}" for number in range(count)]
        for name in names:
            self.owner.organisations.UpdateOrganisation(organisation_pb2.UpdateOrganisationRequest(display_name=name))
        self.settled(*names)

    def settled(self, *names: str) -> None:
        """Waits until these names of the organisation are written, and everything is signed."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            heads = self.owner.audit.GetAuditHeads(pb.GetAuditHeadsRequest()).heads
            entries = self.entries()
            written = {_after(e).get("display_name") for e in entries}
            if written.issuperset(names) and heads and heads[-1].sequence == entries[-1].sequence == len(entries):
                return
            time.sleep(0.1)
        raise TimeoutError(f"{len(entries)} entries, {[h.sequence for h in heads]}\n{self.platform.log()}")

    def entries(self) -> list[pb.AuditEntry]:
        return list(self.owner.audit.ListAuditEntries(ALL).entries)

    def mercat(self, *words: str) -> "Any":
        return self.platform.command("audit", *words, MERCAT_API_KEY=self.key)

    def verify(self, *words: str) -> dict[str, Any]:
        done = self.mercat("verify", *words, "--json")
        assert done.stdout, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if report["intact"] else 1)
        return report

    def export(self) -> Path:
        path = self.folder / f"{time.monotonic_ns()}.jsonl"
        done = self.mercat("export", "--out", str(path))
        assert done.returncode == 0, done.stderr
        return path

    def keys(self) -> str:
        path = self.folder / "keys.json"
        path.write_text(self.mercat("keys").stdout)
        return str(path)

    async def sql(self, *statements: str) -> None:
        """What a superuser of the database does, in this chain."""
        connection = await asyncpg.connect(self.url)
        try:
            for statement in statements:
                done = await connection.execute(statement.replace(":chain", f"'{self.chain}'"))
                assert not done.endswith(" 0"), statement
        finally:
            await connection.close()

    async def rewrite(self, change: Callable[[pb.AuditEntry], None]) -> None:
        """Writes the whole chain anew, every hash as it must be."""
        previous = audit_chain.START
        connection = await asyncpg.connect(self.url)
        try:
            for entry in self.entries():
                change(entry)
                entry.previous_hash = previous
                entry.details_hash = audit_chain.details_hash(entry)
                previous = entry.hash = audit_chain.hash_of(entry)
                await connection.execute(
                    "UPDATE auth.audit_logs SET user_id = $2, details_hash = $3, previous_hash = $4, hash = $5"
                    " WHERE id = $1",
                    entry.audit_id, entry.user_id, entry.details_hash, entry.previous_hash, entry.hash,
                )  # fmt: skip
            await connection.execute(
                "UPDATE auth.audit_chains SET hash = $2, signed = 0 WHERE chain = $1", self.chain, previous
            )
        finally:
            await connection.close()


def _after(entry: pb.AuditEntry) -> dict[str, Any]:
    after: dict[str, Any] = json_format.MessageToDict(entry.metadata).get("after") or {}
    return after


@pytest.fixture
def log(signing: Platform, tmp_path: Path) -> Log:
    made = Log(signing, tmp_path)
    made.acts(6)
    assert broken(made) == []
    return made


def broken(log: Log) -> list[str]:
    """What the check finds, as `mercat audit verify` makes it."""
    keys = log.owner.audit.GetAuditKeys(pb.GetAuditKeysRequest()).keys
    claimed = log.owner.audit.GetAuditHeads(pb.GetAuditHeadsRequest()).heads
    heads = [audit_chain.read_head(head.signed, keys) for head in claimed]
    return audit_chain.verify(log.chain, log.entries(), heads).problems


def test_an_untouched_log_is_intact_also_offline(log: Log) -> None:
    path, keys = log.export(), log.keys()
    report = log.verify(str(path), "--keys", keys)
    assert report["intact"]
    assert report["entries"] == report["signed"] == report["last"] == str(len(log.entries()))
    head, *body = path.read_text().splitlines()[::-1]
    other = log.folder / "reordered.jsonl"
    other.write_text("\n".join([*body, head]))
    assert not log.verify(str(other), "--keys", keys)["intact"]
    altered = log.folder / "altered.jsonl"
    altered.write_text(path.read_text().replace("name 3", "name X"))
    assert "was altered" in log.verify(str(altered), "--keys", keys)["problems"][0]
    cut = log.folder / "cut.jsonl"
    lines = path.read_text().splitlines()
    cut.write_text(
        "\n".join(line for line in lines if f'"sequence":"{report["last"]}"' not in line or '"head"' in line)
    )
    assert "cut off" in log.verify(str(cut), "--keys", keys)["problems"][0]


async def test_every_altered_row_is_found(signing: Platform, tmp_path: Path) -> None:
    log = Log(signing, tmp_path)
    changes = [
        "user_id = 'usr_x'", "action = '/x/Y'", "resource_id = 'x'", "created_at = created_at - interval '1 day'",
        "ip_address = '6.6.6.6'", "user_agent = 'x'", "metadata = '{}'", "salt = NULL", "request_id = 'req_x'",
        "metadata = '[1]'", "key_id = 'key_x'", "details_hash = hash", "hash = details_hash", "previous_hash = hash",
        "resource_type = 'x'", "metadata = jsonb_set(metadata, '{after,display_name}', '1')",
    ]  # fmt: skip
    log.acts(2 * len(changes))
    for number, change in enumerate(changes, 1):
        await log.sql(f"UPDATE auth.audit_logs SET {change} WHERE chain = :chain AND sequence = {2 * number}")
    found = broken(log)
    for number, change in enumerate(changes, 1):
        assert f"entry {2 * number} was altered" in found, change


async def test_a_deleted_row_is_found(log: Log) -> None:
    await log.sql("DELETE FROM auth.audit_logs WHERE chain = :chain AND sequence IN (3, 4)")
    assert broken(log) == ["entries 3 to 4 are missing"]


async def test_a_row_that_was_put_in_is_found(log: Log) -> None:
    await log.sql(
        "UPDATE auth.audit_logs SET sequence = -sequence WHERE chain = :chain AND sequence > 3",
        "UPDATE auth.audit_logs SET sequence = 1 - sequence WHERE chain = :chain AND sequence < 0",
        "INSERT INTO auth.audit_logs SELECT 'aud_x', user_id, org_id, action, resource_type, resource_id, metadata,"
        " ip_address, user_agent, created_at, key_id, request_id, chain, 4, salt, details_hash, previous_hash, hash"
        " FROM auth.audit_logs WHERE chain = :chain AND sequence = 3",
    )
    assert any("entry 4 was altered" in problem for problem in broken(log))


async def test_a_cut_tail_is_found_online_and_offline(log: Log) -> None:
    last = len(log.entries())
    await log.sql(
        f"DELETE FROM auth.audit_logs WHERE chain = :chain AND sequence > {last - 2}",
        f"UPDATE auth.audit_chains SET sequence = {last - 2}, signed = {last - 2}, hash ="
        f" (SELECT hash FROM auth.audit_logs WHERE chain = :chain AND sequence = {last - 2}) WHERE chain = :chain",
    )
    assert "cut off" in broken(log)[0]
    online, offline = log.verify(), log.verify(str(log.export()), "--keys", log.keys())
    assert online["problems"] == offline["problems"] == broken(log)
    # The log goes on where the attacker left it, past what was signed; the store still knows better.
    for number in range(4):
        log.owner.organisations.UpdateOrganisation(
            organisation_pb2.UpdateOrganisationRequest(display_name=f"later {number}")
        )
    deadline = time.monotonic() + 10
    while len(log.entries()) < last + 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    await asyncio.sleep(1)  # in which it would be signed
    assert any("the chain was rewritten" in problem for problem in broken(log))


async def test_a_chain_that_was_rewritten_whole_is_found_and_not_signed_again(log: Log) -> None:
    def change(entry: pb.AuditEntry) -> None:
        if entry.sequence == 2:
            entry.user_id = "usr_somebodyelse"

    heads = log.owner.audit.GetAuditHeads(pb.GetAuditHeadsRequest()).heads
    await log.rewrite(change)
    await asyncio.sleep(1)
    assert log.owner.audit.GetAuditHeads(pb.GetAuditHeadsRequest()).heads == heads
    assert any("the chain was rewritten" in problem for problem in broken(log))
    logs = "\n".join(path.read_text() for path in (log.platform.home / "logs").glob("control*.log"))
    assert f"the audit chain of {log.chain} was tampered with" in logs


async def test_what_another_key_signed_does_not_count(log: Log, tmp_path: Path) -> None:
    await log.sql("DELETE FROM auth.audit_logs WHERE chain = :chain AND sequence > 5")
    key = audit_chain.SigningKey.load(tmp_path / "forged.pem")
    entry = log.entries()[-1]
    forged = pb.AuditHead(chain=log.chain, sequence=entry.sequence, hash=entry.hash)
    forged.signed_at.GetCurrentTime()
    folder = log.platform.home / "artifacts" / "objects" / "audit" / log.chain / "heads"
    for path in folder.iterdir():
        path.write_text(audit_chain.sign(forged, key))
    assert log.owner.audit.GetAuditHeads(pb.GetAuditHeadsRequest()).heads == []
    exported = log.export()
    exported.write_text(
        exported.read_text()
        + json.dumps({"head": {"chain": log.chain, "sequence": "5", "signed": audit_chain.sign(forged, key)}})
    )
    assert "not genuine" in log.verify(str(exported), "--keys", log.keys())["problems"][0]


async def test_many_at_once_are_one_chain(signing: Platform, tmp_path: Path) -> None:
    log = Log(signing, tmp_path)
    names = [f"name {number}" for number in range(40)]
    requests = [organisation_pb2.UpdateOrganisationRequest(display_name=name) for name in names]
    await asyncio.gather(*(asyncio.to_thread(log.owner.organisations.UpdateOrganisation, r) for r in requests))
    log.settled(*names)
    assert log.verify()["intact"]
    assert [e.sequence for e in log.entries()] == [*range(1, len(log.entries()) + 1)]


def test_who_what_from_where_and_before_and_after(log: Log) -> None:
    body = {"displayName": "By REST"}
    answer = httpx.patch(
        f"{log.platform.rest}/v1/organisation", json=body,
        headers={"authorization": f"Bearer {log.key}", "x-forwarded-for": "6.6.6.6", "user-agent": "an auditor"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    log.settled("By REST")
    entry = log.entries()[-1]
    assert entry.action == "/mercat.auth.v1.OrganisationService/UpdateOrganisation"
    assert (entry.user_id, entry.user_agent) == (log.owner.profile.user_id, "an auditor")
    own = log.entries()[0].ip_address  # as the front door saw this machine before
    assert entry.ip_address == own != "6.6.6.6"
    assert entry.key_id.startswith("key_")
    assert (entry.resource_type, entry.resource_id) == ("organisation", log.chain)
    assert entry.metadata["before"]["display_name"] == "name 5"
    assert entry.metadata["after"]["display_name"] == entry.metadata["request"]["display_name"] == "By REST"
    assert entry.request_id == answer.headers["mercat-request-id"]


def test_secrets_are_not_written(signing: Platform) -> None:
    """Of what people type and are given, nothing that opens anything is in the database."""
    person = signing.sign_up()
    session = signing.anonymous.auth.SignIn(auth_pb2.SignInRequest(email=person.email, password=PASSWORD)).session
    owner = signing.organisation(person)
    invite = organisation_pb2.CreateInvitationRequest(email="guest@example.com", role="viewer")
    code = owner.invitations.CreateInvitation(invite).code
    with pytest.raises(grpc.RpcError):
        person.invitations.AcceptInvitation(organisation_pb2.AcceptInvitationRequest(code=code))
    signing.anonymous.auth.SignOut(auth_pb2.SignOutRequest(refresh_token=session.refresh_token))
    time.sleep(2)
    admin = signing.admin()
    entries = admin.audit.ListPlatformAuditEntries(pb.ListPlatformAuditEntriesRequest(page_size=1000)).entries
    assert {"SignUp", "SignIn", "SignOut", "CreateInvitation"} <= {e.action.rpartition("/")[2] for e in entries}
    text = "\n".join(str(e) for e in entries)
    assert person.email in text
    for secret in (PASSWORD, session.refresh_token, session.access_token, code, person.api_key):
        assert secret not in text
        assert hashlib.sha256(secret.encode()).hexdigest() not in text


def test_entries_are_filtered_and_paged(log: Log) -> None:
    def found(**fields: Any) -> list[pb.AuditEntry]:
        return list(
            log.owner.audit.ListAuditEntries(pb.ListAuditEntriesRequest(filter=pb.AuditFilter(**fields))).entries
        )

    names = {e.action.rpartition("/")[2] for e in log.entries()}
    assert names == {"CreateApiKey", "UpdateOrganisation"}  # the organisation itself was made in another
    assert len(found(action="UpdateOrganisation")) == 6
    assert len(found(action="/mercat.auth.v1.AuthService/CreateApiKey")) == 1
    assert not found(action="Organisation")
    assert len(found(user_id=log.owner.profile.user_id)) == len(log.entries())
    assert not found(user_id="usr_x")
    assert len(found(resource_id=log.chain, resource_type="organisation")) == 6
    third = log.entries()[2]
    assert [e.sequence for e in found(end_time=third.created_at)] == [2, 1]
    assert [e.sequence for e in found(start_time=third.created_at)] == [*range(len(log.entries()), 2, -1)]
    seen: list[int] = []
    request = pb.ListAuditEntriesRequest(page_size=3)
    while True:
        page = log.owner.audit.ListAuditEntries(request)
        seen += [e.sequence for e in page.entries]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [*range(len(log.entries()), 0, -1)]


def test_members_see_their_organisations_log_alone(log: Log) -> None:
    member = log.platform.join(log.owner, log.platform.sign_up(), "developer")
    with pytest.raises(grpc.RpcError) as caught:
        member.audit.ListAuditEntries(ALL)
    assert from_rpc_error(caught.value).reason == "SCOPE_MISSING"
    stranger = log.platform.organisation(log.platform.sign_up())
    assert log.chain not in {e.chain for e in stranger.audit.ListAuditEntries(ALL).entries}
    with pytest.raises(grpc.RpcError) as caught:
        stranger.audit.ListPlatformAuditEntries(pb.ListPlatformAuditEntriesRequest(chain=log.chain))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_table_for_people_holds_no_formula(log: Log) -> None:
    log.owner.auth.CreateApiKey(
        auth_pb2.CreateApiKeyRequest(name="k"), metadata=[("user-agent", "=cmd()")]
    )  # fmt: skip
    httpx.get(f"{log.platform.rest}/v1/organisation", headers={"authorization": f"Bearer {log.key}"})
    httpx.patch(
        f"{log.platform.rest}/v1/organisation", json={"displayName": "x"},
        headers={"authorization": f"Bearer {log.key}", "user-agent": "=HYPERLINK(1)"},
    )  # fmt: skip
    log.settled("x")
    text = log.mercat("export", "--csv").stdout
    assert text.startswith("sequence,created_at,user_id")
    assert "'=HYPERLINK(1)" in text
    assert ",=HYPERLINK" not in text
    listed = log.mercat("list", "--action", "UpdateOrganisation", "--details").stdout
    assert listed.count("UpdateOrganisation") == 7
    assert "name 5" in listed


def test_what_is_old_is_erased_and_then_dropped_and_the_chain_holds(log: Log, signing: Platform) -> None:
    """Last of this file: time moves for all of it."""
    before = len(log.entries())
    assert signing.command("clock", "advance", "11d").returncode == 0
    log.owner = signing.session(log.owner, log.owner.profile.organisation)
    deadline = time.monotonic() + 20
    while log.entries()[0].salt and time.monotonic() < deadline:
        time.sleep(0.1)
    log.acts(2)
    report = log.verify()
    assert report["intact"], report
    assert int(report["erased"]) >= before
    assert log.entries()[0].metadata == Struct()
    assert log.entries()[0].ip_address == ""
    assert signing.command("clock", "advance", "25d").returncode == 0  # the first are 36 days old, the last 25
    log.owner = signing.session(log.owner, log.owner.profile.organisation)
    log.key = log.owner.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="auditor")).secret
    deadline = time.monotonic() + 20
    while log.entries()[0].sequence == 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    report = log.verify()
    assert report["intact"], report
    assert int(report["first"]) == before + 1, report
    assert log.verify(str(log.export()), "--keys", log.keys())["intact"]
