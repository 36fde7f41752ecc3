"""What only the shim does, or does in its own way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from gateway_rest import app
from gateway_rest.settings import GatewaySettings
from services.common import errors

from .conftest import Backend, Door
from .test_replies import records


@pytest.fixture
def door(doors: dict[str, Door]) -> Door:
    return doors["shim"]


async def test_error_in_a_stream_is_its_last_line(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.answers["StreamUsage"] = [*records("req_1"), errors.Unavailable("gone")]
    lines = (await rest.get("/v1/usage:stream")).text.splitlines()
    assert json.loads(lines[-1])["error"]["status"] == "UNAVAILABLE"
    text = (await rest.get("/v1/usage:stream", headers={"accept": "text/event-stream"})).text
    assert text.split("\n\n")[1].startswith('event: error\ndata: {"error":')


async def test_compressed_body_is_refused(rest: httpx.AsyncClient, backend: Backend) -> None:
    answer = await rest.post("/v1/signup", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert backend.calls == []


async def test_too_large_body_is_refused_by_its_length_and_by_its_bytes(
    rest: httpx.AsyncClient, backend: Backend
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * (1 << 20)

    started = time.perf_counter()
    for content in (b" " * (17 << 20), endless()):
        answer = await rest.post("/v1/signup", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["details"][0]["reason"] == "BODY_TOO_LARGE"
    assert time.perf_counter() - started < 3
    assert backend.calls == []


async def test_upload_that_is_refused_at_once_says_why(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.hasty, backend.answers["WriteUpload"] = True, errors.Aborted("the upload is at 0", reason="OFFSET_MISMATCH")
    answer = await rest.post("/v1/uploads/upl_1:write?offset=7", content=b"x" * (20 << 20))
    assert answer.status_code == 409, answer.text
    assert answer.json()["error"]["details"][0]["reason"] == "OFFSET_MISMATCH"


async def test_deadline_of_the_client_is_the_deadline_of_the_call(rest: httpx.AsyncClient, backend: Backend) -> None:
    backend.pause = 30
    answer = await rest.get("/v1/me", headers={"grpc-timeout": "200m"})
    assert answer.status_code == 504
    assert (await rest.get("/v1/me", headers={"grpc-timeout": "soon"})).status_code == 400


async def test_relative_path_is_refused(doors: dict[str, Door], backend: Backend) -> None:
    # Written by hand: clients take such segments out before they send.
    reader, writer = await asyncio.open_connection("127.0.0.1", int(doors["shim"].url.rpartition(":")[2]))
    writer.write(b"GET /v1/models/%2e%2e/keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert backend.calls == []


async def test_ready_with_the_platform(rest: httpx.AsyncClient) -> None:
    assert (await rest.get("/healthz")).json() == {"status": "ok"}
    assert (await rest.get("/readyz")).json() == {"status": "ok"}


async def test_without_the_platform_it_lives_and_says_nothing_of_addresses() -> None:
    built = app.build(GatewaySettings(control="127.0.0.1:1", grpc=""))
    edge = httpx.AsyncClient(transport=httpx.ASGITransport(built), base_url="http://edge")
    async with built.router.lifespan_context(built), edge as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        answer = await client.get("/v1/me")
    assert answer.status_code == 503
    assert answer.json()["error"]["details"][0]["reason"] == "UPSTREAM_UNAVAILABLE"
    assert "127.0.0.1" not in answer.text
