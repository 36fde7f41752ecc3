"""Requests to addresses that somebody else chose: they reach public networks, and nothing of ours.

A URL is checked when it is said, and its host again for each connection: the name is resolved once, all it resolves to
must be public, and the connection is made to that very address, so that a name which resolves to another one a moment
later gains nothing. There are no proxies and no redirects. What is connected to is checked, not how it was written:
decimal and octal addresses are what the resolver makes of them."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import httpcore2
import httpx2

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[Address]]]
PORTS = frozenset({80, 443, 8080, 8443})
_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that RFC 4291 has given out for hosts
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052; 64:ff9b:1::/48 is somebody's own
# Not known as such to each Python: IETF's protocols (where Oracle's cloud has its metadata), Azure's platform, what RFC
# 7526 took back, RFC 9637's documentation.
_NOT_PUBLIC = [ipaddress.ip_network(n) for n in ("192.0.0.0/24", "168.63.129.16/32", "192.88.99.0/24", "3fff::/20")]
_RESOLVING = 32  # names at once; one whose servers are slow must not hold up others


class EgressRefused(Exception):
    """This is not a place that may be called; the text says why."""


def inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for (mapped, 6to4, Teredo, NAT64), else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def is_public(address: Address) -> bool:
    """Whether it is a host's on the Internet: not loopback, private, link-local (where clouds keep their metadata),
    shared (RFC 6598), multicast, reserved, nor an IPv6 form of such."""
    address = inner(address)
    if isinstance(address, ipaddress.IPv6Address) and (address not in _UNICAST or address.scope_id):
        return False
    within = any(address.version == n.version and address in n for n in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast and not address.is_reserved and not within


async def resolve(host: str, port: int) -> list[Address]:
    """What the system's resolver says, in its order. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        _resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    )
    return list(dict.fromkeys(ipaddress.ip_address(at[0]) for *_, at in found))


_resolvers = ThreadPoolExecutor(_RESOLVING, thread_name_prefix="resolver")


@dataclass(frozen=True)
class Rules:
    """Where requests may go. `networks`: beside the public ones, on any port; `https`: only by TLS."""

    networks: tuple[Network, ...] = ()
    ports: frozenset[int] = PORTS
    https: bool = True

    @classmethod
    def of(cls, networks: str, *, https: bool) -> "Rules":
        """`networks`: such as `127.0.0.0/8,::1/128`. Raises ValueError for what is none."""
        named = [ipaddress.ip_network(one.strip()) for one in networks.split(",") if one.strip()]
        return cls(tuple(named), https=https)

    def url(self, text: str) -> httpx2.URL:
        """A URL that may be called, as far as that can be seen without asking for its host. Raises EgressRefused."""
        try:
            url = httpx2.URL(text)
            host, port = url.host, url.port
        except (httpx2.InvalidURL, ValueError, UnicodeError):
            raise EgressRefused("must be a URL such as https://example.com/webhooks") from None
        if url.scheme not in (("https",) if self.https else ("https", "http")) or not host or not text.isprintable():
            raise EgressRefused(
                f"must be a URL such as https://example.com/webhooks{'' if self.https else ', or http'}"
            )
        if url.userinfo or url.fragment:
            raise EgressRefused("must have neither a user nor a fragment")
        port = (443 if url.scheme == "https" else 80) if port is None else port
        if not 0 < port < 65536 or (port not in self.ports and not self.networks):
            raise self._port()
        if (literal := _literal(host)) is not None:
            self.check(literal, port)
        return url

    def check(self, address: Address, port: int) -> None:
        """Raises EgressRefused."""
        if any(a.version == n.version and a in n for a in {address, inner(address)} for n in self.networks):
            return
        if not is_public(address):
            raise EgressRefused(f"{address} is no address of a public network")
        if port not in self.ports:
            raise self._port()

    def _port(self) -> EgressRefused:
        return EgressRefused(f"must have one of the ports {', '.join(map(str, sorted(self.ports)))}")


def _literal(host: str) -> Address | None:
    """The address that a host is written as, also as numbers that only `inet_aton` takes; None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host[-1:].isalnum() and host[0].isdigit() else None
    except OSError:
        return None


class _Checked(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked."""

    def __init__(self, rules: Rules, resolve: Resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:  # fmt: skip
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host.strip("[]"), port)
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"{host} was not resolved in time") from None
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise httpcore2.ConnectError(f"there is no host {host}")
        for address in addresses:
            self._rules.check(address, port)
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(str(addresses[-1]), port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Answer:
    """`body`: the beginning of it."""

    status: int
    body: bytes


class Egress:
    """Posts to URLs. A connection is kept for a moment, for the same host and port."""

    def __init__(self, rules: Rules, resolve: Resolve = resolve, trust: ssl.SSLContext | None = None) -> None:
        """`trust`: instead of the system's authorities, or those of SSL_CERT_FILE."""
        self.rules = rules
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trust or httpx2.create_ssl_context(), max_connections=256, max_keepalive_connections=32,
            keepalive_expiry=5.0, network_backend=_Checked(rules, resolve),
        )  # fmt: skip

    async def post(
        self, text: str, headers: Mapping[str, str], body: bytes, *, seconds: float, most: int = 4096
    ) -> Answer:
        """What was answered, of whose body at most `most` bytes are read. A redirect is an answer.

        Raises:
            EgressRefused: the URL, or where its name leads to, may not be called: no connection was made.
            httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, TimeoutError: no answer
                within `seconds`.
        """
        url = self.rules.url(text)
        said = {"host": url.netloc.decode("ascii"), "content-length": str(len(body)), **headers}
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        each = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
        async with asyncio.timeout(seconds):
            async with self._pool.stream(
                "POST", target, headers=[(k.encode(), v.encode()) for k, v in said.items()], content=body,
                extensions={"timeout": each},
            ) as answer:  # fmt: skip
                read = bytearray()
                async for chunk in answer.aiter_stream():
                    read += chunk
                    if len(read) >= most:
                        break
                return Answer(answer.status, bytes(read[:most]))

    async def close(self) -> None:
        await self._pool.aclose()
