"""Chats in OpenAI's dialect, through both front doors: what a request becomes and what an answer looks like."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from mercat.inference.v1 import text_pb2

from .conftest import Backend
from .dialect import ASKED, COUNTED, HELLO, LENGTH, STOP, USAGE, events, post, sent


async def test_chat_is_one_object(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = HELLO
    backend.trailers = (("mercat-request-id", "req_1"), ("mercat-cost-nanos", "7"), ("ratelimit", '"account";r=9'))
    answer = await post(rest, "/chat/completions", **ASKED)
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown.pop("created") > 1_700_000_000
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    assert shown == {
        "id": "chatcmpl-1", "object": "chat.completion", "model": "a/b", "system_fingerprint": "fp_1.2.0",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}], "usage": COUNTED,
    }  # fmt: skip
    told = {
        "mercat-request-id": "req_1",
        "x-request-id": "req_1",
        "mercat-cost-nanos": "7",
        "ratelimit": '"account";r=9',
    }
    assert told.items() <= dict(answer.headers).items()
    assert answer.headers["content-type"] == "application/json"


ENDING = {
    "deprecation": "@1790000000", "sunset": "Sun, 31 Jan 2027 00:00:00 GMT",
    "link": '</v1/models/a/b/versions/1.3.0>; rel="successor-version"', "mercat-successor": "a/b@1.3.0",
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_says_that_the_version_is_on_its_way_out(
    rest: httpx.AsyncClient, backend: Backend, stream: bool
) -> None:
    backend.answers["Chat"] = HELLO
    backend.begins = backend.trailers = tuple(ENDING.items())
    answer = await post(rest, "/chat/completions", **ASKED, stream=stream)
    assert ENDING.items() <= dict(answer.headers).items()


async def test_chat_streams_chunks(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = HELLO
    answer = await post(rest, "/chat/completions", **ASKED, stream=True)
    assert answer.headers["x-request-id"] == answer.headers["mercat-request-id"] == "req_1"
    chunks = events(answer)
    assert {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", "a/b")
    }
    assert all("usage" not in chunk for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": "Hel"}, {"content": "lo"}, {},
    ]  # fmt: skip
    assert [choice["finish_reason"] for choice in choices] == [None, None, "stop"]


async def test_usage_is_the_last_chunk_for_who_asks(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = HELLO
    chunks = events(await post(rest, "/chat/completions", **ASKED, stream=True, stream_options={"include_usage": True}))
    assert [chunk["usage"] for chunk in chunks] == [None, None, None, COUNTED]
    assert chunks[-1]["choices"] == []


async def test_several_answers_go_on_side_by_side(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = [
        text_pb2.ChatResponse(request_id="req_1", index=1, role="assistant", text="B"),
        text_pb2.ChatResponse(index=0, role="assistant", text="A"),
        text_pb2.ChatResponse(index=0, text="a", finish_reason=LENGTH),
        text_pb2.ChatResponse(index=1, finish_reason=STOP, usage=USAGE),
    ]
    choices = (await post(rest, "/chat/completions", **ASKED, n=2)).json()["choices"]
    assert [(choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in choices] == [
        (0, "Aa", "length"), (1, "B", "stop"),
    ]  # fmt: skip
    deltas = [chunk["choices"][0] for chunk in events(await post(rest, "/chat/completions", **ASKED, n=2, stream=True))]
    assert [(choice["index"], choice["delta"], choice["finish_reason"]) for choice in deltas] == [
        (1, {"role": "assistant", "content": "B"}, None),
        (0, {"role": "assistant", "content": "A"}, None),
        (0, {"content": "a"}, None),
        (0, {}, "length"),
        (1, {}, "stop"),
    ]
    assert sent(backend)["sampling"]["n"] == 2


async def test_logprobs_of_chats(rest: httpx.AsyncClient, backend: Backend) -> None:
    top = text_pb2.TokenLogprob(token="\ufffd", token_bytes=b"\xc3", logprob=float("-inf"))
    one = text_pb2.TokenLogprob(token="Hi", token_bytes=b"Hi", logprob=-0.5, top=[top])
    backend.answers["Chat"] = [text_pb2.ChatResponse(request_id="req_1", text="Hi", logprobs=[one], finish_reason=STOP)]
    answer = await post(rest, "/chat/completions", **ASKED, logprobs=True, top_logprobs=1)
    expected = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [
        {"token": "\ufffd", "logprob": -9999.0, "bytes": [195]}]}  # fmt: skip
    assert answer.json()["choices"][0]["logprobs"] == {"content": [expected], "refusal": None}
    assert sent(backend)["sampling"]["logprobs"] == 1
    chunks = events(await post(rest, "/chat/completions", **ASKED, logprobs=True, stream=True))
    assert chunks[0]["choices"][0]["logprobs"]["content"] == [expected]
    assert sent(backend)["sampling"]["logprobs"] == 0


FORM = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHATS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 5}, {"sampling": {"max_tokens": 5}}),
    ({"max_tokens": 5, "max_completion_tokens": 6}, {"sampling": {"max_tokens": 6}}),
    ({"temperature": 0, "top_p": 0.5, "seed": -3, "stop": "x"},
     {"sampling": {"temperature": 0.0, "top_p": 0.5, "seed": "-3", "stop": ["x"]}}),
    ({"stop": ["x", "y"], "presence_penalty": 1, "frequency_penalty": -1.5, "logit_bias": {"50256": -100}},
     {"sampling": {"stop": ["x", "y"], "presence_penalty": 1.0, "frequency_penalty": -1.5,
                   "logit_bias": {"50256": -100.0}}}),
    ({"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "priority": 2},
     {"sampling": {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1}, "priority": 2}),
    ({"response_format": {"type": "text"}}, {"sampling": {}}),
    ({"response_format": {"type": "json_object"}}, {"sampling": {"json_object": True}}),
    ({"response_format": FORM}, {"sampling": {"json_schema": '{"type": "object"}'}}),
    ({"tools": [TOOL]}, {"tools": [TOOL]}),
    ({"tools": [TOOL], "tool_choice": "none"}, {}),
    ({"user": "u", "store": True, "metadata": {"a": 1}, "service_tier": "auto", "parallel_tool_calls": False,
      "stop": None, "stream": None, "temperature": None, "unknown": [1]}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), CHATS)
async def test_options_of_chats(
    rest: httpx.AsyncClient, backend: Backend, body: dict[str, Any], message: dict[str, Any]
) -> None:
    backend.answers["Chat"] = HELLO
    answer = await post(rest, "/chat/completions", **ASKED, **body)
    assert answer.status_code == 200, answer.text
    expected = {**ASKED, **message}
    expected["sampling"] = {"n": 1, **message.get("sampling", {})}
    assert sent(backend) == expected


async def test_messages_of_all_kinds(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = HELLO
    made = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts, "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [made], "refusal": None},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]
    answer = await post(rest, "/chat/completions", model="a/b:stable", messages=messages)
    assert answer.status_code == 200, answer.text
    assert sent(backend)["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one\ntwo", "name": "ada"},
        {"role": "assistant", "tool_calls": [made]},
        {"role": "tool", "content": "4", "tool_call_id": "c1"},
    ]


async def test_chunk_arrives_as_it_is_made_and_leaving_cancels(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = [*HELLO[:1], 30.0]
    body = {**ASKED, "stream": True}
    async with asyncio.timeout(5), rest.stream("POST", "/openai/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            assert json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"] == "Hel"
            break
    await asyncio.wait_for(backend.calls[-1].cancelled.wait(), 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_before_the_first_token_cancels(rest: httpx.AsyncClient, backend: Backend, stream: bool) -> None:
    backend.answers["Chat"] = [30.0]
    with pytest.raises(httpx.ReadTimeout):
        await rest.post("/openai/v1/chat/completions", json={**ASKED, "stream": stream}, timeout=0.5)
    await asyncio.wait_for(backend.calls[-1].cancelled.wait(), 5)


async def test_credential_goes_along_and_unknown_paths_are_told(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = HELLO
    headers = {"authorization": "Bearer mk_live_1", "mercat-internal-token": "guess"}
    await rest.post("/openai/v1/chat/completions", json=ASKED, headers=headers)
    assert backend.calls[-1].metadata["authorization"] == "Bearer mk_live_1"
    assert "mercat-internal-token" not in backend.calls[-1].metadata
    for method, path in [
        ("POST", "/openai/v1/images"),
        ("GET", "/openai/v1/completions"),
        ("POST", "/openai/v1/models"),
    ]:
        answer = await rest.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")


async def test_page_of_another_origin_may_call(rest: httpx.AsyncClient, backend: Backend) -> None:
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    answer = await rest.options("/openai/v1/chat/completions", headers=asked)
    assert answer.status_code == 200
    allowed = set(answer.headers["access-control-allow-headers"].replace(" ", "").split(","))
    assert "authorization" in allowed
    assert allowed & {"*", "x-stainless-lang"}
    backend.answers["Chat"] = HELLO
    answer = await rest.post("/openai/v1/chat/completions", json=ASKED, headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
