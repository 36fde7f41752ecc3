"""One request of tus, and the calls of the platform that it becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from google.protobuf.message import Message
from mercat.storage.v1 import storage_pb2
from starlette.requests import ClientDisconnect, Request

from gateway_rest import contracts, upstream
from gateway_rest.contracts import Binding
from gateway_rest.tus.headers import checksum, done

_SERVICE = "/mercat.storage.v1.StorageService/"
_CHUNK = 1024 * 1024  # bytes of one message
_COMPLETING = 3600.0  # seconds in which the bytes are read again and stored


@cache
def _bindings() -> dict[str, Binding]:
    return {binding.name: binding for binding in contracts.bindings()}


class Call:
    """One request, and the calls of the platform that it becomes."""

    def __init__(self, request: Request, calls: upstream.Upstream, metadata: upstream.Metadata) -> None:
        self.request, self._calls, self._metadata = request, calls, metadata

    @property
    def upload_id(self) -> str:
        return str(self.request.path_params["upload_id"])

    async def ask(self, name: str, message: Message, seconds: float = 60.0) -> Any:
        """The answer of a unary RPC. Raises AioRpcError."""
        call = self._calls.unary_unary(_bindings()[_SERVICE + name])
        return await call(message, metadata=self._metadata, timeout=seconds)

    async def get(self) -> storage_pb2.Upload:
        got = await self.ask("GetUpload", storage_pb2.GetUploadRequest(upload_id=self.upload_id))
        return got.upload  # type: ignore[no-any-return]

    async def write(self, upload: storage_pb2.Upload, offset: int) -> storage_pb2.Upload:
        """Sends the body on as it comes, at the pace that the service takes it; completes an upload that is whole then.
        Raises AioRpcError, and ClientDisconnect when the body breaks off."""
        expected = checksum(self.request)
        gone = asyncio.Event()

        async def messages() -> AsyncIterator[Message]:
            first = storage_pb2.WriteUploadRequest(upload_id=upload.upload_id, offset=offset, checksum=expected)
            message: storage_pb2.WriteUploadRequest = first
            held = bytearray()
            try:
                async for piece in self.request.stream():
                    held += piece
                    while len(held) >= _CHUNK:
                        message.chunk.data = bytes(held[:_CHUNK])
                        del held[:_CHUNK]
                        yield message
                        message = storage_pb2.WriteUploadRequest()
            except ClientDisconnect:
                gone.set()
                if held and not expected:  # what has arrived is kept
                    message.chunk.data = bytes(held)
                    yield message
                if expected:
                    raise  # which cancels the call: part of a chunk is not kept
                return
            if held or message is first:
                message.chunk.data = bytes(held)
                yield message

        call: Any = self._calls.stream_unary(_bindings()[_SERVICE + "WriteUpload"])(metadata=self._metadata)  # type: ignore[call-arg]
        sending = asyncio.create_task(upstream.send(call, messages()))
        try:
            upload = (await call).upload
        except asyncio.CancelledError:
            if gone.is_set():
                raise ClientDisconnect from None
            raise
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            sending.cancelled() or sending.exception()
        if gone.is_set():
            raise ClientDisconnect
        return await self.completed(upload)

    async def completed(self, upload: storage_pb2.Upload) -> storage_pb2.Upload:
        """Of an upload whose bytes are all there the artifact is made: for tus, nothing comes after the last byte."""
        if done(upload) or upload.offset < upload.size_bytes:
            return upload
        asked = storage_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
        return (await self.ask("CompleteUpload", asked, _COMPLETING)).upload  # type: ignore[no-any-return]
