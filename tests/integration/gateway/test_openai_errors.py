"""Refusals and errors in OpenAI's form, through both front doors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from services.common import errors
from services.common.errors import MercatError, Violation

from .conftest import Backend, Door
from .dialect import ASKED, HELLO, post

IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
REFUSED: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("/chat/completions", {"messages": ASKED["messages"]}, "model", "missing_required_parameter"),
    ("/chat/completions", {"model": "a/b"}, "messages", "missing_required_parameter"),
    ("/chat/completions", {"model": 1, "messages": []}, "model", "invalid_type"),
    ("/chat/completions", {"model": "a/b", "messages": []}, "messages", "invalid_value"),
    ("/chat/completions", {"model": "a/b", "messages": "Hi"}, "messages", "invalid_type"),
    ("/chat/completions", {"model": "a/b", "messages": [{"content": "x"}]}, "messages[0].role",
     "missing_required_parameter"),
    ("/chat/completions", {"model": "a/b", "messages": [{"role": "user"}]}, "messages[0].content",
     "missing_required_parameter"),
    ("/chat/completions", {"model": "a/b", "messages": [{"role": "king", "content": "x"}]}, "messages[0].role",
     "invalid_value"),
    ("/chat/completions", {"model": "a/b", "messages": IMAGE}, "messages[0].content", "invalid_value"),
    ("/chat/completions", {**ASKED, "temperature": "hot"}, "temperature", "invalid_type"),
    ("/chat/completions", {**ASKED, "temperature": True}, "temperature", "invalid_type"),
    ("/chat/completions", {**ASKED, "n": 1.5}, "n", "invalid_type"),
    ("/chat/completions", {**ASKED, "n": 0}, "n", "invalid_value"),
    ("/chat/completions", {**ASKED, "max_tokens": 0}, "max_tokens", "invalid_value"),
    ("/chat/completions", {**ASKED, "max_tokens": 2**31}, "max_tokens", "invalid_value"),
    ("/chat/completions", {**ASKED, "seed": 2**63}, "seed", "invalid_value"),
    ("/chat/completions", {**ASKED, "stop": list("abcde")}, "stop", "invalid_value"),
    ("/chat/completions", {**ASKED, "stop": [1]}, "stop[0]", "invalid_type"),
    ("/chat/completions", {**ASKED, "stream": "yes"}, "stream", "invalid_type"),
    ("/chat/completions", {**ASKED, "logprobs": 3}, "logprobs", "invalid_type"),
    ("/chat/completions", {**ASKED, "top_logprobs": 3}, "top_logprobs", "invalid_value"),
    ("/chat/completions", {**ASKED, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ("/chat/completions", {**ASKED, "tool_choice": "required"}, "tool_choice", "unsupported_value"),
    ("/chat/completions", {**ASKED, "tools": [1]}, "tools[0]", "invalid_type"),
    ("/chat/completions", {**ASKED, "functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ("/chat/completions", {**ASKED, "modalities": ["audio"]}, "modalities[0]", "invalid_value"),
    ("/chat/completions", {**ASKED, "response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ("/chat/completions", {**ASKED, "response_format": {"type": "json_schema"}}, "response_format.json_schema",
     "missing_required_parameter"),
    ("/chat/completions", {**ASKED, "response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
     "response_format.json_schema.schema", "missing_required_parameter"),
    ("/completions", {"model": "a/b"}, "prompt", "missing_required_parameter"),
    ("/completions", {"model": "a/b", "prompt": []}, "prompt", "invalid_value"),
    ("/completions", {"model": "a/b", "prompt": ["x", 1]}, "prompt", "invalid_value"),
    ("/completions", {"model": "a/b", "prompt": [-1]}, "prompt", "invalid_value"),
    ("/completions", {"model": "a/b", "prompt": ["x"] * 129}, "prompt", "invalid_value"),
    ("/completions", {"model": "a/b", "prompt": "x", "suffix": "y"}, "suffix", "unsupported_parameter"),
    ("/completions", {"model": "a/b", "prompt": "x", "best_of": 3}, "best_of", "unsupported_parameter"),
    ("/completions", {"model": "a/b", "prompt": "x", "logprobs": True}, "logprobs", "invalid_type"),
    ("/embeddings", {"model": "a/b"}, "input", "missing_required_parameter"),
    ("/embeddings", {"model": "a/b", "input": []}, "input", "invalid_value"),
    ("/embeddings", {"model": "a/b", "input": [1, 2]}, "input", "invalid_value"),
    ("/embeddings", {"model": "a/b", "input": [[1, 2]]}, "input", "invalid_value"),
    ("/embeddings", {"model": "a/b", "input": "x", "encoding_format": "int8"}, "encoding_format", "invalid_value"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param", "code"), REFUSED)
async def test_wrong_field_is_named(
    rest: httpx.AsyncClient, backend: Backend, path: str, body: dict[str, Any], param: str | None, code: str
) -> None:
    answer = await post(rest, path, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert param in error["message"] or "needs" in error["message"] or "supported" in error["message"]
    assert backend.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"model":"a/b","messages":NaN}',
        b'{"model":"a/b","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"model":"a/b","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        b'{"model":"a/b","messages":[{"role":"user","content":"x"}],"tools":[{"x":1' + b"0" * 400 + b"}]}",
    ],
    ids=range(9),
)
async def test_malformed_body_is_refused(rest: httpx.AsyncClient, backend: Backend, body: bytes) -> None:
    answer = await rest.post("/openai/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert backend.calls == []


async def test_too_large_body_is_refused_before_it_is_sent(door: Door, backend: Backend) -> None:
    # A client that sends it all the same may be cut off before it reads, so only the announcement is sent.
    reader, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    writer.write(b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 17825792\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"body_too_large"' in answer


async def test_compressed_body_is_refused(rest: httpx.AsyncClient, backend: Backend) -> None:
    answer = await rest.post("/openai/v1/completions", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


FAILED: list[tuple[MercatError, int, str, str | None, str, str]] = [
    (errors.CredentialMissing("who?"), 401, "invalid_request_error", None, "invalid_api_key", "who?"),
    (errors.PermissionDenied("no", reason="SCOPE_MISSING"), 403, "invalid_request_error", None, "scope_missing", "no"),
    (errors.ModelNotFound("no such"), 404, "invalid_request_error", "model", "model_not_found", "no such"),
    (errors.InvalidFields(violations=[Violation("model", "must be publisher/name")]), 404, "invalid_request_error",
     "model", "model_not_found", "Invalid value for 'model': must be publisher/name"),
    (errors.InvalidFields(violations=[Violation("sampling.temperature", "at most 2, not 3")]), 400,
     "invalid_request_error", "temperature", "invalid_value", "Invalid value for 'temperature': at most 2, not 3"),
    (errors.InvalidFields(violations=[Violation("sampling.stop[0]", "x")]), 400, "invalid_request_error", "stop[0]",
     "invalid_value", "Invalid value for 'stop[0]': x"),
    (errors.InvalidFields(violations=[Violation("sampling.json_schema", "x")]), 400, "invalid_request_error",
     "response_format", "invalid_value", "Invalid value for 'response_format': x"),
    (errors.InvalidArgument("4097 > 4096", reason="PROMPT_TOO_LONG"), 400, "invalid_request_error", "messages",
     "context_length_exceeded", "4097 > 4096"),
    (errors.InvalidArgument("no schema", reason="BAD_FORMAT"), 400, "invalid_request_error", "response_format",
     "bad_format", "no schema"),
    (errors.RateLimited("slow down", retry_after=3), 429, "requests", None, "rate_limit_exceeded", "slow down"),
    (errors.ResourceExhausted("full", reason="QUEUE_FULL", retry_after=1), 429, "requests", None,
     "rate_limit_exceeded", "full"),
    (errors.InsufficientCredit("no credit"), 429, "insufficient_quota", None, "insufficient_quota", "no credit"),
    (errors.BudgetExceeded("no budget", retry_after=7), 429, "insufficient_quota", None, "insufficient_quota",
     "no budget"),
    (errors.Unavailable("later"), 503, "server_error", None, "unavailable", "later"),
    (errors.Internal("broken", reason="ENGINE_FAILED"), 500, "server_error", None, "engine_failed", "broken"),
    (errors.DeadlineExceeded("too long"), 504, "server_error", None, "deadline_exceeded", "too long"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "kind", "param", "code", "message"), FAILED)
@pytest.mark.parametrize("stream", [False, True])
async def test_error_has_openai_s_form(
    rest: httpx.AsyncClient, backend: Backend, stream: bool, error: MercatError, status: int, kind: str,
    param: str | None, code: str, message: str,
) -> None:  # fmt: skip
    backend.answers["Chat"] = [0.3, error]
    backend.trailers = (("mercat-request-id", "req_1"),)
    answer = await post(rest, "/chat/completions", **ASKED, stream=stream)
    assert answer.status_code == status
    assert answer.json() == {"error": {"message": message, "type": kind, "param": param, "code": code}}
    assert answer.headers["x-request-id"] == answer.headers["mercat-request-id"] == "req_1"
    if status in (429, 503) and not isinstance(error, errors.InsufficientCredit):
        assert answer.headers["retry-after"] == str(error.retry_after or 1)
    assert (answer.headers.get("x-should-retry") == "false") == (code == "insufficient_quota")


@pytest.mark.parametrize("stream", [False, True])
async def test_no_answer_at_all_is_an_error(rest: httpx.AsyncClient, backend: Backend, stream: bool) -> None:
    backend.answers["Chat"] = []
    answer = await post(rest, "/chat/completions", **ASKED, stream=stream)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")


async def test_error_in_a_stream_is_its_last_event(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Chat"] = [*HELLO[:2], errors.Unavailable("gone")]
    answer = await post(rest, "/chat/completions", **ASKED, stream=True)
    assert answer.status_code == 200
    *_, last, end = answer.text.split("\n\n")
    assert end == ""
    assert json.loads(last.removeprefix("data: ")) == {
        "error": {"message": "gone", "type": "server_error", "param": None, "code": "unavailable"}
    }
