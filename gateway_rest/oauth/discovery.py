"""What this server can do, for programs that find out by themselves (RFC 8414)."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway_rest import contracts
from gateway_rest.replies import JSON
from gateway_rest.settings import GatewaySettings

PATH = "/.well-known/oauth-authorization-server"
WITH_SECRET = ["client_secret_basic", "client_secret_post"]


def document(url: str) -> dict[str, Any]:
    """`url`: where this platform is reached, the issuer of its tokens. There is no authorization endpoint, and so no
    response type."""
    scopes = {scope for binding in contracts.bindings() for scope in binding.policy.scopes}
    return {
        "issuer": url,
        "token_endpoint": f"{url}/oauth/token",
        "device_authorization_endpoint": f"{url}/oauth/device_authorization",
        "introspection_endpoint": f"{url}/oauth/introspect",
        "revocation_endpoint": f"{url}/oauth/revoke",
        "jwks_uri": f"{url}/v1/jwks",
        "scopes_supported": sorted(scopes),
        "response_types_supported": [],
        "grant_types_supported": [
            "client_credentials", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "token_endpoint_auth_methods_supported": [*WITH_SECRET, "none"],
        "introspection_endpoint_auth_methods_supported": WITH_SECRET,
        "revocation_endpoint_auth_methods_supported": [*WITH_SECRET, "none"],
        "service_documentation": f"{url}/docs",
    }  # fmt: skip


def routes(settings: GatewaySettings) -> list[Route]:
    text = json.dumps(document(settings.url))

    async def describe(request: Request) -> Response:
        return Response(text, media_type=JSON, headers={"cache-control": "max-age=300"})

    return [Route(PATH, describe)]
