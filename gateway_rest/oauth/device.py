"""The page where somebody lets a device in (RFC 8628, 3.3): they sign in, see who asks, and say yes or no."""

from __future__ import annotations

from grpc import aio
from mercat.auth.v1 import oauth_pb2
from starlette.responses import Response

from gateway_rest.errors import of_call
from gateway_rest.oauth import signing
from gateway_rest.oauth.browser import Browser
from services.common.errors import MercatError, from_status

PATH, DECIDE = "/oauth/device", "/oauth/device/decide"


async def device(browser: Browser) -> Response:
    code = browser.request.query_params.get("user_code", "")[:20]
    if not browser.token:
        return await signing.ask_who(browser, signing.DEVICE, user_code=code)
    if not code:
        return browser.show("code.html", "Let a device in")
    try:
        asked = oauth_pb2.GetDeviceRequest(user_code=code)
        found = (await browser.ask("DeviceService/GetDevice", asked, oauth_pb2.GetDeviceResponse)).device
    except aio.AioRpcError as error:
        return await _failed(browser, code, from_status(of_call(error)))
    return browser.show("device.html", "Let a device in", user_code=code, device=found)


async def decide(browser: Browser) -> Response:
    form = await browser.form()
    code, approved = form.get("user_code", "")[:20], form.get("decision") == "approve"
    try:
        if approved:
            request = oauth_pb2.ApproveDeviceRequest(user_code=code)
            await browser.ask("DeviceService/ApproveDevice", request, oauth_pb2.ApproveDeviceResponse)
        else:
            turned = oauth_pb2.DenyDeviceRequest(user_code=code)
            await browser.ask("DeviceService/DenyDevice", turned, oauth_pb2.DenyDeviceResponse)
    except aio.AioRpcError as error:
        return await _failed(browser, code, from_status(of_call(error)))
    await signing.end(browser)
    said = "The device is in; go on there. You can close this page." if approved else "The device was turned away."
    return browser.show("done.html", "Done", said=said)


async def _failed(browser: Browser, code: str, error: MercatError) -> Response:
    if error.reason in signing.AGAIN:
        problem = "" if error.reason.startswith("CREDENTIAL") else error.message
        return await signing.ask_who(browser, signing.DEVICE, user_code=code, problem=problem)
    if error.reason == "DEVICE_NOT_FOUND":
        return await signing.ask_who(browser, signing.DEVICE, problem=error.message, status=404)
    return browser.show("done.html", "Not let in", problem=error.message, status=400, said="Begin anew on the device.")
