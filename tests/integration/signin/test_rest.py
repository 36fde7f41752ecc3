"""The same over REST, as a page in a browser would."""

import httpx
from mercat.auth.v1 import auth_pb2

from tests.integration.signin.people import Mailbox, code_of, enrolled, member, move
from tests.platform import PASSWORD, Platform


def test_an_account_over_rest(platform: Platform, mailbox: Mailbox) -> None:
    person = member(platform)
    with httpx.Client(base_url=platform.rest, timeout=30, headers={"user-agent": "Browser/1.0"}) as browser:
        assert browser.post("/v1/email:verify", json={"code": "aaaa-aaaa-aaaa-aaaa"}).status_code == 400
        assert browser.post("/v1/email:verify", json={"code": mailbox.code(person.email)}).json() == {}
        signed = browser.post("/v1/signin", json={"email": person.email, "password": PASSWORD}).json()
        assert signed["profile"]["isVerified"] is True
        browser.headers["authorization"] = f"Bearer {signed['session']['accessToken']}"
        sessions = browser.get("/v1/sessions").json()["sessions"]
        assert sessions[0]["userAgent"] == "Browser/1.0"
        assert sessions[0]["current"] is True
        other = sessions[1]["sessionId"]
        assert browser.post(f"/v1/sessions/{other}:revoke", json={}).json() == {}
        assert browser.post(f"/v1/sessions/{other}:revoke", json={}).status_code == 404
        assert browser.post("/v1/sessions:revokeOthers", json={}).json()["revokedCount"] == 1
        assert browser.get("/v1/second-factor").json()["enabled"] is False
        changed = {"currentPassword": PASSWORD, "password": "otter ledger violin 42"}
        assert browser.post("/v1/password:change", json=changed).json() == {}
        assert browser.post("/v1/password:requestReset", json={"email": person.email}).json() == {}
        code = mailbox.code(person.email, subject="new password")
        assert browser.post("/v1/password:reset", json={"code": code, "password": PASSWORD}).json() == {}
        assert browser.get("/v1/sessions").status_code == 401


def test_a_second_factor_over_rest(platform: Platform) -> None:
    person, secret, _ = enrolled(platform)
    body = {"email": person.email, "password": PASSWORD}
    with httpx.Client(base_url=platform.rest, timeout=30) as browser:
        refused = browser.post("/v1/signin", json=body)
        assert (refused.status_code, _reason(refused)) == (401, "SECOND_FACTOR_REQUIRED")
        session = browser.post("/v1/signin", json=body | {"code": code_of(platform, secret)}).json()["session"]
        move(platform, minutes=16)
        session = browser.post("/v1/sessions:refresh", json={"refreshToken": session["refreshToken"]}).json()["session"]
        browser.headers["authorization"] = f"Bearer {session['accessToken']}"
        refused = browser.post("/v1/keys", json={"name": "k"})
        assert (refused.status_code, _reason(refused)) == (401, "STEP_UP_REQUIRED")
        code = {"code": code_of(platform, secret)}
        fresh = browser.post("/v1/sessions:reauthenticate", json=code).json()["session"]["accessToken"]
        browser.headers["authorization"] = f"Bearer {fresh}"
        assert browser.post("/v1/keys", json={"name": "k"}).json()["secret"].startswith("mk_live_")
        assert browser.post("/v1/second-factor:disable", json={}).json() == {}
        assert person.again().account.auth.GetProfile(auth_pb2.GetProfileRequest()).profile.email == person.email


def _reason(response: httpx.Response) -> str:
    return next(d["reason"] for d in response.json()["error"]["details"] if d["@type"].endswith("ErrorInfo"))
