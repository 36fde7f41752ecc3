"""OAuth over HTTP as its own libraries speak it: forms in, JSON out, the documents that describe it, and the page where
people let devices in. What is decided is decided behind the contracts."""

from collections.abc import Callable

from starlette.routing import Route

from gateway_rest.oauth import discovery, forms, pages
from gateway_rest.settings import GatewaySettings
from gateway_rest.upstream import Upstream


def routes(settings: GatewaySettings, calls: Callable[[], Upstream]) -> list[Route]:
    """`calls` gives the services once the application runs."""
    return [*discovery.routes(settings), *forms.routes(settings, calls), *pages.routes(settings, calls)]
