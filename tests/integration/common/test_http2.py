"""The HTTP/2 server: other people's clients are served as gRPC says, and peers who break the protocol harm nobody."""

import asyncio
import contextlib
import gzip
import itertools
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio
from hpack import Decoder, Encoder

from services.common.rpc.http2 import frames as f
from services.common.rpc.http2.connection import Limits
from services.common.rpc.http2.server import Http2Server

MOST = 8 << 20


class Methods(grpc.GenericRpcHandler):
    """Bytes in, bytes out."""

    def __init__(self) -> None:
        self.sent = 0
        self.cancelled = asyncio.Event()
        self.go = asyncio.Event()

    def service(self, details):
        name = details.method.rpartition("/")[2]
        kind = {"down": "unary_stream", "up": "stream_unary", "both": "stream_stream"}.get(name, "unary_unary")
        run = getattr(self, name, None)
        return None if run is None else getattr(grpc, f"{kind}_rpc_method_handler")(run)

    async def echo(self, request, context):
        context.set_trailing_metadata((("count", str(len(request))), ("raw-bin", b"\0\xff")))
        return request

    async def metadata(self, request, context):
        return repr(sorted((k, v) for k, v in context.invocation_metadata() if k.startswith("x-"))).encode()

    async def refuse(self, request, context):
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % é", (("why", "because"),))

    async def crash(self, request, context):
        raise KeyError("secret")

    async def wait(self, request, context):
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b"waited"

    async def down(self, request, context):
        for _ in range(int(request)):
            self.sent += 1
            yield bytes(100_000)

    async def up(self, requests, context):
        return str(sum([len(r) async for r in requests])).encode()

    async def both(self, requests, context):
        async for request in requests:
            yield request * 2


@pytest.fixture
async def served() -> AsyncIterator[tuple[Http2Server, Methods, str]]:
    server, methods = Http2Server(Limits(message=MOST, resets=100)), Methods()
    server.add_generic_rpc_handlers([methods])
    listening = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await server.listen(f"127.0.0.1:{port}")
    yield server, methods, f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
async def channel(served) -> AsyncIterator[aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with aio.insecure_channel(served[2], options=options) as channel:
        yield channel


async def test_messages_and_metadata_go_both_ways(channel):
    call = channel.unary_unary("/t/echo")(b"hello")
    assert await call == b"hello"
    trailers = dict(await call.trailing_metadata())
    assert (trailers["count"], trailers["raw-bin"]) == ("5", b"\0\xff")
    sent = (("x-a", "1"), ("x-b-bin", b"\1\2\3"), ("x-a", "2"))
    assert await channel.unary_unary("/t/metadata")(b"", metadata=sent) == repr(sorted(sent)).encode()


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_536, 1 << 20, MOST])
async def test_messages_of_any_size_up_to_the_limit(channel, size):
    assert await channel.unary_unary("/t/echo")(bytes(size)) == bytes(size)


async def test_many_calls_of_one_connection_at_once(channel):
    echo = channel.unary_unary("/t/echo")
    bodies = [bytes([i % 256]) * (i * 37 % 50_000) for i in range(400)]
    assert await asyncio.gather(*(echo(b) for b in bodies)) == bodies


