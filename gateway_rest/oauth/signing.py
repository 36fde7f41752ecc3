"""Signing in on a page, by password or passkey, before it goes on: `page` says where to."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode

from google.protobuf.message import Message
from grpc import aio
from mercat.auth.v1 import auth_pb2, passkey_pb2, sessions_pb2
from starlette.responses import Response

from gateway_rest.errors import of_call
from gateway_rest.oauth.browser import Browser
from services.common.errors import from_status

PATH, BY_PASSKEY, OUT = "/oauth/sign-in", "/oauth/sign-in/passkey", "/oauth/sign-out"
DEVICE, PASSKEYS = "device", "passkeys"
_TITLES = {DEVICE: "Let a device in", PASSKEYS: "Your passkeys"}
# Reasons for which somebody signs in (again).
AGAIN = ("CREDENTIAL_INVALID", "CREDENTIAL_MISSING", "STEP_UP_REQUIRED", "SCOPE_MISSING")


async def ask_who(
    browser: Browser, page: str, *, user_code: str = "", email: str = "", problem: str = "", status: int = 200
) -> Response:
    """The page to sign in on; without passkeys when they cannot be asked for just now."""
    browser.token = options = ""
    with suppress(aio.AioRpcError):
        begin = passkey_pb2.BeginPasskeySignInRequest()
        rpc, reply = "PasskeyService/BeginPasskeySignIn", passkey_pb2.BeginPasskeySignInResponse
        options = (await browser.ask(rpc, begin, reply)).options
    return browser.show(
        "sign_in.html", _TITLES[page], problem=problem, status=status, page=page, user_code=user_code, email=email,
        options=options,
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
    page, code = form.get("page", ""), form.get("user_code", "")[:20]
    page = page if page in _TITLES else PASSKEYS
    browser.token = ""
    try:
        signed = await browser.ask(rpc, request, reply)
    except aio.AioRpcError as error:
        problem = from_status(of_call(error)).message
        return await ask_who(browser, page, user_code=code, email=form.get("email", ""), problem=problem, status=400)
    browser.token = signed.session.access_token
    return browser.go(f"/oauth/{page}" + (f"?{urlencode({'user_code': code})}" if code else ""))


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
