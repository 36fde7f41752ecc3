"""The client that holds chats: what it counts of bytes that come as servers send them."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from mercat.inference.v1 import text_pb2

from benchmarks.callers import Grpc, Heard, Sse
from benchmarks.chats import conversation, first_length, gaps
from services.common.rpc.http2 import frames

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def chat(kind: type[Grpc] | type[Sse], answer: Answer) -> Heard:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        caller = kind(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "key", "model")
        heard = await caller.ask(conversation(), 3)
        await asyncio.wait_for(heard.ended.wait(), 10)
        caller.close()
    return heard


def grpc(*replies: text_pb2.ChatResponse) -> Answer:
    """Sends the replies, an octet at a time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(frames.PREFACE))
        parts = [frames.settings([]), frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x88")]
        parts += [frames.frame(frames.DATA, 0, 1, frames.message(reply.SerializeToString())) for reply in replies]
        parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, b"\x88"))
        for octet in b"".join(parts):
            writer.write(bytes((octet,)))
            await writer.drain()
        await reader.read()
        writer.close()

    return answer


def sse(*events: object) -> Answer:
    """Sends the events, each as a chunk, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in (*map(json.dumps, events), "[DONE]"):
            data = f"data: {event}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        writer.close()

    return answer


def piece(**delta: str | None) -> object:
    return {"choices": [{"delta": delta}]}


async def test_grpc_counts_tokens_and_knows_a_whole_answer_by_its_cost() -> None:
    pieces = [text_pb2.ChatResponse(text="a", tokens=1), text_pb2.ChatResponse(text="bc", tokens=2)]
    heard = await chat(Grpc, grpc(*pieces, text_pb2.ChatResponse(usage=text_pb2.TextUsage(output_tokens=3))))
    assert (heard.tokens, heard.messages, heard.whole) == ([1, 2], 3, True)
    assert heard.asked < heard.times[0] <= heard.times[1]
    heard = await chat(Grpc, grpc(*pieces))
    assert (heard.tokens, heard.whole) == ([1, 2], False)


async def test_events_count_tokens_and_those_that_had_no_text() -> None:
    pieces = [piece(role="assistant", content=None), piece(content="a"), piece(content="b")]
    heard = await chat(Sse, sse(*pieces, piece(), {"choices": [], "usage": {"completion_tokens": 3}}))
    assert (heard.tokens, heard.messages, heard.whole) == ([1, 1, 1], 5, True)
    heard = await chat(Sse, sse(*pieces))
    assert (heard.tokens, heard.whole) == ([1, 1], False)


def test_callers_do_not_come_to_their_next_chats_together() -> None:
    assert [first_length(caller, 4, 200) for caller in range(4)] == [50, 100, 150, 200]
    assert first_length(0, 16, 8) == 1


def test_gaps_are_of_each_stream_and_of_the_time_asked_for() -> None:
    found = gaps([[0.0, 1.0, 1.5, 9.0], [1.2, 1.4]], 0.5, 2.0)
    assert found == pytest.approx({"gap_p50_ms": 500, "gap_p99_ms": 990})
    assert gaps([], 0, 1) == {"gap_p50_ms": 0.0, "gap_p99_ms": 0.0}


def test_conversations_begin_differently() -> None:
    assert conversation()[0] != conversation()[0]
    assert len(conversation(40)[1][1].split()) == len(conversation()[1][1].split()) + 40
