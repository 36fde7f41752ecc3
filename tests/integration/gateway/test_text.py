"""Text models over REST and gRPC-Web: what Mercat's own dialects make of TextService's streams."""

from __future__ import annotations

import asyncio
import json
import struct

import httpx
import pytest
from google.protobuf import json_format
from mercat.inference.v1 import text_pb2

from services.common import errors

from .conftest import Backend, Door

ANSWERED = [
    text_pb2.ChatResponse(request_id="req_1", model="a/b", version="1.0.0", role="assistant", text="Hel", tokens=1),
    text_pb2.ChatResponse(text="lo", tokens=1),
    text_pb2.ChatResponse(
        finish_reason=text_pb2.FINISH_REASON_STOP,
        usage=text_pb2.TextUsage(input_tokens=3, output_tokens=2, cost_nanos=7),
    ),
]
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "sampling": {"maxTokens": 5, "temperature": 0}}


def objects(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_chat_is_a_stream(rest: httpx.AsyncClient, backend: Backend, accept: str) -> None:
    backend.answers["Chat"] = ANSWERED
    answer = await rest.post("/v1/models/a/b@1.0.0:chat", json=CHAT, headers={"accept": accept})
    assert answer.status_code == 200
    kind = "text/event-stream" if accept == "text/event-stream" else "application/x-ndjson"
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert [json_format.ParseDict(item, text_pb2.ChatResponse()) for item in objects(answer)] == ANSWERED
    assert json_format.MessageToDict(backend.last) == {**CHAT, "model": "a/b@1.0.0"}


async def test_generation_is_a_stream(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Generate"] = [text_pb2.GenerateResponse(text="x", tokens=1), text_pb2.GenerateResponse(tokens=0)]
    body = {"prompt_tokens": [1, 2], "sampling": {"logitBias": {"7": -100}, "jsonSchema": "{}"}}
    answer = await rest.post("/v1/models/a/b:generate", json=body)
    assert [item["text"] for item in objects(answer)] == ["x", ""]
    sent = backend.last
    assert isinstance(sent, text_pb2.GenerateRequest)
    assert (list(sent.prompt_tokens), dict(sent.sampling.logit_bias), sent.sampling.json_schema) == (
        [1, 2], {7: -100.0}, "{}",
    )  # fmt: skip


async def test_first_piece_does_not_wait_for_the_second(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = [ANSWERED[0], 5.0, ANSWERED[1]]
    async with asyncio.timeout(3), rest.stream("POST", "/v1/models/a/b:chat", json=CHAT) as answer:
        async for line in answer.aiter_lines():
            assert json.loads(line)["text"] == "Hel"
            break
    await asyncio.wait_for(backend.calls[-1].cancelled.wait(), 5)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InsufficientCredit("no credit"), 429),
        (errors.InvalidArgument("too long", reason="PROMPT_TOO_LONG"), 400),
    ],
)
async def test_refusal_before_the_first_token_has_its_status(
    rest: httpx.AsyncClient, backend: Backend, error: errors.MercatError, status: int
) -> None:
    backend.answers["Chat"] = [0.5, error]  # longer than the shim waits for a stream that was accepted
    for accept in ("*/*", "text/event-stream"):
        answer = await rest.post("/v1/models/a/b:chat", json=CHAT, headers={"accept": accept})
        assert answer.status_code == status
        assert answer.json()["error"]["details"][0]["reason"] == error.reason


async def test_embeddings_and_counts_are_plain_calls(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Embed"] = text_pb2.EmbedResponse(
        embeddings=[text_pb2.Embedding(values=[0.5, -1.0])], input_tokens=4
    )
    answer = await rest.post("/v1/models/a/b:embed", json={"inputs": ["x"]})
    assert answer.json()["embeddings"] == [{"values": [0.5, -1.0]}]
    backend.answers["CountTokens"] = text_pb2.CountTokensResponse(tokens=3, context_tokens=2048)
    answer = await rest.post("/v1/models/a/b:countTokens", json={"prompt": "a b c"})
    assert (answer.json()["tokens"], answer.json()["contextTokens"]) == (3, 2048)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """gRPC-Web: flags (128: trailers), length in four bytes, payload."""
    found: list[tuple[int, bytes]] = []
    while data:
        flags, length = struct.unpack(">BI", data[:5])
        found.append((flags, data[5 : 5 + length]))
        data = data[5 + length :]
    return found


async def test_chat_over_grpc_web(doors: dict[str, Door], backend: Backend) -> None:
    backend.answers["Chat"] = ANSWERED
    backend.trailers = (("mercat-request-id", "req_1"), ("mercat-cost-nanos", "7"))
    request = text_pb2.ChatRequest(model="a/b", messages=[text_pb2.ChatMessage(role="user", content="Hi")])
    payload = request.SerializeToString()
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "https://app.example"}
    async with httpx.AsyncClient(base_url=doors["envoy"].url) as client:
        path = "/mercat.inference.v1.TextService/Chat"
        answer = await client.post(path, content=struct.pack(">BI", 0, len(payload)) + payload, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/grpc-web+proto"
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert backend.last == request
    *messages, (flags, trailers) = frames(answer.content)
    assert [text_pb2.ChatResponse.FromString(data) for _, data in messages] == ANSWERED
    assert flags == 128
    told = dict(line.split(":", 1) for line in trailers.decode().splitlines())
    assert (told["grpc-status"].strip(), told["mercat-cost-nanos"].strip()) == ("0", "7")
