"""Signing in on a page before it goes on: `page` says where to."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode

from grpc import aio
from mercat.auth.v1 import auth_pb2, sessions_pb2
from starlette.responses import Response

from gateway_rest.errors import of_call
from gateway_rest.oauth.browser import Browser
from services.common.errors import from_status

PATH, OUT = "/oauth/sign-in", "/oauth/sign-out"
DEVICE = "device"
_TITLES = {DEVICE: "Let a device in"}
# Reasons for which somebody signs in (again).
AGAIN = ("CREDENTIAL_INVALID", "CREDENTIAL_MISSING", "STEP_UP_REQUIRED", "SCOPE_MISSING")


async def ask_who(
    browser: Browser, page: str, *, user_code: str = "", email: str = "", problem: str = "", status: int = 200
) -> Response:
    """The page to sign in on."""
    browser.token = ""
    return browser.show(
        "sign_in.html", _TITLES[page], problem=problem, status=status, page=page, user_code=user_code, email=email,
    )  # fmt: skip


async def sign_in(browser: Browser) -> Response:
    form = await browser.form()
    page, code = form.get("page", ""), form.get("user_code", "")[:20]
    page = page if page in _TITLES else DEVICE
    request = auth_pb2.SignInRequest(
        email=form.get("email", ""), password=form.get("password", ""), code=form.get("code", "")
    )
    browser.token = ""
    try:
        signed = await browser.ask("AuthService/SignIn", request, auth_pb2.SignInResponse)
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
