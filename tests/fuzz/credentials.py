"""What proves who calls, as it comes in headers and forms: OAuth's endpoints, and signatures of requests."""

import base64
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request

from gateway_rest.errors import Refusal
from gateway_rest.oauth import forms
from services.auth.oauth.models import CLIENT_CREDENTIALS, DEVICE, Client, Device, Token, digest
from services.auth.oauth.protocol import Decision, Protocol
from services.common import signatures
from services.common.errors import MercatError
from services.common.rpc.policy import validate
from services.common.signatures import BadSignature, Signer
from tests.fuzz.target import Target, text

NOW = datetime(2026, 5, 1, tzinfo=UTC)
_SECRET = "s3cret of a client: it+is%long"
_CLIENT = Client("oac_1", "ci", "org_1", "usr_1", digest(_SECRET), frozenset({"inference:call", "usage:read"}))
_TOOL = Client("oac_2", "tool", "org_1", scopes=frozenset({"usage:read"}))
_ROW = {
    "client_id": "oac_2", "expires_at": NOW + timedelta(minutes=5), "polled_at": None, "interval_seconds": 5,
    "approved": True, "user_id": "usr_2", "scopes": None,
}  # fmt: skip


def _end(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine answers that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


def oauth(path: str) -> Callable[[], Target]:
    """The first line is the header `authorization`, what follows the form; the client, the device and the token that it
    may name are there. Nobody is let in by another secret, code or token than theirs."""
    endpoint = forms.ENDPOINTS[path]
    kind = b"application/x-www-form-urlencoded"

    def run(data: bytes) -> None:
        header, _, body = data.partition(b"\n")

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(b"content-type", kind)] + ([(b"authorization", header)] if header else [])
        request = Request({"type": "http", "method": "POST", "path": path, "headers": headers}, receive)
        with suppress(forms.Refused, Refusal, MercatError):
            message = _end(forms.read(endpoint, request))
            validate(message)
            decide(path, {field.name: value for field, value in message.ListFields()})

    basic = b"Basic " + base64.b64encode(b"oac_1:s3cret+of+a+client%3A+it%2Bis%25long")
    own = b"client_id=oac_1&client_secret=s3cret+of+a+client%3A+it%2Bis%25long"
    seeds = {
        "/oauth/token": [
            basic + b"\ngrant_type=client_credentials&scope=usage%3Aread",
            b"\ngrant_type=client_credentials&" + own,
            b"\ngrant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=dc&client_id=oac_2",
            b"\ngrant_type=refresh_token&refresh_token=rt&client_id=oac_2&scope=usage%3Aread",
        ],
        "/oauth/device_authorization": [b"\nclient_id=oac_2&scope=usage%3Aread", b"\nclient_id=oac_2"],
        "/oauth/introspect": [basic + b"\ntoken=at", b"\ntoken=at&token_type_hint=access_token&" + own],
        "/oauth/revoke": [basic + b"\ntoken=at", b"\ntoken=rt&token_type_hint=refresh_token&client_id=oac_2"],
    }
    return lambda: Target(run, seeds[path], 1024)


def decide(path: str, said: dict[str, str]) -> None:
    """As the service does with what it finds in the database. Raises MercatError."""
    client = {c.client_id: c for c in (_CLIENT, _TOOL)}.get(said.get("client_id", ""))
    device = Device(_ROW, NOW) if said.get("device_code") == "dc" else None
    token = Token("oac_2", "ses_1", "usr_2") if "rt" in (said.get("refresh_token"), said.get("token")) else None
    protocol = Protocol(client, device=device, token=token, page="https://mercat.example/oauth/device")
    if path == "/oauth/token":
        decision = protocol.decide_token(said)
    else:
        name = {"introspect": "introspection", "revoke": "revocation"}.get(path[7:], path[7:])
        decision = protocol.decide(name, said)
    if decision.error:
        raise decision.refusal()
    _allowed(path, said, decision)


def _allowed(path: str, said: dict[str, str], decision: Decision) -> None:
    proved = said.get("client_id") == "oac_1" and said.get("client_secret") == _SECRET
    grant = said.get("grant_type")
    if path == "/oauth/introspect" or grant == CLIENT_CREDENTIALS:
        assert proved
    elif path == "/oauth/token":
        assert said["client_id"] == "oac_2"
        assert said.get("device_code") == "dc" if grant == DEVICE else said.get("refresh_token") == "rt"
    elif path == "/oauth/device_authorization":
        assert said["client_id"] == "oac_2"
        assert decision.body["user_code"]
    else:
        assert proved or said.get("client_id") == "oac_2"
    scope = frozenset(said.get("scope", "").split())
    if grant == CLIENT_CREDENTIALS or path == "/oauth/device_authorization":  # a device has what it asked for before
        assert scope <= _CLIENT.scopes  # type: ignore[operator]


def _request(body: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """The values of a request's components, and the fields that sign it."""
    made = Signer("sgk_1", signatures.HMAC_SHA256, b"k" * 32).headers(
        "POST", "mercat.example:443", "/v1/models/a/b:predict", body, now=1_800_000_000, query="view=FULL"
    )
    values = {
        "@method": "POST", "@authority": "mercat.example", "@path": "/v1/models/a/b:predict", "@query": "?view=FULL",
        "content-digest": made["content-digest"],
    }  # fmt: skip
    return values, made


def signed_request() -> Target:
    """The field signature-input, a line feed, and the field signature. Nothing verifies but what was signed."""
    values, made = _request(b"{}")
    good = signatures.read(made["signature-input"], made["signature"])[0]

    def run(data: bytes) -> None:
        first, _, second = data.partition(b"\n")
        with suppress(BadSignature):
            for found in signatures.read(text(first), text(second)):
                base = signatures.base(found.components, found.params, values)
                if signatures.verify(signatures.HMAC_SHA256, b"k" * 32, base, found.signature):
                    assert (found.components, dict(found.params)) == (good.components, dict(good.params))
                signatures.verify(signatures.ED25519, bytes(32), base, found.signature)

    more = b'a=("@method" "x-a");created=1;nonce="n";expires=?1, b=();alg=tok;p=1.5;q=:AA==:, c=("@path";sf)'
    seed = f"{made['signature-input']}\n{made['signature']}".encode()
    return Target(run, [seed, more + b"\na=:AA==:, b=:AAAA:, c=:AA==:"], 1024)


def content_digest() -> Target:
    """The field, a line feed, and the body that it is of."""
    body = b'{"inputs":[]}'
    good = signatures.digest(body).encode()

    def run(data: bytes) -> None:
        field, _, said = data.partition(b"\n")
        with suppress(BadSignature):
            signatures.check_digest(text(field), said)
            assert said in (body, b"")

    empty = signatures.digest(b"").encode()
    return Target(run, [good + b"\n" + body, empty + b"\n", b"sha-512=:AA==:, md5=:AA==:;a=1\nx"], 512)


def structured_field() -> Target:
    """What the library reads as a dictionary it writes, and reads again as the same."""
    import http_sf

    def run(data: bytes) -> None:
        try:
            found: Any = http_sf.parse(data, tltype="dictionary")
        except ValueError:
            return
        if found:
            assert http_sf.parse(http_sf.ser(found).encode(), tltype="dictionary") == found

    _, made = _request(b"{}")
    seeds = [value.encode() for value in made.values()]
    return Target(run, [*seeds, b'a=1, b=?0;x="y";z=*t, c=(1.5 "s" :AA==: tok);p, d, e=@1659578233, f=%"f%c3%bc"'], 512)
