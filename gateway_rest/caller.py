"""Who sends a request, as far as the web edge itself sees it, and how it tells the services so."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from gateway_rest import upstream
from gateway_rest.settings import GatewaySettings
from services.common.rpc.addresses import EDGE_KEY, Addresses
from services.common.signatures import INPUT, SIGNATURE, TAG, BadSignature, read


class Callers:
    """Makes the metadata of the calls that requests become."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._behind_proxy = settings.gateway_behind_proxy
        self._addresses = Addresses(settings.internal_token)
        self._tells = bool(settings.internal_token)

    def address(self, request: Request) -> str:
        """As the front door saw it, else the proxy that there is said to be, else the connection's."""
        if seen := self._addresses.door(request.headers):
            return seen
        hops = [hop.strip() for hop in request.headers.get("x-forwarded-for", "").split(",") if hop.strip()]
        # Only the hop that the proxy itself appended is known to be true.
        if self._behind_proxy and hops:
            return hops[-1]
        return request.client.host if request.client else "local"

    def metadata(self, request: Request, *, streams: bool = False) -> upstream.Metadata:
        """Of a signed request also what the signature may be of; `streams`: its body is sent on as it comes, so that
        nobody can say whether it is the one that content-digest is of. Raises Refusal for header values that
        gRPC cannot carry."""
        found = upstream.metadata(request.headers)
        if self._tells:
            known: dict[str, Any] = {"address": self.address(request)}
            if INPUT in request.headers:
                known |= _signed(request, streams)
            found.append((EDGE_KEY, self._addresses.edge.say(known)))
        return found


def _signed(request: Request, streams: bool) -> dict[str, Any]:
    headers = request.headers
    path = bytes(request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1")
    body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return {
        "method": request.method, "path": path, "query": request.url.query, "authority": headers.get("host", ""),
        "headers": {name: ", ".join(headers.getlist(name)) for name in _covered(request) if name in headers},
        "body": body and not streams,
    }  # fmt: skip


def _covered(request: Request) -> set[str]:
    """Header fields that the signature is of."""
    headers = request.headers
    try:
        found = read(headers[INPUT], headers.get(SIGNATURE, ""), TAG)
    except BadSignature:  # which the services say
        return set()
    return {name for signed in found for name in signed.components if not name.startswith("@")}
