"""What a reply becomes: the same status, headers and JSON through both front doors."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from google.api import httpbody_pb2
from mercat.auth.v1 import auth_pb2
from mercat.inference.v1 import inference_pb2
from mercat.storage.v1 import storage_pb2
from mercat.usage.v1 import usage_pb2

from services.common import errors
from services.common.errors import MercatError, Violation

from .conftest import Backend, Door

TRAILERS = (
    ("mercat-request-id", "req_1"),
    ("mercat-cost-nanos", "5"),
    ("ratelimit", '"read";r=9'),
    ("idempotent-replayed", "true"),
)


async def test_reply_is_camel_case_json_with_zeros(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["Predict"] = inference_pb2.PredictResponse(
        model="a/b", outputs=[inference_pb2.Tensor(name="y", raw=b"\0\1\2")], cost_nanos=2**60
    )
    answer = await rest.post("/v1/models/a/b:predict", json={})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "model": "a/b",
        "version": "",
        "requestId": "",
        "outputs": [{"name": "y", "datatype": "", "shape": [], "raw": "AAEC"}],
        "costNanos": "1152921504606846976",
        "cached": False,
        "coldStartMs": "0",
    }


async def test_response_body_is_the_field_alone(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["GetProfile"] = auth_pb2.GetProfileResponse(profile=auth_pb2.Profile(user_id="usr_1", username="ü"))
    answer = await rest.get("/v1/me")
    assert answer.json()["userId"] == "usr_1"
    assert answer.json()["username"] == "ü"
    assert "profile" not in answer.json()


async def test_trailers_of_a_reply_become_headers(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.trailers = TRAILERS
    for answer in (await rest.get("/v1/keys"), await rest.post("/v1/uploads/upl_1:write", content=b"x" * 3_000_000)):
        assert answer.status_code == 200
        assert dict(TRAILERS).items() <= dict(answer.headers).items()


ERRORS: list[tuple[MercatError, int, str]] = [
    (errors.InvalidFields(violations=[Violation("name", "too long")]), 400, "INVALID_ARGUMENT"),
    (errors.CredentialMissing("who are you?"), 401, "UNAUTHENTICATED"),
    (errors.PermissionDenied("no", reason="SCOPE_MISSING", metadata={"scopes": "a:b"}), 403, "PERMISSION_DENIED"),
    (errors.ModelNotFound("no such model"), 404, "NOT_FOUND"),
    (errors.AlreadyExists("taken"), 409, "ALREADY_EXISTS"),
    (errors.EtagMismatch("changed"), 409, "ABORTED"),
    (errors.IdempotencyKeyReused("other body"), 400, "FAILED_PRECONDITION"),
    (errors.RateLimited("slow down", retry_after=3), 429, "RESOURCE_EXHAUSTED"),
    (errors.Unavailable("later", retry_after=1), 503, "UNAVAILABLE"),
    (errors.DeadlineExceeded("too long"), 504, "DEADLINE_EXCEEDED"),
    (errors.Internal("an internal error"), 500, "INTERNAL"),
    (errors.DataLoss("other bytes"), 500, "DATA_LOSS"),
]


@pytest.mark.parametrize(("error", "status", "name"), ERRORS, ids=lambda value: getattr(value, "reason", None))
async def test_error_has_the_one_shape(
    rest: httpx.AsyncClient, backend: Backend, error: MercatError, status: int, name: str
) -> None:
    backend.answers["CreateApiKey"] = error
    backend.trailers = TRAILERS
    answer = await rest.post("/v1/keys", json={"name": "k"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["mercat-request-id"] == "req_1"
    shown = answer.json()["error"]
    assert (shown["code"], shown["status"], shown["message"]) == (status, name, error.message)
    info = shown["details"][0]
    assert info == {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": error.reason,
        "domain": "mercat",
        "metadata": {**error.metadata, "request_id": "req_1"},
    }
    if error.violations:
        assert shown["details"][1]["fieldViolations"][0]["field"] == "name"
    if error.retry_after:
        assert shown["details"][1]["retryDelay"] == f"{error.retry_after:.0f}s"


async def test_both_doors_answer_errors_with_equal_json(doors: dict[str, Door], backend: Backend) -> None:
    for error, _, _ in ERRORS:
        backend.answers["GetProfile"] = error
        shown = []
        for door in doors.values():
            async with httpx.AsyncClient(base_url=door.url) as client:
                shown.append((await client.get("/v1/me")).json())
        assert shown[0] == shown[1]


def records(*ids: str) -> list[usage_pb2.StreamUsageResponse]:
    return [usage_pb2.StreamUsageResponse(record=usage_pb2.UsageRecord(request_id=name)) for name in ids]


async def test_stream_is_one_json_object_a_line(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["StreamUsage"] = records("req_1", "req_2")
    answer = await rest.get("/v1/usage:stream")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.endswith("}\n")
    assert [json.loads(line)["record"]["requestId"] for line in answer.text.splitlines()] == ["req_1", "req_2"]


async def test_stream_is_server_sent_events_for_who_accepts_them(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["StreamUsage"] = records("req_1", "req_2")
    answer = await rest.get("/v1/usage:stream", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    assert [json.loads(event.removeprefix("data: "))["record"]["requestId"] for event in events] == ["req_1", "req_2"]


async def test_stream_arrives_as_it_is_made(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["StreamUsage"] = [*records("req_1"), 5.0, *records("req_2")]
    async with asyncio.timeout(3), rest.stream("GET", "/v1/usage:stream") as answer:
        async for line in answer.aiter_lines():
            assert json.loads(line)["record"]["requestId"] == "req_1"
            break


async def test_stream_that_is_refused_has_the_status_of_its_error(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["StreamUsage"] = errors.CredentialMissing("who are you?")
    for accept in ("*/*", "text/event-stream"):
        answer = await rest.get("/v1/usage:stream", headers={"accept": accept})
        assert answer.status_code == 401
        assert answer.json()["error"]["status"] == "UNAUTHENTICATED"


async def test_bytes_are_answered_as_they_are(rest: httpx.AsyncClient, backend: Backend) -> None:
    body = httpbody_pb2.HttpBody(content_type="application/x-onnx", data=b"\0\1\xff" * 100_000)
    backend.answers["DownloadArtifact"] = [storage_pb2.DownloadArtifactResponse(chunk=body) for _ in range(3)]
    answer = await rest.get("/v1/artifacts/sha256:00?offset=3")
    assert answer.headers["content-type"] == "application/x-onnx"
    assert answer.content == body.data * 3


async def test_client_that_goes_away_cancels_its_call(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.pause = 30
    with pytest.raises(httpx.ReadTimeout):
        await rest.get("/v1/me", timeout=0.3)
    await asyncio.wait_for(backend.calls[-1].cancelled.wait(), 5)


async def test_client_that_leaves_a_stream_ends_it(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["StreamUsage"] = [*records("req_1"), 30.0]
    async with rest.stream("GET", "/v1/usage:stream") as answer:
        async for _ in answer.aiter_lines():
            break
    await asyncio.wait_for(backend.calls[-1].cancelled.wait(), 5)


async def test_page_of_another_origin_may_ask(rest: httpx.AsyncClient, backend: Backend) -> None:
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,idempotency-key",
    }
    answer = await rest.options("/v1/keys", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "idempotency-key" in answer.headers["access-control-allow-headers"]
    answer = await rest.get("/v1/me", headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "mercat-request-id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/docs/swagger-ui.css"])
async def test_the_pages_are_behind_both(rest: httpx.AsyncClient, path: str) -> None:
    assert (await rest.get(path)).status_code == 200
