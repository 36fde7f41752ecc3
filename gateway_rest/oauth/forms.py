"""The endpoints that programs call: a form in, and JSON or an error of OAuth's out (RFC 6749, 5)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus

from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import aio
from mercat.auth.v1 import oauth_pb2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway_rest import exchange, upstream
from gateway_rest.caller import Callers
from gateway_rest.errors import HTTP_STATUS, Refusal, of_call
from gateway_rest.openai.calls import Call
from gateway_rest.replies import JSON
from gateway_rest.settings import GatewaySettings
from services.common.errors import from_status

_HEADERS = {"cache-control": "no-store", "pragma": "no-cache"}
_MOST = 64 * 1024  # bytes
_SERVICE = "/mercat.auth.v1.OAuthService/"


@dataclass(frozen=True)
class Endpoint:
    """An RPC whose request's fields are the form's parameters."""

    rpc: str
    request: type[Message]
    reply: type[Message]


ENDPOINTS = {
    "/oauth/token": Endpoint("IssueToken", oauth_pb2.IssueTokenRequest, oauth_pb2.IssueTokenResponse),
    "/oauth/device_authorization": Endpoint(
        "AuthorizeDevice", oauth_pb2.AuthorizeDeviceRequest, oauth_pb2.AuthorizeDeviceResponse
    ),
    "/oauth/introspect": Endpoint(
        "IntrospectToken", oauth_pb2.IntrospectTokenRequest, oauth_pb2.IntrospectTokenResponse
    ),
    "/oauth/revoke": Endpoint("RevokeToken", oauth_pb2.RevokeTokenRequest, oauth_pb2.RevokeTokenResponse),
}


class Refused(Exception):
    """An error of OAuth's."""

    def __init__(self, error: str, description: str = "", http: int = 400) -> None:
        super().__init__(error)
        self.error, self.description, self.http = error, description, http

    def response(self, headers: Mapping[str, str]) -> Response:
        said = {"error": self.error} | ({"error_description": _plain(self.description)} if self.description else {})
        more = {"www-authenticate": 'Basic realm="mercat"'} if self.http == 401 else {}
        return Response(json.dumps(said), self.http, {**headers, **_HEADERS, **more}, media_type=JSON)


def _plain(text: str) -> str:
    """What a description may hold."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "'" if c in '"\\`' else "?" for c in text)


async def parameters(request: Request) -> dict[str, str]:
    """Those of the form that are not empty. Raises Refused for one that comes twice (RFC 6749, 3.1), Refusal for a body
    that is too large or compressed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused("invalid_request", "send a form: application/x-www-form-urlencoded")
    exchange.plain(request)
    body = await exchange.body(request, _MOST)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50, errors="strict")
    except ValueError:
        raise Refused("invalid_request", "the form cannot be read") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise Refused("invalid_request", f"{name} comes twice")
        found[name] = value
    return {name: value for name, value in found.items() if value}


def with_basic(found: dict[str, str], header: str) -> dict[str, str]:
    """With the client's id and secret of an `authorization: Basic` header, which are form-encoded before they are
    base64 (RFC 6749, 2.3.1)."""
    if not header:
        return found
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise Refused("invalid_client", "authenticate with HTTP Basic, or client_id and client_secret in the form", 401)
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # no base64, or of no text
        name = colon = secret = ""
    if not colon:
        raise Refused("invalid_client", "the authorization header cannot be read", 401)
    name, secret = unquote_plus(name), unquote_plus(secret)
    if "client_secret" in found or found.get("client_id", name) != name:
        raise Refused("invalid_request", "authenticate in one way")
    return found | {"client_id": name, "client_secret": secret}


async def read(endpoint: Endpoint, request: Request) -> Message:
    """The request that the form is. Raises Refused, Refusal."""
    found = with_basic(await parameters(request), request.headers.get("authorization", ""))
    known = {field.name for field in endpoint.request.DESCRIPTOR.fields}  # `fields_by_name` takes a NUL for an end
    return endpoint.request(**{name: value for name, value in found.items() if name in known})


def refused(status_error: aio.AioRpcError) -> tuple[Refused, dict[str, str]]:
    """What a failed call is in OAuth's words, and the headers that go with it."""
    error = from_status(of_call(status_error))
    http = HTTP_STATUS.get(error.code.value[0], 500)
    said = upstream.headers_of(status_error.initial_metadata(), status_error.trailing_metadata())
    if error.reason.startswith("OAUTH_"):
        code = error.reason.removeprefix("OAUTH_").lower()
        return Refused(code, error.message, 401 if code == "invalid_client" else 400), said
    if http in (429, 503):
        return Refused("temporarily_unavailable", error.message, http), said
    if http >= 500:
        return Refused("server_error", error.message, http), said
    return Refused("invalid_request", error.message), said


class _Served:
    def __init__(self, endpoint: Endpoint, settings: GatewaySettings, calls: Callable[[], upstream.Upstream]) -> None:
        self._endpoint, self._settings, self._calls = endpoint, settings, calls
        self._callers = Callers(settings)

    async def answer(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Refused as error:
            return error.response({})
        except Refusal as refusal:
            return Refused("invalid_request", refusal.status.message, refusal.http or 400).response({})
        except aio.AioRpcError as error:
            known, said = refused(error)
            return known.response(said)
        except ClientDisconnect:
            return Response(status_code=499)

    async def _answer(self, request: Request) -> Response:
        endpoint = self._endpoint
        message = await read(endpoint, request)
        call = Call(request, self._calls(), without_credential(self._callers.metadata(request)), self._settings)
        reply, said = await call.ask(f"{_SERVICE}{endpoint.rpc}", message, endpoint.reply)
        return Response(json.dumps(shown(reply)), 200, {**said, **_HEADERS}, media_type=JSON)


def without_credential(said: upstream.Metadata) -> upstream.Metadata:
    """Without the client's own credential, which is none of the platform's."""
    return [(name, value) for name, value in said if name not in ("authorization", "x-api-key")]


def shown(reply: Message) -> dict[str, object]:
    """A reply in OAuth's form: names as they are, numbers as numbers, and nothing that is empty but `active`."""
    said = json_format.MessageToDict(reply, preserving_proto_field_name=True)
    if isinstance(reply, oauth_pb2.IntrospectTokenResponse):
        said = {"active": False} | said | ({"exp": reply.exp} if reply.exp else {})
    return said


def routes(settings: GatewaySettings, calls: Callable[[], upstream.Upstream]) -> list[Route]:
    return [
        Route(path, _Served(endpoint, settings, calls).answer, methods=["POST"]) for path, endpoint in ENDPOINTS.items()
    ]
