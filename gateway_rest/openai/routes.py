"""The paths of the dialect, and what is the same around each of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from grpc import aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway_rest import replies, upstream
from gateway_rest.caller import Callers
from gateway_rest.errors import Refusal, of_call
from gateway_rest.openai import chat, completions, embeddings, errors, models
from gateway_rest.openai.calls import Call
from gateway_rest.openai.errors import Invalid
from gateway_rest.settings import GatewaySettings
from gateway_rest.transcode import dumps
from services.common.errors import Internal, MercatError, from_status, to_status

log = logging.getLogger(__name__)

Endpoint: TypeAlias = Callable[[Call], Awaitable[Response]]
_REQUEST_ID = "mercat-request-id"


async def _unknown(call: Call) -> Response:
    raise Invalid(f"Unknown request URL: {call.request.method} {call.request.url.path}.", code="unknown_url", http=404)


# A method, a path below /openai/v1, its endpoint, and the contract's fields by the dialect's names.
ROUTES: list[tuple[str, str, Endpoint, Mapping[str, str]]] = [
    ("POST", "/chat/completions", chat.chat, chat.PARAMS),
    ("POST", "/completions", completions.completions, completions.PARAMS),
    ("POST", "/embeddings", embeddings.embeddings, embeddings.PARAMS),
    ("GET", "/models", models.models, models.PARAMS),
    ("GET", "/models/{model:path}", models.model, models.PARAMS),
]


class _Served:
    """An endpoint with its errors in OpenAI's form. A class, so that its route takes every method it is given."""

    def __init__(
        self,
        endpoint: Endpoint,
        params: Mapping[str, str],
        settings: GatewaySettings,
        calls: Callable[[], upstream.Upstream],
    ) -> None:
        self._endpoint, self._params, self._settings, self._calls = endpoint, params, settings, calls
        self._callers = Callers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        if _REQUEST_ID in response.headers:
            response.headers["x-request-id"] = response.headers[_REQUEST_ID]
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            metadata = self._callers.metadata(request)
            return await self._endpoint(Call(request, self._calls(), metadata, self._settings))
        except Invalid as invalid:
            return errors.refused(invalid)
        except Refusal as refusal:
            return self._failed(from_status(refusal.status), {}, refusal.http)
        except aio.AioRpcError as error:
            said = upstream.headers_of(error.initial_metadata(), error.trailing_metadata())
            return self._failed(from_status(of_call(error)), said)
        except ClientDisconnect:
            raise
        except Exception as error:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
            return self._failed(from_status(to_status(Internal("an internal error", reason="INTERNAL"))), {})

    def _failed(self, error: MercatError, said: Mapping[str, str], http: int | None = None) -> Response:
        status, headers, shown = errors.shown(error, self._params, http)
        return Response(dumps(shown), status, {**headers, **said}, media_type=replies.JSON)


def routes(settings: GatewaySettings, calls: Callable[[], upstream.Upstream]) -> list[Route]:
    """`calls` gives the services once the application runs."""
    made = [
        Route(f"/openai/v1{path}", _Served(endpoint, params, settings, calls), methods=[method])
        for method, path, endpoint, params in ROUTES
    ]
    return [*made, Route("/openai/{path:path}", _Served(_unknown, {}, settings, calls))]
