"""The paths of tus, and what is the same around each of them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from grpc import aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway_rest import exchange, replies, upstream
from gateway_rest.caller import Callers
from gateway_rest.errors import Refusal, of_call
from gateway_rest.settings import GatewaySettings
from gateway_rest.tus import endpoints
from gateway_rest.tus.call import Call
from gateway_rest.tus.headers import VERSION
from services.common.errors import FailedPrecondition, Internal, InvalidArgument, to_status

log = logging.getLogger(__name__)

# By reason, where tus has an HTTP status of its own.
_STATUS = {
    "UPLOAD_OFFSET": 409, "UPLOAD_COMPLETE": 409, "UPLOAD_BUSY": 423, "UPLOAD_TOO_LONG": 413, "CHECKSUM_MISMATCH": 460,
    "UPLOAD_CORRUPT": 460,
}  # fmt: skip

Endpoint: TypeAlias = Callable[[Call], Awaitable[Response]]


class _Served:
    """The endpoints of a path, by method. A class, so that its route takes every method it is given."""

    def __init__(
        self, endpoints: dict[str, Endpoint], settings: GatewaySettings, calls: Callable[[], upstream.Upstream]
    ) -> None:  # fmt: skip
        self._endpoints, self._calls, self._callers = endpoints, calls, Callers(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        response.headers["tus-resumable"] = VERSION
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        method = request.headers.get("x-http-method-override", request.method).upper()
        if method == "OPTIONS":
            return await endpoints.options(request)
        try:
            endpoint = self._endpoints.get(method)
            if endpoint is None:
                text = f"{request.url.path} takes {', '.join(self._endpoints)}"
                raise Refusal(InvalidArgument(text, reason="NO_SUCH_PATH"), 405, {"allow": ", ".join(self._endpoints)})
            if request.headers.get("tus-resumable") != VERSION:
                text = f"say Tus-Resumable: {VERSION}"
                raise Refusal(FailedPrecondition(text, reason="TUS_VERSION"), 412, {"tus-version": VERSION})
            exchange.plain(request)
            return await endpoint(Call(request, self._calls(), self._callers.metadata(request, streams=True)))
        except Refusal as refusal:
            return replies.refused(refusal)
        except aio.AioRpcError as error:
            headers = upstream.headers_of(error.initial_metadata(), error.trailing_metadata())
            return replies.error(of_call(error), headers, _STATUS.get(endpoints.reason(error)))
        except ClientDisconnect:
            raise
        except Exception as error:
            log.error("%s %s failed", request.method, request.url.path, exc_info=error)
            return replies.error(to_status(Internal("an internal error", reason="INTERNAL")))


def routes(settings: GatewaySettings, calls: Callable[[], upstream.Upstream]) -> list[Route]:
    """`calls` gives the services once the application runs."""
    one: dict[str, Endpoint] = {"HEAD": endpoints.head, "PATCH": endpoints.patch, "DELETE": endpoints.delete}
    return [
        Route(endpoints.PATH, _Served({"POST": endpoints.create}, settings, calls)),
        Route(f"{endpoints.PATH}/{{upload_id}}", _Served(one, settings, calls)),
    ]
