"""What people may ask for: exports, deletion, consents; and keys that sign are replaced under way."""

import hashlib
import json
import secrets
from collections.abc import Iterator

import grpc
import httpx
import jwt
import pytest
from mercat.auth.v1 import auth_pb2, organisation_pb2, privacy_pb2
from mercat.billing.v1 import billing_pb2

from services.common.errors import from_rpc_error
from services.common.names import skeleton
from tests.expect import fails, until
from tests.integration.signin.people import Member, ends, member
from tests.platform import PASSWORD, USD, Platform
from tests.robustness.test_erasure import until_erased


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("privacy") / "home", env={"MERCAT_LEASE_SECONDS": "5"}) as running:
        yield running


def test_consents_are_recorded_and_changed(own: Platform) -> None:
    person = member(own)
    kinds = privacy_pb2.Consent
    listed = person.account.consents.GetConsents(privacy_pb2.GetConsentsRequest()).consents
    assert [(c.kind, c.granted) for c in listed] == [
        (kinds.KIND_TERMS, False), (kinds.KIND_PRIVACY, False), (kinds.KIND_MARKETING_MAIL, False),
    ]  # fmt: skip
    wanted = privacy_pb2.SetConsentRequest(kind=kinds.KIND_MARKETING_MAIL, granted=True)
    given = person.account.consents.SetConsent(wanted).consent
    assert given.granted
    assert given.record_time.seconds > 0
    wanted.granted = False
    assert not person.account.consents.SetConsent(wanted).consent.granted
    back = privacy_pb2.SetConsentRequest(kind=kinds.KIND_TERMS, granted=False)
    assert fails(person.account.consents.SetConsent, back).reason == "INVALID_FIELDS"
    old = privacy_pb2.SetConsentRequest(kind=kinds.KIND_TERMS, granted=True, version="1999")
    assert fails(person.account.consents.SetConsent, old).reason == "INVALID_FIELDS"


def test_an_export_is_anothers_business_of_nobody(own: Platform) -> None:
    person, other = member(own), member(own)
    export_id = person.account.privacy.CreateExport(privacy_pb2.CreateExportRequest()).export.export_id
    assert fails(person.account.privacy.CreateExport, privacy_pb2.CreateExportRequest()).reason == "EXPORT_UNDER_WAY"
    get = privacy_pb2.GetExportRequest(export_id=export_id)
    assert fails(other.account.privacy.GetExport, get).reason == "EXPORT_NOT_FOUND"
    key = person.account.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).secret
    answer = httpx.post(f"{own.rest}/v1/me/exports", headers={"authorization": f"Bearer {key}"}, json={})
    assert answer.status_code == 403
    assert answer.json()["error"]["details"][0]["reason"] == "SESSION_REQUIRED"


def test_who_owns_what_others_are_in_stays(own: Platform) -> None:
    owner = own.sign_up()
    team = own.organisation(owner)
    own.join(team, own.sign_up(), "developer")
    account = own.session(owner)
    deletion = account.privacy.GetDeletion(privacy_pb2.GetDeletionRequest()).deletion
    assert [o.reason for o in deletion.obstacles] == ["LAST_OWNER"]
    assert list(deletion.organisations) == [owner.profile.username]
    request = privacy_pb2.DeleteAccountRequest(username=owner.profile.username, forfeit=True)
    assert fails(account.privacy.DeleteAccount, request).reason == "LAST_OWNER"
    assert account.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.username == owner.profile.username


def test_what_is_left_becomes_the_platforms(own: Platform) -> None:
    person = member(own)
    person.account.top_up(7 * USD)
    before = own.value("SELECT coalesce(sum(balance), 0)::bigint FROM billing.balances b JOIN billing.accounts a"
                       " ON a.id = b.account_id WHERE a.kind = 'breakage'")  # fmt: skip
    request = privacy_pb2.DeleteAccountRequest(username=person.profile.username, forfeit=True)
    erasure_id = person.account.privacy.DeleteAccount(request).erasure_id
    assert ends(person.account.auth.GetProfile, auth_pb2.GetProfileRequest()) == "CREDENTIAL_INVALID"
    signin = auth_pb2.SignInRequest(email=person.email, password=PASSWORD)
    assert fails(own.anonymous.auth.SignIn, signin).reason == "SIGN_IN_FAILED"
    until_erased(own, erasure_id)
    after = own.value("SELECT sum(balance)::bigint FROM billing.balances b JOIN billing.accounts a"
                      " ON a.id = b.account_id WHERE a.kind = 'breakage'")  # fmt: skip
    assert after - before == 7 * USD
    assert not own.admin().check_ledger().discrepancies
    # The address is free again, and nothing of the account before comes with it.
    again = auth_pb2.SignUpRequest(email=person.email, username=f"x{person.profile.username}", password=PASSWORD)
    signed = own.anonymous.auth.SignUp(again)
    assert signed.profile.user_id != person.profile.user_id
    new = Member(own, person.email, signed.session, signed.profile)
    assert new.account.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet.balance_nanos == 0


