"""OpenAI's own clients for Python and Node, unmodified, through both front doors."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import openai
import pydantic
import pytest
from mercat.inference.v1 import text_pb2
from mercat.registry.v1 import registry_pb2

from services.common import errors
from services.common.errors import MercatError, Violation

from .conftest import Backend, Door
from .dialect import EMBEDDED, HELLO, STOP, USAGE, described, generated

SCRIPT = Path(__file__).with_name("openai_client.mjs")
NODE_CLIENT = Path(__file__).parents[3] / ".tools" / "node" / "node_modules" / "openai" / "index.mjs"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def client(door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{door.url}/openai/v1", api_key="mk_live_1", max_retries=0) as made:
        yield made


def fill(backend: Backend) -> None:
    model = described("a/b", "text-generation")
    backend.answers |= {
        "Chat": HELLO,
        "Generate": generated,
        "Embed": EMBEDDED,
        "ListModels": registry_pb2.ListModelsResponse(models=[model]),
        "GetModel": registry_pb2.GetModelResponse(model=model),
    }
    backend.trailers = (("mercat-request-id", "req_1"),)


async def test_asynchronous_client(client: openai.AsyncOpenAI, backend: Backend) -> None:
    fill(backend)
    chat = await client.chat.completions.create(model="a/b", messages=MESSAGES, user="ada")
    assert (chat.choices[0].message.content, chat.choices[0].finish_reason) == ("Hello", "stop")
    assert chat._request_id == "req_1"
    assert backend.calls[-1].metadata["authorization"] == "Bearer mk_live_1"
    assert chat.usage is not None
    assert chat.usage.prompt_tokens_details is not None
    assert chat.usage.prompt_tokens_details.cached_tokens == 4
    stream = await client.chat.completions.create(
        model="a/b", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 11
    async with client.chat.completions.stream(model="a/b", messages=MESSAGES) as helped:
        assert (await helped.get_final_completion()).choices[0].message.content == "Hello"
    completion = await client.completions.create(model="a/b", prompt=["x", "y"], max_tokens=2)
    assert [choice.text for choice in completion.choices] == ["x!", "y!"]
    texts = [
        chunk.choices[0].text async for chunk in await client.completions.create(model="a/b", prompt="x", stream=True)
    ]
    assert texts == ["x", "!"]
    embedded = await client.embeddings.create(model="a/b", input=["x", "y"])
    assert [one.embedding for one in embedded.data] == [[0.5, -1.0], [1.0, 0.25]]
    assert [model.id async for model in client.models.list()] == ["a/b"]
    assert (await client.models.retrieve("a/b:stable")).owned_by == "a"


async def test_synchronous_client(door: Door, backend: Backend) -> None:
    fill(backend)

    def use() -> tuple[str, list[float], str]:
        with openai.OpenAI(base_url=f"{door.url}/openai/v1", api_key="mk_live_1", max_retries=0) as client:
            with client.chat.completions.create(model="a/b", messages=MESSAGES, stream=True) as stream:
                text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            embedded = client.embeddings.create(model="a/b", input="x", encoding_format="float")
            return text, embedded.data[0].embedding, client.models.retrieve("a/b").id

    assert await asyncio.to_thread(use) == ("Hello", [0.5, -1.0], "a/b")


class Answer(pydantic.BaseModel):
    city: str


async def test_structured_answer_is_parsed(client: openai.AsyncOpenAI, backend: Backend) -> None:
    backend.answers["Chat"] = [
        text_pb2.ChatResponse(request_id="req_1", text='{"city":"Ulm"}', finish_reason=STOP, usage=USAGE)
    ]
    chat = await client.chat.completions.parse(model="a/b", messages=MESSAGES, response_format=Answer)
    assert chat.choices[0].message.parsed == Answer(city="Ulm")
    sent = backend.last
    assert isinstance(sent, text_pb2.ChatRequest)
    assert json.loads(sent.sampling.json_schema)["required"] == ["city"]


RAISED: list[tuple[MercatError, type[openai.APIStatusError], str, str | None]] = [
    (errors.RateLimited("slow down", retry_after=1), openai.RateLimitError, "rate_limit_exceeded", None),
    (errors.InsufficientCredit("no credit"), openai.RateLimitError, "insufficient_quota", None),
    (errors.CredentialInvalid("unknown"), openai.AuthenticationError, "invalid_api_key", None),
    (errors.PermissionDenied("no", reason="SCOPE_MISSING"), openai.PermissionDeniedError, "scope_missing", None),
    (errors.ModelNotFound("none"), openai.NotFoundError, "model_not_found", "model"),
    (errors.InvalidFields(violations=[Violation("sampling.top_p", "x")]), openai.BadRequestError, "invalid_value",
     "top_p"),
    (errors.InvalidArgument("x", reason="PROMPT_TOO_LONG"), openai.BadRequestError, "context_length_exceeded",
     "messages"),
    (errors.Unavailable("later"), openai.InternalServerError, "unavailable", None),
]  # fmt: skip


@pytest.mark.parametrize(("error", "kind", "code", "param"), RAISED)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_are_the_client_s_own(
    client: openai.AsyncOpenAI, backend: Backend, stream: bool, error: MercatError, kind: type[openai.APIStatusError],
    code: str, param: str | None,
) -> None:  # fmt: skip
    backend.answers["Chat"] = error
    with pytest.raises(kind) as raised:
        await client.chat.completions.create(model="a/b", messages=MESSAGES, stream=stream)
    assert (raised.value.code, raised.value.param) == (code, param)
    assert error.message in raised.value.message or param == "top_p"


async def test_error_in_a_stream_is_raised(client: openai.AsyncOpenAI, backend: Backend) -> None:
    backend.answers["Chat"] = [HELLO[0], errors.Unavailable("gone")]
    stream = await client.chat.completions.create(model="a/b", messages=MESSAGES, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Hel"
    with pytest.raises(openai.APIError, match="gone"):
        await anext(stream)


async def test_rate_limit_is_waited_out(door: Door, backend: Backend) -> None:
    answers = iter([errors.RateLimited("slow down", retry_after=1), HELLO])
    backend.answers["Chat"] = lambda request: next(answers)
    async with openai.AsyncOpenAI(base_url=f"{door.url}/openai/v1", api_key="k", max_retries=1) as client:
        chat = await client.chat.completions.create(model="a/b", messages=MESSAGES)
    assert chat.choices[0].message.content == "Hello"


async def test_missing_credit_is_not_tried_again(door: Door, backend: Backend) -> None:
    backend.answers["Chat"] = errors.InsufficientCredit("no credit")
    async with openai.AsyncOpenAI(base_url=f"{door.url}/openai/v1", api_key="k", max_retries=3) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="a/b", messages=MESSAGES)
    assert len(backend.calls) == 1


async def test_node_client(door: Door, backend: Backend, tool: Callable[[str], str]) -> None:
    node = tool("node")
    if not NODE_CLIENT.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the Node client is not installed; `make tools` does")
    fill(backend)
    process = await asyncio.create_subprocess_exec(
        node, str(SCRIPT), str(NODE_CLIENT), f"{door.url}/openai/v1",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    assert json.loads(out) == {
        "whole": "Hello", "requestId": "req_1", "streamed": "Hello", "usage": 11, "helped": "Hello",
        "embedded": [0.5, -1.0], "listed": ["a/b"], "retrieved": "a/b",
        "refused": {"kind": "BadRequestError", "status": 400, "code": "invalid_type", "param": "temperature"},
    }  # fmt: skip
