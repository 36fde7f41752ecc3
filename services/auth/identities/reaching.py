"""Where a provider may be that somebody other than the operator named: nowhere within, or they would have this machine
ask what they cannot ask themselves (CWE-918)."""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from services.common.errors import InvalidFields, Violation


async def check_outside(url: str) -> None:
    """Raises InvalidFields for what is not https, and for names of this machine and of private networks."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise _refused("must be https://…, and so must be what its discovery document names")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _refused(f"{parts.hostname} is not found") from None
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
            raise _refused(f"{parts.hostname} is not on the public network; the operator can allow that")


def _refused(description: str) -> InvalidFields:
    return InvalidFields(violations=[Violation("issuer", description)], reason="ISSUER_REFUSED")
