"""REST for places without Envoy: every binding of the contracts, served as Envoy's transcoder serves it.

A request becomes one gRPC call; replies, streams and errors come back in the same JSON. A client that goes away cancels
its call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from google.api import httpbody_pb2
from google.protobuf.message import Message
from grpc import aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from gateway_rest import contracts, errors, exchange, replies, transcode, upstream
from gateway_rest.caller import Callers
from gateway_rest.contracts import Binding
from gateway_rest.errors import MALFORMED, Refusal
from gateway_rest.exchange import Stream, beside, unless_gone
from gateway_rest.paths import Router, normal
from gateway_rest.settings import GatewaySettings
from services.common.errors import InvalidArgument, NotFound

# Bytes of one message of an uploaded body; the contract allows 2 MiB.
_CHUNK = 1024 * 1024
# Seconds a stream's first message may hold its response headers back once the call was accepted, so that an
# error that comes instead of it still has its own HTTP status.
_FIRST = 0.25


class Shim:
    """Answers the requests that some binding is for."""

    def __init__(self, settings: GatewaySettings, calls: Callable[[], upstream.Upstream]) -> None:
        self._settings = settings
        self._most = settings.gateway_max_json_bytes
        self._calls = calls
        self._callers = Callers(settings)
        self._router: Router[Binding] = Router(
            (binding.verb, binding.template, binding) for binding in contracts.bindings()
        )

    async def handle(self, request: Request) -> Response:
        """Raises ClientDisconnect when nobody waits for the answer any more."""
        try:
            return await self._handle(request)
        except Refusal as refusal:
            return replies.refused(refusal)
        except aio.AioRpcError as error:
            headers = upstream.headers_of(error.initial_metadata(), error.trailing_metadata())
            return replies.error(errors.of_call(error), headers)

    async def _handle(self, request: Request) -> Response:
        binding, variables = self._match(request)
        exchange.plain(request)
        metadata = self._callers.metadata(request, streams=binding.takes_bytes)
        if binding.takes_bytes:
            return await self._upload(binding, variables, request, metadata)
        body = await exchange.body(request, self._most) if binding.body else b""
        query = request.url.query
        if binding.method.client_streaming:
            messages = await beside(len(body), lambda: transcode.requests(binding, body, query))
        else:
            messages = [await beside(len(body), lambda: transcode.request(binding, body, query, variables))]
        calls = self._calls()
        if binding.method.server_streaming:
            seconds = upstream.timeout(request.headers, None)
            if binding.method.client_streaming:
                stream: Stream = calls.stream_stream(binding)(_each(messages), metadata=metadata, timeout=seconds)
            else:
                stream = calls.unary_stream(binding)(messages[0], metadata=metadata, timeout=seconds)
            return await self._stream(binding, stream, request)
        seconds = upstream.timeout(request.headers, self._settings.gateway_timeout)
        if binding.method.client_streaming:
            call: aio.Call = calls.stream_unary(binding)(_each(messages), metadata=metadata, timeout=seconds)
        else:
            call = calls.unary_unary(binding)(messages[0], metadata=metadata, timeout=seconds)
        return await self._answer(binding, call, request)

    def _match(self, request: Request) -> tuple[Binding, dict[str, str]]:
        path = bytes(request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1")
        try:
            found = self._router.match(request.method, normal(path))
        except ValueError as error:
            raise Refusal(InvalidArgument(str(error), reason=MALFORMED)) from error
        if found is not None:
            return found
        text = "nothing answers to this method and path; /docs lists what does"
        raise Refusal(NotFound(text, reason="NO_SUCH_PATH"))

    async def _upload(
        self, binding: Binding, variables: dict[str, str], request: Request, metadata: upstream.Metadata
    ) -> Response:
        """Sends a body on as it arrives, at the pace the service takes it; path and query go with the first message."""
        first = binding.request()
        transcode.bind(first, request.url.query, variables)
        content_type = request.headers.get("content-type", "")

        def holder(message: Message) -> httpbody_pb2.HttpBody:
            found = message if binding.body == "*" else getattr(message, binding.body)
            assert isinstance(found, httpbody_pb2.HttpBody)
            return found

        async def messages() -> AsyncIterator[Message]:
            message, sent = first, False
            try:
                async for chunk in request.stream():
                    for start in range(0, len(chunk), _CHUNK):
                        body = holder(message)
                        body.content_type, body.data = content_type, chunk[start : start + _CHUNK]
                        yield message
                        message, sent = binding.request(), True
            except ClientDisconnect:
                gone.set()
                raise  # which cancels the call: what arrived is not the whole body
            if not sent:
                yield message

        gone = asyncio.Event()
        seconds = upstream.timeout(request.headers, None)
        if binding.method.client_streaming:
            call: aio.StreamUnaryCall[Message, Message]
            call = self._calls().stream_unary(binding)(metadata=metadata, timeout=seconds)  # type: ignore[call-arg]
            sending = asyncio.create_task(upstream.send(call, messages()))
            try:
                return await self._answer(binding, call, None)
            except asyncio.CancelledError:
                if gone.is_set():
                    raise ClientDisconnect from None
                raise
            finally:
                sending.cancel()
                await asyncio.wait([sending])
                sending.cancelled() or sending.exception()
        body = holder(first)
        body.content_type, body.data = content_type, await exchange.body(request, self._most)
        whole = self._calls().unary_unary(binding)(first, metadata=metadata, timeout=seconds)
        return await self._answer(binding, whole, request)

    async def _answer(self, binding: Binding, call: aio.Call, request: Request | None) -> Response:
        message = await unless_gone(exchange.result(call), call, request)
        headers = upstream.headers_of(await call.initial_metadata(), await call.trailing_metadata())
        if binding.gives_bytes:
            body = _http_body(binding, message)
            return Response(body.data, headers=headers, media_type=body.content_type or None)
        text = await beside(message.ByteSize(), lambda: transcode.reply(binding, message))
        return Response(text, headers=headers, media_type=replies.JSON)

    async def _stream(self, binding: Binding, call: Stream, request: Request) -> Response:
        first = asyncio.ensure_future(call.read())
        try:
            initial = await unless_gone(_opened(call, first), call, request)
            if first.done() and not isinstance(first.result(), Message):
                await exchange.end(call)
        except BaseException:
            first.cancel()
            call.cancel()
            raise
        headers = upstream.headers_of(initial)
        if binding.gives_bytes:
            got = first.result() if first.done() else await first
            kind = _http_body(binding, got).content_type if isinstance(got, Message) else ""
            return StreamingResponse(
                self._bytes(binding, call, first), headers=headers, media_type=kind or "application/octet-stream"
            )
        events = replies.SSE in request.headers.get("accept", "")
        lines = self._lines(binding, call, first, transcode.sse if events else transcode.line)
        headers["cache-control"] = "no-store"
        return StreamingResponse(lines, headers=headers, media_type=replies.SSE if events else replies.NDJSON)

    async def _bytes(self, binding: Binding, call: Stream, first: asyncio.Future[object]) -> AsyncIterator[bytes]:
        try:
            got = await first
            while isinstance(got, Message):
                yield _http_body(binding, got).data
                got = await call.read()
            await exchange.end(call)  # an error here breaks the connection off: the bytes are not complete
        finally:
            call.cancel()

    async def _lines(
        self,
        binding: Binding,
        call: Stream,
        first: asyncio.Future[object],
        frame: Callable[[bytes, str], bytes],
    ) -> AsyncIterator[bytes]:
        try:
            got = await first
            while isinstance(got, Message):
                yield frame(transcode.reply(binding, got), "")
                got = await call.read()
            await exchange.end(call)
        except aio.AioRpcError as error:
            yield frame(replies.json_bytes(errors.of_call(error)), "error")
        except Refusal as refusal:
            yield frame(replies.json_bytes(refusal.status), "error")
        finally:
            call.cancel()


async def _each(messages: Iterable[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


async def _opened(call: Stream, first: asyncio.Future[object]) -> aio.Metadata:
    """Waits until the service has accepted the call, and a moment for its first message or its refusal."""
    initial = await call.initial_metadata()
    await asyncio.wait([first], timeout=_FIRST)
    if first.done():
        first.result()
    return initial


def _http_body(binding: Binding, message: Message) -> httpbody_pb2.HttpBody:
    found = getattr(message, binding.response_body) if binding.response_body else message
    assert isinstance(found, httpbody_pb2.HttpBody)
    return found
