"""What Envoy refuses by itself, and how it changes its certificate: before small processes, as in test_front_door."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509

from services.embedded.envoy import Envoy
from services.embedded.envoy_door import FrontDoor
from services.embedded.ports import free_ports
from services.embedded.process import Child
from services.embedded.tls import Certificate, certificate

from .peers import peer

Open = Callable[..., Awaitable[Envoy]]


@pytest.fixture(scope="module")
async def behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontDoor]:
    """A door with processes behind it, for Envoys of the tests' own."""
    folder = tmp_path_factory.mktemp("edge")
    control, gateway = (f"127.0.0.1:{port}" for port in free_ports(2))
    children = [
        Child(peer("control", "grpc", control, folder / "control.log")),
        Child(peer("gateway", "http", gateway, folder / "gateway.log")),
    ]
    await asyncio.gather(*(child.start() for child in children))
    yield FrontDoor("127.0.0.1", 0, control, [control], gateway, Path())
    await asyncio.gather(*(child.stop() for child in children))


@pytest.fixture
async def opened(behind: FrontDoor, tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_it(**options: Any) -> Envoy:
            port, tls_port = free_ports(2)
            if "certificate" in options:
                options["tls_port"] = tls_port
            door = replace(behind, port=port, **options)
            return await stack.enter_async_context(Envoy(tmp_path / f"envoy-{port}", door, concurrency=1))

        yield open_it


def serial(port: int, authority: Path) -> int:
    """Of the certificate that is shown there."""
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        shown = wrapped.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_certificate_is_replaced_without_a_restart(opened: Open, tmp_path: Path) -> None:
    files: Certificate = certificate(tmp_path / "tls", "127.0.0.1")
    envoy = await opened(certificate=files.chain, private_key=files.key)
    port = envoy.door.tls_port
    assert port is not None
    before, pid = await asyncio.to_thread(serial, port, files.ca), envoy.child and envoy.child.pid
    context = ssl.create_default_context(cafile=str(files.ca))
    async with httpx.AsyncClient(verify=context, base_url=f"https://localhost:{port}") as client:
        assert (await client.get("/v1/me")).status_code == 200
        files.chain.unlink()
        certificate(tmp_path / "tls", "127.0.0.1")  # another key, then its chain
        async with asyncio.timeout(10):
            while await asyncio.to_thread(serial, port, files.ca) == before:
                await asyncio.sleep(0.05)
        assert (await client.get("/v1/me")).status_code == 200  # on the connection of before
    assert envoy.child is not None
    assert envoy.child.pid == pid


async def test_a_certificate_without_its_key_is_not_taken(opened: Open, tmp_path: Path) -> None:
    files, other = certificate(tmp_path / "tls", "127.0.0.1"), certificate(tmp_path / "other", "127.0.0.1")
    envoy = await opened(certificate=files.chain, private_key=files.key)
    assert envoy.door.tls_port is not None
    before = await asyncio.to_thread(serial, envoy.door.tls_port, files.ca)
    other.chain.replace(files.chain)
    await asyncio.sleep(1)
    assert await asyncio.to_thread(serial, envoy.door.tls_port, files.ca) == before


async def test_answers_say_how_they_may_be_used(opened: Open, tmp_path: Path) -> None:
    files = certificate(tmp_path / "tls", "127.0.0.1")
    envoy = await opened(certificate=files.chain, private_key=files.key)
    context = ssl.create_default_context(cafile=str(files.ca))
    async with httpx.AsyncClient(verify=context) as client:
        plain = await client.get(f"{envoy.url}/v1/me")
        safe = await client.get(f"https://localhost:{envoy.door.tls_port}/v1/me")
    assert plain.headers["x-content-type-options"] == "nosniff"
    assert plain.headers["server"] == "mercat"
    assert "strict-transport-security" not in plain.headers
    assert safe.headers["strict-transport-security"] == "max-age=31536000"


async def test_an_address_has_a_rate(opened: Open) -> None:
    envoy = await opened(address_rate=5)
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with (
        httpx.AsyncClient(base_url=envoy.url) as here,
        httpx.AsyncClient(base_url=envoy.url, transport=elsewhere) as there,
        grpc.aio.insecure_channel(f"127.0.0.1:{envoy.door.port}") as channel,
    ):
        answers = [await here.get("/v1/me") for _ in range(60)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 20
        assert all(answer.status_code == 200 for answer in answers[:20])
        error = refused[0].json()["error"]
        assert (error["status"], error["details"][0]["reason"]) == ("RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS")
        assert refused[0].headers["retry-after"] == "1"
        # Whoever it says it is.
        assert (await here.get("/v1/me", headers={"x-forwarded-for": "10.1.2.3"})).status_code == 429
        call = channel.unary_unary("/mercat.auth.v1.AuthService/GetProfile", bytes, bytes)(b"", timeout=5)
        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await there.get("/v1/me")).status_code == 200
        await asyncio.sleep(1)
        assert (await here.get("/v1/me")).status_code == 200


async def test_there_are_only_so_many_connections(opened: Open) -> None:
    envoy = await opened(max_connections=10)
    held = [await asyncio.open_connection("127.0.0.1", envoy.door.port) for _ in range(10)]
    await asyncio.sleep(0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", envoy.door.port)
    assert await asyncio.wait_for(_read(reader), 5) == b""
    writer.close()
    for _, one in held:
        one.close()
    async with httpx.AsyncClient(base_url=envoy.url) as client, asyncio.timeout(10):
        while True:
            try:
                assert (await client.get("/v1/me")).status_code == 200
                return
            except httpx.TransportError:
                await asyncio.sleep(0.1)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1)
    except ConnectionError:
        return b""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({f"x-{n}": "1" for n in range(101)}, 431),
        ({"x-long": "a" * 40_000}, 431),
        ({"mercat_internal_token": "x"}, 400),
        ({"x": "b\x01"}, 400),
    ],
    ids=["many", "long", "underscore", "control"],
)
async def test_headers_beyond_the_limits_are_refused(opened: Open, headers: dict[str, str], status: int) -> None:
    envoy = await opened()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = await said(envoy, f"GET /v1/me HTTP/1.1\r\nhost: mercat\r\n{lines}\r\n".encode())
    assert answer.split(b" ")[1] == str(status).encode(), answer[:200]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1/me HTTP/1.0\r\n\r\n",
        b"POST /v1/keys HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/keys HTTP/1.1\r\nhost: m\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
        b"GET /v1/../../etc/passwd HTTP/1.1\r\nhost: m\r\n\r\n",
        b"GET /v1/me%00 HTTP/1.1\r\nhost: m\r\n\r\n",
        b"\x16\x03\x01\x00\x00\r\n\r\n",
    ],
    ids=["http/1.0", "smuggled", "two lengths", "above the root", "nul", "tls on the plain port"],
)
async def test_what_is_not_http_as_it_should_be_is_refused(opened: Open, request_: bytes) -> None:
    envoy = await opened()
    status = (await said(envoy, request_)).split(b" ")[1:2]
    assert status in ([b"400"], [b"404"], [b"426"]), status


async def said(envoy: Envoy, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", envoy.door.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(4000), 5)
    finally:
        writer.close()


async def test_nothing_is_described_where_reflection_is_off(opened: Open) -> None:
    envoy = await opened(reflection=False)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{envoy.door.port}") as channel:
        for version in ("v1", "v1alpha"):
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            call = channel.unary_unary(path, bytes, bytes)(b"", timeout=5)
            assert await call.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_header_that_comes_byte_by_byte_is_not_waited_for(opened: Open) -> None:
    envoy = await opened()
    reader, writer = await asyncio.open_connection("127.0.0.1", envoy.door.port)
    loop = asyncio.get_running_loop()
    began = loop.time()
    writer.write(b"GET /v1/me HTTP/1.1\r\nhost: mercat\r\nx-slow: ")
    reading = asyncio.create_task(_read(reader))
    while not reading.done() and loop.time() < began + 20:
        writer.write(b"a")
        await asyncio.wait([reading], timeout=1)
    assert reading.done()
    assert 9 < loop.time() - began < 15
    writer.close()
