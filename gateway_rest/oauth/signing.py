"""Signing in on a page, by password, passkey or an account elsewhere, before it goes on: `page` says where to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlencode

from google.protobuf.message import Message
from grpc import aio
from mercat.auth.v1 import auth_pb2, identity_pb2, passkey_pb2, sessions_pb2
from starlette.responses import Response

from gateway_rest.errors import of_call
from gateway_rest.oauth.browser import SIGN_IN, Browser
from services.common.errors import from_status

PATH, BY_PASSKEY, OUT = SIGN_IN, f"{SIGN_IN}/passkey", "/oauth/sign-out"
DEVICE, PASSKEYS = "device", "passkeys"
_TITLES = {DEVICE: "Let a device in", PASSKEYS: "Your passkeys"}
# Reasons for which somebody signs in (again).
AGAIN = ("CREDENTIAL_INVALID", "CREDENTIAL_MISSING", "STEP_UP_REQUIRED", "SCOPE_MISSING")


async def ask_who(
    browser: Browser, page: str, *, user_code: str = "", email: str = "", problem: str = "", status: int = 200,
    domain: str = "",
) -> Response:  # fmt: skip
    """The page to sign in on; without passkeys and accounts elsewhere when they cannot be asked for just now. `domain`:
    of an organisation by which they sign in."""
    browser.token = browser.elsewhere = options = ""
    providers: Sequence[identity_pb2.IdentityProvider] = ()
    with suppress(aio.AioRpcError):
        begin = passkey_pb2.BeginPasskeySignInRequest()
        rpc, reply = "PasskeyService/BeginPasskeySignIn", passkey_pb2.BeginPasskeySignInResponse
        options = (await browser.ask(rpc, begin, reply)).options
        listed = identity_pb2.ListIdentityProvidersRequest()
        known = identity_pb2.ListIdentityProvidersResponse
        providers = (await browser.ask("IdentityService/ListIdentityProviders", listed, known)).providers
    return browser.show(
        "sign_in.html", _TITLES[page], problem=problem, status=status, page=page, user_code=user_code, email=email,
        options=options, providers=providers, domain=domain,
    )  # fmt: skip


async def sign_in(browser: Browser) -> Response:
    form = await browser.form()
    request = auth_pb2.SignInRequest(
        email=form.get("email", ""), password=form.get("password", ""), code=form.get("code", "")
    )
    return await _signed_in(browser, form, "AuthService/SignIn", request, auth_pb2.SignInResponse)


async def by_passkey(browser: Browser) -> Response:
    form = await browser.form()
    request = passkey_pb2.SignInWithPasskeyRequest(credential=form.get("credential", ""))
    reply = passkey_pb2.SignInWithPasskeyResponse
    return await _signed_in(browser, form, "PasskeyService/SignInWithPasskey", request, reply)


async def _signed_in(
    browser: Browser, form: dict[str, str], rpc: str, request: Message,
    reply: type[auth_pb2.SignInResponse] | type[passkey_pb2.SignInWithPasskeyResponse],
) -> Response:  # fmt: skip
    page, code = goal(form)
    browser.token = ""
    try:
        signed = await browser.ask(rpc, request, reply)
    except aio.AioRpcError as error:
        refused = from_status(of_call(error))
        return await ask_who(
            browser, page, user_code=code, email=form.get("email", ""), problem=refused.message, status=400,
            domain=refused.metadata.get("domain", "") if refused.reason == "SSO_REQUIRED" else "",
        )  # fmt: skip
    browser.token = signed.session.access_token
    return browser.go(path_of(page, code))


def goal(form: Mapping[str, str]) -> tuple[str, str]:
    """Where somebody goes on, and the code of the device that waits there."""
    page = form.get("page", "")
    return page if page in _TITLES else PASSKEYS, form.get("user_code", "")[:20]


def path_of(page: str, user_code: str) -> str:
    return f"/oauth/{page}" + (f"?{urlencode({'user_code': user_code})}" if user_code else "")


async def end(browser: Browser) -> None:
    """Ends the page's session; it has done what it was for."""
    request = sessions_pb2.RevokeSessionRequest(session_id=browser.session_id)
    with suppress(aio.AioRpcError):  # it ends by itself, and the browser forgets its token in any case
        await browser.ask("SessionService/RevokeSession", request, sessions_pb2.RevokeSessionResponse)
    browser.token = ""


async def sign_out(browser: Browser) -> Response:
    await browser.form()
    await end(browser)
    return browser.show("done.html", "Signed out", said="You can close this page.")
