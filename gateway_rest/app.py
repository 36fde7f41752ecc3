"""The web edge as an ASGI application, and the server that runs it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway_rest import docs, oauth, openai, replies, tus
from gateway_rest.settings import GatewaySettings
from gateway_rest.shim import Shim
from gateway_rest.upstream import Upstream
from services.common.errors import Internal, NotFound, to_status
from services.common.rpc.mutual import Mutual

log = logging.getLogger(__name__)

# Readable by pages of other origins.
_EXPOSED = [
    "mercat-request-id",
    "mercat-cost-nanos",
    "mercat-model-version",
    "mercat-cache",
    "deprecation",
    "sunset",
    "link",
    "x-request-id",
    "ratelimit",
    "retry-after",
    *tus.SHOWN,
]
_LEAVING = 1.0  # seconds in which connections are told with their next answer that it is their last
_GRACE = 10  # seconds for requests under way when the process is told to end


class _Everything:
    """The endpoint of every path that nothing else is at. A class, so that all methods reach it."""

    def __init__(self, shim: Shim) -> None:
        self._shim = shim

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._shim.handle(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return replies.error(to_status(Internal("an internal error", reason="INTERNAL")))


async def _refused(request: Request, error: Exception) -> Response:
    """A path of this edge's own under a method that it does not have."""
    return replies.error(to_status(NotFound("nothing answers to this method here; see /docs", reason="NO_SUCH_PATH")))


def build(settings: GatewaySettings) -> Starlette:
    """Raises ValueError when the settings name no gRPC service to call."""
    opened: list[Upstream] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        opened.append(Upstream(settings))
        yield
        await opened.pop().close()

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        ready = await opened[0].ready(1.0)
        return JSONResponse({"status": "ok" if ready else "unreachable"}, 200 if ready else 503)

    if not settings.grpc and not settings.control:
        raise ValueError("set MERCAT_GRPC or MERCAT_CONTROL: the gateway has nothing to call")
    shim = Shim(settings, lambda: opened[0])
    origins = [origin.strip() for origin in settings.gateway_cors_origins.split(",") if origin.strip()]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["*"],  # those that mean something to a call are chosen in `upstream`
        expose_headers=_EXPOSED,
        max_age=86400,
    )
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            *docs.routes(),
            *oauth.routes(settings, lambda: opened[0]),
            *openai.routes(settings, lambda: opened[0]),
            *tus.routes(settings, lambda: opened[0]),
        ],
        middleware=[cors] if origins else [],
        exception_handlers={Exception: _failed, HTTPException: _refused},
        lifespan=lifespan,
    )
    app.router.default = _Everything(shim)  # no route: its pattern would not match a line feed
    return app


class _Server(uvicorn.Server):
    """Ends when it is told to, not by signals: those are its host's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def leave(self) -> None:
        """Takes no more connections, and ends those there are with an answer: one that is closed while it is idle may
        meet a request on its way."""
        for listening in self.servers:
            listening.close()
        last = (b"connection", b"close")
        self.config.encoded_headers.append(last)
        self.server_state.default_headers = [*self.server_state.default_headers, last]
        if self.server_state.connections:
            await asyncio.sleep(_LEAVING)
        self.should_exit = True


def _listen(host: str, port: int, *, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; else each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(listen: str, settings: GatewaySettings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then lets requests under way end. Raises OSError when the address is taken."""
    host, _, port = listen.rpartition(":")
    mutual = Mutual.of(settings)
    shown: dict[str, Any] = {
        "ssl_certfile": mutual.certificate, "ssl_keyfile": mutual.key, "ssl_ca_certs": str(mutual.ca),
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
    } if mutual else {}  # fmt: skip
    config = uvicorn.Config(
        build(settings),
        **shown,
        http="httptools",
        ws="none",
        loop="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config)
    listener = _listen(host.strip("[]"), int(port), reuse_port=settings.reuse_port)
    stopping = asyncio.create_task(stop.wait())
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells by this alone
        await asyncio.sleep(0.01)
    if settings.ready_file is not None and server.started:
        settings.ready_file.touch()
    await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        await server.leave()
    stopping.cancel()
    await serving
