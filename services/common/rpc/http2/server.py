"""A gRPC server over the HTTP/2 connections of this package: takes the handlers that generated code registers, and runs
each call in a task of its own, on the event loop's own thread."""

import asyncio
import inspect
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from services.common.rpc.http2 import frames
from services.common.rpc.http2.call import Call, Ended, Refused
from services.common.rpc.http2.connection import Connection, Limits

log = logging.getLogger(__name__)
_UNKNOWN, _CANCELLED, _DEADLINE = 2, 1, 4  # gRPC's codes
_NOTICE = 0.2  # seconds that peers have to hear that a connection ends, before calls on it are refused
_KNOWN = 1000  # paths whose handlers are remembered


class _Method:
    """A handler as generated code describes it, and how its calls begin."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self.request_deserializer = handler.request_deserializer or _same
        self.response_serializer = handler.response_serializer or _same
        self.streams_in = bool(handler.request_streaming)
        self._streams_out = bool(handler.response_streaming)
        self._behavior = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary

    def begin(self, call: Call) -> None:
        call.serialize = self.response_serializer
        fast = not self.streams_in and not self._streams_out
        call.task = call.connection.loop.create_task(self._unary(call) if fast else self._stream(call))

    async def _unary(self, call: Call) -> None:
        try:
            request = self.request_deserializer(call.only_message())
            reply = await self._behavior(request, call)
            if call.code:
                call.finish(call.code, call.details)
                return
            payload = self.response_serializer(reply)
        except BaseException as e:
            self._failed(call, e)
            return
        if call.deadline is not None:
            call.stop_clock()
        call.connection.send_reply(call, payload, frames.trailers(0, "", call.trailing), self._head(call))

    @staticmethod
    def _head(call: Call) -> bytes:
        return frames.response(call.trailing) if call.rest else frames.RESPONSE

    async def _stream(self, call: Call) -> None:
        try:
            request = call.requests() if self.streams_in else self.request_deserializer(call.only_message())
            result = self._behavior(request, call)
            if inspect.isasyncgen(result):
                try:
                    async for reply in result:
                        await call.write(reply)
                finally:
                    await result.aclose()
            else:
                reply = await result
                if not self._streams_out and not call.code:
                    call.send(frames.message(self.response_serializer(reply)), self._head(call))
            call.finish(call.code, call.details)
        except BaseException as e:
            self._failed(call, e)

    def _failed(self, call: Call, e: BaseException) -> None:
        if isinstance(e, Ended):
            call.finish(call.code, call.details)
        elif isinstance(e, Refused):
            call.finish(e.code.value[0], e.details)
        elif isinstance(e, asyncio.CancelledError):
            if call.timed_out:
                call.finish(_DEADLINE, "the deadline passed")
            else:
                call.finish(call.code or _CANCELLED, call.details)
        elif isinstance(e, Exception):
            log.error("%s failed", call.path, exc_info=e)
            call.finish(_UNKNOWN, "an internal error")
        else:
            raise e


def _same(message: Any) -> Any:
    return message


class Http2Server:
    """Serves gRPC. Handlers are added before it starts, as to a `grpc.aio.Server`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._handlers: list[grpc.GenericRpcHandler[Any, Any]] = []
        self._methods: dict[str, _Method] = {}
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []

    def add_generic_rpc_handlers(self, handlers: "Sequence[grpc.GenericRpcHandler[Any, Any]]") -> None:
        self._handlers += handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """What newer generated code calls beside the older `add_generic_rpc_handlers`; the first suffices."""

    async def listen(self, address: str, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None) -> None:
        """Binds and serves `host:port` or `unix:/path`. With `reuse_port` others that say so may listen there too, and
        share what comes in. Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()

        def connection() -> Connection:
            return Connection(self._limits, self._take, self._connections)

        if address.startswith("unix:"):
            self._servers.append(await loop.create_unix_server(connection, address[5:], backlog=4096))
            return
        host, _, port = address.rpartition(":")
        self._servers.append(
            await loop.create_server(
                connection, host.strip("[]"), int(port), backlog=4096, reuse_port=reuse_port or None, ssl=tls
            )
        )

    def _take(self, call: Call) -> None:
        """Finds the call's method; a call that streams in begins at once. Raises Refused."""
        method = self._methods.get(call.path)
        if method is None:
            method = self._find(call)
        call.handler = method
        if method.streams_in:
            method.begin(call)

    def _find(self, call: Call) -> _Method:
        details = _Details(call.path, call.invocation_metadata())
        for handler in self._handlers:
            found = handler.service(details)
            if found is not None:
                if len(self._methods) < _KNOWN:
                    self._methods[call.path] = _Method(found)
                return _Method(found)
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {call.path[:200]}")

    async def stop(self, grace: float) -> None:
        """Takes no more connections and calls, lets those under way end, and cuts off what has not after `grace`
        seconds."""
        until = asyncio.get_running_loop().time() + grace
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.announce()
        if self._connections:
            await asyncio.sleep(min(_NOTICE, grace))
        for connection in list(self._connections):
            connection.drain()
        tasks = {c.task for connection in self._connections for c in connection.calls.values() if c.task}
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str, metadata: Any) -> None:
        self.method = method
        self.invocation_metadata = metadata
