"""What a newcomer meets: the landing page, the OpenAPI document and its interactive page, without any other origin."""

from __future__ import annotations

import html
import json
from importlib.util import find_spec
from pathlib import Path

import mercat
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from gateway_rest import openapi
from gateway_rest.replies import JSON

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")

DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mercat API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
  persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis],
});
"""

FIRST_CALLS = (
    ("Sign up", "POST", "/v1/signup", {"email": "ada@example.com", "username": "ada", "password": "…"}),
    ("Make an API key", "POST", "/v1/keys", {"name": "my first key"}),
    ("Browse the models", "GET", "/v1/models", None),
    ("Call one", "POST", "/v1/models/PUBLISHER/NAME:predict", {"inputs": [{"name": "…", "data": []}]}),
    ("See what it cost", "GET", "/v1/usage", None),
)


def _landing() -> dict[str, object]:
    calls = [
        {"what": what, "method": method, "path": path, **({"body": body} if body else {})}
        for what, method, path, body in FIRST_CALLS
    ]
    return {"name": "Mercat", "docs": "/docs", "openapi": "/openapi.json", "health": "/healthz", "firstCalls": calls}


def _landing_page() -> str:
    rows = "\n".join(
        f"<li>{html.escape(what)}<pre>{method} {html.escape(path)}"
        + (f"\n{html.escape(json.dumps(body, ensure_ascii=False))}" if body else "")
        + "</pre></li>"
        for what, method, path, body in FIRST_CALLS
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Mercat</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body>\n<h1>Mercat</h1>\n'
        "<p>A marketplace and inference mesh for AI models: one API for all of them, over gRPC and REST.</p>\n"
        '<p><a href="/docs">Try the API</a> · <a href="/openapi.json">OpenAPI 3.1</a></p>\n'
        f"<h2>First calls</h2>\n<ol>\n{rows}\n</ol>\n</body></html>\n"
    )


def document() -> bytes:
    """The generated document where the sources are; else one without comments, made from what is imported."""
    generated = Path(mercat.__path__[0]).parent / "openapi" / "mercat.json"
    if generated.exists():
        return generated.read_bytes()
    return json.dumps(openapi.document(FileDescriptorSet()), ensure_ascii=False).encode()


def routes() -> list[Route]:
    spec = find_spec("swagger_ui")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("swagger-ui-py is not installed: run `make install`")
    static = Path(spec.submodule_search_locations[0]) / "static"
    described = document()

    async def landing(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(_landing_page(), headers=HEADERS)
        return Response(json.dumps(_landing(), ensure_ascii=False, indent=2), headers=HEADERS, media_type=JSON)

    async def page(request: Request) -> Response:
        return HTMLResponse(DOCS, headers=HEADERS)

    async def start(request: Request) -> Response:
        return Response(START, headers=HEADERS, media_type="text/javascript")

    async def asset(request: Request) -> Response:
        return FileResponse(static / request.url.path.rpartition("/")[2], headers=HEADERS)

    async def openapi_json(request: Request) -> Response:
        return Response(described, headers=HEADERS, media_type=JSON)

    return [
        *(Route(path, landing) for path in ("/", "/console", "/console/")),
        Route("/openapi.json", openapi_json),
        Route("/docs", page),
        Route("/docs/start.js", start),
        *(Route(f"/docs/{name}", asset) for name in ASSETS),
    ]
