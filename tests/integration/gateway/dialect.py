"""What the tests of OpenAI's dialect share: a question, an answer, and how both are read."""

from __future__ import annotations

import json
from typing import Any

import httpx
from google.protobuf import json_format, timestamp_pb2
from google.protobuf.message import Message
from mercat.inference.v1 import text_pb2
from mercat.registry.v1 import registry_pb2

from .conftest import Answer, Backend

STOP, LENGTH = text_pb2.FINISH_REASON_STOP, text_pb2.FINISH_REASON_LENGTH
USAGE = text_pb2.TextUsage(input_tokens=9, cached_input_tokens=4, output_tokens=2, cost_nanos=7)
COUNTED = {
    "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 4},
    "cost_nanos": 7,
}  # fmt: skip
HELLO = [
    text_pb2.ChatResponse(request_id="req_1", model="a/b", version="1.2.0", role="assistant", text="Hel", tokens=1),
    text_pb2.ChatResponse(text="lo", tokens=1),
    text_pb2.ChatResponse(finish_reason=STOP, usage=USAGE),
]
ASKED = {"model": "a/b", "messages": [{"role": "user", "content": "Hi"}]}
EMBEDDED = text_pb2.EmbedResponse(
    request_id="req_1", input_tokens=5, cost_nanos=3,
    embeddings=[text_pb2.Embedding(values=[0.5, -1.0]), text_pb2.Embedding(values=[1.0, 0.25])],
)  # fmt: skip


async def post(rest: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    return await rest.post(f"/openai/v1{path}", json=body)


def events(answer: httpx.Response) -> list[Any]:
    """The data of each event; the last must be the end."""
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    found = answer.text.split("\n\n")
    assert found[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in found[:-2]]


def sent(backend: Backend) -> Any:
    return json_format.MessageToDict(backend.last, preserving_proto_field_name=True)


def generated(request: Message) -> Answer:
    """The prompt, and what was made of it, in two pieces."""
    assert isinstance(request, text_pb2.GenerateRequest)
    prompt = request.prompt or str(list(request.prompt_tokens))
    one = text_pb2.TokenLogprob(
        token="!", token_bytes=b"!", logprob=-1, top=[text_pb2.TokenLogprob(token="?", logprob=-2)]
    )
    return [
        text_pb2.GenerateResponse(request_id="req_1", version="1.0.0", text=prompt, tokens=1),
        text_pb2.GenerateResponse(text="!", tokens=1, logprobs=[one], finish_reason=LENGTH, usage=USAGE),
    ]


def described(name: str, task: str, version: str = "1.0.0") -> registry_pb2.Model:
    return registry_pb2.Model(
        model=name, task=task, latest_version=version, aliases={"stable": "1.0.0"},
        published_at=timestamp_pb2.Timestamp(seconds=1_700_000_000),
    )  # fmt: skip
