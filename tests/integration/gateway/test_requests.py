"""What a request becomes: the same message and metadata through both front doors."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from google.protobuf import json_format

from services.common.rpc.addresses import DOOR_KEY, EDGE_KEY, Addresses, Edge

from .conftest import TOKEN, Backend, Door

DEEP = b"[" * 10_000 + b"]" * 10_000


def sent(backend: Backend) -> Any:
    return json_format.MessageToDict(backend.last)


ACCEPTED = [
    ("POST", "/v1/signup", b'{"email":"a@b.c","username":"ada"}', {"email": "a@b.c", "username": "ada"}),
    ("POST", "/v1/signup", b'{"display_name":"A"}', {"displayName": "A"}),
    ("POST", "/v1/signup", b"", {}),
    ("POST", "/v1/signup", b'{"email":null,"unknown":[{"a":1}]}', {}),
    ("POST", "/v1/signup", b'{"email":"a","email":"b"}', {"email": "b"}),
    ("POST", "/v1/signup", b'{"role":"ROLE_ADMIN"}', {"role": "ROLE_ADMIN"}),
    ("POST", "/v1/signup", b'{"role":3}', {"role": "ROLE_ADMIN"}),
    ("POST", "/v1/signup?email=q", b'{"username":"ada"}', {"email": "q", "username": "ada"}),
    ("POST", "/v1/keys", b'{"expiresAt":"2030-01-01T00:00:00Z"}', {"expiresAt": "2030-01-01T00:00:00Z"}),
    ("GET", "/v1/keys?page_size=5&pageToken=a%20b+c", b"", {"pageSize": 5, "pageToken": "a b c"}),
    ("GET", "/v1/keys?pageSize=5&pageSize=6", b"", {"pageSize": 6}),
    ("GET", "/v1/usage?view=USAGE_VIEW_PUBLISHER&model=a/b", b"", {"view": "USAGE_VIEW_PUBLISHER", "model": "a/b"}),
    ("GET", "/v1/usage?view=2&startTime=2030-01-01T00:00:00Z", b"",
     {"view": "USAGE_VIEW_PUBLISHER", "startTime": "2030-01-01T00:00:00Z"}),
    ("GET", "/v1/models?mine=true", b"", {"mine": True}),
    ("GET", "/v1/models?mine=1", b"", {"mine": True}),
    ("GET", "/v1/models/a/b", b"", {"model": "a/b"}),
    ("GET", "/v1/models/a%2fb", b"", {"model": "a/b"}),
    ("GET", "/v1/models//a/b/", b"", {"model": "a/b"}),
    ("GET", "/v1/models/a%20x/b%C3%A9", b"", {"model": "a x/bé"}),
    ("GET", "/v1/models/a/b%401.4.2:signature", b"", {"model": "a/b@1.4.2"}),
    ("GET", "/v1/models/a/b:stable:signature", b"", {"model": "a/b:stable"}),
    ("GET", "/v1/models/a/b:stable", b"", {"model": "a/b:stable"}),
    ("GET", "/v1/models/a/b/versions/1.0.0", b"", {"model": "a/b", "version": "1.0.0"}),
    ("POST", "/v1/models/a/b/versions/1.0.0:submit", b"", {"model": "a/b", "version": "1.0.0"}),
    ("POST", "/v1/keys/key_1:revoke", b'{"keyId":"key_1"}', {"keyId": "key_1"}),
    ("POST", "/v1/models/a/b:predict", b'{"inputs":[{"data":[[1,2.5],["s",null,true]],"shape":["2",3],"raw":"_-8"}]}',
     {"model": "a/b", "inputs": [{"data": [[1, 2.5], ["s", None, True]], "shape": ["2", "3"], "raw": "/+8="}]}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "message"), ACCEPTED)
async def test_request_becomes_the_message(
    rest: httpx.AsyncClient, backend: Backend, method: str, path: str, body: bytes, message: object
) -> None:
    answer = await rest.request(method, path, content=body)
    assert answer.status_code == 200, answer.text
    assert sent(backend) == message


REFUSED = [
    ("POST", "/v1/signup", b"{"),
    ("POST", "/v1/signup", b"[]"),
    ("POST", "/v1/signup", b"null"),
    ("POST", "/v1/signup", b'"x"'),
    ("POST", "/v1/signup", b'{"email":1}'),
    ("POST", "/v1/signup", b'{"email":"\xff"}'),
    ("POST", "/v1/signup", b'{"role":"role_admin"}'),
    ("POST", "/v1/signup?nope=1", b"{}"),
    ("POST", "/v1/keys", b'{"expiresAt":"yesterday"}'),
    ("GET", "/v1/keys?pageSize=x", b""),
    ("GET", "/v1/keys?pageSize=", b""),
    ("GET", "/v1/keys?nope=1", b""),
    ("GET", "/v1/usage?view=NOPE", b""),
    ("POST", "/v1/keys/key_1:revoke", b'{"key_id":"other"}'),
    ("POST", "/v1/models/a/b:predict", b'{"inputs":[{"raw":"!!"}]}'),
    ("POST", "/v1/models/a/b:predict", b'{"inputs":[{"shape":[1.5]}]}'),
    ("POST", "/v1/models/a/b:predict", b'{"inputs":[{"shape":[99999999999999999999]}]}'),
    ("POST", "/v1/models/a/b:predict", b'{"inputs":[{"data":' + DEEP + b"}]}"),
    ("POST", "/v1/signup", b'{"unknown":' + DEEP + b"}"),
]


@pytest.mark.parametrize(("method", "path", "body"), REFUSED, ids=lambda value: str(value)[:40])
async def test_malformed_request_is_refused_before_any_call(
    rest: httpx.AsyncClient, backend: Backend, method: str, path: str, body: bytes
) -> None:
    answer = await rest.request(method, path, content=body, timeout=1)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["details"][0]["reason"] == "MALFORMED_REQUEST"
    assert error["details"][0]["domain"] == "mercat"
    assert backend.calls == []


async def test_body_never_says_other_than_the_path(rest: httpx.AsyncClient, backend: Backend) -> None:
    answer = await rest.post("/v1/keys/key_1:revoke", json={"keyId": "other"})
    assert answer.status_code == 400 or sent(backend) == {"keyId": "key_1"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nope"),
        ("GET", "/v1/models/a"),
        ("GET", "/v1/models/a/"),
        ("PUT", "/v1/keys"),
        ("DELETE", "/v1/signup"),
        ("GET", "/v1/models/a/b:unknown/x"),
        ("GET", "/v1/models/a/b%2Fc"),
        ("GET", "/mercat.auth.v1.PrincipalService/ResolvePrincipals"),
    ],
)
async def test_what_no_binding_fits_is_not_found(
    rest: httpx.AsyncClient, backend: Backend, method: str, path: str
) -> None:
    answer = await rest.request(method, path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (404, "NOT_FOUND")
    assert error["details"][0]["reason"] == "NO_SUCH_PATH"
    assert backend.calls == []


async def test_internal_services_have_no_way_in(rest: httpx.AsyncClient, backend: Backend) -> None:
    for path in ("/mercat.auth.v1.PrincipalService/ResolvePrincipals", "/mercat.billing.v1.LeaseService/AcquireLease"):
        answer = await rest.post(path, json={}, headers={"mercat-internal-token": "guess"})
        assert answer.status_code == 404
    assert backend.calls == []


async def test_headers_that_count_become_metadata(rest: httpx.AsyncClient, backend: Backend) -> None:
    headers = {
        "authorization": "Bearer mk_live_1",
        "x-api-key": "mk_live_2",
        "idempotency-key": "once",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "mercat-cache": "bypass",
    }
    await rest.get("/v1/me", headers=headers)
    assert headers.items() <= backend.calls[-1].metadata.items()


async def test_internal_headers_stay_outside(rest: httpx.AsyncClient, backend: Backend) -> None:
    await rest.get("/v1/me", headers={"mercat-internal-token": "guess", "Mercat-Internal-Org": "org_1"})
    assert {name for name in backend.calls[-1].metadata if name.startswith("mercat-internal")} <= {DOOR_KEY}


@pytest.mark.parametrize(
    "forged",
    [
        {"x-forwarded-for": "203.0.113.9"},
        {"x-forwarded-for": "10.0.0.1, 203.0.113.9"},
        {"forwarded": "for=203.0.113.9", "x-real-ip": "203.0.113.9", "x-envoy-external-address": "203.0.113.9"},
        {EDGE_KEY: Edge("guess").say({"address": "203.0.113.9"})},
        {EDGE_KEY: "203.0.113.9", DOOR_KEY: "guess 203.0.113.9"},
    ],
)
async def test_what_a_client_says_of_its_address_changes_nothing(
    rest: httpx.AsyncClient, backend: Backend, forged: dict[str, str]
) -> None:
    await rest.get("/v1/me", headers=forged)
    seen = Addresses(TOKEN).of(backend.calls[-1].metadata, "ipv4:198.51.100.1:4711")
    assert seen == "127.0.0.1"


async def test_body_of_bytes_arrives_in_chunks_with_its_place_in_the_first(
    rest: httpx.AsyncClient, backend: Backend
) -> None:
    data = bytes(range(256)) * 4096 * 20  # 20 MiB
    headers = {"content-type": "application/octet-stream"}
    answer = await rest.post("/v1/uploads/upl_1:write?offset=7", content=data, headers=headers)
    assert answer.status_code == 200, answer.text
    messages: Any = backend.calls[-1].messages
    assert (messages[0].upload_id, messages[0].offset) == ("upl_1", 7)
    assert {(message.upload_id, message.offset) for message in messages[1:]} <= {("", 0)}
    assert messages[0].chunk.content_type == "application/octet-stream"
    assert max(len(message.chunk.data) for message in messages) <= 2 << 20
    assert b"".join(message.chunk.data for message in messages) == data


async def test_upload_that_breaks_off_is_cancelled(rest: httpx.AsyncClient, door: Door, backend: Backend) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(door.url.rpartition(":")[2]))
    writer.write(b"POST /v1/uploads/upl_1:write HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 2**21)
    await writer.drain()
    async with asyncio.timeout(5):
        while not (backend.calls and backend.calls[-1].messages):
            await asyncio.sleep(0.02)
    writer.close()
    await asyncio.wait_for(backend.calls[-1].cancelled.wait(), 5)


async def test_empty_body_of_bytes_is_one_message(rest: httpx.AsyncClient, backend: Backend) -> None:
    answer = await rest.post("/v1/uploads/upl_1:write?offset=7", content=b"")
    assert answer.status_code == 200
    messages: Any = backend.calls[-1].messages
    assert [(message.upload_id, message.offset, message.chunk.data) for message in messages] == [("upl_1", 7, b"")]
