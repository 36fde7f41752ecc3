"""Refused attempts in the audit log: who, what, from where, why; and no more than a few of each."""

import time
from collections.abc import Callable
from typing import Any

import grpc
import httpx
from mercat.auth.v1 import audit_pb2, auth_pb2, organisation_pb2
from mercat.inference.v1 import inference_pb2

from services.common.errors import from_rpc_error
from tests.platform import Account, Platform

DENIED = audit_pb2.ListAuditEntriesRequest(page_size=1000, filter=audit_pb2.AuditFilter(denied=True))


def denied(person: Account, reason: str, count: int = 1) -> list[audit_pb2.AuditEntry]:
    """Waits for entries of refused attempts in a person's organisation."""
    deadline = time.monotonic() + 15
    while True:
        entries = person.audit.ListAuditEntries(DENIED).entries
        found = [e for e in entries if e.metadata["denied"]["reason"] == reason]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, entries
        time.sleep(0.2)


def refused(call: Callable[..., Any], request: Any) -> str:
    try:
        call(request)
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    raise AssertionError("it was not refused")


def test_a_key_that_lacks_a_scope(platform: Platform) -> None:
    for _ in range(2):  # a minute may end meanwhile, once
        person = platform.sign_up()
        made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k", scopes=["keys:read"]))
        headers = {"authorization": f"Bearer {made.secret}", "user-agent": "an intruder"}
        with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.7"), headers=headers) as client:
            codes = {client.post(f"{platform.rest}/v1/keys", json={"name": "x"}).status_code for _ in range(40)}
        assert codes == {403}
        entry = denied(person, "SCOPE_MISSING")[-1]
        assert (entry.user_id, entry.key_id) == (person.profile.user_id, made.api_key.key_id)
        assert (entry.action, entry.ip_address) == ("/mercat.auth.v1.AuthService/CreateApiKey", "127.0.0.7")
        assert entry.user_agent == "an intruder"
        time.sleep(3)
        if len(denied(person, "SCOPE_MISSING")) == 1:  # the other 39 are one more, at the minute's end
            return
    raise AssertionError("attempts of one minute are several entries")


def test_a_key_from_where_it_may_not_be_used_also_by_workers(platform: Platform) -> None:
    person = platform.sign_up()
    rules = auth_pb2.KeyRules(allowed_networks=["192.0.2.0/24"])
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k", rules=rules))
    stolen = Account(platform, made.secret)
    assert refused(stolen.auth.GetProfile, auth_pb2.GetProfileRequest()) == "KEY_ADDRESS_DENIED"
    assert refused(stolen.inference.Predict, inference_pb2.PredictRequest(model="a/b")) == "KEY_ADDRESS_DENIED"
    entries = denied(person, "KEY_ADDRESS_DENIED", 2)
    assert {e.action.rpartition("/")[2] for e in entries} == {"GetProfile", "Predict"}
    assert {e.key_id for e in entries} == {made.api_key.key_id}


def test_sign_ins_that_fail_are_in_the_account_s_own_log(platform: Platform) -> None:
    person = platform.session(platform.sign_up())
    before = len(person.audit.ListAuditEntries(audit_pb2.ListAuditEntriesRequest()).entries)
    wrong = auth_pb2.SignInRequest(email=person.email, password="not the password")
    reasons = [refused(platform.anonymous.auth.SignIn, wrong) for _ in range(5)]
    assert reasons[0] == "SIGN_IN_FAILED"
    (entry,) = denied(person, "SIGN_IN_FAILED")
    assert (entry.user_id, entry.resource_id) == ("", person.profile.user_id)
    entries = person.audit.ListAuditEntries(audit_pb2.ListAuditEntriesRequest()).entries
    assert len(entries) - before <= 2  # none as if somebody had signed in
    assert "not the password" not in str(entries)
    nobody = auth_pb2.SignInRequest(email="nobody@example.com", password="not the password")
    refused(platform.anonymous.auth.SignIn, nobody)
    everything = audit_pb2.ListPlatformAuditEntriesRequest(
        chain="platform", filter=audit_pb2.AuditFilter(denied=True, action="SignIn")
    )
    deadline = time.monotonic() + 15
    while not platform.admin().audit.ListPlatformAuditEntries(everything).entries:
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_the_chain_holds_with_them(platform: Platform) -> None:
    owner = platform.organisation(platform.sign_up())
    viewer = platform.join(owner, platform.sign_up(), "viewer")
    request = organisation_pb2.CreateServiceAccountRequest(name="x", role="viewer")
    assert refused(viewer.service_accounts.CreateServiceAccount, request) == "SCOPE_MISSING"
    (entry,) = denied(owner, "SCOPE_MISSING")
    assert entry.user_id == viewer.profile.user_id
    shown = platform.command("audit", "list", "--denied", MERCAT_API_KEY=owner.auth.CreateApiKey(
        auth_pb2.CreateApiKeyRequest(name="auditor")).secret)  # fmt: skip
    assert "CreateServiceAccount (refused: SCOPE_MISSING)" in " ".join(shown.stdout.split()), shown
