"""Envoy before small processes: what is routed where, what REST looks like, what outsiders cannot say."""

import asyncio
import contextlib
import json
import os
import struct
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.common.v1 import policy_pb2
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc

from services.common.rpc.addresses import DOOR_KEY, Addresses, door_token
from services.embedded.envoy import Envoy, program
from services.embedded.envoy_config import bootstrap
from services.embedded.envoy_contracts import transcodable
from services.embedded.envoy_door import DESCRIPTORS, FrontDoor
from services.embedded.ports import free_ports
from services.embedded.process import Child
from services.embedded.tls import certificate

from .peers import peer


@dataclass
class Door:
    envoy: Envoy
    workers: list[Child]
    grpc: str
    rest: httpx.AsyncClient
    ca: Path


@pytest.fixture(scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    folder = tmp_path_factory.mktemp("door")
    ports = free_ports(6)
    control, one, two, gateway = (f"127.0.0.1:{port}" for port in ports[:4])
    tls = certificate(folder / "tls", "127.0.0.1")
    front = FrontDoor(
        host="127.0.0.1",
        port=ports[4],
        control=control,
        workers=[one, two],
        gateway=gateway,
        admin_socket=Path(),
        tls_port=ports[5],
        certificate=tls.chain,
        private_key=tls.key,
    )
    children = [
        Child(peer("control", "grpc", control, folder / "control.log")),
        Child(peer("gateway", "http", gateway, folder / "gateway.log")),
        Child(peer("worker-0", "grpc", one, folder / "worker-0.log"), supervised=True),
        Child(peer("worker-1", "grpc", two, folder / "worker-1.log"), supervised=True),
    ]
    envoy = Envoy(folder / "envoy", front)
    await asyncio.gather(*(child.start() for child in children), envoy.start())
    async with httpx.AsyncClient(base_url=envoy.url, timeout=10) as rest:
        await reached(f"127.0.0.1:{ports[4]}")
        yield Door(envoy, children[2:], f"127.0.0.1:{ports[4]}", rest, tls.ca)
    await asyncio.gather(*(child.stop() for child in children), envoy.stop())


async def reached(address: str) -> None:
    """Returns when calls get to control and to both workers."""
    async with grpc.aio.insecure_channel(address) as channel:
        pids = set()
        for _ in range(200):
            call = channel.unary_unary("/mercat.inference.v1.InferenceService/Quote", bytes, bytes)(b"", timeout=5)
            pids.add(dict(await call.trailing_metadata()).get("mercat-pid"))
            if len(pids - {None}) == 2 and await _code(channel, "/mercat.auth.v1.AuthService/GetProfile"):
                return
            await asyncio.sleep(0.02)
    raise AssertionError("the front door does not reach the workers")


async def test_the_address_is_the_connection_s_or_what_trusted_proxies_appended(door: Door, tmp_path: Path) -> None:
    front, port = door.envoy.door, free_ports(1)[0]
    hops = {"x-forwarded-for": "198.51.100.1, 198.51.100.2, 198.51.100.3"}
    for trusted, expected in ((0, "127.0.0.1"), (1, "198.51.100.3"), (2, "198.51.100.2")):
        there = replace(front, port=port, tls_port=None, trusted_hops=trusted, token=door_token("internal"))
        async with (
            Envoy(tmp_path / str(trusted), there, concurrency=1) as envoy,
            httpx.AsyncClient(base_url=envoy.url, timeout=10) as rest,
        ):
            address = Addresses("internal").of(seen(await rest.get("/v1/me", headers=hops)), "ipv4:192.0.2.1:1")
            assert address == expected
            assert seen(await rest.get("/v1/me", headers={**hops, DOOR_KEY: "guess 198.51.100.9"}))[DOOR_KEY] == (
                f"{door_token('internal')} {expected}"
            )


def seen(response: httpx.Response) -> dict[str, str]:
    """The metadata that the process behind the front door was given."""
    found: dict[str, str] = json.loads(response.headers["mercat-metadata"])
    return found


async def test_the_configuration_is_valid(tmp_path: Path) -> None:
    door = FrontDoor("127.0.0.1", 1, "127.0.0.1:2", ["127.0.0.1:3"], "gateway.internal:4", tmp_path / "admin")
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bootstrap(door)))
    checked = subprocess.run([program(), "--mode", "validate", "-c", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


async def test_exactly_the_methods_for_outsiders_are_routed(door: Door) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    public = {method.path for method in transcodable(files)}
    async with grpc.aio.insecure_channel(door.grpc) as channel:
        for file in files.file:
            for service in file.service:
                for method in service.method:
                    if method.client_streaming or method.server_streaming:
                        continue
                    path = f"/{file.package}.{service.name}/{method.name}"
                    inner = method.options.Extensions[policy_pb2.policy].access == policy_pb2.ACCESS_INTERNAL
                    assert inner != (path in public), path
                    code = await _code(channel, path)
                    assert code == (grpc.StatusCode.UNIMPLEMENTED if inner else grpc.StatusCode.OK), path


async def _code(channel: grpc.aio.Channel, path: str) -> grpc.StatusCode:
    call = channel.unary_unary(path, request_serializer=bytes, response_deserializer=bytes)(b"", timeout=5)
    return await call.code()


@pytest.mark.parametrize(
    "path", ["//mercat.auth.v1.PrincipalService/ResolvePrincipals", "/./mercat.billing.v1.LeaseService/AcquireLease"]
)
async def test_a_crooked_path_leads_to_no_inner_service(door: Door, path: str) -> None:
    async with grpc.aio.insecure_channel(door.grpc) as channel:
        assert await _code(channel, path) == grpc.StatusCode.UNIMPLEMENTED


async def test_inference_goes_to_the_workers_and_the_rest_to_control(door: Door) -> None:
    workers = {str(child.pid) for child in door.workers}
    predicted = set()
    for _ in range(20):
        answer = await door.rest.post("/v1/models/ada/echo:predict", json={"inputs": []})
        predicted.add(answer.headers["mercat-pid"])
    assert predicted == workers
    assert (await door.rest.get("/v1/me")).headers["mercat-pid"] not in workers
    assert (await door.rest.get("/docs")).json() == {"gateway": "/docs"}


async def test_grpc_passes_whole(door: Door) -> None:
    async with grpc.aio.insecure_channel(door.grpc) as channel:
        call = inference_pb2_grpc.InferenceServiceStub(channel).Predict(
            inference_pb2.PredictRequest(model="ada/echo"), metadata=(("test-a", "b"),), timeout=5
        )
        assert (await call) == inference_pb2.PredictResponse()
        trailers = dict(await call.trailing_metadata())
        assert json.loads(trailers["mercat-metadata"])["test-a"] == "b"
        failed = auth_pb2_grpc.AuthServiceStub(channel).GetProfile(
            auth_pb2.GetProfileRequest(), metadata=(("test-error", "NOT_FOUND"),), timeout=5
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await failed
        status = rpc_status.from_call(caught.value)
        info = error_details_pb2.ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert (caught.value.code(), info.reason) == (grpc.StatusCode.NOT_FOUND, "TEST_REASON")
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpc_web(door: Door) -> None:
    headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "https://shop.example"}
    response = await door.rest.post(
        "/mercat.auth.v1.AuthService/GetProfile", content=b"\0" + struct.pack(">I", 0), headers=headers
    )
    assert response.headers["content-type"] == "application/grpc-web+proto"
    assert response.headers["access-control-allow-origin"] == "https://shop.example"
    assert b"grpc-status:0" in response.content


async def test_tls_with_the_home_s_own_authority(door: Door) -> None:
    import ssl

    context = ssl.create_default_context(cafile=str(door.ca))
    port = door.envoy.door.tls_port
    async with httpx.AsyncClient(verify=context) as client:
        assert (await client.get(f"https://localhost:{port}/v1/me")).status_code == 200
        assert (await client.get(f"https://127.0.0.1:{port}/v1/me")).status_code == 200
    credentials = grpc.ssl_channel_credentials(door.ca.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        assert await _code(channel, "/mercat.auth.v1.AuthService/GetProfile") == grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_ARGUMENT", 400),
        ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409),
        ("ABORTED", 409),
        ("FAILED_PRECONDITION", 400),
        ("RESOURCE_EXHAUSTED", 429),
        ("UNIMPLEMENTED", 501),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("DEADLINE_EXCEEDED", 504),
    ],
)
async def test_rest_shows_errors_as_aip_193(door: Door, code: str, status: int) -> None:
    response = await door.rest.get("/v1/wallet", headers={"test-error": code})
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "TEST_REASON",
        "domain": "mercat",
        "metadata": {"model": "ada/echo"},
    }
    expected = {"error": {"code": status, "status": code, "message": 'said "so"', "details": [detail]}}
    assert (response.status_code, response.json()) == (status, expected)
    assert response.headers["content-type"] == "application/json"
    assert not {"grpc-status", "grpc-message", "grpc-status-details-bin"} & set(response.headers)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "name"),
    [
        ("GET", "/nothing", None, 404, "NOT_FOUND"),
        ("GET", "/v1/me?surprise=1", None, 400, "INVALID_ARGUMENT"),
        ("POST", "/v1/keys", b'{"name":', 400, "INVALID_ARGUMENT"),
        ("POST", "/v1/keys", b'{"name":5}', 400, "INVALID_ARGUMENT"),
    ],
)
async def test_envoy_s_own_refusals_look_the_same(
    door: Door, method: str, path: str, body: bytes | None, status: int, name: str
) -> None:
    response = await door.rest.request(method, path, content=body)
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["code"], error["status"]) == (status, status, name)
    assert error["details"][0]["domain"] == "mercat"
    assert error["details"][0]["reason"]


