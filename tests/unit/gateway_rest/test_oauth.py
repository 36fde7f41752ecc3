"""OAuth's forms, before any call is made."""

from __future__ import annotations

import base64

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_rest import app
from gateway_rest.oauth.forms import Refused, with_basic
from gateway_rest.settings import GatewaySettings

FORM = {"content-type": "application/x-www-form-urlencoded"}


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_client_names_itself_in_one_way() -> None:
    assert with_basic({"scope": "x"}, "") == {"scope": "x"}
    found = with_basic({"scope": "x"}, basic("a%3Ab:s%25"))
    assert found == {"scope": "x", "client_id": "a:b", "client_secret": "s%"}
    assert with_basic({"client_id": "a"}, basic("a:s"))["client_secret"] == "s"
    for form, header, error in (
        ({"client_secret": "s"}, basic("a:s"), "invalid_request"),
        ({"client_id": "b"}, basic("a:s"), "invalid_request"),
        ({}, "Bearer x", "invalid_client"),
        ({}, "Basic ", "invalid_client"),
        ({}, "Basic %%%", "invalid_client"),
        ({}, basic("no colon"), "invalid_client"),
        ({}, "Basic /w==", "invalid_client"),
    ):
        with pytest.raises(Refused) as caught:
            with_basic(form, header)
        assert caught.value.error == error
        assert caught.value.http == (401 if error == "invalid_client" else 400)


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_no_header_breaks_it(header: str, form: dict[str, str]) -> None:
    try:
        found = with_basic(form, header)
    except Refused:
        return
    assert set(found) >= set(form)


@pytest.fixture
async def edge() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app.build(GatewaySettings(control="127.0.0.1:1", public_url="https://ai.example")))
    return httpx.AsyncClient(transport=transport, base_url="http://edge")


async def test_it_says_what_it_can_do(edge: httpx.AsyncClient) -> None:
    found = (await edge.get("/.well-known/oauth-authorization-server")).json()
    assert found["issuer"] == "https://ai.example"
    assert found["token_endpoint"] == "https://ai.example/oauth/token"
    assert found["response_types_supported"] == []
    assert {"inference:call", "usage:read"} <= set(found["scopes_supported"])


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"a=1&a=2", FORM),
        (b"{}", {"content-type": "application/json"}),
        (b"", {}),
        (b"a=%ff", FORM),
        (b"\xff", FORM),
        (b"&".join(b"a%d=1" % n for n in range(100)), FORM),
        (b"a=" + b"x" * 100_000, FORM),
        (b"a=1", FORM | {"content-encoding": "gzip"}),
    ],
)
async def test_what_is_no_form_is_refused(edge: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
    answer = await edge.post("/oauth/token", content=body, headers=headers)
    assert answer.status_code in (400, 413, 415)
    assert answer.json()["error"] == "invalid_request"
    assert answer.headers["cache-control"] == "no-store"
