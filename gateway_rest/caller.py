"""Who sends a request, as far as the web edge itself sees it, and how it tells the services so."""

from __future__ import annotations

from starlette.requests import Request

from gateway_rest import upstream
from gateway_rest.settings import GatewaySettings
from services.common.rpc.addresses import EDGE_KEY, Addresses


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

    def metadata(self, request: Request) -> upstream.Metadata:
        """Raises Refusal for header values that gRPC cannot carry."""
        found = upstream.metadata(request.headers)
        if self._tells:
            found.append((EDGE_KEY, self._addresses.edge.say({"address": self.address(request)})))
        return found
