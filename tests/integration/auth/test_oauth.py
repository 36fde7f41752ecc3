"""Service accounts with OAuth's clients: tokens by id and secret, as other people's libraries ask for them, what the
tokens open, and how they stop doing so."""

import time
from collections.abc import Iterator

import grpc
import httpx
import jwt
import pytest
from authlib.integrations.httpx_client import OAuth2Client
from mercat.auth.v1 import auth_pb2, oauth_pb2
from mercat.auth.v1 import organisation_pb2 as org
from mercat.inference.v1 import inference_pb2
from mercat.usage.v1 import usage_pb2

from tests import graphs
from tests.expect import fails
from tests.platform import USD, Account, Platform

ME = auth_pb2.GetProfileRequest()
_OPEN: list[OAuth2Client] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().close()


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.organisation(platform.sign_up(auth_pb2.ROLE_PUBLISHER))


def account(owner: Account, role: str = "developer", name: str = "") -> str:
    request = org.CreateServiceAccountRequest(name=name or f"ci {time.monotonic_ns()}", role=role)
    return str(owner.service_accounts.CreateServiceAccount(request).service_account.service_account_id)


def client(owner: Account, account_id: str = "", *scopes: str) -> oauth_pb2.CreateOAuthClientResponse:
    request = oauth_pb2.CreateOAuthClientRequest(name="nightly", service_account_id=account_id, scopes=scopes)
    return owner.oauth_clients.CreateOAuthClient(request)  # type: ignore[no-any-return]


def library(platform: Platform, made: oauth_pb2.CreateOAuthClientResponse, **options: str) -> OAuth2Client:
    """Somebody else's client, told nothing but what the platform says of itself."""
    found = httpx.get(f"{platform.rest}/.well-known/oauth-authorization-server").json()
    assert found["issuer"] == platform.rest
    opened = OAuth2Client(
        made.client.client_id, made.client_secret, token_endpoint=found["token_endpoint"],
        introspection_endpoint=found["introspection_endpoint"], revocation_endpoint=found["revocation_endpoint"],
        **options,
    )  # fmt: skip
    _OPEN.append(opened)
    return opened


def fetch(oauth: OAuth2Client, **parameters: str) -> dict[str, object]:
    url = oauth.metadata["token_endpoint"]
    return dict(oauth.fetch_token(url, grant_type="client_credentials", **parameters))


def ended(platform: Platform, token: str) -> bool:
    try:
        Account(platform, token).auth.GetProfile(ME)
    except grpc.RpcError as e:
        return e.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


def ends(platform: Platform, token: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        if ended(platform, token):
            return
        assert time.monotonic() < deadline, "the token still opens"
        time.sleep(0.05)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_service_account_gets_tokens_by_id_and_secret(platform: Platform, owner: Account, method: str) -> None:
    account_id = account(owner)
    made = client(owner, account_id, "inference:call", "usage:read")
    token = fetch(library(platform, made, token_endpoint_auth_method=method))
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 900)
    assert token["scope"] == "inference:call usage:read"
    assert "refresh_token" not in token
    program = Account(platform, str(token["access_token"]))
    profile = program.auth.GetProfile(ME).profile
    assert (profile.user_id, profile.org_id) == (account_id, owner.profile.org_id)
    # The token is checked by the published keys alone, as RFC 9068 has it.
    keys = jwt.PyJWKClient(httpx.get(f"{platform.rest}/.well-known/oauth-authorization-server").json()["jwks_uri"])
    key = keys.get_signing_key_from_jwt(program.api_key)
    claims = jwt.decode(program.api_key, key, algorithms=["EdDSA"], audience="mercat", issuer=platform.rest)
    assert (claims["sub"], claims["client_id"]) == (account_id, made.client.client_id)
    assert jwt.get_unverified_header(program.api_key)["typ"] == "at+jwt"


