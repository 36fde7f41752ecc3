"""One gRPC call on an HTTP/2 stream: what handlers see as their context, and the stream's own state."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from services.common.rpc.http2 import frames

if TYPE_CHECKING:
    from services.common.rpc.http2.connection import Connection

Metadata = tuple[tuple[str, str | bytes], ...]


class Ended(Exception):
    """Unwinds a handler that called `abort`."""


class Refused(Exception):
    """The call cannot be taken; answered with this status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details


class Call:
    """A call, with as much of `grpc.aio.ServicerContext` as there are users of."""

    __slots__ = (
        "_deadline_timer", "_messages", "_metadata", "_reader", "_room", "authority", "code", "connection", "deadline",
        "details",
        "encoding", "half_closed", "handler", "headers_sent", "id", "incoming", "path", "pending", "raw", "received",
        "rest", "send_window", "serialize", "signed", "task", "timed_out", "trailing", "unread", "window",
    )  # fmt: skip

    def __init__(self, connection: "Connection", stream_id: int, send_window: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.path = self.authority = ""
        self.signed = False  # has a signature
        self.raw = b""  # of a unary call with a signature: its message, as it came
        self.rest = False  # came as REST, and was made gRPC by Envoy's transcoder
        self.handler: Any = None
        self.serialize: Any = None
        self.task: asyncio.Task[None] | None = None
        self.encoding = ""
        self._metadata: Metadata = ()
        # What came in: bytes of unfinished messages, whole messages, and who waits for them.
        self.incoming = bytearray()
        self._messages: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.half_closed = False  # nothing more comes in
        self.received = 0
        self.unread = 0  # octets received for which no window was given back
        self.window = connection.limits.stream_window
        # What goes out.
        self.send_window = send_window
        self.pending: deque[tuple[bytes | memoryview, int, bool]] = deque()  # (payload, frame kind, last)
        self._room: asyncio.Future[None] | None = None
        self.headers_sent = False
        self.code, self.details = 0, ""
        self.trailing: Metadata = ()
        self.deadline: float | None = None  # event loop's clock
        self._deadline_timer: asyncio.TimerHandle | None = None
        self.timed_out = False

    # grpc.aio.ServicerContext

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - self.connection.loop.time())

    def peer(self) -> str:
        return self.connection.peer

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self.trailing = metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code.value[0]

    def set_details(self, details: str) -> None:
        self.details = details

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self.code, self.details = code.value[0], details
        if trailing_metadata:
            self.trailing = trailing_metadata
        raise Ended

    def done(self) -> bool:
        return self.task is None or self.task.done()

    cancelled = done

    async def write(self, reply: Any) -> None:
        """Sends a message of a stream; waits while the peer takes no more."""
        known = self.trailing and not self.headers_sent
        self.send(frames.message(self.serialize(reply)), frames.response(self.trailing) if known else frames.RESPONSE)
        if self.pending:
            self._room = self.connection.loop.create_future()
            await self._room
        await self.connection.writable()

    # Coming in

    def start(self, headers: Iterable[tuple[str, str]]) -> None:
        """Reads the request's headers. Raises Refused."""
        metadata: list[tuple[str, str | bytes]] = []
        kind = method = ""
        for name, value in headers:
            if name[0] == ":":
                if name == ":path":
                    self.path = value
                elif name == ":method":
                    method = value
                elif name == ":authority":
                    self.authority = value
            elif name == "content-type":
                kind = value
            elif name == "grpc-timeout":
                self._set_deadline(value)
            elif name == "grpc-encoding":
                self.encoding = value
            elif name == _TRANSCODED:
                self.rest = True
            elif name.endswith("-bin"):
                try:
                    metadata.append((name, frames.binary(value)))
                except ValueError:
                    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"{name} is not base64") from None
            elif name not in _OWN:
                metadata.append((name, value))
                if name == _SIGNED:
                    self.signed = True
        self._metadata = tuple(metadata)
        if method != "POST" or not kind.startswith("application/grpc"):
            raise Refused(grpc.StatusCode.INTERNAL, "only gRPC is spoken here")

    def _set_deadline(self, value: str) -> None:
        try:
            seconds = frames.timeout(value)
        except ValueError as e:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(e)) from None
        loop = self.connection.loop
        self.deadline = loop.time() + seconds
        self._deadline_timer = loop.call_at(self.deadline, self._expire)

    def _expire(self) -> None:
        self.timed_out = True
        self._deadline_timer = None
        if self.task is not None:
            self.task.cancel()
        else:
            self.finish(grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "the deadline passed before the request was here")

    def take(self, data: bytes) -> None:
        """Bytes of messages came in. Raises Refused."""
        if not self.incoming and data[:1] == b"\0" and len(data) - 5 == int.from_bytes(data[1:5], "big"):
            self._messages.append(data[5:])  # one whole message, as most are
            self._wake()
            return
        self.incoming += data
        while len(self.incoming) >= 5:
            length = int.from_bytes(self.incoming[1:5], "big")
            if length > self.connection.limits.message:
                text = f"a message of {length} bytes; the most is {self.connection.limits.message}"
                raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            if len(self.incoming) < 5 + length:
                break
            payload = bytes(self.incoming[5 : 5 + length])
            if self.incoming[0]:
                try:
                    payload = frames.inflate(payload, self.encoding, self.connection.limits.message)
                except ValueError as e:
                    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(e)) from None
            del self.incoming[: 5 + length]
            self._messages.append(payload)
        if self._messages:
            self._wake()

    @property
    def hungry(self) -> bool:
        """No whole message waits to be read, so that more must come."""
        return not self._messages

    def close_input(self) -> None:
        self.half_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def only_message(self) -> bytes:
        """The one message of a unary request. Raises Refused when there is none, or more."""
        if len(self._messages) != 1 or self.incoming:
            raise Refused(grpc.StatusCode.INTERNAL, "a unary call has one message")
        message = self._messages.popleft()
        if self.signed:
            self.raw = message
        return message

    async def requests(self) -> AsyncIterator[Any]:
        """The messages of a request stream; the peer's window opens as they are read."""
        deserialize = self.handler.request_deserializer
        while True:
            while self._messages:
                payload = self._messages.popleft()
                if not self._messages:
                    self.connection.open_window(self)
                yield deserialize(payload)
            if self.half_closed:
                return
            self.connection.open_window(self)
            self._reader = self.connection.loop.create_future()
            await self._reader

    # Going out

    def send(self, payload: bytes, head: bytes = frames.RESPONSE) -> None:
        if not self.headers_sent:
            self.headers_sent = True
            self.connection.send_block(self, head, last=False)
        self.connection.send_data(self, payload)

    def stop_clock(self) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
            self._deadline_timer = None

    def finish(self, code: int, details: str) -> None:
        """Ends the call with its trailers, after what is still to be sent."""
        self.stop_clock()
        block = frames.trailers(code, details, self.trailing)
        if not self.headers_sent:
            self.headers_sent = True
            block = frames.RESPONSE + block
        self.connection.send_block(self, block, last=True)

    def has_room(self) -> None:
        """All that waited was sent."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def cancel(self) -> None:
        """The peer or the connection is gone."""
        self.stop_clock()
        if self.task is not None:
            self.task.cancel()


_SIGNED = "signature-input"
_TRANSCODED = "x-envoy-original-method"  # outsiders cannot say so: the front door removes it
# Headers of the transport, no metadata of the caller's.
_OWN = frozenset({"te", "grpc-accept-encoding", "accept-encoding", "content-length"})
