"""Case 24: webhooks to 169.254.169.254, decimal and IPv6-mapped addresses, redirects, re-binding names: no connection
is made. Seen at the sockets: by listeners that would take one, and by Python's own word on each `connect`."""

import asyncio
import ipaddress
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpcore2
import pytest
from dnslib import AAAA, QTYPE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSServer
from mercat.notification.v1 import webhooks_pb2 as w

from services.common.egress import Address, Egress, EgressRefused, Rules, inner
from tests.expect import fails, until
from tests.integration.notification.test_webhooks import delivery
from tests.platform import Platform
from tests.webhook_receiver import receiver

pytestmark = pytest.mark.case

# Written as anybody might, to reach this machine, its networks, or what clouds keep at fixed addresses.
HOSTS = [
    "127.0.0.1", "2130706433", "0177.0.0.1", "0x7f000001", "0x7f.1", "127.1", "127.0.1", "127.8.8.8", "localhost",
    "127.0.0.1.", "0.0.0.0", "0", "127。0。0。1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:5ef5:79fd::80ff:fffe]",
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]", "100.100.100.200",
    "192.0.0.192", "168.63.129.16",
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "192.0.2.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "[fe80::1]", "[fe80::1%25lo]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[5f00::1]",
    "[100::1]", "user@127.0.0.1", "example.com@127.0.0.1",
]  # fmt: skip
OTHERS = ["file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "ftp://127.0.0.1:{port}/", "//127.0.0.1:{port}/",
          "http:///x", "http://", "http://[::1", "http://127.0.0.1:0/", "http://127.0.0.1:99999/",
          "http://127.0.0.1 :{port}/", "http://127.0.0.1:{port}/\r\nx: y", "unix:/tmp/x", ""]  # fmt: skip


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """A port of all this machine's addresses, of both families, and who came."""
    came: list[str] = []
    server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)

    def serve() -> None:
        while True:
            try:
                connection, (host, *_) = server.accept()
            except OSError:
                return
            came.append(host)
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1], came
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@dataclass
class Sockets:
    """What was connected to, or would have been: only this machine is let through. What else goes on in this process
    has connections of its own, to other ports of this machine."""

    port: int
    connected: list[str] = field(default_factory=list)
    watching: bool = True
    thread: int = field(default_factory=threading.get_ident)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "socket.connect" or not self.watching or threading.get_ident() != self.thread:
            return
        host, port = args[1][:2] if isinstance(args[1], tuple) else ("", 0)
        if not host:
            return
        near = inner(ipaddress.ip_address(str(host))).is_loopback
        if port == self.port or not near:
            self.connected.append(str(host))
        if not near:
            raise ConnectionRefusedError("nothing leaves this machine in a test")


@pytest.fixture
def sockets(listener: tuple[int, list[str]]) -> Iterator[Sockets]:
    made = Sockets(listener[0])
    sys.addaudithook(made.hook)
    yield made
    made.watching = False  # hooks are for ever


async def test_no_connection_is_made_to_where_nobody_may(sockets: Sockets, listener: tuple[int, list[str]]) -> None:
    port, came = listener
    egress = Egress(Rules(ports=frozenset({port}), https=False))
    urls = [f"http://{host}:{port}/latest/meta-data/" for host in HOSTS] + [o.format(port=port) for o in OTHERS]
    for url in urls:
        with pytest.raises((EgressRefused, httpcore2.ConnectError)):  # some are no host's name at all
            await egress.post(url, {}, b"{}", seconds=5)
    assert sockets.connected == []
    assert came == []
    await egress.close()


async def test_the_same_would_be_reached_where_they_may(sockets: Sockets, listener: tuple[int, list[str]]) -> None:
    """Else the test before could not fail."""
    port, came = listener
    everything = Rules.of("0.0.0.0/0,::/0", https=False)
    hosts = ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"]
    for host in hosts:
        egress = Egress(everything)
        assert (await egress.post(f"http://{host}:{port}/", {}, b"{}", seconds=5)).status == 200
        await egress.close()
    assert len(came) == len(sockets.connected) == len(hosts)


async def test_only_named_ports(sockets: Sockets) -> None:
    egress = Egress(Rules(https=False))
    for port in (22, 25, 5432, 6379, 9000):
        with pytest.raises(EgressRefused, match="ports"):
            await egress.post(f"http://8.8.8.8:{port}/", {}, b"", seconds=5)
    with pytest.raises(EgressRefused, match="https"):
        await Egress(Rules()).post("http://8.8.8.8/", {}, b"", seconds=5)
    assert sockets.connected == []


