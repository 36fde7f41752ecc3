"""What of a provider is believed: one that says whatever a test tells it to, at a port of its own."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from services.auth.identities.protocol import Found, IdentityRefused, ProviderUnavailable, Relying, Secrets
from services.auth.identities.providers import Provider

SECRETS = Secrets("the-nonce", "v" * 43)
KEYS = {kid: rsa.generate_private_key(65537, 2048) for kid in ("one", "two")}


def jwk(kid: str) -> dict[str, Any]:
    return jwt.algorithms.RSAAlgorithm.to_jwk(KEYS[kid].public_key(), as_dict=True) | {"kid": kid, "use": "sig"}


class Says:
    """The provider's answers, by path; a change of `claims` makes another ID token."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[str] = []
        now = int(time.time())
        self.claims: dict[str, Any] = {
            "iss": url, "aud": "mercat", "sub": "s1", "iat": now, "exp": now + 300, "nonce": SECRETS.nonce,
            "email": "ada@x.example", "email_verified": True, "preferred_username": "ada",
        }  # fmt: skip
        self.token: str | None = None
        self.published = ["one"]
        self.answers: dict[str, Any] = {"/.well-known/openid-configuration": {
            "issuer": url, "authorization_endpoint": f"{url}/authorize", "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/jwks", "userinfo_endpoint": f"{url}/userinfo",
        }}  # fmt: skip

    def answer(self, path: str) -> Any:
        self.asked.append(path)
        if path == "/jwks":
            return {"keys": [jwk(kid) for kid in self.published]}
        if path == "/token" and path not in self.answers:
            token = self.token
            if token is None:
                token = jwt.encode(self.claims, KEYS["one"], "RS256", {"kid": "one"})
            return {"access_token": "at", "token_type": "Bearer", "id_token": token}
        return self.answers.get(path)


@pytest.fixture
def says() -> Iterator[Says]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            said = provider.answer(urlsplit(self.path).path)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(404 if said is None else 400 if isinstance(said, dict) and "error" in said else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = Says(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    yield provider
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def relying() -> Relying:
    return Relying("https://ai.example/oauth/callback")


def provider(says: Says, **more: Any) -> Provider:
    listed = {"id": "acme", "client_id": "mercat", "client_secret": "s", "issuer": says.url}
    return Provider.model_validate(listed | more)


async def test_it_is_asked_with_pkce_state_and_nonce(says: Says, relying: Relying) -> None:
    url = await relying.begin(provider(says), "the-state", SECRETS)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert url.startswith(f"{says.url}/authorize?")
    assert (asked["state"], asked["nonce"], asked["code_challenge_method"]) == ("the-state", SECRETS.nonce, "S256")
    assert asked["redirect_uri"] == "https://ai.example/oauth/callback"
    assert SECRETS.verifier not in url


async def test_a_good_token_says_who_it_is(says: Says, relying: Relying) -> None:
    found = await relying.finish(provider(says), "code", SECRETS)
    assert found == Found(says.url, "s1", "ada@x.example", True, False, "ada")
    assert (await relying.finish(provider(says, trusted=True), "code", SECRETS)).owned
    says.claims["email_verified"] = "true"  # not what the standard has
    assert not (await relying.finish(provider(says, trusted=True), "code", SECRETS)).owned


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "https://evil.example"}, {"aud": "somebody else"}, {"aud": ["mercat", "other"]}, {"azp": "other"},
        {"exp": 1}, {"nonce": "another"}, {"nonce": None}, {"sub": None}, {"exp": None}, {"iat": None},
        {"iat": 4_000_000_000},
    ],
    ids=str,
)  # fmt: skip
async def test_a_token_that_is_not_for_us_and_now_is_refused(
    says: Says, relying: Relying, change: dict[str, Any]
) -> None:
    claims = says.claims | change
    says.claims = {name: value for name, value in claims.items() if value is not None}
    with pytest.raises(IdentityRefused):
        await relying.finish(provider(says), "code", SECRETS)


async def test_a_token_that_nobody_signed_is_refused(says: Says, relying: Relying) -> None:
    for token in (
        "", "x.y.z", jwt.encode(says.claims, None, "none", {"kid": "one"}),
        jwt.encode(says.claims, "s" * 32, "HS256", {"kid": "one"}),
        jwt.encode(says.claims, KEYS["two"], "RS256", {"kid": "one"}),
        jwt.encode(says.claims, KEYS["two"], "RS256", {"kid": "two"}),
    ):  # fmt: skip
        says.token = token
        with pytest.raises(IdentityRefused):
            await relying.finish(provider(says), "code", SECRETS)


async def test_keys_are_kept_and_asked_for_anew_when_they_are_replaced(says: Says, relying: Relying) -> None:
    for _ in range(3):
        await relying.finish(provider(says), "code", SECRETS)
    assert says.asked.count("/jwks") == 1
    says.published = ["two"]
    says.token = jwt.encode(says.claims, KEYS["two"], "RS256", {"kid": "two"})
    await relying.finish(provider(says), "code", SECRETS)
    assert says.asked.count("/jwks") == 2


async def test_an_address_may_be_told_apart_from_the_token(says: Says, relying: Relying) -> None:
    del says.claims["email"], says.claims["email_verified"]
    says.answers["/userinfo"] = {"sub": "s1", "email": "ada@y.example", "email_verified": True}
    found = await relying.finish(provider(says), "code", SECRETS)
    assert (found.subject, found.email, found.verified) == ("s1", "ada@y.example", True)
    says.answers["/userinfo"] = {"sub": "s2", "email": "eve@y.example"}
    with pytest.raises(IdentityRefused):
        await relying.finish(provider(says), "code", SECRETS)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/.well-known/openid-configuration", {"issuer": "https://other.example"}),
        ("/.well-known/openid-configuration", b"<html>"),
        ("/.well-known/openid-configuration", [1]),
        ("/.well-known/openid-configuration", None),
    ],
)
async def test_a_provider_that_is_not_who_it_should_be(says: Says, relying: Relying, path: str, said: Any) -> None:
    says.answers[path] = said
    with pytest.raises(ProviderUnavailable):
        await relying.begin(provider(says), "state", SECRETS)


async def test_what_the_provider_refuses_is_refused(says: Says, relying: Relying) -> None:
    says.answers["/token"] = {"error": "invalid_grant", "error_description": "no"}
    with pytest.raises(IdentityRefused, match="invalid_grant"):
        await relying.finish(provider(says), "code", SECRETS)
    says.answers["/token"] = b"not JSON"
    with pytest.raises((IdentityRefused, ProviderUnavailable)):
        await relying.finish(provider(says), "code", SECRETS)
