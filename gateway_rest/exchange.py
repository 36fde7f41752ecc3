"""An HTTP request and the gRPC call it becomes: reading the one, and waiting for the other while somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from google.protobuf.message import Message
from google.rpc import code_pb2
from grpc import aio
from starlette.requests import ClientDisconnect, Request

from gateway_rest.errors import Refusal
from services.common.errors import InvalidArgument, Unauthenticated
from services.common.signatures import DIGEST, INPUT, BadSignature, check_digest

# Bytes of JSON from which on decoding and encoding move off the event loop.
_LARGE = 64 * 1024

T = TypeVar("T")
# A call that streams its answers.
Stream: TypeAlias = aio.UnaryStreamCall[Message, Message] | aio.StreamStreamCall[Message, Message]


def plain(request: Request) -> None:
    """Raises Refusal for a body that is compressed."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(InvalidArgument("send the body without content-encoding", reason="UNSUPPORTED_MEDIA_TYPE"), 415)


async def body(request: Request, most: int) -> bytes:
    """The whole body. Raises Refusal for one of more than `most` bytes, before it is read where its length is told, and
    for one that is not what a signed request's content-digest is of."""
    too_large = Refusal(InvalidArgument(f"the body is larger than {most} bytes", reason="BODY_TOO_LARGE"), 413)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > most:
            raise too_large
    if INPUT in request.headers and DIGEST in request.headers:
        # Here, since the services never see this body; whether the signature is good is found out there.
        try:
            check_digest(request.headers[DIGEST], bytes(read))
        except BadSignature as e:
            raise Refusal(Unauthenticated(str(e), reason="SIGNATURE_INVALID"), 401) from None
    return bytes(read)


async def beside(size: int, work: Callable[[], T]) -> T:
    """Runs work of a size in bytes in a thread when it would hold the event loop up."""
    return await asyncio.to_thread(work) if size > _LARGE else work()


async def result(call: aio.Call) -> Message:
    """The one answer of a call."""
    assert isinstance(call, Awaitable)
    message = await call
    assert isinstance(message, Message)
    return message


async def end(call: Stream) -> None:
    """Raises the error a stream ended with. Reading past its end says only that it ended."""
    code = await call.code()
    if code.value[0] != code_pb2.OK:
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        raise aio.AioRpcError(code, initial, trailing, await call.details(), None)


async def unless_gone(work: Awaitable[T], call: aio.Call | None, request: Request | None) -> T:
    """The result of `work`; cancels it, and the call, when the client goes away first, and raises ClientDisconnect. The
    request's body has been read."""
    if request is None:
        return await work
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            if call is not None:
                call.cancel()
            task.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