def test_a_token_calls_models_within_its_scopes(platform: Platform, owner: Account) -> None:
    made = client(owner, account(owner), "inference:call", "usage:read")
    owner.top_up(USD)
    model = platform.publish(owner, graphs.tiny(), price={"requests": 10**9})
    narrow = fetch(library(platform, made), scope="inference:call")
    program = Account(platform, str(narrow["access_token"]))
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 4], raw=bytes(16))
    _, call = program.inference.Predict.with_call(inference_pb2.PredictRequest(model=model, inputs=[x]))
    request_id = dict(call.trailing_metadata())["mercat-request-id"]
    listing = usage_pb2.GetUsageRecordRequest(request_id=request_id)
    assert fails(program.usage.GetUsageRecord, listing).reason == "SCOPE_MISSING"
    reader = Account(platform, str(fetch(library(platform, made))["access_token"]))
    deadline = time.monotonic() + 10
    while True:
        try:
            record = reader.usage.GetUsageRecord(listing).record
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert record.key_id == made.client.client_id
    # Work goes on after the call, as whom it was begun.
    predict = inference_pb2.PredictRequest(model=model, inputs=[x])
    job = program.jobs.CreateJob(inference_pb2.CreateJobRequest(predict=predict)).job
    until = time.monotonic() + 20
    while job.state not in (inference_pb2.JOB_STATE_SUCCEEDED, inference_pb2.JOB_STATE_FAILED):
        assert time.monotonic() < until
        time.sleep(0.1)
        job = program.jobs.GetJob(inference_pb2.GetJobRequest(job_id=job.job_id)).job
    assert job.state == inference_pb2.JOB_STATE_SUCCEEDED, job.error
    # What no key may do without a person, no client may either.
    assert fails(reader.auth.CreateApiKey, auth_pb2.CreateApiKeyRequest(name="k")).reason == "SCOPE_MISSING"


