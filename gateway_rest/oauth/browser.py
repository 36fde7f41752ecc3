"""What pages need of a browser: answers that only show what is ours, forms that only come from our pages, and a sign-in
that lasts as long as the page is used.

A page's sign-in is an access token in a cookie that no script reads and no other site's request carries. The cookie of
an attempt elsewhere is the one that comes along when another site sends the browser back."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from functools import cache
from typing import Any, Literal, TypeVar

from google.protobuf.message import Message
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gateway_rest import upstream
from gateway_rest.caller import Callers
from gateway_rest.oauth.forms import Refused, parameters, without_credential
from gateway_rest.openai.calls import Call
from gateway_rest.settings import GatewaySettings

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
FORGED, SIGNED_IN, ELSEWHERE = "mercat-form", "mercat-page", "mercat-elsewhere"
SIGN_IN = "/oauth/sign-in"
_MINUTES = 15 * 60  # seconds that an access token is good
M = TypeVar("M", bound=Message)


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("gateway_rest.oauth"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


class Browser:
    """One request of a page, and the platform as its person."""

    def __init__(self, request: Request, settings: GatewaySettings, calls: upstream.Upstream) -> None:
        self.request = request
        self._settings = settings
        self._calls = calls
        self.token = request.cookies.get(SIGNED_IN, "")
        self.secret = request.cookies.get(FORGED) or secrets.token_urlsafe(24)
        self.elsewhere = request.cookies.get(ELSEWHERE, "")  # an attempt that is under way
        self.headers: dict[str, str] = {}  # of the last answer

    async def form(self) -> dict[str, str]:
        """The form's fields. Raises Refused when it is not from a page of ours."""
        found = await parameters(self.request)
        ours = hmac.compare_digest(found.get("csrf", "").encode(), self.request.cookies.get(FORGED, "").encode())
        site = self.request.headers.get("sec-fetch-site", "same-origin")
        if not found.get("csrf") or not ours or site not in ("same-origin", "none"):
            raise Refused("this form is too old, or not from here; open the page again")
        return found

    async def ask(self, rpc: str, message: Message, reply: type[M]) -> M:
        """The answer of a call as the person who is signed in, if anybody is. Raises AioRpcError."""
        metadata = without_credential(Callers(self._settings).metadata(self.request))
        if self.token:
            metadata.append(("authorization", f"Bearer {self.token}"))
        call = Call(self.request, self._calls, metadata, self._settings)
        answer, self.headers = await call.ask(f"/mercat.auth.v1.{rpc}", message, reply)
        return answer

    def show(self, template: str, title: str, *, problem: str = "", status: int = 200, **values: Any) -> Response:
        text = _templates().get_template(template).render(title=title, problem=problem, csrf=self.secret, **values)
        return self.kept(HTMLResponse(text, status, HEADERS))

    def go(self, path: str) -> Response:
        return self.kept(RedirectResponse(path, 303, HEADERS))

    def kept(self, response: Response) -> Response:
        """With the cookies as they are from now on."""
        self._cookie(response, FORGED, self.secret)
        if self.token:
            self._cookie(response, SIGNED_IN, self.token)
        elif SIGNED_IN in self.request.cookies:
            response.delete_cookie(SIGNED_IN, path="/oauth")
        if self.elsewhere:
            self._cookie(response, ELSEWHERE, self.elsewhere, path=SIGN_IN, samesite="lax")
        elif ELSEWHERE in self.request.cookies:
            response.delete_cookie(ELSEWHERE, path=SIGN_IN)
        return response

    def _cookie(
        self, response: Response, name: str, value: str, path: str = "/oauth",
        samesite: Literal["lax", "strict"] = "strict",
    ) -> None:  # fmt: skip
        response.set_cookie(
            name, value, max_age=_MINUTES, path=path, httponly=True, samesite=samesite, secure=self.secure
        )

    @property
    def home(self) -> str:
        """The address that cookies of an attempt elsewhere are good at: providers know no other."""
        return f"{self._settings.url}/oauth/device"

    @property
    def secure(self) -> bool:
        """Whether the browser came by TLS; a cookie that is for TLS alone would be lost elsewhere."""
        return (
            self._settings.url.startswith("https://")
            or self.request.url.scheme == "https"
            or self.request.headers.get("x-forwarded-proto") == "https"
        )

    @property
    def session_id(self) -> str:
        """Of the token, unchecked: for asking that it be ended."""
        try:
            payload = self.token.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        except (IndexError, ValueError, binascii.Error):
            return ""
        return str(claims.get("sid", "")) if isinstance(claims, dict) else ""
