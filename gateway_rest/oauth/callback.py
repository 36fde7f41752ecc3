"""Where providers send people back to, and where they go on to: the program that they signed in for."""

from __future__ import annotations

from grpc import aio
from mercat.auth.v1 import identity_pb2
from starlette.responses import RedirectResponse, Response

from gateway_rest.errors import of_call
from gateway_rest.oauth.browser import HEADERS, Browser
from services.common.errors import from_status

PATH = "/oauth/callback"


async def callback(browser: Browser) -> Response:
    said = browser.request.query_params
    request = identity_pb2.CompleteIdentitySignInRequest(
        state=said.get("state", ""), code=said.get("code", ""), error=said.get("error", "")[:200]
    )
    browser.token = ""
    rpc, reply = "IdentityService/CompleteIdentitySignIn", identity_pb2.CompleteIdentitySignInResponse
    try:
        answer = await browser.ask(rpc, request, reply)
    except aio.AioRpcError as error:
        problem = from_status(of_call(error)).message
        return browser.show("done.html", "Not signed in", problem=problem, status=400, said="Begin anew.")
    return RedirectResponse(answer.redirect_uri, 302, HEADERS)