def test_scopes_are_those_of_client_account_and_caller(platform: Platform, owner: Account) -> None:
    viewer = account(owner, "viewer")
    request = oauth_pb2.CreateOAuthClientRequest(name="c", service_account_id=viewer, scopes=["inference:call"])
    assert fails(owner.oauth_clients.CreateOAuthClient, request).reason == "SCOPE_MISSING"
    made = client(owner, viewer)
    assert set(made.client.scopes) == {"keys:read", "members:read", "models:read", "usage:read"}
    with pytest.raises(Exception, match="invalid_scope"):
        fetch(library(platform, made), scope="inference:call")
    # A role that loses a scope takes it from tokens there are.
    owner.organisations.SetRole(org.SetRoleRequest(name="narrowing", scopes=["usage:read", "models:read"]))
    other = client(owner, account(owner, "narrowing"))
    token = str(fetch(library(platform, other))["access_token"])
    owner.organisations.SetRole(org.SetRoleRequest(name="narrowing", scopes=["models:read"]))
    deadline = time.monotonic() + 20
    here = org.GetOrganisationRequest()
    while list(Account(platform, token).organisations.GetOrganisation(here).organisation.scopes) != ["models:read"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def form(platform: Platform, path: str, auth: tuple[str, str] | None = None, **fields: str) -> httpx.Response:
    return httpx.post(f"{platform.rest}/oauth/{path}", data=fields, auth=auth)  # type: ignore[arg-type]


def test_errors_are_oauths(platform: Platform, owner: Account) -> None:
    made = client(owner, account(owner))
    who = (made.client.client_id, made.client_secret)
    for auth, fields, status, error in (
        (who, {"grant_type": "password"}, 400, "unsupported_grant_type"),
        (who, {}, 400, "invalid_request"),
        (None, {"grant_type": "client_credentials"}, 401, "invalid_client"),
        ((who[0], "wrong"), {"grant_type": "client_credentials"}, 401, "invalid_client"),
        (("cli_none", "x"), {"grant_type": "client_credentials"}, 401, "invalid_client"),
        (("mercat-cli", "x"), {"grant_type": "client_credentials"}, 401, "invalid_client"),
        (who, {"grant_type": "client_credentials", "scope": "no:scope"}, 400, "invalid_scope"),
        (who, {"grant_type": "client_credentials", "client_secret": who[1]}, 400, "invalid_request"),
        (who, {"grant_type": "refresh_token", "refresh_token": "mr_x"}, 400, "unauthorized_client"),
        (None, {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "mercat-cli"}, 400, "invalid_grant"),
    ):
        answer = form(platform, "token", auth, **fields)
        assert (answer.status_code, answer.json()["error"]) == (status, error), answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert ("www-authenticate" in answer.headers) == (status == 401)
    twice = httpx.post(
        f"{platform.rest}/oauth/token", content="grant_type=client_credentials&scope=a&scope=b", auth=who,
        headers={"content-type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
    json = httpx.post(f"{platform.rest}/oauth/token", json={"grant_type": "client_credentials"}, auth=who)
    assert json.json()["error"] == "invalid_request"
    assert httpx.get(f"{platform.rest}/oauth/token").status_code == 404
    # The same over gRPC, by reason.
    request = oauth_pb2.IssueTokenRequest(grant_type="client_credentials", client_id=who[0], client_secret="wrong")
    error = fails(platform.anonymous.oauth.IssueToken, request)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "OAUTH_INVALID_CLIENT")


def test_introspection_tells_ones_own_organisation_alone(platform: Platform, owner: Account) -> None:
    account_id = account(owner)
    made = client(owner, account_id, "usage:read")
    oauth = library(platform, made)
    token = str(fetch(oauth)["access_token"])
    url = oauth.metadata["introspection_endpoint"]
    said = oauth.introspect_token(url, token=token).json()
    assert said["active"] is True
    assert (said["sub"], said["client_id"], said["scope"]) == (account_id, made.client.client_id, "usage:read")
    assert (said["iss"], said["aud"], said["org_id"]) == (platform.rest, "mercat", owner.profile.org_id)
    assert time.time() < said["exp"] <= time.time() + 900
    # A member's session, too; somebody else's, an API key and nonsense are not active, and nothing more.
    session = oauth.introspect_token(url, token=owner.api_key).json()
    assert (session["active"], session["sub"]) == (True, owner.profile.user_id)
    stranger = platform.organisation(platform.sign_up())
    for other in (stranger.api_key, platform.sign_up().api_key, "nonsense", token + "x"):
        assert oauth.introspect_token(url, token=other).json() == {"active": False}
    theirs = library(platform, client(stranger, account(stranger)))
    assert theirs.introspect_token(url, token=token).json() == {"active": False}
    # Nobody asks without a secret.
    assert form(platform, "introspect", token=token, client_id="mercat-cli").json()["error"] == "invalid_client"
    assert form(platform, "introspect", (made.client.client_id, made.client_secret)).json()["error"] == (
        "invalid_request"
    )


def test_a_revoked_token_ends_and_others_go_on(platform: Platform, owner: Account) -> None:
    made = client(owner, account(owner))
    oauth = library(platform, made)
    first, second = (str(fetch(oauth)["access_token"]) for _ in range(2))
    url = oauth.metadata["revocation_endpoint"]
    other = library(platform, client(owner, account(owner)))
    assert other.revoke_token(url, token=first).json()["error"] == "invalid_grant"
    Account(platform, first).auth.GetProfile(ME)
    assert oauth.revoke_token(url, token=first).status_code == 200
    ends(platform, first)
    Account(platform, second).auth.GetProfile(ME)
    assert oauth.revoke_token(url, token=first).status_code == 200
    assert oauth.revoke_token(url, token="unknown").status_code == 200
    assert oauth.introspect_token(oauth.metadata["introspection_endpoint"], token=first).json() == {"active": False}


@pytest.mark.parametrize("what", ["client", "account"])
def test_tokens_end_with_their_client_and_its_account(platform: Platform, owner: Account, what: str) -> None:
    account_id = account(owner)
    made = client(owner, account_id)
    oauth = library(platform, made)
    token = str(fetch(oauth)["access_token"])
    Account(platform, token).auth.GetProfile(ME)
    if what == "client":
        owner.oauth_clients.DeleteOAuthClient(oauth_pb2.DeleteOAuthClientRequest(client_id=made.client.client_id))
    else:
        request = org.DeleteServiceAccountRequest(service_account_id=account_id)
        owner.service_accounts.DeleteServiceAccount(request)
    ends(platform, token)
    with pytest.raises(Exception, match="invalid_client"):
        fetch(oauth)


def test_a_token_is_held_to_its_client(platform: Platform, owner: Account) -> None:
    """Keys and clients are not told apart by their ids alone."""
    made = client(owner, account(owner))
    listed = owner.oauth_clients.ListOAuthClients(oauth_pb2.ListOAuthClientsRequest(page_size=1))
    assert [c.client_id for c in listed.clients] == [made.client.client_id]
    assert listed.next_page_token
    token = str(fetch(library(platform, made))["access_token"])
    missing = fails(owner.auth.RevokeApiKey, auth_pb2.RevokeApiKeyRequest(key_id=made.client.client_id))
    assert missing.reason == "API_KEY_NOT_FOUND"
    Account(platform, token).auth.GetProfile(ME)


def test_what_is_given_is_in_the_audit_log_without_secrets(platform: Platform, owner: Account) -> None:
    from mercat.auth.v1 import audit_pb2

    account_id = account(owner)
    made = client(owner, account_id)
    fetch(library(platform, made))
    deadline = time.monotonic() + 10
    while True:
        entries = owner.audit.ListAuditEntries(audit_pb2.ListAuditEntriesRequest(page_size=50)).entries
        found = [e for e in entries if e.action.endswith("/IssueToken") and e.resource_id == made.client.client_id]
        if found:
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found[0].user_id == account_id
    assert made.client_secret not in str(entries)
