"""The page where people add passkeys and remove them."""

from __future__ import annotations

from grpc import aio
from mercat.auth.v1 import passkey_pb2
from starlette.responses import Response

from gateway_rest.errors import of_call
from gateway_rest.oauth import signing
from gateway_rest.oauth.browser import Browser
from services.common.errors import MercatError, from_status

PATH, ADD, REMOVE = "/oauth/passkeys", "/oauth/passkeys/add", "/oauth/passkeys/remove"


async def passkeys(browser: Browser) -> Response:
    return await _list(browser)


async def _list(browser: Browser, *, problem: str = "", status: int = 200) -> Response:
    if not browser.token:
        return await signing.ask_who(browser, signing.PASSKEYS)
    try:
        listing = passkey_pb2.ListPasskeysRequest(page_size=100)
        found = await browser.ask("PasskeyService/ListPasskeys", listing, passkey_pb2.ListPasskeysResponse)
        begin = passkey_pb2.BeginPasskeyRegistrationRequest()
        rpc, reply = "PasskeyService/BeginPasskeyRegistration", passkey_pb2.BeginPasskeyRegistrationResponse
        options = (await browser.ask(rpc, begin, reply)).options
    except aio.AioRpcError as error:
        return await _failed(browser, from_status(of_call(error)))
    return browser.show(
        "passkeys.html", "Your passkeys", problem=problem, status=status, passkeys=found.passkeys, options=options
    )


async def add(browser: Browser) -> Response:
    form = await browser.form()
    request = passkey_pb2.RegisterPasskeyRequest(credential=form.get("credential", ""), name=form.get("name", ""))
    try:
        await browser.ask("PasskeyService/RegisterPasskey", request, passkey_pb2.RegisterPasskeyResponse)
    except aio.AioRpcError as error:
        return await _changed(browser, from_status(of_call(error)))
    return browser.go(PATH)


async def remove(browser: Browser) -> Response:
    form = await browser.form()
    request = passkey_pb2.DeletePasskeyRequest(passkey_id=form.get("passkey_id", ""))
    try:
        await browser.ask("PasskeyService/DeletePasskey", request, passkey_pb2.DeletePasskeyResponse)
    except aio.AioRpcError as error:
        return await _changed(browser, from_status(of_call(error)))
    return browser.go(PATH)


async def _changed(browser: Browser, error: MercatError) -> Response:
    if error.reason in signing.AGAIN:
        return await _failed(browser, error)
    return await _list(browser, problem=error.message, status=400)


async def _failed(browser: Browser, error: MercatError) -> Response:
    if error.reason in signing.AGAIN:
        problem = "" if error.reason.startswith("CREDENTIAL") else error.message
        return await signing.ask_who(browser, signing.PASSKEYS, problem=problem)
    return browser.show("done.html", "Not now", problem=error.message, status=400, said="Open the page again.")
