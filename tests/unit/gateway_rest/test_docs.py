from __future__ import annotations

import re

import httpx
import pytest

from gateway_rest import app
from gateway_rest.settings import GatewaySettings


@pytest.fixture
async def edge() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app.build(GatewaySettings(control="127.0.0.1:1")))
    return httpx.AsyncClient(transport=transport, base_url="http://edge")


async def test_pages_come_from_here_alone(edge: httpx.AsyncClient) -> None:
    answer = await edge.get("/docs")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "<style" not in answer.text
    linked = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert linked
    for path in linked:
        assert (await edge.get(f"/{path}")).status_code == 200
    assert not re.search(r"<script(?![^>]*src=)", answer.text)


async def test_document_is_served(edge: httpx.AsyncClient) -> None:
    assert (await edge.get("/openapi.json")).json()["openapi"].startswith("3.1")


async def test_landing_is_for_people_and_programs(edge: httpx.AsyncClient) -> None:
    assert (await edge.get("/")).json()["docs"] == "/docs"
    page = await edge.get("/", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/signup" in page.text


async def test_only_the_listed_assets_are_served(edge: httpx.AsyncClient) -> None:
    assert (await edge.get("/docs/swagger-editor.js")).status_code == 404
    assert (await edge.get("/docs/../app.py")).status_code == 404


def test_gateway_without_anything_to_call_does_not_start() -> None:
    with pytest.raises(ValueError, match="MERCAT_GRPC"):
        app.build(GatewaySettings(control="", grpc=""))
