"""What publishers write of models: cards, and what they sign."""

import contextlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.common import attesting
from services.registry.cards.front_matter import CardInvalid, read
from services.registry.cards.rendering import rendered
from tests.fuzz.target import Target, text


def card() -> Target:
    """Front matter and Markdown: fields or a refusal, and HTML in which nothing runs."""

    def run(data: bytes) -> None:
        with contextlib.suppress(CardInvalid):
            read(text(data), "card")
        html = rendered(text(data)).lower()
        assert not any(opened in html for opened in ("<script", "<svg", "<iframe", "<style", "<form"))

    front = b"---\nlicense: MIT\nlanguage: [no, pt-BR]\nmetrics:\n- {name: f1, value: 0.5}\n---\n"
    body = b"# A <b>b</b> [x](https://a.example 't') ![i](https://a.example/i.png)\n\n|a|b|\n|-|:-:|\n|1|2|\n\n```py\n<script>\n```"
    return Target(
        run, [front + body, b"---\na: &a [x]\nb: *a\n---\n", b"<svg/onload=alert(1)><a href=javascript:x>y</a>"]
    )


def attestation() -> Target:
    """An envelope: what a trusted key signed, or a refusal."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    keys = {attesting.fingerprint(key.public_key()): key.public_key()}
    said = attesting.statement(
        "m", f"sha256:{'ab' * 32}", "a/m", "1.0.0", builder="urn:x", repository="https://a.example", commit="cd" * 20
    )
    good = attesting.sign(said, key)

    def run(data: bytes) -> None:
        with contextlib.suppress(attesting.BadAttestation):
            assert attesting.verify(text(data), keys).builder == "urn:x"

    return Target(
        run, [good.encode(), b'{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[{}]}']
    )