async def ended(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(aio.AioRpcError) as e:
        await call
    return e.value.code(), e.value.details() or ""


async def test_errors_are_statuses(channel):
    call = channel.unary_unary("/t/refuse")(b"")
    assert await ended(call) == (grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % é")
    assert ("why", "because") in list(await call.trailing_metadata())
    code, text = await ended(channel.unary_unary("/t/crash")(b""))
    assert code is grpc.StatusCode.UNKNOWN
    assert "secret" not in text
    assert (await ended(channel.unary_unary("/t/none")(b"")))[0] is grpc.StatusCode.UNIMPLEMENTED
    too_large = await ended(channel.unary_unary("/t/echo")(bytes(MOST + 1)))
    assert too_large[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await channel.unary_unary("/t/echo")(b"still") == b"still"


async def test_compressed_requests_are_unpacked_but_no_bombs(channel, served):
    body = b"abc" * 10_000
    assert await channel.unary_unary("/t/echo")(body, compression=grpc.Compression.Gzip) == body
    bomb = gzip.compress(bytes(MOST + 1))
    async with Raw(served[2]) as raw:
        raw.request("/t/echo", b"\1" + len(bomb).to_bytes(4, "big") + bomb, ("grpc-encoding", "gzip"))
        assert (await raw.trailers())["grpc-status"] == "3"


async def test_the_deadline_and_the_caller_end_the_handler(channel, served):
    methods = served[1]
    assert (await ended(channel.unary_unary("/t/wait")(b"", timeout=0.05)))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(methods.cancelled.wait(), 2)
    methods.cancelled.clear()
    call = channel.unary_unary("/t/wait")(b"")
    await asyncio.sleep(0.05)
    call.cancel()
    await asyncio.wait_for(methods.cancelled.wait(), 2)


async def test_streams_in_every_direction(channel):
    assert await channel.stream_unary("/t/up")(iter([bytes(70_000)] * 50)) == b"3500000"
    assert [len(m) async for m in channel.unary_stream("/t/down")(b"30")] == [100_000] * 30
    both = channel.stream_stream("/t/both")(iter([b"a", b"bc"]))
    assert [m async for m in both] == [b"aa", b"bcbc"]
    assert await channel.stream_unary("/t/up")(iter([bytes(5_000_000)])) == b"5000000"


async def test_a_stream_waits_for_a_reader_who_is_slow(served):
    # Else the client measures the way and opens its window by itself, as far as it happens to find.
    fixed = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 20))
    async with aio.insecure_channel(served[2], options=fixed) as channel:
        call = channel.unary_stream("/t/down")(b"1000")
        await call.read()
        await asyncio.sleep(0.3)
        assert served[1].sent < 40
        assert await channel.unary_unary("/t/echo")(b"others go on") == b"others go on"
        call.cancel()


async def test_draining_lets_calls_end_and_takes_no_new_ones(channel, served):
    server, methods, _ = served
    running = channel.unary_unary("/t/wait")(b"")
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(server.stop(5))
    await asyncio.sleep(0.1)
    assert (await ended(channel.unary_unary("/t/echo")(b"", timeout=1)))[0] is grpc.StatusCode.UNAVAILABLE
    methods.go.set()
    assert await running == b"waited"
    await asyncio.wait_for(stopping, 2)


class Raw:
    """A client that sends frames as it likes."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.encoder, self.decoder = Encoder(), Decoder()
        self.streams = itertools.count(1, 2)

    async def __aenter__(self) -> "Raw":
        host, _, port = self.address.rpartition(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        self.send(f.PREFACE + f.settings([]))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def block(self, path: str, *more: tuple[str, str]) -> bytes:
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
        return bytes(self.encoder.encode([*head, ("content-type", "application/grpc"), *more]))

    def request(self, path: str, data: bytes, *more: tuple[str, str]) -> int:
        stream = next(self.streams)
        self.send(f.frame(f.HEADERS, f.END_HEADERS, stream, self.block(path, *more)))
        for at in range(0, len(data) or 1, f.FRAME):
            last = at + f.FRAME >= len(data)
            self.send(f.frame(f.DATA, f.END_STREAM if last else 0, stream, data[at : at + f.FRAME]))
        return stream

    async def frame(self) -> tuple[int, int, int, bytes]:
        async with asyncio.timeout(3):
            head = await self.reader.readexactly(9)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    async def until(self, kind: int) -> tuple[int, int, bytes]:
        while True:
            got, flags, stream, payload = await self.frame()
            if got == kind:
                return flags, stream, payload

    async def trailers(self) -> dict[str, str]:
        while True:
            flags, _, payload = await self.until(f.HEADERS)
            headers = dict(self.decoder.decode(payload))
            if flags & f.END_STREAM:
                return headers

    async def error(self) -> int:
        """The code of the GOAWAY that the server answers, after which it closes."""
        _, _, payload = await self.until(f.GOAWAY)
        with contextlib.suppress(ConnectionResetError):  # as it ends where it has not read all that was sent
            assert await asyncio.wait_for(self.reader.read(), 10) == b""
        return int.from_bytes(payload[4:8], "big")


MESSAGE = f.message(b"hello")


async def test_frames_may_be_cut_padded_and_continued_anyhow(served):
    async with Raw(served[2]) as raw:
        block = raw.block("/t/echo")
        padded = b"\x04" + bytes(5) + block[:7] + bytes(4)
        data = (
            f.frame(f.HEADERS, f.PADDED | f.HAS_PRIORITY, 1, padded)
            + f.frame(f.CONTINUATION, 0, 1, block[7:9])
            + f.frame(f.CONTINUATION, f.END_HEADERS, 1, block[9:])
            + f.frame(f.DATA, f.PADDED, 1, b"\x03" + MESSAGE[:2] + bytes(3))
            + f.frame(f.PRIORITY, 0, 1, bytes(5))
            + f.frame(0xEE, 0, 1, b"unknown")
            + f.frame(f.DATA, f.END_STREAM, 1, MESSAGE[2:])
        )
        for byte in data:
            raw.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await raw.until(f.DATA))[2] == MESSAGE
        assert (await raw.trailers())["grpc-status"] == "0"
        raw.send(f.frame(f.PING, 0, 0, b"12345678"))
        assert (await raw.until(f.PING))[::2] == (f.ACK, b"12345678")


async def test_a_message_is_handed_on_though_the_next_began_in_its_frame(served):
    async with Raw(served[2]) as raw:
        raw.send(f.frame(f.HEADERS, f.END_HEADERS, 1, raw.block("/t/both")))
        await asyncio.sleep(0.05)  # the handler waits for its first message
        for data in (MESSAGE + MESSAGE[:3], MESSAGE[3:] + MESSAGE[:7]):
            raw.send(f.frame(f.DATA, 0, 1, data))
            assert (await raw.until(f.DATA))[2] == f.message(b"hellohello")


async def test_a_reply_waits_for_the_window(served):
    async with Raw(served[2]) as raw:
        raw.send(f.settings([(f.INITIAL_WINDOW_SIZE, 3)]))
        stream = raw.request("/t/echo", MESSAGE)
        assert (await raw.until(f.DATA))[2] == MESSAGE[:3]
        raw.send(f.frame(f.WINDOW_UPDATE, 0, stream, (4).to_bytes(4, "big")))
        assert (await raw.until(f.DATA))[2] == MESSAGE[3:7]
        raw.send(f.settings([(f.INITIAL_WINDOW_SIZE, 100)]))
        assert (await raw.until(f.DATA))[2] == MESSAGE[7:]
        assert (await raw.trailers())["grpc-status"] == "0"


HEADERS_OF_TWO = f.frame(f.HEADERS, f.END_HEADERS, 2, b"\x82")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (f.FRAME.to_bytes(3, "big")[:1] + b"\x40\x01" + bytes(6), f.FRAME_SIZE_ERROR),
        (HEADERS_OF_TWO, f.PROTOCOL_ERROR),
        (f.frame(f.DATA, 0, 9, b"x"), f.PROTOCOL_ERROR),
        (f.frame(f.CONTINUATION, 0, 1, b""), f.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, 0, 1, b"\x82") + f.frame(f.PING, 0, 0, bytes(8)), f.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, f.END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), f.COMPRESSION_ERROR),
        (f.frame(f.HEADERS, f.END_HEADERS | f.PADDED, 1, b"\x09x"), f.PROTOCOL_ERROR),
        (f.frame(f.RST_STREAM, 0, 7, bytes(4)), f.PROTOCOL_ERROR),
        (f.frame(f.PING, 0, 0, b"short"), f.FRAME_SIZE_ERROR),
        (f.frame(f.WINDOW_UPDATE, 0, 0, bytes(4)), f.FLOW_CONTROL_ERROR),
        (f.frame(f.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), f.FLOW_CONTROL_ERROR),
        (f.settings([(f.INITIAL_WINDOW_SIZE, 2**31)]), f.FLOW_CONTROL_ERROR),
        (f.settings([(f.MAX_FRAME_SIZE, 1)]), f.PROTOCOL_ERROR),
        (f.frame(f.PUSH_PROMISE, 0, 1, bytes(4)), f.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, 0, 1, b"") + f.frame(f.CONTINUATION, 0, 1, bytes(9000)) * 9, f.ENHANCE_YOUR_CALM),
    ],
)
async def test_a_peer_who_breaks_the_protocol_is_told_and_cut_off(served, channel, sent, code):
    async with Raw(served[2]) as raw:
        raw.send(sent)
        assert await raw.error() == code
    assert await channel.unary_unary("/t/echo")(b"others go on") == b"others go on"


async def test_other_protocols_are_cut_off(served):
    host, _, port = served[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.wait_for(reader.read(), 3)
    writer.close()
    await writer.wait_closed()


def left_at_once(raw: "Raw", streams: range) -> None:
    """Opens streams, each only to be cancelled."""
    for stream in streams:
        block = raw.block("/t/wait")
        raw.send(f.frame(f.HEADERS, f.END_HEADERS, stream, block) + f.frame(f.RST_STREAM, 0, stream, bytes(4)))


async def test_streams_that_are_only_opened_to_be_cancelled_come_to_an_end(served, channel):
    async with Raw(served[2]) as raw:
        left_at_once(raw, range(1, 2 * 200, 2))
        assert await raw.error() == f.ENHANCE_YOUR_CALM
    assert await channel.unary_unary("/t/echo")(b"others go on") == b"others go on"


async def test_a_connection_that_lasts_may_have_any_number_of_streams_cancelled(served):
    async with Raw(served[2]) as raw:
        for at in range(0, 2 * 1000, 2 * 90):
            left_at_once(raw, range(at + 1, at + 2 * 90, 2))
            await asyncio.sleep(0.2)
        stream = 2 * 1100 + 1
        raw.send(f.frame(f.HEADERS, f.END_HEADERS, stream, raw.block("/t/echo")))
        raw.send(f.frame(f.DATA, f.END_STREAM, stream, MESSAGE))
        assert (await raw.until(f.DATA))[1:] == (stream, MESSAGE)
