"""The pages, where they are, and what their failures look like."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway_rest.errors import Refusal
from gateway_rest.oauth import callback, device, elsewhere, passkeys, signing
from gateway_rest.oauth.browser import HEADERS, Browser
from gateway_rest.oauth.forms import Refused
from gateway_rest.settings import GatewaySettings
from gateway_rest.upstream import Upstream

Page = Callable[[Browser], Awaitable[Response]]
PAGES: list[tuple[str, str, Page]] = [
    ("GET", device.PATH, device.device),
    ("POST", device.DECIDE, device.decide),
    ("GET", passkeys.PATH, passkeys.passkeys),
    ("POST", passkeys.ADD, passkeys.add),
    ("POST", passkeys.REMOVE, passkeys.remove),
    ("POST", signing.PATH, signing.sign_in),
    ("POST", signing.BY_PASSKEY, signing.by_passkey),
    ("POST", elsewhere.PATH, elsewhere.begin),
    ("GET", elsewhere.RETURN, elsewhere.come_back),
    ("POST", elsewhere.FACTOR, elsewhere.second_factor),
    ("POST", signing.OUT, signing.sign_out),
    ("GET", callback.PATH, callback.callback),
]
ASSETS = {"style.css": "text/css", "passkeys.js": "text/javascript"}


class _Served:
    """A page with its failures as pages."""

    def __init__(self, page: Page, settings: GatewaySettings, calls: Callable[[], Upstream]) -> None:
        self._page, self._settings, self._calls = page, settings, calls

    async def answer(self, request: Request) -> Response:
        browser = Browser(request, self._settings, self._calls())
        try:
            return await self._page(browser)
        except (Refused, Refusal) as error:
            problem = error.status.message if isinstance(error, Refusal) else error.description or error.error
            return browser.show("done.html", "Not so", problem=problem, status=400, said="Open the page again.")
        except ClientDisconnect:
            return Response(status_code=499)


def _asset(name: str, kind: str) -> Route:
    text = (Path(__file__).parent / name).read_text()

    async def serve(request: Request) -> Response:
        return Response(text, headers=HEADERS | {"cache-control": "max-age=300"}, media_type=kind)

    return Route(f"/oauth/{name}", serve)


def routes(settings: GatewaySettings, calls: Callable[[], Upstream]) -> list[Route]:
    return [
        *(_asset(name, kind) for name, kind in ASSETS.items()),
        *(Route(path, _Served(page, settings, calls).answer, methods=[verb]) for verb, path, page in PAGES),
    ]
