"""Signing in on a page with an account elsewhere: to the provider, and back by the callback.

What proves that the answer is this browser's is a verifier (RFC 7636) in a cookie, which comes along when another site
sends the browser back. The cookies that pages go by do not then: what was answered is a page of ours, which goes on."""

from __future__ import annotations

import base64
import hashlib
import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit

from grpc import aio
from mercat.auth.v1 import identity_pb2
from starlette.responses import Response

from gateway_rest.errors import of_call
from gateway_rest.oauth import signing
from gateway_rest.oauth.browser import SIGN_IN, Browser
from gateway_rest.oauth.forms import Refused
from services.common.errors import from_status

PATH, RETURN, FACTOR = f"{SIGN_IN}/elsewhere", f"{SIGN_IN}/return", f"{SIGN_IN}/factor"
_CODE = ("SECOND_FACTOR_REQUIRED", "SECOND_FACTOR_WRONG")


async def begin(browser: Browser) -> Response:
    """By the provider whose button was pressed, or by that of an organisation's domain."""
    form = await browser.form()
    page, code = signing.goal(form)
    provider = form.get("provider", "")[:32]
    domain = "" if provider else form.get("domain", "").strip().rpartition("@")[2][:253]
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    request = identity_pb2.BeginIdentitySignInRequest(provider=provider, domain=domain, code_challenge=challenge)
    try:
        reply = identity_pb2.BeginIdentitySignInResponse
        url = (await browser.ask("IdentityService/BeginIdentitySignIn", request, reply)).authorization_url
    except aio.AioRpcError as error:
        problem = from_status(of_call(error)).message
        return await signing.ask_who(browser, page, user_code=code, problem=problem, status=400, domain=domain)
    if urlsplit(url).scheme not in ("http", "https"):
        raise Refused("the provider has no page to sign in on")
    browser.token = ""
    browser.elsewhere = urlencode({"verifier": verifier, "page": page, "user_code": code})
    return browser.show("go.html", "Sign in there", url=url, said="You sign in at your provider.")


async def come_back(browser: Browser) -> Response:
    code = browser.request.query_params.get("code", "")[:200]
    if not code:
        page, user_code = signing.goal(_attempt(browser))
        problem = "You were not signed in there."
        return await signing.ask_who(browser, page, user_code=user_code, problem=problem, status=400)
    return await _finish(browser, code)


async def second_factor(browser: Browser) -> Response:
    form = await browser.form()
    return await _finish(browser, form.get("identity_code", "")[:200], form.get("code", ""))


async def _finish(browser: Browser, identity_code: str, code: str = "") -> Response:
    attempt = _attempt(browser)
    page, user_code = signing.goal(attempt)
    request = identity_pb2.SignInWithIdentityRequest(
        identity_code=identity_code, code_verifier=attempt["verifier"], code=code
    )
    browser.token = ""
    try:
        reply = identity_pb2.SignInWithIdentityResponse
        signed = await browser.ask("IdentityService/SignInWithIdentity", request, reply)
    except aio.AioRpcError as error:
        refused = from_status(of_call(error))
        if refused.reason in _CODE:
            problem, status = (refused.message, 400) if code else ("", 200)
            return browser.show(
                "factor.html", "Your second factor", problem=problem, status=status, identity_code=identity_code
            )
        return await signing.ask_who(browser, page, user_code=user_code, problem=refused.message, status=400)
    browser.token, browser.elsewhere = signed.session.access_token, ""
    return browser.show("go.html", "Signed in", url=signing.path_of(page, user_code), said="You are signed in.")


def _attempt(browser: Browser) -> dict[str, str]:
    """What this browser began. Raises Refused when it has not, or too long ago."""
    found = dict(parse_qsl(browser.elsewhere))
    if not found.get("verifier"):
        raise Refused(f"this sign-in was not begun here, or is too old; begin anew at {browser.home}")
    return found
