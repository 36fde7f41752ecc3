"""Signatures of Standard Webhooks 1.0 (https://github.com/standard-webhooks/standard-webhooks, "v1"): HMAC-SHA256 of
`id.timestamp.body` under a secret of 24 to 64 bytes, which is shown as `whsec_` and base64."""

import base64
import hmac
import os
from collections.abc import Iterable

PREFIX = "whsec_"
_SECRET = 32  # bytes


def new_secret() -> bytes:
    return os.urandom(_SECRET)


def shown(secret: bytes) -> str:
    return PREFIX + base64.b64encode(secret).decode()


def read(text: str) -> bytes:
    """Of a secret as it is shown. Raises ValueError for what is none."""
    secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    if not 24 <= len(secret) <= 64:
        raise ValueError("a secret has 24 to 64 bytes")
    return secret


def headers(message_id: str, timestamp: int, body: bytes, secrets: Iterable[bytes]) -> dict[str, str]:
    """Those of a delivery, signed with each of the secrets. `timestamp`: seconds since 1970, of this attempt."""
    text = f"{message_id}.{timestamp}.".encode() + body
    signed = [f"v1,{base64.b64encode(hmac.digest(secret, text, 'sha256')).decode()}" for secret in secrets]
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(signed)}