async def test_a_body_past_the_limit_is_refused(door: Door) -> None:
    # A client that sends it all the same may be cut off before it reads, so only the announcement is sent.
    announced = {"POST /v1/keys": b"413", "POST /v1/uploads/upl_1:write": b""}
    for start, status in announced.items():
        head = f"{start} HTTP/1.1\r\nhost: mercat\r\ncontent-type: application/json\r\ncontent-length: 68157440\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", door.envoy.door.port)
        writer.write(head.encode())
        answer = b""
        with contextlib.suppress(TimeoutError):
            answer = await asyncio.wait_for(reader.read(1000), 1)
        assert answer.split(b" ")[1:2] == ([status] if status else []), start
        assert (b"BODY_TOO_LARGE" in answer) == bool(status)
        writer.close()
        await writer.wait_closed()


async def test_internal_headers_from_outside_are_dropped(door: Door) -> None:
    headers = {
        "mercat-internal-token": "x",
        "Mercat-Internal-Org": "y",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "test-a": "b",
    }
    given = seen(await door.rest.get("/v1/me", headers=headers))
    assert given["test-a"] == "b"
    assert not [name for name in given if name.startswith("mercat-internal")]
    assert "x-envoy-upstream-rq-timeout-ms" not in given
    async with grpc.aio.insecure_channel(door.grpc) as channel:
        call = auth_pb2_grpc.AuthServiceStub(channel).GetProfile(
            auth_pb2.GetProfileRequest(), metadata=(("mercat-internal-token", "x"),), timeout=5
        )
        await call
        given = json.loads(dict(await call.trailing_metadata())["mercat-metadata"])
    assert "mercat-internal-token" not in given
    assert (await door.rest.get("/v1/me", headers={"mercat_internal_token": "x"})).status_code == 400