def test_a_name_that_was_given_up_is_in_quarantine(own: Platform) -> None:
    """And what looks like it; nobody learns from the table whose it was, and the time ends."""
    person = member(own)
    name = person.profile.username
    handle = f"givenup{secrets.token_hex(4)}"
    person.account.organisations.CreateOrganisation(organisation_pb2.CreateOrganisationRequest(handle=handle))
    request = privacy_pb2.DeleteAccountRequest(username=name, forfeit=True)
    erasure_id = person.account.privacy.DeleteAccount(request).erasure_id
    until_erased(own, erasure_id)
    other = own.session(own.sign_up())
    for like in (name, f"{name[:3]}-{name[3:]}"):
        again = auth_pb2.SignUpRequest(email=f"{secrets.token_hex(6)}@example.com", username=like, password=PASSWORD)
        error = fails(own.anonymous.auth.SignUp, again)
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "HANDLE_QUARANTINED")
        assert [v.field for v in error.violations] == ["username"]
    taken = organisation_pb2.CreateOrganisationRequest(handle=handle)
    error = fails(other.organisations.CreateOrganisation, taken)
    assert (error.reason, [v.field for v in error.violations]) == ("HANDLE_QUARANTINED", ["handle"])
    plain = [hashlib.sha256(prefix + text.encode()).hexdigest() for prefix in (b"", b"handle:") for text in
             (name, handle, skeleton(name), skeleton(handle))]  # fmt: skip
    kept = own.value("SELECT array_agg(encode(handle_hash, 'hex')) FROM auth.retired_handles")
    assert len(kept) >= 2
    assert not set(kept) & set(plain)
    own.value("UPDATE auth.retired_handles SET retired_at = retired_at - interval '180 days' RETURNING keyed")
    other.organisations.CreateOrganisation(taken)
    own.anonymous.auth.SignUp(again)


def test_names_that_were_given_up_before_there_was_a_key(own: Platform) -> None:
    """They are kept as they were, and get one."""
    name = f"longago{secrets.token_hex(4)}"
    plain = hashlib.sha256(b"handle:" + name.encode()).hexdigest()
    insert = f"INSERT INTO auth.retired_handles VALUES ('\\x{plain}', now()) RETURNING keyed"
    assert own.value(insert) is False
    again = auth_pb2.SignUpRequest(email=f"{secrets.token_hex(6)}@example.com", username=name, password=PASSWORD)
    assert fails(own.anonymous.auth.SignUp, again).reason == "HANDLE_QUARANTINED"
    own.until_ready("control", own.kill("control"))
    until(lambda: own.value("SELECT count(*) FROM auth.retired_handles WHERE NOT keyed") == 0)
    assert own.value(f"SELECT count(*) FROM auth.retired_handles WHERE handle_hash = '\\x{plain}'") == 0
    until(lambda: ended(own, again) == "HANDLE_QUARANTINED")


def ended(platform: Platform, request: auth_pb2.SignUpRequest) -> str:
    try:
        platform.anonymous.auth.SignUp(request)
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


def test_keys_that_sign_are_replaced(own: Platform) -> None:
    person = member(own)
    before = httpx.get(f"{own.rest}/v1/jwks").json()["keys"]
    receipts = httpx.get(f"{own.rest}/v1/receipts/jwks").json()["keys"]
    rotated = json.loads(own.command("secrets", "rotate-signing", "--json").stdout)
    assert set(rotated) == {"tokens", "receipts", "audit"}
    after = httpx.get(f"{own.rest}/v1/jwks").json()["keys"]
    assert [key["kid"] for key in after] == [rotated["tokens"], *(key["kid"] for key in before)]
    shown = httpx.get(f"{own.rest}/v1/receipts/jwks").json()["keys"]
    assert [key["kid"] for key in shown] == [rotated["receipts"], *(key["kid"] for key in receipts)]
    # A token of before is good; new ones are signed by the new key.
    assert person.account.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.user_id == person.profile.user_id
    again = person.again()
    assert jwt.get_unverified_header(again.session.access_token)["kid"] == rotated["tokens"]
    # The key of before goes when its tokens have ended, not sooner.
    assert own.command("secrets", "retire").stdout.strip() == "None can be removed."
    assert len(httpx.get(f"{own.rest}/v1/jwks").json()["keys"]) == 2
