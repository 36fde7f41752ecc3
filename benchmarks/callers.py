"""Callers of chats, each with one chat after the other: by gRPC on a connection of its own, or by the server-sent
events of OpenAI's dialect. They share the cores with what they measure, so they read frames themselves: that is cheap,
and shows each octet that comes."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mercat.inference.v1 import text_pb2

from services.common.rpc.http2 import frames

Messages = Sequence[tuple[str, str]]
STOPS = (0, 2)  # tokens with which SmolLM2 ends an answer
FORBIDDEN = -100.0  # so that all answers are as long as asked for


@dataclass(slots=True)
class Heard:
    """What came of a chat: times of the messages that held tokens, and how many these were. `whole`: to its end."""

    asked: float = field(default_factory=time.perf_counter)
    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    messages: int = 0
    whole: bool = False
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def come(self, tokens: int) -> None:
        self.messages += 1
        if tokens:
            self.times.append(time.perf_counter())
            self.tokens.append(tokens)
            self.began.set()

    def end(self) -> None:
        self.began.set()
        self.ended.set()


class Caller(asyncio.Protocol):
    """Connects when it asks and is not connected. `octets`: those that came."""

    def __init__(self, target: str, key: str, model: str) -> None:
        self.octets = 0
        self._target, self._key, self._model = target, key, model
        self._buffer = bytearray()
        self._heard = Heard()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._buffer.clear()

    def data_received(self, data: bytes) -> None:
        self.octets += len(data)
        self._buffer += data
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._heard.end()

    async def ask(self, messages: Messages, most: int) -> Heard:
        """Begins a chat of at most so many tokens."""
        self._heard = Heard()
        if self._transport is None:
            host, _, port = self._target.partition(":")
            await asyncio.get_running_loop().create_connection(lambda: self, host, int(port))
        self._send(messages, most)
        return self._heard

    def close(self) -> None:
        """Goes without a word, for good."""
        if self._transport is not None:
            self._transport.abort()

    def leave(self) -> None:
        """Ends the chat, not the connection where the protocol has a way for it."""
        self.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _send(self, messages: Messages, most: int) -> None:
        raise NotImplementedError

    def _read(self) -> None:
        raise NotImplementedError


class Grpc(Caller):
    """TextService.Chat. A chat is whole when its cost was told."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._stream = -1
        self._body = bytearray()
        self._write(
            frames.PREFACE + frames.settings([(frames.INITIAL_WINDOW_SIZE, frames.MOST)])
            + frames.frame(frames.WINDOW_UPDATE, 0, 0, (frames.MOST - 65_535).to_bytes(4, "big"))
        )  # fmt: skip
        said = {
            ":path": "/mercat.inference.v1.TextService/Chat", ":authority": self._target, "te": "trailers",
            "content-type": "application/grpc", "authorization": f"Bearer {self._key}",
        }  # fmt: skip
        literals = (frames.literal(name.encode(), value.encode()) for name, value in said.items())
        self._headers = b"\x83\x86" + b"".join(literals)  # POST and http are in HPACK's static table

    def leave(self) -> None:
        self._write(frames.frame(frames.RST_STREAM, 0, self._stream, frames.CANCEL.to_bytes(4, "big")))
        self._heard.end()

    def _send(self, messages: Messages, most: int) -> None:
        self._stream += 2
        self._body.clear()
        sampling = text_pb2.Sampling(max_tokens=most, temperature=0, logit_bias=dict.fromkeys(STOPS, FORBIDDEN))
        request = text_pb2.ChatRequest(
            model=self._model, sampling=sampling,
            messages=[text_pb2.ChatMessage(role=role, content=content) for role, content in messages],
        )  # fmt: skip
        body = frames.message(request.SerializeToString())
        self._write(
            frames.frame(frames.HEADERS, frames.END_HEADERS, self._stream, self._headers)
            + frames.frame(frames.DATA, frames.END_STREAM, self._stream, body)
        )

    def _read(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 9 and len(buffer) - at >= 9 + (size := int.from_bytes(buffer[at : at + 3], "big")):
            kind, flags, stream = buffer[at + 3], buffer[at + 4], int.from_bytes(buffer[at + 5 : at + 9], "big")
            payload = bytes(buffer[at + 9 : at + 9 + size])
            at += 9 + size
            if kind in (frames.SETTINGS, frames.PING) and not flags & frames.ACK:
                self._write(frames.frame(kind, frames.ACK, 0, payload if kind == frames.PING else b""))
            elif kind == frames.GOAWAY:
                self._heard.end()
            elif stream == self._stream:
                if kind == frames.DATA:
                    self._body += payload
                    self._take()
                if kind == frames.RST_STREAM or (kind != frames.WINDOW_UPDATE and flags & frames.END_STREAM):
                    self._heard.end()
        del buffer[:at]

    def _take(self) -> None:
        body = self._body
        while len(body) >= 5 and len(body) >= 5 + (size := int.from_bytes(body[1:5], "big")):
            reply = text_pb2.ChatResponse.FromString(bytes(body[5 : 5 + size]))
            del body[: 5 + size]
            self._heard.whole |= reply.HasField("usage")
            self._heard.come(reply.tokens)


class Sse(Caller):
    """POST /v1/chat/completions, each on a connection that the server closes. A chat is whole when its tokens were
    counted."""

    def _send(self, messages: Messages, most: int) -> None:
        asked = {
            "model": self._model, "messages": [{"role": role, "content": content} for role, content in messages],
            "stream": True, "stream_options": {"include_usage": True}, "max_tokens": most, "temperature": 0,
            "top_k": 1, "logit_bias": [(token, FORBIDDEN) for token in STOPS],
        }  # fmt: skip
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._target}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self._write(head.encode() + body)

    def _read(self) -> None:
        *events, rest = bytes(self._buffer).split(b"\n\n")
        self._buffer[:] = rest
        for event in events:
            _, found, data = event.partition(b"data: ")
            if found and data != b"[DONE]":
                self._take(json.loads(data))

    def _take(self, event: dict) -> None:
        heard = self._heard
        if usage := event.get("usage"):
            heard.whole = True
            heard.come(usage["completion_tokens"] - sum(heard.tokens))  # those that had no text of their own
        else:
            heard.come(any(choice["delta"].get("content") for choice in event["choices"]))


KINDS = {"grpc": Grpc, "sse": Sse}
