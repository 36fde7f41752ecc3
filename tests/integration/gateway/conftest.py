"""Both front doors, Envoy's transcoder and the shim, before one gRPC server that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2_grpc

from gateway_rest import app, contracts
from gateway_rest.settings import GatewaySettings
from services.common.errors import STATUS_KEY, MercatError, to_status
from services.common.rpc.addresses import door_token
from services.common.rpc.http2.connection import Limits
from services.common.rpc.http2.server import Http2Server
from services.embedded.envoy import Envoy
from services.embedded.envoy_door import FrontDoor
from services.embedded.ports import free_ports

TOKEN = "internal"
Answer = Message | MercatError | Iterable[Message | MercatError | float]
Answers = Answer | Callable[[Message], Answer]


@dataclass
class Call:
    """What the server was sent."""

    messages: list[Message]
    metadata: dict[str, str | bytes]
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


class Backend(grpc.GenericRpcHandler):
    """Serves every public RPC of the contracts. `answers[name]` is a reply, an error, or, for a stream, several of them
    with pauses in seconds between; or a function that makes it from the request."""

    def __init__(self) -> None:
        self.answers: dict[str, Answers] = {}
        self.trailers: tuple[tuple[str, str], ...] = ()
        self.begins: tuple[tuple[str, str], ...] = ()  # what of them a stream says at its beginning
        self.pause = 0.0
        self.hasty = False  # answers before the request has been read
        self.calls: list[Call] = []
        self._methods = {binding.name: binding for binding in contracts.bindings()}

    @property
    def last(self) -> Message:
        return self.calls[-1].messages[0]

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        binding = self._methods.get(details.method)
        if binding is None:
            return None
        method, name = binding.method, details.method.rpartition("/")[2]
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        run = self._stream(name, binding.reply) if method.server_streaming else self._unary(name, binding.reply)
        return make(run, binding.request.FromString, binding.reply.SerializeToString)

    def _answer(self, name: str, call: Call, otherwise: Answer) -> Answer:
        found = self.answers.get(name, otherwise)
        return found(call.messages[0]) if callable(found) else found

    async def _take(self, requests: Any, context: Any) -> Call:
        call = Call([], dict(context.invocation_metadata()))
        self.calls.append(call)
        if isinstance(requests, Message):
            call.messages.append(requests)
            return call
        try:
            async for message in requests:
                call.messages.append(message)
                if self.hasty:
                    break
        except asyncio.CancelledError:
            call.cancelled.set()
            raise
        return call

    def _unary(self, name: str, reply: type[Message]) -> Callable[[Any, Any], Any]:
        async def run(requests: Any, context: Any) -> Message:
            call = await self._take(requests, context)
            answer = self._answer(name, call, reply())
            try:
                # A request that breaks off ends like a whole one; that it was cancelled is told a moment later.
                await asyncio.sleep(self.pause or (0.25 if len(call.messages) > 1 else 0))
            except asyncio.CancelledError:
                call.cancelled.set()
                raise
            if isinstance(answer, MercatError):
                await _abort(context, answer, self.trailers)
            context.set_trailing_metadata(self.trailers)
            return answer

        return run

    def _stream(self, name: str, reply: type[Message]) -> Callable[[Any, Any], Any]:
        async def run(requests: Any, context: Any) -> AsyncIterator[Message]:
            call = await self._take(requests, context)
            context.set_trailing_metadata(self.begins)
            answer = self._answer(name, call, [reply()])
            try:
                for part in [answer] if isinstance(answer, MercatError) else answer:
                    if isinstance(part, MercatError):
                        await _abort(context, part, self.trailers)
                    elif isinstance(part, Message):
                        yield part
                    else:
                        await asyncio.sleep(part)
            except (asyncio.CancelledError, GeneratorExit):
                call.cancelled.set()
                raise
            context.set_trailing_metadata(self.trailers)

        return run


async def _abort(context: Any, error: MercatError, trailers: tuple[tuple[str, str], ...]) -> None:
    status: status_pb2.Status = to_status(error, "req_1")
    await context.abort(error.code, error.message, (*trailers, (STATUS_KEY, status.SerializeToString())))


@dataclass(frozen=True)
class Door:
    name: str
    url: str


@pytest.fixture(scope="package")
def served() -> Backend:
    return Backend()


@pytest.fixture(scope="package")
async def doors(served: Backend, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Door]]:
    shim_port, envoy_port, port = free_ports(3)
    control = f"127.0.0.1:{port}"
    server = Http2Server(Limits(message=64 << 20))
    server.add_generic_rpc_handlers((served,))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    await server.listen(control)
    stop = asyncio.Event()
    settings = GatewaySettings(control=control, grpc="", internal_token=TOKEN)
    shim = asyncio.create_task(app.serve(f"127.0.0.1:{shim_port}", settings, stop))
    await _listening(shim_port, shim)
    folder = tmp_path_factory.mktemp("envoy")
    gateway, admin = f"127.0.0.1:{shim_port}", Path(folder / "admin")
    door = FrontDoor("127.0.0.1", envoy_port, control, [control], gateway, admin, token=door_token(TOKEN))
    async with Envoy(folder, door, concurrency=1) as envoy:
        yield {"shim": Door("shim", f"http://127.0.0.1:{shim_port}"), "envoy": Door("envoy", envoy.url)}
    stop.set()
    await shim
    await server.stop(0)


async def _listening(port: int, task: asyncio.Task[None]) -> None:
    for _ in range(200):
        if task.done():
            task.result()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


@pytest.fixture
def backend(served: Backend) -> Backend:
    """The server behind both doors, told nothing yet."""
    served.answers, served.trailers, served.calls = {}, (), []
    served.pause, served.hasty = 0.0, False
    return served


@pytest.fixture(scope="module")
async def settled(doors: dict[str, Door]) -> dict[str, Door]:
    """The doors, when Envoy knows the server to be well: tests that block this process hold its health checks up."""
    async with httpx.AsyncClient(base_url=doors["envoy"].url) as client, asyncio.timeout(30):
        while (await client.post("/v1/models/a/b:countTokens", json={})).status_code == 503:
            await asyncio.sleep(0.1)
    return doors


@pytest.fixture(params=["envoy", "shim"])
def door(request: pytest.FixtureRequest, settled: dict[str, Door]) -> Door:
    return settled[request.param]


@pytest.fixture
async def rest(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one front door; every test that takes it runs before each of them."""
    async with httpx.AsyncClient(base_url=door.url, timeout=10) as client:
        yield client