class Names(BaseResolver):  # type: ignore[misc]
    """A name server whose answers are another each time."""

    def __init__(self, answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked = 0

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        reply = request.reply()
        wanted = self.answers[self.asked % len(self.answers)]
        if request.q.qtype == QTYPE.AAAA:  # asked last
            self.asked += 1
        for text in wanted:
            address = ipaddress.ip_address(text)
            if (address.version == 6) == (request.q.qtype == QTYPE.AAAA):
                data = AAAA(text) if address.version == 6 else A(text)
                reply.add_answer(RR(request.q.qname, request.q.qtype, rdata=data, ttl=0))
        return reply


@pytest.fixture
def names() -> Iterator[Callable[[list[list[str]]], tuple[Names, Callable[[str, int], Any]]]]:
    running: list[DNSServer] = []

    def serve(answers: list[list[str]]) -> tuple[Names, Callable[[str, int], Any]]:
        known = Names(answers)
        server = DNSServer(known, port=0, address="127.0.0.1")
        server.start_thread()
        running.append(server)
        port = server.server.server_address[1]

        async def resolve(host: str, _: int) -> list[Address]:
            def ask() -> list[Address]:
                found = []
                for kind in ("A", "AAAA"):
                    reply = DNSRecord.parse(DNSRecord.question(host, kind).send("127.0.0.1", port, timeout=5))
                    found += [ipaddress.ip_address(str(rr.rdata)) for rr in reply.rr]
                return found

            return await asyncio.to_thread(ask)

        return known, resolve

    yield serve
    for server in running:
        server.stop()
        server.server.server_close()


async def test_a_name_that_re_binds_gains_nothing(
    sockets: Sockets, listener: tuple[int, list[str]], names: Callable[..., Any]
) -> None:
    """It is public when it is checked and this machine a moment later, or the other way round."""
    port, came = listener
    public = "8.8.8.8"
    known, resolve = names([[public], ["127.0.0.1"], [public], ["::1"], [public], ["169.254.169.254"]])
    for turn in range(6):
        egress = Egress(Rules(ports=frozenset({port}), https=False), resolve)
        kind = EgressRefused if turn % 2 else httpcore2.ConnectError
        with pytest.raises(kind):
            await egress.post(f"http://rebind.example:{port}/", {}, b"{}", seconds=5)
        assert known.asked == turn + 1  # what was checked is what is connected to
        await egress.close()
    assert sockets.connected == [public] * 3
    assert came == []


async def test_one_address_that_is_not_public_spoils_all(
    sockets: Sockets, listener: tuple[int, list[str]], names: Callable[..., Any]
) -> None:
    port, came = listener
    for answers in (["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "::1"], ["::ffff:7f00:1"]):
        _, resolve = names([answers])
        with pytest.raises(EgressRefused):
            await Egress(Rules(ports=frozenset({port}), https=False), resolve).post(
                f"http://both.example:{port}/", {}, b"", seconds=5
            )
    assert sockets.connected == []
    assert came == []


async def test_no_proxy_of_the_environment(
    sockets: Sockets, listener: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, came = listener
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    with pytest.raises(httpcore2.ConnectError):
        await Egress(Rules(https=False)).post("http://8.8.8.8/", {}, b"", seconds=5)
    assert sockets.connected == ["8.8.8.8"]
    assert came == []


def test_a_platform_calls_nobody_of_these(own_platform: Callable[..., Platform]) -> None:
    """Endpoints of which it is seen at once are not made; of the others no delivery connects, nor does a redirect."""
    platform = own_platform(env={"MERCAT_EGRESS_NETWORKS": "127.0.0.2/32", "MERCAT_WEBHOOK_TIMEOUT": "5"})
    person = platform.session(platform.sign_up())
    with receiver() as here, receiver("127.0.0.2") as redirects:
        for host in ("127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "169.254.169.254", "[::1]"):
            request = w.CreateWebhookEndpointRequest(url=f"http://{host}:{here.port}/")
            assert fails(person.webhooks.CreateWebhookEndpoint, request).violations[0].field == "url"
        redirects.answers["/"], redirects.extra["location"] = 307, here.url()
        for url, error in (
            (f"http://localhost:{here.port}/", "no address of a public network"),
            (redirects.url(), "redirects are not followed"),
        ):
            made = person.webhooks.CreateWebhookEndpoint(w.CreateWebhookEndpointRequest(url=url)).endpoint
            sent = person.webhooks.SendTestEvent(w.SendTestEventRequest(endpoint_id=made.endpoint_id)).delivery
            until(lambda: delivery(person, sent.delivery_id).state == w.WEBHOOK_DELIVERY_STATE_FAILED)  # noqa: B023
            assert error in delivery(person, sent.delivery_id).error
        assert len(redirects.received) == 1
        assert here.received == []