async def test_streams_are_lines_or_server_sent_events(door: Door) -> None:
    lines = await door.rest.get("/v1/usage:stream")
    assert [json.loads(line) for line in lines.text.splitlines()] == [{}, {}]
    events = await door.rest.get("/v1/usage:stream", headers={"accept": "text/event-stream"})
    assert events.headers["content-type"] == "text/event-stream"
    assert events.text == "data: {}\n\ndata: {}\n\n"


async def test_browsers_may_call(door: Door) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    preflight = await door.rest.options("/v1/keys", headers=asked)
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]
    answer = await door.rest.get("/v1/me", headers={"origin": "https://shop.example"})
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "mercat-request-id" in answer.headers["access-control-expose-headers"]


async def test_a_dead_worker_is_out_of_the_way_until_it_is_back(door: Door) -> None:
    victim = door.workers[0]
    victim.kill()
    await victim.exited()
    await asyncio.sleep(0.1)  # a call that went down with it is not repeated; those after it are none of them lost
    for _ in range(40):
        answer = await door.rest.post("/v1/models/ada/echo:predict", json={"inputs": []})
        assert answer.status_code == 200  # a refused connection is tried again elsewhere
    for _ in range(300):
        answer = await door.rest.post("/v1/models/ada/echo:predict", json={"inputs": []})
        if answer.headers["mercat-pid"] == str(victim.pid):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the worker that came back was not used again")


async def test_drain_waits_for_calls_under_way(door: Door, tmp_path: Path) -> None:
    front = replace(door.envoy.door, port=free_ports(1)[0], tls_port=None)
    envoy = Envoy(tmp_path / "envoy", front)
    await envoy.start()
    await reached(f"127.0.0.1:{front.port}")
    async with httpx.AsyncClient(base_url=envoy.url) as client:
        slow = asyncio.create_task(client.get("/v1/me", headers={"test-sleep": "1"}))
        await asyncio.sleep(0.3)
        await envoy.drain()
        assert slow.done() or (await asyncio.wait_for(slow, 0.2))
        assert slow.result().status_code == 200
    await envoy.stop()


async def test_workers_that_say_they_are_busy_get_fewer_calls(tmp_path: Path) -> None:
    ports = free_ports(5)
    control, one, two, gateway = (f"127.0.0.1:{port}" for port in ports[:4])
    front = FrontDoor("127.0.0.1", ports[4], control, [one, two], gateway, Path(), by_load=True)
    loads = {one: "0.9", two: "0.1"}
    children = [Child(peer("control", "grpc", control, tmp_path / "control.log"))] + [
        Child(peer(a, "grpc", a, tmp_path / f"{a}.log", {**os.environ, "PEER_LOAD": load})) for a, load in loads.items()
    ]
    envoy = Envoy(tmp_path / "envoy", front)
    await asyncio.gather(*(child.start() for child in children), envoy.start())
    try:
        await reached(f"127.0.0.1:{ports[4]}")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[4]}") as channel:
            quote = channel.unary_unary("/mercat.inference.v1.InferenceService/Quote", bytes, bytes)
            calls: Counter[str] = Counter()
            until = time.monotonic() + 15
            while sum(calls.values()) < 400 or calls.most_common(1)[0][1] < 300:
                assert time.monotonic() < until, calls
                await asyncio.sleep(0.005)
                call = quote(b"", timeout=5)
                calls = Counter() if sum(calls.values()) >= 400 else calls
                calls[dict(await call.trailing_metadata())["mercat-pid"]] += 1
        assert calls.most_common(1)[0][0] == str(children[2].pid)
    finally:
        await asyncio.gather(*(child.stop() for child in children), envoy.stop())
