"""Completions, embeddings and models in OpenAI's dialect, through both front doors."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2, text_pb2
from mercat.registry.v1 import registry_pb2

from services.common import errors

from .conftest import Answer, Backend
from .dialect import EMBEDDED, described, events, generated, post, sent

PROMPTS: list[tuple[Any, list[str]]] = [
    ("x", ["x!"]),
    (["x", "y", "z"], ["x!", "y!", "z!"]),
    ([1, 2], ["[1, 2]!"]),
    ([[1, 2], [3]], ["[1, 2]!", "[3]!"]),
    ([f"p{place}" for place in range(30)], [f"p{place}!" for place in range(30)]),
]


@pytest.mark.parametrize(("prompt", "texts"), PROMPTS)
async def test_completions_of_all_forms_of_prompts(
    rest: httpx.AsyncClient, backend: Backend, prompt: Any, texts: list[str]
) -> None:
    backend.answers["Generate"] = generated
    answer = await post(rest, "/completions", model="a/b", prompt=prompt)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["id"], shown["object"], shown["system_fingerprint"]) == ("cmpl-1", "text_completion", "fp_1.0.0")
    assert [(choice["index"], choice["text"]) for choice in shown["choices"]] == list(enumerate(texts))
    assert shown["usage"]["total_tokens"] == 11 * len(texts)
    assert answer.headers["mercat-cost-nanos"] == str(7 * len(texts))
    streamed = [""] * len(texts)
    chunks = events(await post(rest, "/completions", model="a/b", prompt=prompt, stream=True))
    for chunk in chunks:
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["text"]
    assert streamed == texts
    assert sum(chunk["choices"][0]["finish_reason"] == "length" for chunk in chunks) == len(texts)


async def test_options_of_completions(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Generate"] = generated
    answer = await post(rest, "/completions", model="a/b", prompt="x", logprobs=1, echo=True, max_tokens=3, n=2)
    assert answer.json()["choices"][0]["logprobs"] == {
        "tokens": ["!"], "token_logprobs": [-1.0], "top_logprobs": [{"?": -2.0}], "text_offset": [1],
    }  # fmt: skip
    assert sent(backend) == {
        "model": "a/b", "prompt": "x", "echo": True, "sampling": {"logprobs": 1, "max_tokens": 3, "n": 2}
    }  # fmt: skip
    chunks = events(await post(rest, "/completions", model="a/b", prompt="x", logprobs=1, stream=True))
    assert chunks[1]["choices"][0]["logprobs"]["text_offset"] == [1]
    assert sent(backend)["sampling"]["max_tokens"] == 16  # as OpenAI's, where none is asked for


async def test_one_prompt_that_fails_fails_the_request(rest: httpx.AsyncClient, backend: Backend) -> None:
    def answer(request: Message) -> Answer:
        assert isinstance(request, text_pb2.GenerateRequest)
        if request.prompt == "bad":
            return errors.InvalidArgument("too long", reason="PROMPT_TOO_LONG")
        return [text_pb2.GenerateResponse(request_id="req_1", text="x"), 30.0]

    backend.answers["Generate"] = answer
    found = await post(rest, "/completions", model="a/b", prompt=["good", "bad"])
    assert (found.status_code, found.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert found.json()["error"]["param"] == "prompt"
    good = next(call for call in backend.calls if json_format.MessageToDict(call.messages[0])["prompt"] == "good")
    await asyncio.wait_for(good.cancelled.wait(), 5)


async def test_embeddings(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Embed"] = EMBEDDED
    answer = await post(rest, "/embeddings", model="a/b", input=["x", "y"])
    assert answer.json() == {
        "object": "list", "model": "a/b", "usage": {"prompt_tokens": 5, "total_tokens": 5, "cost_nanos": 3},
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]},
                 {"object": "embedding", "index": 1, "embedding": [1.0, 0.25]}],
    }  # fmt: skip
    assert answer.headers["x-request-id"] == "req_1"
    assert sent(backend) == {"model": "a/b", "inputs": ["x", "y"]}
    answer = await post(rest, "/embeddings", model="a/b", input="x", encoding_format="base64", priority=1)
    packed = base64.b64decode(answer.json()["data"][0]["embedding"])
    assert struct.unpack("<2f", packed) == (0.5, -1.0)
    assert sent(backend) == {"model": "a/b", "inputs": ["x"], "priority": 1}


async def test_dimensions_are_the_model_s_or_refused_before_anything_runs(
    rest: httpx.AsyncClient, backend: Backend
) -> None:
    spec = tensor_pb2.TensorSpec(name="y", datatype="FP32", shape=[-1, -1, 2])
    backend.answers["GetSignature"] = inference_pb2.GetSignatureResponse(signature=tensor_pb2.Signature(outputs=[spec]))
    backend.answers["Embed"] = EMBEDDED
    assert (await post(rest, "/embeddings", model="a/b", input="x", dimensions=2)).status_code == 200
    backend.calls.clear()
    answer = await post(rest, "/embeddings", model="a/b", input="x", dimensions=3)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dimensions")
    assert [type(call.messages[0]).__name__ for call in backend.calls] == ["GetSignatureRequest"]


def listed(request: Message) -> Answer:
    assert isinstance(request, registry_pb2.ListModelsRequest)
    if request.page_token:
        return registry_pb2.ListModelsResponse(models=[described("c/embed", "text-embedding")])
    models = [described("a/b", "text-generation"), described("a/eye", "text-detection")]
    return registry_pb2.ListModelsResponse(models=models, next_page_token="2")


async def test_models_are_the_text_models(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["ListModels"] = listed
    answer = await rest.get("/openai/v1/models")
    assert answer.json() == {"object": "list", "data": [
        {"id": "a/b", "object": "model", "created": 1_700_000_000, "owned_by": "a"},
        {"id": "c/embed", "object": "model", "created": 1_700_000_000, "owned_by": "c"}]}  # fmt: skip


@pytest.mark.parametrize("name", ["a/b", "a/b@1.0.0", "a/b:stable", "a%2Fb", "a%2Fb%401.0.0"])
async def test_one_model(rest: httpx.AsyncClient, backend: Backend, name: str) -> None:
    backend.answers["GetModel"] = registry_pb2.GetModelResponse(model=described("a/b", "text-generation"))
    version = registry_pb2.Version(state=registry_pb2.VERSION_STATE_PUBLISHED)
    backend.answers["GetVersion"] = registry_pb2.GetVersionResponse(version=version)
    answer = await rest.get(f"/openai/v1/models/{name}")
    assert answer.status_code == 200, answer.text
    plain = name.replace("%2F", "/").replace("%40", "@")
    assert answer.json() == {"id": plain, "object": "model", "created": 1_700_000_000, "owned_by": "a"}
    assert json_format.MessageToDict(backend.calls[0].messages[0]) == {"model": "a/b"}


async def test_model_that_cannot_be_called_here_is_not_found(rest: httpx.AsyncClient, backend: Backend) -> None:
    version = registry_pb2.Version(state=registry_pb2.VERSION_STATE_DRAFT)
    backend.answers["GetVersion"] = registry_pb2.GetVersionResponse(version=version)
    for name, found in {
        "a/eye": described("a/eye", "text-detection"),
        "a/b": described("a/b", "text-generation", ""),
        "a/b@2.0.0": described("a/b", "text-generation"),
        "a/b:none": described("a/b", "text-generation"),
    }.items():
        backend.answers["GetModel"] = registry_pb2.GetModelResponse(model=found)
        answer = await rest.get(f"/openai/v1/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
