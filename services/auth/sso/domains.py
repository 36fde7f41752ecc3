"""How a domain is proved: by a TXT record below it (as RFC 8555 has it for certificates), which whoever may change its
zone can publish."""

import secrets
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.resolver

from services.common.errors import Unavailable

_PATIENCE = 5.0  # seconds, for all servers together
_LABEL, _VALUE = "_mercat-challenge", "mercat-domain-verification="


class DnsUnavailable(Unavailable, reason="DNS_UNAVAILABLE"):
    """The DNS does not answer."""


class Resolver(Protocol):
    async def txt(self, name: str) -> list[str]:
        """The TXT records of a name; none where there is no such name. Raises DnsUnavailable."""
        ...


class Dns:
    """Asks `server` (address:port), or without one those that this machine asks."""

    def __init__(self, server: str = "") -> None:
        self._server = server

    async def txt(self, name: str) -> list[str]:
        try:
            answer = await self._resolver().resolve(f"{name}.", "TXT", lifetime=_PATIENCE, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return []
        except dns.exception.DNSException:
            raise DnsUnavailable("the DNS does not answer; try again", retry_after=30) from None
        return [b"".join(record.strings).decode(errors="replace") for record in answer]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        """A new one for each question: what it remembers would hide a record that was published a moment ago."""
        if not self._server:
            return dns.asyncresolver.Resolver()
        resolver = dns.asyncresolver.Resolver(configure=False)
        host, _, port = self._server.rpartition(":")
        resolver.nameservers, resolver.port = [host.strip("[]")], int(port)
        return resolver


def new_token() -> str:
    return secrets.token_urlsafe(24)


def record(domain: str, token: str) -> tuple[str, str]:
    """Name and value of the record that proves a domain."""
    return f"{_LABEL}.{domain}", f"{_VALUE}{token}"


async def proves(resolver: Resolver, domain: str, token: str) -> bool:
    name, value = record(domain, token)
    return value in await resolver.txt(name)
