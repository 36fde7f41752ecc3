"""What an HTTP/2 connection sends: frames as the peer's windows allow (RFC 9113, 5.2), gathered into few writes."""

import asyncio
from typing import cast

from services.common.rpc.http2 import frames as f
from services.common.rpc.http2.call import Call

_TOGETHER = 1 << 16  # octets that wait for the end of a turn of the event loop at most
_UNSENT = 4 << 20  # octets that may wait in the socket's buffer


class Outgoing(asyncio.Protocol):
    """The sending half of a connection. Its `calls` are those that have not ended, by the number of their stream."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.calls: dict[int, Call] = {}
        self._transport: asyncio.Transport | None = None
        self._paused: asyncio.Future[None] | None = None
        self._gathered: list[bytes | memoryview] = []  # to be written at the end of this turn of the event loop
        self._gathered_size = 0
        self._send_window = 65_535
        self._stream_window = 65_535  # what the peer lets each new stream send
        self._peer_frame = f.FRAME
        self._waiting: list[Call] = []  # streams that have more to send than they may
        self._draining = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by their class
        self._transport.set_write_buffer_limits(_UNSENT)

    def pause_writing(self) -> None:
        """A peer that does not read what it asked for is not heard any more either."""
        if self._paused is None and self._transport is not None:
            self._paused = self.loop.create_future()
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._paused is not None:
            self._paused.set_result(None)
            self._paused = None
            if self._transport is not None:
                self._transport.resume_reading()

    async def writable(self) -> None:
        """Waits while the socket takes no more."""
        if self._paused is not None:
            await asyncio.shield(self._paused)

    # Replies

    def send_reply(self, call: Call, payload: bytes, block: bytes, head: bytes = f.RESPONSE) -> None:
        """All of a unary answer at once, where the windows have room for it; the fast path. `head` and `block`: its
        headers and trailers."""
        size = len(payload) + 5
        if size > self._peer_frame or size > call.send_window or size > self._send_window or call.pending:
            call.send(f.message(payload), head)
            self.send_block(call, block, last=True)
            return
        if self.calls.pop(call.id, None) is None:
            return  # the peer gave up
        self._send_window -= size
        stream = call.id.to_bytes(4, "big")
        self._write(
            len(head).to_bytes(3, "big") + b"\x01\x04" + stream + head
            + size.to_bytes(3, "big") + b"\x00\x00" + stream + b"\x00" + (size - 5).to_bytes(4, "big") + payload
            + len(block).to_bytes(3, "big") + b"\x01\x05" + stream + block
        )  # fmt: skip
        if self._draining:
            self._close_when_done()

    def send_block(self, call: Call, block: bytes, *, last: bool) -> None:
        """Headers, after the data that waits."""
        call.pending.append((block, f.HEADERS, last))
        self._send(call)

    def send_data(self, call: Call, payload: bytes) -> None:
        # A view: what remains of a large message after each of its frames must not be copied.
        call.pending.append((memoryview(payload), f.DATA, False))
        self._send(call)

    def _send(self, call: Call) -> None:
        """As much of what a stream wants to send as its windows allow; the rest waits for them."""
        if call.id not in self.calls:  # the peer gave up
            call.pending.clear()
        while call.pending:
            payload, kind, last = call.pending[0]
            if kind == f.HEADERS:
                call.pending.popleft()
                self._write(self._blocks_of(call.id, bytes(payload), last))
                if last:
                    self._ended(call)
                continue
            room = min(call.send_window, self._send_window)
            if room <= 0:
                if call not in self._waiting:
                    self._waiting.append(call)
                return
            part = payload[: min(room, self._peer_frame)]
            call.send_window -= len(part)
            self._send_window -= len(part)
            self._write(f.head(f.DATA, 0, call.id, len(part)))
            self._write(part)
            if len(part) < len(payload):
                call.pending[0] = (payload[len(part) :], f.DATA, False)
            else:
                call.pending.popleft()
        call.has_room()

    def _blocks_of(self, stream: int, block: bytes, last: bool) -> bytes:
        flags = f.END_STREAM if last else 0
        if len(block) <= self._peer_frame:
            return f.frame(f.HEADERS, flags | f.END_HEADERS, stream, block)
        parts = [block[at : at + self._peer_frame] for at in range(0, len(block), self._peer_frame)]
        ends = len(parts) - 1
        return f.frame(f.HEADERS, flags, stream, parts[0]) + b"".join(
            f.frame(f.CONTINUATION, f.END_HEADERS if i == ends else 0, stream, part)
            for i, part in enumerate(parts)
            if i
        )

    def _ended(self, call: Call) -> None:
        self.calls.pop(call.id, None)
        if not call.half_closed:  # the peer need send no more
            self._write(f.frame(f.RST_STREAM, 0, call.id, f.NO_ERROR.to_bytes(4, "big")))
        if self._draining:
            self._close_when_done()

    def _send_waiting(self) -> None:
        """The windows have opened."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if call.id in self.calls:
                self._send(call)

    # Writing

    def _write(self, data: bytes | memoryview) -> None:
        """What is written in one turn of the event loop goes out together: a system call costs more than its bytes.
        The answer to the only call under way has nothing to wait for."""
        if self._transport is None:
            return
        if not self._gathered:
            if not self.calls:
                self._transport.write(data)
                return
            self.loop.call_soon(self._write_out)
        self._gathered.append(data)
        self._gathered_size += len(data)
        if self._gathered_size >= _TOGETHER:
            self._write_out()

    def _write_out(self) -> None:
        if self._gathered and self._transport is not None:
            data = self._gathered[0] if len(self._gathered) == 1 else b"".join(self._gathered)
            self._gathered.clear()
            self._gathered_size = 0
            self._transport.write(data)

    # Ending

    def _close_when_done(self) -> None:
        if not self.calls and self._transport is not None:
            self._write_out()
            self._transport.close()

    def close(self) -> None:
        """Ends the connection and all of its calls."""
        if self._transport is not None:
            self._write_out()
            self._transport.close()
        for call in list(self.calls.values()):
            call.cancel()
        self.calls.clear()
