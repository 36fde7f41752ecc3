"""Requests to addresses of others, over TLS: the address is the checked one, the name stays the certificate's."""

import asyncio
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpcore2
import pytest

from services.common.egress import Address, Egress, EgressRefused, Rules, is_public
from services.embedded.tls import certificate

LOCAL = Rules.of("127.0.0.0/8", https=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ssl.SSLContext, list[str]]]:
    """A port, who is to be trusted there, and the hosts that were asked for, by TLS and by HTTP."""
    made = certificate(tmp_path_factory.mktemp("tls"), "127.0.0.1")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.headers["host"])
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body * 100_000 if self.path == "/large" else body)

        def log_message(self, *args: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.chain, made.key)
    context.sni_callback = lambda _, name, __: asked.append(str(name))
    http = HTTPServer(("127.0.0.1", 0), Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    yield http.server_port, ssl.create_default_context(cafile=str(made.ca)), asked
    http.shutdown()
    http.server_close()


async def here(host: str, port: int) -> list[Address]:
    return [ipaddress.ip_address("127.0.0.1")]


async def test_the_name_is_the_certificates(server: tuple[int, ssl.SSLContext, list[str]]) -> None:
    port, trust, asked = server
    egress = Egress(LOCAL, here, trust)
    answer = await egress.post(f"https://localhost:{port}/x", {"x-a": "b"}, b"hello", seconds=5)
    assert (answer.status, answer.body) == (200, b"hello")
    assert asked == ["localhost", f"localhost:{port}"]
    with pytest.raises(httpcore2.ConnectError):
        await egress.post(f"https://other.example.test:{port}/x", {}, b"", seconds=5)
    with pytest.raises(httpcore2.ConnectError):  # of an authority that the system does not know
        await Egress(LOCAL, here).post(f"https://localhost:{port}/x", {}, b"", seconds=5)
    with pytest.raises(EgressRefused):
        await egress.post(f"http://localhost:{port}/x", {}, b"", seconds=5)
    await egress.close()


async def test_of_an_answer_only_the_beginning_is_read(server: tuple[int, ssl.SSLContext, list[str]]) -> None:
    port, trust, _ = server
    egress = Egress(LOCAL, here, trust)
    answer = await egress.post(f"https://localhost:{port}/large", {}, b"0123456789", seconds=5, most=100)
    assert answer.body == b"0123456789" * 10
    await egress.close()


async def test_who_does_not_answer_is_left(server: tuple[int, ssl.SSLContext, list[str]]) -> None:
    async def never(host: str, port: int) -> list[Address]:
        await asyncio.sleep(60)
        return []

    with pytest.raises((TimeoutError, httpcore2.TimeoutException)):
        await Egress(LOCAL, never).post("https://slow.example/", {}, b"", seconds=0.2)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_what_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("url", ["https://example.com/a?b=c", "https://bücher.example:8443/", "https://8.8.8.8/x"])
def test_what_may_be_called(url: str) -> None:
    assert Rules().url(url).scheme == "https"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "1.2.3.4/99"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        Rules.of(text, https=True)
