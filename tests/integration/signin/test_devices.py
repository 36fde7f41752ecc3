"""Devices that are let in: what they ask, who lets them in and where, and how guessing and haste are met."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
from mercat.auth.v1 import auth_pb2, mfa_pb2, oauth_pb2, sessions_pb2, signin_pb2

from services.auth.oauth.models import COMMAND_LINE
from services.common.errors import from_rpc_error
from tests.expect import fails
from tests.integration.signin.people import Mailbox, Member, code_of, ends, enrolled, member, move
from tests.platform import PASSWORD, Account, Platform

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CLI = "mercat-cli"
ME = auth_pb2.GetProfileRequest()


def begin(platform: Platform, client_id: str = CLI, scope: str = "") -> oauth_pb2.AuthorizeDeviceResponse:
    request = oauth_pb2.AuthorizeDeviceRequest(client_id=client_id, scope=scope)
    return platform.anonymous.oauth.AuthorizeDevice(request)  # type: ignore[no-any-return]


def poll(
    platform: Platform, asked: oauth_pb2.AuthorizeDeviceResponse, client_id: str = CLI
) -> oauth_pb2.IssueTokenResponse | str:
    """The tokens, or OAuth's error."""
    request = oauth_pb2.IssueTokenRequest(grant_type=GRANT, client_id=client_id, device_code=asked.device_code)
    try:
        return platform.anonymous.oauth.IssueToken(request)  # type: ignore[no-any-return]
    except grpc.RpcError as e:
        return from_rpc_error(e).reason.removeprefix("OAUTH_").lower()


def approve(person: Member, asked: oauth_pb2.AuthorizeDeviceResponse) -> None:
    person.devices.ApproveDevice(oauth_pb2.ApproveDeviceRequest(user_code=asked.user_code))


def let_in(platform: Platform, person: Member, client_id: str = CLI, scope: str = "") -> oauth_pb2.IssueTokenResponse:
    asked = begin(platform, client_id, scope)
    approve(person, asked)
    answer = poll(platform, asked, client_id)
    assert not isinstance(answer, str)
    return answer


def address(person: Member) -> str:
    """Of this machine, as the front door sees it."""
    listed = person.sessions.ListSessions(sessions_pb2.ListSessionsRequest()).sessions
    return str(listed[0].ip_address)


