"""One HTTP/2 connection, the server's side (RFC 9113): the frames that come in, and the streams they open."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hpack.exceptions import HPACKError

from services.common.rpc.http2 import frames as f
from services.common.rpc.http2.call import Call, Refused
from services.common.rpc.http2.headers import MOST, Headers
from services.common.rpc.http2.outgoing import Outgoing


@dataclass(frozen=True)
class Limits:
    """`message`: bytes of one gRPC message. The windows are octets that a peer may send before it is read. `resets`:
    streams that a peer may cancel at once before it is asked to calm down; so many more in each second: the front door
    brings everybody's on one connection, which lasts."""

    message: int
    streams: int = 10_000
    resets: int = 10_000
    resets_per_second: int = 1_000
    stream_window: int = 1 << 20
    connection_window: int = 16 << 20


class Connection(Outgoing):
    """`on_call` is given each call when its headers are there. `connections` is the set of all that are open."""

    def __init__(self, limits: Limits, on_call: Callable[[Call], None], connections: "set[Connection]") -> None:
        super().__init__()
        self.limits = limits
        self.peer = ""
        self._on_call = on_call
        self._connections = connections
        self._buffer = b""
        self._greeted = False
        self._decoder = Headers()
        self._block: tuple[int, int, bytearray] | None = None  # stream, flags and start of a block that goes on
        self._last_stream = 0
        self._unread = 0
        self._resets = 0.0
        self._reset_at = 0.0  # event loop's clock

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)
        address = transport.get_extra_info("peername")
        if isinstance(address, tuple) and len(address) >= 2:
            host = str(address[0])
            self.peer = f"ipv6:[{host}]:{address[1]}" if ":" in host else f"ipv4:{host}:{address[1]}"
        else:
            self.peer = "unix:"
        own = [
            (f.HEADER_TABLE_SIZE, 0),
            (f.MAX_CONCURRENT_STREAMS, self.limits.streams),
            (f.INITIAL_WINDOW_SIZE, self.limits.stream_window),
            (f.MAX_HEADER_LIST_SIZE, MOST),
        ]
        more = self.limits.connection_window - 65_535
        self._write(f.settings(own) + f.frame(f.WINDOW_UPDATE, 0, 0, more.to_bytes(4, "big")))

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        self.resume_writing()
        for call in list(self.calls.values()):
            call.cancel()
        self.calls.clear()

    def data_received(self, data: bytes) -> None:
        try:
            self._read(self._buffer + data if self._buffer else data)
        except f.ConnectionFailed as e:
            self._fail(e.code, str(e))
        except HPACKError as e:
            self._fail(f.COMPRESSION_ERROR, str(e))

    # Frames

    def _read(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._greeted:
            if not data.startswith(f.PREFACE[: min(end, 24)]):
                raise f.ConnectionFailed(f.PROTOCOL_ERROR, "no HTTP/2 preface")
            if end < 24:
                self._buffer = data
                return
            self._greeted, at = True, 24
        while end - at >= 9:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            if length > f.FRAME:
                raise f.ConnectionFailed(f.FRAME_SIZE_ERROR, "a frame larger than was allowed")
            start = at + 9
            if end - start < length:
                break
            stream = int.from_bytes(data[at + 5 : start], "big") & f.MOST
            self._frame(data[at + 3], data[at + 4], stream, data[start : start + length])
            at = start + length
        self._buffer = data[at:]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and (kind != f.CONTINUATION or stream != self._block[0]):
            raise f.ConnectionFailed(f.PROTOCOL_ERROR, "a header block was interrupted")
        if kind == f.DATA:
            self._data(flags, stream, payload)
        elif kind == f.HEADERS:
            self._headers(flags, stream, payload)
        elif kind == f.WINDOW_UPDATE:
            self._window_update(stream, payload)
        elif kind == f.RST_STREAM:
            self._reset(stream, payload)
        elif kind == f.SETTINGS:
            self._settings(flags, stream, payload)
        elif kind == f.PING:
            if len(payload) != 8 or stream:
                raise f.ConnectionFailed(f.FRAME_SIZE_ERROR, "a PING of other than 8 octets")
            if not flags & f.ACK:
                self._write(f.frame(f.PING, f.ACK, 0, payload))
        elif kind == f.CONTINUATION:
            self._continuation(flags, payload)
        elif kind == f.PUSH_PROMISE:
            raise f.ConnectionFailed(f.PROTOCOL_ERROR, "clients push nothing")
        # GOAWAY needs no answer: its streams end and the peer closes. PRIORITY and unknown frames say nothing.

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream & 1:
            raise f.ConnectionFailed(f.PROTOCOL_ERROR, "HEADERS on a stream that clients do not open")
        if flags & f.PADDED:
            payload = _unpadded(payload)
        if flags & f.HAS_PRIORITY:
            payload = payload[5:]
        if flags & f.END_HEADERS:
            self._open(stream, flags, payload)
        else:
            self._block = (stream, flags, bytearray(payload))

    def _continuation(self, flags: int, payload: bytes) -> None:
        if self._block is None:
            raise f.ConnectionFailed(f.PROTOCOL_ERROR, "CONTINUATION of nothing")
        stream, first, block = self._block
        block += payload
        if len(block) > MOST:
            raise f.ConnectionFailed(f.ENHANCE_YOUR_CALM, "headers without end")
        if flags & f.END_HEADERS:
            self._block = None
            self._open(stream, first, bytes(block))

    def _open(self, stream: int, flags: int, block: bytes) -> None:
        headers = self._decoder.decode(block)
        if stream <= self._last_stream:
            call = self.calls.get(stream)
            if call is not None and flags & f.END_STREAM and not call.half_closed:
                self._end_of_input(call)  # trailers of a request: gRPC has none, so they say nothing
                return
            raise f.ConnectionFailed(f.STREAM_CLOSED, "HEADERS on a stream that is closed")
        self._last_stream = stream
        if self._draining or len(self.calls) >= self.limits.streams:
            self._write(f.frame(f.RST_STREAM, 0, stream, f.REFUSED_STREAM.to_bytes(4, "big")))
            return
        call = Call(self, stream, self._stream_window)
        self.calls[stream] = call
        try:
            call.start(headers)
            self._on_call(call)
            if flags & f.END_STREAM:
                self._end_of_input(call)
        except Refused as e:
            self.refuse(call, e)

    def refuse(self, call: Call, e: Refused) -> None:
        """Ends a call before its handler ran."""
        call.finish(e.code.value[0], e.details)

    def _end_of_input(self, call: Call) -> None:
        call.close_input()
        if call.task is None:
            call.handler.begin(call)

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        self._unread += size
        if self._unread > self.limits.connection_window // 2:
            self._write(f.frame(f.WINDOW_UPDATE, 0, 0, self._unread.to_bytes(4, "big")))
            self._unread = 0
        call = self.calls.get(stream)
        if call is None or call.half_closed:
            if stream > self._last_stream or not stream:
                raise f.ConnectionFailed(f.PROTOCOL_ERROR, "DATA on a stream that was not opened")
            return  # the call was answered or cancelled meanwhile
        call.unread += size
        if call.unread > call.window:
            raise f.ConnectionFailed(f.FLOW_CONTROL_ERROR, "more than the window")
        if flags & f.PADDED:
            payload = _unpadded(payload)
        try:
            call.take(payload)
            if flags & f.END_STREAM:
                self._end_of_input(call)
            elif call.task is None or call.hungry:
                self.open_window(call)  # a message is gathered whole, whatever its size
        except Refused as e:
            if call.task is None:
                self.refuse(call, e)
            else:
                call.code, call.details = e.code.value[0], e.details
                call.task.cancel()

    def open_window(self, call: Call) -> None:
        """Lets the peer send as much again as was read of a stream."""
        if call.unread > call.window // 2 and not call.half_closed:
            self._write(f.frame(f.WINDOW_UPDATE, 0, call.id, call.unread.to_bytes(4, "big")))
            call.unread = 0

    def _reset(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise f.ConnectionFailed(f.FRAME_SIZE_ERROR, "RST_STREAM of other than 4 octets")
        if stream > self._last_stream or not stream:
            raise f.ConnectionFailed(f.PROTOCOL_ERROR, "RST_STREAM of a stream that was not opened")
        call = self.calls.pop(stream, None)
        if call is not None:
            before, self._reset_at = self._reset_at, self.loop.time()
            forgiven = (self._reset_at - before) * self.limits.resets_per_second
            self._resets = max(0.0, self._resets - forgiven) + 1
            if self._resets > self.limits.resets:
                raise f.ConnectionFailed(f.ENHANCE_YOUR_CALM, "streams are opened only to be cancelled")
            call.pending.clear()
            call.has_room()
            call.cancel()

    def _settings(self, flags: int, stream: int, payload: bytes) -> None:
        if stream or len(payload) % 6:
            raise f.ConnectionFailed(f.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if flags & f.ACK:
            return
        for at in range(0, len(payload), 6):
            name = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if name == f.INITIAL_WINDOW_SIZE:
                if value > f.MOST:
                    raise f.ConnectionFailed(f.FLOW_CONTROL_ERROR, "a window past 2^31 - 1")
                for call in self.calls.values():
                    call.send_window += value - self._stream_window
                self._stream_window = value
            elif name == f.MAX_FRAME_SIZE:
                if not f.FRAME <= value < 1 << 24:
                    raise f.ConnectionFailed(f.PROTOCOL_ERROR, "a frame size out of bounds")
                self._peer_frame = value
        self._write(f.frame(f.SETTINGS, f.ACK, 0))
        self._send_waiting()

    def _window_update(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise f.ConnectionFailed(f.FRAME_SIZE_ERROR, "WINDOW_UPDATE of other than 4 octets")
        more = int.from_bytes(payload, "big") & f.MOST
        if not stream:
            self._send_window += more
            if not more or self._send_window > f.MOST:
                raise f.ConnectionFailed(f.FLOW_CONTROL_ERROR, "a window of nothing, or past 2^31 - 1")
        elif (call := self.calls.get(stream)) is not None:
            call.send_window += more
            if not more or call.send_window > f.MOST:
                self._write(f.frame(f.RST_STREAM, 0, stream, f.FLOW_CONTROL_ERROR.to_bytes(4, "big")))
                self.calls.pop(stream, None)
                call.cancel()
        if self._waiting:
            self._send_waiting()

    # Ending

    def announce(self) -> None:
        """Asks the peer to open no more streams here; those that cross this on their way are still served (RFC 9113
        6.8)."""
        self._write(f.frame(f.GOAWAY, 0, 0, f.MOST.to_bytes(4, "big") + f.NO_ERROR.to_bytes(4, "big")))

    def drain(self) -> None:
        """Takes no new calls; closes when those under way have ended."""
        self._draining = True
        self._write(f.frame(f.GOAWAY, 0, 0, self._last_stream.to_bytes(4, "big") + f.NO_ERROR.to_bytes(4, "big")))
        self._close_when_done()

    def _fail(self, code: int, text: str) -> None:
        last = self._last_stream.to_bytes(4, "big")
        self._write(f.frame(f.GOAWAY, 0, 0, last + code.to_bytes(4, "big") + text.encode()[:200]))
        self.close()


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise f.ConnectionFailed(f.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