def test_a_device_gets_a_session_of_who_lets_it_in(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    asked = begin(platform)
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", asked.user_code)
    assert asked.verification_uri == f"{platform.rest}/oauth/device"
    assert asked.verification_uri_complete == f"{asked.verification_uri}?user_code={asked.user_code}"
    assert (asked.expires_in, asked.interval) == (600, 5)
    assert poll(platform, asked) == "authorization_pending"
    typed = asked.user_code.lower().replace("-", " ")
    shown = person.devices.GetDevice(oauth_pb2.GetDeviceRequest(user_code=typed)).device
    assert (shown.client_id, shown.ip_address, list(shown.scopes)) == (CLI, address(person), [])
    approve(person, asked)
    answer = poll(platform, asked)
    assert not isinstance(answer, str)
    device = Account(platform, answer.access_token)
    assert device.auth.GetProfile(ME).profile.user_id == person.profile.user_id
    # Once: the code is used, and so is the device's.
    assert poll(platform, asked) == "invalid_request"
    assert fails(person.devices.GetDevice, oauth_pb2.GetDeviceRequest(user_code=typed)).reason == "DEVICE_NOT_FOUND"
    # It renews as every session does, is listed as one, and its owner was told.
    renewed = platform.anonymous.auth.RefreshSession(auth_pb2.RefreshSessionRequest(refresh_token=answer.refresh_token))
    assert Account(platform, renewed.session.access_token).auth.GetProfile(ME)
    listed = person.sessions.ListSessions(sessions_pb2.ListSessionsRequest()).sessions
    assert sorted((s.client_id, s.client_name) for s in listed) == [("", ""), ("", ""), (CLI, COMMAND_LINE.name)]
    mailbox.to(person.email, 1, "account")


def test_haste_makes_it_slower(platform: Platform) -> None:
    asked = begin(platform)
    assert poll(platform, asked) == "authorization_pending"
    assert poll(platform, asked) == "slow_down"
    move(platform, seconds=6)  # five were enough before
    assert poll(platform, asked) == "slow_down"
    move(platform, seconds=16)
    assert poll(platform, asked) == "authorization_pending"
    # Of somebody who has been let in nobody is told to wait.
    person = member(platform)
    approve(person, asked)
    assert not isinstance(poll(platform, asked), str)


def test_a_device_that_is_turned_away_or_late(platform: Platform) -> None:
    person = member(platform)
    asked = begin(platform)
    person.devices.DenyDevice(oauth_pb2.DenyDeviceRequest(user_code=asked.user_code))
    assert poll(platform, asked) == "access_denied"
    late = begin(platform)
    move(platform, seconds=601)
    person = person.again()
    request = oauth_pb2.ApproveDeviceRequest(user_code=late.user_code)
    assert fails(person.devices.ApproveDevice, request).reason == "DEVICE_NOT_FOUND"
    assert poll(platform, late) == "expired_token"


def test_of_many_at_once_one_gets_the_session(platform: Platform) -> None:
    person, asked = member(platform), begin(platform)
    with ThreadPoolExecutor(8) as threads:
        request = oauth_pb2.ApproveDeviceRequest(user_code=asked.user_code)

        def allow(_: int) -> str:
            try:
                person.devices.ApproveDevice(request)
            except grpc.RpcError as e:
                return from_rpc_error(e).reason
            return "ok"

        # Those who are too late guess as little as anybody: some wait already.
        assert list(threads.map(allow, range(8))).count("ok") == 1
        answers = list(threads.map(lambda _: poll(platform, asked), range(8)))
    assert sum(not isinstance(answer, str) for answer in answers) == 1


def test_guessing_codes_is_slow(platform: Platform) -> None:
    person, asked = member(platform), begin(platform)
    wrong = oauth_pb2.GetDeviceRequest(user_code="BBBB-BBBB")
    for _ in range(5):
        assert fails(person.devices.GetDevice, wrong).reason == "DEVICE_NOT_FOUND"
    # Not even the right one is looked at now, by whichever call.
    for call, request in (
        (person.devices.GetDevice, oauth_pb2.GetDeviceRequest(user_code=asked.user_code)),
        (person.devices.ApproveDevice, oauth_pb2.ApproveDeviceRequest(user_code=asked.user_code)),
        (person.devices.DenyDevice, oauth_pb2.DenyDeviceRequest(user_code=asked.user_code)),
    ):
        error = fails(call, request)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CODE_LOCKED")
        assert error.retry_after is not None
    move(platform, seconds=2)
    # A right one does not make up for the wrong ones.
    person.devices.GetDevice(oauth_pb2.GetDeviceRequest(user_code=asked.user_code))
    assert fails(person.devices.GetDevice, wrong).reason == "DEVICE_NOT_FOUND"
    error = fails(person.devices.GetDevice, wrong)
    assert error.reason == "CODE_LOCKED"
    assert error.retry_after > 1  # type: ignore[operator]


def test_letting_in_takes_a_recent_proof_and_carries_it_over(platform: Platform) -> None:
    person, secret, _ = enrolled(platform)
    first = begin(platform)
    approve(person, first)
    answer = poll(platform, first)
    assert not isinstance(answer, str)
    # The device was let in by somebody with a second factor: it may do what takes one, as long as that is recent.
    device = Account(platform, answer.access_token)
    device.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k"))
    move(platform, minutes=16)
    asked = begin(platform)
    refreshed = platform.anonymous.auth.RefreshSession(
        auth_pb2.RefreshSessionRequest(refresh_token=person.session.refresh_token)
    )
    person.session.CopyFrom(refreshed.session)
    request = oauth_pb2.ApproveDeviceRequest(user_code=asked.user_code)
    assert fails(person.devices.ApproveDevice, request).reason == "STEP_UP_REQUIRED"
    again = sessions_pb2.ReauthenticateRequest(code=code_of(platform, secret))
    person.session.access_token = person.sessions.Reauthenticate(again).session.access_token
    approve(person, asked)
    # An API key lets nobody in.
    key = Account(platform, person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k")).secret)
    other = oauth_pb2.ApproveDeviceRequest(user_code=begin(platform).user_code)
    assert fails(key.devices.ApproveDevice, other).reason == "SESSION_REQUIRED"


@pytest.fixture
def tool(platform: Platform) -> tuple[Account, str]:
    """Somebody's tool for calling models, and its maker."""
    maker = platform.organisation(platform.sign_up())
    request = oauth_pb2.CreateOAuthClientRequest(name="Notebook", scopes=["inference:call", "usage:read"])
    made = maker.oauth_clients.CreateOAuthClient(request)
    assert not made.client_secret
    return maker, made.client.client_id


def test_a_tool_may_what_it_asked_for(platform: Platform, tool: tuple[Account, str]) -> None:
    maker, client_id = tool
    person = member(platform)
    asked = begin(platform, client_id, "usage:read")
    shown = person.devices.GetDevice(oauth_pb2.GetDeviceRequest(user_code=asked.user_code)).device
    assert (shown.client_name, shown.organisation) == ("Notebook", maker.profile.organisation)
    assert list(shown.scopes) == ["usage:read"]
    approve(person, asked)
    assert poll(platform, asked) == "unauthorized_client"  # it is not the command line's
    answer = poll(platform, asked, client_id)
    assert not isinstance(answer, str)
    assert answer.scope == "usage:read"

    def refused(token: str) -> str:
        return fails(Account(platform, token).auth.CreateApiKey, auth_pb2.CreateApiKeyRequest(name="k")).reason

    assert refused(answer.access_token) == "SCOPE_MISSING"
    # Renewing gives no more, by whichever call, and proving who one is does not either.
    renewed = platform.anonymous.auth.RefreshSession(
        auth_pb2.RefreshSessionRequest(refresh_token=answer.refresh_token)
    ).session
    assert refused(renewed.access_token) == "SCOPE_MISSING"
    proved = Account(platform, renewed.access_token)
    stub = Member(platform, person.email, renewed, person.profile)
    token = stub.sessions.Reauthenticate(sessions_pb2.ReauthenticateRequest(password=PASSWORD)).session.access_token
    assert refused(token) == "SCOPE_MISSING"
    assert fails(proved.devices.GetDevice, oauth_pb2.GetDeviceRequest(user_code="x")).reason == "SCOPE_MISSING"
    # It asks for no more than it was made for, and never for the account itself.
    for scope in ("models:write", "account:write"):
        request = oauth_pb2.AuthorizeDeviceRequest(client_id=client_id, scope=scope)
        assert fails(platform.anonymous.oauth.AuthorizeDevice, request).reason == "OAUTH_INVALID_SCOPE"
    whole = let_in(platform, person, client_id)
    assert whole.scope == "inference:call usage:read"


def test_tokens_of_tools_renew_and_end_over_http(platform: Platform, tool: tuple[Account, str]) -> None:
    maker, client_id = tool
    person = member(platform)
    answer = let_in(platform, person, client_id)

    def post(path: str, **fields: str) -> httpx.Response:
        return httpx.post(f"{platform.rest}/oauth/{path}", data={"client_id": client_id, **fields})

    narrow = post("token", grant_type="refresh_token", refresh_token=answer.refresh_token, scope="usage:read").json()
    assert narrow["scope"] == "usage:read"
    assert narrow["expires_in"] == 900
    wide = post("token", grant_type="refresh_token", refresh_token=narrow["refresh_token"]).json()
    assert wide["scope"] == "inference:call usage:read"
    wider = post("token", grant_type="refresh_token", refresh_token=wide["refresh_token"], scope="models:write")
    assert wider.json()["error"] == "invalid_scope"
    stolen = httpx.post(f"{platform.rest}/oauth/token", data={
        "client_id": CLI, "grant_type": "refresh_token", "refresh_token": wide["refresh_token"],
    })  # fmt: skip
    assert stolen.json()["error"] == "invalid_grant"
    device = Account(platform, wide["access_token"])
    device.auth.GetProfile(ME)
    # One used a second time ends the session, as everywhere.
    again = post("token", grant_type="refresh_token", refresh_token=narrow["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert ends(device.auth.GetProfile, ME) == "CREDENTIAL_INVALID"
    # Revoked by its tool, and ended with its tool.
    one, two, three = (let_in(platform, person, client_id) for _ in range(3))
    assert post("revoke", token=one.refresh_token).status_code == 200
    assert ends(Account(platform, one.access_token).auth.GetProfile, ME) == "CREDENTIAL_INVALID"
    assert post("revoke", token=two.access_token).status_code == 200
    gone = post("token", grant_type="refresh_token", refresh_token=two.refresh_token)
    assert gone.json()["error"] == "invalid_grant"
    maker.oauth_clients.DeleteOAuthClient(oauth_pb2.DeleteOAuthClientRequest(client_id=client_id))
    assert ends(Account(platform, three.access_token).auth.GetProfile, ME) == "CREDENTIAL_INVALID"
    assert post("device_authorization").json()["error"] == "invalid_client"


def test_a_new_password_takes_back_what_was_let_in_and_not_fetched(platform: Platform) -> None:
    person, asked = member(platform), begin(platform)
    approve(person, asked)
    change = signin_pb2.ChangePasswordRequest(current_password=PASSWORD, password="otter ledger violin 42")
    person.passwords.ChangePassword(change)
    assert poll(platform, asked) == "invalid_request"


class Page:
    """The page in a browser that keeps cookies and follows forms."""

    def __init__(self, platform: Platform) -> None:
        self.http = httpx.Client(base_url=platform.rest, follow_redirects=True)

    def open(self, url: str) -> httpx.Response:
        return self.http.get(url)

    def submit(self, page: httpx.Response, path: str, **fields: str) -> httpx.Response:
        assert f'action="{path}"' in page.text, page.text
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text))
        return self.http.post(path, data=hidden | fields)


@pytest.fixture
def page(platform: Platform) -> Iterator[Page]:
    made = Page(platform)
    yield made
    made.http.close()


def test_the_page_lets_a_device_in(platform: Platform, page: Page) -> None:
    person, secret, _ = enrolled(platform)
    asked = begin(platform)
    sessions = len(person.sessions.ListSessions(sessions_pb2.ListSessionsRequest()).sessions)
    first = page.open(asked.verification_uri_complete)
    assert f'value="{asked.user_code}"' in first.text
    who = {"user_code": asked.user_code, "email": person.email}
    wrong = page.submit(first, "/oauth/sign-in", password="wrong password", **who)
    assert "the email or the password is wrong" in wrong.text
    assert "second factor" in page.submit(wrong, "/oauth/sign-in", password=PASSWORD, **who).text
    shown = page.submit(first, "/oauth/sign-in", password=PASSWORD, code=code_of(platform, secret), **who)
    assert "command line" in shown.text
    assert f"<dd>{address(person)}</dd>" in shown.text
    assert poll(platform, asked) == "authorization_pending"
    done = page.submit(shown, "/oauth/device/decide", decision="approve")
    assert "The device is in" in done.text
    answer = poll(platform, asked)
    assert not isinstance(answer, str)
    device = Account(platform, answer.access_token)
    assert device.auth.GetProfile(ME).profile.user_id == person.profile.user_id
    device.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="k"))  # the second factor counts
    # The page's own session ended with it: there is one more than before, the device's.
    assert len(person.sessions.ListSessions(sessions_pb2.ListSessionsRequest()).sessions) == sessions + 1
    assert "mercat-page" not in page.http.cookies


def test_the_page_turns_away_and_minds_its_forms(platform: Platform, page: Page) -> None:
    person, asked = member(platform), begin(platform)
    first = page.open(asked.verification_uri_complete)
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|style=|onclick", first.text)
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    fields = {"user_code": asked.user_code, "email": person.email, "password": PASSWORD}
    # From elsewhere: without the cookie, with another's value, or as the browser says from another site.
    token = re.findall(r'name="csrf" value="([^"]+)"', first.text)[0]
    cookies = dict(page.http.cookies)
    for csrf, kept, headers in (
        (token, {}, {}), ("forged", cookies, {}), (token, cookies, {"sec-fetch-site": "cross-site"}),
    ):  # fmt: skip
        header = {"cookie": "; ".join(f"{n}={v}" for n, v in kept.items()), **headers}
        forged = httpx.post(f"{platform.rest}/oauth/sign-in", data={"csrf": csrf, **fields}, headers=header)
        assert forged.status_code == 400
        assert "not from here" in forged.text
    shown = page.submit(first, "/oauth/sign-in", **fields)
    assert "The device was turned away" in page.submit(shown, "/oauth/device/decide", decision="deny").text
    assert poll(platform, asked) == "access_denied"
    # What is typed is shown as text.
    evil = page.open('/oauth/device?user_code="><b>x')
    assert "<b>" not in evil.text
    # A code that is none, by somebody who is signed in, is a guess.
    known = page.submit(page.open("/oauth/device?user_code=BBBB-BBBB"), "/oauth/sign-in", **{
        **fields, "user_code": "BBBB-BBBB",
    })  # fmt: skip
    assert "no device waits with this code" in known.text


def test_mfa_is_untouched_by_a_tool(platform: Platform, tool: tuple[Account, str]) -> None:
    _, client_id = tool
    person, _, _ = enrolled(platform)
    answer = let_in(platform, person, client_id)
    stub = Member(platform, person.email, auth_pb2.Session(access_token=answer.access_token), person.profile)
    assert fails(stub.second.DisableTotp, mfa_pb2.DisableTotpRequest()).reason == "SCOPE_MISSING"
